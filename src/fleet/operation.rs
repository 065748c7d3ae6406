//! Operations: what each is about, where it is in its life, and what happened in it.
//!
//! [`state`] decides what a command does, [`record`] and [`database`] hold what is known, [`log`] what is told to
//! those who watch. This file puts the three behind one lock, so that nobody sees an operation in
//! two states, and hands whoever works on it the signals to begin, to wait and to end.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use jiff::Timestamp;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::{
    engine::Verb,
    fleet::{Request, plan::Held},
    migration::{
        DatabaseState, Event, EventKind, EventSink as _, Failure, OperationState, PlanDigest,
        event::DatabaseReport,
    },
};

pub mod approval;
pub mod database;
mod keeping;
pub(in crate::fleet) mod kept;
mod log;
pub mod record;
pub mod state;
mod store;
mod watcher;
mod work;

pub use approval::{Approval, Planned};
pub use database::DatabaseRecord;
pub use keeping::Encode;
pub(super) use keeping::{Keeping, Owned};
pub use log::Told;
pub use record::{Record, WaveRecord};
pub use state::Command;
pub(super) use store::{Operations, made};
pub use watcher::Watcher;
pub(super) use work::{Catalogs, Work, catalog_of};

use keeping::Edit;
use log::Log;

/// One operation.
pub struct Operation {
    id: Uuid,
    record: Mutex<Record>,
    /// The state, and how often it has changed: whoever works on the operation waits for it.
    moves: watch::Sender<(OperationState, u64)>,
    work: Mutex<Work>,
    log: Log,
    /// The digest of the plan that it was asked to be held to: the request is known by it, also when
    /// the plan does not count any more.
    asked_plan: Option<PlanDigest>,
    /// How it is kept where other daemons find it; `None`: in memory only.
    keeping: Option<Keeping>,
}

/// Whether a database may be begun.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Turn {
    /// Now.
    Begin,
    /// Not in this attempt.
    Never,
}

impl Operation {
    /// An operation of which nobody was told yet.
    pub(super) fn new(
        record: Record,
        work: Work,
        keeping: Option<Keeping>,
        asked_plan: Option<PlanDigest>,
    ) -> Self {
        Self {
            id: record.id,
            asked_plan,
            moves: watch::Sender::new((record.state, 0)),
            record: Mutex::new(record),
            work: Mutex::new(work),
            log: Log::default(),
            keeping,
        }
    }

    /// Its id.
    pub fn id(&self) -> Uuid {
        self.id
    }

    /// What it does.
    pub fn verb(&self) -> Verb {
        self.record().verb.clone()
    }

    /// Where it is in its life.
    pub fn state(&self) -> OperationState {
        self.moves.borrow().0
    }

    /// Looks at what is known of it, without a copy.
    pub fn look<T>(&self, look: impl FnOnce(&Record) -> T) -> T {
        look(&self.record())
    }

    /// In a line: its id, and what it is about.
    pub fn line(&self) -> String {
        let record = self.record();
        let (verb, state) = (record.verb.name(), record.state);
        let databases = match record.databases.len() {
            1 => record.databases.keys().next().cloned().unwrap_or_default(),
            count => format!("{count} databases"),
        };
        format!("{} {verb} of {databases} by {}, {state}", self.id, record.requested_by)
    }

    /// Whether it was asked for by these very words.
    pub fn is_of(&self, verb: &Verb, request: &Request) -> bool {
        let Request { selection, strategy, plan, .. } = request;
        let is_held_alike = plan.as_ref().map(Held::digest) == self.asked_plan.as_ref();
        let record = self.record();
        is_held_alike
            && record.verb == *verb
            && record.selection == *selection
            && record.strategy == *strategy
    }

    /// What happened, from the beginning, and then what happens, until nobody is at work on it.
    pub fn watch(self: &Arc<Self>) -> Watcher {
        Watcher::new(self.clone())
    }

