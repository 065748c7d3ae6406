//! Prometheus metrics: the process, the RPCs, the migrations.

mod process;

use std::time::Duration;

use prometheus::{
    HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry,
    TextEncoder, core::Collector,
};

use crate::{
    migration::{Direction, Event, EventKind, event::DatabaseOutcome},
    telemetry::metrics::process::Process,
};

const RPC_SECONDS: &[f64] = &[0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0, 30.0, 300.0];
const STEP_SECONDS: &[f64] = &[0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0, 30.0, 60.0, 300.0, 1800.0];

/// All metrics of one daemon, in a registry of their own. Clones share it.
#[derive(Debug, Clone)]
pub struct Metrics {
    registry: Registry,
    process: Process,
    rpc_requests: IntCounterVec,
    rpc_seconds: HistogramVec,
    steps: IntCounterVec,
    step_seconds: HistogramVec,
    retries: IntCounter,
    database_runs: IntCounterVec,
    operations: IntCounterVec,
    operations_running: IntGauge,
    log_failures: IntCounter,
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

impl Metrics {
    /// Registers everything.
    pub fn new() -> Self {
        let registry = Registry::new();
        let histogram = |name: &str, help: &str, label: &str, buckets: &[f64]| {
            let options = HistogramOpts::new(name, help).buckets(buckets.to_vec());
            registered(&registry, HistogramVec::new(options, &[label]))
        };
        let counters = |name: &str, help: &str, labels: &[&str]| {
            registered(&registry, IntCounterVec::new(Opts::new(name, help), labels))
        };
        let counter = |name: &str, help: &str| registered(&registry, IntCounter::new(name, help));

        let build = Opts::new("nexus_build_info", "The daemon's version; always 1.");
        let build = registered(&registry, IntGaugeVec::new(build, &["version"]));
        build.with_label_values(&[env!("CARGO_PKG_VERSION")]).set(1);
        let steps_help =
            "Steps that ended, by direction (up, down, none: a dirty mark settled without SQL) and outcome.";
        Self {
            process: Process::new(&registry),
            rpc_requests: counters("nexus_rpc_requests_total", "RPCs that ended.", &["method", "code"]),
            rpc_seconds: histogram(
                "nexus_rpc_duration_seconds",
                "From an RPC's arrival to the end of its answer.",
                "method",
                RPC_SECONDS,
            ),
            steps: counters("nexus_migration_steps_total", steps_help, &["direction", "outcome"]),
            step_seconds: histogram(
                "nexus_migration_step_duration_seconds",
                "How long steps took that succeeded or failed.",
                "direction",
                STEP_SECONDS,
            ),
            retries: counter(
                "nexus_migration_retries_total",
                "Steps tried again after a lock timeout or a deadlock.",
            ),
            database_runs: counters(
                "nexus_database_runs_total",
                "Runs on one database, by outcome.",
                &["outcome"],
            ),
            operations: counters(
                "nexus_operations_total",
                "Operations that ended, by outcome.",
                &["outcome"],
            ),
            operations_running: registered(
                &registry,
                IntGauge::new("nexus_operations_running", "Operations under way."),
            ),
            log_failures: counter(
                "nexus_log_write_failures_total",
                "Writes to the migration log that failed.",
            ),
            registry,
        }
    }

    /// Counts an event.
    pub fn observe(&self, event: &Event) {
        match &event.kind {
            EventKind::OperationStarted { .. } => self.operations_running.inc(),
            EventKind::OperationFinished { succeeded } => {
                self.operations_running.dec();
                self.operations.with_label_values(&[if *succeeded { "succeeded" } else { "failed" }]).inc();
            }
            EventKind::StepFinished(done) => {
                self.step(done.step.action.direction(), "succeeded", done.duration_ms);
            }
            EventKind::StepFailed { direction, duration_ms, .. } => {
                self.step(Some(*direction), "failed", *duration_ms);
            }
            EventKind::StepRetrying { .. } => self.retries.inc(),
            EventKind::DatabaseFinished(report) => {
                let outcome = match report.result {
                    Ok(DatabaseOutcome::Succeeded) => "succeeded",
                    Ok(DatabaseOutcome::UpToDate) => "up_to_date",
                    Ok(DatabaseOutcome::Planned) => "planned",
                    Err(_) => "failed",
                };
                self.database_runs.with_label_values(&[outcome]).inc();
            }
            EventKind::DatabaseStarted { .. }
            | EventKind::LockWaiting { .. }
            | EventKind::FoundDirty { .. }
            | EventKind::StepStarted { .. }
            | EventKind::StepProgress { .. }
            | EventKind::Observed(_)
            | EventKind::CatalogChanged(_)
            | EventKind::CatalogFailed { .. }
            | EventKind::AuditFinished(_)
            | EventKind::AlertChanged(_)
            | EventKind::AlertSent { .. }
            | EventKind::Notice { .. } => {}
        }
    }

