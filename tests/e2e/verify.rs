//! `verify`: what an archive and a buffer prove, with the anchors alone.

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, ensure};
use e2e::{Lab, Line, Writer, process::Program};

/// The files of an archive that are complete, in order.
fn closed_files(archive: &Path) -> Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for entry in fs::read_dir(archive)? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "wla")
            && !path.ends_with("current.wla")
        {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}

/// What `verify` prints, if it ends with `code`.
fn verify(directory: &Path, anchors: &Path, code: i32) -> Result<String> {
    let arguments = [
        "verify".as_ref(),
        directory.as_os_str(),
        "--anchors".as_ref(),
        anchors.as_os_str(),
    ];
    let finished = Program::Collector.run(arguments)?.expect_code(code)?;
    Ok(finished.stdout)
}

#[test]
fn an_archive_made_under_kills_proves_itself_and_every_change_to_it_is_found() -> Result<()> {
    Lab::run(|lab| {
        let mut random = lab.seed().rng(0);
        let mut line = Line::new(lab, &["app.log"])?;
        line.center.config.table("[[output]]");
        for (key, value) in [
            ("name", "evidence"),
            ("kind", "archive"),
            ("directory", "archive"),
            ("rotate_size", "16KiB"),
        ] {
            line.center.config.set("[[output]]", key, value);
        }
        line.start()?;
        let mut log = Writer::create(&lab.log("app.log"))?;
        for _ in 0..6 {
            log.append_random(&mut random, 200)?;
            line.wait_arrived(log.written().len() - 150)?;
            line.center.kill()?;
            line.center.start()?;
            line.forwarder.kill()?;
            line.forwarder.start()?;
        }
        line.wait_ready()?;
        line.finish_exact(&[&log])?;

        let archive = line.center.path("archive");
        let anchors = line.center.path("ca.pem");
        let report = verify(&archive, &anchors, 0)?;
        ensure!(report.contains("forwarder/host-01"), "{report}");
        verify(&line.center.path("buffer"), &anchors, 0)?;

        let files = closed_files(&archive)?;
        let file = files.first().context("no file was closed")?;
        fs::set_permissions(file, fs::Permissions::from_mode(0o600))?;
        let whole = fs::read(file)?;
        let mut altered = whole.clone();
        let middle = altered.len() / 2;
        altered[middle] ^= 1;
        fs::write(file, &altered)?;
        verify(&archive, &anchors, 4)?;
        fs::write(file, &whole[..middle])?;
        verify(&archive, &anchors, 4)?;
        fs::remove_file(file)?;
        verify(&archive, &anchors, 3)?;
        fs::write(file, &whole)?;
        verify(&archive, &anchors, 0)?;

        lab.new_ca("foreign")?;
        verify(&archive, &lab.path("foreign/ca.pem"), 4)?;
        verify(&lab.path("logs"), &anchors, 1)?;
        Ok(())
    })
}

#[test]
fn a_buffer_in_use_is_not_judged() -> Result<()> {
    Lab::run(|lab| {
        let mut line = Line::new(lab, &["app.log"])?;
        line.start()?;
        let mut log = Writer::create(&lab.log("app.log"))?;
        log.append(b"one")?;
        line.wait_arrived(1)?;
        let (buffer, anchors) = (line.center.path("buffer"), line.center.path("ca.pem"));
        verify(&buffer, &anchors, 1)?;
        line.stop()?;
        verify(&buffer, &anchors, 0)?;
        Ok(())
    })
}
