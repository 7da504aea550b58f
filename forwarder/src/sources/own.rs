//! What is never read.

use std::path::{Path, PathBuf};

use rustix::fs::fstat;

/// Files that are the forwarder's own and never read, whatever the patterns say: they would feed themselves, or give a key away.
#[derive(Debug, Default)]
pub(crate) struct OwnFiles {
    files: Vec<PathBuf>,
    directories: Vec<PathBuf>,
    /// Where standard error goes, if that is a file.
    log: Option<(u64, u64)>,
}

impl OwnFiles {
    pub(crate) fn new(files: Vec<PathBuf>, directories: Vec<PathBuf>) -> OwnFiles {
        let real = |path: PathBuf| path.canonicalize().unwrap_or(path);
        let log = fstat(std::io::stderr()).ok();
        let is_file =
            |stat: &rustix::fs::Stat| rustix::fs::FileType::from_raw_mode(stat.st_mode).is_file();
        OwnFiles {
            files,
            directories: directories.into_iter().map(real).collect(),
            log: log.filter(is_file).map(|stat| (stat.st_dev, stat.st_ino)),
        }
    }

    pub(crate) fn covers(&self, path: &Path, dev: u64, ino: u64) -> bool {
        if self.log == Some((dev, ino)) {
            return true;
        }
        let is_file = |own: &PathBuf| {
            rustix::fs::stat(own).is_ok_and(|stat| (stat.st_dev, stat.st_ino) == (dev, ino))
        };
        let within = || {
            let real = path.canonicalize();
            let real = real.as_deref().unwrap_or(path);
            self.directories
                .iter()
                .any(|directory| real.starts_with(directory))
        };
        self.files.iter().any(is_file) || within()
    }
}
