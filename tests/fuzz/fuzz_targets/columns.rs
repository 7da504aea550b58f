//! A payload below its compression: what opens holds all its events, and comes back when built again.
#![no_main]

use libfuzzer_sys::fuzz_target;
use watchline_proto::{
    Hash,
    payload::{EventMeta, FORMAT_COLUMNS_ZSTD_1, PayloadBuilder, PayloadInfo, PayloadOpener},
};

/// Where the number of events stands in the footer, counted from the end.
const EVENTS_FROM_END: usize = 36;

fuzz_target!(|unpacked: &[u8]| {
    let Some(from) = unpacked.len().checked_sub(EVENTS_FROM_END) else {
        return;
    };
    let Some((events, _)) = unpacked[from..].split_first_chunk() else {
        return;
    };
    let payload = zstd::bulk::compress(unpacked, 1).expect("memory");
    let info = PayloadInfo {
        format: FORMAT_COLUMNS_ZSTD_1,
        hash: Hash::ZERO,
        bytes: payload.len() as u32,
        unpacked_bytes: unpacked.len() as u32,
        events: u32::from_le_bytes(*events),
    };
    let Ok(opened) = PayloadOpener::new().open(&payload, &info) else {
        return;
    };
    assert_eq!(opened.events().count(), opened.len());
    let mut builder = PayloadBuilder::new();
    for event in opened.events() {
        // As many origins as may be: the builder keeps room for a new one.
        if !builder.has_room(event.body.len()) {
            return;
        }
        let origin = builder.origin(event.origin);
        builder.push(
            event.body,
            EventMeta {
                origin,
                observed_unix_nano: event.observed_unix_nano,
                time_unix_nano: event.time_unix_nano,
                severity: event.severity,
                attributes: &event.attributes,
            },
        );
    }
    let again = builder.finish().expect("a payload has an event");
    let again = PayloadOpener::new()
        .open(&again.bytes, &again.info)
        .expect("what we build opens");
    assert!(opened.events().eq(again.events()));
});
