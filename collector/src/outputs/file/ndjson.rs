//! One JSON object a line, fields in a fixed order.
//!
//! What is the same for all events of a batch or of an origin is written once and copied.

use std::{collections::BTreeMap, fmt::Write as _};

use base64::Engine as _;
use watchline_proto::{
    Seal,
    payload::{EventRef, Origin},
};

use super::{
    json::{write_number, write_string},
    stamp::Stamp,
};

/// The kind of Watchline's own events, which no source can have.
const OWN_KIND: &str = "watchline";
/// What a forwarder itself says of a record that it read. Every other name that begins like ours is a claim of the record.
const FLAGS: [&str; 6] = [
    "watchline.alert.rule",
    "watchline.backfill",
    "watchline.continuation",
    "watchline.mask",
    "watchline.partial",
    "watchline.truncated_bytes",
];
/// An attribute of an origin that is a label of its source: it stands among the labels, before one of the batch with the same name.
const LABEL_PREFIX: &str = "watchline.label.";
/// Stands for the agency in the id of what a centre sealed: no agency is named so, and the id keeps its seven parts.
const NO_AGENCY: &str = "-";

/// What all events of a batch share.
#[derive(Debug, Default)]
pub(super) struct Constants {
    /// `{"v":1,"id":"…/`
    start: Vec<u8>,
    /// `,"received":…,"agency":…,"forwarder":…,"labels":{`
    party: Vec<u8>,
    labels: BTreeMap<String, String>,
    /// `,"lane":"…","severity":`
    lane: Vec<u8>,
    /// `,"epoch":"…","sequence":…,"index":`
    place: Vec<u8>,
}

/// Times of events follow each other closely; each column keeps its second.
#[derive(Debug, Default)]
pub(super) struct Stamps {
    time: Stamp,
    observed: Stamp,
}

/// What all events of an origin share; made anew when the origin changes.
#[derive(Debug, Default)]
pub(super) struct OriginText<'a> {
    origin: Option<&'a Origin>,
    /// `"a":"b"},"source":"<source>","kind":"<kind>"`
    source: Vec<u8>,
    /// `"a":"b","c":"d"`
    attributes: Vec<u8>,
}

impl Constants {
    /// `received`: the first receipt's time.
    pub(super) fn new(seal: &Seal, received_unix_nano: Option<i64>) -> Constants {
        let sealer = &seal.sealer;
        let agency = sealer.agency().map(AsRef::as_ref);
        let lane = seal.lane.as_str();
        let mut start = String::from("{\"v\":1,\"id\":\"");
        // Writing to a string cannot fail; names, epochs and lanes need no escape.
        let _ = write!(
            start,
            "{}/{}/{}/{}/{lane}/{}/",
            sealer.trust_domain(),
            agency.unwrap_or(NO_AGENCY),
            sealer.name(),
            seal.epoch,
            seal.sequence
        );
        let mut party = b",\"received\":".to_vec();
        match received_unix_nano {
            Some(received) => Stamp::default().write(received, &mut party),
            None => party.extend_from_slice(b"null"),
        }
        party.extend_from_slice(b",\"agency\":");
        match agency {
            Some(agency) => write_string(agency, &mut party),
            None => party.extend_from_slice(b"null"),
        }
        party.extend_from_slice(b",\"forwarder\":");
        write_string(sealer.name().as_ref(), &mut party);
        party.extend_from_slice(b",\"labels\":{");
        Constants {
            start: start.into_bytes(),
            party,
            labels: seal.labels.clone(),
            lane: format!(",\"lane\":\"{lane}\",\"severity\":").into_bytes(),
            place: format!(
                ",\"epoch\":\"{}\",\"sequence\":{},\"index\":",
                seal.epoch, seal.sequence
            )
            .into_bytes(),
        }
    }
}

