//! Finding the file that the mark names, and what is done when it is not as it was left.

use std::path::Path;

use tracing::{info, warn};

use super::{
    Follower, Form, Now, Open, WINDOW_BYTES,
    disk::Found,
    note::{GUARD_BYTES, Note, Tail},
    trouble::Trouble,
};

/// Why what lies at the path is not the file that the mark names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Foreign {
    Missing,
    OtherFile,
    Shorter,
    Altered,
    Longer,
    Unmarked,
}

impl Foreign {
    fn as_str(self) -> &'static str {
        match self {
            Foreign::Missing => "missing",
            Foreign::OtherFile => "other_file",
            Foreign::Shorter => "shorter",
            Foreign::Altered => "altered",
            Foreign::Longer => "longer",
            Foreign::Unmarked => "unmarked",
        }
    }

    fn sentence(self) -> &'static str {
        match self {
            Foreign::Missing => "is no longer there",
            Foreign::OtherFile => "is another file than the one that was written",
            Foreign::Shorter => "is shorter than what was written",
            Foreign::Altered => "does not end with what was written",
            Foreign::Longer => "holds more than what was written",
            Foreign::Unmarked => "was there before this output wrote anything",
        }
    }
}

impl<F: Form> Follower<F> {
    /// Opens the file that the mark names and cuts it to the marked length; goes on with a closing that was begun; or begins a new file.
    pub(super) fn settle(&mut self, now: Now) -> Result<(), Trouble> {
        let Some(note) = self.note.clone() else {
            self.make_directory()?;
            return self.begin(now, None);
        };
        if note.path != self.place.path() {
            self.leave_behind(&note);
            self.make_directory()?;
            return self.begin(now, None);
        }
        if let Some(target) = &note.closing {
            let found = self.look(target)?;
            if found.is_some_and(|found| found.identity.is_same_file(note.identity)) {
                return self.finish_closing(target, now);
            }
        }
        let found = self.look(self.place.path())?;
        match self.open_marked(&note, note.path.as_path(), found)? {
            Ok(open) => {
                self.open = Some(open);
                Ok(())
            }
            Err(foreign) => self.begin(now, Some(foreign)),
        }
    }

    /// Makes a new file, or takes an empty one that lies there; anything else at the path is renamed aside.
    pub(super) fn begin(&mut self, now: Now, foreign: Option<Foreign>) -> Result<(), Trouble> {
        let path = self.place.path().to_owned();
        let directory = self.place.directory().to_owned();
        let mut foreign = foreign;
        let mut kept = None;
        let file = match self.look(&path)? {
            Some(found) if !found.is_file => return Err(Trouble::NotAFile { path }),
            Some(found) if found.length == 0 => self.disk.open(&path),
            Some(_) => {
                let aside = self.place.kept_name(&*self.disk, now.unix_nano)?;
                self.disk
                    .rename(&path, &aside)
                    .map_err(|error| Trouble::disk("rename", &path, error))?;
                self.disk
                    .sync_directory(&directory)
                    .map_err(|error| Trouble::disk("sync", &directory, error))?;
                foreign.get_or_insert(Foreign::Unmarked);
                kept = Some(aside);
                self.disk.create(&path)
            }
            None => self.disk.create(&path),
        };
        let file = file.map_err(|error| Trouble::disk("create", &path, error))?;
        if let Some(foreign) = foreign {
            self.tell(foreign, kept.as_deref());
        }
        file.sync()
            .map_err(|error| Trouble::disk("sync", &path, error))?;
        self.disk
            .sync_directory(&directory)
            .map_err(|error| Trouble::disk("sync", &directory, error))?;
        let found = file
            .found()
            .map_err(|error| Trouble::disk("look at", &path, error))?;
        let number = match &self.note {
            Some(note) if note.path == path => note.number + u64::from(note.length > 0),
            _ => 0,
        };
        self.written.records = 0;
        self.rendered.records = 0;
        self.open = Some(Open {
            file,
            form: self.form.id(),
            identity: found.identity,
            length: 0,
            limit: 0,
            tail: Tail::default(),
            opened_unix_nano: now.unix_nano,
            number,
            unsynced: false,
            closing: None,
        });
        self.mark(true, Some(WINDOW_BYTES))
    }

    fn look(&self, path: &Path) -> Result<Option<Found>, Trouble> {
        self.disk
            .look(path)
            .map_err(|error| Trouble::disk("look at", path, error))
    }

