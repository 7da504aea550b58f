//! A bounded queue from a source's own thread to the reader's thread.
//!
//! Memory: `max_bytes` and one item more. Who fills it waits ([`Feed::push`]), and passes the waiting on to whoever sends to it.

use std::{
    collections::VecDeque,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
};

/// Wakes the reader's thread. Never blocks.
pub(crate) type Waker = Arc<dyn Fn() + Send + Sync>;

/// See the module. Shared by the one who fills it and the one who empties it.
pub(crate) struct Feed<T> {
    state: Mutex<State<T>>,
    room: Condvar,
    max_bytes: usize,
    waker: Waker,
}

struct State<T> {
    items: VecDeque<(T, usize)>,
    bytes: usize,
    closed: bool,
}

/// Nobody reads any more.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Closed;

impl<T> Feed<T> {
    pub(crate) fn new(max_bytes: usize, waker: Waker) -> Feed<T> {
        let state = State {
            items: VecDeque::new(),
            bytes: 0,
            closed: false,
        };
        Feed {
            state: Mutex::new(state),
            room: Condvar::new(),
            max_bytes,
            waker,
        }
    }

    /// Waits until there is room, then adds an item of `bytes`. One item always finds room in an empty feed.
    pub(crate) fn push(&self, item: T, bytes: usize) -> Result<(), Closed> {
        let mut state = self.state();
        while !state.closed && state.bytes > 0 && state.bytes + bytes > self.max_bytes {
            state = self
                .room
                .wait(state)
                .unwrap_or_else(PoisonError::into_inner);
        }
        if state.closed {
            return Err(Closed);
        }
        self.add(state, item, bytes);
        Ok(())
    }

    fn add(&self, mut state: MutexGuard<'_, State<T>>, item: T, bytes: usize) {
        let was_empty = state.items.is_empty();
        state.items.push_back((item, bytes));
        state.bytes += bytes;
        drop(state);
        if was_empty {
            (self.waker)();
        }
    }

    /// The oldest item, taken out. One that finds no place in the batch is given back with [`Feed::put_back`].
    pub(crate) fn pop(&self) -> Option<T> {
        let mut state = self.state();
        let (item, bytes) = state.items.pop_front()?;
        state.bytes -= bytes;
        drop(state);
        self.room.notify_all();
        Some(item)
    }

    /// Puts the item that was taken last back to where it was.
    pub(crate) fn put_back(&self, item: T, bytes: usize) {
        let mut state = self.state();
        state.items.push_front((item, bytes));
        state.bytes += bytes;
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.state().items.is_empty()
    }

    /// Refuses what would come from now on. What is in it can still be taken.
    pub(crate) fn close(&self) {
        self.state().closed = true;
        self.room.notify_all();
    }

    fn state(&self) -> MutexGuard<'_, State<T>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    #[test]
    fn a_full_feed_makes_its_sender_wait_and_wakes_its_reader_once() {
        let woken = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&woken);
        let feed = Feed::new(
            10,
            Arc::new(move || {
                count.fetch_add(1, Ordering::SeqCst);
            }),
        );
        feed.push(1, 6).unwrap();
        std::thread::scope(|scope| {
            let pushed = scope.spawn(|| feed.push(2, 6));
            assert_eq!(feed.pop(), Some(1));
            assert_eq!(pushed.join().unwrap(), Ok(()));
        });
        assert!(woken.load(Ordering::SeqCst) >= 1);
        feed.close();
        assert_eq!(feed.push(3, 1), Err(Closed));
        assert_eq!(feed.pop(), Some(2));
        feed.put_back(2, 6);
        assert!(!feed.is_empty());
    }
}
