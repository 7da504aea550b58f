//! Each sign with records as they really look, and with those that must stay quiet.

use super::*;
use crate::lanes::{Lanes, Matcher};

fn lanes() -> Lanes {
    let kinds = ["file", "syslog", "journald", "audit", "evtx"];
    let sources: Vec<(&str, &str)> = kinds.iter().map(|&kind| (kind, kind)).collect();
    Lanes::new(rules(&sources, &[]))
}

/// The rule that matches a record of a source of this kind.
fn found<'a>(lanes: &'a Lanes, kind: &str, record: &str) -> Option<&'a str> {
    let matcher = lanes.matcher(kind).unwrap();
    let by_itself = matcher.rule(record.as_bytes(), 0);
    if !record.contains('\n') {
        assert_eq!(in_block(&matcher, record), by_itself, "{record}");
    }
    by_itself.map(|rule| lanes.name(rule))
}

/// What a line among others gives.
fn in_block(matcher: &Matcher, record: &str) -> Option<crate::lanes::RuleNo> {
    let before = "Nov 23 09:15:01 web-1 CRON[7]: (root) CMD (true)\n";
    let block = format!("{before}{record}\n{before}");
    let mut starts = Vec::new();
    matcher.suspects(block.as_bytes(), &mut starts);
    let is_suspect = starts.contains(&before.len());
    is_suspect.then(|| matcher.rule(record.as_bytes(), 0))?
}

fn all(kind: &str, rule: Option<&str>, records: &[&str]) {
    let lanes = lanes();
    for record in records {
        assert_eq!(found(&lanes, kind, record), rule, "{kind}: {record}");
    }
}

/// A Windows event in the three forms that an event id comes in.
fn windows_event(id: u32, channel: &str, provider: &str, data: &str) -> [String; 3] {
    let event = |id: &str| {
        format!(
            r##"{{"Event":{{"System":{{"Provider":{{"#attributes":{{"Name":"{provider}"}}}},"EventID":{id},"Version":0,"Channel":"{channel}","Computer":"WS-1"}},"EventData":{{{data}}}}}}}"##
        )
    };
    [
        event(&id.to_string()),
        event(&format!(
            r##"{{"#attributes":{{"Qualifiers":0}},"#text":{id}}}"##
        )),
        // Members in another order.
        format!(
            r##"{{"Event":{{"EventData":{{{data}}},"System":{{"Channel":"{channel}","Computer":"WS-1","EventID":{id},"Provider":{{"#attributes":{{"Name":"{provider}"}}}}}}}}}}"##
        ),
    ]
}

fn windows(rule: Option<&str>, id: u32, channel: &str, provider: &str, data: &str) {
    let lanes = lanes();
    for event in windows_event(id, channel, provider, data) {
        assert_eq!(found(&lanes, "evtx", &event), rule, "{event}");
    }
}

const AUDITING: &str = "Microsoft-Windows-Security-Auditing";
const EVENTLOG: &str = "Microsoft-Windows-Eventlog";
const DEFENDER: &str = "Microsoft-Windows-Windows Defender";
const DEFENDER_LOG: &str = "Microsoft-Windows-Windows Defender/Operational";

#[test]
fn a_cleared_windows_log_is_an_alert() {
    for id in [1102, 517] {
        windows(Some("logs-cleared"), id, "Security", EVENTLOG, "");
    }
    windows(Some("logs-cleared"), 104, "System", EVENTLOG, "");
}

#[test]
fn the_same_numbers_elsewhere_are_no_cleared_log() {
    windows(None, 1102, "Application", "SomeApp", "");
    windows(None, 11020, "Security", EVENTLOG, "");
    windows(None, 104, "System", "Some-Driver", "");
    windows(
        None,
        4624,
        "Security",
        AUDITING,
        r#""ProcessId":"1102","LogonType":3"#,
    );
    // A value that imitates a member: its quotation marks are escaped.
    let data = r#""CommandLine":"echo {\"EventID\":1102}","Channel2":"\"Channel\":\"Security\"""#;
    windows(None, 4689, "Security", AUDITING, data);
}

