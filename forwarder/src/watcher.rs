//! The kernel's notifications (inotify by way of `notify`), turned into hints.
//!
//! Directories are watched, never files: a watch on a file stays with the inode when it is renamed. Nothing depends on a
//! hint: where there are none (limits, network file systems), sources are looked at once a scan interval.

use std::{
    collections::{BTreeMap, BTreeSet},
    os::unix::fs::MetadataExt,
    path::PathBuf,
    sync::{Arc, mpsc},
    thread,
    time::{Duration, Instant},
};

use notify::{
    Event, EventHandler, EventKind, RecommendedWatcher, RecursiveMode, event::ModifyKind,
};

use crate::{board::Board, inbox::Inbox, metrics::Metrics};

/// After a hint the handler stays away for this long: the kernel merges what happens to one file meanwhile into one event. At a
/// steady rate that is what keeps the cost of a line small; the first hint after a quiet time has left by then.
const PAUSE: Duration = Duration::from_millis(4);
/// What comes this shortly after a pause was waiting during it.
const BURST: Duration = Duration::from_micros(200);
/// Directories that are watched at most; the others are only looked at.
const MAX_WATCHED: usize = 1024;
/// What could not be watched is tried again this often.
const AGAIN: Duration = Duration::from_secs(30);

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
        .spawn(move || {
            keep_watches::<RecommendedWatcher>(&directories, &inbox, &board, &metrics, AGAIN);
        })?;
    Ok((sender, thread))
}

fn keep_watches<W: notify::Watcher>(
    directories: &mpsc::Receiver<BTreeSet<PathBuf>>,
    inbox: &Arc<Inbox>,
    board: &Board,
    metrics: &Metrics,
    again: Duration,
) {
    let mut watches: Watches<W> = Watches::default();
    let mut wanted = BTreeSet::new();
    loop {
        let why = watches.keep(&wanted, inbox);
        metrics.hints_on.set(why.is_none().into());
        if why.is_some() && board.posted().no_hints != why {
            tracing::warn!(
                why,
                "no hints from the kernel: sources are looked at once a scan interval"
            );
        }
        board.post(|posted| posted.no_hints = why);
        // Limits are raised, directories are removed and made again.
        match directories.recv_timeout(again) {
            Ok(now) => wanted = now,
            Err(mpsc::RecvTimeoutError::Timeout) => {}
            Err(mpsc::RecvTimeoutError::Disconnected) => return,
        }
    }
}

/// The watches that there are.
struct Watches<W> {
    /// `None`: the kernel gave no instance.
    watcher: Option<W>,
    /// By the directory's device and inode: one that was made again has no watch.
    watched: BTreeMap<PathBuf, (u64, u64)>,
}

impl<W> Default for Watches<W> {
    fn default() -> Watches<W> {
        Watches {
            watcher: None,
            watched: BTreeMap::new(),
        }
    }
}

