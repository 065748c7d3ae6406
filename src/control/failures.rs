//! A failure as JSON: in the answers to errands, and in what the leader keeps.

use serde::{Deserialize, Serialize};

use crate::migration::{Code, Failure};

/// What a daemon tells another of a failure: what a user is told, without what is only for the
/// operator's terminal.
#[derive(Debug, Serialize, Deserialize)]
pub struct KeptFailure {
    code: String,
    message: String,
    hint: String,
    details: Vec<String>,
    sqlstate: Option<String>,
    server_message: Option<String>,
    server_hint: Option<String>,
}

impl From<&Failure> for KeptFailure {
    fn from(failure: &Failure) -> Self {
        let failure = failure.clone();
        Self {
            code: failure.code.as_str().to_owned(),
            message: failure.message,
            hint: failure.hint,
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
        // A newer daemon may know codes that this one does not.
        Self {
            hint: kept.hint,
            details: kept.details,
            sqlstate: kept.sqlstate,
            server_message: kept.server_message,
            server_hint: kept.server_hint,
            ..Self::new(code.unwrap_or(Code::Internal), kept.message)
        }
    }
}
