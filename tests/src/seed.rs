//! One number from which every random choice of a test follows.

use rand::{RngExt, SeedableRng, rngs::StdRng};

/// The seed of one test. Printed when it is made; `WATCHLINE_SEED` repeats a run's choices (not the machine's timing).
#[derive(Debug, Clone, Copy)]
pub struct Seed(u64);

impl Seed {
    /// From `WATCHLINE_SEED`, or a new one.
    #[must_use]
    pub fn new(test: &str) -> Seed {
        let seed = std::env::var("WATCHLINE_SEED")
            .ok()
            .and_then(|text| text.parse().ok());
        let seed = seed.unwrap_or_else(|| rand::rng().random());
        eprintln!("{test}: WATCHLINE_SEED={seed}");
        Seed(seed)
    }

    /// A source of random numbers for one part of the test, independent of the other parts.
    #[must_use]
    pub fn rng(self, part: u64) -> StdRng {
        StdRng::seed_from_u64(self.0 ^ part.wrapping_mul(0x9e37_79b9_7f4a_7c15))
    }
}

/// `WATCHLINE_LONG` asks for ten times as many rounds.
#[must_use]
pub fn rounds(usual: usize) -> usize {
    if std::env::var_os("WATCHLINE_LONG").is_some() {
        usual * 10
    } else {
        usual
    }
}