impl<W: notify::Watcher> Watches<W> {
    /// Watches what is wanted and nothing else, as far as that goes; why not all of it. Waits for the handler at most.
    fn keep(&mut self, wanted: &BTreeSet<PathBuf>, inbox: &Arc<Inbox>) -> Option<String> {
        let handler = Hinter {
            inbox: Arc::clone(inbox),
            awake_since: Instant::now(),
        };
        let watcher = match &mut self.watcher {
            Some(watcher) => watcher,
            none => match W::new(handler, notify::Config::default()) {
                Ok(watcher) => none.insert(watcher),
                Err(error) => return Some(error.to_string()),
            },
        };
        let is = |directory: &PathBuf| {
            let meta = std::fs::metadata(directory).ok()?;
            Some((meta.dev(), meta.ino()))
        };
        self.watched.retain(|directory, was| {
            let stays = wanted.contains(directory) && is(directory) == Some(*was);
            if !stays {
                // A directory that was removed has no watch any more.
                let _ = watcher.unwatch(directory);
            }
            stays
        });
        let mut why =
            (wanted.len() > MAX_WATCHED).then(|| format!("more than {MAX_WATCHED} directories"));
        let mut is_new = false;
        for directory in wanted {
            if self.watched.len() >= MAX_WATCHED || self.watched.contains_key(directory) {
                continue;
            }
            let Some(inode) = is(directory) else { continue };
            match watcher.watch(directory, RecursiveMode::NonRecursive) {
                Ok(()) => {
                    self.watched.insert(directory.clone(), inode);
                    is_new = true;
                }
                Err(error) if matches!(error.kind, notify::ErrorKind::PathNotFound) => {}
                Err(error) => why = Some(error.to_string()),
            }
        }
        if is_new {
            // What happened before the watch was there.
            inbox.hint(crate::hints::Hints::all);
        }
        why
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
    use std::{path::Path, sync::Mutex};

    use super::*;
    use crate::inbox::{News, Rest};

    /// Directories of which the kernel watches so many, for the tests that follow.
    static LIMITS: Mutex<BTreeMap<PathBuf, usize>> = Mutex::new(BTreeMap::new());

    /// A kernel whose limits of instances and of watches are low: the first directory that is watched leads to the limit.
    struct Limited {
        watched: usize,
    }

    impl notify::Watcher for Limited {
        fn new<F: EventHandler>(_: F, _: notify::Config) -> notify::Result<Limited> {
            Ok(Limited { watched: 0 })
        }

        fn watch(&mut self, path: &Path, _: RecursiveMode) -> notify::Result<()> {
            let limits = LIMITS.lock().unwrap();
            if self.watched >= limits[path.parent().unwrap()] {
                return Err(notify::Error::new(notify::ErrorKind::MaxFilesWatch));
            }
            self.watched += 1;
            Ok(())
        }

        fn unwatch(&mut self, _: &Path) -> notify::Result<()> {
            self.watched -= 1;
            Ok(())
        }

        fn kind() -> notify::WatcherKind {
            notify::WatcherKind::NullWatcher
        }
    }

    struct NoInstance;

    impl notify::Watcher for NoInstance {
        fn new<F: EventHandler>(_: F, _: notify::Config) -> notify::Result<NoInstance> {
            Err(notify::Error::io(rustix::io::Errno::MFILE.into()))
        }

        fn watch(&mut self, _: &Path, _: RecursiveMode) -> notify::Result<()> {
            Ok(())
        }

        fn unwatch(&mut self, _: &Path) -> notify::Result<()> {
            Ok(())
        }

        fn kind() -> notify::WatcherKind {
            notify::WatcherKind::NullWatcher
        }
    }

    /// TAILING 29.
    #[test]
    fn limits_of_watches_and_instances_are_said_and_tried_again() {
        let inbox = Arc::new(Inbox::new(Arc::default()));
        let dir = tempfile::tempdir().unwrap();
        let directories: BTreeSet<PathBuf> = (0..3)
            .map(|n| dir.path().join(n.to_string()))
            .inspect(|directory| std::fs::create_dir(directory).unwrap())
            .collect();
        let limit = |watches| {
            LIMITS
                .lock()
                .unwrap()
                .insert(dir.path().to_owned(), watches)
        };
        let mut watches = Watches::<Limited>::default();
        limit(2);
        let why = watches.keep(&directories, &inbox).unwrap();
        assert!(why.contains("OS file watch limit reached"), "{why}");
        assert_eq!(watches.watched.len(), 2);
        limit(3);
        assert_eq!(watches.keep(&directories, &inbox), None);
        assert_eq!(watches.watched.len(), 3);
        let why = Watches::<NoInstance>::default().keep(&directories, &inbox);
        assert!(why.unwrap().contains("os error 24"));
    }

    /// TAILING 29.
    #[test]
    fn what_cannot_be_watched_is_seen_on_the_board_until_it_can() {
        let board = Arc::new(Board::default());
        let inbox = Arc::new(Inbox::new(Arc::clone(&board)));
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("a")).unwrap();
        LIMITS.lock().unwrap().insert(dir.path().to_owned(), 0);
        let (sender, directories) = mpsc::channel();
        sender.send(BTreeSet::from([dir.path().join("a")])).unwrap();
        let thread = {
            let (inbox, board) = (Arc::clone(&inbox), Arc::clone(&board));
            let again = Duration::from_millis(1);
            thread::spawn(move || {
                keep_watches::<Limited>(&directories, &inbox, &board, &Metrics::default(), again);
            })
        };
        while board.posted().no_hints.is_none() {
            thread::yield_now();
        }
        LIMITS.lock().unwrap().insert(dir.path().to_owned(), 1);
        wait_for(&inbox, |news| news.hints.everything);
        while board.posted().no_hints.is_some() {
            thread::yield_now();
        }
        drop(sender);
        thread.join().unwrap();
    }

    #[test]
    fn a_directory_that_was_made_again_is_watched_again() {
        let board = Arc::new(Board::default());
        let inbox = Arc::new(Inbox::new(Arc::clone(&board)));
        let dir = tempfile::tempdir().unwrap();
        let logs = dir.path().join("logs");
        std::fs::create_dir(&logs).unwrap();
        let wanted = BTreeSet::from([logs.clone()]);
        let mut watches = Watches::<RecommendedWatcher>::default();
        assert_eq!(watches.keep(&wanted, &inbox), None);
        std::fs::rename(&logs, dir.path().join("old")).unwrap();
        std::fs::create_dir(&logs).unwrap();
        assert_eq!(watches.keep(&wanted, &inbox), None);
        wait_for(&inbox, |news| news.hints.everything);
        std::fs::write(logs.join("a.log"), "x").unwrap();
        wait_for(&inbox, |news| news.hints.directories.contains(&logs));
    }

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

    /// TAILING 29: a queue that ran over is a look at everything.
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
            assert!(!news.hints.files.contains(Path::new("/read/by/us")));
            news.hints.everything
        });
        drop(directories);
        thread.join().unwrap();
    }
}