#[test]
fn malware_and_its_protection_off_are_alerts_and_a_scan_is_none() {
    for id in [1006, 1015, 1116, 1117, 1118, 1119] {
        windows(Some("malware-found"), id, DEFENDER_LOG, DEFENDER, "");
    }
    for id in [5001, 5010, 5012] {
        windows(Some("protection-off"), id, DEFENDER_LOG, DEFENDER, "");
    }
    for id in [1000, 1001, 1150, 2000, 5007] {
        windows(None, id, DEFENDER_LOG, DEFENDER, "");
    }
    windows(None, 5001, "Application", "SomeApp", "");
}

#[test]
fn what_clamav_found_is_an_alert_and_a_found_page_is_none() {
    all(
        "file",
        Some("malware-found"),
        &[
            "/tmp/eicar.com: Win.Test.EICAR_HDB-1 FOUND",
            "/srv/up loads/a b.zip: Eicar-Signature FOUND",
            "Mon Nov 23 09:15:02 2026 -> /tmp/eicar.com: Win.Test.EICAR_HDB-1(44d88612fea8a8f36de82e1278abb02f:68) FOUND",
            "Mon Nov 23 09:15:02 2026 -> ScanOnAccess: /home/eve/x: Unix.Trojan.Mirai-1 FOUND",
            "Mon Nov 23 09:15:02 2026 -> instream(127.0.0.1@53822): Eicar-Signature FOUND",
            "Nov 23 09:15:02 mail clamd[812]: /var/spool/x: Eicar-Signature FOUND",
        ],
    );
    all(
        "syslog",
        Some("malware-found"),
        &["<22>Nov 23 09:15:02 mail clamd[812]: /var/spool/x: Eicar-Signature FOUND"],
    );
    all(
        "journald",
        Some("malware-found"),
        &["__CURSOR=s=1\n_COMM=clamd\nMESSAGE=/tmp/x: Eicar-Signature FOUND\n"],
    );
    all(
        "file",
        None,
        &[
            "10.0.0.7 - - [23/Nov/2026:09:15:02 +0000] \"GET /: Eicar FOUND HTTP/1.1\" 302 5 \"-\" \": X FOUND",
            "/tmp/readme.txt: OK",
            "Mon Nov 23 09:15:02 2026 -> SelfCheck: Database status OK.",
            "Infected files: 0",
            "lost+found: NOT FOUND",
            "Nov 23 09:15:02 web-1 app[7]: user /x: Name FOUND",
        ],
    );
    all(
        "journald",
        None,
        &["_COMM=nginx\nMESSAGE=/tmp/x: Eicar-Signature FOUND\n"],
    );
}

