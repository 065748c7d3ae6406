//! What events do to the metrics, and that `docs/metrics.md` describes every one of them.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;

use super::*;
use crate::migration::{
    Alert, AlertState, Code, Counts, Direction, Failure, Finding, FindingKind, Mode, Observation,
    OperationState, Step, StepAction, Version,
    event::{CatalogChange, DatabaseOutcome, DatabaseReport, InventoryChange, StepDone},
    header::Header,
};
use uuid::Uuid;

fn has(metrics: &Metrics, line: &str) {
    let text = metrics.encode();
    assert!(text.lines().any(|each| each == line), "{line} is not in\n{text}");
}

fn tell(metrics: &Metrics, kind: EventKind) {
    let (operation, time) = (Uuid::nil(), Timestamp::from_second(1_000).expect("in range"));
    metrics.observe(&Event { operation, trace: None, time, database: "orders".into(), kind });
}

fn failure() -> Box<Failure> {
    Box::new(Failure::new(Code::MigrationFailed, "no"))
}

fn version() -> Version {
    Version::from_row("0010_add_products")
}

fn done(action: StepAction) -> EventKind {
    let step = Step {
        version: version(),
        action,
        mode: Mode::Transactional,
        source: None,
        reason: String::new(),
        header: Header::default(),
        size: 0,
        row_checksum: String::new(),
    };
    EventKind::StepFinished(StepDone { step, checksum: String::new(), duration_ms: 20 })
}

fn finished(result: Result<DatabaseOutcome, Box<Failure>>) -> EventKind {
    let database = "orders".into();
    let report =
        DatabaseReport { database, plan: None, done: vec![], done_before: vec![], result, duration_ms: 21 };
    EventKind::DatabaseFinished(Box::new(report))
}

fn started(verb: &'static str) -> EventKind {
    let (requested_by, reason) = (String::new(), String::new());
    EventKind::OperationStarted { verb, databases: vec![], requested_by, reason, waves: 1, attempt: 1 }
}

fn changed(from: Option<OperationState>, to: OperationState) -> EventKind {
    EventKind::OperationChanged { from, to, why: String::new(), by: String::new() }
}

fn ended(state: OperationState) -> EventKind {
    EventKind::OperationFinished { state, why: String::new(), not_begun: vec![], attempt: 1 }
}

fn inventory(databases: &[&str], removed: &[&str]) -> InventoryChange {
    InventoryChange {
        databases: databases.iter().map(|&name| name.to_owned()).collect(),
        removed: removed.iter().map(|&name| name.to_owned()).collect(),
        is_valid: true,
        ..InventoryChange::default()
    }
}

fn seen(counts: Option<Counts>) -> Observation {
    let time = Timestamp::from_second(2_000).expect("in range");
    let down = Finding::new(FindingKind::DatabaseUnreachable, "", "refused");
    let findings = if counts.is_none() { vec![down] } else { vec![] };
    Observation { database: "orders".into(), time, counts, newest: None, findings, unknown: vec![] }
}

fn observed(counts: Option<Counts>) -> EventKind {
    EventKind::Observed(Box::new(seen(counts)))
}

fn audited(counts: Option<Counts>) -> EventKind {
    EventKind::AuditFinished(Box::new(AuditReport {
        id: Uuid::nil(),
        name: "nightly".into(),
        started: Timestamp::from_second(3_000).expect("in range"),
        ended: Timestamp::from_millisecond(3_002_500).expect("in range"),
        databases: vec![seen(counts)],
    }))
}

fn alert(id: u128, kind: FindingKind, state: AlertState) -> EventKind {
    EventKind::AlertChanged(Box::new(Alert {
        id: Uuid::from_u128(id),
        database: "orders".into(),
        finding: Finding::new(kind, "", "it is so"),
        state,
        started: Timestamp::UNIX_EPOCH,
        fired: None,
        resolved: None,
        acknowledged: None,
        flaps: 0,
    }))
}

const COUNTS: Counts = Counts {
    applied: 7,
    pending: 2,
    dirty: 1,
    drift: 3,
    missing: 4,
    oldest_pending: Some(Timestamp::UNIX_EPOCH),
};

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
    let started = format!("{:.0}", value("process_start_time_seconds")).parse().unwrap_or(0);
    assert!((now - 7200..=now + 1).contains(&started));
    has(&Metrics::new(), concat!("nexus_build_info{version=\"", env!("CARGO_PKG_VERSION"), "\"} 1"));
}

