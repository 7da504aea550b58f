//! Reads a segment in blocks: one call to the disk for many small frames, one buffer in memory.

use std::{io, sync::Arc};

use bytes::{Bytes, BytesMut};

use crate::{
    DiskFile, FrameNo,
    disk::is_medium_error,
    frame::{self, FRAME_HEADER_BYTES, FRAME_MARK, FrameHeader, Kind},
};

/// How much is read at once where what follows is likely wanted too.
pub(crate) const READ_AHEAD: usize = 256 << 10;
/// The smallest piece that a medium fails to read.
const PAGE: usize = 4096;

pub(crate) struct Blocks {
    file: Arc<dyn DiskFile>,
    /// Offset of the buffer in the file.
    start: u64,
    buffer: Bytes,
    /// Take pages that the medium cannot read as zeros (which no checksum accepts) instead of failing.
    lenient: bool,
}

/// What lies at a place where a frame is expected.
pub(crate) enum Found {
    Frame(FrameHeader, Bytes),
    /// The header is sound, the body is not.
    BadBody(FrameHeader),
    BadHeader,
}

impl Blocks {
    pub(crate) fn of(file: Arc<dyn DiskFile>, lenient: bool) -> Blocks {
        Blocks {
            file,
            start: 0,
            buffer: Bytes::new(),
            lenient,
        }
    }

    pub(crate) fn be_lenient(&mut self) {
        self.lenient = true;
    }

    pub(crate) fn file(&self) -> &Arc<dyn DiskFile> {
        &self.file
    }

    /// `len` bytes from `offset` on, or `None` where they do not all lie below `limit` and the end of the file. When
    /// the disk must be asked, up to `ahead` bytes are read at once.
    pub(crate) fn bytes(
        &mut self,
        offset: u64,
        len: usize,
        limit: u64,
        ahead: usize,
    ) -> io::Result<Option<Bytes>> {
        if offset.checked_add(len as u64).is_none_or(|end| end > limit) {
            return Ok(None);
        }
        if !self.holds(offset, len) {
            let want = (limit - offset).min(len.max(ahead) as u64) as usize;
            self.fill(offset, want)?;
            if !self.holds(offset, len) {
                return Ok(None);
            }
        }
        let at = (offset - self.start) as usize;
        Ok(Some(self.buffer.slice(at..at + len)))
    }

    /// Size of the buffer that the last bytes came from.
    pub(crate) fn buffer_bytes(&self) -> usize {
        self.buffer.len()
    }

    fn holds(&self, offset: u64, len: usize) -> bool {
        offset >= self.start && offset + len as u64 <= self.start + self.buffer.len() as u64
    }

    fn fill(&mut self, offset: u64, want: usize) -> io::Result<()> {
        // The old buffer serves again unless somebody still holds a part of it.
        let mut buffer = std::mem::take(&mut self.buffer)
            .try_into_mut()
            .unwrap_or_default();
        if buffer.capacity() < want {
            buffer = BytesMut::zeroed(want);
        } else {
            buffer.resize(want, 0);
        }
        let read = match self.file.read_at(&mut buffer, offset) {
            Err(error) if self.lenient && is_medium_error(&error) => {
                self.fill_pages(&mut buffer, offset)?
            }
            other => other?,
        };
        buffer.truncate(read);
        self.start = offset;
        self.buffer = buffer.freeze();
        Ok(())
    }

    fn fill_pages(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let mut read = 0;
        for (index, page) in buffer.chunks_mut(PAGE).enumerate() {
            let at = offset + (index * PAGE) as u64;
            read += match self.file.read_at(page, at) {
                Err(error) if is_medium_error(&error) => {
                    tracing::warn!(offset = at, "a page of a segment cannot be read");
                    page.fill(0);
                    page.len()
                }
                other => other?,
            };
        }
        Ok(read)
    }

    /// Reads the header at `offset`; `None` where there is none that belongs to this incarnation.
    pub(crate) fn header(
        &mut self,
        offset: u64,
        limit: u64,
        incarnation: Option<u64>,
        ahead: usize,
    ) -> io::Result<Option<FrameHeader>> {
        let bytes = self.bytes(offset, FRAME_HEADER_BYTES, limit, ahead)?;
        let header = bytes.as_deref().and_then(FrameHeader::decode);
        Ok(header.filter(|header| {
            incarnation.is_none_or(|incarnation| header.incarnation == incarnation)
        }))
    }

    /// Reads the body of the frame at `offset`; `None` where its checksum does not hold.
    pub(crate) fn body(
        &mut self,
        offset: u64,
        limit: u64,
        header: &FrameHeader,
    ) -> io::Result<Option<Bytes>> {
        let at = offset + FRAME_HEADER_BYTES as u64;
        let body = self.bytes(at, header.body_bytes as usize, limit, READ_AHEAD)?;
        Ok(body.filter(|body| crc32c::crc32c(body) == header.body_crc))
    }

    /// Reads and checks the whole frame at `offset`.
    pub(crate) fn frame(
        &mut self,
        offset: u64,
        limit: u64,
        incarnation: Option<u64>,
    ) -> io::Result<Found> {
        let Some(header) = self.header(offset, limit, incarnation, READ_AHEAD)? else {
            return Ok(Found::BadHeader);
        };
        match self.body(offset, limit, &header)? {
            Some(body) if header.kind != Kind::Log || frame::body_is_sound(&header, &body) => {
                Ok(Found::Frame(header, body))
            }
            _ => Ok(Found::BadBody(header)),
        }
    }

    /// Searches byte by byte, from `offset` on, for the next whole log frame numbered `least` or higher.
    pub(crate) fn find_frame(
        &mut self,
        mut offset: u64,
        limit: u64,
        incarnation: Option<u64>,
        least: FrameNo,
    ) -> io::Result<Option<(u64, FrameHeader)>> {
        while let Some(at) = self.find_mark(offset, limit)? {
            if let Found::Frame(header, _) = self.frame(at, limit, incarnation)?
                && header.kind == Kind::Log
                && header.number >= least
            {
                return Ok(Some((at, header)));
            }
            offset = at + 1;
        }
        Ok(None)
    }

    fn find_mark(&mut self, mut offset: u64, limit: u64) -> io::Result<Option<u64>> {
        /// Small enough to pass over zeros quickly, see below.
        const STRETCH: usize = 256;
        while offset + FRAME_HEADER_BYTES as u64 <= limit {
            let left = (limit - offset).min(READ_AHEAD as u64) as usize;
            if !self.holds(offset, FRAME_HEADER_BYTES) {
                self.fill(offset, left)?;
            }
            let at = (offset - self.start) as usize;
            let buffer = &self.buffer[at.min(self.buffer.len())..];
            if buffer.len() < FRAME_HEADER_BYTES {
                return Ok(None); // the file ends before the limit
            }
            let last = buffer.len() - FRAME_MARK.len() + 1;
            for (index, stretch) in buffer[..last].chunks(STRETCH).enumerate() {
                if !stretch.contains(&FRAME_MARK[0]) {
                    continue;
                }
                let from = index * STRETCH;
                if let Some(found) =
                    (from..from + stretch.len()).find(|&at| buffer[at..].starts_with(&FRAME_MARK))
                {
                    return Ok(Some(offset + found as u64));
                }
            }
            offset += last as u64;
        }
        Ok(None)
    }
}
