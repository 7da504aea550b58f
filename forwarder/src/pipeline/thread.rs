//! The loop of the reader's thread.

use std::time::Instant;

use watchline_spool::SyncError;

use super::Pipeline;
use crate::inbox::{Inbox, Rest};

/// Runs until the line has ended. `begun` is called after the first turn: only then the spool holds what the line may offer, what was
/// sealed under another name being sealed anew. `sealed` is called once, after the stop, when what was read has been appended (or cannot be just
/// now: then it is still in its files).
pub(crate) fn run(
    mut pipeline: Pipeline,
    inbox: &Inbox,
    begun: impl FnOnce(),
    sealed: impl FnOnce(),
) -> Result<(), SyncError> {
    let now = Instant::now();
    let mut rest = Rest {
        until: now,
        linger_until: now,
        wants_room: false,
    };
    let (mut begun, mut sealed) = (Some(begun), Some(sealed));
    let mut stopped = false;
    loop {
        let news = inbox.wait(rest);
        if news.stop {
            stopped = true;
            pipeline.stop();
        }
        let line_ended = news.line_ended;
        rest = pipeline.turn(news);
        if let Some(begun) = begun.take() {
            begun();
        }
        if stopped
            && !pipeline.has_more()
            && let Some(sealed) = sealed.take()
        {
            if !pipeline.is_settled() {
                tracing::warn!(
                    "not everything that was read could be spooled: it is read again at the next start"
                );
            }
            pipeline.show_closing();
            sealed();
        }
        if line_ended {
            return pipeline.close();
        }
    }
}
