//! Prometheus's Alertmanager, by its API v2.
//!
//! It resolves by itself what it does not hear of again, so what stands is sent again every minute
//! with an end a few minutes ahead. An acknowledged alert is sent too, with who took note of it: to
//! stop would be to call it resolved, and to keep quiet is what Alertmanager's silences are for.

use std::{collections::BTreeMap, time::Duration};

use jiff::Timestamp;
use reqwest::RequestBuilder;
use serde::Serialize;

use crate::{
    alert::{life::Telling, sinks::Sink},
    migration::FindingKind,
};

/// How often what stands is sent again.
pub(super) const REFRESH: Duration = Duration::from_mins(1);

/// How far ahead the end of what stands lies: a daemon may be away for as long.
const STANDS_FOR: Duration = Duration::from_mins(4);

/// How many alerts one request holds.
pub(super) const BATCH: usize = 500;

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct PostableAlert {
    labels: BTreeMap<&'static str, String>,
    annotations: BTreeMap<&'static str, String>,
    starts_at: Timestamp,
    ends_at: Timestamp,
}

/// One request that tells of some alerts.
pub(super) fn request(sink: &Sink, tellings: &[Telling], now: Timestamp) -> RequestBuilder {
    let mut url = sink.url.clone();
    url.set_path(&format!("{}/api/v2/alerts", url.path().trim_end_matches('/')));
    let alerts: Vec<_> = tellings.iter().map(|telling| postable(sink, telling, now)).collect();
    sink.client.post(url).json(&alerts)
}

fn postable(sink: &Sink, telling: &Telling, now: Timestamp) -> PostableAlert {
    let alert = &telling.alert;
    let kind = alert.finding.kind;
    let mut labels = BTreeMap::from([
        ("alertname", name(kind)),
        ("kind", kind.name().to_owned()),
        ("severity", kind.severity().name().to_owned()),
        ("database", alert.database.clone()),
        (kind.subject_name(), alert.finding.subject.clone()),
    ]);
    labels.retain(|_, value| !value.is_empty());
    let mut annotations = BTreeMap::from([
        ("summary", alert.finding.message.clone()),
        ("description", alert.finding.evidence.join("\n")),
        ("remedy", kind.remedy().to_owned()),
        ("runbook_url", sink.runbook(telling)),
        ("nexus_alert_id", alert.id.to_string()),
    ]);
    if let Some(acknowledged) = &alert.acknowledged {
        annotations.insert("acknowledged_by", acknowledged.by.clone());
        annotations.insert("acknowledged_reason", acknowledged.reason.clone());
    }
    annotations.retain(|_, value| !value.is_empty());
    let stands_until = now.saturating_add(jiff::SignedDuration::try_from(STANDS_FOR).unwrap_or_default());
    PostableAlert {
        labels,
        annotations,
        starts_at: alert.fired.unwrap_or(alert.started),
        ends_at: alert.resolved.unwrap_or_else(|| stands_until.unwrap_or(now)),
    }
}

/// `checksum_drift` is `NexusChecksumDrift`.
fn name(kind: FindingKind) -> String {
    let words = kind.name().split('_').map(|word| {
        let (first, rest) = word.split_at(1);
        first.to_uppercase() + rest
    });
    std::iter::once("Nexus".to_owned()).chain(words).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_in_camel_case() {
        assert_eq!(name(FindingKind::ChecksumDrift), "NexusChecksumDrift");
        assert_eq!(name(FindingKind::Dirty), "NexusDirty");
    }
}
