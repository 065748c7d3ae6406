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
