//! Appending exactly.
