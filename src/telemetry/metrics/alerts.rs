//! How many alerts stand, and how sending them goes.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

use prometheus::{IntCounterVec, IntGaugeVec};
use uuid::Uuid;

use crate::{
    migration::{Alert, AlertState, FindingKind},
    telemetry::metrics::register::Register,
};

/// How a send may come out.
const OUTCOMES: [&str; 3] = ["sent", "failed", "dropped"];

/// The metrics of alerts.
#[derive(Debug, Clone)]
pub(super) struct Alerts {
    firing: IntGaugeVec,
    acknowledged: IntGaugeVec,
    sends: IntCounterVec,
    /// The alerts that stand, each counted in the gauge of its state: a change tells the new state only.
    /// `None` where another daemon counts them.
    standing: Arc<Mutex<Option<Standing>>>,
}

/// What is counted, and in which gauge.
type Standing = HashMap<Uuid, (FindingKind, AlertState)>;

impl Alerts {
    /// Registers them; every kind is there from the start.
    pub(super) fn new(register: &Register<'_>) -> Self {
        let gauges = |name: &str, help: &str| {
            let gauges = register.gauges(name, help, &["kind", "severity"]);
            for kind in FindingKind::ALL {
                gauges.with_label_values(&[kind.name(), kind.severity().name()]);
            }
            gauges
        };
        Self {
            firing: gauges("nexus_alerts_firing", "Alerts that fire and that nobody has taken note of."),
            acknowledged: gauges("nexus_alerts_acknowledged", "Alerts that stand and are acknowledged."),
            sends: register.counters(
                "nexus_alert_sink_sends_total",
                "Requests that tell a sink of alerts: sent, failed (to be tried again), dropped (given up).",
                &["sink", "outcome"],
            ),
            standing: Arc::default(),
        }
    }

    /// They are counted here from now on, from none, or not any more.
    pub(super) fn leads(&self, leads: bool) {
        *self.standing.lock().unwrap_or_else(PoisonError::into_inner) = leads.then(HashMap::new);
        for kind in FindingKind::ALL {
            for state in [AlertState::Firing, AlertState::Acknowledged] {
                if let Some(gauge) = self.gauge((*kind, state)) {
                    gauge.set(0);
                }
            }
        }
    }

    /// An alert is in another state, or is told of again.
    pub(super) fn changed(&self, alert: &Alert) {
        let mut standing = self.standing.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(standing) = &mut *standing else { return };
        let now = (alert.finding.kind, alert.state);
        let before = match alert.state {
            AlertState::Firing | AlertState::Acknowledged => standing.insert(alert.id, now),
            AlertState::Pending | AlertState::Resolved => standing.remove(&alert.id),
        };
        if let Some(gauge) = before.and_then(|before| self.gauge(before)) {
            gauge.dec();
        }
        if let Some(gauge) = self.gauge(now) {
            gauge.inc();
        }
    }

    /// There is a sink of this name: its counters begin at zero.
    pub(super) fn expect_sink(&self, sink: &str) {
        for outcome in OUTCOMES {
            self.sends.with_label_values(&[sink, outcome]);
        }
    }

    /// A send came out so.
    pub(super) fn sent(&self, sink: &str, outcome: &str) {
        self.sends.with_label_values(&[sink, outcome]).inc();
    }

    fn gauge(&self, (kind, state): (FindingKind, AlertState)) -> Option<prometheus::IntGauge> {
        let gauges = match state {
            AlertState::Firing => &self.firing,
            AlertState::Acknowledged => &self.acknowledged,
            AlertState::Pending | AlertState::Resolved => return None,
        };
        Some(gauges.with_label_values(&[kind.name(), kind.severity().name()]))
    }
}
