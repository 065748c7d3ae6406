//! The answers as documents, described in `docs/json-output.md`. Every key is always there; what is
//! absent is null; the values of enumerations are lower-case words.

mod access;
mod alerts;
mod answers;
mod approval;
mod auditlog;
mod audits;
#[cfg(test)]
mod examples;
mod operations;
mod status;

use serde::Serialize;
use uuid::Uuid;

use crate::{cli::report::Report, rpc::proto};

pub use access::{Contexts, NewToken};
pub use alerts::{Alert, Alerts};
pub use answers::{Checksums, Created, Databases, Health, History, Reloaded, Repaired, Versions};
pub use auditlog::{AuditRecords, VerifiedLog};
pub use audits::{Audited, Audits};
pub use operations::{Begun, OneOperation, Operations};
pub use status::Status;

/// A request that failed as a whole.
#[derive(Debug, Serialize)]
pub struct Refused {
    /// Why.
    pub error: Failure,
}

/// Why something failed.
#[derive(Debug, Serialize)]
pub struct Failure {
    code: Option<String>,
    message: String,
    hint: Option<String>,
    version: Option<String>,
    location: Option<Location>,
    sqlstate: Option<String>,
    server_message: Option<String>,
    server_hint: Option<String>,
    details: Vec<String>,
}

#[derive(Debug, Serialize)]
struct Location {
    file: String,
    line: Option<u32>,
    column: Option<u32>,
    excerpt: Option<String>,
}

/// What `apply`, `rollback` and `recover` did.
#[derive(Debug, Serialize)]
#[allow(clippy::struct_field_names, reason = "the fields are the document's keys")]
pub struct Operation {
    operation_id: Option<String>,
    request_id: String,
    verb: &'static str,
    dry_run: bool,
    succeeded: bool,
    state: Option<String>,
    why: Option<String>,
    databases: Vec<DatabaseResult>,
    not_begun: Vec<String>,
    error: Option<Failure>,
}

/// What `plan` says.
#[derive(Debug, Serialize)]
pub struct Plans {
    databases: Vec<DatabaseResult>,
    waves: Vec<Wave>,
    strategy: String,
    digest: Option<String>,
}

#[derive(Debug, Serialize)]
struct Wave {
    name: String,
    is_canary: bool,
    databases: Vec<String>,
}

#[derive(Debug, Serialize)]
struct DatabaseResult {
    database: String,
    outcome: String,
    duration_ms: u64,
    done_before: Vec<StepBefore>,
    done: Vec<DoneStep>,
    plan: Vec<Step>,
    failure: Option<Failure>,
    notices: Vec<String>,
}

#[derive(Debug, Serialize)]
struct StepBefore {
    version: String,
    action: String,
}

#[derive(Debug, Serialize)]
struct DoneStep {
    #[serde(flatten)]
    step: Step,
    duration_ms: u64,
}

#[derive(Debug, Serialize)]
struct Step {
    version: String,
    action: String,
    transactional: bool,
    source: Option<String>,
    size_bytes: u64,
    reason: Option<String>,
    description: Option<String>,
    impact: Option<String>,
    rollback_impact: Option<String>,
    data_loss: Option<String>,
}

fn given(text: &str) -> Option<String> {
    (!text.is_empty()).then(|| text.to_owned())
}

/// Where operations are kept; `None` where an older daemon does not say.
fn store(store: proto::Store) -> Option<&'static str> {
    match store {
        proto::Store::Unspecified => None,
        proto::Store::Memory => Some("memory"),
        proto::Store::ControlDatabase => Some("control_database"),
    }
}

fn positive(number: u32) -> Option<u32> {
    (number > 0).then_some(number)
}

/// An enumeration's value as a word: `STEP_ACTION_FORGET_ATTEMPT` is `forget_attempt`.
pub(super) fn word(name: &str, prefix: &str) -> String {
    name.strip_prefix(prefix).unwrap_or(name).to_ascii_lowercase()
}

impl From<&proto::Failure> for Failure {
    fn from(failure: &proto::Failure) -> Self {
        Self {
            code: given(&failure.code),
            message: failure.message.clone(),
            hint: given(&failure.hint),
            version: given(&failure.version),
            location: failure.location.as_ref().map(|location| Location {
                file: location.file.clone(),
                line: positive(location.line),
                column: positive(location.column),
                excerpt: given(&location.excerpt),
            }),
            sqlstate: given(&failure.sqlstate),
            server_message: given(&failure.server_message),
            server_hint: given(&failure.server_hint),
            details: failure.details.clone(),
        }
    }
}

impl Operation {
    /// The report; with an error, what was heard until then.
    pub fn new(report: &Report, request_id: Uuid, error: Option<&proto::Failure>) -> Self {
        Self {
            operation_id: given(&report.operation_id),
            request_id: request_id.to_string(),
            verb: report.verb.name(),
            dry_run: report.dry_run,
            succeeded: report.succeeded && error.is_none(),
            state: operations::state(report.state),
            why: given(&report.why),
            databases: report.all_databases().iter().map(Into::into).collect(),
            not_begun: report.not_begun.clone(),
            error: error.map(Into::into),
        }
    }
}

impl From<&proto::PlanResponse> for Plans {
    fn from(plan: &proto::PlanResponse) -> Self {
        let wave = |wave: &proto::Wave| Wave {
            name: wave.name.clone(),
            is_canary: wave.is_canary,
            databases: wave.databases.clone(),
        };
        Self {
            databases: plan.databases.iter().map(Into::into).collect(),
            waves: plan.waves.iter().map(wave).collect(),
            strategy: plan.strategy.clone(),
            digest: given(&plan.digest),
        }
    }
}

