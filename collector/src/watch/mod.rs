//! (to come: watch)
