//! A stored log of each version of the format still opens.