    /// Only at the very first start, or in a place that was configured anew: a directory that vanishes later is an error to be told.
    fn make_directory(&self) -> Result<(), Trouble> {
        let directory = self.place.directory();
        if self.look(directory)?.is_none() {
            self.disk
                .create_directory(directory)
                .map_err(|error| Trouble::disk("create", directory, error))?;
        }
        Ok(())
    }

    /// Opens the file at `path` if it is the one of `note`, and cuts it.
    fn open_marked(
        &self,
        note: &Note,
        path: &Path,
        found: Option<Found>,
    ) -> Result<Result<Open, Foreign>, Trouble> {
        let Some(found) = found else {
            return Ok(Err(Foreign::Missing));
        };
        if !found.is_file {
            return Err(Trouble::NotAFile {
                path: path.to_owned(),
            });
        }
        if !found.identity.is_same_file(note.identity) {
            return Ok(Err(Foreign::OtherFile));
        }
        let failed = |action| move |error| Trouble::disk(action, path, error);
        let file = self.disk.open(path).map_err(failed("open"))?;
        let found = file.found().map_err(failed("look at"))?;
        if !found.identity.is_same_file(note.identity) {
            return Ok(Err(Foreign::OtherFile));
        }
        if found.length < note.length {
            return Ok(Err(Foreign::Shorter));
        }
        let guarded = note.length.min(GUARD_BYTES as u64);
        let mut last = vec![0; guarded as usize];
        file.read_at(&mut last, note.length - guarded)
            .map_err(failed("read"))?;
        let mut tail = Tail::default();
        tail.push(&last);
        if tail.guard() != note.guard {
            return Ok(Err(Foreign::Altered));
        }
        if found.length > note.limit.max(note.length) {
            return Ok(Err(Foreign::Longer));
        }
        if found.length > note.length {
            file.truncate(note.length).map_err(failed("cut"))?;
            let cut_bytes = found.length - note.length;
            info!(output = %self.feed.output, file = %path.display(), cut_bytes, "file cut to its mark");
        }
        Ok(Ok(Open {
            file,
            form: note.form,
            identity: found.identity,
            length: note.length,
            limit: note.limit,
            tail,
            opened_unix_nano: note.opened_unix_nano,
            number: note.number,
            // A cut of ours, or of an attempt before whose sync failed, is not durable yet.
            unsynced: true,
            closing: note.closing.clone(),
        }))
    }

    /// The configuration names another place now: the file of before ends at its mark.
    fn leave_behind(&self, note: &Note) {
        let cut = self
            .look(&note.path)
            .and_then(|found| self.open_marked(note, &note.path, found));
        match cut.and_then(|open| match open {
            Ok(open) => open
                .file
                .sync()
                .map_err(|error| Trouble::disk("sync", &note.path, error)),
            Err(_) => Ok(()),
        }) {
            Ok(()) => {
                info!(output = %self.feed.output, file = %note.path.display(), "file left behind")
            }
            Err(trouble) => {
                warn!(output = %self.feed.output, error = %trouble.reason(), "file left behind as it is")
            }
        }
    }

    /// An event says that the file is not the one of the mark; once for each mark.
    fn tell(&mut self, foreign: Foreign, kept: Option<&Path>) {
        let path = self.place.path().display();
        let why = foreign.sentence();
        warn!(output = %self.feed.output, file = %path, reason = foreign.as_str(), "a new file is begun");
        let mut attributes = vec![
            ("watchline.output".to_owned(), self.feed.output.clone()),
            ("watchline.output.file".to_owned(), path.to_string()),
            (
                "watchline.output.reason".to_owned(),
                foreign.as_str().to_owned(),
            ),
        ];
        let mut body = format!(
            "output {}: {path} {why}; a new file is begun",
            self.feed.output
        );
        if let Some(kept) = kept {
            attributes.push((
                "watchline.output.kept_as".to_owned(),
                kept.display().to_string(),
            ));
            body.push_str(&format!(", the old one is kept as {}", kept.display()));
        }
        if kept.is_none() && self.told_of.is_some() && self.told_of == self.note {
            return; // said already; an error came between
        }
        self.told_of.clone_from(&self.note);
        self.gaps_raised = true;
        self.feed
            .events
            .raise("watchline.output.file_replaced", attributes, body);
    }
}
