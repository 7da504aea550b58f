//! Very many files, few descriptors.

use super::*;

impl Host {
    /// Files that grow, rotate and grow, `files` of them.
    fn rotate_many(&mut self, files: usize) {
        let name = |n: usize| format!("{n}.log");
        for round in 0..3 {
            for n in 0..files {
                self.append(&name(n), format!("{n} {round} before\n"));
            }
            if round != 1 {
                self.turns(2);
            }
            for n in 0..files {
                self.append(&name(n), format!("{n} {round} late\n"));
                if round == 1 && n == 0 {
                    // What was never looked at before it was removed nobody can read.
                    self.turn();
                }
                if round > 0 {
                    fs::remove_file(self.path(&format!("{n}.log.1"))).unwrap();
                }
                self.rename(&name(n), &format!("{n}.log.1"));
            }
        }
        for n in 0..files {
            self.append(&name(n), format!("{n} 3 end\n"));
        }
        self.turns(4);
    }

    #[track_caller]
    fn expect_many(&self, files: usize) {
        assert_eq!(self.reasons(), [""; 0]);
        let mut seen: HashMap<usize, Vec<String>> = HashMap::new();
        for body in self.bodies() {
            let (file, rest) = body.split_once(' ').unwrap();
            seen.entry(file.parse().unwrap())
                .or_default()
                .push(rest.to_owned());
        }
        let expected = [
            "0 before", "0 late", "1 before", "1 late", "2 before", "2 late", "3 end",
        ];
        for file in 0..files {
            assert_eq!(seen[&file], expected, "file {file}");
        }
    }
}

/// TAILING 28.
#[test]
fn ten_thousand_rotating_files_are_exact() {
    let mut host = Host::running(&["*.log"]);
    // All are looked at, and nothing is read twice, when they appear at once and again when all of them move at once.
    let files = 10_000;
    for n in 0..files {
        host.append(&format!("{n}.log"), format!("{n} 0 before\n"));
    }
    host.turns(2);
    for n in 0..files {
        host.append(&format!("{n}.log"), format!("{n} 0 late\n"));
        host.rename(&format!("{n}.log"), &format!("{n}.log.1"));
        host.append(&format!("{n}.log"), format!("{n} 1 before\n"));
    }
    host.turns(2);
    assert_eq!(host.reasons(), [""; 0]);
    assert_eq!(host.records().len(), 3 * files);
    let mut last: HashMap<String, String> = HashMap::new();
    for body in host.bodies() {
        let (file, rest) = body.split_once(' ').unwrap();
        let before = last.insert(file.to_owned(), rest.to_owned());
        let expected = match rest {
            "0 before" => None,
            "0 late" => Some("0 before".to_owned()),
            _ => Some("0 late".to_owned()),
        };
        assert_eq!(before, expected, "{body}");
    }
    let open = host.running_source().tails.values();
    assert!(open.filter(|tail| tail.handle.is_some()).count() <= MAX_OPEN);
}

/// TAILING 28.
#[test]
fn files_beyond_what_may_be_open_are_exact() {
    let mut host = Host::running(&["*.log"]);
    host.max_open = Some(8);
    host.restart();
    host.rotate_many(60);
    host.expect_many(60);
}

/// TAILING 28. The test runs itself again in a process of its own, which may have few descriptors.
#[test]
fn more_files_than_descriptors_are_exact() {
    const CHILD: &str = "WATCHLINE_TEST_FEW_DESCRIPTORS";
    if std::env::var_os(CHILD).is_none() {
        let name = "sources::file::tests::scale::more_files_than_descriptors_are_exact";
        let child = std::process::Command::new(std::env::current_exe().unwrap())
            .args(["--exact", name, "--test-threads=1"])
            .env(CHILD, "1")
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&child.stdout);
        assert!(
            child.status.success() && said.contains("1 passed"),
            "{said}"
        );
        return;
    }
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile);
    let few = rustix::process::Rlimit {
        current: Some(40),
        ..limit
    };
    rustix::process::setrlimit(rustix::process::Resource::Nofile, few).unwrap();
    let mut host = Host::running(&["*.log"]);
    host.rotate_many(300);
    host.expect_many(300);
}
