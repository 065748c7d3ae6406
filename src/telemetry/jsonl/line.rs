//! What the record says of each event.

use std::{collections::HashSet, iter};

use jiff::Timestamp;
use serde_json::{Map, Value};
use uuid::Uuid;

use crate::{
    migration::{
        Alert, AlertState, AuditReport, Code, Direction, Event, EventKind, Failure, Severity, StepAction,
        Version,
        event::{DatabaseOutcome, DatabaseReport, StepDone},
        plan::Source,
    },
    telemetry::jsonl::{observed::Observed, operation},
};

/// One line, not yet written.
pub(super) struct Line {
    fields: Vec<(&'static str, Value)>,
}

/// The databases of running operations whose failure was told with the step that failed.
pub(super) type Reported = HashSet<(Uuid, String)>;

impl Line {
    /// A line with what each begins with.
    pub(super) fn new(time: Timestamp, level: &'static str, message: impl Into<String>) -> Self {
        let fields = Vec::with_capacity(12);
        Self { fields }
            .with("timestamp", format!("{time:.3}"))
            .with("level", level)
            .with("message", message.into())
    }

    /// The same, with one more field.
    pub(super) fn with(mut self, name: &'static str, value: impl Into<Value>) -> Self {
        self.fields.push((name, value.into()));
        self
    }

    pub(super) fn with_some(self, name: &'static str, value: Option<impl Into<Value>>) -> Self {
        match value {
            Some(value) => self.with(name, value),
            None => self,
        }
    }

    /// Where and in which operation it happened.
    pub(super) fn of(self, event: &Event) -> Self {
        let database = Some(event.database.as_str()).filter(|name| !name.is_empty());
        self.with_some("database", database)
            .with("operation", event.operation.to_string())
            .with_some("trace_id", event.trace.map(|trace| trace.trace_id()))
    }

    /// Why it failed; never the text of the file.
    fn why(mut self, failure: &Failure) -> Self {
        let error = failure.server_message.as_deref().unwrap_or(&failure.message);
        self = self.with("code", failure.code.as_str()).with_some("sqlstate", failure.sqlstate.as_deref());
        if self.message() != Some(error) {
            self = self.with("error", error);
        }
        if failure.server_message.is_some() && self.message() != Some(&failure.message) {
            self = self.with("reason", failure.message.as_str());
        }
        if let Some(place) = &failure.location {
            self =
                self.with("file", place.file.as_str()).with("line", place.line).with("column", place.column);
        }
        let details = Some(failure.details.clone()).filter(|details| !details.is_empty());
        self.with_some("details", details)
    }

    fn message(&self) -> Option<&str> {
        self.fields.get(2).and_then(|(_, message)| message.as_str())
    }

