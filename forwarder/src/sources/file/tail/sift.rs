//! Puts the records of a block where they belong: left out, masked, an alert, or simply taken.

use watchline_proto::Lane;

use super::Terms;
use crate::{
    batch::{Moment, Writer},
    lanes::Lanes,
    sources::{Buffers, Verdict, mask_attribute},
};

/// Where in a block a pattern may be found, ascending; asked about one record after the other.
struct Suspects<'a>(&'a [usize]);

impl Suspects<'_> {
    /// Whether one lies within `start..next`.
    #[inline]
    fn within(&mut self, start: usize, next: usize) -> bool {
        let Some(&first) = self.0.first() else {
            return false;
        };
        if first >= next {
            return false;
        }
        while let Some((&suspect, rest)) = self.0.split_first()
            && suspect < next
        {
            self.0 = rest;
            if suspect >= start {
                return true;
            }
        }
        false
    }
}

/// What is said of a record that is not simply a line.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Flags {
    /// Bytes that were left out at its end.
    pub(super) cut: u64,
    /// Its line was not complete.
    pub(super) partial: bool,
    /// It goes on where a partial one ended.
    pub(super) continuation: bool,
}

impl Flags {
    fn is_plain(self) -> bool {
        self.cut == 0 && !self.partial && !self.continuation
    }
}

/// See the module. The rules have been held against the whole block before.
pub(super) struct Sifter<'a, 'b> {
    pub(super) writer: Writer<'b>,
    terms: &'a Terms<'a>,
    lanes: &'a mut Lanes,
    now: Moment,
    alerts: Suspects<'a>,
    filters: Suspects<'a>,
    masked: &'a mut Vec<u8>,
}

/// Where in `block`, from `from` on, rules may find something.
pub(super) fn screen(terms: &Terms<'_>, block: &[u8], from: usize, buffers: &mut Buffers) {
    buffers.suspects.clear();
    buffers.filter_suspects.clear();
    if let Some(matcher) = terms.matcher {
        matcher.suspects(&block[from..], &mut buffers.suspects);
    }
    if let Some(rules) = terms.rules {
        rules.suspects(&block[from..], &mut buffers.filter_suspects);
    }
    for starts in [&mut buffers.suspects, &mut buffers.filter_suspects] {
        starts.iter_mut().for_each(|start| *start += from);
    }
}

impl<'a, 'b> Sifter<'a, 'b> {
    /// `suspects` and `filter_suspects` are what [`screen`] found.
    pub(super) fn new(
        writer: Writer<'b>,
        terms: &'a Terms<'a>,
        lanes: &'a mut Lanes,
        now: Moment,
        (suspects, filter_suspects): (&'a [usize], &'a [usize]),
        masked: &'a mut Vec<u8>,
    ) -> Sifter<'a, 'b> {
        Sifter {
            writer,
            terms,
            lanes,
            now,
            alerts: Suspects(suspects),
            filters: Suspects(filter_suspects),
            masked,
        }
    }

    /// Takes the record that begins at `start` of the block, the one behind it at `next`. `false`: there is no room, and nothing happened.
    #[inline]
    pub(super) fn take(
        &mut self,
        (start, next): (usize, usize),
        record: &[u8],
        backfill: bool,
        flags: Flags,
    ) -> bool {
        let alert = self.alerts.within(start, next) && !backfill;
        let filter = self.filters.within(start, next);
        if !alert && !filter && flags.is_plain() {
            let has_room = self.writer.has_room(Lane::Routine, record.len());
            if has_room {
                self.writer.push(Lane::Routine, record, &[]);
            }
            return has_room;
        }
        self.judge(record, alert, filter, flags)
    }

    fn judge(&mut self, record: &[u8], alert: bool, filter: bool, flags: Flags) -> bool {
        let most = self.terms.config.max_record;
        let rules = self.terms.rules.filter(|_| filter);
        let verdict = rules.map_or(Verdict::Keep, |rules| {
            rules.judge(record, most, self.masked)
        });
        let (sent, masked_by) = match &verdict {
            Verdict::Keep => (record, &[][..]),
            Verdict::Drop(filter) => {
                self.writer.count_filtered(filter);
                return true;
            }
            Verdict::Mask(by) => (&self.masked[..], &by[..]),
        };
        let cut = flags.cut + sent.len().saturating_sub(most) as u64;
        let sent = &sent[..sent.len().min(most)];
        let rule = self
            .terms
            .matcher
            .filter(|_| alert)
            .and_then(|matcher| matcher.rule(record, 0));
        let wanted = if rule.is_some() {
            Lane::Alert
        } else {
            Lane::Routine
        };
        // Asked before the rate is charged: a record that is offered again is one record.
        if !self.writer.has_room(wanted, sent.len())
            || !self.writer.has_room(Lane::Routine, sent.len())
        {
            return false;
        }
        let rule = rule.filter(|&rule| self.lanes.admit(rule, self.now.at));
        let lane = if rule.is_some() {
            Lane::Alert
        } else {
            Lane::Routine
        };
        let (cut, mask) = (
            (cut > 0).then(|| cut.to_string()),
            mask_attribute(masked_by),
        );
        let attributes = [
            cut.as_deref().map(|cut| ("watchline.truncated_bytes", cut)),
            flags.partial.then_some(("watchline.partial", "true")),
            flags
                .continuation
                .then_some(("watchline.continuation", "true")),
            (!masked_by.is_empty()).then_some(("watchline.mask", mask.as_str())),
            rule.map(|rule| ("watchline.alert.rule", self.lanes.name(rule))),
        ];
        let attributes: Vec<(&str, &str)> = attributes.into_iter().flatten().collect();
        for filter in masked_by {
            self.writer.count_filtered(filter);
        }
        self.writer.push(lane, sent, &attributes);
        true
    }
}
