//! The program `watchline-forwarder`.

use std::process::ExitCode;

use clap::Parser as _;
use watchline_forwarder::commands::{Cli, execute};

fn main() -> ExitCode {
    watchline_node::lifecycle::prepare();
    execute(Cli::parse())
}
