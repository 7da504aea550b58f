//! End to end: each module is one promise of the line, tested with the real programs.