#[test]
fn operations_are_counted() {
    let metrics = Metrics::new();
    has(&metrics, "nexus_migration_steps_total{direction=\"down\",outcome=\"succeeded\"} 0");
    tell(&metrics, changed(None, OperationState::Pending));
    tell(&metrics, changed(Some(OperationState::Pending), OperationState::Running));
    tell(&metrics, started("apply"));
    has(&metrics, "nexus_operations_running 1");
    has(&metrics, "nexus_operations{state=\"running\"} 1");
    tell(&metrics, EventKind::LockTaken { waited: Duration::from_secs(2) });
    has(&metrics, "nexus_lock_wait_seconds_sum 2");
    let failed = EventKind::StepFailed {
        version: version(),
        direction: Direction::Up,
        failure: failure(),
        duration_ms: 20,
    };
    tell(&metrics, failed);
    has(&metrics, "nexus_migration_steps_total{direction=\"up\",outcome=\"failed\"} 1");
    has(&metrics, "nexus_migration_step_duration_seconds_bucket{direction=\"up\",le=\"0.01\"} 0");
    has(&metrics, "nexus_migration_step_duration_seconds_bucket{direction=\"up\",le=\"0.025\"} 1");
    tell(&metrics, finished(Err(failure())));
    has(&metrics, "nexus_database_runs_total{outcome=\"failed\"} 1");
    has(&metrics, "nexus_last_operation_success{database=\"orders\",verb=\"apply\"} 0");
    has(&metrics, "nexus_last_operation_timestamp_seconds{database=\"orders\",verb=\"apply\"} 1000");
    tell(&metrics, ended(OperationState::Failed));
    tell(&metrics, changed(Some(OperationState::Running), OperationState::Failed));
    has(&metrics, "nexus_operations_running 0");
    has(&metrics, "nexus_operations{state=\"running\"} 0");
    has(&metrics, "nexus_operations_total{outcome=\"failed\"} 1");
    has(&metrics, "nexus_log_write_failures_total 0");
    metrics.log_write_failed();
    has(&metrics, "nexus_log_write_failures_total 1");
}

#[test]
fn operations_are_counted_by_their_states() {
    use OperationState::{Cancelled, Halted, Pending, Running};
    let metrics = Metrics::new();
    has(&metrics, "nexus_operations{state=\"halted\"} 0");
    has(&metrics, "nexus_operation_halts_total 0");
    tell(&metrics, changed(None, Pending));
    tell(&metrics, changed(Some(Pending), Running));
    tell(&metrics, changed(Some(Running), Halted));
    has(&metrics, "nexus_operations{state=\"halted\"} 1");
    has(&metrics, "nexus_operation_halts_total 1");
    has(&metrics, "nexus_operations_running 0");
    tell(&metrics, changed(Some(Halted), Running));
    has(&metrics, "nexus_operations{state=\"halted\"} 0");
    has(&metrics, "nexus_operations_running 1");
    tell(&metrics, changed(Some(Running), Halted));
    tell(&metrics, changed(Some(Halted), Cancelled));
    has(&metrics, "nexus_operations{state=\"halted\"} 0");
    has(&metrics, "nexus_operations_running 0");
    has(&metrics, "nexus_operations_total{outcome=\"cancelled\"} 1");
    has(&metrics, "nexus_operation_halts_total 2");
}

#[test]
fn the_last_operation_is_told_by_verb() {
    let metrics = Metrics::new();
    tell(&metrics, started("apply"));
    tell(&metrics, finished(Err(failure())));
    tell(&metrics, ended(OperationState::Failed));
    tell(&metrics, started("rollback"));
    tell(&metrics, finished(Ok(DatabaseOutcome::Succeeded)));
    has(&metrics, "nexus_last_operation_success{database=\"orders\",verb=\"rollback\"} 1");
    has(&metrics, "nexus_last_operation_success{database=\"orders\",verb=\"apply\"} 0");
}

