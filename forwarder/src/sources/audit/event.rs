//! What is said of one event beside its records.
//!
//! | attribute | from | grounds |
//! |---|---|---|
//! | `audit.serial`, `audit.node` | the header of its records | `auditd(8)`, `auditd.conf(5)` (`name_format`) |
//! | `audit.types` | the types of its records, each once, in order | `linux/audit.h` |
//! | `audit.syscall` | `syscall` of SYSCALL: the number as it stands, since its meaning depends on `arch` | `audit_log_exit` |
//! | `audit.syscall.name` | `SYSCALL` behind it, where auditd writes enriched records | `auditd.conf(5)` (`log_format`) |
//! | `audit.success` | `success` of SYSCALL, else `res` | `audit_log_exit`, field dictionary of the audit userspace |
//! | `audit.auid`, `audit.uid`, `audit.pid` | likewise, as they stand; the first record that has it counts; an unset auid (4294967295, -1) is left out | `audit_log_task_info`, `linux/audit.h` (`AUDIT_UID_UNSET`) |
//! | `audit.exe`, `audit.comm`, `audit.key`, `audit.acct` | likewise, quotes or hexadecimal digits undone; several keys are parted by commas | `audit_log_untrustedstring`, `audit_log_key` (0x01 between keys) |
//! | `process.command_args` | EXECVE: a JSON array of its arguments, of which quotes, hexadecimal digits and parts (`a2[0]`) are undone | `audit_log_execve_info` |
//! | `audit.incomplete` | no record ended it, or records or arguments that belong to it are missing | see `cluster` |
//!
//! An attribute has 4 KiB: a longer array goes on in `process.command_args.1`, `.2`, … up to 160 KiB; what is beyond is counted in
//! `audit.args_left_out_bytes`, and stands in the body like everything else. Bytes that are no UTF-8 are U+FFFD in an attribute.
//!
//! Severity: `ANOM_*` is WARN (`linux/audit.h`: "anomaly records"), `DAEMON_ABORT`, `DAEMON_ERR` ("error stop", "internal error") and
//! `SELINUX_ERR` ("internal SE Linux errors") are ERROR. Nothing else in those headers says how bad a type is: unknown.

use std::collections::BTreeMap;

use watchline_proto::MAX_LABEL_VALUE_BYTES;

use super::{
    cluster::{Group, is_part_of_syscall},
    line::{Header, fields, number, text},
};

/// Attributes that the arguments of a program may take.
const MAX_ARGS_PARTS: usize = 40;
const WARN: u8 = 13;
const ERROR: u8 = 17;

/// See the module.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Facts {
    pub(crate) time_unix_nano: Option<i64>,
    /// OpenTelemetry's number, 0 unknown.
    pub(crate) severity: u8,
    pub(crate) attributes: Vec<(String, String)>,
    /// How many records the kernel has lost so far, where one of these says so; and from which number it counts from now on.
    pub(crate) lost: Option<Lost>,
}

/// A report of the kernel's counter of lost records.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Lost {
    pub(crate) total: u64,
    /// Set back to 0 with this report (`auditctl --reset-lost`).
    pub(crate) reset: bool,
}

/// Names of fields, and of attributes, that are taken as they stand.
const PLAIN: [(&[u8], &str); 6] = [
    (b"syscall", "audit.syscall"),
    (b"SYSCALL", "audit.syscall.name"),
    (b"success", "audit.success"),
    (b"auid", "audit.auid"),
    (b"uid", "audit.uid"),
    (b"pid", "audit.pid"),
];
/// Likewise, of those in quotes or hexadecimal digits.
const TEXTS: [(&[u8], &str); 4] = [
    (b"exe", "audit.exe"),
    (b"comm", "audit.comm"),
    (b"key", "audit.key"),
    (b"acct", "audit.acct"),
];

