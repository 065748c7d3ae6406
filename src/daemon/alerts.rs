//! From the configuration to the alerts.

use jiff::Timestamp;
use tokio::sync::mpsc;
use uuid::Uuid;

use crate::{
    alert::{Alerts, Settings, SinkKind, SinkSettings},
    config::{Config, MinSeverity, SinkConfig, SinkType},
    migration::{Event, EventKind, Severity},
    runtime::Tasks,
    telemetry::Metrics,
};

/// Goes on with the alerts of earlier runs. The metrics hear of those at once; the log has had them.
pub(super) fn start(
    config: &Config,
    tasks: Tasks,
    events: mpsc::UnboundedSender<Event>,
    metrics: &Metrics,
) -> anyhow::Result<Alerts> {
    for sink in &config.sinks {
        metrics.expect_sink(&sink.name);
    }
    let alerts = Alerts::start(settings(config), tasks, events)?;
    for alert in alerts.list() {
        let (operation, time, database) = (Uuid::nil(), Timestamp::now(), alert.database.clone());
        let kind = EventKind::AlertChanged(Box::new(alert));
        metrics.observe(&Event { operation, trace: None, time, database, kind });
    }
    Ok(alerts)
}

fn settings(config: &Config) -> Settings {
    Settings {
        hold: config.alerts.hold,
        flap_window: config.alerts.flap_window,
        state_file: config.alerts.state_file.clone(),
        runbook_base: config.alerts.runbook_base_url.clone(),
        sinks: config.sinks.iter().map(sink).collect(),
    }
}

fn sink(config: &SinkConfig) -> SinkSettings {
    SinkSettings {
        name: config.name.clone(),
        url: config.url.clone(),
        timeout: config.timeout,
        least: match config.min_severity {
            MinSeverity::Warning => Severity::Warning,
            MinSeverity::Critical => Severity::Critical,
        },
        kind: match config.kind {
            SinkType::Webhook => SinkKind::Webhook { secret: config.secret.clone() },
            SinkType::Alertmanager => SinkKind::Alertmanager,
        },
    }
}
