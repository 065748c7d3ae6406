//! The documents of `auditlog`.

use serde::Serialize;
use serde_json::Value;

use crate::auditlog::verify::{Fault, Summary};

/// What `auditlog verify` found.
#[derive(Debug, Serialize)]
pub struct VerifiedLog {
    ok: bool,
    records: Option<u64>,
    first: Option<u64>,
    last: Option<Last>,
    notes: Vec<String>,
    fault: Option<Wrong>,
}

#[derive(Debug, Serialize)]
struct Last {
    chain: String,
    sequence: u64,
    hash: String,
}

#[derive(Debug, Serialize)]
struct Wrong {
    file: String,
    line: u64,
    kind: &'static str,
    message: String,
}

/// What `auditlog list` shows: the records as they stand in the file.
#[derive(Debug, Serialize)]
pub struct AuditRecords {
    /// The oldest first.
    pub records: Vec<Value>,
}

impl From<&Result<Summary, Fault>> for VerifiedLog {
    fn from(result: &Result<Summary, Fault>) -> Self {
        match result {
            Ok(Summary { records, first, last, notes }) => Self {
                ok: true,
                records: Some(*records),
                first: Some(*first),
                last: Some(Last {
                    chain: last.chain.to_string(),
                    sequence: last.sequence,
                    hash: last.hash.hex(),
                }),
                notes: notes.clone(),
                fault: None,
            },
            Err(Fault { file, line, wrong, message }) => Self {
                ok: false,
                records: None,
                first: None,
                last: None,
                notes: Vec::new(),
                fault: Some(Wrong {
                    file: file.clone(),
                    line: *line,
                    kind: wrong.name(),
                    message: message.clone(),
                }),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;
    use crate::auditlog::{Head, verify::Wrong};

    const PAGE: &str = include_str!("../../../../docs/json-output.md");

    fn check(documents: &[String]) {
        let section = PAGE.split("## `auditlog verify`\n").nth(1).and_then(|rest| rest.split("\n## ").next());
        for document in documents {
            let shown = format!("```json\n{document}\n```");
            assert!(section.is_some_and(|section| section.contains(&shown)), "it should read:\n{document}");
        }
    }

    #[test]
    fn documents_are_those_of_the_page() {
        let last = Head { sequence: 5, ..Head::of_new_chain(Uuid::from_u128(7)) };
        let well = Ok(Summary { records: 5, first: 1, last, notes: Vec::new() });
        let message = "the record was altered: its hash is not that of its text".to_owned();
        let file = "logs/audit.jsonl".to_owned();
        let altered = Err(Fault { file, line: 3, wrong: Wrong::Altered, message });
        let text =
            |result| serde_json::to_string_pretty(&VerifiedLog::from(result)).expect("it is a document");
        check(&[text(&well), text(&altered)]);
    }
}
