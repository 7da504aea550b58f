//! A thread that somebody waits for.

use std::{io, thread::JoinHandle};

use tokio::sync::oneshot;

/// A thread with a name. Whoever starts it joins it.
#[derive(Debug)]
pub struct Worker {
    name: String,
    /// Closes when the thread's work is over, by return or by panic.
    over: oneshot::Receiver<()>,
    thread: JoinHandle<()>,
}

/// A thread has panicked: its part of the program is in an unknown state.
#[derive(Debug, thiserror::Error)]
#[error("thread {0} panicked")]
pub struct Panicked(pub String);

impl Worker {
    /// Starts `work` on a thread of its own.
    pub fn spawn(
        name: impl Into<String>,
        work: impl FnOnce() + Send + 'static,
    ) -> io::Result<Worker> {
        let name = name.into();
        let (running, over) = oneshot::channel();
        let thread = std::thread::Builder::new()
            .name(name.clone())
            .spawn(move || {
                let _running: oneshot::Sender<()> = running;
                work();
            })?;
        Ok(Worker { name, over, thread })
    }

    /// Waits until it is over. Not cancel safe: dropped while it waits, the thread goes on unjoined.
    pub async fn join(self) -> Result<(), Panicked> {
        let _ = self.over.await; // nothing is ever sent
        // Nothing but the end of the thread itself is left to wait for.
        self.thread.join().map_err(|_| Panicked(self.name))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_worker_is_joined_when_its_work_is_over() {
        let worker = Worker::spawn("test", || {}).unwrap();
        worker.join().await.unwrap();
    }

    #[tokio::test]
    async fn a_panic_is_seen_by_the_one_who_joins() {
        let worker = Worker::spawn("doomed", || panic!("on purpose")).unwrap();
        assert_eq!(worker.join().await.unwrap_err().0, "doomed");
    }
}
