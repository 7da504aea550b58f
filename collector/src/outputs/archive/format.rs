//! The files of an archive, `*.wla`, version 1: a header, then records. Integers are little-endian.
//!
//! Header, 36 bytes: `WLARCHIV` · `u32` version 1 · `u32` 0 · `i64` opened (unix ns) · `u64` number of the file, from 0 · `u32` CRC32C of what
//! stands before it.
//!
//! Record: `u32` length of the body · `u8` kind · 3 bytes 0 · `u64` number, from 0 in each file · the body · `u32` CRC32C of all before it.
//!
//! | kind | body |
//! |---|---|
//! | 1 | an encoded `watchline.v1.Certificates`: before the first batch of this signer in each file |
//! | 2 | an encoded `watchline.v1.SealedBatch` as it lay in the buffer: seal, payload, signature, signer, receipts |
//! | 3 | the end of a complete file: `u64` how many records stand before it |
//!
//! Records of kinds that a reader does not know are passed over; a version that it does not know is refused.

use std::io::{self, Read};

use watchline_proto::MAX_MESSAGE_BYTES;

pub(crate) const HEADER_BYTES: usize = 36;
const MAGIC: &[u8; 8] = b"WLARCHIV";
const VERSION: u32 = 1;
const RECORD_HEAD_BYTES: usize = 16;
/// A stored batch is a message and the receipt of the collector that stored it.
pub(crate) const MAX_BODY_BYTES: usize = MAX_MESSAGE_BYTES + 4096;

/// What a record is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Certificates,
    Batch,
    End,
    /// Of a newer program.
    Unknown(u8),
}

impl Kind {
    fn number(self) -> u8 {
        match self {
            Kind::Certificates => 1,
            Kind::Batch => 2,
            Kind::End => 3,
            Kind::Unknown(number) => number,
        }
    }

    fn of(number: u8) -> Kind {
        match number {
            1 => Kind::Certificates,
            2 => Kind::Batch,
            3 => Kind::End,
            other => Kind::Unknown(other),
        }
    }
}

pub(crate) fn write_header(opened_unix_nano: i64, number: u64, out: &mut Vec<u8>) {
    let start = out.len();
    out.extend_from_slice(MAGIC);
    out.extend_from_slice(&VERSION.to_le_bytes());
    out.extend_from_slice(&[0; 4]);
    out.extend_from_slice(&opened_unix_nano.to_le_bytes());
    out.extend_from_slice(&number.to_le_bytes());
    let crc = crc32c::crc32c(&out[start..]);
    out.extend_from_slice(&crc.to_le_bytes());
}

/// Appends a record and counts it. A body is at most [`MAX_BODY_BYTES`] long.
pub(crate) fn write_record(kind: Kind, body: &[u8], records: &mut u64, out: &mut Vec<u8>) {
    let start = out.len();
    out.extend_from_slice(&u32::try_from(body.len()).unwrap_or(u32::MAX).to_le_bytes());
    out.extend_from_slice(&[kind.number(), 0, 0, 0]);
    out.extend_from_slice(&records.to_le_bytes());
    out.extend_from_slice(body);
    let crc = crc32c::crc32c(&out[start..]);
    out.extend_from_slice(&crc.to_le_bytes());
    *records += 1;
}

