//! Conversion at the edge, once: requests become the domain's, the domain's values become messages.

use std::{collections::HashMap, sync::Arc};

use jiff::Timestamp;
use uuid::Uuid;

use crate::{
    access::Permit,
    auditlog::Call,
    engine::{LeftOut, Repair, RepairAction, Verb},
    fleet::{self, MemberStatus, inventory::Member, selector::Selection, strategy::Strategy},
    migration::{
        Attempt, Code, Event, EventKind, Failure, Finding, FindingKind, Mode, Severity, Step, StepAction,
        TraceContext, Version,
        drift::{Standing, State},
        event::{DatabaseOutcome, DatabaseReport, StepDone},
        plan::{ApplyRequest, Extent, RollbackRequest, Source},
    },
    redact::plain,
    rpc::{operation, proto},
};

/// The longest name of somebody who asks.
pub(super) const LONGEST_NAME: usize = 200;

/// A reason is a sentence or two.
pub(super) const LONGEST_REASON: usize = 1_000;

/// What is known of a request beside its message: its place in a trace, what it may do, and where it is
/// recorded.
pub type Given = (Option<TraceContext>, Permit, Arc<Call>);

fn bad(message: impl Into<String>) -> Failure {
    Failure::new(Code::BadRequest, message)
}

/// Reads what every request says of itself.
pub fn request(
    selection: Option<proto::Selection>,
    context: Option<proto::RequestContext>,
    (trace, permit, call): Given,
) -> Result<fleet::Request, Failure> {
    let context = context.unwrap_or_default();
    let id = match context.request_id.as_str() {
        "" => None,
        text => {
            Some(Uuid::parse_str(text).map_err(|_| bad(format!("The request id {text:?} is not a UUID")))?)
        }
    };
    let requested_by = requested_by(&permit, &context.requested_by);
    let reason = plain(&context.reason, LONGEST_REASON);
    let (selection, strategy) = (self::selection(selection), Strategy::default());
    Ok(fleet::Request { id, requested_by, reason, selection, strategy, plan: None, trace, permit, call })
}

/// Who asks: by what is proven, else by what they say of themselves.
pub(super) fn requested_by(permit: &Permit, claimed: &str) -> String {
    permit.requested_by(&plain(claimed, LONGEST_NAME))
}

/// Reads a selection.
pub fn selection(selection: Option<proto::Selection>) -> Selection {
    let selection = selection.unwrap_or_default();
    Selection { databases: selection.databases, labels: selection.labels, all: selection.all }
}

/// Reads what an apply is asked to do; `reversible`: only what could be taken back.
pub fn apply(request: &proto::ApplyRequest, reversible: bool) -> Verb {
    Verb::Apply(ApplyRequest {
        to: Some(request.to.clone()).filter(|to| !to.is_empty()),
        limit: Some(request.limit).filter(|&limit| limit > 0),
        no_auto_recover: request.no_auto_recover,
        resume: request.resume,
        reversible,
    })
}

/// Reads what a rollback is asked to do.
pub fn rollback(request: &proto::RollbackRequest) -> Result<Verb, Failure> {
    let extent = match (request.steps, request.to.as_str()) {
        (Some(_), to) if !to.is_empty() => return Err(bad("steps and to do not go together")),
        (None, to) if !to.is_empty() => Extent::To(to.to_owned()),
        (steps, _) => Extent::Steps(steps.unwrap_or(1)),
    };
    let source = match request.down_source() {
        proto::DownSource::Unspecified => None,
        proto::DownSource::File => Some(Source::File),
        proto::DownSource::Journal => Some(Source::Journal),
    };
    let no_auto_recover = request.no_auto_recover;
    Ok(Verb::Rollback(RollbackRequest { extent, no_auto_recover, source, most: None }))
}

/// Reads what a repair is asked to do.
pub fn repair(request: proto::RepairRequest) -> Result<Repair, Failure> {
    if request.version.is_empty() {
        return Err(bad("A repair names the version of the row"));
    }
    if request.reason.trim().is_empty() {
        return Err(bad("A repair needs a reason: the journal keeps it"));
    }
    let action = match request.action() {
        proto::RepairAction::Unspecified => return Err(bad("A repair names its action")),
        proto::RepairAction::ClearDirty => RepairAction::ClearDirty,
        proto::RepairAction::Forget => RepairAction::Forget,
        proto::RepairAction::AcceptChecksum => RepairAction::AcceptChecksum,
        proto::RepairAction::Rename if request.new_version.is_empty() => {
            return Err(bad("A rename names the new version"));
        }
        proto::RepairAction::Rename => RepairAction::Rename(request.new_version),
        proto::RepairAction::MarkApplied => RepairAction::MarkApplied,
    };
    Ok(Repair { action, version: request.version, reason: request.reason })
}

