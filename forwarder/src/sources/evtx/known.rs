//! What is known of an event beside its text.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::Value;

/// Out of `Event.System`; what is not there, or not of its type, is not known.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Known {
    /// `TimeCreated`.
    pub(super) time_unix_nano: Option<i64>,
    /// OpenTelemetry's number for `Level`; 0: none, or "always".
    pub(super) severity: u8,
    /// Names and values.
    pub(super) attributes: Vec<(&'static str, String)>,
}

#[derive(Deserialize)]
struct Document {
    #[serde(rename = "Event")]
    event: Event,
}

#[derive(Deserialize)]
struct Event {
    #[serde(rename = "System")]
    system: BTreeMap<String, Value>,
}

impl Known {
    pub(super) fn of(json: &[u8]) -> Known {
        let Ok(Document { event }) = serde_json::from_slice(json) else {
            return Known::default();
        };
        let system = event.system;
        let of = |name: &str, attribute: &str| system.get(name)?.get("#attributes")?.get(attribute);
        let time = of("TimeCreated", "SystemTime").and_then(Value::as_str);
        let time = time.and_then(|time| time.parse::<evtx::Timestamp>().ok());
        let level = system.get("Level").and_then(number);
        let attributes = [
            ("winlog.channel", system.get("Channel").and_then(text)),
            ("winlog.provider", of("Provider", "Name").and_then(text)),
            ("winlog.event_id", system.get("EventID").and_then(text)),
            (
                "winlog.record_id",
                system.get("EventRecordID").and_then(text),
            ),
            ("winlog.computer", system.get("Computer").and_then(text)),
            ("winlog.keywords", system.get("Keywords").and_then(text)),
        ];
        Known {
            time_unix_nano: time.and_then(|time| i64::try_from(time.as_nanosecond()).ok()),
            severity: match level {
                Some(1) => 21, // critical: FATAL
                Some(2) => 17, // error
                Some(3) => 13, // warning
                Some(4) => 9,  // information
                Some(5) => 5,  // verbose: DEBUG
                _ => 0,
            },
            attributes: (attributes.into_iter())
                .filter_map(|(name, value)| Some((name, value?)))
                .collect(),
        }
    }
}

/// The text of an element, which stands beside its attributes where it has some.
fn text(value: &Value) -> Option<String> {
    match value.get("#text").unwrap_or(value) {
        Value::String(text) => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        _ => None,
    }
}

fn number(value: &Value) -> Option<u64> {
    text(value)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_an_event_says_is_known_and_the_rest_is_not_guessed() {
        let json = br##"{"Event":{"#attributes":{"xmlns":"x"},"System":{"Provider":{"#attributes":{"Name":"P"}},
            "EventID":{"#attributes":{"Qualifiers":16384},"#text":7045},"Level":2,"Channel":"System","Computer":"h",
            "TimeCreated":{"#attributes":{"SystemTime":"2016-07-08T18:12:51.681640Z"}},"EventRecordID":7}}}"##;
        let known = Known::of(json);
        assert_eq!(known.time_unix_nano, Some(1_468_001_571_681_640_000));
        assert_eq!(known.severity, 17);
        let expected = [
            ("winlog.channel", "System"),
            ("winlog.provider", "P"),
            ("winlog.event_id", "7045"),
            ("winlog.record_id", "7"),
            ("winlog.computer", "h"),
        ];
        let expected = expected.map(|(name, value)| (name, value.to_owned()));
        assert_eq!(known.attributes, expected);
        let always = br#"{"Event":{"System":{"Level":0,"EventID":null,"TimeCreated":"x"}}}"#;
        assert_eq!(Known::of(always), Known::default());
        assert_eq!(Known::of(b"{"), Known::default());
    }
}
