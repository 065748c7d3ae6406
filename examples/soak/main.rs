//! The soak: applies, rolls back, steers and kills at random, and counts at its end that every migration ran
//! exactly once, that nothing is left behind, and that memory stayed flat. docs/soak.md explains it.
//!
//! `make soak`, or `make soak ARGS="--minutes 2 --seed 7"`.

mod chaos;
mod count;
mod fleet;
mod load;
mod report;
mod watch;

use std::{
    fs,
    path::PathBuf,
    process::ExitCode,
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

use anyhow::Context as _;
use clap::Parser;

use crate::{fleet::Fleet, report::Report, watch::Samples};

/// How many clients there are at work.
const CLIENTS: usize = 4;

/// What is soaked, and for how long.
#[derive(Debug, Parser)]
struct Args {
    /// For how many minutes things go on and go wrong; bringing everything to rest comes on top
    #[arg(long, env = "SOAK_MINUTES", default_value_t = 30.0)]
    minutes: f64,
    /// How many databases there are
    #[arg(long, default_value_t = 50)]
    databases: usize,
    /// One daemon without a control database, instead of three with one
    #[arg(long)]
    alone: bool,
    /// What happens and when, as far as the machine lets it; printed, to be given again
    #[arg(long)]
    seed: Option<u64>,
    /// Where the report goes
    #[arg(long, default_value = "target/tmp/soak.txt")]
    report: PathBuf,
}

fn main() -> anyhow::Result<ExitCode> {
    let args = Args::parse();
    let seed = args.seed.unwrap_or_else(|| fastrand::u64(..));
    report::say(&format!("seed {seed}"))?;
    let report = soak(&args, seed)?;
    let text = report.text();
    report::say(&text)?;
    if let Some(directory) = args.report.parent() {
        fs::create_dir_all(directory)?;
    }
    fs::write(&args.report, &text).with_context(|| format!("cannot write {}", args.report.display()))?;
    Ok(if report.violations.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn soak(args: &Args, seed: u64) -> anyhow::Result<Report> {
    let fleet = Fleet::start(args.databases, args.alone)?;
    let mut report = Report::new(args, seed);
    fleet.settle(&mut report)?;
    let at_rest = fleet.at_rest(&mut report)?;
    let (stop, samples) = (AtomicBool::new(false), Samples::default());
    let random = |stream: u64| fastrand::Rng::with_seed(seed ^ (stream << 32));
    let until = Instant::now() + Duration::from_secs_f64(args.minutes * 60.0);
    let tallies = thread::scope(|scope| {
        let clients: Vec<_> = (0..CLIENTS)
            .map(|client| {
                let (fleet, stop, random) = (&fleet, &stop, random(client as u64 + 1));
                scope.spawn(move || load::client(fleet, stop, random))
            })
            .collect();
        let (fleet, stop, samples) = (&fleet, &stop, &samples);
        let chaos = scope.spawn(move || chaos::run(fleet, stop, random(99)));
        let watching = scope.spawn(move || samples.take(fleet, stop));
        while Instant::now() < until && !clients.iter().all(thread::ScopedJoinHandle::is_finished) {
            thread::sleep(Duration::from_millis(200));
        }
        stop.store(true, Ordering::Relaxed);
        let gone = |_| anyhow::anyhow!("a part of the soak panicked");
        let mut tallies = Vec::new();
        for client in clients {
            tallies.push(client.join().map_err(gone)??);
        }
        tallies.push(chaos.join().map_err(gone)??);
        watching.join().map_err(gone)?;
        anyhow::Ok(tallies)
    })?;
    for tally in &tallies {
        report.add(tally);
    }
    fleet.rescue(&mut report)?;
    fleet.settle(&mut report)?;
    count::everything(&fleet, &mut report)?;
    let rested = fleet.at_rest(&mut report)?;
    watch::compare(&at_rest, &rested, &samples, fleet.daemons.len(), &mut report);
    fleet.end(&mut report)?;
    Ok(report)
}
