//! Making room for a frame, and writing it.

use std::io::{self, IoSlice};

use super::{AppendError, Appended, Spool, SyncError};
use crate::{
    Frame, FrameNo, LANES,
    disk::is_no_room,
    frame::{self, FRAME_HEADER_BYTES, FrameHeader, ITEM_HEADER_BYTES, Kind, MAX_NUMBER},
    log::{self, Log, Shared},
    quota::Purpose,
    segment,
};

impl Spool {
    pub(super) fn try_append(
        &mut self,
        frame: &Frame<'_>,
        sizes: &Sizes,
        purpose: Purpose,
    ) -> Result<Appended, AppendError> {
        self.make_room(sizes.frame_bytes, purpose)?;
        self.write(frame, sizes)
    }

    /// Makes sure that a frame fits the quota and the segment; starts a new segment where it must.
    fn make_room(&mut self, frame_bytes: u64, purpose: Purpose) -> Result<(), AppendError> {
        let limit = self.quota.limit(purpose);
        let mut rolls = 0;
        loop {
            let Some(active) = &self.active else {
                return Err(self.not_open());
            };
            let (used_bytes, snapshot_bytes) = {
                let log = self.shared.log();
                let has_frames = log
                    .segments
                    .back()
                    .is_some_and(|last| last.row.first_frame < last.row.end_frame);
                let rolls = has_frames && log.end.offset + frame_bytes > active.full_bytes;
                (
                    log.used_bytes,
                    if rolls {
                        Some(self.snapshot_bytes(&log))
                    } else {
                        None
                    },
                )
            };
            if used_bytes + frame_bytes + snapshot_bytes.unwrap_or(0) <= limit {
                return if snapshot_bytes.is_some() {
                    self.roll(frame_bytes)
                } else {
                    Ok(())
                };
            }
            // Marks that would make room must be durable first.
            if self.marks_would_trim() {
                self.sync_active().map_err(AppendError::from)?;
            }
            if self.trim_oldest(true) {
                self.shared.changed();
            } else if rolls < 2 && self.roll_would_trim() {
                rolls += 1;
                self.roll(0)?;
            } else {
                return Err(AppendError::Full {
                    used_bytes,
                    max_bytes: self.quota.max_bytes,
                });
            }
        }
    }

    pub(super) fn write(
        &mut self,
        frame: &Frame<'_>,
        sizes: &Sizes,
    ) -> Result<Appended, AppendError> {
        let Some(active) = &self.active else {
            return Err(self.not_open());
        };
        let (place, durable) = {
            let log = self.shared.log();
            (log.end, log.synced.frame)
        };
        let header = FrameHeader {
            kind: Kind::Log,
            incarnation: self.incarnation,
            number: place.frame,
            durable,
            unix_nano: self.disk.unix_nano(),
            first: place.items,
            items: sizes.items,
            item_bytes: sizes.item_bytes,
            body_bytes: 0, // follow
            body_crc: 0,
        };
        let given_up = self.given_up;
        let written = encode(
            &mut self.scratch,
            header,
            frame,
            &self.forgotten,
            given_up,
            |header, parts| {
                active.file.write_at(parts, place.offset)?;
                Ok(header)
            },
        );
        let header = match written {
            Ok(header) => header,
            Err(source) => {
                let path = active.path.clone();
                if is_no_room(&source) {
                    return Err(AppendError::NoRoom { path, source }); // the next frame is written over what there is of it
                }
                self.fail();
                return Err(AppendError::Io {
                    path,
                    from: durable,
                    source,
                });
            }
        };
        self.take_state(frame);
        self.forgotten.clear();
        self.given_up = None;
        {
            let mut log = self.shared.log();
            for mark in &frame.marks {
                log.marks.insert(mark.reader.clone(), mark.clone());
            }
            if let Some(segment) = log.segments.back_mut() {
                if segment.row.first_frame == place.frame {
                    segment.row.first_unix_nano = header.unix_nano;
                }
                segment.remember(
                    log::Point {
                        unix_nano: header.unix_nano,
                        ..place
                    },
                    header.items[0] > 0,
                );
            }
            let mut end = place;
            end.offset += header.frame_bytes();
            end.frame.0 += 1;
            end.items = header.end();
            (0..LANES).for_each(|lane| end.bytes[lane] += u64::from(header.item_bytes[lane]));
            end.unix_nano = header.unix_nano;
            log.used_bytes += header.frame_bytes();
            log.next_items = end.items;
            log.set_end(end);
            settle(&mut log, frame, place.frame, &self.shared);
        }
        if self.options.read_unsynced && !frame.items.is_empty() {
            self.shared.changed();
        }
        Ok(Appended {
            frame: place.frame,
            first: place.items,
        })
    }

    fn take_state(&mut self, frame: &Frame<'_>) {
        for (key, value) in &frame.state {
            match value {
                Some(value) => self.state.insert(key.clone(), value.clone()),
                None => self.state.remove(key),
            };
        }
    }

