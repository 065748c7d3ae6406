//! What is known of one database of an operation: plain values, without anything that works.

use jiff::Timestamp;

use crate::{
    engine::{Done, Verb},
    fleet::operation::approval::Planned,
    migration::{
        Basis, Code, DatabaseState, Failure, GateOutcome, StepAction, Version,
        event::{DatabaseOutcome, DatabaseReport},
        plan::{ApplyRequest, Extent, RollbackRequest},
    },
};

/// One database of an operation.
#[derive(Debug, Clone, PartialEq)]
pub struct DatabaseRecord {
    /// How it stands.
    pub state: DatabaseState,
    /// The digest of the catalog that it is compared with; empty where none could be read yet.
    pub digest: String,
    /// What its plan was made over, where the operation is held to a plan.
    pub basis: Option<Basis>,
    /// Whether the operation itself has moved that since.
    pub has_moved: bool,
    /// What the plan says, where a protected database is among the operation's.
    pub planned: Option<Planned>,
    /// The steps that the operation has done there, durably, in their order.
    pub done: Vec<(Version, StepAction)>,
    /// How many of them were taken back with the whole, or found to be gone: none of them is in place.
    pub taken_back: usize,
    /// The migration whose up file was run last, where that failed.
    pub failed_at: Option<Version>,
    /// Whoever worked on it before has done the operation's repair, as the journal says.
    pub is_repaired: bool,
    /// The operation may have done more than that: only the journal of the database knows.
    pub is_unknown: bool,
    /// Why it failed, was cancelled or was skipped.
    pub failure: Option<Failure>,
    /// Who holds its lock, while it is waited for.
    pub waits_for: String,
    /// How the gate of its wave came out, and why, where it was asked.
    pub gate: Option<(GateOutcome, String)>,
    /// When its last run began.
    pub started: Option<Timestamp>,
    /// When that ended.
    pub ended: Option<Timestamp>,
}

impl DatabaseRecord {
    /// A database whose turn has not come.
    pub(in crate::fleet) fn waiting() -> Self {
        Self {
            state: DatabaseState::Waiting,
            digest: String::new(),
            basis: None,
            has_moved: false,
            planned: None,
            done: Vec::new(),
            taken_back: 0,
            failed_at: None,
            is_repaired: false,
            is_unknown: false,
            failure: None,
            waits_for: String::new(),
            gate: None,
            started: None,
            ended: None,
        }
    }

    /// The versions that the operation has put in place and that it has not taken away again, in
    /// the order in which it did.
    pub fn applied(&self) -> Vec<Version> {
        let mut applied: Vec<Version> = Vec::new();
        for (version, action) in self.done.iter().skip(self.taken_back) {
            match action {
                StepAction::Apply | StepAction::Resume { .. } => applied.push(version.clone()),
                StepAction::Rollback | StepAction::Undo | StepAction::ForgetAttempt => {
                    applied.retain(|other| other != version);
                }
                StepAction::ClearMark => {}
            }
        }
        applied
    }

    /// What has to be looked at to undo what the operation did: what it applied, and what it failed
    /// to apply.
    pub fn touched(&self) -> Vec<Version> {
        let mut touched = self.applied();
        touched.extend(self.failed_at.clone().filter(|version| !touched.contains(version)));
        touched
    }

