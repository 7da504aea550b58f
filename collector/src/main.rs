//! The program `watchline-collector`.

use std::process::ExitCode;

use clap::Parser as _;
use watchline_collector::commands::{Cli, execute};

fn main() -> ExitCode {
    watchline_node::lifecycle::prepare();
    execute(Cli::parse())
}
