//! A host as the quickstart shows it: realistic security events, each with its number and the time of its writing.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rand::{RngExt, SeedableRng, rngs::StdRng};

/// Makes the records of a busy host under attack.
#[derive(Debug)]
pub struct LoggingHost {
    next: u64,
    random: StdRng,
}

const USERS: [&str; 8] = [
    "root", "admin", "oracle", "deploy", "backup", "postgres", "test", "guest",
];
const PATHS: [&str; 6] = [
    "/index.php?id=1%27%20OR%20%271%27=%271",
    "/../../../../etc/passwd",
    "/wp-login.php",
    "/cgi-bin/.%2e/.%2e/bin/sh",
    "/api/users?sort=name);DROP%20TABLE%20users--",
    "/.git/config",
];
const COMMANDS: [&str; 4] = [
    "/usr/bin/systemctl restart portal",
    "/bin/cat /etc/shadow",
    "/usr/sbin/useradd -o -u 0 helper",
    "/usr/bin/apt upgrade",
];

impl LoggingHost {
    /// The first record has this number.
    #[must_use]
    pub fn new(first: u64) -> LoggingHost {
        LoggingHost {
            next: first,
            random: StdRng::seed_from_u64(first),
        }
    }

    /// The next record, written now. It contains no line feed.
    pub fn next_record(&mut self, now: SystemTime) -> String {
        let random = &mut self.random;
        let mut pick = |choices: &[&'static str]| choices[random.random_range(0..choices.len())];
        let (user, path, command) = (pick(&USERS), pick(&PATHS), pick(&COMMANDS));
        let (pid, port) = (
            random.random_range(400..32_000),
            random.random_range(1_024..65_000),
        );
        // TEST-NET-3: addresses that belong to nobody.
        let address = format!("203.0.113.{}", random.random_range(1..255));
        let nanos = now
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default()
            .as_nanos();
        let seconds = nanos / 1_000_000_000;
        let text = match random.random_range(0..10) {
            0..4 => format!(
                "sshd[{pid}]: Failed password for invalid user {user} from {address} port {port} ssh2"
            ),
            4 => format!(
                "sshd[{pid}]: Accepted publickey for {user} from {address} port {port} ssh2: ED25519 SHA256:qT1f"
            ),
            5 => format!(
                "sudo[{pid}]: {user} : TTY=pts/0 ; PWD=/home/{user} ; USER=root ; COMMAND={command}"
            ),
            6 => format!(
                "audit[{pid}]: type=USER_AUTH msg=audit({seconds}.{:03}:{}): pid={pid} uid=0 op=PAM:authentication acct=\"{user}\" \
                 exe=\"/usr/sbin/sshd\" addr={address} terminal=ssh res=failed",
                nanos / 1_000_000 % 1_000,
                self.next
            ),
            7 | 8 => format!(
                "nginx[{pid}]: {address} \"GET {path} HTTP/1.1\" 403 153 \"-\" \"sqlmap/1.8\""
            ),
            _ => format!(
                "kernel: [UFW BLOCK] IN=eth0 OUT= SRC={address} DST=192.0.2.10 PROTO=TCP SPT={port} DPT=22 SYN"
            ),
        };
        let number = self.next;
        self.next += 1;
        format!("{text} demo={number:07} written={nanos}")
    }
}

/// What a record of the demo says of itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mark {
    /// Counted from 1 in each log.
    pub number: u64,
    /// Since the Unix epoch.
    pub written: Duration,
}

impl Mark {
    /// `None` for records that a [`LoggingHost`] did not make.
    #[must_use]
    pub fn of(record: &[u8]) -> Option<Mark> {
        let text = std::str::from_utf8(record).ok()?;
        let (rest, nanos) = text.rsplit_once(" written=")?;
        let (_, number) = rest.rsplit_once(" demo=")?;
        Some(Mark {
            number: number.parse().ok()?,
            written: Duration::from_nanos(nanos.parse().ok()?),
        })
    }

    /// How long it was on its way when it is seen at `arrived` (since the Unix epoch).
    #[must_use]
    pub fn delay(&self, arrived: Duration) -> Duration {
        arrived.saturating_sub(self.written)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_record_says_its_number_and_time_and_is_one_line() {
        let mut host = LoggingHost::new(41);
        let now = UNIX_EPOCH + Duration::from_nanos(1_795_000_000_123_456_789);
        for number in 41..441 {
            let record = host.next_record(now);
            assert!(!record.contains('\n'), "{record}");
            let mark = Mark::of(record.as_bytes()).expect("a mark");
            assert_eq!(
                (mark.number, mark.written.as_nanos()),
                (number, 1_795_000_000_123_456_789)
            );
        }
        assert_eq!(Mark::of(b"something else"), None);
    }
}
