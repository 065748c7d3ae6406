//! The audit log for people.

use serde_json::Value;

use crate::{
    auditlog::verify::Summary,
    cli::render::{
        table::{Fit, table},
        text::{clean, count},
    },
};

/// What was found to be well.
pub fn verified(summary: &Summary) -> String {
    let Summary { records, first, last, .. } = summary;
    let number = usize::try_from(*records).unwrap_or(usize::MAX);
    format!(
        "OK: {}, {first} to {} of chain {}\nlast: {}\n",
        count(number, "record"),
        last.sequence,
        last.chain,
        last.hash
    )
}

/// The records, one a line.
pub fn list(records: &[Value], width: Option<u16>) -> String {
    if records.is_empty() {
        return "there is no such record\n".to_owned();
    }
    let columns = [
        ("#record", Fit::Whole),
        ("time", Fit::Whole),
        ("event", Fit::Whole),
        ("who", Fit::Cut),
        ("proof", Fit::Spare),
        ("from", Fit::Spare),
        ("what", Fit::Cut),
        ("result", Fit::Whole),
        ("operation", Fit::Spare),
    ];
    table(&columns, records.iter().map(row).collect(), width)
}

fn row(record: &Value) -> Vec<String> {
    let text = |key: &str| clean(record.get(key).and_then(Value::as_str).unwrap_or_default());
    let number = record.get("sequence").and_then(Value::as_u64).unwrap_or_default().to_string();
    let time: String = text("time").chars().take("2026-11-23T10:00:00".len()).collect();
    let rpc = text("rpc");
    let what = [rpc.rsplit('/').next().unwrap_or_default(), &text("database"), &text("noticed")];
    let what = what.into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join(" ");
    let result = [text("decision"), text("result"), text("code")];
    let result = result.into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join(" ");
    let (event, who, proof) = (text("event"), text("who"), text("proof"));
    vec![number, time, event, who, proof, text("from"), what, result, text("operation")]
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use uuid::Uuid;

    use super::*;
    use crate::auditlog::Head;

    #[test]
    fn a_line_for_each_record() {
        let records = [
            json!({
                "sequence": 7, "time": "2026-11-23T10:00:01.000001Z", "event": "call", "who": "ci",
                "proof": "token 1a2b3c4d", "from": "127.0.0.1:4711", "decision": "refused", "code": "NX0088",
                "rpc": "/nexus.v1.MigrationService/Repair"
            }),
            json!({ "sequence": 8, "event": "change", "database": "orders\u{1b}[31m" }),
        ];
        let text = list(&records, None);
        let lines: Vec<_> = text.lines().skip(2).collect();
        let first: Vec<_> = lines[0].split("  ").map(str::trim).filter(|part| !part.is_empty()).collect();
        assert_eq!(
            first,
            [
                "7",
                "2026-11-23T10:00:01",
                "call",
                "ci",
                "token 1a2b3c4d",
                "127.0.0.1:4711",
                "Repair",
                "refused NX0088"
            ]
        );
        assert!(lines[1].contains("orders") && !lines[1].contains('\u{1b}'), "{text}");
        let last = Head { sequence: 9, ..Head::of_new_chain(Uuid::from_u128(7)) };
        let text = verified(&Summary { records: 2, first: 8, last, notes: Vec::new() });
        assert!(text.starts_with("OK: 2 records, 8 to 9 of chain "), "{text}");
    }
}
