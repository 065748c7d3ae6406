//! How the audit log grows, and whether it can be written.

use prometheus::{IntCounter, IntCounterVec, IntGauge};

use crate::telemetry::metrics::register::Register;

/// What a record may be about.
const EVENTS: [&str; 11] = [
    "attempt",
    "call",
    "change",
    "closed",
    "database",
    "noticed",
    "opened",
    "operation",
    "refused_again",
    "reopened",
    "result",
];

/// The metrics of the audit log.
#[derive(Debug, Clone)]
pub(super) struct AuditLog {
    records: IntCounterVec,
    failures: IntCounter,
    tampering: IntCounter,
    sequence: IntGauge,
    copied: IntGauge,
}

impl AuditLog {
    /// Registers them.
    pub(super) fn new(register: &Register<'_>) -> Self {
        Self {
            records: register.known_counters(
                "nexus_auditlog_records_total",
                "Records of the audit log that the disk has.",
                "event",
                &EVENTS,
            ),
            failures: register
                .counter("nexus_auditlog_write_failures_total", "Writes to the audit log that failed."),
            tampering: register.counter(
                "nexus_auditlog_tampering_total",
                "How often nexusd noticed that somebody else had changed the audit log.",
            ),
            sequence: register.gauge(
                "nexus_auditlog_sequence",
                "The number of the audit log's last record: a file that ends with a lower one was cut off.",
            ),
            copied: register.gauge(
                "nexus_auditlog_copied_sequence",
                "The number of the last record that the control database has; 0 where there is none.",
            ),
        }
    }

    /// The disk has a record.
    pub(super) fn recorded(&self, event: &str, sequence: u64) {
        self.records.with_label_values(&[event]).inc();
        self.sequence.set(self.sequence.get().max(i64::try_from(sequence).unwrap_or(i64::MAX)));
    }

    /// It could not be written.
    pub(super) fn failed(&self) {
        self.failures.inc();
    }

    /// Somebody else has changed it.
    pub(super) fn tampering(&self) {
        self.tampering.inc();
    }

    /// The control database has the records up to this one.
    pub(super) fn copied(&self, sequence: u64) {
        self.copied.set(i64::try_from(sequence).unwrap_or(i64::MAX));
    }
}
