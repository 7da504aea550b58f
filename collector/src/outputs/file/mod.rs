//! `kind = "file"`: opens the batches and writes their records, one line each.
//!
//! The only place of a collector where payloads are opened. What opening finds unreadable is set aside with a gap event, and the line
//! moves on: the hop that took the batch has checked its hash, so it is the sealer's own defect or a format of a newer program.

mod json;
mod ndjson;
mod stamp;
#[cfg(test)]
mod tests;

use watchline_proto::{
    Seal,
    payload::{Opened, PayloadOpener},
    stored, wire,
};
use watchline_spool::{ItemNo, LaneNo, ReadItem};

use super::{
    config::{FileConfig, FileFormat},
    feed::Feed,
    follow::{Follower, Form, Place, RealDisk, Rendered, Unreadable},
};

/// A file of lines, exact whatever is killed.
pub struct FileOutput(Follower<Lines>);

impl FileOutput {
    /// Nothing is touched before [`FileOutput::run`].
    pub fn new(config: FileConfig, feed: Feed) -> FileOutput {
        let place = Place::of_file(&config.path, config.keep);
        FileOutput(Follower::new(
            feed,
            Lines::new(config.format),
            Box::new(RealDisk),
            place,
            config.rotation,
        ))
    }

    /// Follows the buffer until [`super::Signal::stop`]; blocks, so on a thread of its own. Errors are reported and tried again.
    pub fn run(self) {
        self.0.run();
    }
}

/// Records as lines. Memory: one opened batch.
pub(super) struct Lines {
    format: FileFormat,
    opener: PayloadOpener,
    stamps: ndjson::Stamps,
    /// A batch that did not fit into one write.
    begun: Option<(LaneNo, ItemNo, OpenBatch)>,
}

struct OpenBatch {
    constants: ndjson::Constants,
    events: Opened,
}

impl Lines {
    pub(super) fn new(format: FileFormat) -> Lines {
        Lines {
            format,
            opener: PayloadOpener::new(),
            stamps: ndjson::Stamps::default(),
            begun: None,
        }
    }

    fn open(&mut self, item: &ReadItem) -> Result<OpenBatch, Unreadable> {
        let unreadable = |reason: String| Unreadable {
            reason,
            events: None,
        };
        let batch =
            stored::decode(item.bytes.clone()).map_err(|error| unreadable(error.to_string()))?;
        let seal = Seal::decode(&batch.seal).map_err(|error| unreadable(error.to_string()))?;
        let events = self
            .opener
            .open(&batch.payload, &seal.payload)
            .map_err(|error| Unreadable {
                reason: error.to_string(),
                events: Some(u64::from(seal.payload.events)),
            })?;
        let constants = match self.format {
            FileFormat::Ndjson => ndjson::Constants::new(&seal, first_receipt(&batch)),
            FileFormat::Raw => ndjson::Constants::default(),
        };
        Ok(OpenBatch { constants, events })
    }
}

/// When the first collector stored the batch.
fn first_receipt(batch: &wire::SealedBatch) -> Option<i64> {
    batch
        .receipts
        .first()
        .map(|receipt| receipt.stored_unix_nano)
}

impl Form for Lines {
    fn id(&self) -> u8 {
        match self.format {
            FileFormat::Ndjson => 1,
            FileFormat::Raw => 2,
        }
    }

    fn begin_file(&mut self, _opened_unix_nano: i64, _number: u64, _out: &mut Vec<u8>) {}

    fn go_back(&mut self) {}

    fn render(
        &mut self,
        item: &ReadItem,
        from: u32,
        enough: usize,
        records: &mut u64,
        out: &mut Vec<u8>,
    ) -> Result<Rendered, Unreadable> {
        let batch = match self.begun.take() {
            Some((lane, no, batch)) if (lane, no) == (item.lane, item.no) => batch,
            _ => self.open(item)?,
        };
        let mut next = from;
        let mut done = true;
        let mut origin = ndjson::OriginText::default();
        for event in batch
            .events
            .events()
            .skip(usize::try_from(from).unwrap_or(usize::MAX))
        {
            if out.len() >= enough {
                done = false;
                break;
            }
            match self.format {
                FileFormat::Ndjson => {
                    ndjson::write(
                        &batch.constants,
                        next,
                        &event,
                        &mut origin,
                        &mut self.stamps,
                        out,
                    );
                }
                FileFormat::Raw => {
                    out.extend_from_slice(event.body);
                    out.push(b'\n');
                }
            }
            next += 1;
        }
        let events = u64::from(next - from);
        *records += events;
        if done {
            return Ok(Rendered { events, next: None });
        }
        self.begun = Some((item.lane, item.no, batch));
        Ok(Rendered {
            events,
            next: Some(next),
        })
    }

    fn end_file(&mut self, _records: &mut u64, _out: &mut Vec<u8>) {}
}
