//! Batches of a stream on their way into the buffer, each lane for itself: alerts do not wait for routine bytes.

use std::{collections::VecDeque, future::Future, pin::Pin, sync::Arc};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use watchline_proto::Lane;

use super::{Committed, Store};
use crate::buffer::{BufferError, Incoming};

type Admitting = Pin<Box<dyn Future<Output = Result<Committed, BufferError>> + Send>>;

/// One lane's queue. Usually empty: a batch is admitted as it comes.
#[derive(Default)]
struct Queue {
    admitting: Option<(u64, Admitting)>,
    waiting: VecDeque<(u64, Incoming, Option<OwnedSemaphorePermit>)>,
}

/// Both lanes of a stream.
pub(super) struct Admission<S> {
    store: S,
    parking: Arc<Semaphore>,
    lanes: [Queue; 2],
    /// A routine batch waits for which there was no place in the parking: nothing more is read.
    crowded: bool,
}

/// A batch has its place, or is refused.
pub(super) struct Admitted {
    pub(super) ordinal: u64,
    pub(super) committed: Result<Committed, BufferError>,
}

impl<S: Store> Admission<S> {
    pub(super) fn new(store: S, parking: Arc<Semaphore>) -> Admission<S> {
        Admission {
            store,
            parking,
            lanes: Default::default(),
            crowded: false,
        }
    }

    /// Takes a batch; [`Admission::next`] says what becomes of it.
    pub(super) fn push(&mut self, ordinal: u64, incoming: Incoming) {
        let lane = incoming.seal.lane;
        let queue = &self.lanes[lane.index()];
        let waits = queue.admitting.is_some() || !queue.waiting.is_empty() || !self.open(lane);
        let mut permit = None;
        if waits && lane == Lane::Routine {
            let kib =
                u32::try_from(incoming.batch.payload.len().div_ceil(1024)).unwrap_or(u32::MAX);
            permit = Arc::clone(&self.parking).try_acquire_many_owned(kib).ok();
            self.crowded |= permit.is_none();
        }
        self.lanes[lane.index()]
            .waiting
            .push_back((ordinal, incoming, permit));
    }

    /// Whether one more message may be read: it has a place, whatever its lane.
    pub(super) fn has_place(&self) -> bool {
        let alerts = &self.lanes[Lane::Alert.index()];
        !self.crowded && alerts.admitting.is_none() && alerts.waiting.is_empty()
    }

    /// Routine batches wait.
    pub(super) fn is_blocked(&self) -> bool {
        let routine = &self.lanes[Lane::Routine.index()];
        routine.admitting.is_some() || !routine.waiting.is_empty()
    }

    /// A full buffer has been seen; asked again when it may have room.
    fn open(&self, lane: Lane) -> bool {
        lane == Lane::Alert || self.store.has_room()
    }

    /// The next batch that has its place. Pending when none is on its way or the buffer is full: then ask again now and
    /// then. Cancel safe.
    pub(super) async fn next(&mut self) -> Admitted {
        std::future::poll_fn(|cx| {
            for lane in Lane::ALL {
                let open = self.open(lane);
                let queue = &mut self.lanes[lane.index()];
                if queue.admitting.is_none()
                    && open
                    && let Some((ordinal, incoming, _permit)) = queue.waiting.pop_front()
                {
                    let store = self.store.clone();
                    queue.admitting = Some((
                        ordinal,
                        Box::pin(async move { store.append_if_new(incoming).await }),
                    ));
                    if lane == Lane::Routine
                        && queue.waiting.iter().all(|(_, _, permit)| permit.is_some())
                    {
                        self.crowded = false;
                    }
                }
                if let Some((ordinal, admitting)) = &mut queue.admitting
                    && let std::task::Poll::Ready(committed) = admitting.as_mut().poll(cx)
                {
                    let ordinal = *ordinal;
                    queue.admitting = None;
                    return std::task::Poll::Ready(Admitted { ordinal, committed });
                }
            }
            std::task::Poll::Pending
        })
        .await
    }
}
