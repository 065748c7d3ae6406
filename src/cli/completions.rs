//! `nexusctl completions`: a script for the shell.

use clap::CommandFactory as _;
use clap_complete::Shell;

use crate::cli::{Cli, Exit, session::Session};

/// The arguments of `completions`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The shell
    #[arg(value_enum)]
    shell: Shell,
}

/// Prints the script.
pub fn run(args: &Args, session: &mut Session) -> anyhow::Result<Exit> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "nexusctl", &mut script);
    session.console.raw(&script)?;
    Ok(Exit::Done)
}
