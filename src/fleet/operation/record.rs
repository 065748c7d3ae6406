//! What is known of an operation: plain values, without anything that works.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use uuid::Uuid;

use crate::{
    engine::Verb,
    fleet::{
        operation::{DatabaseRecord, approval::Approval},
        selector::Selection,
        strategy::{Strategy, Wave},
    },
    migration::{DatabaseState, OperationState, PlanDigest},
};

/// An operation, as it stands.
#[derive(Debug, Clone, PartialEq)]
pub struct Record {
    /// Its id, which is the request's.
    pub id: Uuid,
    /// What it does.
    pub verb: Verb,
    /// Who asked for it.
    pub requested_by: String,
    /// Why, in their words; may be empty.
    pub reason: String,
    /// Which databases they named.
    pub selection: Selection,
    /// How it goes through them.
    pub strategy: Strategy,
    /// The digest of the plan that it is held to.
    pub plan: Option<PlanDigest>,
    /// The approval that its attempt takes, or took; `None` where it takes none.
    pub approval: Option<Approval>,
    /// Where it is in its life.
    pub state: OperationState,
    /// Why it is there, in a sentence without a full stop; may be empty.
    pub why: String,
    /// Counts how often it was begun, from 1.
    pub attempt: u32,
    /// Until when it pauses, where it goes on by itself then.
    pub pauses_until: Option<Timestamp>,
    /// What it applied is being rolled back, and why; `None`: it goes forward.
    pub undoing: Option<String>,
    /// Its waves, in their order.
    pub waves: Vec<WaveRecord>,
    /// Its databases, frozen when it was asked for.
    pub databases: BTreeMap<String, DatabaseRecord>,
    /// When it was asked for.
    pub created: Timestamp,
    /// When it came to its state.
    pub changed: Timestamp,
    /// When its last attempt ended; `None` while one is under way.
    pub ended: Option<Timestamp>,
}

/// One wave of an operation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WaveRecord {
    /// Its name and its databases.
    pub wave: Wave,
    /// Whether nothing more is expected of it: its databases are done, and its gate held or was
    /// passed over.
    pub is_settled: bool,
}

impl Record {
    /// The names of its databases.
    pub(in crate::fleet) fn names(&self) -> BTreeSet<String> {
        self.databases.keys().cloned().collect()
    }

    /// How many databases stand so.
    pub fn count(&self, is_meant: impl Fn(DatabaseState) -> bool) -> usize {
        self.databases.values().filter(|database| is_meant(database.state)).count()
    }

    /// Whether nothing is expected of it any more: every database was begun, and no gate is open.
    pub(in crate::fleet) fn is_whole(&self) -> bool {
        let is_waiting = |state| state == DatabaseState::Waiting;
        let is_settled = self.strategy.gate.is_none() || self.waves.iter().all(|wave| wave.is_settled);
        is_settled && self.count(is_waiting) == 0
    }

    /// On how many databases something is to be undone.
    pub(in crate::fleet) fn touched(&self) -> usize {
        self.databases.values().filter(|database| !database.touched().is_empty()).count()
    }

    /// How many databases of a wave have failed.
    pub(in crate::fleet) fn failed_in(&self, wave: usize) -> usize {
        let names = self.waves.get(wave).map(|wave| wave.wave.databases.iter()).into_iter().flatten();
        let databases = names.filter_map(|name| self.databases.get(name));
        databases.filter(|database| database.state.is_failure()).count()
    }

    /// Those of a wave that are still to be begun, in their order.
    pub(in crate::fleet) fn to_do(&self, wave: usize) -> Vec<String> {
        let is_waiting = |name: &&String| {
            self.databases.get(*name).is_some_and(|database| database.state == DatabaseState::Waiting)
        };
        let names = self.waves.get(wave).map(|wave| wave.wave.databases.iter()).into_iter().flatten();
        names.filter(is_waiting).cloned().collect()
    }

    /// Makes what failed, was cancelled, was skipped or was rolled back wait for its turn again.
    pub(in crate::fleet) fn try_again(&mut self) {
        for database in self.databases.values_mut() {
            if !database.state.is_well() {
                database.state = DatabaseState::Waiting;
                database.failure = None;
            }
        }
        let databases = &self.databases;
        let waits = |name: &String| {
            databases.get(name).is_some_and(|database| database.state == DatabaseState::Waiting)
        };
        for wave in &mut self.waves {
            wave.is_settled &= !wave.wave.databases.iter().any(waits);
        }
    }

    /// Somebody goes on though things have changed since the plan: it does not count any more.
    pub(in crate::fleet) fn hold_to_no_plan(&mut self) {
        self.plan = None;
        // What was planned for what is done is still to be known: it may have to be taken back.
        let is_left = |database: &&mut DatabaseRecord| !database.state.is_well();
        self.databases.values_mut().filter(is_left).for_each(DatabaseRecord::hold_to_no_plan);
    }

    /// Takes the waves in which nothing waits as they are: somebody has seen how they came out.
    pub(in crate::fleet) fn pass_over(&mut self) {
        let databases = &self.databases;
        let waits = |name: &String| {
            databases.get(name).is_some_and(|database| database.state == DatabaseState::Waiting)
        };
        for wave in &mut self.waves {
            wave.is_settled |= !wave.wave.databases.iter().any(waits);
        }
    }

    /// How it ends when nothing is left to be done, and why.
    pub(in crate::fleet) fn outcome(&self) -> (OperationState, String) {
        let all = self.databases.len();
        let cancelled = self.count(|state| state == DatabaseState::Cancelled);
        if cancelled > 0 {
            return (OperationState::Cancelled, String::new());
        }
        let bad = self.count(|state| !state.is_well());
        match (bad, all) {
            (0, _) => (OperationState::Succeeded, String::new()),
            (1, 1) => {
                let failure = self.databases.values().find_map(|database| database.failure.as_ref());
                (OperationState::Failed, failure.map(ToString::to_string).unwrap_or_default())
            }
            (bad, all) => (OperationState::Failed, format!("{bad} of {all} databases failed")),
        }
    }
}
