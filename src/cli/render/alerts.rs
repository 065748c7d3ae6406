//! Alerts, the gravest first.

use std::fmt::Write as _;

use crate::{
    cli::render::{
        table::{Fit, table},
        text::{clean, sentence, time, wrap},
    },
    rpc::proto,
};

const COLUMNS: [(&str, Fit); 6] = [
    ("severity", Fit::Whole),
    ("state", Fit::Whole),
    ("database", Fit::Cut),
    ("kind", Fit::Whole),
    ("subject", Fit::Cut),
    ("since", Fit::Whole),
];

/// Before what stands under a row.
const INDENT: usize = 4;

/// One row per alert, and under it what is wrong, what to do, who took note of it, and its id.
pub fn text(alerts: &[proto::Alert], width: Option<u16>) -> String {
    if alerts.is_empty() {
        return "no alerts\n".to_owned();
    }
    let rows = alerts.iter().map(|alert| {
        let finding = alert.finding.clone().unwrap_or_default();
        let since = alert.resolved_at.as_ref().or(alert.started_at.as_ref());
        let [severity, state, kind] = words(alert, &finding);
        vec![severity, state, named(&finding.database), kind, named(&finding.subject), time(since)]
    });
    let mut text = String::new();
    for (index, line) in table(&COLUMNS, rows.collect(), width).lines().enumerate() {
        let _ = writeln!(text, "{line}");
        // The header takes two lines.
        for under in index.checked_sub(2).and_then(|index| alerts.get(index)).into_iter().flat_map(under) {
            let _ = writeln!(text, "{}", wrap(&format!("{:INDENT$}{under}", ""), width, INDENT));
        }
    }
    text
}

/// One alert in one line.
pub fn line(alert: &proto::Alert) -> String {
    let finding = alert.finding.clone().unwrap_or_default();
    let at = [&alert.resolved_at, &alert.fired_at, &alert.started_at].into_iter().find_map(Option::as_ref);
    let [severity, state, kind] = words(alert, &finding);
    let message = sentence(&finding.message);
    format!(
        "{} {state} {severity} {} {kind}: {message} [{}]",
        time(at),
        named(&finding.database),
        clean(&alert.id)
    )
}

fn words(alert: &proto::Alert, finding: &proto::Finding) -> [String; 3] {
    let word = |name: &str, prefix: &str| name.strip_prefix(prefix).unwrap_or(name).to_ascii_lowercase();
    [
        word(finding.severity().as_str_name(), "SEVERITY_"),
        word(alert.state().as_str_name(), "ALERT_STATE_"),
        word(finding.kind().as_str_name(), "FINDING_KIND_"),
    ]
}

fn named(text: &str) -> String {
    if text.is_empty() { "-".to_owned() } else { clean(text) }
}

fn under(alert: &proto::Alert) -> Vec<String> {
    let finding = alert.finding.clone().unwrap_or_default();
    let mut lines = vec![sentence(&finding.message)];
    if !alert.acknowledged_by.is_empty() {
        let until = alert.acknowledged_until.as_ref();
        let until = until.map(|until| format!(", until {}", time(Some(until)))).unwrap_or_default();
        let reason = sentence(&alert.acknowledged_reason);
        lines.push(format!("noted by {}{until}: {reason}", clean(&alert.acknowledged_by)));
    }
    if alert.resolved_at.is_none() {
        lines.push(format!("hint: {}", sentence(&finding.remedy)));
    }
    let flaps = match alert.flaps {
        0 => String::new(),
        1 => ", came back once".to_owned(),
        flaps => format!(", came back {flaps} times"),
    };
    lines.push(format!("id: {}{flaps}", clean(&alert.id)));
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    fn alert() -> proto::Alert {
        proto::Alert {
            id: "01a2057a-e634-703b-b949-7edbe9f5581c".into(),
            finding: Some(proto::Finding {
                database: "orders".into(),
                kind: proto::FindingKind::ChecksumDrift.into(),
                severity: proto::Severity::Critical.into(),
                subject: "0010_add_products".into(),
                message: "The file is not what was applied".into(),
                remedy: "Restore the file as it was applied".into(),
                ..Default::default()
            }),
            state: proto::AlertState::Firing.into(),
            started_at: Some(prost_types::Timestamp { seconds: 1_761_819_330, nanos: 0 }),
            ..Default::default()
        }
    }

    #[test]
    fn an_alert_is_a_row_and_what_stands_under_it() {
        let noted = proto::Alert {
            state: proto::AlertState::Acknowledged.into(),
            acknowledged_by: "eve@host".into(),
            acknowledged_reason: "deployed by\nhand.".into(),
            flaps: 2,
            ..alert()
        };
        let shown = text(&[alert(), noted], None);
        let lines: Vec<_> = shown.lines().skip(2).collect();
        let expected = [
            "critical  firing        orders    checksum_drift  0010_add_products  2025-10-30 10:15:30Z",
            "    The file is not what was applied",
            "    hint: Restore the file as it was applied",
            "    id: 01a2057a-e634-703b-b949-7edbe9f5581c",
            "critical  acknowledged  orders    checksum_drift  0010_add_products  2025-10-30 10:15:30Z",
            "    The file is not what was applied",
            "    noted by eve@host: deployed by hand",
            "    hint: Restore the file as it was applied",
            "    id: 01a2057a-e634-703b-b949-7edbe9f5581c, came back 2 times",
        ];
        assert_eq!(lines, expected, "{shown}");
        assert_eq!(text(&[], None), "no alerts\n");
    }

    #[test]
    fn a_line_holds_what_counts() {
        let expected = "2025-10-30 10:15:30Z firing critical orders checksum_drift: \
                        The file is not what was applied [01a2057a-e634-703b-b949-7edbe9f5581c]";
        assert_eq!(line(&alert()), expected);
    }
}
