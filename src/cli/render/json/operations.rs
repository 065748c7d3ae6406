//! Operations as documents.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::{
    cli::{
        render::{
            json::{Failure, Step as PlannedStep, approval::Approval, given, word},
            text::rfc3339,
        },
        report::Report,
    },
    rpc::proto,
};

/// What `operation list` says.
#[derive(Debug, Serialize)]
pub struct Operations {
    operations: Vec<OneOperation>,
}

/// What `operation show` says.
#[derive(Debug, Serialize)]
pub struct OneOperation {
    id: String,
    verb: String,
    state: Option<String>,
    why: Option<String>,
    attempt: u32,
    requested_by: String,
    reason: Option<String>,
    selection: Selection,
    created_at: Option<String>,
    changed_at: Option<String>,
    ended_at: Option<String>,
    strategy: Option<String>,
    repair: Option<String>,
    approval: Option<Approval>,
    counts: BTreeMap<String, u32>,
    waves: Vec<Wave>,
    databases: Vec<Database>,
}

/// What `--detach` says.
#[derive(Debug, Serialize)]
pub struct Begun {
    operation_id: String,
    verb: &'static str,
    databases: Vec<String>,
    awaiting_approval: bool,
}

#[derive(Debug, Serialize)]
struct Selection {
    databases: Vec<String>,
    labels: Vec<String>,
    all: bool,
}

#[derive(Debug, Serialize)]
struct Wave {
    name: String,
    canary: bool,
    settled: bool,
    counts: BTreeMap<String, u32>,
}

#[derive(Debug, Serialize)]
struct Database {
    name: String,
    wave: String,
    state: String,
    catalog_digest: Option<String>,
    planned: Vec<PlannedStep>,
    done: Vec<Step>,
    applied: Vec<String>,
    failure: Option<Failure>,
    waits_for: Option<String>,
    gate: Option<Gate>,
    started_at: Option<String>,
    ended_at: Option<String>,
}

#[derive(Debug, Serialize)]
struct Step {
    version: String,
    action: String,
}

#[derive(Debug, Serialize)]
struct Gate {
    outcome: String,
    reason: Option<String>,
}

/// A state as a word; none where it was not given.
pub(super) fn state(state: proto::OperationState) -> Option<String> {
    (state != proto::OperationState::Unspecified).then(|| word(state.as_str_name(), "OPERATION_STATE_"))
}

fn database_state(state: proto::OperationDatabaseState) -> String {
    word(state.as_str_name(), "OPERATION_DATABASE_STATE_")
}

fn counts(counts: &[proto::OperationDatabaseCount]) -> BTreeMap<String, u32> {
    counts.iter().map(|count| (database_state(count.state()), count.count)).collect()
}

impl From<&[proto::Operation]> for Operations {
    fn from(operations: &[proto::Operation]) -> Self {
        Self { operations: operations.iter().map(Into::into).collect() }
    }
}

impl From<&proto::Operation> for OneOperation {
    fn from(operation: &proto::Operation) -> Self {
        let selection = operation.selection.clone().unwrap_or_default();
        let wave = |wave: &proto::OperationWave| Wave {
            name: wave.name.clone(),
            canary: wave.is_canary,
            settled: wave.is_settled,
            counts: counts(&wave.counts),
        };
        Self {
            id: operation.id.clone(),
            verb: operation.verb.clone(),
            state: state(operation.state()),
            why: given(&operation.why),
            attempt: operation.attempt,
            requested_by: operation.requested_by.clone(),
            reason: given(&operation.reason),
            selection: Selection {
                databases: selection.databases,
                labels: selection.labels,
                all: selection.all,
            },
            created_at: rfc3339(operation.created_at.as_ref()),
            changed_at: rfc3339(operation.changed_at.as_ref()),
            ended_at: rfc3339(operation.ended_at.as_ref()),
            strategy: given(&operation.strategy),
            repair: given(&operation.repair),
            approval: operation.approval.as_ref().map(Into::into),
            counts: counts(&operation.counts),
            waves: operation.waves.iter().map(wave).collect(),
            databases: operation.databases.iter().map(Into::into).collect(),
        }
    }
}

impl From<&proto::OperationDatabase> for Database {
    fn from(database: &proto::OperationDatabase) -> Self {
        let step = |step: &proto::OperationStep| Step {
            version: step.version.clone(),
            action: word(step.action().as_str_name(), "STEP_ACTION_"),
        };
        let gate = database.gate();
        Self {
            name: database.name.clone(),
            wave: database.wave.clone(),
            state: database_state(database.state()),
            catalog_digest: given(&database.catalog_digest),
            planned: database.planned.iter().map(Into::into).collect(),
            done: database.done.iter().map(step).collect(),
            applied: database.applied.clone(),
            failure: database.failure.as_ref().map(Into::into),
            waits_for: given(&database.waits_for),
            gate: (gate != proto::GateOutcome::Unspecified).then(|| Gate {
                outcome: word(gate.as_str_name(), "GATE_OUTCOME_"),
                reason: given(&database.gate_reason),
            }),
            started_at: rfc3339(database.started_at.as_ref()),
            ended_at: rfc3339(database.ended_at.as_ref()),
        }
    }
}

impl From<&Report> for Begun {
    fn from(report: &Report) -> Self {
        Self {
            operation_id: report.operation_id.clone(),
            verb: report.verb.name(),
            databases: report.targets.clone().unwrap_or_default(),
            awaiting_approval: report.awaits_approval(),
        }
    }
}
