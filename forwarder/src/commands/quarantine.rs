//! `quarantine list | retry`: batches that the next hop refused for a defect of their own.

use std::{path::Path, process::ExitCode, time::SystemTime};

use clap::Subcommand;
use watchline_node::{
    lifecycle::ConfigArgument,
    uplink::quarantine::{Quarantine, set_aside_at},
};

use crate::config::Config;

/// What to do with them.
#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// List them: how long ago, why, which, where the bytes are
    List(ConfigArgument),
    /// Offer them again: the running forwarder does so within a second or two
    Retry(ConfigArgument),
}

impl Command {
    pub(super) fn config(&self) -> &Path {
        match self {
            Command::List(argument) | Command::Retry(argument) => &argument.config,
        }
    }
}

pub(super) fn execute(command: &Command, config: &Config) -> anyhow::Result<ExitCode> {
    let quarantine = Quarantine::new(config.spool.directory.join("quarantine"));
    match command {
        Command::List(_) => list(&quarantine)?,
        Command::Retry(_) => match quarantine.retry()? {
            0 => println!("nothing is set aside"),
            count => println!("{count} batches will be offered again"),
        },
    }
    Ok(ExitCode::SUCCESS)
}

fn list(quarantine: &Quarantine) -> anyhow::Result<()> {
    let entries = quarantine.list()?;
    if entries.is_empty() {
        println!("nothing is set aside");
        return Ok(());
    }
    println!(
        "{:>10}  {:<7}  {:<14}  {:>8}  BATCH",
        "AGE", "LANE", "REASON", "EVENTS"
    );
    for entry in entries {
        let age = SystemTime::now()
            .duration_since(set_aside_at(&entry))
            .unwrap_or_default();
        let (events, batch) = match &entry.seal {
            Some(seal) => (
                seal.payload.events.to_string(),
                format!("{} {}", seal.epoch, seal.sequence),
            ),
            None => ("?".to_owned(), "its seal cannot be read".to_owned()),
        };
        let waits = if entry.waits_for_retry {
            " (waits to be offered again)"
        } else {
            ""
        };
        let age = watchline_node::health::table::ago(age);
        println!(
            "{age:>10}  {:<7}  {:<14}  {events:>8}  {batch}{waits}",
            entry.lane.as_str(),
            entry.reason
        );
        println!("    {}", entry.path.display());
    }
    Ok(())
}
