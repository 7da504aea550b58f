//! Which item is next.

use watchline_spool::{LANES, ReadError, ReadItem};

use super::{Progress, Trouble, gaps};
use crate::outputs::feed::Feed;

/// The next item: the rest of one that is begun, else from the alert lane, else from the routine lane. Gaps on the way are raised and
/// passed.
pub(super) fn next_item(
    feed: &mut Feed,
    rendered: &mut Progress,
    gaps_raised: &mut bool,
) -> Result<Option<ReadItem>, Trouble> {
    let mut lane = rendered.partial.map_or(0, |(lane, _)| lane);
    while lane < LANES {
        match feed.items.next(lane) {
            Ok(Some(item)) => {
                if rendered.next[lane] != item.no {
                    rendered.next[lane] = item.no;
                    rendered.partial = None;
                }
                return Ok(Some(item));
            }
            Ok(None) if rendered.partial.is_some() => return Ok(None),
            Ok(None) => {
                lane += 1;
                continue;
            }
            Err(ReadError::Io { path, source }) => return Err(Trouble::Read { path, source }),
            Err(ReadError::Gone { lane, from, to }) => gaps::gone(feed, lane, from, to),
            Err(ReadError::Damaged(damage)) => gaps::damaged(feed, &damage),
        }
        *gaps_raised = true;
        for (lane, next) in rendered.next.iter_mut().enumerate() {
            let position = feed.items.position(lane);
            if *next != position {
                *next = position;
                rendered.partial = rendered.partial.filter(|(partial, _)| *partial != lane);
            }
        }
        lane = rendered.partial.map_or(0, |(lane, _)| lane);
    }
    // Numbers may be skipped where the buffer lost what nobody had been told to be stored: behind them is as good as before.
    rendered.next = std::array::from_fn(|lane| feed.items.position(lane));
    Ok(None)
}
