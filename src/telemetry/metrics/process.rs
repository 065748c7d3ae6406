//! The usual metrics of a process, read from `/proc/self`. What cannot be read keeps its last value.

use std::fs;

use prometheus::{Counter, IntGauge};

use crate::telemetry::metrics::register::Register;

/// The kernel's unit of CPU time as user space sees it, the same on every machine (`USER_HZ`).
const TICKS_PER_SECOND: u64 = 100;

/// The process's metrics.
#[derive(Debug, Clone)]
pub(super) struct Process {
    cpu: Counter,
    resident: IntGauge,
    addressed: IntGauge,
    threads: IntGauge,
    open_files: IntGauge,
    most_files: IntGauge,
}

impl Process {
    /// Registers them.
    pub(super) fn new(register: &Register<'_>) -> Self {
        let gauge = |name: &str, help: &str| register.gauge(name, help);
        // By the wall clock: a service manager may hide when the machine was booted.
        let started = gauge("process_start_time_seconds", "When the process started, in Unix time.");
        started.set(jiff::Timestamp::now().as_second());
        Self {
            cpu: register.add(Counter::new("process_cpu_seconds_total", "CPU time, user and system.")),
            resident: gauge("process_resident_memory_bytes", "Resident memory."),
            addressed: gauge("process_virtual_memory_bytes", "Virtual memory."),
            threads: gauge("process_threads", "Threads."),
            open_files: gauge("process_open_fds", "Open file descriptors."),
            most_files: gauge("process_max_fds", "How many file descriptors may be open."),
        }
    }

    /// Reads them anew.
    #[allow(clippy::cast_precision_loss, reason = "ticks of CPU time stay far below 2^52")]
    pub(super) fn refresh(&self) {
        let stat = fs::read_to_string("/proc/self/stat").unwrap_or_default();
        // The second field is the program's name in parentheses and may hold anything; after it,
        // the fields from the third on have fixed places, see proc(5).
        let fields: Vec<u64> = stat.rsplit_once(')').map_or_else(Vec::new, |(_, rest)| {
            rest.split_whitespace().map(|field| field.parse().unwrap_or(0)).collect()
        });
        let field = |number: usize| fields.get(number - 3).copied();
        if let (Some(user), Some(system)) = (field(14), field(15)) {
            let seconds = (user + system) as f64 / TICKS_PER_SECOND as f64;
            self.cpu.inc_by((seconds - self.cpu.get()).max(0.0));
        }
        set(&self.threads, field(20));
        set(&self.addressed, field(23));
        set(&self.resident, labelled("/proc/self/status", "VmRSS:").map(|kibibytes| kibibytes * 1024));
        set(&self.most_files, labelled("/proc/self/limits", "Max open files"));
        let open = fs::read_dir("/proc/self/fd").map(|entries| entries.count() as u64);
        set(&self.open_files, open.ok());
    }
}

fn set(gauge: &IntGauge, value: Option<u64>) {
    if let Some(value) = value {
        gauge.set(i64::try_from(value).unwrap_or(i64::MAX));
    }
}

/// The first number behind a label in one of `/proc`'s tables.
fn labelled(path: &str, label: &str) -> Option<u64> {
    let text = fs::read_to_string(path).ok()?;
    let rest = text.lines().find_map(|line| line.strip_prefix(label))?;
    rest.split_whitespace().next()?.parse().ok()
}
