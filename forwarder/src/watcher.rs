//! The kernel's notifications (inotify by way of `notify`), turned into hints.
//!
//! Directories are watched, never files: a watch on a file stays with the inode when it is renamed. Nothing depends on a
//! hint: where there are none (limits, network file systems), sources are looked at once a scan interval.

use std::{
    collections::BTreeSet,
    path::PathBuf,
    sync::{Arc, mpsc},
    thread,
    time::{Duration, Instant},
};

use notify::{Event, EventHandler, EventKind, RecursiveMode, Watcher as _, event::ModifyKind};

use crate::{board::Board, inbox::Inbox, metrics::Metrics};

/// After a hint the handler stays away for this long: the kernel merges what happens to one file meanwhile into one event. At a
/// steady rate that is what keeps the cost of a line small; the first hint after a quiet time has left by then.
const PAUSE: Duration = Duration::from_millis(4);
/// What comes this shortly after a pause was waiting during it.
const BURST: Duration = Duration::from_micros(200);
/// Directories that are watched at most; the others are only looked at.
const MAX_WATCHED: usize = 1024;

/// Starts the thread that keeps the watches; it ends when the sender is dropped. The watches live on a thread of their own because adding
/// one waits for the handler, and nobody else should.
pub(crate) fn start(
    inbox: Arc<Inbox>,
    board: Arc<Board>,
    metrics: Metrics,
) -> std::io::Result<(mpsc::Sender<BTreeSet<PathBuf>>, thread::JoinHandle<()>)> {
    let (sender, directories) = mpsc::channel();
    let thread = thread::Builder::new()
        .name("hints".to_owned())
        .spawn(move || keep_watches(&directories, &inbox, &board, &metrics))?;
    Ok((sender, thread))
}

fn keep_watches(
    directories: &mpsc::Receiver<BTreeSet<PathBuf>>,
    inbox: &Arc<Inbox>,
    board: &Board,
    metrics: &Metrics,
) {
    let no_hints = |why: Option<String>| {
        metrics.hints_on.set(why.is_none().into());
        let news = why.is_some() && board.posted().no_hints != why;
        if news {
            tracing::warn!(
                why,
                "no hints from the kernel: sources are looked at once a scan interval"
            );
        }
        board.post(|posted| posted.no_hints = why);
    };
    let handler = Hinter {
        inbox: Arc::clone(inbox),
        awake_since: Instant::now(),
    };
    let mut watcher = match notify::recommended_watcher(handler) {
        Ok(watcher) => watcher,
        Err(error) => {
            no_hints(Some(error.to_string()));
            // Takes what is sent all the same, so that its sender need not know.
            return directories.iter().for_each(drop);
        }
    };
    let mut watched: BTreeSet<PathBuf> = BTreeSet::new();
    for wanted in directories {
        for gone in watched.difference(&wanted) {
            // A directory that was removed has no watch any more.
            let _ = watcher.unwatch(gone);
        }
        watched.retain(|directory| wanted.contains(directory));
        let mut why =
            (wanted.len() > MAX_WATCHED).then(|| format!("more than {MAX_WATCHED} directories"));
        for directory in wanted {
            if watched.len() >= MAX_WATCHED || watched.contains(&directory) {
                continue;
            }
            match watcher.watch(&directory, RecursiveMode::NonRecursive) {
                Ok(()) => drop(watched.insert(directory)),
                Err(error) if matches!(error.kind, notify::ErrorKind::PathNotFound) => {}
                Err(error) => why = Some(error.to_string()),
            }
        }
        no_hints(why);
        // What happened before the watch was there.
        inbox.hint(crate::hints::Hints::all);
    }
}

struct Hinter {
    inbox: Arc<Inbox>,
    /// When the last pause ended.
    awake_since: Instant,
}

impl EventHandler for Hinter {
    fn handle_event(&mut self, event: notify::Result<Event>) {
        let Ok(event) = event else {
            return self.inbox.hint(crate::hints::Hints::all);
        };
        if event.need_rescan() {
            return self.inbox.hint(crate::hints::Hints::all);
        }
        match event.kind {
            EventKind::Modify(ModifyKind::Data(_) | ModifyKind::Any) => {
                self.inbox
                    .hint(|hints| event.paths.into_iter().for_each(|path| hints.written(path)));
            }
            EventKind::Create(_)
            | EventKind::Remove(_)
            | EventKind::Modify(ModifyKind::Name(_)) => {
                self.inbox
                    .hint(|hints| event.paths.iter().for_each(|path| hints.renamed(path)));
            }
            // Our own opening and reading is among these: hints for it would feed themselves.
            EventKind::Access(_) | EventKind::Modify(_) | EventKind::Any | EventKind::Other => {
                return;
            }
        }
        if self.awake_since.elapsed() > BURST {
            thread::sleep(PAUSE);
            self.awake_since = Instant::now();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::inbox::{News, Rest};

    /// Waits for hints, until they say what is wanted.
    fn wait_for(inbox: &Inbox, wanted: impl Fn(&News) -> bool) {
        let until = Instant::now() + Duration::from_secs(60);
        let rest = || Rest {
            until,
            linger_until: Instant::now(),
            wants_room: false,
        };
        while !wanted(&inbox.wait(rest())) {
            assert!(Instant::now() < until, "no such hint came");
        }
    }

    #[test]
    fn what_happens_in_a_watched_directory_is_hinted_at_and_our_own_reading_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let board = Arc::new(Board::default());
        let inbox = Arc::new(Inbox::new(Arc::clone(&board)));
        let (directories, thread) =
            start(Arc::clone(&inbox), Arc::clone(&board), Metrics::default()).unwrap();
        directories
            .send(BTreeSet::from([dir.path().to_owned()]))
            .unwrap();
        wait_for(&inbox, |news| news.hints.everything);
        assert_eq!(board.posted().no_hints, None);
        let file = dir.path().join("a.log");
        std::fs::write(&file, "one\n").unwrap();
        wait_for(&inbox, |news| news.hints.directories.contains(dir.path()));
        for n in 0..50 {
            use std::io::Write as _;
            let mut appended = std::fs::OpenOptions::new()
                .append(true)
                .open(&file)
                .unwrap();
            writeln!(appended, "{n}").unwrap();
        }
        wait_for(&inbox, |news| news.hints.files.contains(&file));
        std::fs::rename(&file, dir.path().join("a.log.1")).unwrap();
        wait_for(&inbox, |news| news.hints.directories.contains(dir.path()));
        let mut hinter = Hinter {
            inbox: Arc::clone(&inbox),
            awake_since: Instant::now(),
        };
        let kind = EventKind::Access(notify::event::AccessKind::Open(
            notify::event::AccessMode::Any,
        ));
        hinter.handle_event(Ok(Event::new(kind).add_path("/read/by/us".into())));
        hinter.handle_event(Ok(
            Event::new(EventKind::Any).set_flag(notify::event::Flag::Rescan)
        ));
        wait_for(&inbox, |news| {
            assert!(
                !news
                    .hints
                    .files
                    .contains(std::path::Path::new("/read/by/us"))
            );
            news.hints.everything
        });
        drop(directories);
        thread.join().unwrap();
    }
}
