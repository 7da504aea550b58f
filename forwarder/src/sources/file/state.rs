//! Positions and the spool's state: what goes into a frame, what comes out of a recovery.

use std::collections::BTreeMap;

use bytes::Bytes;
use watchline_spool::Spool;

use super::{
    FileSource,
    position::{FileKey, Position},
    tail::{Moved, Tail},
};
use crate::batch::Moment;

/// Positions without events that one frame takes.
const FOUND_PER_FRAME: usize = 500;

impl FileSource {
    /// Puts into `state` what has to be stored with the next frame: every position that events were taken from, some of the others.
    pub(crate) fn moved(&mut self, state: &mut Vec<(Bytes, Option<Bytes>)>) {
        let source = &self.config.name;
        let mut found = 0;
        for tail in self.tails.values_mut() {
            match tail.moved {
                Moved::No => continue,
                Moved::Found if found >= FOUND_PER_FRAME => continue,
                Moved::Found => found += 1,
                Moved::Read => {}
            }
            tail.moved = Moved::No;
            state.push((
                position_key(source, tail.key),
                Some(tail.position().encode().into()),
            ));
        }
        for key in std::mem::take(&mut self.read_since) {
            if let Some(position) = self.orphans.get(&key) {
                self.moved_orphans.remove(&key);
                state.push((position_key(source, key), Some(position.encode().into())));
            }
        }
        while found < FOUND_PER_FRAME
            && let Some(key) = self.moved_orphans.pop_first()
        {
            if let Some(position) = self.orphans.get(&key) {
                state.push((position_key(source, key), Some(position.encode().into())));
                found += 1;
            }
        }
        for key in std::mem::take(&mut self.removed) {
            if !self.tails.contains_key(&key) && !self.orphans.contains_key(&key) {
                state.push((position_key(source, key), None));
            }
        }
        // Only when every file that was there has a position may the next start take an unknown one for new.
        if self.owes_first_start && self.rounds > 0 && found < FOUND_PER_FRAME {
            self.owes_first_start = false;
            state.push((first_start_key(source), Some(Bytes::from_static(&[1]))));
        }
    }

    /// Whether [`FileSource::moved`] has something to store that no event will bring along.
    pub(crate) fn owes_state(&self) -> bool {
        self.owes_first_start && self.rounds > 0
            || !self.removed.is_empty()
            || !self.moved_orphans.is_empty()
            || !self.read_since.is_empty()
            || self.tails.values().any(|tail| tail.moved != Moved::No)
    }

    /// What was read since some frame is not stored after all: goes back to `positions`, the state as recovered.
    pub(crate) fn rewind(
        &mut self,
        mut positions: BTreeMap<FileKey, Position>,
        started_before: bool,
    ) {
        self.started_before = started_before;
        self.owes_first_start = !started_before;
        self.ready.clear();
        self.owing.clear();
        self.removed.clear();
        self.moved_orphans.clear();
        self.read_since.clear();
        let keys: Vec<FileKey> = self.tails.keys().copied().collect();
        for key in keys {
            let Some(tail) = self.tails.get_mut(&key) else {
                continue;
            };
            tail.queued = false;
            let Some(position) = positions.remove(&key) else {
                if tail.in_pattern || tail.path.is_some() {
                    // It is found again.
                    self.forget(key);
                } else if let Some(file) = tail.handle.take() {
                    // Only the handle leads to it: what is known of it is that it was not read.
                    let _ = tail.skip_to(&file, 0);
                    tail.handle = Some(file);
                }
                continue;
            };
            // What was unpacked of a packed file is gone: it is unpacked again.
            let handle = tail.handle.take_if(|_| tail.packed.is_none());
            let Some(file) = handle else {
                self.forget(key);
                positions.insert(key, position);
                continue;
            };
            let now = Moment {
                unix_nano: position.confirmed_unix_nano,
                at: tail.idle_since,
            };
            match Tail::resume(&self.config.name, key, &position, &file, now) {
                Ok(Ok(mut resumed)) => {
                    (resumed.path, resumed.in_pattern) = (tail.path.clone(), tail.in_pattern);
                    (resumed.inode, resumed.size) = (tail.inode, tail.size);
                    resumed.handle = Some(file);
                    *tail = resumed;
                }
                // Its content changed since: found again as what it is now, its old position stays for a copy.
                Ok(Err(_)) | Err(_) => {
                    self.forget(key);
                    positions.insert(key, position);
                }
            }
        }
        self.orphans = positions;
        let families: Vec<_> = self.families.keys().cloned().collect();
        for family in families {
            self.owe(&family);
        }
    }
}

/// `position/<source>/<file key>` in the spool's state.
fn position_key(source: &str, key: FileKey) -> Bytes {
    format!("position/{source}/{key}").into()
}

/// The part of [`position_key`] before the file key.
pub(super) fn positions_prefix(source: &str) -> String {
    format!("position/{source}/")
}

/// Says that the source has been started once.
pub(super) fn first_start_key(source: &str) -> Bytes {
    format!("first_start/{source}").into()
}

/// Reads one entry of the state; `key` is what follows [`positions_prefix`].
pub(super) fn read_position(key: &[u8], value: &[u8]) -> Option<(FileKey, Position)> {
    let key = str::from_utf8(key)
        .ok()
        .and_then(|key| u64::from_str_radix(key, 16).ok())?;
    match Position::decode(value) {
        Ok(position) => Some((FileKey(key), position)),
        Err(error) => {
            tracing::error!(%error, "a stored position cannot be read: its file is found like a new one");
            None
        }
    }
}

/// What the spool's state holds for one source: its positions, and whether it was started before.
pub(super) fn stored(spool: &Spool, source: &str) -> (BTreeMap<FileKey, Position>, bool) {
    let prefix = positions_prefix(source);
    let positions = spool
        .state_with_prefix(prefix.as_bytes())
        .filter_map(|(key, value)| read_position(&key[prefix.len()..], value))
        .collect();
    (positions, spool.state(&first_start_key(source)).is_some())
}
