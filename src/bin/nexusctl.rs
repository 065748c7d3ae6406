//! `nexusctl`: the client of `nexusd`. Parses the arguments, makes the call, exits.

use std::process::ExitCode;

use anyhow::Context as _;
use nexus::cli;

fn main() -> anyhow::Result<ExitCode> {
    nexus::runtime::keep_memory_private()
        .context("cannot keep the memory of this process out of core dumps")?;
    Ok(match cli::parse() {
        Ok(cli) => cli::run(cli),
        Err(exit) => exit,
    })
}
