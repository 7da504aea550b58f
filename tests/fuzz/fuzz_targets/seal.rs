//! A seal that is taken can be made again, is within the limits, and means the same again.
#![no_main]

use libfuzzer_sys::fuzz_target;
use watchline_proto::{MAX_SEAL_BYTES, Seal};

fuzz_target!(|bytes: &[u8]| {
    if let Ok(seal) = Seal::decode(bytes) {
        let again = seal.encode();
        assert!(again.len() <= MAX_SEAL_BYTES);
        assert_eq!(Seal::decode(&again), Ok(seal));
    }
});
