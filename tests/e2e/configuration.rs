//! Wrong configurations, and changed ones.

use std::{ffi::OsStr, fs, path::Path};

use anyhow::{Context, Result, ensure};
use e2e::{Lab, Line, Role, Writer, lab::AGENCY, process::Program, waiting::wait_until};
use rustix::process::Signal;

/// `file:line:column: message`, parsed; the rest of the line is the message.
fn places(file: &str, stderr: &str) -> Vec<(usize, usize, String)> {
    stderr
        .lines()
        .filter_map(|line| {
            let mut parts = line.strip_prefix(file)?.strip_prefix(':')?.splitn(3, ':');
            let line = parts.next()?.parse().ok()?;
            let column = parts.next()?.parse().ok()?;
            Some((line, column, parts.next()?.trim().to_owned()))
        })
        .collect()
}

#[test]
fn check_reports_every_problem_of_a_forwarder_configuration_with_its_place_and_exits_with_2()
-> Result<()> {
    Lab::run(|lab| {
        let file = lab.path("bad.toml");
        fs::write(
            &file,
            "[identity]\n\
             certificate = \"a.pem\"\n\
             private_key = 7\n\
             trust_anchors = \"ca.pem\"\n\
             [uplink]\n\
             collectors = [\"http://127.0.0.1:7443\"]\n\
             heartbeat = \"5 parsecs\"\n\
             [spool]\n\
             directory = \"spool\"\n\
             when_ful = \"block\"\n\
             max_size = \"1 GiB and a bit\"\n\
             [[source]]\n\
             name = \"auth\"\n\
             kind = \"fiel\"\n\
             paths = [\"/var/log/auth.log\"]\n\
             start_at = \"middle\"\n",
        )?;
        let name = file.to_str().context("path")?;
        for arguments in [["check", "--config", name], ["run", "--config", name]] {
            let finished = Program::Forwarder.run(arguments)?.expect_code(2)?;
            let found = places(name, &finished.stderr);
            for (line, key) in [
                (3, "private_key"),
                (6, "collectors"),
                (7, "heartbeat"),
                (10, "when_full"),
                (11, "max_size"),
                (14, "kind"),
            ] {
                ensure!(
                    found.iter().any(|(at, column, message)| *at == line
                        && *column > 0
                        && message.contains(key)),
                    "no problem at line {line} that names {key}:\n{}",
                    finished.stderr
                );
            }
        }
        Ok(())
    })
}

#[test]
fn check_reports_every_problem_of_a_collector_configuration_with_its_place_and_exits_with_2()
-> Result<()> {
    Lab::run(|lab| {
        let file = lab.path("bad.toml");
        fs::write(
            &file,
            "[identity]\n\
             certificate = \"a.pem\"\n\
             private_key = \"a.key\"\n\
             trust_anchors = \"ca.pem\"\n\
             [ingest]\n\
             listen = \"not an address\"\n\
             [buffer]\n\
             kind = \"paper\"\n\
             directory = \"buffer\"\n\
             [[output]]\n\
             name = \"events\"\n\
             kind = \"file\"\n\
             path = \"events.ndjson\"\n\
             format = \"xml\"\n\
             [[output]]\n\
             name = \"center\"\n\
             kind = \"upstream\"\n\
             endpoints = []\n",
        )?;
        let name = file.to_str().context("path")?;
        let finished = Program::Collector
            .run(["check", "--config", name])?
            .expect_code(2)?;
        let found = places(name, &finished.stderr);
        for (line, key) in [
            (6, "listen"),
            (8, "kind"),
            (14, "format"),
            (18, "endpoints"),
        ] {
            ensure!(
                found.iter().any(|(at, column, message)| *at == line
                    && *column > 0
                    && message.contains(key)),
                "no problem at line {line} that names {key}:\n{}",
                finished.stderr
            );
        }
        Ok(())
    })
}

