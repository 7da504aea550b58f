//! What Welcome proves to be held.

use std::collections::BTreeMap;

use watchline_proto::{ChainHeld, Epoch, HeldRange, Lane, wire};

use super::{Connector, Forked, Session};
use crate::uplink::signer::own_seal;

impl<C: Connector> Session<'_, C> {
    /// The epochs of which Welcome lists chains, each once, as they are listed.
    pub(super) fn epochs_held(&self) -> Vec<Epoch> {
        let mut epochs = Vec::new();
        for chain in &self.line.welcome.held {
            if let Ok(chain) = ChainHeld::try_from(chain)
                && !epochs.contains(&chain.epoch)
            {
                epochs.push(chain.epoch);
            }
        }
        epochs
    }

    /// Passes over items that Welcome proves to be held: those of a listed range whose last seal is our own, by hash; the
    /// chain proves the rest of the range. A different hash there is a fork.
    pub(super) async fn skip_held(&mut self) -> Option<Forked> {
        let own = self.identity.current().id.clone();
        let held = chains(&self.line.welcome.held);
        if held.is_empty() {
            return None;
        }
        for lane in Lane::ALL {
            loop {
                let Some((mut seal, mut hash)) = self
                    .shared
                    .feed
                    .peek(lane)
                    .await
                    .and_then(|item| own_seal(&item.bytes, &own))
                else {
                    break;
                };
                let first = self.shared.feed.next_item(lane);
                let Some(range) = held.get(&(seal.epoch, lane)).and_then(|ranges| {
                    ranges
                        .iter()
                        .find(|r| (r.first..r.end).contains(&seal.sequence))
                }) else {
                    break;
                };
                let proved = loop {
                    if seal.sequence + 1 == range.end {
                        break Some(hash == range.last);
                    }
                    self.shared.feed.pop(lane);
                    let next = self
                        .shared
                        .feed
                        .peek(lane)
                        .await
                        .and_then(|item| own_seal(&item.bytes, &own));
                    match next {
                        Some((next, next_hash))
                            if next.epoch == seal.epoch
                                && next.sequence == seal.sequence + 1
                                && next.previous == hash =>
                        {
                            (seal, hash) = (next, next_hash);
                        }
                        _ => break None,
                    }
                };
                if proved == Some(true) {
                    self.shared.feed.pop(lane);
                    continue;
                }
                let mut back = self.frontier();
                back[lane.index()] = first;
                self.shared.feed.rewind(back).await;
                if proved == Some(false) {
                    self.tell_acked();
                    return Some(Forked {
                        lane,
                        from: back,
                        stored: Default::default(),
                    });
                }
                break; // cannot be proved: offered, and answered one by one
            }
        }
        self.tell_acked();
        None
    }
}

/// Welcome's list by chain. What cannot be read proves nothing.
fn chains(held: &[wire::ChainHeld]) -> BTreeMap<(Epoch, Lane), Vec<HeldRange>> {
    let mut chains: BTreeMap<_, Vec<HeldRange>> = BTreeMap::new();
    for chain in held
        .iter()
        .filter_map(|chain| ChainHeld::try_from(chain).ok())
    {
        chains
            .entry((chain.epoch, chain.lane))
            .or_default()
            .extend(chain.ranges);
    }
    chains
}
