//! How each database stands, as it was last seen: gauges by `database`, and nothing by version.

use std::{
    collections::{BTreeSet, HashMap},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};

use jiff::Timestamp;
use prometheus::{GaugeVec, IntGaugeVec};
use uuid::Uuid;

use crate::{
    migration::{
        AuditReport, Counts, FindingKind, Observation,
        event::{DatabaseReport, InventoryChange},
    },
    telemetry::metrics::register::Register,
};

const DATABASE: &[&str] = &["database"];

/// What operations do.
const VERBS: [&str; 3] = ["apply", "rollback", "recover"];

/// The gauges of all databases.
///
/// A database that does not answer has `nexus_database_up` 0, and every other gauge keeps what was
/// last known: a dirty row is no less dirty because its server went away. One that was never
/// reached has no other gauge.
#[derive(Debug, Clone)]
pub(super) struct Databases {
    up: IntGaugeVec,
    applied: IntGaugeVec,
    pending: IntGaugeVec,
    dirty: IntGaugeVec,
    drift: IntGaugeVec,
    missing: IntGaugeVec,
    oldest_pending: GaugeVec,
    observed: GaugeVec,
    audited: GaugeVec,
    operation_time: GaugeVec,
    operation_success: IntGaugeVec,
    /// The databases of the inventory; `None` until it is told. What is told late of others is for
    /// nobody.
    known: Arc<Mutex<Option<BTreeSet<String>>>>,
    /// Whether this daemon looks at them.
    leads: Arc<AtomicBool>,
    /// What the running operations do: the report on a database does not say.
    verbs: Arc<Mutex<HashMap<Uuid, &'static str>>>,
}

impl Databases {
    /// Registers them.
    pub(super) fn new(register: &Register<'_>) -> Self {
        let gauge = |name: &str, help: &str| register.gauges(name, help, DATABASE);
        let time = |name: &str, help: &str| register.times(name, help, DATABASE);
        let of_operation = &["database", "verb"];
        Self {
            up: gauge("nexus_database_up", "Whether the database answered when it was last looked at."),
            applied: gauge("nexus_applied_migrations", "Migrations that are applied and clean."),
            pending: gauge("nexus_pending_migrations", "Migrations of the directory that are not applied."),
            dirty: gauge("nexus_dirty_migrations", "Migrations whose row is dirty."),
            drift: gauge(
                "nexus_checksum_drift_migrations",
                "Applied migrations whose file is another one than was applied.",
            ),
            missing: gauge("nexus_missing_migrations", "Applied migrations whose file is gone."),
            oldest_pending: time(
                "nexus_oldest_pending_timestamp_seconds",
                "Since when the oldest pending migration is known to be pending; absent where none is.",
            ),
            observed: time(
                "nexus_last_observation_timestamp_seconds",
                "When the database was last looked at, whether or not it answered.",
            ),
            audited: time(
                "nexus_last_audit_timestamp_seconds",
                "When the last audit that could read the database ended.",
            ),
            operation_time: register.times(
                "nexus_last_operation_timestamp_seconds",
                "When the last apply, rollback or recover of the database ended.",
                of_operation,
            ),
            operation_success: register.gauges(
                "nexus_last_operation_success",
                "Whether the last apply, rollback or recover of the database succeeded.",
                of_operation,
            ),
            known: Arc::default(),
            leads: Arc::default(),
            verbs: Arc::default(),
        }
    }

    /// They are looked at here from now on, or not any more: what was seen here last grows old.
    pub(super) fn leads(&self, leads: bool) {
        self.leads.store(leads, Ordering::Relaxed);
        if leads {
            return;
        }
        for gauges in [&self.up, &self.applied, &self.pending, &self.dirty, &self.drift, &self.missing] {
            gauges.reset();
        }
        for times in [&self.oldest_pending, &self.observed, &self.audited] {
            times.reset();
        }
    }