impl<'a> OriginText<'a> {
    fn of(&mut self, batch: &Constants, origin: &'a Origin) -> &OriginText<'a> {
        if !self.origin.is_some_and(|known| std::ptr::eq(known, origin)) {
            self.origin = Some(origin);
            self.source.clear();
            let own = (origin.attributes.iter()).filter_map(|(name, value)| {
                Some((name.strip_prefix(LABEL_PREFIX)?, value.as_str()))
            });
            let mut labels: BTreeMap<&str, &str> = (batch.labels.iter())
                .map(|(name, value)| (name.as_str(), value.as_str()))
                .collect();
            labels.extend(own);
            write_members(labels.into_iter(), &mut self.source);
            self.source.extend_from_slice(b"},\"source\":");
            write_string(&origin.source, &mut self.source);
            self.source.extend_from_slice(b",\"kind\":");
            write_string(&origin.kind, &mut self.source);
            self.attributes.clear();
            write_members(attributes(origin, &[]), &mut self.attributes);
        }
        self
    }
}

/// Appends the event's line.
pub(super) fn write<'a>(
    batch: &Constants,
    index: u32,
    event: &EventRef<'a>,
    origin: &mut OriginText<'a>,
    stamps: &mut Stamps,
    out: &mut Vec<u8>,
) {
    let origin = origin.of(batch, event.origin);
    out.reserve(event.body.len() + 512);
    out.extend_from_slice(&batch.start);
    write_number(u64::from(index), out);
    out.extend_from_slice(b"\",\"time\":");
    match event.time_unix_nano {
        Some(time) => stamps.time.write(time, out),
        None => out.extend_from_slice(b"null"),
    }
    out.extend_from_slice(b",\"observed\":");
    stamps.observed.write(event.observed_unix_nano, out);
    out.extend_from_slice(&batch.party);
    out.extend_from_slice(&origin.source);
    out.extend_from_slice(&batch.lane);
    out.extend_from_slice(severity(event.severity));
    out.extend_from_slice(&batch.place);
    write_number(u64::from(index), out);
    out.extend_from_slice(b",\"body\":");
    match std::str::from_utf8(event.body) {
        Ok(text) => write_string(text, out),
        Err(_) => {
            out.extend_from_slice(b"null,\"body_base64\":\"");
            out.extend_from_slice(
                base64::engine::general_purpose::STANDARD
                    .encode(event.body)
                    .as_bytes(),
            );
            out.push(b'"');
        }
    }
    out.extend_from_slice(b",\"attributes\":{");
    if event.attributes.is_empty() {
        out.extend_from_slice(&origin.attributes);
    } else {
        write_members(attributes(event.origin, &event.attributes), out);
    }
    out.extend_from_slice(b"}}\n");
}

/// Attributes of the origin and the event, each name once, the event's where both have it; without what a record only claims.
fn attributes<'a>(
    origin: &'a Origin,
    own: &'a [(&'a str, &'a str)],
) -> impl Iterator<Item = (&'a str, &'a str)> {
    let is_own_kind = origin.kind == OWN_KIND;
    let shared = origin
        .attributes
        .iter()
        .enumerate()
        .filter(|(index, (name, _))| {
            let again = origin.attributes[..*index]
                .iter()
                .any(|(before, _)| before == name);
            !again && !own.iter().any(|(other, _)| other == name)
        });
    let own = own
        .iter()
        .enumerate()
        .filter(|(index, (name, _))| !own[..*index].iter().any(|(before, _)| before == name));
    let shared = shared.map(|(_, (name, value))| (name.as_str(), value.as_str()));
    let all = shared.chain(own.map(|(_, member)| *member));
    all.filter(move |(name, _)| is_own_kind || !is_claim(name))
}

fn is_claim(name: &str) -> bool {
    (name.starts_with("watchline.") || name.starts_with("event.")) && !FLAGS.contains(&name)
}

fn write_members<'a>(members: impl Iterator<Item = (&'a str, &'a str)>, out: &mut Vec<u8>) {
    for (index, (name, value)) in members.enumerate() {
        if index > 0 {
            out.push(b',');
        }
        write_string(name, out);
        out.push(b':');
        write_string(value, out);
    }
}

/// The value of `severity` with the whole of `severity_number` behind it. Names are OpenTelemetry's.
fn severity(number: u8) -> &'static [u8] {
    const KNOWN: [&[u8]; 24] = [
        b"\"TRACE\",\"severity_number\":1",
        b"\"TRACE2\",\"severity_number\":2",
        b"\"TRACE3\",\"severity_number\":3",
        b"\"TRACE4\",\"severity_number\":4",
        b"\"DEBUG\",\"severity_number\":5",
        b"\"DEBUG2\",\"severity_number\":6",
        b"\"DEBUG3\",\"severity_number\":7",
        b"\"DEBUG4\",\"severity_number\":8",
        b"\"INFO\",\"severity_number\":9",
        b"\"INFO2\",\"severity_number\":10",
        b"\"INFO3\",\"severity_number\":11",
        b"\"INFO4\",\"severity_number\":12",
        b"\"WARN\",\"severity_number\":13",
        b"\"WARN2\",\"severity_number\":14",
        b"\"WARN3\",\"severity_number\":15",
        b"\"WARN4\",\"severity_number\":16",
        b"\"ERROR\",\"severity_number\":17",
        b"\"ERROR2\",\"severity_number\":18",
        b"\"ERROR3\",\"severity_number\":19",
        b"\"ERROR4\",\"severity_number\":20",
        b"\"FATAL\",\"severity_number\":21",
        b"\"FATAL2\",\"severity_number\":22",
        b"\"FATAL3\",\"severity_number\":23",
        b"\"FATAL4\",\"severity_number\":24",
    ];
    let known = usize::from(number)
        .checked_sub(1)
        .and_then(|index| KNOWN.get(index));
    known.copied().unwrap_or(b"null,\"severity_number\":null")
}
