//! What may have changed: names from the kernel's notifications. Hints make a look come sooner; none is ever needed.

use std::{
    collections::HashSet,
    path::{Path, PathBuf},
};

/// More names than this are not kept apart: everything is looked at.
const MAX_NAMES: usize = 1024;

/// Names since the last look.
#[derive(Debug, Default, Clone)]
pub(crate) struct Hints {
    /// Too many, or the kernel's queue ran over.
    pub(crate) everything: bool,
    /// Files that were written to.
    pub(crate) files: HashSet<PathBuf>,
    /// Directories in which a name appeared, moved or went.
    pub(crate) directories: HashSet<PathBuf>,
    /// A source's own thread has brought something.
    pub(crate) fed: bool,
}

impl Hints {
    pub(crate) fn is_empty(&self) -> bool {
        !self.everything && !self.fed && self.files.is_empty() && self.directories.is_empty()
    }

    pub(crate) fn written(&mut self, file: PathBuf) {
        if !self.everything {
            self.files.insert(file);
            self.bound();
        }
    }

    pub(crate) fn renamed(&mut self, path: &Path) {
        if !self.everything
            && let Some(directory) = path.parent()
            && !self.directories.contains(directory)
        {
            self.directories.insert(directory.to_owned());
            self.bound();
        }
    }

    pub(crate) fn all(&mut self) {
        *self = Hints {
            everything: true,
            fed: self.fed,
            ..Hints::default()
        };
    }

    fn bound(&mut self) {
        if self.files.len() + self.directories.len() > MAX_NAMES {
            self.all();
        }
    }
}