    /// How many events are kept of it.
    pub(super) fn events(&self) -> usize {
        self.log.len()
    }

    /// Takes an event that the migration log has.
    pub(super) fn publish(&self, event: Event) {
        // Whoever owns it now tells of it.
        if self.keeping.as_ref().is_some_and(|keeping| keeping.owned().is_none()) {
            return;
        }
        let mut record = self.record();
        let current = record.attempt;
        let is_running = record.state == OperationState::Running;
        let of_database = record.databases.get_mut(&event.database);
        match (&event.kind, of_database) {
            // Who has not begun and is held up by the operation does not wait for the lock.
            (EventKind::LockWaiting { holder }, Some(database))
                if is_running || database.state != DatabaseState::Waiting =>
            {
                database.waits_for.clone_from(holder);
            }
            (
                EventKind::LockTaken { .. }
                | EventKind::DatabaseStarted { .. }
                | EventKind::DatabaseFinished(_),
                Some(database),
            ) => database.waits_for.clear(),
            // It was begun again before this was told.
            (EventKind::OperationFinished { attempt, .. }, _) if *attempt != current => return,
            _ => {}
        }
        let taken = self.log.push(event);
        if let Some(keeping) = &self.keeping {
            keeping.told(taken);
        }
    }

    /// Obeys a command. `before` does what belongs to the change, under the same lock, or refuses it.
    /// What begins again and takes an approval waits for that. Returns the state that it was in; `None`
    /// where nothing has changed.
    pub(super) fn obey(
        &self,
        command: Command,
        by: &str,
        before: impl FnOnce(&mut Record, OperationState) -> Result<(), Failure>,
    ) -> Result<Option<OperationState>, Failure> {
        let mut record = self.edit();
        let from = record.state;
        let Some(mut to) = state::obey(from, command)? else { return Ok(None) };
        before(&mut record, from)?;
        record.why = match command {
            Command::Cancel | Command::Pause | Command::Approve | Command::Reject => {
                let by = if by.is_empty() { "somebody" } else { by };
                format!("{} by {by}", command.done())
            }
            Command::Resume | Command::Retry => String::new(),
        };
        if to == OperationState::Running && from.is_at_rest() {
            self.begin_again(&mut record);
            if let Some(waits) = record.waits_for_approval() {
                (to, record.why) = (OperationState::AwaitingApproval, waits);
            }
        }
        record.pauses_until = None;
        self.change(&mut record, to, by);
        match to {
            OperationState::Cancelling => self.end_work(),
            OperationState::Cancelled => self.finish_in(&mut record),
            _ => {}
        }
        Ok(Some(from))
    }

    /// Another attempt begins.
    pub(super) fn begin_again(&self, record: &mut Record) {
        record.attempt += 1;
        record.ended = None;
        if let (Some(end), Some(keeping)) = (self.log.reopen(), &self.keeping) {
            keeping.gone(end);
        }
    }

    /// Brings it to another state by itself, for a reason, unless it is in none of `from`. Returns how
    /// often its state has changed then.
    pub(super) fn go(&self, from: &[OperationState], to: OperationState, why: &str) -> Option<u64> {
        let mut record = self.edit();
        from.contains(&record.state).then(|| {
            why.clone_into(&mut record.why);
            record.pauses_until = None;
            self.change(&mut record, to, "");
            self.moved()
        })
    }

    /// Nothing more is expected of a wave. Where there is a reason to pause and it runs, it does so, until
    /// a time or until somebody resumes it. Returns how often its state has changed then.
    pub(super) fn settle(&self, wave: usize, why: Option<String>, until: Option<Timestamp>) -> Option<u64> {
        let mut record = self.edit();
        if let Some(wave) = record.waves.get_mut(wave) {
            wave.is_settled = true;
        }
        let why = why.filter(|_| record.state == OperationState::Running)?;
        (record.why, record.pauses_until) = (why, until);
        self.change(&mut record, OperationState::Paused, "");
        Some(self.moved())
    }

