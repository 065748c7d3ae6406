//! What happens in operations, as far as the audit log tells it: attempts, what is about to be changed, and
//! what came of it.

use serde_json::{Map, Value};

use crate::{
    auditlog::{AuditLog, Entry, UsedFile, call::failed},
    migration::{
        Event, EventKind, Failure, StepAction, Version,
        event::{DatabaseOutcome, DatabaseReport},
    },
};

impl AuditLog {
    /// Records which files are about to be used on a database; comes back when the disk has that. Refused
    /// where it cannot be recorded: then nothing may be changed.
    pub async fn change(
        &self,
        operation: uuid::Uuid,
        requested_by: &str,
        database: &str,
        files: &[UsedFile],
    ) -> Result<(), Failure> {
        let entry = Entry::new("change").with("operation", operation.to_string()).with("who", requested_by);
        self.write_now(entry.with("database", database).with("files", Entry::files(files))).await
    }

    /// Records what has happened, where that is for this log.
    pub fn observe(&self, event: &Event) {
        let entry = match &event.kind {
            // The first attempt is the call's.
            EventKind::OperationStarted { attempt, requested_by, databases, .. } if *attempt > 1 => Some(
                Entry::new("attempt")
                    .with("attempt", *attempt)
                    .with("who", requested_by.as_str())
                    .with("databases", databases.clone()),
            ),
            EventKind::DatabaseFinished(report) => database(report),
            EventKind::OperationFinished { state, why, not_begun, attempt } => Some(
                Entry::new("operation")
                    .with("result", state.name())
                    .with("why", why.as_str())
                    .with("attempt", *attempt)
                    .with("not_begun", not_begun.clone()),
            ),
            _ => None,
        };
        if let Some(entry) = entry {
            self.write(entry.with("operation", event.operation.to_string()));
        }
    }
}

/// What came of a database; `None` where there was nothing to do.
fn database(report: &DatabaseReport) -> Option<Entry> {
    let step = |version: &Version, action: StepAction, checksum: &str| {
        let texts = [("version", version.as_str()), ("action", &action.to_string()), ("checksum", checksum)];
        let given = texts.into_iter().filter(|(_, text)| !text.is_empty());
        given.map(|(key, text)| (key.to_owned(), text.into())).collect::<Map<_, _>>()
    };
    let done = report.done.iter().map(|done| step(&done.step.version, done.step.action, &done.checksum));
    let done: Value = done.collect();
    let before: Value =
        report.done_before.iter().map(|(version, action)| step(version, *action, "")).collect();
    let entry = Entry::new("database").with("database", report.database.as_str()).with("done_before", before);
    let outcome = match &report.result {
        Ok(DatabaseOutcome::UpToDate | DatabaseOutcome::Planned) if report.done.is_empty() => return None,
        Ok(DatabaseOutcome::RolledBack) => "rolled_back",
        Ok(DatabaseOutcome::Succeeded | DatabaseOutcome::UpToDate | DatabaseOutcome::Planned) => "succeeded",
        Err(failure) => return Some(failed(entry.with("result", "failed"), failure).with("done", done)),
    };
    Some(entry.with("result", outcome).with("done", done))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_an_owner_that_is_gone_had_done_is_recorded() {
        let report = DatabaseReport {
            database: "orders".to_owned(),
            plan: None,
            done: Vec::new(),
            done_before: vec![(Version::from_row("0001_a"), StepAction::Apply)],
            result: Ok(DatabaseOutcome::Succeeded),
            duration_ms: 1,
        };
        let told = database(&report).expect("there was something to do").redacted();
        let before = serde_json::json!([{ "version": "0001_a", "action": "apply" }]);
        assert_eq!((told["done_before"].clone(), told["result"].clone()), (before, "succeeded".into()));
    }
}
