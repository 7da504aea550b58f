//! Messages of the line, as either end decodes them, and what is read from them.
#![no_main]

use libfuzzer_sys::fuzz_target;
use watchline_proto::{
    ChainHeld, Statement, codec, stored,
    wire::{ClientMessage, ServerMessage, client_message, server_message},
};

fuzz_target!(|bytes: &[u8]| {
    match codec::decode::<ClientMessage>(bytes)
        .ok()
        .and_then(|message| message.kind)
    {
        Some(client_message::Kind::Batch(batch)) => drop(stored::check(&batch)),
        Some(client_message::Kind::Heartbeat(heartbeat)) => {
            for signed in heartbeat.statement.iter().chain(&heartbeat.relayed) {
                let _ = Statement::decode(&signed.statement);
            }
        }
        _ => {}
    }
    let held = match codec::decode::<ServerMessage>(bytes)
        .ok()
        .and_then(|message| message.kind)
    {
        Some(server_message::Kind::Welcome(welcome)) => welcome.held,
        Some(server_message::Kind::Ack(ack)) => ack.at_center,
        _ => Vec::new(),
    };
    for chain in &held {
        let _ = ChainHeld::try_from(chain);
    }
});
