//! What an output cannot deliver: said in the alert lane, and kept where there is something to keep.

use std::{io, path::Path};

use tracing::warn;
use watchline_proto::Lane;
use watchline_spool::{Damage, ItemNo, LaneNo, ReadItem};

use super::{Unreadable, disk::Disk, trouble::Trouble};
use crate::outputs::feed::Feed;

/// Batches kept in the quarantine; of more, only the event tells.
const MAX_SET_ASIDE: usize = 1000;

fn lane_name(lane: LaneNo) -> &'static str {
    Lane::ALL.get(lane).map_or("unknown", |lane| lane.as_str())
}

fn raise(feed: &Feed, reason: &str, mut attributes: Vec<(String, String)>, body: String) {
    attributes.insert(0, ("watchline.gap.reason".to_owned(), reason.to_owned()));
    attributes.push(("watchline.output".to_owned(), feed.output.clone()));
    feed.events.raise("watchline.gap", attributes, body);
}

/// Retention overtook this output.
pub(super) fn gone(feed: &Feed, lane: LaneNo, from: ItemNo, to: ItemNo) {
    let batches = to.0.saturating_sub(from.0);
    let lane = lane_name(lane);
    let attributes = vec![
        ("watchline.gap.batches".to_owned(), batches.to_string()),
        ("watchline.gap.lane".to_owned(), lane.to_owned()),
    ];
    let body = format!(
        "output {} lost {batches} {lane} batches: the buffer no longer holds them",
        feed.output
    );
    raise(feed, "retention", attributes, body);
}

/// The buffer's disk lost what was on it.
pub(super) fn damaged(feed: &Feed, damage: &Damage) {
    let batches: u64 = damage
        .items
        .iter()
        .map(|items| items.end.0.saturating_sub(items.start.0))
        .sum();
    let attributes = vec![
        ("watchline.gap.batches".to_owned(), batches.to_string()),
        ("watchline.gap.bytes".to_owned(), damage.bytes.to_string()),
    ];
    let body = format!(
        "output {} lost {batches} batches: the buffer is damaged: {}",
        feed.output, damage.reason
    );
    raise(feed, "buffer_damage", attributes, body);
}

/// Keeps the bytes of an item that cannot be opened, and says so.
pub(super) fn set_aside(
    feed: &Feed,
    disk: &dyn Disk,
    item: &ReadItem,
    unreadable: &Unreadable,
) -> Result<(), Trouble> {
    let lane = lane_name(item.lane);
    let file = feed
        .quarantine
        .join(format!("output-{}-{lane}-{}.batch", feed.output, item.no.0));
    let kept = keep(disk, &feed.quarantine, &file, &item.bytes)
        .map_err(|error| Trouble::disk("set a batch aside in", &file, error))?;
    let mut attributes = vec![
        ("watchline.gap.batches".to_owned(), "1".to_owned()),
        (
            "watchline.gap.bytes".to_owned(),
            item.bytes.len().to_string(),
        ),
        ("watchline.gap.lane".to_owned(), lane.to_owned()),
    ];
    if let Some(events) = unreadable.events {
        attributes.push(("watchline.gap.records".to_owned(), events.to_string()));
    }
    if kept {
        attributes.push((
            "watchline.quarantine.file".to_owned(),
            file.display().to_string(),
        ));
    }
    feed.metrics.unreadable_batches.inc();
    warn!(output = %feed.output, lane, item = item.no.0, error = %unreadable, "batch set aside");
    let body = format!(
        "output {} set aside {lane} batch {}: {unreadable}",
        feed.output, item.no.0
    );
    raise(feed, "unreadable_batch", attributes, body);
    Ok(())
}

/// `false`: there are too many already.
fn keep(disk: &dyn Disk, directory: &Path, file: &Path, bytes: &[u8]) -> io::Result<bool> {
    if disk.look(directory)?.is_none() {
        disk.create_directory(directory)?;
    }
    if disk.look(file)?.is_some() {
        disk.remove(file)?; // from an attempt that ended before its mark
    } else if disk.names(directory)?.len() >= MAX_SET_ASIDE {
        return Ok(false);
    }
    let open = disk.create(file)?;
    open.write_at(bytes, 0)?;
    open.sync()?;
    disk.sync_directory(directory)?;
    Ok(true)
}
