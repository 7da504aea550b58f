//! Takes the records of one block out of it.

use std::{fs::File, io};

use super::{
    Change, Tail, Taken, Terms,
    sift::{Flags, Sifter, Texts, screen},
    take::read_up_to,
};
use crate::{
    gaps::{Gap, GapReason},
    sources::{
        Buffers, Intake,
        file::{framing::Framing, identity::Guard, position::LineState},
    },
};

/// How far the end of a line that is too long is looked for before its record is sent: the count it carries is exact up to this.
const LOOK_AHEAD_BYTES: u64 = 16 << 20;

/// What was read behind the offset, with the guard before it.
pub(super) struct Block<'a> {
    pub(super) with_guard: &'a [u8],
    pub(super) guard: usize,
    /// The file goes on behind it.
    pub(super) filled: bool,
}

impl<'a> Block<'a> {
    pub(super) fn bytes(&self) -> &'a [u8] {
        &self.with_guard[self.guard..]
    }

    /// Only its first `len` bytes.
    pub(super) fn first(&self, len: usize) -> Block<'a> {
        let whole = len == self.bytes().len();
        Block {
            with_guard: &self.with_guard[..self.guard + len],
            guard: self.guard,
            filled: self.filled || !whole,
        }
    }

    /// What is left behind the first `taken` bytes, with the guard that it has by then before it: in a short file guards grow.
    fn rest_with_guard(&self, taken: usize, guard: &Guard) -> &'a [u8] {
        &self.with_guard[self.guard + taken - guard.len()..]
    }
}

impl Tail {
    /// See the module. The offset moves over whole records only, or over the parts of a line that [`LineState`] tells apart.
    pub(super) fn split(
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
        let mut start = 0;
        if let LineState::Skipping(skipped) = self.line {
            let Some((end, next)) = framing.line(bytes, base, 0) else {
                let whole = framing.encoding.whole(bytes.len());
                if whole == 0 {
                    return Ok(Taken::Nothing);
                }
                self.line = LineState::Skipping(skipped + whole as u64);
                self.advance(block.with_guard, whole, now);
                return Ok(Taken::Some { more: filled });
            };
            self.say_cut(terms, skipped + end as u64, end, intake);
            self.line = LineState::Start;
            start = next;
        }
        let mark = if base == 0 {
            framing.encoding.mark(bytes)
        } else {
            0
        };
        let texts = Texts {
            encoding: framing.encoding,
            mark,
        };
        screen(terms, texts, bytes, start, buffers);
        let waited = self.waited(now.at);
        let mut backfill = base + (start as u64) < self.backfill_end;
        let [usual, first] = self.origins(config, framing.encoding);
        let origin = if backfill { &first } else { &usual };
        let mut sifter = Sifter::new(
            intake.batch.writer(terms.no, origin, now),
            terms,
            intake.lanes,
            now,
            texts,
            buffers,
        );
        let mut full = false;
        let mut line = self.line;
        loop {
            // What completes a line that was sent in part is no record of several lines.
            let end = if line == LineState::Start {
                framing.record(bytes, base, start)
            } else {
                framing.line(bytes, base, start)
            };
            let Some((end, next)) = end else { break };
            if backfill && base + start as u64 >= self.backfill_end {
                backfill = false;
                sifter.writer.change_origin(&usual);
            }
            let record = &bytes[start..end];
            let flags = Flags {
                cut: 0,
                partial: false,
                continuation: line != LineState::Start
                    || framing.continues(record, base + start as u64),
            };
            // The line feed alone completes what was sent before: there is nothing more to send.
            let nothing = line != LineState::Start && record.is_empty();
            if !nothing && !sifter.take((start, next), record, backfill, flags) {
                full = true;
                break;
            }
            line = LineState::Start;
            start = next;
        }
        let rest = &bytes[start..];
        if full || rest.is_empty() || filled && (start > 0 || rest.len() <= config.max_record) {
            self.line = line;
            if start == 0 {
                return Ok(if full { Taken::NoRoom } else { Taken::Nothing });
            }
            self.advance(block.with_guard, start, now);
            return Ok(Taken::Some {
                more: full || filled,
            });
        }
        // What is left is not complete: at the end of the file, or a line that is longer than a record may be.
        let nothing_more = if start > 0 {
            Taken::Some { more: false }
        } else {
            Taken::Nothing
        };
        let no_room = if start > 0 {
            Taken::Some { more: true }
        } else {
            Taken::NoRoom
        };
        if start > 0 {
            self.line = line;
            self.advance(block.with_guard, start, now);
        }
        let rest_at = self.offset;
        let size = rest_at + rest.len() as u64;
        backfill = rest_at < self.backfill_end;
        let mut flags = Flags {
            cut: 0,
            partial: true,
            continuation: line == LineState::Flushed || framing.continues(rest, rest_at),
        };
        if rest.len() <= config.max_record {
            let last = framing.last_line(rest, rest_at);
            let (unit, complete) = (framing.encoding.unit(), last == rest.len());
            let wait = config.waits_for(complete);
            let whole = framing.encoding.whole(rest.len());
            if waited < wait || whole == 0 {
                self.wait(size, now.at);
                return Ok(nothing_more);
            }
            // Whole lines go as they are; before a line that begins another record, they go alone.
            let alone = complete || last > 0 && framing.is_start(&rest[last..whole]);
            let (end, taken) = if alone {
                flags.partial = false;
                (last - unit, last)
            } else {
                (whole, whole)
            };
            if !sifter.take((start, bytes.len() + 1), &rest[..end], backfill, flags) {
                return Ok(no_room);
            }
            let rest = block.rest_with_guard(start, &self.guard);
            self.advance(rest, taken, now);
            self.line = if alone {
                LineState::Start
            } else {
                LineState::Flushed
            };
            return Ok(Taken::Some {
                more: alone && !complete,
            });
        }
        let flush = waited >= config.waits_for(false);
        let record = &rest[..framing.encoding.whole(config.max_record)];
        let from = size.max(self.no_feed_before);
        let (end, next, line) = match line_end(file, framing, sifter.ahead(), from, rest_at)? {
            LineEnd::Feed(end, next) => (end, next, LineState::Start),
            LineEnd::TooFar(at) => (at, at, LineState::Skipping(0)),
            LineEnd::File(at) if flush => (at, at, LineState::Skipping(0)),
            LineEnd::File(at) => {
                self.no_feed_before = at;
                self.wait(at, now.at);
                return Ok(nothing_more);
            }
        };
        let Some(guard) = Guard::read(file, next)? else {
            return Ok(Taken::Changed(Change::Truncated));
        };
        flags.cut = end - rest_at - record.len() as u64;
        flags.partial = matches!(line, LineState::Skipping(_)) && flush;
        if !sifter.take((start, bytes.len() + 1), record, backfill, flags) {
            return Ok(no_room);
        }
        self.head.extend(rest_at, record);
        self.guard = guard;
        self.settle(next, now);
        self.line = line;
        Ok(Taken::Some { more: true })
    }

