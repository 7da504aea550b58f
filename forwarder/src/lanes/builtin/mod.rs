//! The built-in rules, on by default: signs that somebody blinds the host, breaks into it, or is about to encrypt it.
//!
//! | rule | what it finds |
//! |---|---|
//! | `logs-cleared` | Windows: Security 1102 and 517, System 104. Linux, by audit: a file under `/var/log` removed or truncated |
//! | `audit-off` | audit rules removed, auditing switched off, the audit daemon stopped |
//! | `malware-found` | Defender 1006, 1015, 1116 to 1119; ClamAV's `FOUND` |
//! | `protection-off` | Defender 5001, 5010, 5012 |
//! | `ransomware-preparation` | shadow copies, backups or recovery removed, in Windows' process creation 4688 or Sysmon 1 |
//! | `accounts` | an account created, or added to an administrators' group |
//!
//! **Who can imitate them.** A rule holds for the kinds of sources that its signs come from, and a line of a file or of syslog has to begin as
//! the program's own lines do: a web log that quotes `useradd` is no alert. Who may write to the log can write anything; what comes of it is
//! held to [`MAX_RATE`], and the true one is an event all the same.
//!
//! **What stays quiet**: log rotation (by the path of the program, which the kernel tells, not by its name), system accounts that packages
//! create (without a login shell), and looking at shadow copies or backups.
//!
//! **Cost.** Each rule names plain text that every match has in it: a block without any costs one search for all of them.

#[cfg(test)]
mod tests;

use super::AlertRule;

/// Alerts a second of one built-in rule in one kind of source.
pub(crate) const MAX_RATE: u32 = 20;

/// The names of the rules.
pub(crate) const NAMES: [&str; 6] = [
    "logs-cleared",
    "audit-off",
    "malware-found",
    "protection-off",
    "ransomware-preparation",
    "accounts",
];

/// The part of a rule that holds for some kinds of sources.
struct Part {
    name: &'static str,
    kinds: &'static [&'static str],
    signs: &'static [&'static str],
    /// Any of them, …
    matches: Vec<String>,
    /// … all of these …
    requires: Vec<String>,
    /// … and none of these.
    unless: Vec<String>,
}

/// The built-in rules for sources of these names and kinds, but those with a name in `without`.
pub(crate) fn rules(sources: &[(&str, &str)], without: &[&str]) -> Vec<AlertRule> {
    let parts = [windows(), named(audit()), named(lines()), journal()];
    let mut rules = Vec::new();
    // In the order of the names, so that a record that two of them match is always of the same.
    for name in NAMES.iter().filter(|name| !without.contains(name)) {
        for part in parts.iter().flatten().filter(|part| part.name == *name) {
            let of_kind = sources.iter().filter(|(_, kind)| part.kinds.contains(kind));
            let of_kind: Vec<String> = of_kind.map(|(source, _)| (*source).to_owned()).collect();
            if of_kind.is_empty() {
                continue;
            }
            rules.push(AlertRule {
                name: (*name).to_owned(),
                matches: part.matches.clone(),
                sources: of_kind,
                min_severity: None,
                max_rate: MAX_RATE,
                requires: part.requires.clone(),
                unless: part.unless.clone(),
                signs: part.signs.iter().map(|&sign| sign.to_owned()).collect(),
            });
        }
    }
    rules
}

/// Records of the audit daemon may begin with the name of the host, `node=web-1 `.
fn named(mut parts: Vec<Part>) -> Vec<Part> {
    let name = |text: &mut String| {
        for begin in ["^", r"\A"] {
            let record = format!("{begin}type=");
            *text = text.replace(&record, &format!(r"{begin}(?:node=\S+ )?type="));
        }
    };
    for part in &mut parts {
        let Part {
            matches,
            requires,
            unless,
            ..
        } = part;
        for texts in [matches, requires, unless] {
            texts.iter_mut().for_each(name);
        }
    }
    parts
}

fn owned(texts: &[&str]) -> Vec<String> {
    texts.iter().map(|&text| text.to_owned()).collect()
}