#[test]
fn recoveries_are_counted_by_what_was_done() {
    for (action, direction, verdict) in [
        (StepAction::ForgetAttempt, "none", "forget_attempt"),
        (StepAction::ClearMark, "none", "clear_mark"),
        (StepAction::Undo, "down", "undo"),
        (StepAction::Resume { done: 1 }, "up", "resume"),
    ] {
        let metrics = Metrics::new();
        tell(&metrics, done(StepAction::Apply));
        tell(&metrics, done(StepAction::Rollback));
        for known in ["forget_attempt", "clear_mark", "undo", "resume"] {
            has(&metrics, &format!("nexus_recoveries_total{{verdict=\"{known}\"}} 0"));
        }
        tell(&metrics, done(action));
        has(&metrics, &format!("nexus_recoveries_total{{verdict=\"{verdict}\"}} 1"));
        let steps = if direction == "none" { 1 } else { 2 };
        has(
            &metrics,
            &format!(
                "nexus_migration_steps_total{{direction=\"{direction}\",outcome=\"succeeded\"}} {steps}"
            ),
        );
    }
}

#[test]
fn a_database_that_does_not_answer_keeps_what_was_known() {
    let metrics = Metrics::new();
    let of_the_daemon = Observation { database: String::new(), ..seen(None) };
    tell(&metrics, EventKind::Observed(Box::new(of_the_daemon)));
    assert!(!metrics.encode().contains("nexus_database_up{"), "the daemon is no database");
    tell(&metrics, observed(None));
    has(&metrics, "nexus_database_up{database=\"orders\"} 0");
    assert!(!metrics.encode().contains("nexus_dirty_migrations{"), "nothing is known of it yet");
    tell(&metrics, observed(Some(COUNTS)));
    tell(&metrics, audited(Some(COUNTS)));
    for unreachable in [false, true] {
        if unreachable {
            tell(&metrics, observed(None));
            tell(&metrics, audited(None));
        }
        for (name, value) in [
            ("database_up", if unreachable { "0" } else { "1" }),
            ("applied_migrations", "7"),
            ("pending_migrations", "2"),
            ("dirty_migrations", "1"),
            ("checksum_drift_migrations", "3"),
            ("missing_migrations", "4"),
            ("oldest_pending_timestamp_seconds", "0"),
            ("last_observation_timestamp_seconds", "2000"),
            ("last_audit_timestamp_seconds", "3002.5"),
        ] {
            has(&metrics, &format!("nexus_{name}{{database=\"orders\"}} {value}"));
        }
    }
    has(&metrics, "nexus_audit_duration_seconds_sum 5");
    tell(&metrics, observed(Some(Counts { oldest_pending: None, ..COUNTS })));
    assert!(!metrics.encode().contains("nexus_oldest_pending_timestamp_seconds{"));
}

#[test]
fn alerts_are_counted_in_the_state_they_are_in() {
    use AlertState::{Acknowledged, Firing, Pending, Resolved};
    let metrics = Metrics::new();
    let check = |id, state, firing, acknowledged| {
        tell(&metrics, alert(id, FindingKind::Dirty, state));
        has(&metrics, &format!("nexus_alerts_firing{{kind=\"dirty\",severity=\"critical\"}} {firing}"));
        has(
            &metrics,
            &format!("nexus_alerts_acknowledged{{kind=\"dirty\",severity=\"critical\"}} {acknowledged}"),
        );
    };
    for kind in FindingKind::ALL {
        let (name, severity) = (kind.name(), kind.severity());
        has(&metrics, &format!("nexus_alerts_firing{{kind=\"{name}\",severity=\"{severity}\"}} 0"));
    }
    check(1, Pending, 0, 0);
    check(1, Firing, 1, 0);
    check(1, Firing, 1, 0);
    check(2, Firing, 2, 0);
    check(1, Acknowledged, 1, 1);
    check(2, Resolved, 0, 1);
    check(1, Firing, 1, 0);
    check(1, Resolved, 0, 0);
    check(1, Resolved, 0, 0);
    metrics.expect_sink("pager");
    has(&metrics, "nexus_alert_sink_sends_total{outcome=\"failed\",sink=\"pager\"} 0");
    tell(&metrics, EventKind::AlertSent { sink: "pager".into(), outcome: "failed" });
    has(&metrics, "nexus_alert_sink_sends_total{outcome=\"failed\",sink=\"pager\"} 1");
    has(&metrics, "nexus_alert_sink_sends_total{outcome=\"dropped\",sink=\"pager\"} 0");
}