    pub(super) fn sync_active(&mut self) -> Result<(), SyncError> {
        let Some(active) = &self.active else {
            return Err(self.as_sync_error(self.not_open()));
        };
        if let Err(source) = active.file.sync_data() {
            let path = active.path.clone();
            let from = self.shared.log().synced.frame;
            self.fail();
            return Err(SyncError { path, from, source });
        }
        let mut log = self.shared.log();
        log.synced = log.end;
        if log.marks != log.durable_marks {
            log.durable_marks = log.marks.clone();
        }
        Ok(())
    }
}

fn settle(log: &mut Log, frame: &Frame<'_>, at: FrameNo, shared: &Shared) {
    for damage in &frame.settled {
        let number = damage.segment.file_name().and_then(segment::number_of);
        if let Some(number) = number
            && damage.segment == shared.path_of(number)
            && let Some(segment) = log.segment_mut(number)
        {
            segment.add_hole(damage.hole(number), Some(at));
        }
    }
}

pub(super) struct Sizes {
    /// At most.
    pub(super) frame_bytes: u64,
    pub(super) items: [u32; LANES],
    item_bytes: [u32; LANES],
}

impl Sizes {
    pub(super) fn of(frame: &Frame<'_>, forgotten: &[String]) -> Sizes {
        let mut sizes = Sizes {
            frame_bytes: FRAME_HEADER_BYTES as u64,
            items: [0; LANES],
            item_bytes: [0; LANES],
        };
        for item in &frame.items {
            let bytes: usize = item.parts.iter().map(|part| part.len()).sum();
            sizes.frame_bytes += (ITEM_HEADER_BYTES + bytes) as u64;
            sizes.items[item.lane] += 1;
            sizes.item_bytes[item.lane] =
                sizes.item_bytes[item.lane].saturating_add(bytes.min(u32::MAX as usize) as u32);
        }
        let state = frame.state.iter().map(|(key, value)| match value {
            Some(value) => 9 + key.len() + value.len(),
            None => 5 + key.len(),
        });
        let marks = frame
            .marks
            .iter()
            .map(|mark| 23 + mark.reader.len() + mark.note.len());
        let forgotten = forgotten.iter().map(|reader| 3 + reader.len());
        let rest: usize = state.chain(marks).chain(forgotten).sum();
        // Whether a segment was given up is decided later: the entry for it is always counted.
        sizes.frame_bytes += (rest + frame.settled.len() * 73 + 9) as u64;
        sizes
    }
}

/// Builds a frame and gives it to `write` in parts: items are not copied together first.
fn encode(
    scratch: &mut Vec<u8>,
    mut header: FrameHeader,
    frame: &Frame<'_>,
    forgotten: &[String],
    given_up: Option<u64>,
    write: impl FnOnce(FrameHeader, &mut [IoSlice<'_>]) -> io::Result<FrameHeader>,
) -> io::Result<FrameHeader> {
    scratch.clear();
    scratch.resize(FRAME_HEADER_BYTES, 0);
    for item in &frame.items {
        let bytes: usize = item.parts.iter().map(|part| part.len()).sum();
        frame::put_item_header(scratch, item.lane, bytes as u32);
    }
    let rest = scratch.len();
    for (key, value) in &frame.state {
        match value {
            Some(value) => frame::put_set(scratch, key, value),
            None => frame::put_delete(scratch, key),
        }
    }
    for mark in &frame.marks {
        assert!(
            mark.reader.len() <= usize::from(u16::MAX),
            "a reader's name is too long"
        );
        frame::put_mark(scratch, &mark.reader, mark.next, &mark.note);
    }
    forgotten
        .iter()
        .for_each(|reader| frame::put_forget(scratch, reader));
    for damage in &frame.settled {
        let number = damage.segment.file_name().and_then(segment::number_of);
        frame::put_settled(scratch, &damage.hole(number.unwrap_or(MAX_NUMBER)));
    }
    if let Some(segment) = given_up {
        frame::put_oldest(scratch, segment);
    }

    let item_headers = scratch[FRAME_HEADER_BYTES..rest].chunks_exact(ITEM_HEADER_BYTES);
    let mut crc = 0;
    header.body_bytes = (scratch.len() - FRAME_HEADER_BYTES) as u32;
    for (item, item_header) in frame.items.iter().zip(item_headers) {
        crc = crc32c::crc32c_append(crc, item_header);
        for part in item.parts {
            crc = crc32c::crc32c_append(crc, part);
            header.body_bytes += part.len() as u32;
        }
    }
    header.body_crc = crc32c::crc32c_append(crc, &scratch[rest..]);
    let head = header.encode();
    scratch[..FRAME_HEADER_BYTES].copy_from_slice(&head);

    let (head, body) = scratch.split_at(FRAME_HEADER_BYTES);
    let (item_headers, rest) = body.split_at(rest - FRAME_HEADER_BYTES);
    let mut parts = Vec::with_capacity(
        2 + frame
            .items
            .iter()
            .map(|item| 1 + item.parts.len())
            .sum::<usize>(),
    );
    parts.push(IoSlice::new(head));
    for (item, item_header) in frame
        .items
        .iter()
        .zip(item_headers.chunks_exact(ITEM_HEADER_BYTES))
    {
        parts.push(IoSlice::new(item_header));
        parts.extend(item.parts.iter().map(|part| IoSlice::new(part)));
    }
    parts.push(IoSlice::new(rest));
    write(header, &mut parts)
}
