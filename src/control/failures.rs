//! A failure as JSON: in operations, in the answers to errands, and in what the leader keeps.

use serde::{Deserialize, Serialize};

use crate::migration::{Code, Failure, Location};

/// What a daemon tells another of a failure: what a user is told, without what is only for the
/// operator's terminal.
#[derive(Debug, Serialize, Deserialize)]
pub struct KeptFailure {
    code: String,
    message: String,
    hint: String,
    version: Option<String>,
    location: Option<KeptLocation>,
    details: Vec<String>,
    sqlstate: Option<String>,
    server_message: Option<String>,
    server_hint: Option<String>,
}

/// A place in a file, without its text.
#[derive(Debug, Serialize, Deserialize)]
struct KeptLocation {
    file: String,
    line: u32,
    column: u32,
}

impl From<&Failure> for KeptFailure {
    fn from(failure: &Failure) -> Self {
        let failure = failure.clone();
        Self {
            code: failure.code.as_str().to_owned(),
            message: failure.message,
            hint: failure.hint,
            version: failure.version,
            location: failure.location.map(|it| KeptLocation {
                file: it.file,
                line: it.line,
                column: it.column,
            }),
            details: failure.details,
            sqlstate: failure.sqlstate,
            server_message: failure.server_message,
            server_hint: failure.server_hint,
        }
    }
}

impl From<KeptFailure> for Failure {
    fn from(kept: KeptFailure) -> Self {
        let code = Code::ALL.iter().copied().find(|code| code.as_str() == kept.code);
        let location = kept.location.map(|KeptLocation { file, line, column }| {
            Box::new(Location { file, line, column, excerpt: String::new() })
        });
        // A newer daemon may know codes that this one does not.
        Self {
            hint: kept.hint,
            version: kept.version,
            location,
            details: kept.details,
            sqlstate: kept.sqlstate,
            server_message: kept.server_message,
            server_hint: kept.server_hint,
            ..Self::new(code.unwrap_or(Code::Internal), kept.message)
        }
    }
}
