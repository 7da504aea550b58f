//! Checks an archive or a buffer directory with the anchors alone.
