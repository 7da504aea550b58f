//! The log of the Linux audit daemon: records grouped into events.
//!
//! Reading is the file source's: positions, rotation, copies. Only what a record is differs: not a line but all lines of one event, joined by
//! line feeds in the order of the file, byte for byte. Whole clusters of events are taken at a time ([`cluster`]), so that a position never
//! stands inside an event, whatever is written between its records; nothing is remembered beside it. What is open at a stop
//! stays in the file.
//!
//! Exact about: every line is in exactly one event, also where it is no record, where an event has no end, and where one is larger than what
//! is held in memory (`max_record`): then it comes in parts that say `audit.incomplete`. A line that is longer by itself is cut as any other.
//!
//! Not here: reading from the kernel or from auditd's dispatcher; what numbers mean (users, system calls, addresses); rules about who does
//! what.
//!
//! Lost records: the kernel counts what it could not hand over and says so as `audit_lost=`; who sets the counter back (`auditctl --reset-lost`)
//! leaves `lost=0 old=`. Each is a gap `audit_lost` with what is new since the report before; the first report after a start tells of an unknown
//! part of its number.

mod cluster;
mod event;
mod line;

pub(crate) use self::{
    cluster::{Clusters, Group, More},
    event::{Facts, Lost, facts},
};

use std::time::Duration;

/// Records of an event may come so much later than the one before.
pub(crate) const EVENT_TIMEOUT: Duration = Duration::from_secs(2);
