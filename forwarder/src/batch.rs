//! What is read until the next frame: one batch a lane, and what it counts for.

use std::{sync::Arc, time::Instant};

use watchline_proto::{
    Lane,
    payload::{EventMeta, Origin, OriginIndex, Payload, PayloadBuilder},
};

use crate::{
    conditions::Notice,
    gaps::{Gap, GapReason},
    sources::Filter,
};

/// A moment on both clocks: one cannot step, the other is what people read.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Moment {
    pub(crate) at: Instant,
    pub(crate) unix_nano: i64,
}

impl Moment {
    pub(crate) fn now() -> Moment {
        let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        // A clock before 1970 or after 2262 is no clock: 0 says so.
        let unix_nano = since
            .ok()
            .and_then(|since| i64::try_from(since.as_nanos()).ok())
            .unwrap_or(0);
        Moment {
            at: Instant::now(),
            unix_nano,
        }
    }
}

/// Index of a source among the configured ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct SourceNo(pub(crate) usize);

/// The open batches of both lanes, filled by sources, emptied by the sealer. Memory: both builders' buffers, each at most about
/// `max_bytes` and one record more.
pub(crate) struct Batch {
    builders: [PayloadBuilder; 2],
    max_bytes: usize,
    /// Events and bytes pushed since the last frame, by source and lane.
    counts: Vec<[Counted; 2]>,
    /// What rules left out or masked since the last frame; as many as there are rules at most.
    filtered: Vec<Filtered>,
    alerts: bool,
    /// A record did not fit.
    full: bool,
    /// Gaps that did not fit: one event says how many.
    gaps_beyond: u64,
    /// What was said since the last frame.
    gaps: Vec<Gap>,
}

/// What one source put into one lane.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Counted {
    pub(crate) events: u64,
    pub(crate) bytes: u64,
}

/// Events that one rule of one source dropped or masked.
#[derive(Debug, Clone)]
pub(crate) struct Filtered {
    pub(crate) source: SourceNo,
    pub(crate) filter: Arc<Filter>,
    pub(crate) events: u64,
}

impl Batch {
    /// `max_bytes`: unpacked size at which a batch is closed.
    pub(crate) fn new(max_bytes: usize) -> Batch {
        let builders = [PayloadBuilder::new(), PayloadBuilder::new()];
        Batch {
            builders,
            max_bytes,
            counts: Vec::new(),
            filtered: Vec::new(),
            alerts: false,
            full: false,
            gaps_beyond: 0,
            gaps: Vec::new(),
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.builders.iter().all(PayloadBuilder::is_empty)
    }

    /// Bytes that may still be read into it before it is closed.
    pub(crate) fn space(&self) -> usize {
        let unpacked = self
            .builders
            .iter()
            .map(PayloadBuilder::unpacked_bytes)
            .max()
            .unwrap_or(0);
        self.max_bytes.saturating_sub(unpacked)
    }

    /// Whether it is to be closed now: nearly full, or with an alert that has to leave.
    pub(crate) fn is_due(&self) -> bool {
        self.alerts || self.full || self.space() < self.max_bytes / 8
    }

    /// Pushes records of one origin, all observed at one moment.
    pub(crate) fn writer<'a>(
        &'a mut self,
        source: SourceNo,
        origin: &'a Origin,
        now: Moment,
    ) -> Writer<'a> {
        if self.counts.len() <= source.0 {
            self.counts.resize(source.0 + 1, Default::default());
        }
        Writer {
            batch: self,
            source,
            origin,
            observed_unix_nano: now.unix_nano,
            indexes: [None; 2],
        }
    }

    /// Adds the event that says what is missing. Beyond some thousands in one batch they are only counted.
    pub(crate) fn push_gap(&mut self, gap: &Gap, now: Moment) {
        self.alerts = true;
        if !self.builders[Lane::Alert.index()].has_room(GAP_BYTES) {
            self.gaps_beyond += 1;
            return;
        }
        self.gaps.push(gap.clone());
        self.push_gap_event(gap, now);
    }

    /// Adds an event of our own. There are a few at a time.
    pub(crate) fn push_notice(&mut self, notice: &Notice, now: Moment) {
        self.alerts = true;
        let builder = &mut self.builders[Lane::Alert.index()];
        let origin = builder.origin(&Gap::origin());
        let mut attributes = vec![("event.name", notice.name)];
        let more = notice.attributes.iter();
        attributes.extend(more.map(|(name, value)| (*name, cut(value))));
        builder.push(
            cut(&notice.body).as_bytes(),
            EventMeta {
                origin,
                observed_unix_nano: now.unix_nano,
                time_unix_nano: Some(notice.time_unix_nano),
                severity: notice.severity,
                attributes: &attributes,
            },
        );
    }

    fn push_gap_event(&mut self, gap: &Gap, now: Moment) {
        let builder = &mut self.builders[Lane::Alert.index()];
        let origin = builder.origin(&Gap::origin());
        let attributes = gap.attributes();
        let attributes: Vec<(&str, &str)> = attributes
            .iter()
            .map(|(name, value)| (*name, cut(value)))
            .collect();
        builder.push(
            cut(&gap.body()).as_bytes(),
            EventMeta {
                origin,
                observed_unix_nano: now.unix_nano,
                time_unix_nano: Some(now.unix_nano),
                severity: SEVERITY_ERROR,
                attributes: &attributes,
            },
        );
    }

    /// Packs what one lane holds and empties it.
    pub(crate) fn finish(&mut self, lane: Lane, now: Moment) -> Option<Payload> {
        if lane == Lane::Alert {
            self.alerts = false;
            let beyond = std::mem::take(&mut self.gaps_beyond);
            if beyond > 0 {
                let detail = format!("{beyond} further losses at the same time");
                // `has_room` asks for far more than one event of ours takes: this one still fits.
                self.push_gap_event(
                    &Gap {
                        records: Some(beyond),
                        ..Gap::new(GapReason::NoLongerHeld, detail)
                    },
                    now,
                );
            }
        } else {
            self.full = false;
        }
        self.builders[lane.index()].finish()
    }

    /// Takes what was counted, by source and lane.
    pub(crate) fn take_counts(&mut self) -> Vec<[Counted; 2]> {
        std::mem::take(&mut self.counts)
    }

    /// Takes what rules did.
    pub(crate) fn take_filtered(&mut self) -> Vec<Filtered> {
        std::mem::take(&mut self.filtered)
    }

    /// Takes the gaps that were said.
    pub(crate) fn take_gaps(&mut self) -> Vec<Gap> {
        std::mem::take(&mut self.gaps)
    }

    /// Throws away what was not sealed.
    pub(crate) fn clear(&mut self) {
        self.builders = [PayloadBuilder::new(), PayloadBuilder::new()];
        self.counts.clear();
        self.filtered.clear();
        self.gaps.clear();
        (self.alerts, self.full, self.gaps_beyond) = (false, false, 0);
    }
}

