//! A payload as it travels: the first bytes are what its seal says of it, little-endian unpacked size (4) and
//! number of events (2).
#![no_main]

use libfuzzer_sys::fuzz_target;
use watchline_proto::{
    Hash,
    payload::{FORMAT_COLUMNS_ZSTD_1, PayloadInfo, PayloadOpener},
};

fuzz_target!(|bytes: &[u8]| {
    let Some((sealed, payload)) = bytes.split_first_chunk::<6>() else {
        return;
    };
    let [a, b, c, d, e, f] = *sealed;
    let info = PayloadInfo {
        format: FORMAT_COLUMNS_ZSTD_1,
        hash: Hash::ZERO,
        bytes: payload.len() as u32,
        unpacked_bytes: u32::from_le_bytes([a, b, c, d]),
        events: u16::from_le_bytes([e, f]).into(),
    };
    if let Ok(opened) = PayloadOpener::new().open(payload, &info) {
        assert_eq!(opened.events().count(), info.events as usize);
    }
});
