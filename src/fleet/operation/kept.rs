//! Operations as they are kept in the control database: JSON, made here and read here only.
//!
//! The forms below are those of the domain's types, which serde checks field by field; what is not
//! known to this program makes a document unreadable rather than half read. What a script has raised
//! itself is not kept: it may hold anything, and whoever reads the control database need not be who
//! may read the database that raised it.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::{
    access::Permit,
    auditlog::Call,
    control::failures::KeptFailure,
    engine::Verb,
    fleet::{
        Order,
        operation::{Command, DatabaseRecord, Record, WaveRecord},
        selector::Selection,
        strategy::{Strategy, Wave},
    },
    migration::{
        Basis, Code, DatabaseState, Failure, GateOutcome, OperationState, PlanDigest, StepAction,
        TraceContext, Version,
    },
};

mod approval;
mod forms;

use approval::{KeptApproval, KeptPlan};
use forms::{
    CommandForm, SelectionForm, StepActionForm, StrategyForm, VerbForm, database_state, gate_outcome,
    operation_state,
};

/// An operation without its databases.
#[derive(Serialize, Deserialize)]
struct KeptOperation {
    #[serde(with = "VerbForm")]
    verb: Verb,
    requested_by: String,
    reason: String,
    #[serde(with = "SelectionForm")]
    selection: Selection,
    #[serde(with = "StrategyForm")]
    strategy: Strategy,
    plan: Option<String>,
    approval: Option<KeptApproval>,
    asked_plan: Option<String>,
    #[serde(with = "operation_state")]
    state: OperationState,
    why: String,
    attempt: u32,
    pauses_until: Option<Timestamp>,
    undoing: Option<String>,
    waves: Vec<KeptWave>,
    created: Timestamp,
    changed: Timestamp,
    ended: Option<Timestamp>,
    by: String,
    trace: String,
}

/// What there is beside an operation's record.
#[derive(Debug, Clone)]
pub(in crate::fleet) struct Beside {
    /// The plan that it was asked to be held to.
    pub(in crate::fleet) asked_plan: Option<PlanDigest>,
    /// Who has it done: who asked for it, or who had it tried again.
    pub(in crate::fleet) by: String,
    /// Its trace.
    pub(in crate::fleet) trace: TraceContext,
}

#[derive(Serialize, Deserialize)]
struct KeptWave {
    name: String,
    is_canary: bool,
    databases: Vec<String>,
    is_settled: bool,
}

#[derive(Serialize, Deserialize)]
struct KeptDatabase {
    #[serde(with = "database_state")]
    state: DatabaseState,
    digest: String,
    basis: Option<String>,
    /// Unset where a nexusd has kept it that did not know of it.
    has_moved: Option<bool>,
    planned: Option<KeptPlan>,
    done: Vec<KeptStep>,
    taken_back: usize,
    failed_at: Option<String>,
    /// As `has_moved`.
    is_repaired: Option<bool>,
    is_unknown: bool,
    failure: Option<KeptFailure>,
    waits_for: String,
    gate: Option<KeptGate>,
    started: Option<Timestamp>,
    ended: Option<Timestamp>,
}

#[derive(Serialize, Deserialize)]
struct KeptStep {
    version: String,
    #[serde(with = "StepActionForm")]
    action: StepAction,
}

#[derive(Serialize, Deserialize)]
struct KeptGate {
    #[serde(with = "gate_outcome")]
    outcome: GateOutcome,
    reason: String,
}

/// A command, as one daemon asks another to give it.
#[derive(Serialize, Deserialize)]
struct KeptOrder {
    #[serde(with = "CommandForm")]
    command: Command,
    by: String,
    accept_new_catalog: bool,
    #[serde(default)]
    reason: String,
    plan: Option<String>,
}

/// How a command was answered.
#[derive(Serialize, Deserialize)]
struct KeptAnswer {
    failure: Option<KeptFailure>,
}

/// An operation without its databases, as JSON.
pub(in crate::fleet) fn operation(record: &Record, beside: &Beside) -> String {
    let waves = record.waves.iter().map(|it| KeptWave {
        name: it.wave.name.clone(),
        is_canary: it.wave.is_canary,
        databases: it.wave.databases.clone(),
        is_settled: it.is_settled,
    });
    text(&KeptOperation {
        verb: record.verb.clone(),
        requested_by: record.requested_by.clone(),
        reason: record.reason.clone(),
        selection: record.selection.clone(),
        strategy: record.strategy.clone(),
        plan: record.plan.as_ref().map(ToString::to_string),
        approval: record.approval.as_ref().map(Into::into),
        asked_plan: beside.asked_plan.as_ref().map(ToString::to_string),
        state: record.state,
        why: record.why.clone(),
        attempt: record.attempt,
        pauses_until: record.pauses_until,
        undoing: record.undoing.clone(),
        waves: waves.collect(),
        created: record.created,
        changed: record.changed,
        ended: record.ended,
        by: beside.by.clone(),
        trace: beside.trace.to_string(),
    })
}

