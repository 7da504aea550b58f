//! The stored state of a sealer's chains has one encoding.
#![no_main]

use libfuzzer_sys::fuzz_target;
use watchline_proto::EpochChain;

fuzz_target!(|bytes: &[u8]| {
    if let Ok(chain) = EpochChain::decode_state(bytes) {
        assert_eq!(chain.encode_state(), bytes);
    }
});