impl From<&proto::DatabaseResult> for DatabaseResult {
    fn from(result: &proto::DatabaseResult) -> Self {
        let done = |done: &proto::StepResult| DoneStep {
            step: (&done.step.clone().unwrap_or_default()).into(),
            duration_ms: done.duration_ms,
        };
        let before = |step: &proto::Step| StepBefore {
            version: step.version.clone(),
            action: word(step.action().as_str_name(), "STEP_ACTION_"),
        };
        let outcome = match result.outcome() {
            // The connection was lost, or the client interrupted, while the database was at work.
            proto::DatabaseOutcome::Unspecified => "unknown".to_owned(),
            outcome => word(outcome.as_str_name(), "DATABASE_OUTCOME_"),
        };
        Self {
            database: result.database.clone(),
            outcome,
            duration_ms: result.duration_ms,
            done_before: result.done_before.iter().map(before).collect(),
            done: result.done.iter().map(done).collect(),
            plan: result.plan.iter().map(Into::into).collect(),
            failure: result.failure.as_ref().map(Into::into),
            notices: result.notices.clone(),
        }
    }
}

impl From<&proto::Step> for Step {
    fn from(step: &proto::Step) -> Self {
        let source = step.source();
        Self {
            version: step.version.clone(),
            action: word(step.action().as_str_name(), "STEP_ACTION_"),
            transactional: step.transactional,
            source: (source != proto::ScriptSource::Unspecified)
                .then(|| word(source.as_str_name(), "SCRIPT_SOURCE_")),
            size_bytes: step.size_bytes,
            reason: given(&step.reason),
            description: given(&step.description),
            impact: given(&step.impact),
            rollback_impact: given(&step.rollback_impact),
            data_loss: given(&step.data_loss),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::cli::report;

    fn value(document: &impl Serialize) -> Value {
        serde_json::to_value(document).expect("it is a document")
    }

    #[test]
    fn an_operation_that_was_cut_off_tells_what_was_heard() {
        let mut report = Report::new(report::Verb::Apply, false);
        let step = proto::Step {
            version: "0010_add_products".into(),
            action: proto::StepAction::Apply.into(),
            transactional: true,
            source: proto::ScriptSource::File.into(),
            size_bytes: 412,
            ..Default::default()
        };
        report.take(&proto::Event {
            operation_id: "op".into(),
            database: "orders".into(),
            kind: Some(proto::event::Kind::StepFinished(proto::StepFinished {
                step: Some(step),
                duration_ms: 12,
            })),
            ..Default::default()
        });
        let failure = proto::Failure { message: "lost".into(), ..Default::default() };
        let step = json!({
            "version": "0010_add_products", "action": "apply", "transactional": true, "source": "file",
            "size_bytes": 412, "reason": null, "description": null, "impact": null,
            "rollback_impact": null, "data_loss": null, "duration_ms": 12
        });
        let error = json!({
            "code": null, "message": "lost", "hint": null, "version": null, "location": null,
            "sqlstate": null, "server_message": null, "server_hint": null, "details": []
        });
        let expected = json!({
            "operation_id": "op", "request_id": Uuid::nil().to_string(), "verb": "apply", "dry_run": false,
            "succeeded": false, "state": null, "why": null, "not_begun": [], "error": error,
            "databases": [{
                "database": "orders", "outcome": "unknown", "duration_ms": 0,
                "done_before": [], "done": [step],
                "plan": [], "failure": null, "notices": []
            }]
        });
        assert_eq!(value(&Operation::new(&report, Uuid::nil(), Some(&failure))), expected);
    }

    #[test]
    fn enumerations_are_lower_case_words() {
        let check = |action: proto::StepAction, expected: &str| {
            let step = proto::Step { action: action.into(), ..Default::default() };
            assert_eq!(value(&Step::from(&step))["action"], expected);
        };
        check(proto::StepAction::ForgetAttempt, "forget_attempt");
        check(proto::StepAction::Rollback, "rollback");
        let result =
            proto::DatabaseResult { outcome: proto::DatabaseOutcome::UpToDate.into(), ..Default::default() };
        assert_eq!(value(&DatabaseResult::from(&result))["outcome"], "up_to_date");
        let migration = proto::MigrationStatus {
            version: "0001_a".into(),
            state: proto::MigrationState::Applied.into(),
            applied_at: Some(prost_types::Timestamp { seconds: 1_761_819_330, nanos: 0 }),
            findings: vec![proto::FindingKind::ChecksumDrift.into()],
            ..Default::default()
        };
        let status = proto::DatabaseStatus {
            database: "orders".into(),
            migrations: vec![migration],
            ..Default::default()
        };
        let answer = proto::StatusResponse { databases: vec![status], ..Default::default() };
        let findings = crate::cli::render::status::findings(&answer.databases);
        let document = value(&Status::new(&answer, &findings));
        assert_eq!(document["ok"], false);
        assert_eq!(document["findings"][0]["kind"], "checksum_drift");
        let expected = json!({
            "version": "0001_a", "state": "applied", "applied_at": "2025-10-30T10:15:30.000Z",
            "checksum": null, "findings": ["checksum_drift"], "explanation": null
        });
        assert_eq!(document["databases"][0]["migrations"][0], expected);
    }
}
