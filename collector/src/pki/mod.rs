//! A private certificate authority for those who have none.
