//! Checks an archive or a buffer directory with the anchors alone.
//!
//! Each batch: its seal, the hash of its payload, its signer's certificates as of the first receipt's time, its signature, the sealer's name. Then
//! each chain: that every seal names the one before it, and which numbers are there. What must have existed is known from the numbers
//! on both sides of a hole, from the heads that seals of the other lane and of the next epoch name, and from the numbers of an
//! archive's files.
//!
//! **Where a chain may begin late.** A buffer forgets what it has delivered, so its chains are complete from the first number that it holds.
//! An archive holds a chain from 0, but one of an epoch of which it has batches that were received before its first file was begun.
//!
//! **Not seen:** a cut end of which nothing that is left tells. **Not judged:** payloads are not opened; revocation, which the
//! first collector judged; which anchor may vouch for which name.
//!
//! Memory: 40 bytes a batch.

mod batches;
mod chains;
mod report;
mod sources;
#[cfg(test)]
mod tests;

use std::{io, path::Path, sync::Arc};

use anyhow::{Context as _, bail};
use watchline_node::identity::Anchors;
use watchline_spool as spool;

use self::{batches::Checker, report::Report};

/// What `verify` found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// Every number is there or voided, every hash, chain and signature holds. Exit status 0.
    Sound,
    /// What is there holds, but numbers that must have existed are missing. Exit status 3.
    Incomplete,
    /// Something is not what was sealed. Exit status 4.
    Unsound,
}

impl Verdict {
    /// The exit status of `verify`.
    pub fn exit_status(self) -> u8 {
        match self {
            Verdict::Sound => 0,
            Verdict::Incomplete => 3,
            Verdict::Unsound => 4,
        }
    }
}

/// Checks `directory` against the anchors in the PEM file `anchors` and prints what it found, as JSON or for people. Changes nothing. An error:
/// it could not be checked.
pub fn run(
    directory: &Path,
    anchors: &Path,
    json: bool,
    out: &mut dyn io::Write,
) -> anyhow::Result<Verdict> {
    let report = check(directory, anchors)?;
    if json {
        serde_json::to_writer_pretty(&mut *out, &report)?;
        writeln!(out)?;
    } else {
        write!(out, "{report}")?;
    }
    out.flush()?;
    Ok(report.verdict)
}

fn check(directory: &Path, anchors: &Path) -> anyhow::Result<Report> {
    let anchors = Anchors::load(anchors)?;
    let mut checker = Checker::new(anchors);
    let at = || directory.display().to_string();
    if sources::is_archive(directory).with_context(at)? {
        let archive = sources::archive(directory, &mut checker).with_context(at)?;
        return Ok(Report::new(directory, "archive", checker, Some(archive)));
    }
    let disk = Arc::new(spool::RealDisk);
    if spool::is_spool(&*disk, directory).with_context(at)? {
        sources::buffer(directory, disk, &mut checker)?;
        return Ok(Report::new(directory, "buffer", checker, None));
    }
    bail!(
        "{} is neither an archive (no *.wla file) nor a buffer (no segment)",
        directory.display()
    )
}