    /// What is left of a verb that says how many, after what the operation has done of it; `None` where that
    /// is all. What it applied and took back again is still to be applied.
    pub(in crate::fleet) fn rest_of(&self, verb: &Verb) -> Option<Verb> {
        let gone = |(_, action): &&(Version, StepAction)| {
            matches!(action, StepAction::Rollback | StepAction::Undo | StepAction::ForgetAttempt)
        };
        match verb {
            Verb::Rollback(request) => {
                let Extent::Steps(steps) = request.extent else { return Some(verb.clone()) };
                let done = self.done.iter().filter(gone).count();
                let left = steps.saturating_sub(i64::try_from(done).unwrap_or(i64::MAX));
                let rest = RollbackRequest { extent: Extent::Steps(left), ..request.clone() };
                (done == 0 || left > 0).then_some(Verb::Rollback(rest))
            }
            Verb::Apply(request) => {
                let Some(limit) = request.limit else { return Some(verb.clone()) };
                let done = u32::try_from(self.applied().len()).unwrap_or(u32::MAX);
                let left = limit.saturating_sub(done);
                let rest = ApplyRequest { limit: Some(left), ..request.clone() };
                (done == 0 || left > 0).then_some(Verb::Apply(rest))
            }
            Verb::Repair(_) => (!self.is_repaired).then(|| verb.clone()),
            Verb::Recover { .. } => Some(verb.clone()),
        }
    }

    /// What its run is held to: only as long as the operation itself has not moved it.
    pub(in crate::fleet) fn held_to(&self) -> Option<Basis> {
        self.basis.clone().filter(|_| !self.has_moved)
    }

    /// What was planned does not count any more.
    pub(in crate::fleet) fn hold_to_no_plan(&mut self) {
        (self.basis, self.planned) = (None, None);
    }

    /// Its turn has come.
    pub(super) fn begin(&mut self, now: Timestamp) {
        self.state = DatabaseState::Running;
        self.started = Some(now);
        self.ended = None;
        self.gate = None;
    }

    /// A run on it ended.
    pub(super) fn end(&mut self, report: &DatabaseReport, now: Timestamp) {
        self.ended = Some(now);
        self.waits_for.clear();
        self.done.extend(report.done.iter().map(|done| (done.step.version.clone(), done.step.action)));
        self.has_moved |= !report.done.is_empty() || failed_at(report).is_some();
        match &report.result {
            Ok(outcome) => {
                self.failed_at = None;
                if *outcome == DatabaseOutcome::RolledBack {
                    self.taken_back = self.done.len();
                }
                // Why it was rolled back is still to be read.
                self.failure = self.failure.take().filter(|_| *outcome == DatabaseOutcome::RolledBack);
                self.state = match outcome {
                    DatabaseOutcome::Succeeded => DatabaseState::Succeeded,
                    // What is there was done by an attempt before this one.
                    DatabaseOutcome::UpToDate if !self.done.is_empty() => DatabaseState::Succeeded,
                    DatabaseOutcome::UpToDate | DatabaseOutcome::Planned => DatabaseState::UpToDate,
                    DatabaseOutcome::RolledBack => DatabaseState::RolledBack,
                };
            }
            Err(failure) => {
                self.state = match failure.code {
                    Code::Cancelled => DatabaseState::Cancelled,
                    Code::TargetGone => DatabaseState::Skipped,
                    _ => DatabaseState::Failed,
                };
                self.failed_at = failed_at(report).or_else(|| self.failed_at.take());
                self.failure = Some(Failure::clone(failure));
            }
        }
    }

    /// Whoever works on it may not go on: another may. What was stopped for that waits for its turn.
    pub(super) fn suspend(&mut self) {
        let is_stopped = self.failure.as_ref().is_some_and(|failure| failure.code == Code::Cancelled);
        if self.state == DatabaseState::Cancelled && is_stopped {
            self.state = DatabaseState::Waiting;
            self.failure = None;
        }
    }

    /// Whoever worked on it is gone: what he has done there has to be asked before anything else.
    pub(in crate::fleet) fn take_over(&mut self) {
        if self.state == DatabaseState::Running {
            self.state = DatabaseState::Waiting;
            self.is_unknown = true;
        }
        self.waits_for.clear();
    }

    /// It was not begun after all.
    pub(in crate::fleet) fn hold_back(&mut self) {
        self.state = DatabaseState::Waiting;
    }

    /// Nothing is left here of what the operation did: it was taken back as a whole.
    pub(in crate::fleet) fn note_taken_back(&mut self) {
        if self.state == DatabaseState::Waiting && !self.done.is_empty() && self.touched().is_empty() {
            self.state = DatabaseState::RolledBack;
        }
    }

