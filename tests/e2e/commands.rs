//! The commands and their exit codes.

use std::{ffi::OsStr, fs, net::TcpListener};

use anyhow::{Result, ensure};
use e2e::{Lab, Line, Writer, process::Program, waiting::wait_until};
use serde_json::Value;

#[test]
fn status_exits_with_0_when_ready_3_when_not_and_4_when_nobody_answers() -> Result<()> {
    Lab::run(|lab| {
        let mut line = Line::new(lab, &["app.log"])?;
        for node in line.nodes() {
            node.write_config()?;
            node.command(&["status"])?.expect_code(4)?;
        }
        line.forwarder.start()?;
        line.forwarder.wait_not_ready()?;
        line.forwarder.command(&["status"])?.expect_code(3)?;
        line.center.start_ready()?;
        line.collector.start_ready()?;
        line.wait_ready()?;
        let mut log = Writer::create(&lab.log("app.log"))?;
        log.append(b"one")?;
        line.wait_arrived(1)?;
        for node in line.nodes() {
            let table = node.command(&["status"])?.expect_code(0)?;
            ensure!(!table.stdout.is_empty(), "status prints nothing");
            let json = node.command(&["status", "--json"])?.expect_code(0)?;
            serde_json::from_str::<Value>(&json.stdout)?;
        }
        Ok(())
    })
}

#[test]
fn wrong_usage_exits_with_2_and_help_and_version_with_0() -> Result<()> {
    for program in [Program::Forwarder, Program::Collector] {
        program.run(["no-such-command"])?.expect_code(2)?;
        program.run(["run"])?.expect_code(2)?;
        for help in [
            ["--help"].as_slice(),
            &["run", "--help"],
            &["check", "--help"],
            &["status", "--help"],
        ] {
            let finished = program.run(help)?.expect_code(0)?;
            ensure!(finished.stdout.contains("Usage"), "{}", finished.stdout);
        }
        let version = program.run(["--version"])?.expect_code(0)?.stdout;
        ensure!(
            version.contains(env!("CARGO_PKG_VERSION")) && version.contains('('),
            "no commit in {version:?}"
        );
    }
    Ok(())
}

/// The lines that say what failed.
fn failures(stderr: &str) -> Vec<&str> {
    stderr
        .lines()
        .filter(|line| line.contains("ERROR"))
        .collect()
}

#[test]
fn a_second_process_on_one_spool_ends_with_one_clear_line_and_exit_code_1() -> Result<()> {
    Lab::run(|lab| {
        let mut line = Line::new(lab, &["app.log"])?;
        line.start()?;
        let finished = line.forwarder.command(&["run"])?.expect_code(1)?;
        let failures = failures(&finished.stderr);
        ensure!(
            failures.len() == 1 && failures[0].contains("spool"),
            "not one clear line:\n{}",
            finished.stderr
        );
        Ok(())
    })
}

#[test]
fn a_second_process_on_one_buffer_ends_with_one_clear_line_and_exit_code_1() -> Result<()> {
    Lab::run(|lab| {
        let mut center = lab.center()?;
        center.start_ready()?;
        // The same buffer, other ports.
        let mut config = center.config.clone();
        for table in ["[ingest]", "[health]"] {
            config.set(table, "listen", lab.new_address());
        }
        let second = center.path("second.toml");
        fs::write(&second, config.render())?;
        let arguments = [
            OsStr::new("run"),
            OsStr::new("--config"),
            second.as_os_str(),
        ];
        let finished = Program::Collector.run(arguments)?.expect_code(1)?;
        let failures = failures(&finished.stderr);
        ensure!(
            failures.len() == 1 && failures[0].contains("buffer"),
            "not one clear line:\n{}",
            finished.stderr
        );
        center.wait_ready()
    })
}

#[test]
fn a_port_in_use_ends_a_collector_with_one_clear_line_and_exit_code_1() -> Result<()> {
    Lab::run(|lab| {
        let center = lab.center()?;
        center.write_config()?;
        let _listener = TcpListener::bind(center.ingest()?)?;
        let finished = center.command(&["run"])?.expect_code(1)?;
        let address = center.ingest()?.to_string();
        let failures: Vec<&str> = failures(&finished.stderr)
            .into_iter()
            .filter(|line| line.contains(&address))
            .collect();
        ensure!(
            failures.len() == 1,
            "not one clear line:\n{}",
            finished.stderr
        );
        Ok(())
    })
}

#[test]
fn a_health_port_in_use_is_reported_and_the_line_works() -> Result<()> {
    Lab::run(|lab| {
        let mut line = Line::new(lab, &["app.log"])?;
        let taken = lab.new_address();
        let _listener = TcpListener::bind(taken)?;
        line.forwarder.config.set("[health]", "listen", taken);
        line.center.start_ready()?;
        line.collector.start_ready()?;
        line.forwarder.start()?;
        line.forwarder.process()?.wait_for_log(&taken.to_string())?;
        let mut log = Writer::create(&lab.log("app.log"))?;
        log.append(b"one")?;
        line.finish_exact(&[&log])
    })
}

#[test]
fn a_missing_certificate_and_a_key_that_others_can_read_are_refused_with_their_names() -> Result<()>
{
    use std::os::unix::fs::PermissionsExt;
    Lab::run(|lab| {
        let line = Line::new(lab, &["app.log"])?;
        for node in [&line.forwarder, &line.center] {
            node.write_config()?;
            let key = node.path(format!("{}.key", node.name));
            fs::set_permissions(&key, fs::Permissions::from_mode(0o644))?;
            let finished = node.command(&["run"])?;
            ensure!(
                [1, 2].contains(&finished.code()),
                "exit code {}: {}",
                finished.code(),
                finished.stderr
            );
            ensure!(
                finished.stderr.contains(&format!("{}.key", node.name)),
                "{}",
                finished.stderr
            );
            fs::set_permissions(&key, fs::Permissions::from_mode(0o600))?;
            let certificate = node.path(format!("{}.pem", node.name));
            fs::remove_file(&certificate)?;
            let finished = node.command(&["run"])?;
            ensure!(
                [1, 2].contains(&finished.code()),
                "exit code {}: {}",
                finished.code(),
                finished.stderr
            );
            ensure!(
                finished.stderr.contains(&format!("{}.pem", node.name)),
                "{}",
                finished.stderr
            );
        }
        Ok(())
    })
}

#[test]
fn logs_are_json_lines_when_asked_for() -> Result<()> {
    Lab::run(|lab| {
        let center = lab.center()?;
        center.write_config()?;
        let _listener = TcpListener::bind(center.ingest()?)?;
        let finished = center
            .command(&["run", "--log-format", "json"])?
            .expect_code(1)?;
        let mut lines = 0;
        for line in finished.stderr.lines() {
            serde_json::from_str::<Value>(line)?;
            lines += 1;
        }
        ensure!(lines > 0, "it said nothing");
        Ok(())
    })
}

#[test]
fn two_starts_of_one_forwarder_have_two_epochs() -> Result<()> {
    Lab::run(|lab| {
        let mut line = Line::new(lab, &["app.log"])?;
        line.start()?;
        let mut log = Writer::create(&lab.log("app.log"))?;
        log.append(b"one")?;
        line.wait_arrived(1)?;
        line.forwarder.stop()?;
        line.forwarder.start_ready()?;
        log.append(b"two")?;
        wait_until("both", || Ok(line.events()?.len() >= 2))?;
        line.finish_exact(&[&log])?;
        let events = line.events()?;
        ensure!(
            events[0].place.epoch != events[1].place.epoch,
            "one epoch for two runs"
        );
        Ok(())
    })
}
