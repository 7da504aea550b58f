//! Where a collector delivers: each output reads the buffer with a mark of its own.