/// Tells a failure.
pub fn failure(failure: &Failure) -> proto::Failure {
    proto::Failure {
        code: failure.code.as_str().to_owned(),
        message: failure.message.clone(),
        hint: failure.remedy().to_owned(),
        version: failure.version.clone().unwrap_or_default(),
        location: failure.location.as_ref().map(|location| proto::Location {
            file: location.file.clone(),
            line: location.line,
            column: location.column,
            excerpt: location.excerpt.clone(),
        }),
        sqlstate: failure.sqlstate.clone().unwrap_or_default(),
        server_hint: failure.server_hint.clone().unwrap_or_default(),
        details: failure.details.clone(),
        server_message: failure
            .operator_message
            .as_ref()
            .or(failure.server_message.as_ref())
            .cloned()
            .unwrap_or_default(),
    }
}

/// The proto's name of what a step does.
pub(super) fn step_action(action: StepAction) -> proto::StepAction {
    match action {
        StepAction::Apply => proto::StepAction::Apply,
        StepAction::Rollback => proto::StepAction::Rollback,
        StepAction::ForgetAttempt => proto::StepAction::ForgetAttempt,
        StepAction::ClearMark => proto::StepAction::ClearMark,
        StepAction::Undo => proto::StepAction::Undo,
        StepAction::Resume { .. } => proto::StepAction::Resume,
    }
}

/// The proto's name of where a script comes from.
pub(super) fn script_source(source: Option<Source>) -> proto::ScriptSource {
    match source {
        None => proto::ScriptSource::Unspecified,
        Some(Source::File) => proto::ScriptSource::File,
        Some(Source::Journal) => proto::ScriptSource::Journal,
    }
}

fn step(step: &Step) -> proto::Step {
    let action = step_action(step.action);
    let source = script_source(step.source);
    proto::Step {
        version: step.version.to_string(),
        action: action.into(),
        transactional: step.mode == Mode::Transactional,
        source: source.into(),
        reason: step.reason.clone(),
        description: step.header.description.clone(),
        impact: step.header.impact.clone(),
        rollback_impact: step.header.rollback_impact.clone(),
        data_loss: step.header.data_loss.clone(),
        size_bytes: step.size,
    }
}

fn done_before((version, action): &(Version, StepAction)) -> proto::Step {
    proto::Step {
        version: version.to_string(),
        action: step_action(*action).into(),
        ..proto::Step::default()
    }
}

fn done(done: &StepDone) -> proto::StepResult {
    proto::StepResult { step: Some(step(&done.step)), duration_ms: done.duration_ms }
}

/// Tells how a database came out.
pub fn report(report: &DatabaseReport) -> proto::DatabaseResult {
    let planned_nothing = report.plan.as_ref().is_some_and(|plan| plan.steps.is_empty());
    let outcome = match &report.result {
        Ok(DatabaseOutcome::Succeeded) => proto::DatabaseOutcome::Succeeded,
        Ok(DatabaseOutcome::UpToDate) => proto::DatabaseOutcome::UpToDate,
        Ok(DatabaseOutcome::RolledBack) => proto::DatabaseOutcome::RolledBack,
        Ok(DatabaseOutcome::Planned) if planned_nothing => proto::DatabaseOutcome::UpToDate,
        Ok(DatabaseOutcome::Planned) => proto::DatabaseOutcome::Planned,
        Err(failure) if failure.code == Code::Cancelled => proto::DatabaseOutcome::Cancelled,
        Err(_) => proto::DatabaseOutcome::Failed,
    };
    // The plan is told where it was not carried out: what was done is told as such.
    let plan = report.plan.iter().filter(|_| report.done.is_empty()).flat_map(|plan| &plan.steps);
    proto::DatabaseResult {
        database: report.database.clone(),
        outcome: outcome.into(),
        done: report.done.iter().map(done).collect(),
        done_before: report.done_before.iter().map(done_before).collect(),
        failure: report.result.as_ref().err().map(|failed| failure(failed)),
        notices: report.plan.iter().flat_map(|plan| plan.notices.clone()).collect(),
        duration_ms: report.duration_ms,
        plan: plan.map(step).collect(),
    }
}

