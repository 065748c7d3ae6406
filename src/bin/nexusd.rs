//! The daemon's binary: parse, call, exit.

use std::{process::ExitCode, time::Duration};

use clap::Parser as _;
use nexus::{
    daemon::{self, args::Args},
    runtime::faults,
};

/// How long threads that block may take to end, when everything else has.
const LAST_THREADS: Duration = Duration::from_secs(1);

fn main() -> ExitCode {
    let args = Args::parse();
    if let Err(error) = nexus::runtime::keep_memory_private() {
        return fail(
            &anyhow::Error::new(error).context("cannot keep the memory of this process out of core dumps"),
        );
    }
    let _armed = faults::arm();
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return fail(&error.into()),
    };
    let ended = runtime.block_on(daemon::main(args));
    // A thread may still wait for a file system that hangs: it is not waited for.
    runtime.shutdown_timeout(LAST_THREADS);
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(&error),
    }
}

#[allow(clippy::print_stderr, reason = "the daemon's last words, also where no log is set up")]
fn fail(error: &anyhow::Error) -> ExitCode {
    eprintln!("error: {error:#}");
    ExitCode::FAILURE
}
