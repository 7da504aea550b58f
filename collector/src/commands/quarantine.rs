//! `quarantine list | retry`: batches that the next hop refused for a defect of their own.

use std::{
    path::{Path, PathBuf},
    process::ExitCode,
};

use clap::Subcommand;
use watchline_node::{lifecycle::ConfigArgument, uplink::quarantine::Quarantine};

use crate::{config::CollectorConfig, outputs::OutputKind, run::quarantine_of, status::rfc3339};

/// What to do with them.
#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// List them: when, why, whose, where the bytes are
    List(ConfigArgument),
    /// Offer them again: the running collector does so within a second or two
    Retry(ConfigArgument),
}

impl Command {
    pub(super) fn config(&self) -> &Path {
        match self {
            Command::List(argument) | Command::Retry(argument) => &argument.config,
        }
    }
}

pub(super) fn execute(command: &Command, config: &CollectorConfig) -> anyhow::Result<ExitCode> {
    let upstream = config
        .outputs
        .iter()
        .filter(|output| matches!(output.kind, OutputKind::Upstream(_)));
    let places: Vec<(String, PathBuf)> = upstream
        .map(|output| {
            (
                output.name.clone(),
                quarantine_of(&config.buffer.directory, &output.name),
            )
        })
        .collect();
    match command {
        Command::List(_) => list(&places)?,
        Command::Retry(_) => retry(&places)?,
    }
    Ok(ExitCode::SUCCESS)
}

fn list(places: &[(String, PathBuf)]) -> anyhow::Result<()> {
    let mut any = false;
    for (output, place) in places {
        for entry in Quarantine::new(place.clone()).list()? {
            if !any {
                println!(
                    "{:<24}  {:<12}  {:<7}  {:<14}  {:>8}  BATCH",
                    "SET ASIDE", "OUTPUT", "LANE", "REASON", "EVENTS"
                );
            }
            any = true;
            let (events, batch) = match &entry.seal {
                Some(seal) => (
                    seal.payload.events.to_string(),
                    format!("{} {} {}", seal.sealer, seal.epoch, seal.sequence),
                ),
                None => ("?".to_owned(), "its seal cannot be read".to_owned()),
            };
            println!(
                "{:<24}  {output:<12}  {:<7}  {:<14}  {events:>8}  {batch}{}",
                rfc3339(entry.since_unix_nano).unwrap_or_default(),
                entry.lane.as_str(),
                entry.reason,
                if entry.waits_for_retry {
                    " (waits to be offered again)"
                } else {
                    ""
                },
            );
            println!("    {}", entry.path.display());
        }
    }
    if !any {
        println!("nothing is set aside");
    }
    Ok(())
}

fn retry(places: &[(String, PathBuf)]) -> anyhow::Result<()> {
    let mut moved = 0;
    for (output, place) in places {
        let count = Quarantine::new(place.clone()).retry()?;
        if count > 0 {
            println!("output {output}: {count} batches will be offered again");
        }
        moved += count;
    }
    if moved == 0 {
        println!("nothing is set aside");
    }
    Ok(())
}
