//! `nexusctl`: the client of `nexusd`. Parses the arguments, makes the call, exits.

use std::process::ExitCode;

use clap::Parser as _;
use nexus::cli::{self, Cli};

fn main() -> ExitCode {
    cli::run(Cli::parse())
}
