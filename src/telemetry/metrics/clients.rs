//! The clients that are connected, by where they come in.

use prometheus::{IntCounter, IntCounterVec, IntGauge, IntGaugeVec};

use crate::telemetry::metrics::register::Register;

/// Where clients come in.
const LISTENERS: [&str; 3] = ["grpc", "http", "socket"];

/// The clients of all listeners.
#[derive(Debug, Clone)]
pub(super) struct AllClients {
    served: IntGaugeVec,
    turned_away: IntCounterVec,
}

/// The clients of one listener.
#[derive(Debug, Clone)]
pub struct Clients {
    served: IntGauge,
    turned_away: IntCounter,
}

impl AllClients {
    pub(super) fn new(register: &Register<'_>) -> Self {
        let served =
            register.gauges("nexus_clients", "Connections of clients that are served.", &["listener"]);
        for listener in LISTENERS {
            served.with_label_values(&[listener]);
        }
        Self {
            served,
            turned_away: register.known_counters(
                "nexus_clients_turned_away_total",
                "Connections of clients that were not served: there were too many.",
                "listener",
                &LISTENERS,
            ),
        }
    }

    pub(super) fn of(&self, listener: &str) -> Clients {
        Clients {
            served: self.served.with_label_values(&[listener]),
            turned_away: self.turned_away.with_label_values(&[listener]),
        }
    }
}

impl Clients {
    /// One has come, and is served.
    pub fn came(&self) {
        self.served.inc();
    }

    /// One of those who were served has gone.
    pub fn went(&self) {
        self.served.dec();
    }

    /// One has come, and is not served.
    pub fn turned_away(&self) {
        self.turned_away.inc();
    }
}
