//! Reading a file while it is written, without polling it.

use std::{
    fs::File,
    io::{self, Read},
    mem::MaybeUninit,
    os::fd::OwnedFd,
    path::{Path, PathBuf},
};

use rustix::fs::inotify::{self, CreateFlags, WatchFlags};

/// The complete lines of a file, without their line feeds, as they are written; never ends. The file may not exist yet; it
/// may not be rotated.
#[derive(Debug)]
pub struct Follow {
    path: PathBuf,
    file: Option<File>,
    hints: OwnedFd,
    pending: Vec<u8>,
    read: usize,
}

impl Follow {
    /// Watches the folder of `path`.
    ///
    /// # Errors
    /// The folder cannot be watched.
    pub fn new(path: &Path) -> io::Result<Follow> {
        let folder = path.parent().ok_or(io::ErrorKind::InvalidInput)?;
        let hints = inotify::init(CreateFlags::CLOEXEC)?;
        inotify::add_watch(
            &hints,
            folder,
            WatchFlags::MODIFY | WatchFlags::CREATE | WatchFlags::MOVED_TO,
        )?;
        Ok(Follow {
            path: path.to_owned(),
            file: None,
            hints,
            pending: Vec::new(),
            read: 0,
        })
    }

    /// Reads what is there; `false` when there was nothing new.
    fn read_more(&mut self) -> io::Result<bool> {
        if self.file.is_none() {
            match File::open(&self.path) {
                Ok(file) => self.file = Some(file),
                Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
                Err(error) => return Err(error),
            }
        }
        self.pending.drain(..self.read);
        self.read = 0;
        match &mut self.file {
            Some(file) => Ok(file.by_ref().take(1 << 20).read_to_end(&mut self.pending)? > 0),
            None => Ok(false),
        }
    }

    /// Blocks until something in the folder has changed.
    fn wait(&self) -> io::Result<()> {
        let mut space = [MaybeUninit::uninit(); 4096];
        inotify::Reader::new(&self.hints, &mut space).next()?;
        Ok(())
    }
}

impl Iterator for Follow {
    type Item = io::Result<Vec<u8>>;

    fn next(&mut self) -> Option<io::Result<Vec<u8>>> {
        loop {
            let unread = &self.pending[self.read..];
            if let Some(length) = unread.iter().position(|byte| *byte == b'\n') {
                let line = unread[..length].to_vec();
                self.read += length + 1;
                return Some(Ok(line));
            }
            let more = self
                .read_more()
                .and_then(|more| if more { Ok(()) } else { self.wait() });
            if let Err(error) = more {
                return Some(Err(error));
            }
        }
    }
}