#[test]
fn a_configuration_that_is_not_toml_or_not_there_is_one_clear_line_and_exit_code_2() -> Result<()> {
    Lab::run(|lab| {
        let file = lab.path("bad.toml");
        fs::write(&file, "[identity\n")?;
        let name = file.to_str().context("path")?;
        for program in [Program::Forwarder, Program::Collector] {
            let finished = program.run(["check", "--config", name])?.expect_code(2)?;
            ensure!(
                places(name, &finished.stderr)
                    .iter()
                    .any(|(line, _, _)| *line == 1),
                "{}",
                finished.stderr
            );
            let absent = lab.path("absent.toml");
            let absent = absent.to_str().context("path")?;
            let finished = program.run(["run", "--config", absent])?.expect_code(2)?;
            ensure!(finished.stderr.contains(absent), "{}", finished.stderr);
        }
        Ok(())
    })
}

#[test]
fn check_accepts_what_run_accepts() -> Result<()> {
    Lab::run(|lab| {
        let mut line = Line::new(lab, &["app.log"])?;
        for node in line.nodes() {
            node.write_config()?;
            node.command(&["check"])?.expect_code(0)?;
        }
        Ok(())
    })
}

/// The samples of `deploy/` are what they say: only names and places are the reader's own.
#[test]
fn check_accepts_the_sample_configurations() -> Result<()> {
    Lab::run(|lab| {
        let deploy = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy");
        for (sample, program, role, name) in [
            (
                "forwarder.toml",
                Program::Forwarder,
                Role::Forwarder(AGENCY),
                "host-01",
            ),
            (
                "collector.toml",
                Program::Collector,
                Role::Collector(AGENCY),
                "collector-1",
            ),
            ("center.toml", Program::Collector, Role::Center, "center-1"),
        ] {
            let folder = lab.path(sample.trim_end_matches(".toml"));
            fs::create_dir(&folder)?;
            lab.issue("pki", role, name, &folder)?;
            fs::copy(lab.path("pki/crl.pem"), folder.join("crl.pem"))?;
            let file = folder.join(sample);
            fs::copy(deploy.join(sample), &file).with_context(|| format!("copy {sample}"))?;
            program
                .run([
                    OsStr::new("check"),
                    OsStr::new("--config"),
                    file.as_os_str(),
                ])?
                .expect_code(0)?;
        }
        Ok(())
    })
}

#[test]
fn a_reload_with_an_invalid_configuration_keeps_the_last_good_one_and_says_so() -> Result<()> {
    Lab::run(|lab| {
        let mut line = Line::new(lab, &["app.log"])?;
        line.start()?;
        let mut log = Writer::create(&lab.log("app.log"))?;
        log.append(b"before")?;
        line.wait_arrived(1)?;
        for node in line.nodes() {
            let good = fs::read_to_string(node.config_path())?;
            let succeeded = "watchline_config_last_reload_successful";
            ensure!(
                node.metric(succeeded, &[])? == 1.0,
                "{}",
                node.get("/metrics")?.body
            );
            fs::write(node.config_path(), format!("{good}\n[nonsense]\nkey = 1\n"))?;
            node.process()?.signal(Signal::HUP)?;
            wait_until("the reload to be refused", || {
                Ok(node.metric(succeeded, &[])? == 0.0)
            })?;
            fs::write(node.config_path(), good)?;
            node.process()?.signal(Signal::HUP)?;
            wait_until("the reload to succeed", || {
                Ok(node.metric(succeeded, &[])? == 1.0)
            })?;
        }
        log.append(b"after")?;
        line.finish_exact(&[&log])
    })
}

#[test]
fn a_reload_can_add_a_source_without_a_restart() -> Result<()> {
    Lab::run(|lab| {
        let mut line = Line::new(lab, &["app.log"])?;
        line.start()?;
        let mut app = Writer::create(&lab.log("app.log"))?;
        let mut other = Writer::create(&lab.log("other.log"))?;
        app.append(b"one")?;
        other.append(b"two")?;
        line.wait_arrived(1)?;
        line.forwarder.config.table("[[source]]");
        line.forwarder.config.set("[[source]]", "name", "other");
        line.forwarder.config.set("[[source]]", "kind", "file");
        line.forwarder
            .config
            .set("[[source]]", "paths", [lab.log("other.log")]);
        line.forwarder.write_config()?;
        line.forwarder.process()?.signal(Signal::HUP)?;
        line.finish_exact(&[&app, &other])
    })
}
