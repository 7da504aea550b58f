//! A segment of a spool, as found on a disk: header, snapshot, frames.
#![no_main]

use libfuzzer_sys::fuzz_target;
use watchline_spool::testing::{recover_bytes, restamp};

fuzz_target!(|bytes: &[u8]| {
    recover_bytes(bytes);
    // Behind the checksums.
    let mut bytes = bytes.to_vec();
    restamp(&mut bytes);
    recover_bytes(&bytes);
});
