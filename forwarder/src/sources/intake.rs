//! Where records go from a source: the open batch, by way of the lanes.

use std::sync::Arc;

use watchline_proto::{Lane, payload::Origin};

use crate::{
    batch::{Batch, Moment, SourceNo},
    lanes::{Lanes, Matcher},
};

/// What reading needs beside the source. The buffers are reused by all sources of a thread.
pub(crate) struct Intake<'a> {
    pub(crate) batch: &'a mut Batch,
    pub(crate) lanes: &'a mut Lanes,
    pub(crate) buffers: &'a mut Buffers,
    pub(crate) now: Moment,
}

/// Memory: the largest `max_record` of all sources, or a block, and a look-ahead of 64 KiB.
#[derive(Default)]
pub(crate) struct Buffers {
    pub(crate) block: Vec<u8>,
    pub(crate) ahead: Vec<u8>,
    pub(crate) suspects: Vec<usize>,
}

/// What all records of one source (or of one of its files) have in common.
#[derive(Debug)]
pub(crate) struct Place {
    pub(crate) no: SourceNo,
    pub(crate) origin: Origin,
    pub(crate) matcher: Option<Arc<Matcher>>,
    /// Bytes of one record; what is beyond is cut off, flagged and counted.
    pub(crate) max_record: usize,
}

/// One original record, with what is known of it. Lines of files take a faster way: a block at a time.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Record<'a> {
    pub(crate) body: &'a [u8],
    /// When it says that it happened; `None`: it does not say.
    pub(crate) time_unix_nano: Option<i64>,
    /// OpenTelemetry's number, 1 to 24; 0 unknown.
    pub(crate) severity: u8,
    /// It was there before the source was first started: never an alert.
    pub(crate) backfill: bool,
    pub(crate) attributes: &'a [(&'a str, &'a str)],
}

impl Intake<'_> {
    /// Takes one record; `false`: there is no room, the batch has to be closed first and the record offered again.
    pub(crate) fn take(&mut self, place: &Place, record: &Record<'_>) -> bool {
        let body = &record.body[..record.body.len().min(place.max_record)];
        let rule = place
            .matcher
            .as_deref()
            .filter(|_| !record.backfill)
            .and_then(|matcher| matcher.rule(body, record.severity));
        let lane = if rule.is_some() {
            Lane::Alert
        } else {
            Lane::Routine
        };
        let mut writer = self.batch.writer(place.no, &place.origin, self.now);
        // Asked before the rate is charged: a record that is offered again is one record.
        if !writer.has_room(lane, body.len()) || !writer.has_room(Lane::Routine, body.len()) {
            return false;
        }
        let rule = rule.filter(|&rule| self.lanes.admit(rule, self.now.at));
        let lane = if rule.is_some() {
            Lane::Alert
        } else {
            Lane::Routine
        };
        let cut = (record.body.len() - body.len()).to_string();
        let mut attributes = record.attributes.to_vec();
        if record.body.len() > body.len() {
            attributes.push(("watchline.truncated_bytes", &cut));
        }
        if record.backfill {
            attributes.push(("watchline.backfill", "true"));
        }
        attributes.extend(rule.map(|rule| ("watchline.alert.rule", self.lanes.name(rule))));
        writer.push_with(
            lane,
            body,
            record.time_unix_nano,
            record.severity,
            &attributes,
        );
        true
    }
}
