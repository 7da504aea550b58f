//! Why an output does not get on. All of it is tried again.

use std::{
    io,
    path::{Path, PathBuf},
};

use super::super::feed::MarkError;

/// Nothing is lost by any of these: the mark stands, the buffer holds what is behind it.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Trouble {
    /// The file system: full, read-only, permission lost, directory gone. What was written beyond the mark is cut and written again.
    #[error("{action} {}", path.display())]
    Disk {
        action: &'static str,
        path: PathBuf,
        source: io::Error,
    },
    /// Something that is not a regular file lies where the file should be.
    #[error("{} is not a regular file", path.display())]
    NotAFile { path: PathBuf },
    /// The buffer cannot be read now.
    #[error("read buffer segment {}", path.display())]
    Read { path: PathBuf, source: io::Error },
    /// The buffer does not take the mark now. What it covers is written and synced.
    #[error(transparent)]
    Mark(#[from] MarkError),
}

impl Trouble {
    pub(crate) fn disk(action: &'static str, path: &Path, source: io::Error) -> Trouble {
        Trouble::Disk {
            action,
            path: path.to_owned(),
            source,
        }
    }

    /// With its cause, on one line.
    pub(crate) fn reason(&self) -> String {
        match self {
            Trouble::Disk { source, .. } | Trouble::Read { source, .. } => {
                format!("{self}: {source}")
            }
            Trouble::NotAFile { .. } | Trouble::Mark(_) => self.to_string(),
        }
    }

    /// Whether the file has to be opened and cut anew.
    pub(crate) fn leaves_the_file_unknown(&self) -> bool {
        match self {
            Trouble::Disk { .. } | Trouble::NotAFile { .. } => true,
            Trouble::Read { .. } | Trouble::Mark(_) => false,
        }
    }
}