    /// Counts a write to the migration log that failed.
    pub fn log_write_failed(&self) {
        self.log_failures.inc();
    }

    /// Counts an RPC that ended.
    pub(super) fn rpc(&self, method: &str, code: &str, duration: Duration) {
        self.rpc_requests.with_label_values(&[method, code]).inc();
        self.rpc_seconds.with_label_values(&[method]).observe(duration.as_secs_f64());
    }

    /// Everything, in Prometheus's text format.
    pub fn encode(&self) -> String {
        self.process.refresh();
        TextEncoder::new().encode_to_string(&self.registry.gather()).unwrap_or_else(|error| {
            tracing::error!(%error, "the metrics cannot be encoded");
            String::new()
        })
    }

    fn step(&self, direction: Option<Direction>, outcome: &str, duration_ms: u64) {
        let direction = match direction {
            Some(Direction::Up) => "up",
            Some(Direction::Down) => "down",
            None => "none",
        };
        self.steps.with_label_values(&[direction, outcome]).inc();
        let seconds = Duration::from_millis(duration_ms).as_secs_f64();
        self.step_seconds.with_label_values(&[direction]).observe(seconds);
    }
}

fn registered<C: Collector + Clone + 'static>(registry: &Registry, metric: prometheus::Result<C>) -> C {
    let metric = metric.expect("a metric's name and labels are well-formed");
    registry.register(Box::new(metric.clone())).expect("a metric is registered once");
    metric
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;
    use uuid::Uuid;

    use super::*;
    use crate::migration::{Code, Failure, Version, event::DatabaseReport};

    fn has(metrics: &Metrics, line: &str) {
        let text = metrics.encode();
        assert!(text.lines().any(|each| each == line), "{line} is not in\n{text}");
    }

    #[test]
    fn the_process_and_the_build() {
        let text = Metrics::new().encode();
        let value = |name: &str| -> f64 {
            let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
            line.and_then(|value| value.parse().ok()).unwrap_or(-1.0)
        };
        assert!(value("process_resident_memory_bytes") > 1e6);
        assert!(value("process_virtual_memory_bytes") > 1e6);
        assert!(value("process_open_fds") >= 3.0);
        assert!(value("process_max_fds") >= 3.0);
        assert!(value("process_threads") >= 1.0);
        assert!(value("process_cpu_seconds_total") >= 0.0);
        let now = Timestamp::now().as_second();
        assert!(
            (now - 7200..=now + 1)
                .contains(&format!("{:.0}", value("process_start_time_seconds")).parse().unwrap_or(0))
        );
        has(&Metrics::new(), concat!("nexus_build_info{version=\"", env!("CARGO_PKG_VERSION"), "\"} 1"));
    }

    #[test]
    fn events_are_counted() {
        let metrics = Metrics::new();
        let observe = |kind| {
            let event = Event {
                operation: Uuid::nil(),
                trace: None,
                time: Timestamp::UNIX_EPOCH,
                database: "orders".into(),
                kind,
            };
            metrics.observe(&event);
        };
        observe(EventKind::OperationStarted {
            verb: "apply",
            databases: vec![],
            requested_by: String::new(),
        });
        has(&metrics, "nexus_operations_running 1");
        let failure = Box::new(Failure::new(Code::MigrationFailed, "no"));
        observe(EventKind::StepFailed {
            version: Version::from_row("0010_add_products"),
            direction: Direction::Up,
            failure: failure.clone(),
            duration_ms: 20,
        });
        has(&metrics, "nexus_migration_steps_total{direction=\"up\",outcome=\"failed\"} 1");
        has(&metrics, "nexus_migration_step_duration_seconds_bucket{direction=\"up\",le=\"0.01\"} 0");
        has(&metrics, "nexus_migration_step_duration_seconds_bucket{direction=\"up\",le=\"0.025\"} 1");
        let report = DatabaseReport {
            database: "orders".into(),
            plan: None,
            done: vec![],
            result: Err(failure),
            duration_ms: 21,
        };
        observe(EventKind::DatabaseFinished(Box::new(report)));
        has(&metrics, "nexus_database_runs_total{outcome=\"failed\"} 1");
        observe(EventKind::OperationFinished { succeeded: false });
        has(&metrics, "nexus_operations_running 0");
        has(&metrics, "nexus_operations_total{outcome=\"failed\"} 1");
        has(&metrics, "nexus_log_write_failures_total 0");
        metrics.log_write_failed();
        has(&metrics, "nexus_log_write_failures_total 1");
    }
}
