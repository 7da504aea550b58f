//! Where records go from a source: the open batch, by way of the lanes.

use std::sync::Arc;

use watchline_proto::{Lane, payload::Origin};

use super::{
    rules::{Common, Rules, Verdict, mask_attribute},
    stamp::Stamps,
};
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

/// Memory: the largest `max_record` of all sources, or a block, twice that where it is masked, and a look-ahead of 64 KiB.
#[derive(Default)]
pub(crate) struct Buffers {
    pub(crate) block: Vec<u8>,
    pub(crate) ahead: Vec<u8>,
    pub(crate) suspects: Vec<usize>,
    pub(crate) filter_suspects: Vec<usize>,
    pub(crate) masked: Vec<u8>,
    /// The text of one record in UTF-16.
    pub(crate) text: String,
    pub(crate) stamps: Stamps,
}

/// What all records of one source (or of one of its files) have in common.
#[derive(Debug)]
pub(crate) struct Place {
    pub(crate) no: SourceNo,
    pub(crate) origin: Origin,
    pub(crate) matcher: Option<Arc<Matcher>>,
    /// What is dropped and what is masked.
    pub(crate) rules: Option<Arc<Rules>>,
    /// Bytes of one record; what is beyond is cut off, flagged and counted.
    pub(crate) max_record: usize,
}

impl Place {
    /// The place of a source's records, `attributes` being those that all of them share.
    pub(crate) fn new(
        no: SourceNo,
        (name, kind): (&str, &str),
        common: &Common,
        attributes: Vec<(String, String)>,
        max_record: usize,
        lanes: &Lanes,
    ) -> Place {
        let attributes = attributes.into_iter().chain(common.attributes());
        Place {
            no,
            origin: Origin {
                source: name.to_owned(),
                kind: kind.to_owned(),
                attributes: attributes.collect(),
            },
            matcher: lanes.matcher(name),
            rules: Rules::compile(common),
            max_record,
        }
    }

    /// Another one of the same source: what rules were compiled to is shared, and it is large.
    pub(crate) fn beside(&self, common: &Common, attributes: Vec<(String, String)>) -> Place {
        let attributes = attributes.into_iter().chain(common.attributes());
        Place {
            no: self.no,
            origin: Origin {
                source: self.origin.source.clone(),
                kind: self.origin.kind.clone(),
                attributes: attributes.collect(),
            },
            matcher: self.matcher.clone(),
            rules: self.rules.clone(),
            max_record: self.max_record,
        }
    }
}

/// One original record, with what is known of it. Lines of files take a faster way: a block at a time.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Record<'a> {
    pub(crate) body: &'a [u8],
    /// Bytes behind the body that the source has left out already.
    pub(crate) cut_bytes: u64,
    /// When it says that it happened; `None`: it does not say.
    pub(crate) time_unix_nano: Option<i64>,
    /// OpenTelemetry's number, 1 to 24; 0 unknown.
    pub(crate) severity: u8,
    /// It was there before the source was first started: never an alert.
    pub(crate) backfill: bool,
    pub(crate) attributes: &'a [(&'a str, &'a str)],
}

impl Intake<'_> {
    /// Takes one record, or leaves it out where a rule says so; `false`: there is no room, the batch has to be closed first and the record offered again.
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
        let verdict = place.rules.as_deref().map_or(Verdict::Keep, |rules| {
            rules.judge(body, place.max_record, &mut self.buffers.masked)
        });
        let mut writer = self.batch.writer(place.no, &place.origin, self.now);
        let (sent, masked_by) = match &verdict {
            Verdict::Keep => (body, &[][..]),
            Verdict::Drop(filter) => {
                writer.count_filtered(filter);
                return true;
            }
            Verdict::Mask(by) => (&self.buffers.masked[..], &by[..]),
        };
        let left_out = record.body.len() - body.len() + sent.len().saturating_sub(place.max_record);
        let cut = left_out as u64 + record.cut_bytes;
        let sent = &sent[..sent.len().min(place.max_record)];
        // Asked before the rate is charged: a record that is offered again is one record.
        if !writer.has_room(lane, sent.len()) || !writer.has_room(Lane::Routine, sent.len()) {
            return false;
        }
        let rule = rule.filter(|&rule| self.lanes.admit(rule, self.now.at));
        let lane = if rule.is_some() {
            Lane::Alert
        } else {
            Lane::Routine
        };
        let cut_text = cut.to_string();
        let mask = mask_attribute(masked_by);
        let mut attributes = record.attributes.to_vec();
        if !masked_by.is_empty() {
            // What was masked in the body may stand in what was read from it; only what the source knows by itself stays.
            attributes.retain(|(name, _)| name.starts_with("network."));
        }
        if cut > 0 {
            attributes.push(("watchline.truncated_bytes", &cut_text));
        }
        if record.backfill {
            attributes.push(("watchline.backfill", "true"));
        }
        if !masked_by.is_empty() {
            attributes.push(("watchline.mask", &mask));
        }
        attributes.extend(rule.map(|rule| ("watchline.alert.rule", self.lanes.name(rule))));
        masked_by
            .iter()
            .for_each(|filter| writer.count_filtered(filter));
        writer.push_with(
            lane,
            sent,
            record.time_unix_nano,
            record.severity,
            &attributes,
        );
        true
    }
}

#[cfg(test)]
mod tests {
    use watchline_proto::payload::PayloadOpener;

    use super::*;
    use crate::sources::rules::{Action, Filter};

    #[test]
    fn a_single_record_goes_through_the_rules_of_its_source() {
        let filter = |name: &str, text: &str, action: Action| Filter {
            name: name.into(),
            version: "1".into(),
            matches: vec![text.into()],
            action,
        };
        let replace = "*".repeat(20);
        let common = Common {
            labels: [("team".to_owned(), "web".to_owned())].into(),
            rules: vec![
                filter("noise", "^noise", Action::Drop),
                filter("digits", "[0-9]+", Action::Mask { replace }),
            ],
        };
        let mut lanes = Lanes::new(Vec::new());
        let place = Place::new(SourceNo(0), ("s", "k"), &common, Vec::new(), 16, &lanes);
        let mut batch = Batch::new(1 << 16);
        let mut buffers = Buffers::default();
        let now = Moment::now();
        let mut intake = Intake {
            batch: &mut batch,
            lanes: &mut lanes,
            buffers: &mut buffers,
            now,
        };
        for body in ["noise 1", "plain", "pin 1"] {
            let record = Record {
                body: body.as_bytes(),
                attributes: &[("k.copy", body)],
                ..Record::default()
            };
            assert!(intake.take(&place, &record));
        }
        let filtered = batch.take_filtered();
        let counted: Vec<(&str, u64)> = (filtered.iter())
            .map(|filtered| (filtered.filter.name.as_str(), filtered.events))
            .collect();
        assert_eq!(counted, [("noise", 1), ("digits", 1)]);
        let payload = batch.finish(Lane::Routine, now).unwrap();
        let opened = PayloadOpener::new()
            .open(&payload.bytes, &payload.info)
            .unwrap();
        let events: Vec<_> = opened.events().collect();
        assert_eq!(events[0].body, b"plain");
        assert_eq!(events[0].attributes, [("k.copy", "plain")]);
        assert_eq!(events[1].body, b"pin ************");
        let expected = [
            ("watchline.truncated_bytes", "8"),
            ("watchline.mask", "digits@1"),
        ];
        assert_eq!(events[1].attributes, expected);
        let label = ("watchline.label.team".to_owned(), "web".to_owned());
        assert_eq!(events[1].origin.attributes, [label]);
    }
}
