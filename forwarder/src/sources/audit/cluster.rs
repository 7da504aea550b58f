//! Which records belong to one event: those of one time and serial number, however they lie between each other.
//!
//! A *cluster* is the shortest run of whole lines in which every event that begins also ends; it is taken as a whole, so that a position between
//! two clusters never parts an event. An event ends
//!
//! - with its `PROCTITLE` or `EOE`: the kernel writes them last (`audit_log_exit`; auditd leaves `EOE` out of its file)
//! - with itself, where its type is none that the kernel writes several records for: everything from user space, and what libauparse
//!   takes for complete
//! - when a record is there that is 2 s younger, the limit that auditd's own tools use; or 512 lines later; or when its file has not grown
//!   for so long, or no more of it is held in memory
//!
//! Records that come later than that are an event by themselves.

use std::{collections::VecDeque, ops::Range};

use memchr::memchr;

use super::line::{Header, Id};

/// An event that is so much older than the newest record gets no more records.
const SECONDS_APART: i64 = 2;
/// Nor one whose last record is so many lines back.
const LINES_APART: usize = 512;
/// A cluster has no more lines than this: what is open then gets no more records. All of a cluster goes into one batch.
const MAX_LINES: usize = 4096;
/// How far behind the end of an event a record of it is looked for that came out of order.
const LOOK_AHEAD_LINES: usize = 16;

/// Records of one event, in the order of the file.
#[derive(Debug)]
pub(crate) struct Group<'a> {
    /// `None`: one line that is no record of an audit log.
    pub(crate) id: Option<Id<'a>>,
    /// Where they lie in the block, without their line feeds. Not empty.
    pub(crate) lines: Vec<Range<usize>>,
    /// It ended as the kernel ends events.
    pub(crate) ended: bool,
    closed: bool,
    last_line: usize,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Cluster<'a> {
    /// In the order of their first records.
    pub(crate) groups: Vec<Group<'a>>,
    /// Behind its last line feed.
    pub(crate) end: usize,
}

/// What is known of the lines behind the block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum More {
    /// There may be some that belong to what is open.
    Expected,
    /// What is open gets no more of them.
    Never,
}

struct Line<'a> {
    range: Range<usize>,
    header: Option<Header<'a>>,
}

/// The clusters of a block that begins at the beginning of a line. Memory: some ten bytes for each line of a cluster.
pub(crate) struct Clusters<'a> {
    block: &'a [u8],
    /// Lines before this have been read.
    at: usize,
    lines: VecDeque<Line<'a>>,
}

impl<'a> Clusters<'a> {
    pub(crate) fn new(block: &'a [u8]) -> Clusters<'a> {
        Clusters {
            block,
            at: 0,
            lines: VecDeque::new(),
        }
    }

    /// The next cluster; `None`: there is no whole line, or what there is has not ended.
    pub(crate) fn next(&mut self, more: More) -> Option<Cluster<'a>> {
        let mut groups: Vec<Group<'a>> = Vec::new();
        let (mut taken, mut newest) = (0, i64::MIN);
        while self.has(taken + 1) {
            let line = &self.lines[taken];
            taken += 1;
            let kind = match &line.header {
                Some(header) => {
                    newest = newest.max(header.id.seconds);
                    ends(header.kind)
                }
                None => Ends::Alone,
            };
            let id = line.header.as_ref().map(|header| header.id);
            let known = groups
                .iter_mut()
                .rev()
                .find(|group| id.is_some() && group.id == id);
            let group = match known {
                Some(group) => group,
                None => {
                    groups.push(Group {
                        id,
                        lines: Vec::new(),
                        ended: false,
                        closed: false,
                        last_line: taken,
                    });
                    let last = groups.len() - 1;
                    &mut groups[last]
                }
            };
            group.lines.push(line.range.clone());
            group.last_line = taken;
            group.ended |= kind != Ends::NotYet;
            group.closed |= group.ended;
            for group in groups.iter_mut().filter(|group| !group.closed) {
                let age = group.id.map_or(0, |id| newest.saturating_sub(id.seconds));
                group.closed = age >= SECONDS_APART || taken - group.last_line > LINES_APART;
            }
            let closed = groups.iter().all(|group| group.closed);
            if closed && !self.goes_on(&groups, taken) || taken >= MAX_LINES {
                return Some(self.take(groups, taken));
            }
        }
        (taken > 0 && more == More::Never).then(|| self.take(groups, taken))
    }

