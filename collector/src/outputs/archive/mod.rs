//! `kind = "archive"`: sealed batches, receipts and certificates as they came, write-once.
//!
//! The file that grows is `current.wla`. Complete files get an end record, a name with the time, and mode 0400; nothing writes to them again.
//! Each file has the certificates of every batch in it, so it can be checked by itself, with the anchors alone. `docs/formats.md`
//! has the format, [`crate::verify`] the reader.

pub(crate) mod format;
#[cfg(test)]
mod tests;

use std::{collections::HashSet, sync::Arc};

use prost::Message;
use tracing::error;
use watchline_node::uplink::Chains;
use watchline_proto::{Hash, stored, wire};
use watchline_spool::ReadItem;

use self::format::{Kind, write_header, write_record};
use super::{
    config::ArchiveConfig,
    feed::Feed,
    follow::{Follower, Form, Place, RealDisk, Rendered, Unreadable},
};

/// A folder of evidence: what [`crate::verify`] checks with the anchors alone.
pub struct ArchiveOutput(Follower<Evidence>);

impl ArchiveOutput {
    /// Nothing is touched before [`ArchiveOutput::run`]. `chains` has the certificates of every signer in the buffer.
    pub fn new(config: ArchiveConfig, feed: Feed, chains: Arc<dyn Chains>) -> ArchiveOutput {
        let place = Place::of_archive(&config.directory);
        ArchiveOutput(Follower::new(
            feed,
            Evidence::new(chains),
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

/// Sealed batches as they came, with the certificates that they need.
pub(crate) struct Evidence {
    chains: Arc<dyn Chains>,
    /// Signers whose chain is known to stand in the present file. Forgotten at a start or after an error: then it is written again, which
    /// costs a few kilobytes and says nothing new. A fingerprint a signer, so a few bytes a host.
    written: HashSet<Hash>,
}

impl Evidence {
    pub(crate) fn new(chains: Arc<dyn Chains>) -> Evidence {
        Evidence {
            chains,
            written: HashSet::new(),
        }
    }

    fn write_chain(&mut self, signer: Hash, records: &mut u64, out: &mut Vec<u8>) {
        if self.written.contains(&signer) {
            return;
        }
        match self.chains.chain(&signer) {
            Some(chain) => {
                let certificates = wire::Certificates { chain };
                write_record(
                    Kind::Certificates,
                    &certificates.encode_to_vec(),
                    records,
                    out,
                );
                self.written.insert(signer);
            }
            // The batch is worth keeping all the same: the certificates may be found elsewhere.
            None => error!(%signer, "archived a batch whose signer's certificates are not there"),
        }
    }
}

impl Form for Evidence {
    fn id(&self) -> u8 {
        3
    }

    fn begin_file(&mut self, opened_unix_nano: i64, number: u64, out: &mut Vec<u8>) {
        self.written.clear();
        write_header(opened_unix_nano, number, out);
    }

    fn go_back(&mut self) {
        self.written.clear();
    }

    fn render(
        &mut self,
        item: &ReadItem,
        _from: u32,
        _enough: usize,
        records: &mut u64,
        out: &mut Vec<u8>,
    ) -> Result<Rendered, Unreadable> {
        let unreadable = |reason: String| Unreadable {
            reason,
            events: None,
        };
        let batch =
            stored::decode(item.bytes.clone()).map_err(|error| unreadable(error.to_string()))?;
        let signer = stored::signer(&batch).map_err(|error| unreadable(error.to_string()))?;
        if item.bytes.len() > format::MAX_BODY_BYTES {
            return Err(unreadable(format!(
                "batch of {} bytes is larger than any can be",
                item.bytes.len()
            )));
        }
        if let Some(signer) = signer {
            self.write_chain(signer, records, out);
        }
        write_record(Kind::Batch, &item.bytes, records, out);
        Ok(Rendered {
            events: 0,
            next: None,
        })
    }

    fn end_file(&mut self, records: &mut u64, out: &mut Vec<u8>) {
        let before = *records;
        write_record(Kind::End, &before.to_le_bytes(), records, out);
    }
}