/// Why a file of an archive cannot be read on.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ReadError {
    #[error("not a file of an archive")]
    NotAnArchive,
    #[error("version {0} is not readable here")]
    Version(u32),
    /// The file ends within a header or record: what a killed process leaves at the end of the file that it wrote.
    #[error("ends within a record")]
    Cut,
    #[error("{0}")]
    Damaged(&'static str),
    #[error("read")]
    Io(#[source] io::Error),
}

/// One record.
#[derive(Debug)]
pub(crate) struct Record {
    pub(crate) kind: Kind,
    /// Where it begins in the file.
    pub(crate) offset: u64,
    pub(crate) body: Vec<u8>,
}

/// Reads the records of one file in order; holds one of them.
pub(crate) struct Reader<R> {
    from: R,
    pub(crate) opened_unix_nano: i64,
    /// How many files of this archive were closed before it.
    pub(crate) file_number: u64,
    offset: u64,
    /// Of the next record.
    number: u64,
}

impl<R: Read> Reader<R> {
    pub(crate) fn new(mut from: R) -> Result<Reader<R>, ReadError> {
        let mut header = [0; HEADER_BYTES];
        let got = fill(&mut from, &mut header).map_err(ReadError::Io)?;
        if !header[..got].starts_with(&MAGIC[..got.min(MAGIC.len())]) {
            return Err(ReadError::NotAnArchive);
        }
        if got < HEADER_BYTES {
            return Err(ReadError::Cut);
        }
        let version = u32_at(&header, 8);
        if version != VERSION {
            return Err(ReadError::Version(version));
        }
        if crc32c::crc32c(&header[..HEADER_BYTES - 4]) != u32_at(&header, HEADER_BYTES - 4) {
            return Err(ReadError::Damaged("checksum of the header"));
        }
        Ok(Reader {
            from,
            opened_unix_nano: u64_at(&header, 16).cast_signed(),
            file_number: u64_at(&header, 24),
            offset: HEADER_BYTES as u64,
            number: 0,
        })
    }

    /// Where the next record begins.
    pub(crate) fn offset(&self) -> u64 {
        self.offset
    }

    /// The next record; `None` at the end of the file. After an error there is nothing more to read.
    pub(crate) fn next(&mut self) -> Result<Option<Record>, ReadError> {
        let mut head = [0; RECORD_HEAD_BYTES];
        match fill(&mut self.from, &mut head).map_err(ReadError::Io)? {
            0 => return Ok(None),
            RECORD_HEAD_BYTES => {}
            _ => return Err(ReadError::Cut),
        }
        let length = u32_at(&head, 0) as usize;
        if length > MAX_BODY_BYTES {
            return Err(ReadError::Damaged("a record is longer than any can be"));
        }
        let mut body = vec![0; length];
        let mut crc = [0; 4];
        if fill(&mut self.from, &mut body).map_err(ReadError::Io)? < length
            || fill(&mut self.from, &mut crc).map_err(ReadError::Io)? < crc.len()
        {
            return Err(ReadError::Cut);
        }
        if crc32c::crc32c_append(crc32c::crc32c(&head), &body) != u32::from_le_bytes(crc) {
            return Err(ReadError::Damaged("checksum of a record"));
        }
        let number = u64_at(&head, 8);
        if number != self.number {
            return Err(ReadError::Damaged("records are missing or out of order"));
        }
        let kind = Kind::of(head[4]);
        if kind == Kind::End && body != number.to_le_bytes() {
            return Err(ReadError::Damaged("the end counts other records"));
        }
        let offset = self.offset;
        self.number += 1;
        self.offset += (RECORD_HEAD_BYTES + length + crc.len()) as u64;
        Ok(Some(Record { kind, offset, body }))
    }
}

/// Fills `bytes` as far as there is something to read.
fn fill(from: &mut impl Read, bytes: &mut [u8]) -> io::Result<usize> {
    let mut got = 0;
    while got < bytes.len() {
        match from.read(&mut bytes[got..]) {
            Ok(0) => break,
            Ok(more) => got += more,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(got)
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    bytes
        .get(at..)
        .and_then(<[u8]>::first_chunk)
        .map_or(0, |bytes| u32::from_le_bytes(*bytes))
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    bytes
        .get(at..)
        .and_then(<[u8]>::first_chunk)
        .map_or(0, |bytes| u64::from_le_bytes(*bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Vec<u8> {
        let mut out = Vec::new();
        let mut records = 0;
        write_header(1_795_425_302_000_000_001, 7, &mut out);
        write_record(Kind::Certificates, b"chain", &mut records, &mut out);
        write_record(Kind::Batch, b"batch", &mut records, &mut out);
        let before = records;
        write_record(Kind::End, &before.to_le_bytes(), &mut records, &mut out);
        out
    }

    fn read(bytes: &[u8]) -> Result<Vec<Record>, ReadError> {
        let mut reader = Reader::new(bytes)?;
        std::iter::from_fn(|| reader.next().transpose()).collect()
    }

    #[test]
    fn files_of_version_1_stay_readable() {
        let stored = concat!(
            "574c41524348495601000000000000000100df4efa90ea18a7ba8ae9",
            "0500000001000000000000000000000063686169",
        );
        let sample = sample();
        assert!(
            hex::encode(&sample).starts_with(&stored[..32]),
            "{}",
            hex::encode(&sample)
        );
        let records = read(&sample).unwrap();
        let kinds: Vec<_> = records.iter().map(|record| record.kind).collect();
        assert_eq!(kinds, [Kind::Certificates, Kind::Batch, Kind::End]);
        assert_eq!(records[1].body, b"batch");
        assert_eq!(records[1].offset, HEADER_BYTES as u64 + 25);
    }

    #[test]
    fn a_flipped_bit_anywhere_is_found() {
        let sample = sample();
        for bit in 0..sample.len() * 8 {
            let mut flipped = sample.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert!(read(&flipped).is_err(), "bit {bit}");
        }
    }

    #[test]
    fn a_cut_is_found_unless_it_falls_between_records() {
        let sample = sample();
        let ends = [36, 36 + 25, 36 + 50, sample.len()];
        for cut in 0..sample.len() {
            match read(&sample[..cut]) {
                Ok(_) => assert!(ends.contains(&cut), "cut at {cut}"),
                Err(error) => assert!(matches!(error, ReadError::Cut), "cut at {cut}: {error}"),
            }
        }
    }

    #[test]
    fn a_removed_or_exchanged_record_is_found() {
        let sample = sample();
        let (first, second) = (&sample[36..61], &sample[61..86]);
        let without = [&sample[..36], second, &sample[86..]].concat();
        assert!(matches!(read(&without), Err(ReadError::Damaged(_))));
        let exchanged = [&sample[..36], second, first, &sample[86..]].concat();
        assert!(matches!(read(&exchanged), Err(ReadError::Damaged(_))));
    }
}
