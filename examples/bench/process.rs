//! What processes take: memory and CPU, read from `/proc`.

use std::{
    fs,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread,
    time::Duration,
};

/// The kernel's unit of CPU time as user space sees it.
const TICKS_PER_SECOND: f64 = 100.0;

/// Memory of a process that is its own, in KiB: resident, without what it shares with others.
pub(crate) fn resident(pid: u32) -> Option<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let field = |name: &str| -> Option<u64> {
        status.lines().find_map(|line| line.strip_prefix(name))?.split_whitespace().next()?.parse().ok()
    };
    Some(field("VmRSS:")? - field("RssShmem:")?)
}

/// CPU seconds of a process, and of its children that have ended.
#[allow(clippy::cast_precision_loss, reason = "ticks of CPU time stay far below 2^52")]
fn cpu(pid: u32) -> Option<(u32, f64)> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (_, rest) = stat.rsplit_once(')')?;
    // The fields from the third on; see proc(5).
    let fields: Vec<u64> = rest.split_whitespace().map(|field| field.parse().unwrap_or(0)).collect();
    let ticks: u64 = fields.get(11..15)?.iter().sum();
    Some((u32::try_from(*fields.get(1)?).ok()?, ticks as f64 / TICKS_PER_SECOND))
}

/// CPU seconds of a process and of all its children, those that have ended too.
pub(crate) fn cpu_of_family(pid: u32) -> f64 {
    let entries = fs::read_dir("/proc").into_iter().flatten().filter_map(Result::ok);
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    let family = pids.filter_map(|other| Some((other, cpu(other)?)));
    family
        .filter(|(other, (parent, _))| *other == pid || *parent == pid)
        .map(|(_, (_, seconds))| seconds)
        .sum()
}

/// Looks, ten times a second, at the memory of the daemon and of the backend that works for it.
pub(crate) struct Peaks {
    stop: Arc<AtomicBool>,
    seen: Arc<[AtomicU64; 2]>,
    thread: thread::JoinHandle<()>,
}

impl Peaks {
    pub(crate) fn watch(daemon: u32) -> Self {
        let (stop, peaks) =
            (Arc::new(AtomicBool::new(false)), Arc::new([AtomicU64::new(0), AtomicU64::new(0)]));
        let (until, highest) = (stop.clone(), peaks.clone());
        let thread = thread::spawn(move || {
            while !until.load(Ordering::Relaxed) {
                highest[0].fetch_max(resident(daemon).unwrap_or(0), Ordering::Relaxed);
                let backends = fs::read_dir("/proc").into_iter().flatten().filter_map(Result::ok);
                let pids = backends.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
                let of_ours = |pid: &u32| {
                    let command = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
                    let command = String::from_utf8_lossy(&command).into_owned();
                    command.starts_with("postgres:") && command.contains(" ours ")
                };
                let largest = pids.filter(of_ours).filter_map(resident).max();
                highest[1].fetch_max(largest.unwrap_or(0), Ordering::Relaxed);
                thread::sleep(Duration::from_millis(100));
            }
        });
        Self { stop, seen: peaks, thread }
    }

    pub(crate) fn end(self) -> (u64, u64) {
        self.stop.store(true, Ordering::Relaxed);
        // A look that failed leaves the peaks that were seen before it.
        let _ = self.thread.join();
        (self.seen[0].load(Ordering::Relaxed), self.seen[1].load(Ordering::Relaxed))
    }
}
