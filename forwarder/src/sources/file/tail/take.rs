//! Blocks in, records out: the hot path.

use std::{fs::File, io, os::unix::fs::FileExt, time::Instant};

use memchr::{memchr, memchr_iter};

use super::{
    Change, Moved, Tail, Taken, Terms, Waiting,
    sift::{Flags, Sifter, screen},
};
use crate::{
    batch::Moment,
    gaps::{Gap, GapReason},
    sources::{
        Buffers, Intake,
        file::{FileConfig, identity::Guard, position::LineState},
    },
};

/// One look at a file takes this much at most, then the next file has its turn.
const BLOCK_BYTES: usize = 256 << 10;
/// However little room the batch has left, less than this is not asked for.
const LEAST_BLOCK_BYTES: usize = 16 << 10;
/// How far the end of a line that is too long is looked for before its record is sent: the count it carries is exact up to this.
const LOOK_AHEAD_BYTES: u64 = 16 << 20;

impl Tail {
    /// Takes records from the offset on, at most a block. With `flush` what is left at the end of the file is taken too, though its line is
    /// not complete. The offset moves over whole records only, or over the parts of a line that [`LineState`] tells apart.
    pub(in crate::sources::file) fn take(
        &mut self,
        terms: &Terms<'_>,
        intake: &mut Intake<'_>,
        flush: bool,
    ) -> Taken {
        let Some(handle) = self.handle.take() else {
            return Taken::Nothing;
        };
        // The buffers are read into while the rest of the intake is written to.
        let mut buffers = std::mem::take(intake.buffers);
        let mut block = std::mem::take(&mut buffers.block);
        let taken = self.take_block(&handle, terms, intake, flush, &mut block, &mut buffers);
        buffers.block = block;
        *intake.buffers = buffers;
        self.handle = Some(handle);
        taken.unwrap_or_else(Taken::Failed)
    }

    fn take_block(
        &mut self,
        file: &File,
        terms: &Terms<'_>,
        intake: &mut Intake<'_>,
        flush: bool,
        buffer: &mut Vec<u8>,
        buffers: &mut Buffers,
    ) -> io::Result<Taken> {
        let config = terms.config;
        let guard = self.guard.len();
        let mut want = intake.batch.space().clamp(LEAST_BLOCK_BYTES, BLOCK_BYTES);
        let (read, filled) = loop {
            if buffer.len() < guard + want {
                buffer.resize(guard + want, 0);
            }
            // The guard comes with the block: one read proves the offset and fetches what follows.
            let read = read_up_to(
                file,
                &mut buffer[..guard + want],
                self.offset - guard as u64,
            )?;
            if read < guard {
                return Ok(Taken::Changed(Change::Truncated));
            }
            let filled = read == guard + want;
            if filled && want <= config.max_record && memchr(b'\n', &buffer[guard..read]).is_none()
            {
                want = config.max_record + 1;
                continue;
            }
            break (read - guard, filled);
        };
        if buffer[..guard] != *self.guard.bytes()
            || self.offset > guard as u64 && !self.head.begins(file)?
        {
            return Ok(Taken::Changed(Change::Rewritten));
        }
        self.size = self.size.max(self.offset + read as u64);
        self.known_size = self.known_size.max(self.size);
        let with_guard = &buffer[..guard + read];
        if self.after_cut
            && self.offset == self.hole_bytes
            && with_guard[guard..].first() == Some(&0)
        {
            return Ok(self.skip_hole(config, with_guard, intake, filled));
        }
        if self.after_cut && self.hole_bytes > 0 {
            self.say_hole(config, intake);
        }
        self.split(file, terms, intake, flush, with_guard, filled, buffers)
    }