    /// The end of the pause that it is in, and how often its state has changed.
    pub(super) fn pause_under_way(&self) -> Option<(Timestamp, u64)> {
        let record = self.record();
        record.pauses_until.map(|until| (until, self.moved()))
    }

    /// Brings it to another state by itself, for a reason, unless its state has changed more often than
    /// `moved`.
    pub(super) fn go_unmoved(&self, moved: u64, to: OperationState, why: &str) {
        let mut record = self.edit();
        // It changes under this lock only.
        if self.moved() == moved {
            why.clone_into(&mut record.why);
            record.pauses_until = None;
            self.change(&mut record, to, "");
        }
    }

    /// Whoever was at work on it is so no more, without having ended it.
    pub(super) fn abandon(&self) {
        self.end_work();
        self.update(|record| record.databases.values_mut().for_each(DatabaseRecord::abandon));
        self.finish(OperationState::Failed, "the work on the operation ended unexpectedly");
    }

    /// Nobody is at work on it any more. Returns the state that it comes to: one that was cancelled
    /// while it came to a halt is not halted.
    pub(super) fn finish(&self, to: OperationState, why: &str) -> OperationState {
        let mut record = self.edit();
        // What is at rest holds on to no database: they may change, and go, before it is tried again.
        self.with_work(|work| work.members = Arc::default());
        record.undoing = None;
        let is_given_up = to == OperationState::Halted && record.state == OperationState::Cancelling;
        let to = if is_given_up { OperationState::Cancelled } else { to };
        if !is_given_up {
            why.clone_into(&mut record.why);
        }
        record.ended = Some(Timestamp::now());
        self.change(&mut record, to, "");
        self.finish_in(&mut record);
        to
    }

    /// Tells the end that whoever was at work on it did not come to tell.
    pub(super) fn tell_end(&self) {
        self.finish_in(&mut self.edit());
    }

    fn finish_in(&self, record: &mut Record) {
        let is_waiting =
            |name: &String| record.databases.get(name).is_some_and(|it| it.state == DatabaseState::Waiting);
        let names = record.waves.iter().flat_map(|wave| &wave.wave.databases);
        let not_begun = names.filter(|name| is_waiting(name)).cloned().collect();
        if record.state.is_over() {
            record.databases.values_mut().for_each(DatabaseRecord::give_up);
        }
        let (state, why, attempt) = (record.state, record.why.clone(), record.attempt);
        self.tell(EventKind::OperationFinished { state, why, not_begun, attempt });
    }

    fn change(&self, record: &mut Record, to: OperationState, by: &str) {
        let from = std::mem::replace(&mut record.state, to);
        record.changed = Timestamp::now();
        self.tell_change(record, Some(from), by);
        self.moves_to(to);
    }

    fn moves_to(&self, to: OperationState) {
        self.moves.send_modify(|(state, count)| {
            *state = to;
            *count += 1;
        });
    }

    /// Tells that it is there.
    pub(super) fn tell_begun(&self) {
        self.tell_change(&self.record(), None, "");
    }

    fn tell_change(&self, record: &Record, from: Option<OperationState>, by: &str) {
        let (to, why, by) = (record.state, record.why.clone(), by.to_owned());
        self.tell(EventKind::OperationChanged { from, to, why, by });
    }

    /// Tells what happened to the operation as a whole. It does not wait.
    pub(super) fn tell(&self, kind: EventKind) {
        self.work().sink.emit("", kind);
    }

    /// What working on it takes, now.
    pub(super) fn to_work_with(&self) -> Work {
        self.work().clone()
    }

    /// Changes what working on it takes.
    pub(super) fn with_work(&self, change: impl FnOnce(&mut Work)) {
        change(&mut self.work());
    }

    /// Changes what is known of it.
    pub(super) fn update(&self, change: impl FnOnce(&mut Record)) {
        change(&mut self.edit());
    }

