//! (to come: commands)
