//! How the inventory stands: how many databases it has, and whether what it is made of can be read.

use jiff::Timestamp;
use prometheus::{Gauge, IntGauge};

use crate::{migration::event::InventoryChange, telemetry::metrics::register::Register};

/// The metrics of the inventory.
#[derive(Debug, Clone)]
pub(super) struct Inventory {
    databases: IntGauge,
    successful: IntGauge,
    last: Gauge,
}

impl Inventory {
    /// Registers them.
    pub(super) fn new(register: &Register<'_>) -> Self {
        Self {
            databases: register.gauge("nexus_inventory_databases", "Databases of the inventory."),
            successful: register.gauge(
                "nexus_inventory_reload_successful",
                "Whether the configuration and every discovery could be taken over when they were last read.",
            ),
            last: register.time(
                "nexus_inventory_last_reload_timestamp_seconds",
                "When the configuration and every discovery could last be taken over.",
            ),
        }
    }

    /// It was read anew.
    pub(super) fn loaded(&self, time: Timestamp, change: &InventoryChange) {
        self.databases.set(i64::try_from(change.databases.len()).unwrap_or(i64::MAX));
        self.successful.set(i64::from(change.is_valid));
        if change.is_valid {
            self.last.set(time.as_duration().as_secs_f64());
        }
    }
}
