//! No bytes but those that a CA of ours signed are a peer's certificate.
#![no_main]

use std::{sync::LazyLock, time::SystemTime};

use libfuzzer_sys::fuzz_target;
use watchline_node::identity::{Identity, peer_of, testing::Authority};

static COLLECTOR: LazyLock<Identity> = LazyLock::new(|| {
    let directory = tempfile::tempdir().expect("a folder");
    let authority = Authority::new("watch.example");
    authority.collector("moh", "collector-1").load(&authority, directory.path())
});

fuzz_target!(|bytes: &[u8]| {
    let _ = peer_of(&[bytes.into()]);
    // The CA is new in each run: nothing that a fuzzer keeps or makes can be its work.
    assert!(COLLECTOR.verify_chain(&[bytes.to_vec()], SystemTime::now()).is_err());
});
