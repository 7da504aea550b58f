//! What `verify` says, as JSON and for people.

use std::{fmt, ops::Range, path::Path};

use serde::Serialize;
use watchline_proto::Lane;

use super::{
    Verdict,
    batches::{Checker, Problem},
    sources::Archive,
};

/// Everything found. Ranges are from `first` up to, not including, `end`.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    pub(crate) verdict: Verdict,
    directory: String,
    /// `archive` or `buffer`.
    kind: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    files: Option<u64>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    missing_files: Vec<Numbers>,
    batches: u64,
    events: u64,
    pub(crate) chains: Vec<Chain>,
    pub(crate) problems: Vec<Problem>,
    /// Problems beyond those that are listed.
    #[serde(skip_serializing_if = "is_zero")]
    more_problems: u64,
    notes: Vec<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub(crate) struct Numbers {
    first: u64,
    end: u64,
}

#[derive(Debug, Serialize)]
pub(crate) struct Chain {
    pub(crate) sealer: String,
    pub(crate) epoch: String,
    pub(crate) lane: &'static str,
    /// Greater than 0: what was before need not be held.
    pub(crate) from: u64,
    pub(crate) held: Vec<Numbers>,
    pub(crate) missing: Vec<Numbers>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    voids: Vec<VoidRange>,
    /// Batches that are there more than once.
    #[serde(skip_serializing_if = "is_zero")]
    repeated: u64,
    /// The first number that is not what was sealed.
    #[serde(skip_serializing_if = "Option::is_none")]
    first_bad: Option<u64>,
}

#[derive(Debug, Serialize)]
struct VoidRange {
    first: u64,
    end: u64,
    reason: String,
    events: u64,
}

#[expect(
    clippy::trivially_copy_pass_by_ref,
    reason = "serde asks with a reference"
)]
fn is_zero(number: &u64) -> bool {
    *number == 0
}

fn numbers(ranges: Vec<Range<u64>>) -> Vec<Numbers> {
    ranges
        .into_iter()
        .map(|range| Numbers {
            first: range.start,
            end: range.end,
        })
        .collect()
}

impl Report {
    /// `archive`: `None` for a buffer, whose chains may begin late.
    pub(crate) fn new(
        directory: &Path,
        kind: &'static str,
        mut checker: Checker,
        archive: Option<Archive>,
    ) -> Report {
        checker.link_epochs();
        let mut chains = Vec::new();
        for (sealer, epochs) in std::mem::take(&mut checker.sealers) {
            for (epoch, evidence) in epochs {
                let may_begin_late = match (&archive, evidence.first_received_unix_nano) {
                    (None, _) => true,
                    (Some(archive), Some(received)) => received < archive.begun_unix_nano,
                    (Some(_), None) => false,
                };
                for (lane, evidence) in Lane::ALL.into_iter().zip(evidence.lanes) {
                    if evidence.is_empty() {
                        continue;
                    }
                    let findings = evidence.check(may_begin_late);
                    let lane = lane.as_str();
                    for (sequence, what) in &findings.wrong {
                        checker
                            .problem(format!("{sealer} {epoch} {lane} {sequence}"), what.clone());
                    }
                    chains.push(Chain {
                        sealer: sealer.to_string(),
                        epoch: epoch.to_string(),
                        lane,
                        from: findings.from,
                        held: numbers(findings.held),
                        missing: numbers(findings.missing),
                        voids: findings
                            .voids
                            .into_iter()
                            .map(|void| VoidRange {
                                first: void.first,
                                end: void.end,
                                reason: void.reason,
                                events: void.events,
                            })
                            .collect(),
                        repeated: findings.repeated,
                        first_bad: findings.wrong.iter().map(|(sequence, _)| *sequence).min(),
                    });
                }
            }
        }
        let files = archive.as_ref().map(|archive| archive.files);
        let missing_files = numbers(archive.map_or_else(Vec::new, |archive| archive.missing_files));
        let is_complete =
            missing_files.is_empty() && chains.iter().all(|chain| chain.missing.is_empty());
        let verdict = match (checker.problems.is_empty(), is_complete) {
            (true, true) => Verdict::Sound,
            (true, false) => Verdict::Incomplete,
            (false, _) => Verdict::Unsound,
        };
        Report {
            verdict,
            directory: directory.display().to_string(),
            kind,
            files,
            missing_files,
            batches: checker.batches,
            events: checker.events,
            chains,
            problems: checker.problems,
            more_problems: checker.more_problems,
            notes: checker.notes,
        }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} {}: {} batches, {} events",
            self.kind, self.directory, self.batches, self.events
        )?;
        match self.files {
            Some(files) => writeln!(f, " in {files} files")?,
            None => writeln!(f)?,
        }
        let (mut sealer, mut epoch) = ("", "");
        for chain in &self.chains {
            if chain.sealer != sealer {
                writeln!(f, "\n{}", chain.sealer)?;
                (sealer, epoch) = (&chain.sealer, "");
            }
            if chain.epoch != epoch {
                writeln!(f, "  epoch {}", chain.epoch)?;
                epoch = &chain.epoch;
            }
            writeln!(f, "    {chain}")?;
        }
        if !self.missing_files.is_empty() {
            writeln!(f, "\nmissing files: number {}", List(&self.missing_files))?;
        }
        if !self.problems.is_empty() {
            writeln!(f, "\nproblems")?;
            for problem in &self.problems {
                writeln!(f, "  {}: {}", problem.place, problem.what)?;
            }
            if self.more_problems > 0 {
                writeln!(f, "  and {} more", self.more_problems)?;
            }
        }
        if !self.notes.is_empty() {
            writeln!(f, "\nnotes")?;
            for note in &self.notes {
                writeln!(f, "  {note}")?;
            }
        }
        let missing: u64 = self
            .chains
            .iter()
            .flat_map(|chain| &chain.missing)
            .map(|range| range.end - range.first)
            .sum();
        match self.verdict {
            Verdict::Sound => writeln!(f, "\ncomplete and sound"),
            Verdict::Incomplete => writeln!(
                f,
                "\nincomplete: {missing} batches are missing; what is here is sound"
            ),
            Verdict::Unsound => writeln!(
                f,
                "\nunsound: {} problems; {missing} batches are missing",
                self.problems.len() as u64 + self.more_problems
            ),
        }
    }
}

impl fmt::Display for Chain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:<8}", self.lane)?;
        match self.held.is_empty() {
            true => write!(f, "nothing held")?,
            false => write!(f, "held {}", List(&self.held))?,
        }
        if self.from > 0 && !self.held.is_empty() {
            write!(f, " (from {})", self.from)?;
        }
        if !self.missing.is_empty() {
            write!(f, ", MISSING {}", List(&self.missing))?;
        }
        for void in &self.voids {
            let range = Numbers {
                first: void.first,
                end: void.end,
            };
            write!(
                f,
                ", void {} ({}, {} events)",
                List(&[range]),
                void.reason,
                void.events
            )?;
        }
        if self.repeated > 0 {
            write!(f, ", {} repeated", self.repeated)?;
        }
        match self.first_bad {
            Some(sequence) => write!(f, ", BAD from {sequence}"),
            None => Ok(()),
        }
    }
}

/// First and last number of each range, both meant.
struct List<'a>(&'a [Numbers]);

impl fmt::Display for List<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, range) in self.0.iter().enumerate() {
            if index > 0 {
                write!(f, ", ")?;
            }
            match range.end - range.first {
                1 => write!(f, "{}", range.first)?,
                _ => write!(f, "{}-{}", range.first, range.end - 1)?,
            }
        }
        Ok(())
    }
}
