//! (to come: config)