    /// Takes the records of one block out of it.
    #[expect(
        clippy::too_many_arguments,
        reason = "the inside of `take`, with its buffers apart"
    )]
    fn split(
        &mut self,
        file: &File,
        terms: &Terms<'_>,
        intake: &mut Intake<'_>,
        flush: bool,
        with_guard: &[u8],
        filled: bool,
        buffers: &mut Buffers,
    ) -> io::Result<Taken> {
        let config = terms.config;
        let guard = self.guard.len();
        let block = &with_guard[guard..];
        let mut from = 0;
        if let LineState::Skipping(skipped) = self.line {
            let Some(feed) = memchr(b'\n', block) else {
                if block.is_empty() {
                    return Ok(Taken::Nothing);
                }
                self.line = LineState::Skipping(skipped + block.len() as u64);
                self.advance(with_guard, block.len(), intake.now);
                return Ok(Taken::Some { more: filled });
            };
            let skipped = skipped + feed as u64;
            if skipped > 0 {
                let end = self.offset + feed as u64;
                let detail = format!(
                    "the rest of a record longer than {} bytes was left out",
                    config.max_record
                );
                let gap = Gap::new(GapReason::LineCut, detail).in_file(&config.name, &self.name);
                let range = Some((end - skipped, end));
                intake.batch.push_gap(
                    &Gap {
                        bytes: skipped,
                        range,
                        ..gap
                    },
                    intake.now,
                );
            }
            self.line = LineState::Start;
            from = feed + 1;
        }
        screen(terms, block, from, buffers);
        let now = intake.now;
        let mut backfill = self.offset + (from as u64) < self.backfill_end;
        let [usual, first] = self.origins(config);
        let origin = if backfill { &first } else { &usual };
        let mut sifter = Sifter::new(
            intake.batch.writer(terms.no, origin, now),
            terms,
            intake.lanes,
            now,
            (&buffers.suspects, &buffers.filter_suspects),
            &mut buffers.masked,
        );
        let mut full = false;
        let mut line = self.line;
        let mut start = from;
        for feed in memchr_iter(b'\n', &block[from..]) {
            let feed = from + feed;
            if backfill && self.offset + start as u64 >= self.backfill_end {
                backfill = false;
                sifter.writer.change_origin(&usual);
            }
            let record = &block[start..feed];
            if record.len() > config.max_record || line != LineState::Start {
                let cut = record.len().saturating_sub(config.max_record);
                let record = &record[..record.len() - cut];
                let flags = Flags {
                    cut: cut as u64,
                    partial: false,
                    continuation: line == LineState::Flushed,
                };
                // The line feed alone completes what was sent before: there is nothing more to send.
                if !record.is_empty() {
                    full = !sifter.take((start, feed + 1), record, backfill, flags);
                    if full {
                        break;
                    }
                }
                line = LineState::Start;
            } else if !sifter.take((start, feed + 1), record, backfill, Flags::default()) {
                full = true;
                break;
            }
            start = feed + 1;
        }
        let rest = &block[start..];
        if full || rest.is_empty() || filled && (start > 0 || rest.len() <= config.max_record) {
            self.line = line;
            if start == 0 {
                return Ok(if full { Taken::NoRoom } else { Taken::Nothing });
            }
            self.advance(with_guard, start, now);
            return Ok(Taken::Some {
                more: full || filled,
            });
        }
        // What is left is a line without its end: at the end of the file, or one that is longer than a record may be.
        let continuation = line == LineState::Flushed;
        if start > 0 {
            self.line = line;
            self.advance(with_guard, start, now);
        }
        let rest_at = self.offset;
        let size = rest_at + rest.len() as u64;
        if rest.len() <= config.max_record {
            if !flush {
                self.wait(size, now.at);
                return Ok(if start > 0 {
                    Taken::Some { more: false }
                } else {
                    Taken::Nothing
                });
            }
            let flags = Flags {
                cut: 0,
                partial: true,
                continuation,
            };
            let backfill = rest_at < self.backfill_end;
            if !sifter.take((start, block.len() + 1), rest, backfill, flags) {
                return Ok(if start > 0 {
                    Taken::Some { more: true }
                } else {
                    Taken::NoRoom
                });
            }
            let with_rest = &with_guard[with_guard.len() - rest.len() - self.guard.len()..];
            self.advance(with_rest, rest.len(), now);
            self.line = LineState::Flushed;
            return Ok(Taken::Some { more: false });
        }
        let record = &rest[..config.max_record];
        let end = line_end(
            file,
            &mut buffers.ahead,
            size.max(self.no_feed_before),
            rest_at,
        )?;
        let (end, next, line) = match end {
            LineEnd::Feed(feed) => (feed, feed + 1, LineState::Start),
            LineEnd::TooFar(at) => (at, at, LineState::Skipping(0)),
            LineEnd::File(at) if flush => (at, at, LineState::Skipping(0)),
            LineEnd::File(at) => {
                self.no_feed_before = at;
                self.wait(at, now.at);
                return Ok(if start > 0 {
                    Taken::Some { more: false }
                } else {
                    Taken::Nothing
                });
            }
        };
        let Some(guard) = Guard::read(file, next)? else {
            return Ok(Taken::Changed(Change::Truncated));
        };
        let partial = matches!(line, LineState::Skipping(_)) && flush;
        let flags = Flags {
            cut: end - rest_at - record.len() as u64,
            partial,
            continuation,
        };
        let backfill = rest_at < self.backfill_end;
        if !sifter.take((start, block.len() + 1), record, backfill, flags) {
            return Ok(if start > 0 {
                Taken::Some { more: true }
            } else {
                Taken::NoRoom
            });
        }
        self.head.extend(rest_at, record);
        self.guard = guard;
        self.settle(next, now);
        self.line = line;
        Ok(Taken::Some { more: true })
    }

    /// `taken` bytes of the block behind the guard have been taken.
    fn advance(&mut self, with_guard: &[u8], taken: usize, now: Moment) {
        let guard = self.guard.len();
        self.head
            .extend(self.offset, &with_guard[guard..guard + taken]);
        self.guard.replace(&with_guard[..guard + taken]);
        self.settle(self.offset + taken as u64, now);
    }

    fn settle(&mut self, offset: u64, now: Moment) {
        self.offset = offset;
        self.size = self.size.max(offset);
        self.waiting = None;
        self.no_feed_before = 0;
        self.stood_at = None;
        self.idle_since = now.at;
        self.moved = Moved::Read;
    }

    fn wait(&mut self, size: u64, now: Instant) {
        if self.waiting.is_none_or(|waiting| waiting.size != size) {
            self.waiting = Some(Waiting { size, since: now });
        }
    }

    /// NUL bytes where the file was cut under a writer that went on at its old place.
    fn skip_hole(
        &mut self,
        config: &FileConfig,
        with_guard: &[u8],
        intake: &mut Intake<'_>,
        filled: bool,
    ) -> Taken {
        let block = &with_guard[self.guard.len()..];
        let nuls = block
            .iter()
            .position(|&byte| byte != 0)
            .unwrap_or(block.len());
        self.hole_bytes += nuls as u64;
        self.advance(with_guard, nuls, intake.now);
        if nuls < block.len() {
            self.say_hole(config, intake);
        }
        Taken::Some {
            more: filled || nuls < block.len(),
        }
    }

    fn say_hole(&mut self, config: &FileConfig, intake: &mut Intake<'_>) {
        self.after_cut = false;
        let gap = Gap::new(
            GapReason::Hole,
            "NUL bytes where the file was cut under its writer were left out",
        );
        let gap = gap.in_file(&config.name, &self.name);
        let gap = Gap {
            bytes: self.hole_bytes,
            range: Some((0, self.hole_bytes)),
            ..gap
        };
        intake.batch.push_gap(&gap, intake.now);
    }
}

/// Where a line ends.
enum LineEnd {
    Feed(u64),
    /// The file ends before.
    File(u64),
    /// Not before here.
    TooFar(u64),
}

/// Looks for the line feed that ends the line which began at `start`, from `at` on.
fn line_end(file: &File, ahead: &mut Vec<u8>, mut at: u64, start: u64) -> io::Result<LineEnd> {
    ahead.resize(64 << 10, 0);
    loop {
        if at - start >= LOOK_AHEAD_BYTES {
            return Ok(LineEnd::TooFar(at));
        }
        let read = read_up_to(file, ahead, at)?;
        if let Some(feed) = memchr(b'\n', &ahead[..read]) {
            return Ok(LineEnd::Feed(at + feed as u64));
        }
        at += read as u64;
        if read < ahead.len() {
            return Ok(LineEnd::File(at));
        }
    }
}

/// Reads until `buffer` is full or the file ends.
fn read_up_to(file: &File, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
    let mut read = 0;
    while read < buffer.len() {
        match file.read_at(&mut buffer[read..], offset + read as u64) {
            Ok(0) => break,
            Ok(more) => read += more,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(read)
}
