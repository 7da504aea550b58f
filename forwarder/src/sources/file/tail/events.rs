//! Takes the events of an audit log out of a block: see [`audit`](crate::sources::audit).

use std::{borrow::Cow, fs::File, io, sync::Arc};

use watchline_proto::{Lane, MAX_RECORD_BYTES};

use super::{
    Tail, Taken, Terms,
    sift::{Sifter, Texts, screen},
    split::Block,
};
use crate::{
    gaps::{Gap, GapReason},
    sources::{
        Buffers, Filter, Intake, Verdict,
        audit::{Clusters, Facts, Group, Lost, More, facts},
        file::{
            framing::{Encoding, Framing},
            position::LineState,
        },
        mask_attribute,
    },
};

/// One event, ready to be put into the batch.
struct Prepared<'a> {
    body: Cow<'a, [u8]>,
    /// What is sent where rules masked something.
    masked: Option<Vec<u8>>,
    masked_by: Vec<&'a Arc<Filter>>,
    dropped_by: Option<&'a Arc<Filter>>,
    facts: Facts,
    /// Where in the block its first record begins.
    start: usize,
    suspect: bool,
}

impl Prepared<'_> {
    fn sent(&self) -> &[u8] {
        self.masked.as_deref().unwrap_or(&self.body)
    }

    /// About what it takes in a batch.
    fn len_bytes(&self) -> usize {
        let attributes = self.facts.attributes.iter();
        let attributes: usize = attributes
            .map(|(name, value)| name.len() + value.len() + 6)
            .sum();
        self.sent().len() + attributes + 256
    }
}

impl Tail {
    /// As [`Tail::split`], a cluster of events at a time.
    pub(super) fn split_events(
        &mut self,
        file: &File,
        terms: &Terms<'_>,
        framing: &Framing<'_>,
        intake: &mut Intake<'_>,
        block: &Block<'_>,
        buffers: &mut Buffers,
    ) -> io::Result<Taken> {
        let (config, now, base) = (terms.config, intake.now, self.offset);
        let (bytes, filled) = (block.bytes(), block.filled);
        let first = framing.line(bytes, base, 0);
        if self.line != LineState::Start || first.is_none() {
            // What is no whole line goes the way of lines.
            let end = first.map_or(bytes.len(), |(_, next)| next);
            return self.split(file, terms, framing, intake, &block.first(end), buffers);
        }
        let texts = Texts {
            encoding: Encoding::Utf8,
            mark: 0,
        };
        screen(terms, texts, bytes, 0, buffers);
        let (suspects, filter_suspects) = (
            std::mem::take(&mut buffers.suspects),
            std::mem::take(&mut buffers.filter_suspects),
        );
        let has = |suspects: &[usize], group: &Group<'_>| {
            let mut starts = group.lines.iter().map(|line| line.start);
            starts.any(|start| suspects.binary_search(&start).is_ok())
        };
        let waits = self.waited(now.at) < config.waits_for(true);
        let mut backfill = base < self.backfill_end;
        let [usual, first] = self.origins(config, Encoding::Utf8);
        let origin = if backfill { &first } else { &usual };
        let mut sifter = Sifter::new(
            intake.batch.writer(terms.no, origin, now),
            terms,
            intake.lanes,
            now,
            texts,
            buffers,
        );
        let mut clusters = Clusters::new(bytes);
        let (mut taken, mut full) = (0, false);
        let mut reports: Vec<Lost> = Vec::new();
        loop {
            let more = if filled || waits {
                More::Expected
            } else {
                More::Never
            };
            let mut cluster = clusters.next(more);
            if cluster.is_none() && filled && taken == 0 && bytes.len() > config.max_record {
                // No more than this is held in memory for what is open.
                cluster = clusters.next(More::Never);
            }
            let Some(cluster) = cluster else { break };
            let groups = cluster.groups.iter();
            let mut prepared: Vec<Prepared<'_>> = groups
                .map(|group| {
                    let body = joined(bytes, group);
                    let mut one = prepare(terms, group, body, has(&filter_suspects, group));
                    one.suspect = has(&suspects, group);
                    one
                })
                .collect();
            if !sifter.has_room_for(&mut prepared) {
                full = true;
                break;
            }
            for one in &prepared {
                if backfill && base + one.start as u64 >= self.backfill_end {
                    backfill = false;
                    sifter.writer.change_origin(&usual);
                }
                sifter.put(one, backfill);
                reports.extend(one.facts.lost);
            }
            taken = cluster.end;
        }
        (buffers.suspects, buffers.filter_suspects) = (suspects, filter_suspects);
        for report in reports {
            self.say_lost_records(terms, report, intake);
        }
        let left = bytes.len() - taken;
        if taken > 0 {
            self.advance(block.with_guard, taken, now);
        }
        if !full && !filled && left > 0 {
            self.wait(self.offset + left as u64, now.at);
        }
        Ok(match (taken, full) {
            (0, true) => Taken::NoRoom,
            (0, false) => Taken::Nothing,
            _ => Taken::Some {
                more: full || filled,
            },
        })
    }

    fn say_lost_records(&mut self, terms: &Terms<'_>, report: Lost, intake: &mut Intake<'_>) {
        let before = self
            .lost_records
            .replace(if report.reset { 0 } else { report.total });
        let new = match before {
            Some(before) if before <= report.total => Some(report.total - before),
            // Counted anew, after a start of the kernel.
            Some(_) => Some(report.total),
            None => None,
        };
        if report.total == 0 || new == Some(0) {
            return;
        }
        let detail = format!(
            "the kernel's audit has lost records, {} of them since it began to count",
            report.total
        );
        let gap = Gap {
            records: new,
            ..Gap::new(GapReason::AuditLost, detail).in_file(&terms.config.name, &self.name)
        };
        intake.batch.push_gap(&gap, intake.now);
    }
}

