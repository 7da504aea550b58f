//! The durable queue of both programs: an append-only log in segments, on a directory of its own.
//!
//! **Promise.** What [`Spool::sync`] has returned for survives the process and a power cut, is read back in order,
//! lane by lane, and is held until every required reader's mark beyond it is durable. Of what was appended later a
//! prefix of whole frames survives, never a part of one. Damaged bytes are found by their checksums, set aside in
//! `quarantine/`, reported once with the items that they held, and stepped over: damage never keeps a spool from
//! opening.
//!
//! **Who does what.** One thread owns the [`Spool`] and does all writing and syncing. [`Reader`]s and [`View`]s are
//! handed to other threads; they never wait for an append or a sync, only (briefly) for a mutex.
//!
//! **Format.** `docs/formats.md`, section "Spool", byte by byte; `tests/samples/` has a stored log of each version.
//!
//! **Limits.** Two lanes; a frame is at most [`MAX_FRAME_BYTES`]; state and marks live in memory. Memory is that, a
//! few KiB a segment, and a block a lane and reader, whatever the backlog.
//!
//! **Not for** several writers, random access, values that change often and are large, or anything that must know
//! what an item means.

mod blocks;
mod damage;
mod disk;
mod frame;
mod inspect;
mod log;
mod options;
mod quota;
mod reader;
mod recovery;
mod segment;
mod snapshot;
pub mod testing;
mod view;
mod writer;

pub use damage::Damage;
pub use disk::{Access, Disk, DiskFile, Listed, RealDisk};
pub use frame::{Frame, Item, MAX_FRAME_BYTES, Mark};
pub use inspect::{Inspection, inspect, is_spool, state_of};
pub use options::Options;
pub use reader::{ReadError, ReadItem, Reader};
pub use recovery::{OpenError, Recovery};
pub use view::{LaneStatus, View};
pub use writer::{AppendError, Appended, Spool, SyncError};

/// How many lanes a spool has. Lane 0 is served first and may use the reserve.
pub const LANES: usize = 2;

/// A lane is a number below [`LANES`]; what it means is the caller's.
pub type LaneNo = usize;

/// Place of a frame in the log: counted from 0, never reused by another durable frame.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FrameNo(pub u64);

/// Place of an item in its lane: counted from 0 over the whole life of the directory.
///
/// A number stands for one durable content for ever. Numbers of items that were appended but lost before a sync are
/// used again after a restart (nobody is left who could remember them), but not by [`Spool::reopen`]: it skips them,
/// so that an acknowledgement that arrives late for a lost item can never be taken for one of a new item.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ItemNo(pub u64);

/// One item number per lane.
pub(crate) type Items = [ItemNo; LANES];
