//! The span of one statement, by OpenTelemetry's conventions for databases.

use tracing::{Instrument as _, Level, field::Empty};

use crate::{
    migration::trace::{SPAN_TARGET, SQL_TARGET},
    postgres::session::{BatchError, SessionError},
    redact::mask_sql,
};

/// Awaits a statement of a migration inside a span of its own. Its text is told only where that is
/// asked for, without what looks like a credential.
pub(super) async fn statement<T>(
    dbname: &str,
    text: &str,
    sent: impl Future<Output = Result<T, BatchError>>,
) -> Result<T, BatchError> {
    let span = tracing::info_span!(
        target: SPAN_TARGET,
        "statement",
        otel.name = Empty,
        otel.kind = "client",
        otel.status_code = Empty,
        db.system.name = "postgresql",
        db.namespace = dbname,
        db.operation.name = Empty,
        db.query.text = Empty,
        db.response.status_code = Empty,
        "error.type" = Empty,
    );
    if !span.is_disabled() {
        let operation = operation(text);
        span.record("otel.name", format!("{operation} {dbname}").trim_start());
        if !operation.is_empty() {
            span.record("db.operation.name", operation);
        }
        if tracing::enabled!(target: SQL_TARGET, Level::INFO) {
            span.record("db.query.text", mask_sql(text));
        }
    }
    let result = sent.instrument(span.clone()).await;
    if let Err(failed) = &result {
        span.record("otel.status_code", "ERROR");
        match &failed.error {
            SessionError::Sql(fault) => {
                span.record("db.response.status_code", &fault.sqlstate);
                span.record("error.type", &fault.sqlstate);
            }
            SessionError::Cancelled => drop(span.record("error.type", "cancelled")),
            _ => drop(span.record("error.type", "connection_lost")),
        }
    }
    result
}

/// The statement's first word, such as `CREATE`; empty where a comment comes first.
fn operation(text: &str) -> String {
    let is_letter = |letter: &char| letter.is_ascii_alphabetic();
    text.trim_start().chars().take_while(is_letter).collect::<String>().to_ascii_uppercase()
}
