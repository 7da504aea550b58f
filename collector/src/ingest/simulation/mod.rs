//! Both ends of the line over a simulated network, with real TLS, a real spool at the sender and a double of the buffer.
//!
//! Time is virtual, the network's order follows a seed that is printed; nothing here sleeps for real.

mod conversation;
mod faults;
mod lanes;
mod refusals;
mod world;