/// The lines of an event, as they stand where nothing lies between them.
fn joined<'a>(block: &'a [u8], group: &Group<'_>) -> Cow<'a, [u8]> {
    let (start, end) = match (group.lines.first(), group.lines.last()) {
        (Some(first), Some(last)) => (first.start, last.end),
        _ => (0, 0),
    };
    let together = group
        .lines
        .windows(2)
        .all(|two| two[0].end + 1 == two[1].start);
    if together {
        return Cow::Borrowed(&block[start..end]);
    }
    let lines: Vec<&[u8]> = group
        .lines
        .iter()
        .map(|line| &block[line.clone()])
        .collect();
    Cow::Owned(lines.join(&b'\n'))
}

/// What is masked in the body is masked before the body is decoded, and what is decoded is masked once more.
fn prepare<'a>(
    terms: &'a Terms<'_>,
    group: &Group<'_>,
    body: Cow<'a, [u8]>,
    filter: bool,
) -> Prepared<'a> {
    let most = terms.config.max_record;
    let mut masked = Vec::new();
    let rules = terms.rules.filter(|_| filter);
    let verdict = rules.map_or(Verdict::Keep, |rules| rules.judge(&body, most, &mut masked));
    let (masked_by, dropped_by) = match verdict {
        Verdict::Keep => (Vec::new(), None),
        Verdict::Drop(filter) => (Vec::new(), Some(filter)),
        Verdict::Mask(by) => (by, None),
    };
    let masked = (!masked_by.is_empty()).then_some(masked);
    let mut facts = facts(group, masked.as_deref().unwrap_or(&body));
    if let Some(rules) = terms.rules {
        let mut value_masked = Vec::new();
        for (_, value) in &mut facts.attributes {
            let verdict = rules.judge(value.as_bytes(), most, &mut value_masked);
            if matches!(verdict, Verdict::Mask(_)) {
                *value = String::from_utf8_lossy(&value_masked).into_owned();
            }
        }
    }
    Prepared {
        start: group.lines.first().map_or(0, |line| line.start),
        body,
        masked,
        masked_by,
        dropped_by,
        facts,
        suspect: false,
    }
}

impl Sifter<'_, '_> {
    /// Whether all of these fit into the batch, in whichever lane. What would never fit into one with all that is decoded is left as it stands,
    /// and says so.
    fn has_room_for(&mut self, prepared: &mut [Prepared<'_>]) -> bool {
        let len_bytes = |prepared: &[Prepared<'_>]| prepared.iter().map(Prepared::len_bytes).sum();
        let mut bytes: usize = len_bytes(prepared);
        if bytes > MAX_RECORD_BYTES {
            for one in prepared.iter_mut() {
                let kept = ["audit.serial", "audit.incomplete"];
                let attributes = &mut one.facts.attributes;
                attributes.retain(|(name, _)| kept.contains(&name.as_str()));
                attributes.push(("audit.not_decoded".to_owned(), "true".to_owned()));
            }
            bytes = len_bytes(prepared);
        }
        Lane::ALL
            .into_iter()
            .all(|lane| self.writer.has_room_for(lane, prepared.len(), bytes))
    }

    /// Puts one event into the batch. The caller has asked [`Sifter::has_room_for`].
    fn put(&mut self, one: &Prepared<'_>, backfill: bool) {
        if let Some(filter) = one.dropped_by {
            self.writer.count_filtered(filter);
            return;
        }
        let most = self.terms.config.max_record;
        let sent = one.sent();
        let cut = sent.len().saturating_sub(most).to_string();
        let is_cut = sent.len() > most;
        let matcher = self.terms.matcher.filter(|_| one.suspect && !backfill);
        let rule = matcher
            .and_then(|matcher| matcher.rule(&one.body, one.facts.severity))
            .filter(|&rule| self.lanes.admit(rule, self.now.at));
        let lane = if rule.is_some() {
            Lane::Alert
        } else {
            Lane::Routine
        };
        let mask = mask_attribute(&one.masked_by);
        let own = [
            is_cut.then_some(("watchline.truncated_bytes", cut.as_str())),
            (!one.masked_by.is_empty()).then_some(("watchline.mask", mask.as_str())),
            rule.map(|rule| ("watchline.alert.rule", self.lanes.name(rule))),
        ];
        let facts = one.facts.attributes.iter();
        let attributes: Vec<(&str, &str)> = (own.into_iter().flatten())
            .chain(facts.map(|(name, value)| (name.as_str(), value.as_str())))
            .collect();
        for filter in &one.masked_by {
            self.writer.count_filtered(filter);
        }
        let sent = &sent[..sent.len().min(most)];
        let (time, severity) = (one.facts.time_unix_nano, one.facts.severity);
        self.writer
            .push_with(lane, sent, time, severity, &attributes);
    }
}
