//! What has been heard of an operation so far.

use std::collections::BTreeMap;

use crate::rpc::proto::{self, StepAction, event::Kind};

/// What an operation does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verb {
    /// Migrations are applied.
    Apply,
    /// Migrations are rolled back.
    Rollback,
    /// Dirty rows are settled.
    Recover,
    /// A row of a protected database is changed by hand.
    Repair,
}

impl Verb {
    /// As in JSON.
    pub fn name(self) -> &'static str {
        match self {
            Self::Apply => "apply",
            Self::Rollback => "rollback",
            Self::Recover => "recover",
            Self::Repair => "repair",
        }
    }
}

/// How many migrations were treated how, or will be, by what their steps do.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Tally {
    /// Dirty rows that were settled: forgotten, cleared or undone.
    pub recovered: usize,
    /// Migrations that were rolled back.
    pub rolled_back: usize,
    /// Migrations that were applied, from their beginning or from where an attempt had stopped.
    pub applied: usize,
}

impl FromIterator<StepAction> for Tally {
    fn from_iter<I: IntoIterator<Item = StepAction>>(actions: I) -> Self {
        let mut tally = Self::default();
        for action in actions {
            match action {
                StepAction::Unspecified => {}
                StepAction::Apply | StepAction::Resume => tally.applied += 1,
                StepAction::Rollback => tally.rolled_back += 1,
                StepAction::ForgetAttempt | StepAction::ClearMark | StepAction::Undo => tally.recovered += 1,
            }
        }
        tally
    }
}

/// What has been heard of an operation so far: all of it, once it is finished.
#[derive(Debug, Clone)]
pub struct Report {
    /// What the operation does.
    pub verb: Verb,
    /// Whether nothing is really done.
    pub dry_run: bool,
    /// The daemon's id for it.
    pub operation_id: String,
    /// The databases that are done.
    pub databases: Vec<proto::DatabaseResult>,
    /// When the operation began, where it is an earlier run of the same request that is told again.
    pub earlier: Option<prost_types::Timestamp>,
    /// Whether the last event was heard.
    pub is_finished: bool,
    /// Whether no database failed; false until the operation is finished.
    pub succeeded: bool,
    /// The databases that it is about, in this attempt; `None` until its first event is heard.
    pub targets: Option<Vec<String>>,
    /// Where it is in its life, as far as was heard.
    pub state: proto::OperationState,
    /// Why it is there.
    pub why: String,
    /// The databases that were not begun, once it is finished.
    pub not_begun: Vec<String>,
    /// The steps that were heard of, of databases that are not done yet.
    steps: BTreeMap<String, Vec<proto::StepResult>>,
    /// The notices that were heard of, likewise.
    notices: BTreeMap<String, Vec<String>>,
}

impl Report {
    /// Nothing was heard yet.
    pub fn new(verb: Verb, dry_run: bool) -> Self {
        Self {
            verb,
            dry_run,
            operation_id: String::new(),
            databases: Vec::new(),
            earlier: None,
            is_finished: false,
            succeeded: false,
            targets: None,
            state: proto::OperationState::Unspecified,
            why: String::new(),
            not_begun: Vec::new(),
            steps: BTreeMap::new(),
            notices: BTreeMap::new(),
        }
    }

    /// Takes one event.
    pub fn take(&mut self, event: &proto::Event) {
        if self.operation_id.is_empty() {
            self.operation_id.clone_from(&event.operation_id);
        }
        match &event.kind {
            Some(Kind::StepFinished(done)) => self
                .steps
                .entry(event.database.clone())
                .or_default()
                .push(proto::StepResult { step: done.step.clone(), duration_ms: done.duration_ms }),
            Some(Kind::Notice(notice)) => {
                self.notices.entry(event.database.clone()).or_default().push(notice.message.clone());
            }
            Some(Kind::DatabaseFinished(result)) => {
                self.steps.remove(&result.database);
                self.notices.remove(&result.database);
                // Of a database that was tried again, the last result counts.
                self.databases.retain(|other| other.database != result.database);
                self.databases.push(result.clone());
                self.databases.sort_by(|a, b| a.database.cmp(&b.database));
            }
            Some(Kind::OperationFinished(end)) => {
                self.is_finished = true;
                self.succeeded = end.succeeded;
                self.state = end.state();
                self.why.clone_from(&end.why);
                self.not_begun.clone_from(&end.not_begun);
            }
            Some(Kind::OperationStarted(begun)) => {
                self.targets = Some(begun.databases.clone());
            }
            Some(Kind::OperationChanged(changed)) => {
                self.state = changed.to();
                self.why.clone_from(&changed.why);
            }
            _ => {}
        }
    }

    /// Whether it waits for a second person's approval.
    pub fn awaits_approval(&self) -> bool {
        self.state == proto::OperationState::AwaitingApproval
    }

    /// Whether a step was heard of in a database that is not done yet. What was gone on with the journal has
    /// as applied.
    pub fn has_heard_step(&self, database: &str, step: &proto::Step) -> bool {
        let action = |step: &proto::Step| match step.action() {
            StepAction::Resume => StepAction::Apply,
            action => action,
        };
        let heard = self.steps.get(database).into_iter().flatten().filter_map(|heard| heard.step.as_ref());
        heard.into_iter().any(|heard| heard.version == step.version && action(heard) == action(step))
    }

    /// Whether a notice was heard of in a database that is not done yet.
    pub fn has_heard(&self, database: &str, notice: &str) -> bool {
        self.notices.get(database).is_some_and(|notices| notices.iter().any(|heard| heard == notice))
    }

    /// The databases, with those that are not done yet: their outcome is unspecified, their steps
    /// are what was heard of.
    pub fn all_databases(&self) -> Vec<proto::DatabaseResult> {
        let unfinished = self.steps.iter().map(|(database, done)| proto::DatabaseResult {
            database: database.clone(),
            done: done.clone(),
            notices: self.notices.get(database).cloned().unwrap_or_default(),
            ..proto::DatabaseResult::default()
        });
        let mut databases: Vec<_> = self.databases.iter().cloned().chain(unfinished).collect();
        databases.sort_by(|a, b| a.database.cmp(&b.database));
        databases
    }
}