/// What the records of `group`, `body` joined by line feeds, say.
pub(crate) fn facts(group: &Group<'_>, body: &[u8]) -> Facts {
    let Some(id) = group.id else {
        return Facts::default();
    };
    let mut found = Found::default();
    for line in body.split(|byte| *byte == b'\n') {
        if let Some(header) = Header::read(line) {
            found.take(&header);
        }
    }
    let mut attributes = vec![("audit.serial".to_owned(), id.serial.to_string())];
    if !id.node.is_empty() {
        attributes.push(("audit.node".to_owned(), lossy(id.node)));
    }
    attributes.push(("audit.types".to_owned(), found.kinds.join(",")));
    for (name, value) in found.values {
        attributes.push((name.to_owned(), value));
    }
    let whole = found.args.is_whole();
    found.args.write(&mut attributes);
    let parts_missing = found.has_parts && !found.kinds.iter().any(|kind| kind == "SYSCALL");
    if !group.ended && found.has_parts || parts_missing || !whole {
        attributes.push(("audit.incomplete".to_owned(), "true".to_owned()));
    }
    Facts {
        time_unix_nano: id.unix_nano(),
        severity: found.severity,
        attributes,
        lost: found.lost,
    }
}

#[derive(Default)]
struct Found {
    kinds: Vec<String>,
    values: BTreeMap<&'static str, String>,
    args: Args,
    /// Records of a system call are there.
    has_parts: bool,
    severity: u8,
    lost: Option<Lost>,
}

impl Found {
    fn take(&mut self, header: &Header<'_>) {
        let kind = lossy(header.kind);
        self.severity = self.severity.max(severity(&kind));
        self.has_parts |= is_part_of_syscall(header.kind);
        if !self.kinds.contains(&kind) {
            self.kinds.push(kind);
        }
        if header.kind == b"EXECVE" {
            fields(header.fields).for_each(|(name, value)| self.args.take(name, value));
            return;
        }
        // Only what the kernel and the daemon themselves write can tell of the kernel's losses.
        if header.kind == b"CONFIG_CHANGE"
            || header.kind == b"KERNEL"
            || header.kind.starts_with(b"DAEMON_")
        {
            self.lost = self.lost.or(lost(header.fields));
        }
        for (name, value) in fields(header.fields) {
            let plain = PLAIN.iter().find(|(field, _)| *field == name);
            if let Some((_, attribute)) = plain {
                let unset = name == b"auid" && matches!(value, b"4294967295" | b"-1");
                if !unset && !matches!(value, b"?" | b"(null)") {
                    self.values.entry(attribute).or_insert_with(|| lossy(value));
                }
            } else if let Some((_, attribute)) = TEXTS.iter().find(|(field, _)| *field == name) {
                if let Some(text) = text(value) {
                    let text = lossy(&text).replace('\x01', ",");
                    self.values.entry(attribute).or_insert(text);
                }
            } else if name == b"res" {
                self.values
                    .entry("audit.success")
                    .or_insert_with(|| match value {
                        b"success" | b"1" | b"yes" => "yes".to_owned(),
                        b"failed" | b"0" | b"no" => "no".to_owned(),
                        other => lossy(other),
                    });
            }
        }
    }
}

/// `audit_lost=5` of the kernel; `op=set lost=0 old=5` of who set it back.
fn lost(text: &[u8]) -> Option<Lost> {
    let field = |wanted: &[u8]| {
        let mut found = fields(text).filter(|(name, _)| *name == wanted);
        found.next().and_then(|(_, value)| number(value))
    };
    if let Some(total) = field(b"audit_lost") {
        return Some(Lost {
            total,
            reset: false,
        });
    }
    field(b"lost")?;
    let total = field(b"old")?;
    Some(Lost { total, reset: true })
}

fn severity(kind: &str) -> u8 {
    match kind {
        "DAEMON_ABORT" | "DAEMON_ERR" | "SELINUX_ERR" => ERROR,
        kind if kind.starts_with("ANOM_") => WARN,
        _ => 0,
    }
}

/// Arguments of a program by their numbers, each by the numbers of its parts. Memory: about what the records take.
#[derive(Default)]
struct Args {
    count: Option<u64>,
    parts: BTreeMap<u64, BTreeMap<u64, Vec<u8>>>,
    /// Bytes of hexadecimal digits, or characters, that a long argument should have.
    lengths: BTreeMap<u64, u64>,
}

