//! Who is there, who is silent, what is missing; and the events that say so.

use std::time::Duration;

/// Raises events of the collector's own: sealed by the collector itself, kind `watchline`, in the alert lane.
pub trait OwnEvents: Send + Sync + 'static {
    /// Hands an event over. Never waits for the disk. `name` is its `event.name`, `body` one line for people.
    fn raise(&self, name: &'static str, attributes: Vec<(String, String)>, body: String);

    /// Waits until everything raised before is durable in the buffer, but no longer than `at_most`. `false`: it is not known to be.
    ///
    /// Whoever moves a mark past a loss asks this first, or a crash could keep the mark and forget the gap. Blocks; not for a
    /// runtime thread.
    fn wait_durable(&self, at_most: Duration) -> bool;
}
