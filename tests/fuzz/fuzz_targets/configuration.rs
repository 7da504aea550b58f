//! Any text is a configuration or has problems, each with a place in it.
#![no_main]

use std::time::Duration;

use libfuzzer_sys::fuzz_target;
use watchline_node::{config::Document, identity::IdentityConfig};

fuzz_target!(|text: &str| {
    let found = match Document::parse("config.toml", text) {
        Err(problems) => problems,
        Ok(document) => {
            let mut root = document.root();
            if let Some(mut section) = root.required_table("identity") {
                IdentityConfig::read(&mut section);
            }
            if let Some(mut section) = root.table("uplink") {
                section.endpoints("collectors");
                section.duration("heartbeat", Duration::ZERO..=Duration::MAX);
                section.size("max_size", 0..=u64::MAX);
                section.integer("retries", i64::MIN..=i64::MAX);
                section.address("listen");
                section.choice("when_full", &[("block", ()), ("drop_oldest", ())]);
            }
            for mut section in root.tables("source") {
                section.required_string("name");
                section.required_strings("paths");
            }
            if let Some(mut section) = root.table("labels") {
                section.string_map();
            }
            drop(root);
            match document.finish() {
                Ok(()) => return,
                Err(problems) => problems,
            }
        }
    };
    let lines = text.matches('\n').count() + 1;
    assert!(!found.0.is_empty());
    for problem in found.0 {
        assert!((1..=lines).contains(&problem.line) && problem.column >= 1, "{problem}");
    }
});