    /// The line's bytes, redacted, the fields in the order in which they were given.
    pub(super) fn encode(self, redact: fn(&mut Value)) -> Vec<u8> {
        let names: Vec<_> = self.fields.iter().map(|(name, _)| *name).collect();
        let fields: Map<_, _> =
            self.fields.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
        let mut object = Value::Object(fields);
        redact(&mut object);
        let pairs = names.iter().map(|name| format!("\"{name}\":{}", object[*name]));
        let mut bytes = format!("{{{}}}", pairs.collect::<Vec<_>>().join(",")).into_bytes();
        bytes.push(b'\n');
        bytes
    }
}

/// The lines of an event; most have one, some have none.
pub(super) fn lines(event: &Event, reported: &mut Reported, observed: &mut Observed) -> Vec<Line> {
    let line = |level, message: &str| Line::new(event.time, level, message);
    let one = match &event.kind {
        EventKind::OperationStarted { .. }
        | EventKind::OperationChanged { .. }
        | EventKind::WaveStarted { .. }
        | EventKind::WaveFinished { .. }
        | EventKind::GateChecked { .. } => return operation::line(event).into_iter().collect(),
        EventKind::LockWaiting { holder } => {
            line("info", "Waiting for the migration lock").with("holder", holder.as_str()).of(event)
        }
        EventKind::FoundDirty { versions } => {
            let versions: Vec<_> = versions.iter().map(ToString::to_string).collect();
            line("warn", "Found migrations in dirty state").with("versions", versions).of(event)
        }
        EventKind::StepRetrying { version, attempt, delay, blockers, sqlstate } => {
            line("warn", "Migration will be retried")
                .with("version", version.as_str())
                .of(event)
                .with("attempt", *attempt)
                .with("delay_ms", u64::try_from(delay.as_millis()).unwrap_or(u64::MAX))
                .with("sqlstate", sqlstate.as_str())
                .with("blockers", blockers.as_slice())
        }
        EventKind::StepFinished(done) => step_done(event, done),
        EventKind::StepFailed { version, direction, failure, duration_ms } => {
            reported.insert((event.operation, event.database.clone()));
            let failed = |line: Line| line.with("type", direction.to_string()).of(event);
            let mut lines = in_the_runbooks_words(event, failure, failed);
            if !tell_all(&lines, failure) {
                let line = line("error", message_of(failure)).with("version", version.as_str());
                lines.push(failed(line).with("duration_ms", *duration_ms).why(failure));
            }
            return lines;
        }
        // About one migration it is progress; about the directory or the database, a warning.
        EventKind::Notice { version, message } => {
            line(if version.is_some() { "info" } else { "warn" }, "Notice")
                .with_some("version", version.as_ref().map(ToString::to_string))
                .with("notice", message.as_str())
                .of(event)
        }
        EventKind::CatalogChanged(change) => {
            let names = |versions: &[Version]| versions.iter().map(ToString::to_string).collect::<Vec<_>>();
            let message = if change.is_empty() {
                "Migration directory can be read again"
            } else {
                "Migrations changed"
            };
            line("info", message)
                .with("directory", change.directory.as_str())
                .with("added", names(&change.added))
                .with("edited", names(&change.edited))
                .with("removed", names(&change.removed))
                .with("digest", change.digest.as_str())
        }
        EventKind::CatalogFailed { directory, failure } => {
            line("error", "Migration directory cannot be read")
                .with("directory", directory.as_str())
                .why(failure)
        }
        EventKind::Observed(observation) => return observed.lines(observation),
        EventKind::InventoryLoaded(change) => {
            observed.forget(&change.removed);
            if change.is_empty() {
                return Vec::new();
            }
            line("info", "Inventory changed")
                .with("added", change.added.as_slice())
                .with("changed", change.changed.as_slice())
                .with("removed", change.removed.as_slice())
        }
        EventKind::DatabaseFinished(report) => return database_finished(event, report, reported),
        EventKind::OperationFinished { .. } => {
            reported.retain(|(operation, _)| *operation != event.operation);
            return operation::line(event).into_iter().collect();
        }
        EventKind::AlertChanged(alert) => return alert_changed(event, alert).into_iter().collect(),
        EventKind::AuditFinished(report) => audit_finished(event, report),
        EventKind::DatabaseStarted { .. }
        | EventKind::LockTaken { .. }
        | EventKind::StepStarted { .. }
        | EventKind::StepProgress { .. }
        | EventKind::AlertSent { .. } => {
            return Vec::new();
        }
    };
    vec![one]
}

/// Of an alert that is pending, or was over before it fired, nobody is told.
fn alert_changed(event: &Event, alert: &Alert) -> Option<Line> {
    alert.fired?;
    let kind = alert.finding.kind;
    let grave = if kind.severity() == Severity::Critical { "error" } else { "warn" };
    let (level, message) = match alert.state {
        AlertState::Pending => return None,
        AlertState::Firing => (grave, "Alert is firing"),
        AlertState::Acknowledged => ("info", "Alert acknowledged"),
        AlertState::Resolved => ("info", "Alert resolved"),
    };
    let given = |text: &str| Some(text.to_owned()).filter(|text| !text.is_empty());
    let note = alert.acknowledged.as_ref().filter(|_| alert.state == AlertState::Acknowledged);
    let line = Line::new(event.time, level, message)
        .with("id", alert.id.to_string())
        .with("kind", kind.name())
        .with("severity", kind.severity().name())
        .with_some("database", given(&alert.database))
        .with_some(kind.subject_name(), given(&alert.finding.subject))
        .with("since", format!("{:.3}", alert.started))
        .with("flaps", alert.flaps)
        .with("finding", alert.finding.message.as_str())
        .with_some("by", note.map(|note| note.by.as_str()))
        .with_some("reason", note.map(|note| note.reason.as_str()))
        .with_some("until", note.and_then(|note| note.until).map(|until| format!("{until:.3}")));
    Some(line)
}

/// An audit belongs to no operation.
fn audit_finished(event: &Event, report: &AuditReport) -> Line {
    let [info, warning, critical] = Severity::ALL.map(|severity| report.count(severity));
    let took = u64::try_from(report.ended.duration_since(report.started).as_millis()).unwrap_or_default();
    Line::new(event.time, if warning + critical > 0 { "warn" } else { "info" }, "Audit finished")
        .with("audit", report.id.to_string())
        .with("name", report.name.as_str())
        .with("databases", report.databases.len())
        .with("critical", critical)
        .with("warning", warning)
        .with("info", info)
        .with("duration_ms", took)
}

fn step_done(event: &Event, done: &StepDone) -> Line {
    let action = done.step.action;
    let message = match action {
        StepAction::Apply | StepAction::Resume { .. } => "Migration applied successfully",
        StepAction::Rollback => "Migration rolled back successfully",
        StepAction::ForgetAttempt | StepAction::ClearMark | StepAction::Undo => "Recovered dirty migration",
    };
    let how = action.settles().then(|| action.to_string());
    let from_journal =
        done.step.source == Some(Source::Journal) && action.direction() == Some(Direction::Down);
    Line::new(event.time, "info", message)
        .with("version", done.step.version.as_str())
        .with_some("type", action.direction().map(|direction| direction.to_string()))
        .with("checksum", done.checksum.as_str())
        .of(event)
        .with("duration_ms", done.duration_ms)
        .with_some("how", how)
        .with_some("reason", Some(done.step.reason.as_str()).filter(|reason| !reason.is_empty()))
        .with_some("down_from", from_journal.then_some("journal"))
}

fn database_finished(event: &Event, report: &DatabaseReport, reported: &mut Reported) -> Vec<Line> {
    let told = reported.remove(&(event.operation, event.database.clone()));
    let (outcome, steps) = match &report.result {
        Err(_) if told => return Vec::new(),
        Err(failure) => {
            let mut lines = in_the_runbooks_words(event, failure, |line| line.of(event));
            if !tell_all(&lines, failure) {
                let line = Line::new(event.time, "error", "Database failed");
                let line = line.with_some("version", failure.version.as_deref()).of(event);
                lines.push(line.with("duration_ms", report.duration_ms).why(failure));
            }
            return lines;
        }
        Ok(DatabaseOutcome::Succeeded) => ("succeeded", report.done_before.len() + report.done.len()),
        Ok(DatabaseOutcome::UpToDate) => ("up to date", 0),
        Ok(DatabaseOutcome::RolledBack) => ("rolled back", report.done.len()),
        Ok(DatabaseOutcome::Planned) => ("planned", report.plan.as_ref().map_or(0, |plan| plan.steps.len())),
    };
    let line =
        Line::new(event.time, "info", "Database finished").with("outcome", outcome).with("steps", steps);
    vec![line.of(event).with("duration_ms", report.duration_ms)]
}

/// What the log says of a step that failed.
fn message_of(failure: &Failure) -> &str {
    match failure.code {
        Code::MigrationFailed | Code::LockTimeout | Code::StatementTimeout | Code::Cancelled => {
            "Migration failed and was rolled back"
        }
        Code::PartlyApplied | Code::Escaped | Code::InvalidIndex | Code::ConnectionLost => "Migration failed",
        _ => "Migration refused",
    }
}

/// The errors that the runbook words itself: one line for each migration concerned.
fn in_the_runbooks_words(event: &Event, failure: &Failure, rest: impl Fn(Line) -> Line) -> Vec<Line> {
    let line = |version: &str, message: String, detail: Option<&str>| {
        let line = rest(Line::new(event.time, "error", message).with("version", version));
        line.with("code", failure.code.as_str()).with_some("error", detail)
    };
    let version = failure.version.as_deref();
    let details = || failure.details.iter().map(String::as_str);
    match failure.code {
        Code::ChecksumMismatch if failure.details.is_empty() => version
            .map(|version| line(version, format!("Migration {version} checksum mismatch"), None))
            .into_iter()
            .collect(),
        Code::ChecksumMismatch => details()
            .map(|detail| {
                let version = detail.split([' ', ':']).next().unwrap_or_default();
                line(version, format!("Migration {version} checksum mismatch"), Some(detail))
            })
            .collect(),
        Code::NoDownForDirty => version
            .map(|version| {
                line(version, "No down migration found for dirty migration".into(), details().next())
            })
            .into_iter()
            .collect(),
        _ => iter::once(failure.message.as_str())
            .filter(|_| failure.details.is_empty())
            .chain(details())
            .filter_map(|text| {
                let version = text.split_once("Migration ")?.1.split_once(" is empty")?.0;
                Some(line(version, format!("Migration {version} is empty"), None))
            })
            .collect(),
    }
}

/// Whether lines in the runbook's words tell all of a failure.
fn tell_all(lines: &[Line], failure: &Failure) -> bool {
    lines.len() >= failure.details.len().max(1)
}
