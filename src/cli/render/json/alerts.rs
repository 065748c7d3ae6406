//! Alerts as documents.

use serde::Serialize;

use crate::{
    cli::render::{
        json::{given, word},
        text::rfc3339,
    },
    rpc::proto,
};

/// What `alerts` says.
#[derive(Debug, Serialize)]
pub struct Alerts {
    alerts: Vec<Alert>,
}

/// One alert, as it stands.
#[derive(Debug, Serialize)]
pub struct Alert {
    id: String,
    state: String,
    severity: String,
    kind: String,
    database: Option<String>,
    subject: Option<String>,
    message: String,
    evidence: Vec<String>,
    remedy: Option<String>,
    started_at: Option<String>,
    fired_at: Option<String>,
    resolved_at: Option<String>,
    acknowledged: Option<Acknowledgement>,
    flaps: u32,
}

#[derive(Debug, Serialize)]
struct Acknowledgement {
    by: String,
    reason: String,
    until: Option<String>,
}

impl From<&[proto::Alert]> for Alerts {
    fn from(alerts: &[proto::Alert]) -> Self {
        Self { alerts: alerts.iter().map(Into::into).collect() }
    }
}

impl From<&proto::Alert> for Alert {
    fn from(alert: &proto::Alert) -> Self {
        let finding = alert.finding.clone().unwrap_or_default();
        Self {
            id: alert.id.clone(),
            state: word(alert.state().as_str_name(), "ALERT_STATE_"),
            severity: word(finding.severity().as_str_name(), "SEVERITY_"),
            kind: word(finding.kind().as_str_name(), "FINDING_KIND_"),
            database: given(&finding.database),
            subject: given(&finding.subject),
            message: finding.message,
            evidence: finding.evidence,
            remedy: given(&finding.remedy),
            started_at: rfc3339(alert.started_at.as_ref()),
            fired_at: rfc3339(alert.fired_at.as_ref()),
            resolved_at: rfc3339(alert.resolved_at.as_ref()),
            acknowledged: given(&alert.acknowledged_by).map(|by| Acknowledgement {
                by,
                reason: alert.acknowledged_reason.clone(),
                until: rfc3339(alert.acknowledged_until.as_ref()),
            }),
            flaps: alert.flaps,
        }
    }
}