    /// The rest of a line that was cut before its end ends `end` bytes behind the offset.
    fn say_cut(&self, terms: &Terms<'_>, skipped: u64, end: usize, intake: &mut Intake<'_>) {
        if skipped == 0 {
            return;
        }
        let end = self.offset + end as u64;
        let detail = format!(
            "the rest of a record longer than {} bytes was left out",
            terms.config.max_record
        );
        let gap = Gap {
            bytes: skipped,
            range: Some((end - skipped, end)),
            ..Gap::new(GapReason::LineCut, detail).in_file(&terms.config.name, &self.name)
        };
        intake.batch.push_gap(&gap, intake.now);
    }
}

/// Where a line ends.
enum LineEnd {
    /// There, and the next begins there.
    Feed(u64, u64),
    /// The file ends before.
    File(u64),
    /// Not before here.
    TooFar(u64),
}

/// Looks for the line feed that ends the line which began at `start`, from `at` on.
fn line_end(
    file: &File,
    framing: &Framing<'_>,
    ahead: &mut Vec<u8>,
    at: u64,
    start: u64,
) -> io::Result<LineEnd> {
    ahead.resize(64 << 10, 0);
    // From a whole unit on.
    let mut at = at - at % framing.encoding.unit() as u64;
    loop {
        if at - start >= LOOK_AHEAD_BYTES {
            return Ok(LineEnd::TooFar(at));
        }
        let read = read_up_to(file, ahead, at)?;
        if let Some((end, next)) = framing.line(&ahead[..read], at, 0) {
            return Ok(LineEnd::Feed(at + end as u64, at + next as u64));
        }
        at += framing.encoding.whole(read) as u64;
        if read < ahead.len() {
            return Ok(LineEnd::File(at));
        }
    }
}
