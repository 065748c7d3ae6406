//! The spans of an operation, of its work on a database, and of a step: made with `tracing`, so that
//! they cost nothing where nobody exports them.

use tracing::{Span, field::Empty};
use uuid::Uuid;

use crate::{
    engine::{Database, Verb},
    migration::{Failure, Mode, Step, trace::SPAN_TARGET},
};

/// The span of a whole operation.
pub fn operation(id: Uuid, verb: &str, databases: usize) -> Span {
    tracing::info_span!(
        target: SPAN_TARGET,
        "operation",
        otel.name = format_args!("operation {verb}"),
        otel.status_code = Empty,
        nexus.operation.id = %id,
        nexus.operation.name = verb,
        nexus.operation.databases = databases,
    )
}

/// The span of an operation's work on one database.
pub fn database(database: &Database, id: Uuid, verb: &Verb) -> Span {
    tracing::info_span!(
        target: SPAN_TARGET,
        "database",
        otel.name = format_args!("{} {}", verb.name(), database.name),
        otel.status_code = Empty,
        otel.status_description = Empty,
        db.system.name = "postgresql",
        db.namespace = database.dbname,
        db.response.status_code = Empty,
        "error.type" = Empty,
        nexus.database = database.name,
        nexus.operation.id = %id,
    )
}

/// The span of one step.
pub(super) fn step(database: &Database, id: Uuid, step: &Step) -> Span {
    let direction = step.action.direction().map(|direction| direction.to_string());
    // One message to the server, or the statements below it.
    let kind = if step.mode == Mode::Transactional { "client" } else { "internal" };
    tracing::info_span!(
        target: SPAN_TARGET,
        "step",
        otel.name = format_args!("{} {}", step.action, step.version),
        otel.kind = kind,
        otel.status_code = Empty,
        otel.status_description = Empty,
        db.system.name = "postgresql",
        db.namespace = database.dbname,
        db.operation.name = %step.action,
        db.response.status_code = Empty,
        "error.type" = Empty,
        nexus.database = database.name,
        nexus.operation.id = %id,
        nexus.version = step.version.as_str(),
        nexus.direction = direction,
        nexus.mode = %step.mode,
    )
}

/// Tells in a span why it failed; never a value from a table.
pub fn failed(span: &Span, failure: &Failure) {
    span.record("otel.status_code", "ERROR");
    span.record("otel.status_description", &failure.message);
    span.record("error.type", failure.code.as_str());
    if let Some(sqlstate) = &failure.sqlstate {
        span.record("db.response.status_code", sqlstate);
    }
}
