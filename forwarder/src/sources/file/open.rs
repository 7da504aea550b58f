//! Opening a file that somebody else may have named.
//!
//! Whoever may write a directory can plant a link in it to a file that only the forwarder may read, or a FIFO to block on. So each
//! component of a path is looked at before it is entered: a symbolic link is followed only if root owns it or the owner of
//! what it leads to; what is opened in the end is a regular file, opened without blocking. A file that has several names is read only where
//! everybody who may write the directory may read the file anyway: a hard link shows nothing of who made it.

use std::{
    collections::VecDeque,
    ffi::{OsStr, OsString},
    fs::File,
    io,
    os::{fd::OwnedFd, unix::ffi::OsStrExt},
    path::{Component, Path},
};

use rustix::fs::{CWD, FileType, Mode, OFlags, Stat, fstat, openat, readlinkat};

/// Links followed in one path before it counts as a loop: the kernel's own number.
const MAX_LINKS: usize = 40;

/// Why a path was not opened. None of them loses anything: the file is looked at again with the next scan.
#[derive(Debug, thiserror::Error)]
pub(crate) enum OpenError {
    #[error("is not there")]
    NotFound,
    #[error("is not a regular file")]
    NotRegular,
    #[error("leads through a link that neither root nor the owner of its target owns")]
    PlantedLink,
    #[error("leads through more than {MAX_LINKS} links")]
    LinkLoop,
    /// Whoever may write the directory may have made it, to have a file read that they may not read.
    #[error("is a hard link in a directory that somebody may write who may not read the file")]
    PlantedHardLink,
    #[error("is packed: what is in it was read before, or from the file that it was")]
    Packed,
    #[error("cannot be opened")]
    Io(#[source] io::Error),
}

impl OpenError {
    /// Whether somebody may have put it there to be read, or to be blocked on.
    pub(super) fn may_be_planted(&self) -> bool {
        match self {
            OpenError::NotRegular
            | OpenError::PlantedLink
            | OpenError::PlantedHardLink
            | OpenError::LinkLoop => true,
            OpenError::NotFound | OpenError::Packed | OpenError::Io(_) => false,
        }
    }
}

impl From<io::Error> for OpenError {
    fn from(error: io::Error) -> Self {
        OpenError::Io(error)
    }
}

impl From<rustix::io::Errno> for OpenError {
    fn from(errno: rustix::io::Errno) -> Self {
        match errno {
            rustix::io::Errno::NOENT | rustix::io::Errno::NOTDIR => OpenError::NotFound,
            other => OpenError::Io(other.into()),
        }
    }
}

/// Opens the regular file at the absolute `path` for reading. Blocks on the file system only.
pub(crate) fn open(path: &Path) -> Result<(File, Stat), OpenError> {
    let mut left: VecDeque<OsString> = VecDeque::new();
    push_components(&mut left, path);
    let root = || {
        openat(
            CWD,
            "/",
            OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC,
            Mode::empty(),
        )
    };
    let mut directory: OwnedFd = root()?;
    // Links on the way: owner, and how many components were left behind each. Its target is what is reached when no more are left.
    let mut links: Vec<(u32, usize)> = Vec::new();
    let mut followed = 0;
    while let Some(component) = left.pop_front() {
        let look = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let found = openat(&directory, component.as_os_str(), look, Mode::empty())?;
        let stat = fstat(&found)?;
        if FileType::from_raw_mode(stat.st_mode) == FileType::Symlink {
            followed += 1;
            if followed > MAX_LINKS {
                return Err(OpenError::LinkLoop);
            }
            links.push((stat.st_uid, left.len()));
            let target = readlinkat(&directory, component.as_os_str(), Vec::new())?;
            let target = Path::new(OsStr::from_bytes(target.to_bytes()));
            if target.is_absolute() {
                directory = root()?;
            }
            push_components(&mut left, target);
            continue;
        }
        while let Some(&(owner, behind)) = links.last() {
            if left.len() > behind {
                break;
            }
            if owner != 0 && owner != stat.st_uid {
                return Err(OpenError::PlantedLink);
            }
            links.pop();
        }
        if !left.is_empty() {
            directory = found;
            continue;
        }
        if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
            return Err(OpenError::NotRegular);
        }
        let read =
            OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
        let file = openat(&directory, component.as_os_str(), read, Mode::empty())?;
        let opened = fstat(&file)?;
        // Between the look and the opening the name may have moved on to another file: look again with the next scan.
        if (opened.st_dev, opened.st_ino) != (stat.st_dev, stat.st_ino) {
            return Err(OpenError::NotFound);
        }
        if opened.st_nlink > 1 && !writers_may_read(&fstat(&directory)?, &opened) {
            return Err(OpenError::PlantedHardLink);
        }
        return Ok((File::from(file), opened));
    }
    Err(OpenError::NotRegular)
}

