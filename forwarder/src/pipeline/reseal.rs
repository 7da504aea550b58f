//! After a fork: what is unacknowledged is sealed anew under a new epoch.

use watchline_node::uplink::Forked;
use watchline_proto::SpiffeId;
use watchline_spool::{Frame, Item, ItemNo, LANES, ReadError};

use super::{DiskFailed, Pipeline, READER};
use crate::{
    batch::Moment,
    gaps::{Gap, GapReason},
    sealer::EPOCH_KEY,
};

/// Sealed batches in one frame. Each frame passes what it seals anew, so a crash between two leaves nothing twice.
const FRAME_BYTES: usize = 2 << 20;

/// What has to be sealed anew.
#[derive(Debug)]
pub(super) struct Reseal {
    from: [ItemNo; LANES],
    /// What was appended later is of the new epoch already.
    upto: [ItemNo; LANES],
    /// Stored by the next hop all the same.
    stored: [Vec<ItemNo>; LANES],
    /// The new epoch has begun.
    begun: bool,
}

impl Pipeline {
    /// Takes note of a fork, unless it is one that was dealt with already.
    pub(super) fn take_fork(&mut self, forked: Forked) {
        let lane = forked.lane.index();
        if self.reseal.is_some() || forked.from[lane] < self.marked[lane] {
            return;
        }
        let detail = "the next hop holds another history of this forwarder (a copy of this host, or a restored state): \
                      what it has not acknowledged is sealed anew";
        self.owed.push(Gap::new(GapReason::Forked, detail));
        self.reseal = Some(Reseal {
            from: forked.from,
            upto: self.spool.view().next_items(),
            stored: forked.stored,
            begun: false,
        });
    }

    /// What was sealed under another name can no longer be signed: this host's certificate has a new name.
    pub(super) fn seal_anew_for_name(&mut self, before: &SpiffeId) {
        let upto = self.spool.view().next_items();
        if self.marked == upto {
            return;
        }
        tracing::warn!(%before, "this forwarder has another name now: what is unacknowledged is sealed anew");
        self.reseal = Some(Reseal {
            from: self.marked,
            upto,
            stored: Default::default(),
            begun: true,
        });
    }

    /// Seals anew, lane by lane, frame by frame; goes on with the next turn where there is no room for the next frame.
    pub(super) fn seal_anew(&mut self, now: Moment) -> Result<(), DiskFailed> {
        let Some(mut reseal) = self.reseal.take() else {
            return Ok(());
        };
        if !reseal.begun {
            let stored = self.spool.state(EPOCH_KEY);
            self.sealer.next_epoch((self.name)(), stored.as_deref());
            reseal.begun = true;
            // The alarm goes before what it is about.
            self.say_owed(now)?;
        }
        let mut reader = self.spool.reader(READER);
        for lane in 0..LANES {
            reader.seek(lane, reseal.from[lane]);
            let mut more = reseal.from[lane] < reseal.upto[lane];
            while more {
                let mut sealing = self.sealer.sealing();
                let mut bytes = 0;
                while more && bytes < FRAME_BYTES {
                    match reader.next(lane) {
                        Ok(Some(item)) if item.no < reseal.upto[lane] => {
                            if reseal.stored[lane].binary_search(&item.no).is_ok() {
                                continue;
                            }
                            bytes += item.bytes.len();
                            if let Err(error) = self.sealer.seal_anew(&mut sealing, item.bytes) {
                                tracing::error!(%error, item = item.no.0, "a stored batch cannot be sealed anew");
                                let gap = Gap::new(
                                    GapReason::Damaged,
                                    format!("a stored batch cannot be read: {error}"),
                                );
                                self.owed.push(gap);
                            }
                        }
                        Ok(_) => more = false,
                        Err(ReadError::Damaged(damage)) => self.owe_damage(vec![damage]),
                        Err(ReadError::Gone { .. }) => {}
                        Err(error @ ReadError::Io { .. }) => {
                            return Err(DiskFailed::Read(Box::new(error)));
                        }
                    }
                }
                let passed = if more {
                    reader.position(lane)
                } else {
                    reseal.upto[lane]
                };
                let before = self.acked;
                self.acked[lane] = self.acked[lane].max(passed);
                let parts: Vec<(usize, [&[u8]; 1])> = sealing
                    .items
                    .iter()
                    .map(|item| (item.lane.index(), [&item.bytes[..]]))
                    .collect();
                let items = parts
                    .iter()
                    .map(|(lane, parts)| Item { lane: *lane, parts })
                    .collect();
                let frame = Frame {
                    items,
                    state: vec![sealing.state()],
                    marks: self.marks(),
                    ..Frame::default()
                };
                if let Err(refused) = self.append_frame(frame, now) {
                    self.acked = before;
                    self.reseal = Some(reseal);
                    return self.wait_for_room(refused);
                }
                reseal.from[lane] = passed;
                self.sealer.commit(sealing);
                // Frees the segments that were passed: the next frame may need the room.
                self.sync()?;
            }
        }
        tracing::info!(epoch = %self.sealer.chain().epoch(), "everything unacknowledged has been sealed anew");
        self.board
            .post(|posted| posted.chain = Some(self.sealer.chain().clone()));
        self.unblock();
        Ok(())
    }
}
