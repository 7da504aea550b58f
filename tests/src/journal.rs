//! Journals of systemd, made by its own tool.

use std::{
    fs,
    io::{BufWriter, Write},
    path::Path,
    process::{Command, Stdio},
};

use anyhow::{Context, Result, ensure};

/// Makes `directory` with one journal file, of what `write` writes in the export format.
///
/// # Errors
/// `systemd-journal-remote` is missing (`tests/run` installs it) or fails, or the directory is there.
pub fn make(directory: &Path, write: impl FnOnce(&mut dyn Write) -> Result<()>) -> Result<()> {
    fs::create_dir(directory).with_context(|| directory.display().to_string())?;
    let mut remote = Command::new("/lib/systemd/systemd-journal-remote")
        .arg(format!(
            "--output={}",
            directory.join("host.journal").display()
        ))
        .arg("-")
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .context("systemd-journal-remote is missing: tests/run installs it")?;
    let mut input = BufWriter::new(remote.stdin.take().context("its standard input")?);
    write(&mut input)?;
    input.flush()?;
    drop(input);
    ensure!(remote.wait()?.success(), "systemd-journal-remote failed");
    Ok(())
}
