//! Blocks in, records out: the hot path.

use std::{fs::File, io, os::unix::fs::FileExt, time::Instant};

use super::{Change, Moved, Tail, Taken, Terms, Waiting, split::Block};
use crate::{
    batch::Moment,
    gaps::{Gap, GapReason},
    sources::{
        Buffers, Intake,
        audit::{Clusters, More},
        file::{FileConfig, Records, framing::Framing, position::LineState},
    },
};

/// One look at a file takes this much at most, then the next file has its turn.
const BLOCK_BYTES: usize = 256 << 10;
/// However little room the batch has left, less than this is not asked for.
const LEAST_BLOCK_BYTES: usize = 16 << 10;

impl Tail {
    /// Takes records from the offset on, at most a block. What is not complete at the end of the file is taken too when it has waited long
    /// enough.
    pub(in crate::sources::file) fn take(
        &mut self,
        terms: &Terms<'_>,
        intake: &mut Intake<'_>,
    ) -> Taken {
        let Some(handle) = self.handle.take() else {
            return Taken::Nothing;
        };
        // The buffers are read into while the rest of the intake is written to.
        let mut buffers = std::mem::take(intake.buffers);
        let mut block = std::mem::take(&mut buffers.block);
        let taken = self.take_block(&handle, terms, intake, &mut block, &mut buffers);
        buffers.block = block;
        *intake.buffers = buffers;
        self.handle = Some(handle);
        taken.unwrap_or_else(Taken::Failed)
    }

    fn take_block(
        &mut self,
        file: &File,
        terms: &Terms<'_>,
        intake: &mut Intake<'_>,
        buffer: &mut Vec<u8>,
        buffers: &mut Buffers,
    ) -> io::Result<Taken> {
        let config = terms.config;
        let framing = Framing {
            encoding: self.encoding(file, config)?,
            start: terms.start,
            max_record: config.max_record,
        };
        let guard = self.guard.len();
        let mut want = intake.batch.space().clamp(LEAST_BLOCK_BYTES, BLOCK_BYTES);
        let (read, filled) = loop {
            if buffer.len() < guard + want {
                buffer.resize(guard + want, 0);
            }
            // The guard comes with the block: one read proves the offset and fetches what follows.
            let read = read_up_to(
                file,
                &mut buffer[..guard + want],
                self.offset - guard as u64,
            )?;
            if read < guard {
                return Ok(Taken::Changed(Change::Truncated));
            }
            let filled = read == guard + want;
            if filled && want <= config.max_record {
                let bytes = &buffer[guard..read];
                let line = framing.line(bytes, self.offset, 0);
                let has_record = match (self.line, config.records) {
                    (LineState::Start, Records::Audit) if line.is_some() => {
                        Clusters::new(bytes).next(More::Expected).is_some()
                    }
                    (LineState::Start, Records::Lines) => {
                        framing.record(bytes, self.offset, 0).is_some()
                    }
                    _ => line.is_some(),
                };
                if !has_record {
                    want = config.max_record + 1;
                    continue;
                }
            }
            break (read - guard, filled);
        };
        if buffer[..guard] != *self.guard.bytes()
            || self.offset > guard as u64 && !self.head.begins(file)?
        {
            return Ok(Taken::Changed(Change::Rewritten));
        }
        self.size = self.size.max(self.offset + read as u64);
        self.known_size = self.known_size.max(self.size);
        let with_guard = &buffer[..guard + read];
        if self.after_cut && self.offset == self.hole_bytes {
            let block = &with_guard[guard..];
            let nuls = block.iter().position(|&byte| byte != 0);
            let nuls = framing.encoding.whole(nuls.unwrap_or(block.len()));
            if nuls > 0 {
                return Ok(self.skip_hole(config, with_guard, nuls, intake, filled));
            }
        }
        if self.after_cut && self.hole_bytes > 0 {
            self.say_hole(config, intake);
        }
        let block = Block {
            with_guard,
            guard,
            filled,
        };
        match config.records {
            Records::Lines => self.split(file, terms, &framing, intake, &block, buffers),
            Records::Audit => self.split_events(file, terms, &framing, intake, &block, buffers),
        }
    }

    /// `taken` bytes of the block behind the guard have been taken.
    pub(super) fn advance(&mut self, with_guard: &[u8], taken: usize, now: Moment) {
        let guard = self.guard.len();
        self.head
            .extend(self.offset, &with_guard[guard..guard + taken]);
        self.guard.replace(&with_guard[..guard + taken]);
        self.settle(self.offset + taken as u64, now);
    }

    pub(super) fn settle(&mut self, offset: u64, now: Moment) {
        self.offset = offset;
        self.size = self.size.max(offset);
        self.waiting = None;
        self.no_feed_before = 0;
        self.stood_at = None;
        self.idle_since = now.at;
        self.moved = Moved::Read;
    }

    pub(super) fn wait(&mut self, size: u64, now: Instant) {
        if self.waiting.is_none_or(|waiting| waiting.size != size) {
            self.waiting = Some(Waiting { size, since: now });
        }
    }

    /// NUL bytes where the file was cut under a writer that went on at its old place.
    fn skip_hole(
        &mut self,
        config: &FileConfig,
        with_guard: &[u8],
        nuls: usize,
        intake: &mut Intake<'_>,
        filled: bool,
    ) -> Taken {
        let block = &with_guard[self.guard.len()..];
        self.hole_bytes += nuls as u64;
        self.advance(with_guard, nuls, intake.now);
        if nuls < block.len() {
            self.say_hole(config, intake);
        }
        Taken::Some {
            more: filled || nuls < block.len(),
        }
    }

    fn say_hole(&mut self, config: &FileConfig, intake: &mut Intake<'_>) {
        self.after_cut = false;
        let gap = Gap::new(
            GapReason::Hole,
            "NUL bytes where the file was cut under its writer were left out",
        );
        let gap = gap.in_file(&config.name, &self.name);
        let gap = Gap {
            bytes: self.hole_bytes,
            range: Some((0, self.hole_bytes)),
            ..gap
        };
        intake.batch.push_gap(&gap, intake.now);
    }
}

/// Reads until `buffer` is full or the file ends.
pub(super) fn read_up_to(file: &File, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
    let mut read = 0;
    while read < buffer.len() {
        match file.read_at(&mut buffer[read..], offset + read as u64) {
            Ok(0) => break,
            Ok(more) => read += more,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(read)
}