impl Args {
    fn take(&mut self, name: &[u8], value: &[u8]) {
        if name == b"argc" {
            self.count = number(value);
            return;
        }
        let Some(rest) = name.strip_prefix(b"a") else {
            return;
        };
        let digits = rest.iter().take_while(|byte| byte.is_ascii_digit()).count();
        let Some(no) = number(&rest[..digits]) else {
            return;
        };
        match &rest[digits..] {
            b"" => drop(self.parts.entry(no).or_default().insert(0, bytes(value))),
            b"_len" => self.lengths.extend(number(value).map(|len| (no, len))),
            [b'[', part @ .., b']'] => {
                if let Some(part) = number(part) {
                    self.parts.entry(no).or_default().insert(part, bytes(value));
                }
            }
            _ => {}
        }
    }

    /// Whether every argument is there, with all of its parts as far as that can be seen.
    fn is_whole(&self) -> bool {
        let in_row =
            |parts: &BTreeMap<u64, Vec<u8>>| parts.keys().zip(0..).all(|(no, at)| *no == at);
        let found = self.parts.keys().zip(0..).all(|(no, at)| *no == at);
        found
            && self.parts.values().all(in_row)
            && self
                .count
                .is_none_or(|count| count == self.parts.len() as u64)
            && self.lengths.iter().all(|(no, len)| {
                let found: usize = self
                    .parts
                    .get(no)
                    .map_or(0, |parts| parts.values().map(Vec::len).sum());
                // The length of hexadecimal digits counts each byte twice.
                found as u64 == *len || found as u64 * 2 == *len
            })
    }

    fn write(&self, attributes: &mut Vec<(String, String)>) {
        if self.parts.is_empty() {
            return;
        }
        let args: Vec<String> = self
            .parts
            .values()
            .map(|parts| lossy(&parts.values().flatten().copied().collect::<Vec<u8>>()))
            .collect();
        // An array of strings is always JSON.
        let json = serde_json::to_string(&args).unwrap_or_default();
        let mut rest = json.as_str();
        for part in 0..MAX_ARGS_PARTS {
            if rest.is_empty() {
                return;
            }
            let (value, left) = rest.split_at(rest.floor_char_boundary(MAX_LABEL_VALUE_BYTES));
            let name = match part {
                0 => "process.command_args".to_owned(),
                part => format!("process.command_args.{part}"),
            };
            attributes.push((name, value.to_owned()));
            rest = left;
        }
        if !rest.is_empty() {
            let left = rest.len().to_string();
            attributes.push(("audit.args_left_out_bytes".to_owned(), left));
        }
    }
}

fn bytes(value: &[u8]) -> Vec<u8> {
    text(value).unwrap_or_else(|| value.to_vec())
}

fn lossy(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use watchline_proto::MAX_LABELS;

    use super::*;
    use crate::sources::audit::{Clusters, More};

    proptest! {
        /// Whatever stands in a log, what is said of it stays within the limits of an event, and nothing of it is left out of the bodies.
        #[test]
        fn no_record_makes_the_decoder_stumble(
            lines in prop::collection::vec(
                "(node=n )?type=(SYSCALL|EXECVE|PROCTITLE|KERNEL) msg=audit\\([0-9]{1,20}\\.[0-9]{1,3}:[0-3]\\):( ?(a[0-9]{1,20}(_len|\\[[0-9]{0,20}\\])?|argc|exe|key|audit_lost)=[0-9A-F\"'?]{0,20}){0,9}|[ -~\u{1d}]{0,60}",
                0..20,
            ),
        ) {
            let text: String = lines.iter().map(|line| format!("{line}\n")).collect();
            let mut clusters = Clusters::new(text.as_bytes());
            let mut records = 0;
            while let Some(cluster) = clusters.next(More::Never) {
                for group in &cluster.groups {
                    records += group.lines.len();
                    let bodies: Vec<&[u8]> = group.lines.iter().map(|line| &text.as_bytes()[line.clone()]).collect();
                    let facts = facts(group, &bodies.join(&b'\n'));
                    prop_assert!(facts.attributes.len() + 4 <= MAX_LABELS);
                    let fit = facts.attributes.iter().all(|(name, value)| name.len() <= 64 && value.len() <= 3 * text.len() + 64);
                    prop_assert!(fit, "{:?}", facts);
                }
            }
            prop_assert_eq!(records, lines.len());
        }
    }
}
