//! What operations did: steps, retries, recoveries, waits, and how they ended.

use std::time::Duration;

use prometheus::{Histogram, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec};

use crate::{
    migration::{
        Direction, OperationState, StepAction,
        event::{DatabaseOutcome, DatabaseReport, StepDone},
    },
    telemetry::metrics::register::Register,
};

const STEP_SECONDS: &[f64] = &[0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0, 30.0, 60.0, 300.0, 1800.0];
const WAIT_SECONDS: &[f64] = &[0.1, 0.5, 1.0, 5.0, 10.0, 30.0, 60.0, 300.0, 1800.0];
const DIRECTIONS: [Option<Direction>; 3] = [Some(Direction::Up), Some(Direction::Down), None];

/// The metrics of operations.
#[derive(Debug, Clone)]
pub(super) struct Runs {
    steps: IntCounterVec,
    step_seconds: HistogramVec,
    retries: IntCounter,
    recoveries: IntCounterVec,
    lock_wait: Histogram,
    databases: IntCounterVec,
    operations: IntCounterVec,
    running: IntGauge,
    states: IntGaugeVec,
    halts: IntCounter,
}

impl Runs {
    /// Registers them.
    pub(super) fn new(register: &Register<'_>) -> Self {
        let runs = Self {
            steps: register.counters(
                "nexus_migration_steps_total",
                "Steps that ended, by direction (up, down, none: a dirty mark settled without SQL) and outcome.",
                &["direction", "outcome"],
            ),
            step_seconds: register.histograms(
                "nexus_migration_step_duration_seconds",
                "How long steps took that succeeded or failed.",
                "direction",
                STEP_SECONDS,
            ),
            retries: register.counter(
                "nexus_migration_retries_total",
                "Steps tried again after a lock timeout or a deadlock.",
            ),
            recoveries: register.known_counters(
                "nexus_recoveries_total",
                "Dirty rows that were settled, by what the evidence said to do.",
                "verdict",
                &["forget_attempt", "clear_mark", "undo", "resume"],
            ),
            lock_wait: register.histogram(
                "nexus_lock_wait_seconds",
                "How long runs waited for a database's migration lock that somebody else held.",
                WAIT_SECONDS,
            ),
            databases: register.known_counters(
                "nexus_database_runs_total",
                "Runs on one database, by outcome.",
                "outcome",
                &["succeeded", "up_to_date", "rolled_back", "planned", "failed"],
            ),
            operations: register.known_counters(
                "nexus_operations_total",
                "Operations that ended, by outcome.",
                "outcome",
                &["succeeded", "failed", "cancelled"],
            ),
            running: register.gauge("nexus_operations_running", "Operations under way."),
            states: register.gauges(
                "nexus_operations",
                "Operations that are not over, by state: awaiting_approval, pending, running, paused, halted, cancelling.",
                &["state"],
            ),
            halts: register.counter("nexus_operation_halts_total", "Operations that stopped by themselves."),
        };
        for state in OperationState::ALL.into_iter().filter(|state| !state.is_over()) {
            runs.states.with_label_values(&[state.name()]);
        }
        for direction in DIRECTIONS.map(name) {
            runs.step_seconds.with_label_values(&[direction]);
            for outcome in ["succeeded", "failed"] {
                runs.steps.with_label_values(&[direction, outcome]);
            }
        }
        runs
    }

    /// An operation is in another state.
    pub(super) fn changed(&self, from: Option<OperationState>, to: OperationState) {
        let was_at_rest = from.is_none_or(OperationState::is_at_rest);
        match (was_at_rest, to.is_at_rest()) {
            (true, false) => self.running.inc(),
            (false, true) => self.running.dec(),
            _ => {}
        }
        if let Some(from) = from.filter(|state| !state.is_over()) {
            self.states.with_label_values(&[from.name()]).dec();
        }
        if to.is_over() {
            self.operations.with_label_values(&[to.name()]).inc();
        } else {
            self.states.with_label_values(&[to.name()]).inc();
        }
        if to == OperationState::Halted {
            self.halts.inc();
        }
    }

    /// A run on one database ended.
    pub(super) fn database(&self, report: &DatabaseReport) {
        let outcome = match report.result {
            Ok(DatabaseOutcome::Succeeded) => "succeeded",
            Ok(DatabaseOutcome::UpToDate) => "up_to_date",
            Ok(DatabaseOutcome::RolledBack) => "rolled_back",
            Ok(DatabaseOutcome::Planned) => "planned",
            Err(_) => "failed",
        };
        self.databases.with_label_values(&[outcome]).inc();
    }

    /// A step succeeded.
    pub(super) fn done(&self, done: &StepDone) {
        let action = done.step.action;
        self.step(action.direction(), "succeeded", done.duration_ms);
        let verdict = match action {
            StepAction::Apply | StepAction::Rollback => return,
            StepAction::ForgetAttempt => "forget_attempt",
            StepAction::ClearMark => "clear_mark",
            StepAction::Undo => "undo",
            StepAction::Resume { .. } => "resume",
        };
        self.recoveries.with_label_values(&[verdict]).inc();
    }

    /// A step failed.
    pub(super) fn failed(&self, direction: Direction, duration_ms: u64) {
        self.step(Some(direction), "failed", duration_ms);
    }

    /// A step will be tried again.
    pub(super) fn retrying(&self) {
        self.retries.inc();
    }

    /// A run got the lock that somebody else had.
    pub(super) fn waited(&self, waited: Duration) {
        self.lock_wait.observe(waited.as_secs_f64());
    }

    fn step(&self, direction: Option<Direction>, outcome: &str, duration_ms: u64) {
        let direction = name(direction);
        self.steps.with_label_values(&[direction, outcome]).inc();
        let seconds = Duration::from_millis(duration_ms).as_secs_f64();
        self.step_seconds.with_label_values(&[direction]).observe(seconds);
    }
}

fn name(direction: Option<Direction>) -> &'static str {
    match direction {
        Some(Direction::Up) => "up",
        Some(Direction::Down) => "down",
        None => "none",
    }
}