    /// Changes what is known of one database.
    pub(super) fn update_database(&self, name: &str, change: impl FnOnce(&mut DatabaseRecord)) {
        if let Some(database) = self.edit().databases.get_mut(name) {
            change(database);
        }
    }

    /// Whether a database may be begun now; from then on it is.
    pub(super) fn may_begin(&self, name: &str, closed: &CancellationToken) -> bool {
        let mut record = self.edit();
        let is_stopped = closed.is_cancelled() || self.work().stop.is_draining();
        let may = record.state == OperationState::Running && !is_stopped;
        if let Some(database) = record.databases.get_mut(name).filter(|_| may) {
            database.begin(Timestamp::now());
        }
        may
    }

    /// A run on a database ended.
    pub(super) fn ended(&self, report: &DatabaseReport) {
        let is_suspended = self.is_suspended();
        self.update_database(&report.database, |database| {
            database.end(report, Timestamp::now());
            if is_suspended {
                database.suspend();
            }
        });
    }

    /// Waits until a database may be begun; `closed` says that none may any more.
    pub(super) async fn turn(&self, closed: &CancellationToken) -> Turn {
        let stop = self.work().stop.clone();
        if stop.is_draining() {
            return Turn::Never;
        }
        let mut moves = self.moves.subscribe();
        let is_decided = |(state, _): &(OperationState, u64)| {
            use OperationState::{AwaitingApproval, Paused, Pending};
            !matches!(state, AwaitingApproval | Pending | Paused)
        };
        tokio::select! {
            biased;
            () = stop.drain.cancelled() => Turn::Never,
            () = closed.cancelled() => Turn::Never,
            decided = moves.wait_for(is_decided) => match decided.map(|decided| decided.0) {
                Ok(OperationState::Running) => Turn::Begin,
                _ => Turn::Never,
            }
        }
    }

    /// Waits until no database may be begun, for now or for good.
    pub(super) async fn held_up(&self, closed: &CancellationToken) {
        let mut moves = self.moves.subscribe();
        tokio::select! {
            // It cannot be closed: it is the operation's own.
            _ = moves.wait_for(|(state, _)| *state != OperationState::Running) => {}
            () = closed.cancelled() => {}
        }
    }

    /// How often its state has changed.
    pub(super) fn moved(&self) -> u64 {
        self.moves.borrow().1
    }

    /// Waits until its state has changed more often than `count`.
    pub(super) async fn moves_on(&self, count: u64) {
        let mut moves = self.moves.subscribe();
        // It cannot be closed: it is the operation's own.
        let _ = moves.wait_for(|(_, moved)| *moved > count).await;
    }

    fn end_work(&self) {
        let work = self.work();
        work.stop.drain.cancel();
        work.stop.cancel.cancel();
    }

    /// The record, to be changed.
    fn edit(&self) -> Edit<'_> {
        Edit { record: self.record(), keeping: self.keeping.as_ref() }
    }

    fn record(&self) -> MutexGuard<'_, Record> {
        self.record.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn work(&self) -> MutexGuard<'_, Work> {
        self.work.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::{watcher::tests::with_id, *};
    use crate::fleet::{selector::Selection, strategy::Strategy};

    #[test]
    fn a_request_is_known_by_its_plan_too() {
        let operation = with_id(Uuid::from_u128(7));
        let request = |plan| Request {
            id: Some(operation.id()),
            requested_by: "eve".to_owned(),
            selection: Selection::default(),
            reason: String::new(),
            strategy: Strategy::default(),
            plan,
            trace: None,
            permit: crate::access::Permit::of_the_daemon(),
            call: crate::auditlog::Call::unrecorded(),
        };
        let verb = operation.verb();
        assert!(operation.is_of(&verb, &request(None)));
        let digest = format!("{}-{}", "a".repeat(32), "b".repeat(16)).parse().expect("a digest");
        assert!(!operation.is_of(&verb, &request(Some(Held::to(digest)))));
        assert!(!operation.is_of(&Verb::Recover { resume: true }, &request(None)));
    }
}