#[test]
fn getting_ready_to_encrypt_is_an_alert() {
    for command in [
        r"vssadmin.exe Delete Shadows /All /Quiet",
        r"C:\\Windows\\System32\\vssadmin.exe delete shadows /for=C: /oldest",
        r"cmd.exe /c vssadmin resize shadowstorage /for=C: /on=C: /maxsize=401MB",
        r#"\"C:\\Windows\\system32\\vssadmin.exe\" delete shadows /all"#,
        r"wmic shadowcopy delete",
        r"WMIC.exe /node:host shadowcopy where ID='{x}' delete /nointeractive",
        r"wbadmin DELETE SYSTEMSTATEBACKUP -keepVersions:0",
        r"wbadmin delete catalog -quiet",
        r"bcdedit /set {default} recoveryenabled No",
        r"bcdedit.exe /set {default} bootstatuspolicy ignoreallfailures",
        r"powershell.exe Get-WmiObject Win32_Shadowcopy | ForEach-Object {$_.Delete();}",
        r"powershell -c gwmi Win32_ShadowCopy | Remove-WmiObject",
        r"pwsh -c Remove-CimInstance -Query 'select * from Win32_ShadowCopy'",
    ] {
        let data = format!(r#""NewProcessName":"C:\\x.exe","CommandLine":"{command}""#);
        let sysmon = "Microsoft-Windows-Sysmon";
        windows(
            Some("ransomware-preparation"),
            4688,
            "Security",
            AUDITING,
            &data,
        );
        windows(
            Some("ransomware-preparation"),
            1,
            "Microsoft-Windows-Sysmon/Operational",
            sysmon,
            &data,
        );
        windows(None, 4689, "Security", AUDITING, &data);
        windows(
            None,
            11,
            "Microsoft-Windows-Sysmon/Operational",
            sysmon,
            &data,
        );
    }
}

#[test]
fn looking_at_backups_and_making_them_is_no_alert() {
    for command in [
        r"vssadmin list shadows",
        r"vssadmin.exe create shadow /for=C:",
        r"wmic shadowcopy list brief",
        r"wmic process where name='x' delete",
        r"wbadmin start backup -backupTarget:E:",
        r"wbadmin get versions",
        r"bcdedit /enum",
        r"bcdedit /set {default} recoveryenabled Yes",
        r"powershell Get-CimInstance Win32_ShadowCopy | Select-Object ID",
        r"notepad C:\\notes\\delete shadows.txt",
    ] {
        let data = format!(r#""CommandLine":"{command}""#);
        windows(None, 4688, "Security", AUDITING, &data);
    }
}

#[test]
fn a_new_account_and_a_new_administrator_are_alerts_in_windows() {
    windows(
        Some("accounts"),
        4720,
        "Security",
        AUDITING,
        r#""TargetUserName":"eve""#,
    );
    let domain_admins = r#""TargetUserName":"Domänen-Admins","TargetSid":"S-1-5-21-1-22-333-512""#;
    windows(Some("accounts"), 4728, "Security", AUDITING, domain_admins);
    let administrators = r#""TargetUserName":"Administrateurs","TargetSid":"S-1-5-32-544""#;
    windows(Some("accounts"), 4732, "Security", AUDITING, administrators);
    windows(
        None,
        4732,
        "Security",
        AUDITING,
        r#""TargetUserName":"Print Operators","TargetSid":"S-1-5-32-550""#,
    );
    windows(
        None,
        4728,
        "Security",
        AUDITING,
        r#""TargetUserName":"Sales","TargetSid":"S-1-5-21-1-22-333-1512""#,
    );
    windows(
        None,
        4722,
        "Security",
        AUDITING,
        r#""TargetUserName":"eve""#,
    );
}

#[test]
fn a_new_account_and_a_new_administrator_are_alerts_in_lines() {
    let new =
        "new user: name=eve, UID=1001, GID=1001, home=/home/eve, shell=/bin/bash, from=/dev/pts/0";
    let lines = [
        format!("Nov 23 09:15:02 web-1 useradd[4711]: {new}"),
        format!("2026-11-23T09:15:02.123456+01:00 web-1 useradd[4711]: {new}"),
        "Nov  3 09:15:02 web-1 usermod[4712]: add 'eve' to group 'sudo'".to_owned(),
        "Nov  3 09:15:02 web-1 usermod[4712]: add 'eve' to shadow group 'wheel'".to_owned(),
        "Nov  3 09:15:02 web-1 gpasswd[4712]: user eve added by root to group sudo".to_owned(),
    ];
    for line in &lines {
        all("file", Some("accounts"), &[line]);
        all("syslog", Some("accounts"), &[line, &format!("<86>{line}")]);
    }
    all(
        "syslog",
        Some("accounts"),
        &[&format!(
            "<86>1 2026-11-23T09:15:02Z web-1 useradd 4711 - - {new}"
        )],
    );
    all(
        "syslog",
        Some("accounts"),
        &[&format!("<86>Nov 23 09:15:02 useradd[4711]: {new}")],
    );
    all(
        "journald",
        Some("accounts"),
        &[&format!("_COMM=useradd\nMESSAGE={new}\nPRIORITY=6\n")],
    );
    all(
        "journald",
        Some("accounts"),
        &["MESSAGE=add 'eve' to group 'sudo'\n_COMM=usermod\n"],
    );
}

#[test]
fn accounts_in_other_peoples_words_and_in_package_upgrades_are_no_alerts() {
    let new = "new user: name=eve, UID=1001, GID=1001, home=/home/eve, shell=/bin/bash";
    let package = "new user: name=postfix, UID=112, GID=118, home=/var/spool/postfix, shell=/usr/sbin/nologin, from=none";
    for kind in ["file", "syslog"] {
        all(
            kind,
            None,
            &[
                &format!(
                    "10.0.0.7 - - [23/Nov/2026:09:15:02 +0000] \"GET /useradd[1]:{new} HTTP/1.1\" 404 5"
                ),
                &format!("Nov 23 09:15:02 web-1 nginx[7]: useradd[4711]: {new}"),
                &format!("Nov 23 09:15:02 web-1 app: Nov 23 09:15:02 web-1 useradd[4711]: {new}"),
                &format!("Nov 23 09:15:02 web-1 useradd[4711]: {package}"),
                "Nov 23 09:15:02 web-1 useradd[4711]: new group: name=eve, GID=1001",
                "Nov 23 09:15:02 web-1 usermod[4712]: add 'www-data' to group 'ssl-cert'",
                "Nov 23 09:15:02 web-1 groupadd[4712]: new group: name=sudo, GID=27",
                "Nov 23 09:15:02 web-1 sudo:  admin : TTY=pts/0 ; PWD=/root ; USER=root ; COMMAND=/usr/bin/man useradd",
            ],
        );
    }
    all(
        "journald",
        None,
        &[&format!("_COMM=nginx\nMESSAGE={new}\n")],
    );
    all(
        "journald",
        None,
        &[&format!("_COMM=useradd\nMESSAGE={package}\n")],
    );
}

/// One audit event of a system call with a path.
fn audit_event(call: &str, exe: &str, cwd: &str, name: &str, nametype: &str) -> String {
    let stamp = "msg=audit(1795425302.123:4711):";
    format!(
        "type=SYSCALL {stamp} arch=c000003e {call} items=2 ppid=1 pid=2 auid=1000 uid=0 gid=0 euid=0 tty=pts0 ses=3 comm=\"x\" exe=\"{exe}\" subj=unconfined key=\"logs\"\n\
         type=CWD {stamp} cwd=\"{cwd}\"\n\
         type=PATH {stamp} item=0 name=\"/var/log\" inode=5 dev=fe:01 mode=040755 ouid=0 ogid=0 rdev=00:00 nametype=PARENT cap_fp=0\n\
         type=PATH {stamp} item=1 name={name} inode=6 dev=fe:01 mode=0100640 ouid=0 ogid=4 rdev=00:00 nametype={nametype} cap_fp=0\n\
         type=PROCTITLE {stamp} proctitle=726D"
    )
}

const UNLINK: &str = "syscall=263 success=yes exit=0 a0=ffffff9c a1=55d0 a2=0 a3=0";
const OPEN_TRUNCATING: &str = "syscall=257 success=yes exit=3 a0=ffffff9c a1=55d0 a2=241 a3=1b6";
const OPEN_APPENDING: &str = "syscall=257 success=yes exit=3 a0=ffffff9c a1=55d0 a2=441 a3=1b6";

#[test]
fn a_log_removed_or_truncated_by_hand_is_an_alert() {
    let log = r#""/var/log/auth.log""#;
    all(
        "audit",
        Some("logs-cleared"),
        &[
            &audit_event(UNLINK, "/usr/bin/rm", "/root", log, "DELETE"),
            &audit_event(UNLINK, "/usr/bin/rm", "/var/log", r#""auth.log""#, "DELETE"),
            &audit_event(
                UNLINK,
                "/usr/bin/rm",
                "/root",
                "2F7661722F6C6F672F612062",
                "DELETE",
            ),
            &audit_event(OPEN_TRUNCATING, "/usr/bin/dash", "/root", log, "NORMAL"),
            &audit_event(
                OPEN_TRUNCATING,
                "/usr/bin/bash",
                "/var/log",
                r#""wtmp""#,
                "NORMAL",
            ),
            &audit_event(
                "syscall=2 success=yes exit=3 a0=55d0 a1=201 a2=0 a3=0",
                "/usr/bin/cp",
                "/root",
                log,
                "NORMAL",
            ),
            &audit_event(
                "syscall=76 success=yes exit=0 a0=55d0 a1=0 a2=0 a3=0",
                "/tmp/wipe",
                "/root",
                log,
                "NORMAL",
            ),
            &audit_event(UNLINK, "/usr/bin/rm", "/root", log, "DELETE")
                .replace("type=SYSCALL", "node=web-1 type=SYSCALL")
                .replace("type=PATH", "node=web-1 type=PATH"),
            // A program that calls itself as the rotation does.
            &audit_event(UNLINK, "/tmp/logrotate", "/root", log, "DELETE"),
        ],
    );
}

#[test]
fn rotation_and_package_upgrades_clear_no_logs() {
    let log = r#""/var/log/auth.log.4.gz""#;
    all(
        "audit",
        None,
        &[
            &audit_event(UNLINK, "/usr/sbin/logrotate", "/", log, "DELETE"),
            &audit_event(
                UNLINK,
                "/usr/bin/gzip",
                "/var/log",
                r#""syslog.1""#,
                "DELETE",
            ),
            &audit_event(
                OPEN_TRUNCATING,
                "/usr/sbin/logrotate",
                "/",
                r#""/var/log/app.log""#,
                "NORMAL",
            ),
            &audit_event(
                UNLINK,
                "/usr/lib/systemd/systemd-journald",
                "/",
                r#""/var/log/journal/1/x.journal""#,
                "DELETE",
            ),
            &audit_event(
                OPEN_TRUNCATING,
                "/usr/bin/dpkg",
                "/",
                r#""/var/log/alternatives.log""#,
                "NORMAL",
            ),
            &audit_event(
                OPEN_APPENDING,
                "/usr/sbin/sshd",
                "/",
                r#""/var/log/auth.log""#,
                "NORMAL",
            ),
            &audit_event(
                OPEN_TRUNCATING,
                "/usr/bin/vim",
                "/root",
                r#""/var/log/notes""#,
                "CREATE",
            ),
            &audit_event(UNLINK, "/usr/bin/rm", "/root", r#""/tmp/x""#, "DELETE")
                .replace("name=\"/var/log\"", "name=\"/tmp\""),
            &audit_event(
                &UNLINK.replace("success=yes", "success=no"),
                "/usr/bin/rm",
                "/root",
                log,
                "DELETE",
            ),
        ],
    );
}

#[test]
fn auditing_switched_off_is_an_alert() {
    let records = [
        r#"type=CONFIG_CHANGE msg=audit(1795425302.123:11): auid=1000 ses=3 op=remove_rule key="logs" list=4 res=1"#,
        "type=CONFIG_CHANGE msg=audit(1795425302.123:12): op=set audit_enabled=0 old=1 auid=1000 ses=3 res=1",
        "type=CONFIG_CHANGE msg=audit(1795425302.123:13): op=set audit_pid=0 old=812 auid=4294967295 ses=4294967295 res=1",
        "type=DAEMON_END msg=audit(1795425302.123:14): op=terminate auid=0 uid=0 ses=3 pid=99 subj=unconfined res=success",
        "type=DAEMON_ABORT msg=audit(1795425302.123:15): op=error-halt auid=0 pid=99 res=failed",
    ];
    all("audit", Some("audit-off"), &records);
    let of_a_host = records.map(|record| format!("node=web-1 {record}"));
    all(
        "file",
        Some("audit-off"),
        &of_a_host.each_ref().map(String::as_str),
    );
    all("file", Some("audit-off"), &records);
    all(
        "audit",
        Some("audit-off"),
        &[
            "type=SYSCALL msg=audit(1.2:3): arch=c000003e syscall=59 success=yes exe=\"/usr/sbin/auditctl\"\ntype=EXECVE msg=audit(1.2:3): argc=2 a0=\"auditctl\" a1=\"-D\"",
            "type=EXECVE msg=audit(1.2:3): argc=3 a0=\"/sbin/auditctl\" a1=\"-e\" a2=\"0\"",
        ],
    );
    all(
        "syslog",
        Some("audit-off"),
        &[
            "<86>Nov 23 09:15:02 web-1 sudo:     eve : TTY=pts/0 ; PWD=/home/eve ; USER=root ; COMMAND=/usr/sbin/auditctl -D",
            "<86>Nov 23 09:15:02 web-1 sudo[7]:     eve : TTY=pts/0 ; PWD=/ ; USER=root ; COMMAND=/sbin/auditctl -e 0",
            "<29>Nov 23 09:15:02 web-1 auditd[812]: The audit daemon is exiting.",
            "<30>Nov 23 09:15:02 web-1 systemd[1]: Stopped auditd.service - Security Auditing Service.",
        ],
    );
    all(
        "journald",
        Some("audit-off"),
        &[
            "MESSAGE=Stopped auditd.service - Security Auditing Service.\n_COMM=systemd\n",
            "_COMM=auditd\nMESSAGE=The audit daemon is exiting.\n",
        ],
    );
}

#[test]
fn auditing_switched_on_or_looked_at_is_no_alert() {
    all(
        "audit",
        None,
        &[
            r#"type=CONFIG_CHANGE msg=audit(1.2:3): auid=1000 ses=3 op=add_rule key="logs" list=4 res=1"#,
            "type=CONFIG_CHANGE msg=audit(1.2:3): op=set audit_enabled=1 old=0 auid=1000 ses=3 res=1",
            "type=CONFIG_CHANGE msg=audit(1.2:3): op=set audit_backlog_limit=8192 old=64 auid=1000 ses=3 res=1",
            "type=DAEMON_START msg=audit(1.2:3): op=start ver=3.0.9 format=enriched res=success",
            "type=DAEMON_ROTATE msg=audit(1.2:3): op=rotate-logs auid=0 pid=99 res=success",
            "type=EXECVE msg=audit(1.2:3): argc=2 a0=\"auditctl\" a1=\"-l\"",
            "type=EXECVE msg=audit(1.2:3): argc=3 a0=\"auditctl\" a1=\"-e\" a2=\"1\"",
            "type=EXECVE msg=audit(1.2:3): argc=3 a0=\"grep\" a1=\"auditctl\" a2=\"-D\"",
        ],
    );
    all(
        "file",
        None,
        &[
            "Nov 23 09:15:02 web-1 systemd[1]: Started auditd.service - Security Auditing Service.",
            "Nov 23 09:15:02 web-1 app[7]: systemd[1]: Stopped Security Auditing Service",
            "GET /?q=type=CONFIG_CHANGE msg=audit(1.2:3): op=remove_rule",
            "Nov 23 09:15:02 web-1 sudo:     eve : TTY=pts/0 ; PWD=/ ; USER=root ; COMMAND=/sbin/auditctl -l",
        ],
    );
}

#[test]
fn accounts_are_alerts_in_audit_events_too() {
    all(
        "audit",
        Some("accounts"),
        &[
            "type=ADD_USER msg=audit(1.2:3): pid=7 uid=0 auid=1000 ses=3 msg='op=adding user acct=\"eve\" exe=\"/usr/sbin/useradd\" hostname=web-1 res=success'",
            "type=USER_MGMT msg=audit(1.2:3): pid=7 uid=0 msg='op=add-user-to-group grp=\"wheel\" acct=\"eve\" exe=\"/usr/sbin/usermod\" res=success'",
            "type=EXECVE msg=audit(1.2:3): argc=4 a0=\"usermod\" a1=\"-aG\" a2=\"sudo\" a3=\"eve\"",
            "type=EXECVE msg=audit(1.2:3): argc=4 a0=\"/usr/sbin/usermod\" a1=\"-a\" a2=\"-G\" a3=\"video,sudo\" a4=\"eve\"",
            "type=EXECVE msg=audit(1.2:3): argc=4 a0=\"gpasswd\" a1=\"-a\" a2=\"eve\" a3=\"sudo\"",
        ],
    );
    all(
        "audit",
        None,
        &[
            "type=ADD_USER msg=audit(1.2:3): pid=7 uid=0 msg='op=adding user acct=\"eve\" exe=\"/usr/sbin/useradd\" res=failed'",
            "type=ADD_GROUP msg=audit(1.2:3): pid=7 uid=0 msg='op=add-group acct=\"eve\" exe=\"/usr/sbin/groupadd\" res=success'",
            "type=EXECVE msg=audit(1.2:3): argc=4 a0=\"usermod\" a1=\"-aG\" a2=\"audio\" a3=\"eve\"",
            "type=USER_AUTH msg=audit(1.2:3): pid=7 uid=0 msg='op=PAM:authentication acct=\"useradd\" res=success'",
        ],
    );
}

#[test]
fn rotation_and_package_upgrades_stay_quiet_in_lines() {
    all(
        "file",
        None,
        &[
            "Nov 23 00:00:01 web-1 systemd[1]: Starting logrotate.service - Rotate log files...",
            "Nov 23 00:00:01 web-1 systemd[1]: logrotate.service: Deactivated successfully.",
            "Nov 23 00:00:01 web-1 rsyslogd: [origin software=\"rsyslogd\"] rsyslogd was HUPed",
            "2026-11-23 06:12:03 upgrade passwd:amd64 1:4.13+dfsg1-1 1:4.13+dfsg1-1+b1",
            "2026-11-23 06:12:03 status installed clamav-freshclam:amd64 1.0.5",
            "Commandline: /usr/bin/unattended-upgrade",
            "Nov 23 06:12:03 web-1 groupadd[900]: new group: name=_chrony, GID=119",
            "Nov 23 06:12:03 web-1 useradd[901]: new user: name=_chrony, UID=113, GID=119, home=/var/lib/chrony, shell=/usr/sbin/nologin, from=none",
            "Nov 23 06:12:03 web-1 chage[902]: changed password expiry for _chrony",
        ],
    );
}

#[test]
fn every_pattern_compiles_and_its_signs_cover_it() {
    let kinds = ["file", "syslog", "journald", "audit", "evtx"];
    let sources: Vec<(&str, &str)> = kinds.iter().map(|&kind| (kind, kind)).collect();
    let all = rules(&sources, &[]);
    for rule in &all {
        assert!(NAMES.contains(&rule.name.as_str()));
        assert!(!rule.signs.is_empty() && !rule.matches.is_empty());
        for text in rule
            .matches
            .iter()
            .chain(&rule.requires)
            .chain(&rule.unless)
        {
            crate::patterns::check_pattern(text).unwrap();
        }
    }
    assert!(rules(&[], &[]).is_empty());
    let without = rules(&sources, &["accounts"]);
    assert!(without.iter().all(|rule| rule.name != "accounts"));
    assert!(
        NAMES
            .iter()
            .all(|name| all.iter().any(|rule| rule.name == *name))
    );
}

/// Not held to a time: it prints what a line without any sign costs.
#[test]
fn a_line_without_a_sign_costs_one_search() {
    let lanes = lanes();
    let matcher = lanes.matcher("file").unwrap();
    let line = "Nov 23 09:15:02 web-1 sshd[24200]: Failed password for invalid user webmaster from 173.234.31.186 port 38926 ssh2; \
                pam_unix(sshd:auth): authentication failure; logname= uid=0 euid=0 tty=ssh ruser= rhost=173.234.31.186 and so on\n";
    let block = line.repeat(1200);
    let mut starts = Vec::new();
    let rounds: u32 = 20;
    let since = std::time::Instant::now();
    for _ in 0..rounds {
        matcher.suspects(block.as_bytes(), &mut starts);
        assert!(starts.is_empty());
    }
    let each = since.elapsed() / (rounds * 1200);
    println!(
        "{} bytes a line, built-in rules: {each:?} a line",
        line.len()
    );
}
