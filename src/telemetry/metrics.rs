//! Prometheus metrics: the process, the RPCs, the migrations, the databases, the alerts.
//! `docs/metrics.md` describes each; a test compares the two.

mod alerts;
mod auditlog;
mod clients;
mod databases;
mod inventory;
mod process;
mod register;
mod runs;
#[cfg(test)]
mod tests;

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use prometheus::{
    Histogram, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Registry, TextEncoder,
};

use crate::{
    migration::{AuditReport, Event, EventKind},
    telemetry::metrics::{
        alerts::Alerts, auditlog::AuditLog, clients::AllClients, databases::Databases, inventory::Inventory,
        process::Process, register::Register, runs::Runs,
    },
};

const RPC_SECONDS: &[f64] = &[0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0, 30.0, 300.0];
const AUDIT_SECONDS: &[f64] = &[0.1, 0.5, 1.0, 5.0, 15.0, 60.0, 300.0, 900.0, 3600.0];

pub use self::clients::Clients;

/// All metrics of one daemon, in a registry of their own. Clones share it.
#[derive(Debug, Clone)]
pub struct Metrics {
    registry: Registry,
    process: Process,
    rpc_requests: IntCounterVec,
    rpc_seconds: HistogramVec,
    runs: Runs,
    databases: Databases,
    alerts: Alerts,
    inventory: Inventory,
    access: IntGauge,
    catalog_reloads: IntCounterVec,
    audit_seconds: Histogram,
    connections: IntGaugeVec,
    clients: AllClients,
    leader: IntGauge,
    /// The servers that have series of connections.
    servers: Arc<Mutex<BTreeSet<String>>>,
    log_failures: IntCounter,
    audit_log: AuditLog,
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
        let register = Register(&registry);
        let build =
            register.gauges("nexus_build_info", "The daemon's version; the value is always 1.", &["version"]);
        build.with_label_values(&[env!("CARGO_PKG_VERSION")]).set(1);
        let metrics = Self {
            process: Process::new(&register),
            rpc_requests: register.counters(
                "nexus_rpc_requests_total",
                "RPCs that ended.",
                &["method", "code"],
            ),
            rpc_seconds: register.histograms(
                "nexus_rpc_duration_seconds",
                "From an RPC's arrival to the end of its answer.",
                "method",
                RPC_SECONDS,
            ),
            runs: Runs::new(&register),
            databases: Databases::new(&register),
            alerts: Alerts::new(&register),
            inventory: Inventory::new(&register),
            access: register.gauge(
                "nexus_access_reload_successful",
                "Whether the file of those who are let in and the certificates could be taken over when they were last read.",
            ),
            catalog_reloads: register.known_counters(
                "nexus_catalog_reloads_total",
                "Migration directories that have changed: loaded, or failed to be read.",
                "outcome",
                &["loaded", "failed"],
            ),
            audit_seconds: register.histogram(
                "nexus_audit_duration_seconds",
                "How long audits took, over all their databases.",
                AUDIT_SECONDS,
            ),
            connections: register.gauges(
                "nexus_connections",
                "Connections to PostgreSQL servers, by state: idle, in_use.",
                &["server", "state"],
            ),
            clients: AllClients::new(&register),
            leader: register.gauge(
                "nexus_leader",
                "Whether this daemon looks at the databases, runs discovery and audits, and tells of alerts.",
            ),
            servers: Arc::default(),
            log_failures: register
                .counter("nexus_log_write_failures_total", "Writes to the migration log that failed."),
            audit_log: AuditLog::new(&register),
            registry,
        };
        metrics.leads(true);
        metrics
    }

    /// This daemon leads from now on, as one without others always does, or does not any more: then what
    /// only the leader knows is not told.
    pub fn leads(&self, leads: bool) {
        self.leader.set(i64::from(leads));
        self.databases.leads(leads);
        self.alerts.leads(leads);
    }

    /// The files of those who are let in were read: all of them could be taken over, or what was good last stays.
    pub fn access_read(&self, is_successful: bool) {
        self.access.set(i64::from(is_successful));
    }

    /// Takes an audit that another daemon has made.
    pub fn audited_elsewhere(&self, audit: &AuditReport) {
        self.databases.audited(audit);
    }

    /// Counts an event.
    pub fn observe(&self, event: &Event) {
        match &event.kind {
            EventKind::OperationStarted { verb, .. } => self.databases.began(event.operation, verb),
            EventKind::OperationChanged { from, to, .. } => self.runs.changed(*from, *to),
            EventKind::OperationFinished { .. } => self.databases.ended(event.operation),
            EventKind::LockTaken { waited } => self.runs.waited(*waited),
            EventKind::StepFinished(done) => self.runs.done(done),
            EventKind::StepFailed { direction, duration_ms, .. } => {
                self.runs.failed(*direction, *duration_ms);
            }
            EventKind::StepRetrying { .. } => self.runs.retrying(),
            EventKind::DatabaseFinished(report) => {
                self.runs.database(report);
                self.databases.finished(event.operation, event.time, report);
            }
            EventKind::Observed(seen) => self.databases.observed(seen),
            EventKind::CatalogChanged(_) => self.catalog_reloads.with_label_values(&["loaded"]).inc(),
            EventKind::CatalogFailed { .. } => self.catalog_reloads.with_label_values(&["failed"]).inc(),
            EventKind::InventoryLoaded(change) => {
                self.inventory.loaded(event.time, change);
                self.databases.inventory(change);
            }
            EventKind::AuditFinished(audit) => self.audited(audit),
            EventKind::AlertChanged(alert) => self.alerts.changed(alert),
            EventKind::AlertSent { sink, outcome } => self.alerts.sent(sink, outcome),
            EventKind::WaveStarted { .. }
            | EventKind::WaveFinished { .. }
            | EventKind::GateChecked { .. }
            | EventKind::DatabaseStarted { .. }
            | EventKind::LockWaiting { .. }
            | EventKind::FoundDirty { .. }
            | EventKind::StepStarted { .. }
            | EventKind::StepProgress { .. }
            | EventKind::Notice { .. } => {}
        }
    }

    /// The clients of a listener: `grpc`, `http` or `socket`.
    pub fn clients(&self, listener: &str) -> Clients {
        self.clients.of(listener)
    }

    /// Counts a write to the migration log that failed.
    pub fn log_write_failed(&self) {
        self.log_failures.inc();
    }

    /// Counts a record of the audit log, and notes its number.
    pub fn audit_log_recorded(&self, event: &str, sequence: u64) {
        self.audit_log.recorded(event, sequence);
    }

    /// Counts a write to the audit log that failed.
    pub fn audit_log_failed(&self) {
        self.audit_log.failed();
    }

    /// Counts a change of the audit log by somebody else.
    pub fn audit_log_tampering(&self) {
        self.audit_log.tampering();
    }

    /// The control database has the audit log's records up to this one.
    pub fn audit_log_copied(&self, sequence: u64) {
        self.audit_log.copied(sequence);
    }

    /// There is a sink of alerts of this name.
    pub fn expect_sink(&self, sink: &str) {
        self.alerts.expect_sink(sink);
    }

    /// Takes how many connections there are to each server: idle, and in use. The series of servers
    /// that are gone go too.
    pub fn connections<'a>(&self, servers: impl IntoIterator<Item = (&'a str, usize, usize)>) {
        let mut known = self.servers.lock().unwrap_or_else(PoisonError::into_inner);
        let mut gone = std::mem::take(&mut *known);
        for (server, idle, in_use) in servers {
            for (state, count) in [("idle", idle), ("in_use", in_use)] {
                let count = i64::try_from(count).unwrap_or(i64::MAX);
                self.connections.with_label_values(&[server, state]).set(count);
            }
            gone.remove(server);
            known.insert(server.to_owned());
        }
        for (server, state) in gone.iter().flat_map(|server| [(server, "idle"), (server, "in_use")]) {
            // It was set above at an earlier time.
            drop(self.connections.remove_label_values(&[server.as_str(), state]));
        }
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

    fn audited(&self, audit: &AuditReport) {
        self.databases.audited(audit);
        // A clock that was set back in between makes no negative duration.
        let took = Duration::try_from(audit.ended.duration_since(audit.started)).unwrap_or_default();
        self.audit_seconds.observe(took.as_secs_f64());
    }
}