/// Each metric that a daemon can export, as `name | type | labels`.
fn exported() -> BTreeSet<String> {
    let metrics = Metrics::new();
    tell(&metrics, started("apply"));
    tell(&metrics, finished(Ok(DatabaseOutcome::Succeeded)));
    tell(&metrics, observed(Some(COUNTS)));
    tell(&metrics, audited(Some(COUNTS)));
    tell(&metrics, EventKind::AlertSent { sink: "pager".into(), outcome: "sent" });
    let (directory, digest) = (String::new(), String::new());
    let change = CatalogChange { directory, digest, added: vec![], edited: vec![], removed: vec![] };
    tell(&metrics, EventKind::CatalogChanged(change));
    tell(&metrics, EventKind::CatalogFailed { directory: String::new(), failure: failure() });
    has(&metrics, "nexus_catalog_reloads_total{outcome=\"loaded\"} 1");
    has(&metrics, "nexus_catalog_reloads_total{outcome=\"failed\"} 1");
    metrics.rpc("nexus.v1.FleetService/List", "OK", Duration::ZERO);
    metrics.connections([("localhost:5432", 1, 2)]);
    tell(&metrics, EventKind::InventoryLoaded(Box::new(inventory(&["orders"], &[]))));
    let row = |family: &prometheus::proto::MetricFamily| {
        let labels = family.get_metric().iter().flat_map(prometheus::proto::Metric::get_label);
        let labels: BTreeSet<_> = labels.map(|label| label.name().to_owned()).collect();
        let kind = format!("{:?}", family.get_field_type()).to_lowercase();
        format!("{} | {kind} | {}", family.name(), labels.into_iter().collect::<Vec<_>>().join(", "))
    };
    metrics.registry.gather().iter().map(row).collect()
}

/// The rows of the page's tables, in the same form.
fn documented(page: &str) -> BTreeMap<String, String> {
    let rows = page.lines().filter(|line| line.starts_with("| `"));
    rows.map(|row| {
        let cells: Vec<_> =
            row.trim_matches('|').split('|').map(|cell| cell.trim().replace('`', "")).collect();
        let mut labels: Vec<_> = cells[2].split(", ").collect();
        labels.sort_unstable();
        (format!("{} | {} | {}", cells[0], cells[1], labels.join(", ")), cells[3].clone())
    })
    .collect()
}

#[test]
fn every_metric_is_documented_and_no_other() {
    let page = documented(include_str!("../../../docs/metrics.md"));
    assert!(page.values().all(|meaning| !meaning.is_empty()));
    assert_eq!(exported(), page.into_keys().collect());
}

#[test]
fn a_database_has_a_bounded_number_of_series() {
    let metrics = Metrics::new();
    for verb in ["apply", "rollback", "recover"] {
        tell(&metrics, started(verb));
        tell(&metrics, finished(Ok(DatabaseOutcome::UpToDate)));
    }
    tell(&metrics, observed(Some(COUNTS)));
    tell(&metrics, audited(Some(COUNTS)));
    let text = metrics.encode();
    assert_eq!(text.lines().filter(|line| line.contains("database=\"orders\"")).count(), 9 + 2 * 3);
}

#[test]
fn what_is_gone_has_no_series() {
    let metrics = Metrics::new();
    let tell_all = || {
        tell(&metrics, started("rollback"));
        tell(&metrics, finished(Ok(DatabaseOutcome::UpToDate)));
        tell(&metrics, observed(Some(COUNTS)));
        tell(&metrics, audited(Some(COUNTS)));
    };
    let series = || metrics.encode().lines().filter(|line| line.contains("=\"orders\"")).count();
    tell(&metrics, EventKind::InventoryLoaded(Box::new(inventory(&["orders", "users"], &[]))));
    tell_all();
    assert_eq!(series(), 9 + 2);
    tell(&metrics, EventKind::InventoryLoaded(Box::new(inventory(&["users"], &["orders"]))));
    assert_eq!(series(), 0);
    // What ends late brings nothing back.
    tell_all();
    assert_eq!(series(), 0);
    has(&metrics, "nexus_inventory_databases 1");
    has(&metrics, "nexus_inventory_reload_successful 1");
    let failed = InventoryChange { is_valid: false, ..inventory(&["users"], &[]) };
    tell(&metrics, EventKind::InventoryLoaded(Box::new(failed)));
    has(&metrics, "nexus_inventory_reload_successful 0");
    has(&metrics, "nexus_inventory_last_reload_timestamp_seconds 1000");
    metrics.connections([("a:1", 1, 2), ("b:2", 0, 0)]);
    metrics.connections([("b:2", 0, 1)]);
    has(&metrics, "nexus_connections{server=\"b:2\",state=\"in_use\"} 1");
    assert!(!metrics.encode().contains("a:1"));
}
