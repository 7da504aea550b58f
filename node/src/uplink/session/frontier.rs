//! How far the spool has been acknowledged, and what its owner is told.

use watchline_proto::Lane;
use watchline_spool::{ItemNo, LANES};

use super::{Connector, Fork, Forked, Session};

impl<C: Connector> Session<'_, C> {
    /// The first item of each lane that is not acknowledged.
    pub(super) fn frontier(&self) -> [ItemNo; LANES] {
        let mut frontier = [ItemNo(0); LANES];
        for lane in Lane::ALL {
            let mut first = self
                .window
                .oldest(lane)
                .unwrap_or_else(|| self.shared.feed.next_item(lane));
            if let Some(forked) = self
                .forked
                .as_ref()
                .and_then(|fork| fork.from[lane.index()])
            {
                first = first.min(forked);
            }
            frontier[lane.index()] = first;
        }
        frontier
    }

    pub(super) fn tell_acked(&mut self) {
        self.shared.owner.acked(self.frontier());
    }

    pub(super) fn tell_holes(&mut self) {
        let holes = self.shared.feed.holes();
        if holes.is_empty() {
            return;
        }
        for hole in holes {
            self.shared.owner.hole(hole);
        }
        self.tell_acked();
    }

    pub(super) fn said_fork(&mut self) -> Forked {
        let from = self.frontier();
        let Some(mut fork) = self.forked.take() else {
            return Forked {
                lane: Lane::Routine,
                from,
                stored: Default::default(),
            };
        };
        for lane in Lane::ALL {
            fork.stored[lane.index()].retain(|item| *item >= from[lane.index()]);
        }
        // The reader goes back there, too.
        self.forked = Some(Fork {
            lane: fork.lane,
            from: fork.from,
            stored: Default::default(),
        });
        Forked {
            lane: fork.lane,
            from,
            stored: fork.stored,
        }
    }
}