/// Reads an operation, which has no databases then.
pub(in crate::fleet) fn read_operation(id: Uuid, document: &str) -> Result<(Record, Beside), String> {
    let kept: KeptOperation = parse(document)?;
    let waves = kept.waves.into_iter().map(|KeptWave { name, is_canary, databases, is_settled }| {
        WaveRecord { wave: Wave { name, is_canary, databases }, is_settled }
    });
    let record = Record {
        id,
        verb: kept.verb,
        requested_by: kept.requested_by,
        reason: kept.reason,
        selection: kept.selection,
        strategy: kept.strategy,
        plan: read_digest(kept.plan)?,
        approval: kept.approval.map(KeptApproval::revive).transpose()?,
        state: kept.state,
        why: kept.why,
        attempt: kept.attempt,
        pauses_until: kept.pauses_until,
        undoing: kept.undoing,
        waves: waves.collect(),
        databases: std::collections::BTreeMap::new(),
        created: kept.created,
        changed: kept.changed,
        ended: kept.ended,
    };
    let trace = TraceContext::parse(&kept.trace).ok_or("the trace cannot be read")?;
    Ok((record, Beside { asked_plan: read_digest(kept.asked_plan)?, by: kept.by, trace }))
}

/// One database of an operation, as JSON.
pub(in crate::fleet) fn database(record: &DatabaseRecord) -> String {
    let step = |(version, action): &(Version, StepAction)| KeptStep {
        version: version.to_string(),
        action: *action,
    };
    text(&KeptDatabase {
        state: record.state,
        digest: record.digest.clone(),
        basis: record.basis.as_ref().map(ToString::to_string),
        has_moved: Some(record.has_moved),
        is_repaired: Some(record.is_repaired),
        planned: record.planned.as_ref().map(Into::into),
        done: record.done.iter().map(step).collect(),
        taken_back: record.taken_back,
        failed_at: record.failed_at.as_ref().map(ToString::to_string),
        is_unknown: record.is_unknown,
        failure: record.failure.as_ref().map(KeptFailure::from),
        waits_for: record.waits_for.clone(),
        gate: record.gate.clone().map(|(outcome, reason)| KeptGate { outcome, reason }),
        started: record.started,
        ended: record.ended,
    })
}

/// Reads a database of an operation.
pub(in crate::fleet) fn read_database(document: &str) -> Result<DatabaseRecord, String> {
    let kept: KeptDatabase = parse(document)?;
    let has_moved = kept.has_moved.unwrap_or(!kept.done.is_empty() || kept.failed_at.is_some());
    let done = kept.done.into_iter().map(|step| (Version::from_row(&step.version), step.action));
    Ok(DatabaseRecord {
        state: kept.state,
        digest: kept.digest,
        basis: kept.basis.map(|basis| basis.parse::<Basis>()).transpose()?,
        has_moved,
        is_repaired: kept.is_repaired.unwrap_or_default(),
        planned: kept.planned.map(Into::into),
        done: done.collect(),
        taken_back: kept.taken_back,
        failed_at: kept.failed_at.as_deref().map(Version::from_row),
        is_unknown: kept.is_unknown,
        failure: kept.failure.map(Failure::from),
        waits_for: kept.waits_for,
        gate: kept.gate.map(|gate| (gate.outcome, gate.reason)),
        started: kept.started,
        ended: kept.ended,
    })
}

/// A command, as JSON.
pub(in crate::fleet) fn order(command: Command, order: &Order) -> String {
    let Order { by, accept_new_catalog, reason, plan, .. } = order.clone();
    text(&KeptOrder { command, by, accept_new_catalog, reason, plan: plan.map(|plan| plan.to_string()) })
}

/// Reads a command about an operation, by whoever was permitted to give it.
pub(in crate::fleet) fn read_order(
    document: &str,
    id: String,
    permit: Permit,
) -> Result<(Command, Order), String> {
    let KeptOrder { command, by, accept_new_catalog, reason, plan } = parse(document)?;
    // The daemon that was asked has recorded it.
    let call = Call::unrecorded();
    Ok((command, Order { id, by, permit, call, accept_new_catalog, reason, plan: read_digest(plan)? }))
}

/// The answer to a command, as JSON.
pub(in crate::fleet) fn answer(result: &Result<(), Failure>) -> String {
    text(&KeptAnswer { failure: result.as_ref().err().map(KeptFailure::from) })
}

/// Reads the answer to a command.
pub(in crate::fleet) fn read_answer(document: &str) -> Result<(), Failure> {
    match parse::<KeptAnswer>(document) {
        Ok(KeptAnswer { failure: None }) => Ok(()),
        Ok(KeptAnswer { failure: Some(failure) }) => Err(failure.into()),
        Err(error) => Err(Failure::new(Code::Internal, error)),
    }
}

fn read_digest(text: Option<String>) -> Result<Option<PlanDigest>, String> {
    let read = text.map(|text| text.parse::<PlanDigest>().map_err(|failure| failure.to_string()));
    read.transpose()
}

fn text(value: &impl Serialize) -> String {
    let text = serde_json::to_string(value).expect("strings, numbers and names are always JSON");
    // PostgreSQL's jsonb has no such character.
    text.replace("\\u0000", "\\ufffd")
}

fn parse<'a, T: Deserialize<'a>>(document: &'a str) -> Result<T, String> {
    serde_json::from_str(document).map_err(|error| format!("what is kept of it cannot be read: {error}"))
}