/// Events of Windows, as JSON with the structure of their XML; the order of its members does not matter. A quotation mark within a value is
/// escaped, so a value cannot look like a member.
fn windows() -> Vec<Part> {
    let part = |name, signs, ids: &str, channel: &str, more: &[&str]| {
        let id = format!(
            r##""EventID":\s*(?:\{{[^{{}}]*(?:\{{[^{{}}]*\}}[^{{}}]*)?"#text":\s*)?"?(?:{ids})\b"##
        );
        let channel = format!(r#""Channel":\s*"{channel}""#);
        Part {
            name,
            kinds: &["evtx"],
            signs,
            matches: vec![id],
            requires: [vec![channel], owned(more)].concat(),
            unless: Vec::new(),
        }
    };
    const DEFENDER: &str = "Microsoft-Windows-Windows Defender/Operational";
    const DEFENDER_SIGN: &[&str] = &["Microsoft-Windows-Windows Defender/Operational"];
    // The commands as an event writes them: quotation marks and backslashes escaped, any case.
    const PREPARATION: &str = concat!(
        r#"(?i)\bvssadmin(?:\.exe)?[\\" ]+(?:delete\s+shadows|resize\s+shadowstorage)"#,
        r#"|\bwmic(?:\.exe)?[\\" ]+(?:[^"]*\s)?shadowcopy\s+(?:[^"]*\s)?delete\b"#,
        r#"|\bwbadmin(?:\.exe)?[\\" ]+delete\s+(?:catalog|systemstatebackup|backup)\b"#,
        r#"|\bbcdedit(?:\.exe)?[\\" ]+[^"]*(?:recoveryenabled\s+(?:no|off|false|0)|bootstatuspolicy\s+ignoreallfailures)\b"#,
        r#"|\bwin32_shadowcopy\b.{0,200}?(?:\.delete\(|remove-wmiobject|remove-ciminstance|\brwmi\b|\brcim\b)"#,
        r#"|(?:remove-wmiobject|remove-ciminstance|\brwmi\b|\brcim\b).{0,200}?\bwin32_shadowcopy\b"#,
    );
    // The groups' numbers are the same in every language: Administrators, and a domain's, schema's and forest's administrators.
    const ADMINISTRATORS: &str =
        r#""TargetSid":\s*"S-1-5-(?:32-544|21-[0-9]+-[0-9]+-[0-9]+-(?:512|518|519))""#;
    vec![
        part(
            "logs-cleared",
            &["1102", "517"],
            "1102|517",
            "Security",
            &[],
        ),
        part(
            "logs-cleared",
            &["104"],
            "104",
            "System",
            &[r#""Microsoft-Windows-Eventlog""#],
        ),
        part(
            "malware-found",
            DEFENDER_SIGN,
            "1006|1015|111[6-9]",
            DEFENDER,
            &[],
        ),
        part(
            "protection-off",
            DEFENDER_SIGN,
            "5001|5010|5012",
            DEFENDER,
            &[],
        ),
        part(
            "ransomware-preparation",
            &["4688"],
            "4688",
            "Security",
            &[PREPARATION],
        ),
        part(
            "ransomware-preparation",
            &["Microsoft-Windows-Sysmon/Operational"],
            "1",
            "Microsoft-Windows-Sysmon/Operational",
            &[PREPARATION],
        ),
        part("accounts", &["4720"], "4720", "Security", &[]),
        part(
            "accounts",
            &["4728", "4732", "4756"],
            "4728|4732|4756",
            "Security",
            &[ADMINISTRATORS],
        ),
    ]
}

/// Audit events: the records of one event, line by line.
fn audit() -> Vec<Part> {
    const KINDS: &[&str] = &["audit"];
    const SUCCESS: &str = r"^type=SYSCALL .*\bsuccess=yes\b";
    // Those that rotate, compress or vacuum logs, or bring packages up to date.
    const HOUSEKEEPING: &str = concat!(
        r#"^type=SYSCALL .*\bexe="(?:/usr)?/(?:s?bin/(?:logrotate|savelog|gzip|pigz|xz|bzip2|zstd|dpkg|dpkg-deb|apt|apt-get|aptitude|rpm|dnf|yum|dnf-3|auditd|rsyslogd|syslog-ng)"#,
        r#"|lib(?:exec)?/(?:systemd/systemd-journald|apt/.*))""#,
    );
    const IN_LOG: &str =
        r#"^type=(?:CWD .*\bcwd|PATH .*\bname)=(?:"/var/log[/"]|2F7661722F6C6F67)"#;
    const ADMIN_GROUP: &str = "(?:sudo|wheel|root|admin)";
    let removed = |path: &str| format!(r"^type=PATH .*\bname={path}.*\bnametype=DELETE\b");
    let truncated = |path: &str| format!(r"^type=PATH .*\bname={path}.*\bnametype=NORMAL\b");
    // By path, or by a name within a folder that is there.
    let (absolute, relative) = (
        r#"(?:"/var/log/|2F7661722F6C6F672F)"#,
        r#"(?:"[^/"]|[013-9A-F]|2[0-9A-E])"#,
    );
    // O_TRUNC is 0x200: of open's second argument on x86-64, of openat's third on x86-64 and arm64; and truncate itself.
    const TRUNCATES: &str = concat!(
        r"^type=SYSCALL .*\b(?:arch=c000003e syscall=2 .*\ba1=[0-9a-f]*[2367abef][0-9a-f]{2} ",
        r"|arch=(?:c000003e syscall=257|c00000b7 syscall=56) .*\ba2=[0-9a-f]*[2367abef][0-9a-f]{2} ",
        r"|arch=(?:c000003e syscall=(?:76|85)|c00000b7 syscall=45) )",
    );
    let cleared = |matches: Vec<String>, requires: &[&str], signs| Part {
        name: "logs-cleared",
        kinds: KINDS,
        signs,
        matches,
        requires: owned(requires),
        unless: owned(&[HOUSEKEEPING]),
    };
    let others = |name, signs, matches: Vec<String>| Part {
        name,
        kinds: KINDS,
        signs,
        matches,
        requires: Vec::new(),
        unless: Vec::new(),
    };
    let execve =
        |program: &str, rest: &str| format!(r#"^type=EXECVE .*\ba0="(?:[^"]*/)?{program}" {rest}"#);
    const DELETE: &[&str] = &["nametype=DELETE"];
    const NORMAL: &[&str] = &["/var/log", "2F7661722F6C6F67"];
    vec![
        cleared(vec![removed(absolute)], &[SUCCESS], DELETE),
        cleared(vec![removed(relative)], &[SUCCESS, IN_LOG], DELETE),
        cleared(vec![truncated(absolute)], &[SUCCESS, TRUNCATES], NORMAL),
        cleared(
            vec![truncated(relative)],
            &[SUCCESS, IN_LOG, TRUNCATES],
            NORMAL,
        ),
        others(
            "audit-off",
            &["type=CONFIG_CHANGE", "type=DAEMON_", "auditctl"],
            [
                owned(&AUDIT_OFF),
                vec![
                    execve("auditctl", r#".*\ba[0-9]+="-D""#),
                    execve("auditctl", r#".*="-e" a[0-9]+="0""#),
                ],
            ]
            .concat(),
        ),
        Part {
            unless: owned(&[r#"\bres=failed\b"#]),
            ..others(
                "accounts",
                &[
                    "type=ADD_USER",
                    "type=USER_MGMT",
                    "usermod",
                    "gpasswd",
                    "adduser",
                ],
                vec![
                    r#"^type=ADD_USER .*\bres=success\b"#.to_owned(),
                    format!(r#"^type=USER_MGMT .*\bop=add\S* .*\bgrp="{ADMIN_GROUP}""#),
                    execve(
                        "usermod",
                        &format!(
                            r#".*="(?:-[a-zA-Z]*G|--groups)" a[0-9]+="(?:[^"]*,)?{ADMIN_GROUP}[",]"#
                        ),
                    ),
                    execve(
                        "gpasswd",
                        &format!(r#".*="(?:-a|--add)" .*="{ADMIN_GROUP}""#),
                    ),
                    execve("adduser", &format!(r#"a1="[^"-][^"]*" a2="{ADMIN_GROUP}""#)),
                ],
            )
        },
    ]
}

/// Records of the audit system that say that less is audited from now on: rules removed, auditing or its daemon ended.
const AUDIT_OFF: [&str; 2] = [
    r"^type=CONFIG_CHANGE msg=audit\([0-9.:]+\): .*(?:\bop=remove_rule\b|\baudit_enabled=0 old=[12]\b|\baudit_pid=0 old=[1-9])",
    r"^type=DAEMON_(?:END|ABORT) msg=audit\(",
];

/// What a line of syslog begins with, in a file or as it is sent, up to the program's name.
const BEFORE_PROGRAM: &str = concat!(
    r"\A(?:<[0-9]{1,3}>)?(?:1 )?",
    r"(?:[A-Z][a-z]{2} [ 0-9][0-9] [0-9:]{8}|[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9:.]+(?:Z|[+-][0-9]{2}:[0-9]{2}))",
    r" (?:[A-Za-z0-9._:-]+ )?",
);
/// What stands between its name and its message: `[77]: `, `: `, or RFC 5424's ` 77 - - `.
const BEHIND_PROGRAM: &str = r"(?:\[[0-9]+\]: |: | \S+ \S+ (?:-|\[[^\]]*\]) )";
/// A shell that nobody can log in with.
const NO_LOGIN: &str = r"\bshell=(?:/usr)?/s?bin/(?:nologin|false)\b";

/// Messages of programs that change accounts; `said` makes a pattern of program and message.
fn account_messages(said: impl Fn(&str, &str) -> String) -> Vec<String> {
    vec![
        said("useradd", "new user: name="),
        said(
            "usermod",
            "add '[^']*' to (?:shadow )?group '(?:sudo|wheel|root|admin)'",
        ),
        said(
            "useradd",
            "add '[^']*' to (?:shadow )?group '(?:sudo|wheel|root|admin)'",
        ),
        said(
            "gpasswd",
            "user [^ ]+ added by [^ ]+ to group (?:sudo|wheel|root|admin)$",
        ),
    ]
}

/// What ClamAV writes of a file that it found something in.
const FOUND: &str = r"(?:ScanOnAccess: )?(?:/|instream|fd\[)[^\n]*: [A-Za-z][A-Za-z0-9_.+/-]*(?:\([0-9a-f]{32,64}:[0-9]+\))? FOUND\r?$";

/// Lines of syslog, in a file or as they are sent, of ClamAV's own logs, and of `audit.log` read as a file.
fn lines() -> Vec<Part> {
    const KINDS: &[&str] = &["file", "syslog"];
    let said = |program: &str, message: &str| {
        format!("{BEFORE_PROGRAM}{program}{BEHIND_PROGRAM}{message}")
    };
    let part = |name, signs, matches, unless: &[&str]| Part {
        name,
        kinds: KINDS,
        signs,
        matches,
        requires: Vec::new(),
        unless: owned(unless),
    };
    let sudo = r"\s*[^ ]+ : .*COMMAND=(?:[^ ]*/)?auditctl (?:.* )?(?:-D|-e 0)(?: |$)";
    vec![
        part(
            "audit-off",
            &[
                "type=CONFIG_CHANGE",
                "type=DAEMON_",
                "auditctl",
                "The audit daemon is exiting",
                "Security Auditing Service",
            ],
            [
                AUDIT_OFF.map(|text| text.replacen('^', r"\A", 1)).to_vec(),
                vec![
                    said("sudo", sudo),
                    said("auditd", r"The audit daemon is exiting\."),
                    said(
                        "systemd",
                        r"(?:Stopped|Stopping) (?:auditd\.service - )?Security Auditing Service",
                    ),
                ],
            ]
            .concat(),
            &[],
        ),
        part(
            "malware-found",
            &[" FOUND"],
            vec![
                said("clam(?:d|scan|onacc|av-[a-z]+)", FOUND),
                format!(
                    r"\A(?:[A-Z][a-z]{{2}} [A-Z][a-z]{{2}} [ 0-9][0-9] [0-9:]{{8}} [0-9]{{4}} -> )?{FOUND}"
                ),
            ],
            &[],
        ),
        part(
            "accounts",
            &["useradd", "usermod", "gpasswd"],
            account_messages(said),
            &[NO_LOGIN],
        ),
    ]
}

/// Entries of the journal in its export format: a field a line. Fields with a leading underscore are the journal's own word.
fn journal() -> Vec<Part> {
    let part = |name, signs, program: &str, matches: &[String], unless: &[&str]| Part {
        name,
        kinds: &["journald"],
        signs,
        matches: matches.to_vec(),
        requires: vec![format!("^_COMM=(?:{program})$")],
        unless: owned(unless),
    };
    let message = |text: &str| format!("^MESSAGE={text}");
    let accounts = account_messages(|_, text| message(text));
    vec![
        part(
            "audit-off",
            &["The audit daemon is exiting"],
            "auditd",
            &[message(r"The audit daemon is exiting\.")],
            &[],
        ),
        part(
            "audit-off",
            &["Security Auditing Service"],
            "systemd",
            &[message(
                r"(?:Stopped|Stopping) (?:auditd\.service - )?Security Auditing Service",
            )],
            &[],
        ),
        part(
            "malware-found",
            &[" FOUND"],
            "clam(?:d|scan|onacc)",
            &[message(&format!("(?:[A-Z][A-Za-z0-9: ]* -> )?{FOUND}"))],
            &[],
        ),
        part(
            "accounts",
            &["_COMM=useradd", "_COMM=usermod", "_COMM=gpasswd"],
            "useradd|usermod|gpasswd",
            &accounts,
            &[NO_LOGIN],
        ),
    ]
}
