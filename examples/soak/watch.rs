//! What the daemons take while they work: memory and descriptors, early and late.

use std::{
    fs,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use crate::{fleet::Fleet, report::Report};

/// How often it is looked.
const PERIOD: Duration = Duration::from_secs(1);

/// Memory that grows by no more than this part, and this many KiB, is flat: what a daemon remembers of
/// operations grows to its limit first.
const GROWTH: (f64, u64) = (1.25, 16 * 1024);

/// How many sessions each daemon keeps in the control database: four for statements, one that listens. Who
/// leads has one more.
const OF_CONTROL: usize = 5;

/// How many the leader keeps for its looks: half of the server's limit of 8.
const OF_LOOKS: usize = 4;

/// Descriptors more than before that are no leak.
const FILES: usize = 8;

/// What there is while nobody works.
pub(crate) struct Rest {
    pub(crate) of_control: usize,
    pub(crate) of_fleet: usize,
    pub(crate) locks: usize,
    pub(crate) resident: u64,
    pub(crate) files: usize,
}

/// Memory of a process that is its own, in KiB.
pub(crate) fn resident(pid: u32) -> Option<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let field = |name: &str| -> Option<u64> {
        status.lines().find_map(|line| line.strip_prefix(name))?.split_whitespace().next()?.parse().ok()
    };
    Some(field("VmRSS:")? - field("RssShmem:")?)
}

/// How many files a process has open.
pub(crate) fn open_files(pid: u32) -> Option<usize> {
    Some(fs::read_dir(format!("/proc/{pid}/fd")).ok()?.count())
}

/// Memory and descriptors of the steady daemon, as time went by.
#[derive(Default)]
pub(crate) struct Samples(Mutex<Vec<(u64, usize)>>);

impl Samples {
    /// Looks until it is told to stop.
    pub(crate) fn take(&self, fleet: &Fleet, stop: &AtomicBool) {
        while !stop.load(Ordering::Relaxed) {
            let sample = fleet.steady().pid().ok().and_then(|pid| Some((resident(pid)?, open_files(pid)?)));
            self.0.lock().unwrap_or_else(PoisonError::into_inner).extend(sample);
            let next = Instant::now() + PERIOD;
            while Instant::now() < next && !stop.load(Ordering::Relaxed) {
                thread::sleep(Duration::from_millis(50));
            }
        }
    }

    /// The medians of the first third and of the last third: memory and descriptors.
    fn thirds(&self) -> Option<[(u64, usize); 2]> {
        let samples = self.0.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let third = samples.len() / 3;
        let median = |part: &[(u64, usize)]| -> Option<(u64, usize)> {
            let (mut memory, mut files): (Vec<_>, Vec<_>) = part.iter().copied().unzip();
            memory.sort_unstable();
            files.sort_unstable();
            Some((*memory.get(part.len() / 2)?, *files.get(part.len() / 2)?))
        };
        Some([median(&samples[..third])?, median(&samples[samples.len() - third..])?])
    }
}

/// Compares what there was with what there is.
pub(crate) fn compare(before: &Rest, after: &Rest, samples: &Samples, daemons: usize, report: &mut Report) {
    let mut at_most = |what: &str, value: usize, most: usize| {
        report.fact(what, format!("{value} (at most {most})"));
        if value > most {
            report.violation(format!("{what}: {value} instead of at most {most}"));
        }
    };
    let most = if daemons == 1 { 0 } else { daemons * OF_CONTROL + 1 };
    at_most("sessions in the control database, at rest", after.of_control, most);
    at_most("sessions in the fleet's databases, at rest", after.of_fleet, OF_LOOKS);
    at_most("advisory locks that are held, at rest", after.locks, before.locks);
    if daemons == 1 {
        report.fact("memory and descriptors", "the daemon was killed again and again: they are not compared");
        return;
    }
    at_most("open descriptors of the steady daemon, at rest", after.files, before.files + FILES);
    report.fact(
        "memory of the steady daemon at rest",
        format!("{} KiB before, {} KiB after", before.resident, after.resident),
    );
    let Some([first, last]) = samples.thirds() else {
        return report.fact("memory", "too few samples");
    };
    report
        .fact("open descriptors at work", format!("{} in the first third, {} in the last", first.1, last.1));
    let (memory, limit) =
        (format!("{} KiB in the first third, {} KiB in the last", first.0, last.0), grown(first.0));
    report.fact("memory at work, median", format!("{memory} (at most {limit})"));
    if last.0 > limit {
        report.violation(format!("memory is not flat: {memory}"));
    }
}

#[allow(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "kibibytes of memory are far below 2^52"
)]
fn grown(first: u64) -> u64 {
    (first as f64 * GROWTH.0) as u64 + GROWTH.1
}