/// Whether everybody who may make a link in `directory` may read `file` too. The owner of a file may always make it readable.
fn writers_may_read(directory: &Stat, file: &Stat) -> bool {
    let by_all = file.st_mode & 0o004 != 0;
    let owner = directory.st_uid == 0 || directory.st_uid == file.st_uid || by_all;
    let by_group = directory.st_gid == file.st_gid && file.st_mode & 0o040 != 0;
    let group = directory.st_mode & 0o020 == 0 || by_group || by_all;
    let others = directory.st_mode & 0o002 == 0 || by_all;
    owner && group && others
}

/// Puts the components of `path` in front of what is left to walk.
fn push_components(left: &mut VecDeque<OsString>, path: &Path) {
    for component in path.components().rev() {
        match component {
            Component::Normal(name) => left.push_front(name.to_owned()),
            Component::ParentDir => left.push_front(OsString::from("..")),
            Component::CurDir | Component::RootDir | Component::Prefix(_) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt, chown, lchown, symlink};

    use super::*;

    /// TAILING 21.
    #[test]
    fn a_fifo_is_not_opened_and_does_not_block() {
        let dir = tempfile::tempdir().unwrap();
        let fifo = dir.path().join("fifo.log");
        rustix::fs::mknodat(CWD, &fifo, FileType::Fifo, Mode::RUSR, 0).unwrap();
        assert!(matches!(open(&fifo), Err(OpenError::NotRegular)));
        assert!(matches!(open(dir.path()), Err(OpenError::NotRegular)));
    }

    /// TAILING 21.
    #[test]
    fn a_link_of_the_targets_owner_is_followed_and_a_loop_is_not() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("app-2026-11-23.log"), "x\n").unwrap();
        symlink("app-2026-11-23.log", dir.path().join("app.log")).unwrap();
        assert_eq!(open(&dir.path().join("app.log")).unwrap().1.st_size, 2);
        std::fs::create_dir(dir.path().join("real")).unwrap();
        std::fs::write(dir.path().join("real/x.log"), "xyz").unwrap();
        symlink(dir.path().join("real"), dir.path().join("by-link")).unwrap();
        assert_eq!(
            open(&dir.path().join("by-link/../by-link/x.log"))
                .unwrap()
                .1
                .st_size,
            3
        );
        symlink("loop.log", dir.path().join("loop.log")).unwrap();
        assert!(matches!(
            open(&dir.path().join("loop.log")),
            Err(OpenError::LinkLoop)
        ));
        assert!(matches!(
            open(&dir.path().join("none.log")),
            Err(OpenError::NotFound)
        ));
    }

    /// TAILING 21.
    #[test]
    fn a_planted_link_is_refused() {
        if !rustix::process::geteuid().is_root() {
            return; // only root can make files of two owners
        }
        let dir = tempfile::tempdir().unwrap();
        let secret = dir.path().join("secret");
        std::fs::write(&secret, "x\n").unwrap();
        let link = dir.path().join("app.log");
        symlink(&secret, &link).unwrap();
        lchown(&link, Some(4242), Some(4242)).unwrap();
        assert!(matches!(open(&link), Err(OpenError::PlantedLink)));
        chown(&secret, Some(4242), Some(4242)).unwrap();
        assert!(
            open(&link).is_ok(),
            "a link to one's own file gives nothing away"
        );
    }

    /// TAILING 21.
    #[test]
    fn a_hard_link_that_a_writer_of_the_directory_may_have_planted_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let (secret, theirs) = (dir.path().join("secret"), dir.path().join("theirs"));
        std::fs::write(&secret, "x\n").unwrap();
        std::fs::create_dir(&theirs).unwrap();
        let link = theirs.join("app.log");
        std::fs::hard_link(&secret, &link).unwrap();
        let mode = |path: &Path, mode: u32| {
            std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
        };
        mode(&secret, 0o600);
        mode(&theirs, 0o755);
        assert!(
            open(&link).is_ok(),
            "only the owner of both may have made it"
        );
        for writable in [0o775, 0o757] {
            mode(&theirs, writable);
            mode(&secret, 0o600);
            assert!(matches!(open(&link), Err(OpenError::PlantedHardLink)));
            mode(&secret, 0o644);
            assert!(open(&link).is_ok(), "everybody may read it");
        }
        mode(&theirs, 0o755);
        mode(&secret, 0o600);
        if rustix::process::geteuid().is_root() {
            chown(&theirs, Some(4242), Some(4242)).unwrap();
            assert!(matches!(open(&link), Err(OpenError::PlantedHardLink)));
            std::fs::remove_file(&secret).unwrap();
            assert!(open(&link).is_ok(), "a file with one name");
        }
    }
}
