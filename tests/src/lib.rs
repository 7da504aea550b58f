//! The whole line under test: the real programs as processes, numbered records in, the final output compared record by
//! record.
//!
//! A [`Lab`] is a directory with a private CA, a loopback address of its own and the [`Node`]s (programs with their
//! configurations) that a test asks for. [`records`] makes what hosts log, [`Writer`] appends it in pieces and rotates,
//! [`oracle`] reads what arrived and says whether each record is there exactly once, byte for byte and in order.
//!
//! Nothing here sleeps for a fixed time: every wait is for a condition, with a deadline that only bounds how long a
//! failure takes ([`waiting`]). Random choices come from one printed seed ([`Seed`]).
//!
//! Not for unit tests: those stand beside the code that they test.

pub mod follow;
pub mod http;
pub mod journal;
pub mod lab;
pub mod line;
pub mod logging_host;
pub mod node;
pub mod oracle;
pub mod process;
pub mod records;
pub mod seed;
pub mod waiting;
pub mod writer;

pub use lab::{Lab, Role};
pub use line::Line;
pub use node::{Node, Toml};
pub use process::{Process, Program};
pub use seed::Seed;
pub use writer::Writer;
