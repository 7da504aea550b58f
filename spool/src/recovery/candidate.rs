//! A segment that may have to be read.

use std::{io, path::Path};

use super::OpenError;
use crate::{
    Access, Disk, FrameNo, Items,
    blocks::Blocks,
    segment::{self, Opening, SegmentHeader},
    snapshot::{self, Snapshot},
};

/// A segment that may have to be read.
pub(super) struct Candidate {
    pub(super) number: u64,
    pub(super) bytes: u64,
    pub(super) blocks: Blocks,
    pub(super) header: Option<SegmentHeader>,
    pub(super) incarnation: Option<u64>,
    pub(super) snapshot: Option<Snapshot>,
    /// Where the log begins, if it does.
    pub(super) start: Option<u64>,
    /// What it says of all that was before it.
    pub(super) first: Option<(FrameNo, Items)>,
}

impl Candidate {
    pub(super) fn examine(
        disk: &dyn Disk,
        path: &Path,
        number: u64,
        bytes: u64,
    ) -> Result<Candidate, OpenError> {
        let file = disk
            .open(path, Access::Read)
            .map_err(OpenError::io("open", path))?;
        let opening = SegmentHeader::read(&*file, number).map_err(OpenError::io("read", path))?;
        let header = match opening {
            Opening::Header(header) => Some(header),
            Opening::TooNew(found) => {
                return Err(OpenError::TooNew {
                    path: path.to_owned(),
                    found,
                    known: segment::FORMAT,
                });
            }
            Opening::Bad => None,
        };
        let mut candidate = Candidate {
            number,
            bytes,
            blocks: Blocks::of(file, true),
            incarnation: header.as_ref().map(|header| header.incarnation),
            first: header
                .as_ref()
                .map(|header| (header.first_frame, header.first_item)),
            header,
            snapshot: None,
            start: None,
        };
        candidate.look().map_err(OpenError::io("read", path))?;
        Ok(candidate)
    }

    fn look(&mut self) -> io::Result<()> {
        if let Some(header) = &self.header
            && let Some((snapshot, start)) = snapshot::read(&mut self.blocks, header, self.bytes)?
        {
            self.snapshot = Some(snapshot);
            self.start = Some(start);
            return Ok(());
        }
        // A frame behind a snapshot proves that the snapshot was complete once.
        if let Some((start, frame)) =
            self.blocks
                .find_frame(0, self.bytes, self.incarnation, FrameNo(0))?
        {
            self.start = Some(start);
            self.incarnation = Some(frame.incarnation);
            self.first.get_or_insert((frame.number, frame.first));
        }
        Ok(())
    }
}
