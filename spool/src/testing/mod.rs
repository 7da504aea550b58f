//! A disk in memory that fails on demand, for the tests of this crate and of those that use it.
//!
//! ```
//! use std::{path::Path, sync::Arc};
//! use watchline_spool::{Frame, Item, Options, Spool, testing::{FailingDisk, Keep}};
//!
//! let disk = FailingDisk::new();
//! let (mut spool, _) = Spool::open(Arc::new(disk.clone()), Path::new("/spool"), Options::default()).unwrap();
//! spool.append(&Frame { items: vec![Item { lane: 1, parts: &[b"synced"] }], ..Frame::default() }).unwrap();
//! spool.sync().unwrap();
//! spool.append(&Frame { items: vec![Item { lane: 1, parts: &[b"lost"] }], ..Frame::default() }).unwrap();
//!
//! disk.cut_power();
//! drop(spool);
//! disk.restore_power(Keep::Nothing);
//! let (spool, recovery) = Spool::open(Arc::new(disk.clone()), Path::new("/spool"), Options::default()).unwrap();
//! assert_eq!(recovery.items, [0, 1]);
//! assert_eq!(spool.reader("test").next(1).unwrap().unwrap().bytes, "synced");
//! ```

mod disk;
mod file;
mod recover;

pub use disk::{FailingDisk, Fault, Keep, Operation};
pub use recover::{recover_bytes, restamp};
