//! Whose turn it is: a block of each file that has something, older generations first.

use super::{
    FileSource,
    open::OpenError,
    position::FileKey,
    tail::{Taken, Terms},
};
use crate::{batch::Moment, sources::Intake};

impl FileSource {
    /// Reads a block of the next file that has something; `false` when none has.
    pub(crate) fn read(&mut self, intake: &mut Intake<'_>) -> bool {
        for _ in 0..self.ready.len() {
            let Some(mut key) = self.ready.pop_front() else {
                break;
            };
            if !self.tails.get(&key).is_some_and(|tail| tail.queued) {
                continue;
            }
            if let Some(older) = self.comes_before(key) {
                self.ready.push_back(key);
                key = older;
            }
            let Some(tail) = self.tails.get_mut(&key) else {
                continue;
            };
            tail.queued = false;
            if let Err(error) = self.open_again(key) {
                self.refuse(key, error);
                continue;
            }
            if !self.classify(key, intake) {
                continue;
            }
            let terms = Terms {
                no: self.no,
                config: &self.config,
                matcher: self.matcher.as_deref(),
                rules: self.rules.as_deref(),
                start: self.start.as_ref(),
                zone: self.zone.as_ref(),
            };
            let Some(tail) = self.tails.get_mut(&key) else {
                continue;
            };
            match tail.take(&terms, intake) {
                Taken::Some { more } => {
                    if more {
                        self.queue(key);
                    } else if !self.unpack_more(key, intake) {
                        self.close_surplus(key);
                    }
                    self.settle(key);
                    return true;
                }
                Taken::NoRoom => {
                    self.queue(key);
                    return true;
                }
                Taken::Nothing => {
                    if !self.unpack_more(key, intake) {
                        self.close_surplus(key);
                    }
                }
                Taken::Changed(change) => self.changed(key, change, intake),
                Taken::Failed(error) => self.refuse(key, OpenError::Io(error)),
            }
        }
        false
    }

    /// Whether [`FileSource::read`] would find something to try.
    pub(crate) fn is_ready(&self) -> bool {
        !self.ready.is_empty()
    }

    pub(super) fn queue(&mut self, key: FileKey) {
        if let Some(tail) = self.tails.get_mut(&key)
            && !tail.queued
            && tail.copy_of.is_none()
        {
            tail.queued = true;
            self.ready.push_back(key);
        }
    }

    /// The older generation that has to be read first: of the same name as long as it has something, of the same family what it had when
    /// its newest was found. What only looks like a generation holds nobody up for longer.
    fn comes_before(&self, key: FileKey) -> Option<FileKey> {
        let tail = self.tails.get(&key)?;
        let named = self
            .generations
            .get(&tail.name)
            .filter(|keys| keys.len() > 1);
        let named = named
            .into_iter()
            .flatten()
            .filter_map(|other| self.tails.get(other))
            .filter(|other| other.queued && other.found_unix_nano < tail.found_unix_nano);
        let before = ..(tail.found_unix_nano, FileKey::FIRST);
        let owing = self.owing.get(&tail.family).into_iter();
        let owing = owing
            .flat_map(|owing| owing.range(before))
            .filter_map(|(_, other)| self.tails.get(other))
            .find(|other| other.queued && other.copy_of.is_none());
        let oldest = named.chain(owing).min_by_key(|other| other.found_unix_nano);
        oldest.map(|other| other.key)
    }

    /// A family waits no longer for what has been read.
    fn settle(&mut self, key: FileKey) {
        if let Some(tail) = self.tails.get(&key)
            && tail.offset >= tail.owed_until
            && let Some(owing) = self.owing.get_mut(&tail.family)
        {
            owing.remove(&(tail.found_unix_nano, key));
            if owing.is_empty() {
                self.owing.remove(&tail.family);
            }
        }
    }

    pub(super) fn flush_waiting(&mut self, now: Moment) {
        let at_least = self.config.waits_at_least();
        let waiting = self
            .tails
            .values()
            .filter(|tail| tail.waits_longer_than(at_least, now.at));
        let waiting: Vec<FileKey> = waiting.map(|tail| tail.key).collect();
        for key in waiting {
            self.queue(key);
        }
    }
}
