//! What is known of an entry beside its bytes.

use super::{config::Units, export::fields};

/// Fields that become attributes, under these names: their own in lower case. A leading underscore is journald's own word for a field; the
/// others are what the program said. Values longer than an attribute are cut, as everywhere; the body has them whole.
const ATTRIBUTES: [(&str, &str); 9] = [
    ("MESSAGE", "journald.message"),
    ("SYSLOG_IDENTIFIER", "journald.syslog_identifier"),
    ("_COMM", "journald._comm"),
    ("_HOSTNAME", "journald._hostname"),
    ("_PID", "journald._pid"),
    ("_SYSTEMD_UNIT", "journald._systemd_unit"),
    ("_TRANSPORT", "journald._transport"),
    ("_UID", "journald._uid"),
    ("UNIT", "journald.unit"),
];

/// See the module. Of fields that come more than once the first counts.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Known<'a> {
    /// When it was written into the journal, microseconds since 1970.
    pub(super) written_micros: Option<i64>,
    /// When its sender says, if the kernel or journald vouches for that; else when it was written.
    pub(super) time_unix_nano: Option<i64>,
    /// syslog's priority, 0 to 7.
    pub(super) priority: Option<u8>,
    attributes: [Option<&'a str>; ATTRIBUTES.len()],
    units: [Option<&'a str>; 4],
}

/// Fields that say which unit an entry is of, as `journalctl --unit` has them; the last three only from the service manager or from root.
const UNIT_FIELDS: [&str; 4] = [
    "_SYSTEMD_UNIT",
    "UNIT",
    "OBJECT_SYSTEMD_UNIT",
    "COREDUMP_UNIT",
];

impl<'a> Known<'a> {
    pub(super) fn of(entry: &'a [u8]) -> Known<'a> {
        let mut known = Known::default();
        let mut source_micros = None;
        for (name, value) in fields(entry) {
            let micros = || str::from_utf8(value).ok()?.parse::<i64>().ok();
            match name {
                "__REALTIME_TIMESTAMP" => {
                    known.written_micros = known.written_micros.or_else(micros)
                }
                "_SOURCE_REALTIME_TIMESTAMP" => source_micros = source_micros.or_else(micros),
                "PRIORITY" => {
                    if let ([digit @ b'0'..=b'7'], None) = (value, known.priority) {
                        known.priority = Some(digit - b'0');
                    }
                }
                _ => {}
            }
            let text = || str::from_utf8(value).ok();
            if let Some(at) = ATTRIBUTES.iter().position(|(field, _)| *field == name) {
                known.attributes[at] = known.attributes[at].or_else(text);
            }
            if let Some(at) = UNIT_FIELDS.iter().position(|field| *field == name) {
                known.units[at] = known.units[at].or_else(text);
            }
        }
        let micros = source_micros.or(known.written_micros);
        known.time_unix_nano = micros.and_then(|micros| micros.checked_mul(1000));
        known
    }

    /// OpenTelemetry's number for the priority; 0 where there is none.
    pub(super) fn severity(&self) -> u8 {
        match self.priority {
            Some(0) => 21, // emerg: FATAL
            Some(1) => 19, // alert: ERROR3
            Some(2) => 18, // crit: ERROR2
            Some(3) => 17, // err: ERROR
            Some(4) => 13, // warning: WARN
            Some(5) => 10, // notice: INFO2
            Some(6) => 9,  // info: INFO
            Some(7) => 5,  // debug: DEBUG
            Some(_) | None => 0,
        }
    }

    /// The fields that become attributes, those that are there and text.
    pub(super) fn attributes(&self) -> impl Iterator<Item = (&'static str, &'a str)> {
        let names = ATTRIBUTES.iter().map(|(_, name)| *name);
        names
            .zip(self.attributes)
            .filter_map(|(name, value)| Some((name, value?)))
    }

    /// Whether it is of one of `units`. What somebody else than root or the service manager says about a unit does not count.
    pub(super) fn is_of(&self, units: &Units) -> bool {
        let at = |name: &str| ATTRIBUTES.iter().position(|(field, _)| *field == name);
        let value = |name: &str| at(name).and_then(|at| self.attributes[at]);
        let (manager, root) = (value("_PID") == Some("1"), value("_UID") == Some("0"));
        let [own, unit, object, core] = self.units;
        let vouched = [
            own,
            unit.filter(|_| manager),
            object.filter(|_| root),
            core.filter(|_| root),
        ];
        vouched
            .into_iter()
            .flatten()
            .any(|unit| units.contains(unit))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_journald_vouches_for_is_known_and_the_rest_is_not_guessed() {
        let known = Known::of(
            b"__CURSOR=c\n__REALTIME_TIMESTAMP=1700000000000002\n_SOURCE_REALTIME_TIMESTAMP=1700000000000001\n\
              PRIORITY=4\nPRIORITY=0\nMESSAGE=a=b\n_PID=7\n",
        );
        assert_eq!(known.written_micros, Some(1_700_000_000_000_002));
        assert_eq!(known.time_unix_nano, Some(1_700_000_000_000_001_000));
        assert_eq!(known.severity(), 13);
        assert_eq!(
            known.attributes().collect::<Vec<_>>(),
            [("journald.message", "a=b"), ("journald._pid", "7")]
        );
        let unknown = Known::of(b"__CURSOR=c\nPRIORITY=12\n__REALTIME_TIMESTAMP=x\nMESSAGE=\xff\n");
        assert_eq!(unknown, Known::default());
        assert_eq!(unknown.severity(), 0);
    }

    #[test]
    fn an_entry_about_a_unit_counts_only_from_who_may_say_so() {
        let units = Units::new(&["ssh"]).unwrap();
        for (entry, is) in [
            (&b"_SYSTEMD_UNIT=ssh.service\n"[..], true),
            (b"_SYSTEMD_UNIT=sshd.service\n", false),
            (b"UNIT=ssh.service\n_PID=1\n", true),
            (b"UNIT=ssh.service\n_PID=2\n", false),
            (b"OBJECT_SYSTEMD_UNIT=ssh.service\n_UID=0\n", true),
            (b"COREDUMP_UNIT=ssh.service\n_UID=1000\n", false),
            (b"MESSAGE=x\n", false),
        ] {
            assert_eq!(
                Known::of(entry).is_of(&units),
                is,
                "{}",
                String::from_utf8_lossy(entry)
            );
        }
    }
}