    /// Takes what one look saw; one of the daemon itself, whose database has no name, is for the
    /// alerts only.
    pub(super) fn observed(&self, seen: &Observation) {
        // A look that could not tell whether the database is there says nothing.
        if seen.database.is_empty()
            || seen.unknown.contains(&FindingKind::DatabaseUnreachable)
            || !self.is_looked_at(&seen.database)
        {
            return;
        }
        let database = &[seen.database.as_str()];
        self.observed.with_label_values(database).set(seconds(seen.time));
        let is_down = seen.findings.iter().any(|finding| finding.kind == FindingKind::DatabaseUnreachable);
        self.up.with_label_values(database).set(i64::from(!is_down));
        let Some(Counts { applied, pending, dirty, drift, missing, oldest_pending }) = seen.counts else {
            return;
        };
        for (gauge, count) in [
            (&self.applied, applied),
            (&self.pending, pending),
            (&self.dirty, dirty),
            (&self.drift, drift),
            (&self.missing, missing),
        ] {
            gauge.with_label_values(database).set(i64::from(count));
        }
        match oldest_pending {
            Some(since) => self.oldest_pending.with_label_values(database).set(seconds(since)),
            // 0 would be read as 1970. Where it was not there, there is nothing to remove.
            None => drop(self.oldest_pending.remove_label_values(database)),
        }
    }

    /// Takes an audit's end for each database that it could read.
    pub(super) fn audited(&self, audit: &AuditReport) {
        let could_be_read = |seen: &&Observation| seen.counts.is_some() && self.is_looked_at(&seen.database);
        for seen in audit.databases.iter().filter(could_be_read) {
            self.audited.with_label_values(&[seen.database.as_str()]).set(seconds(audit.ended));
        }
    }

    /// An operation began.
    pub(super) fn began(&self, operation: Uuid, verb: &'static str) {
        self.verbs.lock().unwrap_or_else(PoisonError::into_inner).insert(operation, verb);
    }

    /// An operation is done with one database.
    pub(super) fn finished(&self, operation: Uuid, time: Timestamp, report: &DatabaseReport) {
        let verb = self.verbs.lock().unwrap_or_else(PoisonError::into_inner).get(&operation).copied();
        let Some(verb) = verb.filter(|_| self.is_known(&report.database)) else { return };
        let labels = &[report.database.as_str(), verb];
        self.operation_time.with_label_values(labels).set(seconds(time));
        self.operation_success.with_label_values(labels).set(i64::from(report.result.is_ok()));
    }

    /// The inventory is another one: the series of databases that are gone go too.
    pub(super) fn inventory(&self, change: &InventoryChange) {
        *self.known.lock().unwrap_or_else(PoisonError::into_inner) = Some(change.databases.clone());
        for database in &change.removed {
            let labels = &[database.as_str()];
            // Where a series is not there, there is nothing to remove.
            for gauges in [&self.up, &self.applied, &self.pending, &self.dirty, &self.drift, &self.missing] {
                drop(gauges.remove_label_values(labels));
            }
            for times in [&self.oldest_pending, &self.observed, &self.audited] {
                drop(times.remove_label_values(labels));
            }
            for verb in VERBS {
                let labels = &[database.as_str(), verb];
                drop(self.operation_time.remove_label_values(labels));
                drop(self.operation_success.remove_label_values(labels));
            }
        }
    }

    fn is_looked_at(&self, database: &str) -> bool {
        self.leads.load(Ordering::Relaxed) && self.is_known(database)
    }

    fn is_known(&self, database: &str) -> bool {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.as_ref().is_none_or(|known| known.contains(database))
    }

    /// An operation ended.
    pub(super) fn ended(&self, operation: Uuid) {
        self.verbs.lock().unwrap_or_else(PoisonError::into_inner).remove(&operation);
    }
}

fn seconds(time: Timestamp) -> f64 {
    time.as_duration().as_secs_f64()
}