/// Tells an event; `None` where it is for the log only.
pub fn event(event: &Event) -> Option<proto::Event> {
    use proto::event::Kind;
    let millis = |duration: std::time::Duration| u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
    let kind = match &event.kind {
        EventKind::OperationStarted { .. }
        | EventKind::OperationChanged { .. }
        | EventKind::WaveStarted { .. }
        | EventKind::WaveFinished { .. }
        | EventKind::GateChecked { .. }
        | EventKind::OperationFinished { .. } => operation::happened(&event.kind)?,
        EventKind::DatabaseStarted { steps } => {
            Kind::DatabaseStarted(proto::DatabaseStarted { steps: steps.iter().map(step).collect() })
        }
        EventKind::LockWaiting { holder } => Kind::LockWaiting(proto::LockWaiting { holder: holder.clone() }),
        EventKind::FoundDirty { versions } => {
            let versions: Vec<_> = versions.iter().map(Version::as_str).collect();
            let message = format!("Found migrations in dirty state: {}", versions.join(", "));
            Kind::Notice(proto::Notice { version: String::new(), message })
        }
        EventKind::StepStarted { step: started, number, total } => Kind::StepStarted(proto::StepStarted {
            step: Some(step(started)),
            number: *number,
            total: *total,
        }),
        EventKind::StepProgress { version, done, total } => Kind::StepProgress(proto::StepProgress {
            version: version.to_string(),
            done: *done,
            total: *total,
        }),
        EventKind::StepRetrying { version, attempt, delay, blockers, sqlstate } => {
            Kind::StepRetrying(proto::StepRetrying {
                version: version.to_string(),
                attempt: *attempt,
                delay_ms: millis(*delay),
                blockers: blockers.clone(),
                sqlstate: sqlstate.clone(),
            })
        }
        EventKind::StepFinished(finished) => Kind::StepFinished(proto::StepFinished {
            step: Some(step(&finished.step)),
            duration_ms: finished.duration_ms,
        }),
        // The client hears of it in the database's result.
        EventKind::StepFailed { .. }
        // What follows shows that it has the lock.
        | EventKind::LockTaken { .. }
        // These belong to no operation.
        | EventKind::Observed(_)
        | EventKind::CatalogChanged(_)
        | EventKind::InventoryLoaded(_)
        | EventKind::CatalogFailed { .. }
        | EventKind::AuditFinished(_)
        | EventKind::AlertChanged(_)
        | EventKind::AlertSent { .. } => return None,
        EventKind::Notice { version, message } => Kind::Notice(proto::Notice {
            version: version.as_ref().map(ToString::to_string).unwrap_or_default(),
            message: message.clone(),
        }),
        EventKind::DatabaseFinished(finished) => Kind::DatabaseFinished(report(finished)),
    };
    Some(proto::Event {
        operation_id: event.operation.to_string(),
        time: Some(timestamp(event.time)),
        database: event.database.clone(),
        kind: Some(kind),
    })
}

/// Tells a time.
pub(super) fn timestamp(time: Timestamp) -> prost_types::Timestamp {
    prost_types::Timestamp { seconds: time.as_second(), nanos: time.subsec_nanosecond() }
}

/// Tells how a database stands.
pub fn status(status: &MemberStatus) -> proto::DatabaseStatus {
    let mut message = proto::DatabaseStatus {
        database: status.member.name().to_owned(),
        labels: labels(&status.member),
        catalog_failure: status.catalog_failure.as_ref().map(failure),
        ..Default::default()
    };
    let (status, notices) = match &status.status {
        Ok(status) => status,
        Err(failed) => {
            message.failure = Some(failure(failed));
            return message;
        }
    };
    message.notices.clone_from(notices);
    message.lock_holder = status.lock_holder.clone().unwrap_or_default();
    if let Some(LeftOut { applied, newest, .. }) = &status.left_out {
        message.applied = *applied;
        message.current_version = newest.as_ref().map(ToString::to_string).unwrap_or_default();
    }
    for standing in &status.standings {
        let has = |finding| u32::from(standing.findings.contains(&finding));
        match standing.state {
            State::Applied => {
                message.applied += 1;
                message.current_version = standing.version.to_string();
            }
            State::Pending => message.pending += 1,
            State::Dirty(_) => message.dirty += 1,
        }
        message.drift += has(FindingKind::ChecksumDrift);
        message.missing += has(FindingKind::MissingFile);
        message.out_of_order += has(FindingKind::OutOfOrder);
        message.migrations.push(migration(standing, status.lock_holder.is_some()));
    }
    message
}

