//! From the configuration to the alerts.

use std::sync::Arc;

use jiff::Timestamp;
use tokio::sync::mpsc;
use uuid::Uuid;

use crate::{
    alert::{Alerts, Keeping, Settings, SinkKind, SinkSettings},
    config::{Config, MinSeverity, SinkConfig, SinkType},
    control::Control,
    fleet::OpenAlerts,
    migration::{Alert, Event, EventKind, Severity},
    runtime::Tasks,
    telemetry::Metrics,
};

/// Goes on with the alerts of earlier runs, or with those of the service as soon as this daemon leads.
pub(super) fn start(
    config: &Config,
    control: Option<Arc<Control>>,
    tasks: Tasks,
    events: mpsc::UnboundedSender<Event>,
    metrics: &Metrics,
) -> anyhow::Result<Alerts> {
    for sink in &config.sinks {
        metrics.expect_sink(&sink.name);
    }
    let alerts = Alerts::start(settings(config, control), tasks, events)?;
    count(alerts.list(), metrics);
    Ok(alerts)
}

/// The metrics hear at once of alerts that others have begun; the log has had them.
pub(super) fn count(alerts: Vec<Alert>, metrics: &Metrics) {
    for alert in alerts {
        let (operation, time, database) = (Uuid::nil(), Timestamp::now(), alert.database.clone());
        let kind = EventKind::AlertChanged(Box::new(alert));
        metrics.observe(&Event { operation, trace: None, time, database, kind });
    }
}

/// What is open on a database: whatever was seen and is not over, also what somebody has taken note
/// of.
pub(super) fn open(alerts: &Alerts) -> OpenAlerts {
    let alerts = alerts.clone();
    Arc::new(move |database| {
        let open = alerts.list().into_iter();
        let open = open.filter(|alert| alert.database == database && alert.resolved.is_none());
        let named = open.map(|alert| match alert.finding.subject.as_str() {
            "" => alert.finding.kind.to_string(),
            subject => format!("{} {subject}", alert.finding.kind),
        });
        named.collect()
    })
}

fn settings(config: &Config, control: Option<Arc<Control>>) -> Settings {
    let file = || Keeping::File(config.alerts.state_file.clone());
    Settings {
        hold: config.alerts.hold,
        flap_window: config.alerts.flap_window,
        keeping: control.map_or_else(file, Keeping::Control),
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
