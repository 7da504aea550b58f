//! Puts the records of a block where they belong: left out, masked, an alert, or simply taken.

use watchline_proto::Lane;

use super::Terms;
use crate::{
    batch::{Moment, Writer},
    lanes::Lanes,
    sources::{
        Buffers, Stamp, Stamps, Verdict,
        file::{Times, framing::Encoding},
        mask_attribute,
    },
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

/// How records of a block are read by those who look into them.
#[derive(Debug, Clone, Copy)]
pub(super) struct Texts {
    pub(super) encoding: Encoding,
    /// Bytes of the byte order mark that the block begins with.
    pub(super) mark: usize,
}

/// See the module. The rules have been held against the whole block before, where it is text as it stands.
pub(super) struct Sifter<'a, 'b> {
    pub(super) writer: Writer<'b>,
    pub(super) terms: &'a Terms<'a>,
    pub(super) lanes: &'a mut Lanes,
    pub(super) now: Moment,
    texts: Texts,
    alerts: Suspects<'a>,
    filters: Suspects<'a>,
    masked: &'a mut Vec<u8>,
    text: &'a mut String,
    ahead: &'a mut Vec<u8>,
    stamps: &'a mut Stamps,
}

/// Where in `block`, from `from` on, rules may find something. What is in UTF-16 is looked at record by record.
pub(super) fn screen(
    terms: &Terms<'_>,
    texts: Texts,
    block: &[u8],
    from: usize,
    buffers: &mut Buffers,
) {
    buffers.suspects.clear();
    buffers.filter_suspects.clear();
    if texts.encoding != Encoding::Utf8 {
        return;
    }
    let from = from.max(texts.mark);
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
    /// `buffers` hold what [`screen`] found.
    pub(super) fn new(
        writer: Writer<'b>,
        terms: &'a Terms<'a>,
        lanes: &'a mut Lanes,
        now: Moment,
        texts: Texts,
        buffers: &'a mut Buffers,
    ) -> Sifter<'a, 'b> {
        Sifter {
            writer,
            terms,
            lanes,
            now,
            texts,
            alerts: Suspects(&buffers.suspects),
            filters: Suspects(&buffers.filter_suspects),
            masked: &mut buffers.masked,
            text: &mut buffers.text,
            ahead: &mut buffers.ahead,
            stamps: &mut buffers.stamps,
        }
    }

    /// A buffer to read ahead into.
    pub(super) fn ahead(&mut self) -> &mut Vec<u8> {
        self.ahead
    }

    /// Takes the record that begins at `start` of the block, the one behind it at `next`; what is longer than a record may be is cut off.
    /// `false`: there is no room, and nothing happened.
    #[inline]
    pub(super) fn take(
        &mut self,
        (start, next): (usize, usize),
        record: &[u8],
        backfill: bool,
        flags: Flags,
    ) -> bool {
        let wide = self.texts.encoding != Encoding::Utf8;
        let alert = (wide || self.alerts.within(start, next)) && !backfill;
        let filter = wide || self.filters.within(start, next);
        let is_short = record.len() <= self.terms.config.max_record;
        let mark = if start == 0 { self.texts.mark } else { 0 };
        if !alert && !filter && is_short && flags.is_plain() {
            let has_room = self.writer.has_room(Lane::Routine, record.len());
            if has_room {
                let stamp = stamp(self.stamps, self.terms, &record[mark..], self.now);
                let (time, severity) = (stamp.time_unix_nano, stamp.severity);
                self.writer
                    .push_with(Lane::Routine, record, time, severity, &[]);
            }
            return has_room;
        }
        self.judge(record, mark, alert, filter, flags)
    }

    /// As [`Sifter::take`], for what is not simply a line.
    fn judge(
        &mut self,
        record: &[u8],
        mark: usize,
        alert: bool,
        filter: bool,
        flags: Flags,
    ) -> bool {
        let encoding = self.texts.encoding;
        let most = encoding.whole(self.terms.config.max_record);
        let mut cut = flags.cut + record.len().saturating_sub(most) as u64;
        let record = &record[..record.len().min(most)];
        let (mark, text) = record.split_at(mark.min(record.len()));
        let text = if encoding == Encoding::Utf8 {
            text
        } else {
            encoding.decode(text, self.text);
            self.text.as_bytes()
        };
        let rules = self.terms.rules.filter(|_| filter);
        let verdict = rules.map_or(Verdict::Keep, |rules| rules.judge(text, most, self.masked));
        let (sent, masked_by) = match &verdict {
            Verdict::Keep => (record, &[][..]),
            Verdict::Drop(filter) => {
                self.writer.count_filtered(filter);
                return true;
            }
            Verdict::Mask(by) => {
                let masked = std::mem::take(self.masked);
                self.masked.extend_from_slice(mark);
                if encoding == Encoding::Utf8 {
                    self.masked.extend_from_slice(&masked);
                } else {
                    encoding.encode(&String::from_utf8_lossy(&masked), self.masked);
                }
                (&self.masked[..], &by[..])
            }
        };
        cut += sent.len().saturating_sub(most) as u64;
        let sent = &sent[..sent.len().min(most)];
        // What continues another record does not begin with a time of its own.
        let stamp = if flags.continuation {
            Stamp::default()
        } else {
            stamp(self.stamps, self.terms, text, self.now)
        };
        let matcher = self.terms.matcher.filter(|_| alert);
        let rule = matcher.and_then(|matcher| matcher.rule(text, stamp.severity));
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
        let cut = (cut > 0).then(|| cut.to_string());
        let mask = mask_attribute(masked_by);
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
        let (time, severity) = (stamp.time_unix_nano, stamp.severity);
        self.writer
            .push_with(lane, sent, time, severity, &attributes);
        true
    }
}

#[inline]
fn stamp(stamps: &mut Stamps, terms: &Terms<'_>, text: &[u8], now: Moment) -> Stamp {
    match terms.config.time {
        Times::Auto => stamps.read(text, terms.zone, now.unix_nano),
        Times::None => Stamp::default(),
    }
}