fn migration(standing: &Standing, is_locked: bool) -> proto::MigrationStatus {
    let (state, explanation) = match standing.state {
        State::Applied => (proto::MigrationState::Applied, String::new()),
        State::Pending => (proto::MigrationState::Pending, String::new()),
        State::Dirty(_) if is_locked => {
            (proto::MigrationState::Running, "the lock is held: an attempt is under way".to_owned())
        }
        State::Dirty(verdict) => (proto::MigrationState::Dirty, verdict.to_string()),
    };
    proto::MigrationStatus {
        version: standing.version.to_string(),
        state: state.into(),
        applied_at: standing.applied_at.map(timestamp),
        checksum: standing.checksum.clone(),
        findings: standing.findings.iter().map(|&it| finding_kind(it).into()).collect(),
        explanation,
    }
}

/// The proto's name of a kind of finding.
pub(super) fn finding_kind(kind: FindingKind) -> proto::FindingKind {
    match kind {
        FindingKind::Dirty => proto::FindingKind::Dirty,
        FindingKind::ChecksumDrift => proto::FindingKind::ChecksumDrift,
        FindingKind::LineEndings => proto::FindingKind::LineEndings,
        FindingKind::MissingFile => proto::FindingKind::MissingFile,
        FindingKind::UnknownRow => proto::FindingKind::UnknownRow,
        FindingKind::OutOfOrder => proto::FindingKind::OutOfOrder,
        FindingKind::PendingTooLong => proto::FindingKind::PendingTooLong,
        FindingKind::ForeignTable => proto::FindingKind::ForeignTable,
        FindingKind::TableGone => proto::FindingKind::TableGone,
        FindingKind::InventoryInvalid => proto::FindingKind::InventoryInvalid,
        FindingKind::AccessUnreadable => proto::FindingKind::AccessUnreadable,
        FindingKind::InvalidIndex => proto::FindingKind::InvalidIndex,
        FindingKind::NotValidConstraint => proto::FindingKind::NotValidConstraint,
        FindingKind::AttemptInterrupted => proto::FindingKind::AttemptInterrupted,
        FindingKind::DatabaseUnreachable => proto::FindingKind::DatabaseUnreachable,
        FindingKind::DirectoryUnreadable => proto::FindingKind::DirectoryUnreadable,
        FindingKind::NoDown => proto::FindingKind::NoDown,
        FindingKind::LogUnwritable => proto::FindingKind::LogUnwritable,
        FindingKind::OperationHalted => proto::FindingKind::OperationHalted,
    }
}

/// One finding of a database, with what to do about it.
pub(super) fn finding(database: &str, finding: &Finding) -> proto::Finding {
    let severity = match finding.kind.severity() {
        Severity::Info => proto::Severity::Info,
        Severity::Warning => proto::Severity::Warning,
        Severity::Critical => proto::Severity::Critical,
    };
    proto::Finding {
        database: database.to_owned(),
        kind: finding_kind(finding.kind).into(),
        severity: severity.into(),
        subject: finding.subject.clone(),
        message: finding.message.clone(),
        evidence: finding.evidence.clone(),
        remedy: finding.kind.remedy().to_owned(),
    }
}

pub(super) fn labels(member: &Member) -> HashMap<String, String> {
    member.labels.iter().map(|(key, value)| (key.clone(), value.clone())).collect()
}

/// Tells an attempt.
pub fn attempt(database: &str, attempt: &Attempt) -> proto::Attempt {
    proto::Attempt {
        database: database.to_owned(),
        id: attempt.id,
        operation_id: attempt.operation.map(|id| id.to_string()).unwrap_or_default(),
        version: attempt.version.to_string(),
        direction: attempt.direction.clone(),
        mode: attempt.mode.clone(),
        outcome: attempt.outcome.clone(),
        statements_done: attempt.statements_done,
        statements_total: attempt.statements_total,
        started_at: Some(timestamp(attempt.started_at)),
        finished_at: attempt.finished_at.map(timestamp),
        duration_ms: attempt.duration_ms.unwrap_or_default(),
        sqlstate: attempt.sqlstate.clone().unwrap_or_default(),
        message: attempt.message.clone().unwrap_or_default(),
        requested_by: attempt.requested_by.clone(),
        instance: attempt.instance.clone(),
        checksum: attempt.checksum.clone(),
        trace_id: attempt.trace_id.clone().unwrap_or_default(),
    }
}