    fn take(&mut self, groups: Vec<Group<'a>>, taken: usize) -> Cluster<'a> {
        let end = self.lines[taken - 1].range.end + 1;
        self.lines.drain(..taken);
        Cluster { groups, end }
    }

    /// Whether one of the next lines belongs to one of these events all the same.
    fn goes_on(&mut self, groups: &[Group<'a>], taken: usize) -> bool {
        (0..LOOK_AHEAD_LINES).any(|ahead| {
            self.has(taken + ahead + 1)
                && self.lines[taken + ahead].header.is_some_and(|header| {
                    groups
                        .iter()
                        .rev()
                        .take(64)
                        .any(|group| group.id == Some(header.id))
                })
        })
    }

    /// Whether there are so many whole lines.
    fn has(&mut self, lines: usize) -> bool {
        while self.lines.len() < lines {
            let Some(len) = memchr(b'\n', &self.block[self.at..]) else {
                return false;
            };
            let range = self.at..self.at + len;
            let header = Header::read(&self.block[range.clone()]);
            self.at = range.end + 1;
            self.lines.push_back(Line { range, header });
        }
        true
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ends {
    /// With this record.
    Here,
    /// An event of this one record.
    Alone,
    NotYet,
}

/// By the ranges of `linux/audit.h`: types 1300 to 1999 are events of the kernel, of which those have one record that libauparse says so of.
fn ends(kind: &[u8]) -> Ends {
    match kind {
        b"PROCTITLE" | b"EOE" => Ends::Here,
        _ if is_part_of_syscall(kind) || may_have_more(kind) => Ends::NotYet,
        _ => Ends::Alone,
    }
}

/// Written for a system call, never without its `SYSCALL` record.
pub(super) fn is_part_of_syscall(kind: &[u8]) -> bool {
    const KINDS: [&[u8]; 24] = [
        b"SYSCALL",
        b"PATH",
        b"IPC",
        b"SOCKETCALL",
        b"SOCKADDR",
        b"CWD",
        b"EXECVE",
        b"IPC_SET_PERM",
        b"MQ_OPEN",
        b"MQ_SENDRECV",
        b"MQ_NOTIFY",
        b"MQ_GETSETATTR",
        b"FD_PAIR",
        b"OBJ_PID",
        b"BPRM_FCAPS",
        b"CAPSET",
        b"MMAP",
        b"KERN_MODULE",
        b"FANOTIFY",
        b"TIME_INJOFFSET",
        b"TIME_ADJNTPVAL",
        b"OPENAT2",
        b"AVC_PATH",
        b"URINGOP",
    ];
    KINDS.contains(&kind)
}

/// Written by the kernel with the records of a system call, or alone.
fn may_have_more(kind: &[u8]) -> bool {
    const KINDS: [&[u8]; 15] = [
        b"CONFIG_CHANGE",
        b"AVC",
        b"SELINUX_ERR",
        b"NETFILTER_CFG",
        b"SECCOMP",
        b"FEATURE_CHANGE",
        b"REPLACE",
        b"BPF",
        b"EVENT_LISTENER",
        b"KERNEL_OTHER",
        b"TTY",
        b"DM_CTRL",
        b"DM_EVENT",
        b"MAC_POLICY_LOAD",
        b"MAC_STATUS",
    ];
    KINDS.contains(&kind)
        || [
            &b"ANOM_LINK"[..],
            b"ANOM_CREAT",
            b"ANOM_ABEND",
            b"ANOM_PROMISCUOUS",
        ]
        .contains(&kind)
        || kind.starts_with(b"INTEGRITY_")
        || kind.starts_with(b"APPARMOR")
        || kind.starts_with(b"MAC_CONFIG")
        || kind.starts_with(b"LANDLOCK_")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `serial kind` for each line, all of one second unless `@seconds` is behind.
    fn log(lines: &[&str]) -> String {
        let line = |line: &&str| {
            let (what, second) = line.split_once('@').unwrap_or((line, "100"));
            match what.split_once(' ') {
                Some((serial, kind)) => {
                    format!("type={kind} msg=audit({second}.001:{serial}): x=1\n")
                }
                None => format!("{what}\n"),
            }
        };
        lines.iter().map(line).collect()
    }

    /// Serials of the events of each cluster, with how many records each has and `!` where it did not end.
    fn clusters(text: &str, more: More) -> Vec<String> {
        let mut clusters = Clusters::new(text.as_bytes());
        let mut found = Vec::new();
        while let Some(cluster) = clusters.next(more) {
            let groups = cluster.groups.iter().map(|group| {
                let serial = group.id.map_or("-".into(), |id| id.serial.to_string());
                let mark = if group.ended { "" } else { "!" };
                format!("{serial}:{}{mark}", group.lines.len())
            });
            found.push(groups.collect::<Vec<_>>().join(" "));
        }
        found
    }

    /// TAILING 40.
    #[test]
    fn records_between_each_other_and_out_of_order_are_grouped_by_their_serial() {
        let apart = log(&[
            "1 SYSCALL",
            "1 CWD",
            "1 PROCTITLE",
            "2 USER_LOGIN",
            "garbage",
            "3 SYSCALL",
            "3 PROCTITLE",
        ]);
        assert_eq!(
            clusters(&apart, More::Expected),
            ["1:3", "2:1", "-:1", "3:2"]
        );
        let between = log(&[
            "1 SYSCALL",
            "2 SYSCALL",
            "1 PATH",
            "3 USER_CMD",
            "2 PROCTITLE",
            "1 PROCTITLE",
            "4 LOGIN",
        ]);
        assert_eq!(clusters(&between, More::Expected), ["1:3 2:2 3:1", "4:1"]);
        let out_of_order = log(&["1 PROCTITLE", "1 SYSCALL", "2 LOGIN", "1 PATH", "3 LOGIN"]);
        assert_eq!(clusters(&out_of_order, More::Expected), ["1:3 2:1", "3:1"]);
    }

    /// TAILING 40.
    #[test]
    fn an_event_without_an_end_waits_and_ends_when_others_are_two_seconds_younger() {
        let open = log(&["1 SYSCALL", "2 LOGIN", "1 PATH"]);
        assert_eq!(clusters(&open, More::Expected), [] as [String; 0]);
        assert_eq!(clusters(&open, More::Never), ["1:2! 2:1"]);
        let older = log(&["1 SYSCALL", "2 LOGIN@101", "3 LOGIN@102", "4 SYSCALL@102"]);
        assert_eq!(clusters(&older, More::Expected), ["1:1! 2:1 3:1"]);
        let many: Vec<String> = (0..600).map(|n| format!("{} LOGIN", n + 2)).collect();
        let mut lines = vec!["1 SYSCALL"];
        lines.extend(many.iter().map(String::as_str));
        let found = clusters(&log(&lines), More::Expected);
        assert!(found[0].starts_with("1:1! 2:1 "), "{}", found[0]);
        assert_eq!(found[0].split(' ').count(), 514);
    }
}