    /// What the journal says that the operation has done there.
    pub(in crate::fleet) fn learn(&mut self, Done { steps, failed_at, is_repaired }: Done) {
        self.is_repaired = is_repaired;
        self.has_moved |= !steps.is_empty() || failed_at.is_some();
        (self.done, self.failed_at, self.taken_back) = (steps, failed_at, 0);
        self.is_unknown = false;
    }

    /// Whoever worked on it is gone: what became of it is not known.
    pub(super) fn abandon(&mut self) {
        if self.state == DatabaseState::Running {
            self.state = DatabaseState::Failed;
            self.waits_for.clear();
            let message = "The work on the operation ended unexpectedly";
            self.failure = Some(Failure::new(Code::Internal, message));
        }
    }

    /// What was waiting is not begun any more.
    pub(super) fn give_up(&mut self) {
        if self.state == DatabaseState::Waiting {
            self.state = DatabaseState::Cancelled;
        }
    }
}

/// The migration whose up file a run had begun and did not end well.
fn failed_at(report: &DatabaseReport) -> Option<Version> {
    let failure = report.result.as_ref().err()?;
    let version = failure.version.as_deref()?;
    let steps = &report.plan.as_ref()?.steps;
    let is_done = |version: &Version| report.done.iter().any(|done| done.step.version == *version);
    let is_up = |action| matches!(action, StepAction::Apply | StepAction::Resume { .. });
    let step = steps.iter().find(|step| step.version.as_str() == version && is_up(step.action))?;
    (!is_done(&step.version)).then(|| step.version.clone())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::migration::{Mode, Plan, Step, event::StepDone, header::Header};

    fn step(version: &str, action: StepAction) -> Step {
        Step {
            version: Version::from_row(version),
            action,
            mode: Mode::Transactional,
            source: None,
            reason: String::new(),
            header: Header::default(),
            size: 0,
            row_checksum: String::new(),
        }
    }

    /// A run whose first `done` steps were done; it failed at a version, where one is given.
    fn report(steps: &[(&str, StepAction)], done: usize, failed: Option<(Code, &str)>) -> DatabaseReport {
        let steps: Vec<_> = steps.iter().map(|(version, action)| step(version, *action)).collect();
        let finish = |step: &Step| StepDone { step: step.clone(), checksum: String::new(), duration_ms: 1 };
        let done = steps[..done].iter().map(finish).collect();
        let result = match failed {
            None => Ok(DatabaseOutcome::Succeeded),
            Some((code, version)) => Err(Box::new(Failure::new(code, "no").version(version))),
        };
        let plan = Some(Plan { steps, notices: Vec::new() });
        DatabaseReport {
            database: "a".to_owned(),
            plan,
            done,
            done_before: Vec::new(),
            result,
            duration_ms: 1,
        }
    }

    #[test]
    fn what_was_rolled_back_is_in_place_no_more_whoever_did_it() {
        let mut record = DatabaseRecord::waiting();
        let mut end = |report: &DatabaseReport| {
            record.end(report, Timestamp::UNIX_EPOCH);
            (record.applied().len(), record.touched().len())
        };
        assert_eq!(end(&report(&[("0001_a", StepAction::Apply)], 1, None)), (1, 1));
        // Somebody else has taken it away already: there was nothing to do.
        let gone = DatabaseReport { result: Ok(DatabaseOutcome::RolledBack), ..report(&[], 0, None) };
        assert_eq!(end(&gone), (0, 0));
        assert_eq!(end(&report(&[("0001_a", StepAction::Apply)], 1, None)), (1, 1));
        // An undo that stops part-way leaves it.
        let undo: &[_] = &[("0001_a", StepAction::Rollback)];
        assert_eq!(end(&report(undo, 0, Some((Code::MigrationFailed, "0001_a")))), (1, 1));
    }

    #[test]
    fn what_says_how_many_is_done_once() {
        use StepAction::{Apply, Rollback};
        let mut record = DatabaseRecord::waiting();
        let apply = |limit| Verb::Apply(ApplyRequest { limit: Some(limit), ..ApplyRequest::default() });
        let rollback = |steps| {
            Verb::Rollback(RollbackRequest { extent: Extent::Steps(steps), ..RollbackRequest::default() })
        };
        assert_eq!(record.rest_of(&apply(2)), Some(apply(2)));
        record.end(&report(&[("0001_a", Apply)], 1, None), Timestamp::UNIX_EPOCH);
        assert_eq!((record.rest_of(&apply(2)), record.rest_of(&apply(1))), (Some(apply(1)), None));
        // Taken back, it is to be applied again.
        let undone = DatabaseReport {
            result: Ok(DatabaseOutcome::RolledBack),
            ..report(&[("0001_a", Rollback)], 1, None)
        };
        record.end(&undone, Timestamp::UNIX_EPOCH);
        assert_eq!(record.rest_of(&apply(1)), Some(apply(1)));
        let mut record = DatabaseRecord::waiting();
        record.end(&report(&[("0002_b", Rollback)], 1, None), Timestamp::UNIX_EPOCH);
        assert_eq!((record.rest_of(&rollback(2)), record.rest_of(&rollback(1))), (Some(rollback(1)), None));
        // What is refused is still refused.
        assert_eq!(DatabaseRecord::waiting().rest_of(&rollback(0)), Some(rollback(0)));
    }

    #[test]
    fn what_was_applied_and_what_has_to_be_undone() {
        use StepAction::{Apply, ClearMark, ForgetAttempt, Resume, Rollback};
        let check = |reports: &[DatabaseReport], state: DatabaseState, applied: &str, touched: &str| {
            let mut record = DatabaseRecord::waiting();
            for report in reports {
                record.begin(Timestamp::UNIX_EPOCH);
                record.end(report, Timestamp::UNIX_EPOCH);
            }
            let text = |versions: Vec<Version>| {
                versions.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ")
            };
            assert_eq!(record.state, state);
            assert_eq!(
                (text(record.applied()).as_str(), text(record.touched()).as_str()),
                (applied, touched)
            );
        };
        let both: &[_] = &[("0001_a", Apply), ("0002_b", Apply)];
        let failed = |code, version| Some((code, version));
        check(&[report(both, 2, None)], DatabaseState::Succeeded, "0001_a 0002_b", "0001_a 0002_b");
        let half = || report(both, 1, failed(Code::MigrationFailed, "0002_b"));
        check(&[half()], DatabaseState::Failed, "0001_a", "0001_a 0002_b");
        // Refused before anything was begun: the version is not one of the plan's.
        let refused = report(&[], 0, failed(Code::ChecksumMismatch, "0002_b"));
        check(&[refused], DatabaseState::Failed, "", "");
        let stopped = report(both, 1, failed(Code::Cancelled, "0002_b"));
        check(&[stopped], DatabaseState::Cancelled, "0001_a", "0001_a 0002_b");
        // The next attempt settles and goes on; what was settled is not what it applied.
        let again = report(&[("0002_b", ForgetAttempt), ("0002_b", Apply)], 2, None);
        check(&[half(), again], DatabaseState::Succeeded, "0001_a 0002_b", "0001_a 0002_b");
        let resumed = report(&[("0002_b", Resume { done: 1 })], 1, None);
        check(&[half(), resumed], DatabaseState::Succeeded, "0001_a 0002_b", "0001_a 0002_b");
        let undone = report(&[("0002_b", ForgetAttempt), ("0001_a", Rollback)], 2, None);
        check(&[half(), undone], DatabaseState::Succeeded, "", "");
        check(&[report(&[("0001_a", ClearMark)], 1, None)], DatabaseState::Succeeded, "", "");
    }
}