/// OpenTelemetry's number for ERROR: a person must come.
const SEVERITY_ERROR: u8 = 17;

/// About the most that a gap event takes.
const GAP_BYTES: usize = 16 << 10;

/// A text within the limit of an attribute's value.
fn cut(text: &str) -> &str {
    &text[..text.floor_char_boundary(watchline_proto::MAX_LABEL_VALUE_BYTES)]
}

/// See [`Batch::writer`].
pub(crate) struct Writer<'a> {
    batch: &'a mut Batch,
    source: SourceNo,
    origin: &'a Origin,
    observed_unix_nano: i64,
    indexes: [Option<OriginIndex>; 2],
}

impl<'a> Writer<'a> {
    /// What follows comes from `origin`.
    pub(crate) fn change_origin(&mut self, origin: &'a Origin) {
        self.origin = origin;
        self.indexes = [None; 2];
    }

    /// Whether a record of `bytes` still fits into this lane; if not, the batch is due.
    #[inline]
    pub(crate) fn has_room(&mut self, lane: Lane, bytes: usize) -> bool {
        let has_room = self.batch.builders[lane.index()].has_room(bytes);
        self.batch.full |= !has_room;
        has_room
    }

    /// Whether so many records, of so many bytes together with their attributes, still fit into this lane; if not, the batch is due. One that is
    /// empty has room for [`MAX_RECORD_BYTES`](watchline_proto::MAX_RECORD_BYTES).
    pub(crate) fn has_room_for(&mut self, lane: Lane, records: usize, bytes: usize) -> bool {
        let events = self.batch.builders[lane.index()].events();
        let few = events + records <= watchline_proto::MAX_EVENTS;
        self.batch.full |= !few;
        few && self.has_room(lane, bytes)
    }

    /// Counts one event that `filter` dropped or masked.
    pub(crate) fn count_filtered(&mut self, filter: &Arc<Filter>) {
        let source = self.source;
        let known = self
            .batch
            .filtered
            .iter_mut()
            .find(|known| known.source == source && Arc::ptr_eq(&known.filter, filter));
        match known {
            Some(known) => known.events += 1,
            None => self.batch.filtered.push(Filtered {
                source,
                filter: Arc::clone(filter),
                events: 1,
            }),
        }
    }

    /// Takes one record, with the time and the OpenTelemetry severity number (0: unknown) that it carries. The caller has asked
    /// [`Writer::has_room`].
    #[inline]
    pub(crate) fn push_with(
        &mut self,
        lane: Lane,
        record: &[u8],
        time_unix_nano: Option<i64>,
        severity: u8,
        attributes: &[(&str, &str)],
    ) {
        let builder = &mut self.batch.builders[lane.index()];
        let origin = match self.indexes[lane.index()] {
            Some(index) => index,
            None => *self.indexes[lane.index()].insert(builder.origin(self.origin)),
        };
        builder.push(
            record,
            EventMeta {
                origin,
                observed_unix_nano: self.observed_unix_nano,
                time_unix_nano,
                severity,
                attributes,
            },
        );
        let counted = &mut self.batch.counts[self.source.0][lane.index()];
        counted.events += 1;
        counted.bytes += record.len() as u64;
        self.batch.alerts |= lane == Lane::Alert;
    }
}
