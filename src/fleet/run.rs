//! Running one attempt of an operation: wave after wave, each database in a task of its own, a
//! bounded number at once. Without a strategy there is one wave, and one failing database never
//! stops the others.

use std::{sync::Arc, time::Duration};

use futures_util::{StreamExt as _, stream::FuturesUnordered};
use jiff::Timestamp;
use tokio_util::sync::CancellationToken;
use tracing::Span;

use crate::{
    fleet::{
        Fleet, approve,
        operation::{Operation, Record, Turn},
        steer,
        strategy::{Failures, OnFailure, Pause, Strategy, Wave},
    },
    migration::{
        DatabaseState, EventKind, Failure, OperationState, TraceContext,
        event::{DatabaseReport, WaveOf},
    },
    runtime::faults,
};

mod database;
mod gate;
mod undo;

/// Does `work` for each member, at most `limit` at once, and keeps the order.
pub(super) async fn bounded<M, F, T>(limit: usize, members: Vec<M>, work: impl Fn(M) -> F) -> Vec<T>
where
    F: Future<Output = T>,
{
    futures_util::stream::iter(members.into_iter().map(work)).buffered(limit).collect().await
}

/// A trace that begins here, which nobody has recorded.
pub(super) fn new_trace() -> TraceContext {
    TraceContext { trace: fastrand::u128(1..), span: fastrand::u64(1..), sampled: false }
}

/// The report on a database that was not even begun.
pub(super) fn refused(database: &str, failure: Failure) -> DatabaseReport {
    DatabaseReport {
        database: database.to_owned(),
        plan: None,
        done: Vec::new(),
        done_before: Vec::new(),
        result: Err(Box::new(failure)),
        duration_ms: 0,
    }
}

/// How an attempt comes to its end.
enum End {
    /// There is nothing left to do.
    Done,
    /// Nobody may go on with it.
    Stopped,
    /// It may not go on by itself.
    Halted(String),
    /// What it applied was taken back, but for this many databases.
    RolledBack(String, usize),
    /// What it applied was to be taken back, and nobody may go on with that.
    NotRolledBack(String),
}

/// One attempt, as it runs.
struct Attempt {
    fleet: Arc<Fleet>,
    operation: Arc<Operation>,
    strategy: Strategy,
    waves: Vec<Wave>,
    failures: Failures,
    /// It goes on where another daemon's attempt ended.
    takes_over: bool,
}

/// Runs an attempt of an operation to its end.
pub(super) async fn operation(fleet: Arc<Fleet>, operation: Arc<Operation>) {
    let waits = operation.state() == OperationState::AwaitingApproval;
    let may_begin = !waits || approve::is_given(&operation).await;
    if may_begin {
        begin(&operation, waits).await;
    }
    let work = operation.to_work_with();
    let (strategy, waves, targets) = operation.look(|record| {
        let waves = record.waves.iter().map(|wave| wave.wave.clone()).collect();
        (record.strategy.clone(), waves, record.databases.len())
    });
    // Whoever tries again has seen what failed; whoever takes over has not.
    let before = if work.takes_over { operation.look(|it| it.count(DatabaseState::is_failure)) } else { 0 };
    let failures = Failures { in_wave: 0, in_all: before, targets };
    let takes_over = work.takes_over;
    let mut attempt = Attempt { fleet, operation, strategy, waves, failures, takes_over };
    let end = if may_begin { attempt.run().await } else { End::Stopped };
    if attempt.is_left(&end) {
        attempt.operation.leave();
        return;
    }
    let state = attempt.finish(end);
    if state != OperationState::Succeeded {
        Span::current().record("otel.status_code", "ERROR");
    }
}

/// Tells that the attempt begins, and reads the directories; also those that were read before, where
/// something may have happened to them while an approval was waited for.
async fn begin(operation: &Operation, has_waited: bool) {
    let work = operation.to_work_with();
    let started = operation.look(|record| EventKind::OperationStarted {
        verb: record.verb.name(),
        databases: (0..record.waves.len()).flat_map(|wave| record.to_do(wave)).collect(),
        // Whoever had it tried again, not who asked first.
        requested_by: work.author.requested_by.clone(),
        reason: record.reason.clone(),
        waves: number(record.waves.len()),
        attempt: record.attempt,
    });
    operation.tell(started);
    if has_waited || work.catalogs.is_empty() {
        // A file system may hang: who cancels the operation does not wait for it.
        tokio::select! {
            catalogs = steer::read_catalogs(work.members.values()) => {
                operation.with_work(|work| work.take_catalogs(catalogs));
                operation.note_digests();
            }
            () = work.stop.drain.cancelled() => {}
        }
    }
    operation.go(&[OperationState::Pending], OperationState::Running, "");
}

impl Attempt {
    async fn run(&mut self) -> End {
        if self.takes_over {
            self.end_its_pause().await;
        }
        if let Some(why) = self.operation.look(|record| record.undoing.clone()) {
            return self.fail(why).await;
        }
        for index in 0..self.waves.len() {
            let (to_do, is_settled) = self.operation.look(|record| {
                (record.to_do(index), record.waves.get(index).is_some_and(|it| it.is_settled))
            });
            if is_settled {
                continue;
            }
            if self.is_stopped().await {
                return End::Stopped;
            }
            if let Some(why) = self.wave(index, to_do).await {
                return self.fail(why).await;
            }
            if self.is_stopped().await {
                return End::Stopped;
            }
            match self.gate(index).await {
                gate::Answer::Holds => faults::reached("wave", "gate passed"),
                gate::Answer::Fails(why) => return self.fail(why).await,
                gate::Answer::Stopped => return End::Stopped,
                gate::Answer::Open(why) => {
                    // Also where somebody has paused it meanwhile: whoever resumes it has seen the gate.
                    let from = [OperationState::Running, OperationState::Paused];
                    self.operation.go(&from, OperationState::Paused, &why);
                    if self.is_stopped().await {
                        return End::Stopped;
                    }
                }
            }
            self.settle(index).await;
        }
        End::Done
    }

    /// Whether another daemon goes on with it.
    fn is_left(&self, end: &End) -> bool {
        let is_stopped = matches!(end, End::Stopped | End::NotRolledBack(_));
        is_stopped && self.operation.is_suspended() && !self.operation.look(Record::is_whole)
    }

    /// Waits while the operation is paused; says whether it is over for this attempt.
    async fn is_stopped(&self) -> bool {
        self.operation.turn(&CancellationToken::new()).await == Turn::Never
    }

    /// Runs the databases of a wave; says why no further one may be begun, where that is so.
    async fn wave(&mut self, index: usize, to_do: Vec<String>) -> Option<String> {
        let wave = self.waves.get(index)?.clone();
        let failed_before = if self.takes_over { self.operation.look(|it| it.failed_in(index)) } else { 0 };
        if to_do.is_empty() && failed_before == 0 {
            return None;
        }
        self.failures.in_wave = failed_before;
        self.tell_of_waves(|of| EventKind::WaveStarted { wave: of, databases: number(to_do.len()) }, index);
        faults::reached("wave", "begun");
        let all = to_do.len() + failed_before;
        let mut first = None;
        let closed = CancellationToken::new();
        if failed_before > 0 && self.strategy.halts_within(&wave, self.failures) {
            closed.cancel();
        }
        let mut waiting = to_do.into_iter();
        let mut running = FuturesUnordered::new();
        loop {
            while running.len() < self.parallel() && !closed.is_cancelled() {
                let Some(name) = waiting.next() else { break };
                running.push(database::run(self.fleet.clone(), self.operation.clone(), name, closed.clone()));
            }
            let Some(report) = running.next().await else { break };
            let Some((report, failure)) =
                report.as_ref().and_then(|report| Some((report, report.result.as_ref().err()?)))
            else {
                continue;
            };
            // What was cancelled has not failed.
            if self.state_of(&report.database).is_none_or(|state| !state.is_failure()) {
                continue;
            }
            self.failures.in_wave += 1;
            self.failures.in_all += 1;
            first.get_or_insert_with(|| format!("{}: {failure}", report.database));
            if self.strategy.halts_within(&wave, self.failures) {
                closed.cancel();
            }
        }
        drop(running);
        faults::reached("wave", "done");
        let failed = self.failures.in_wave;
        self.tell_of_waves(|of| EventKind::WaveFinished { wave: of, failed: number(failed) }, index);
        self.strategy.halts_after(&wave, self.failures).then(|| {
            let first = first.or_else(|| self.first_failure(&wave)).unwrap_or_default();
            format!("{failed} of {all} databases failed in {}; {first}", wave.name)
        })
    }

    fn first_failure(&self, wave: &Wave) -> Option<String> {
        self.operation.look(|record| {
            wave.databases.iter().find_map(|name| {
                let failure = record.databases.get(name)?.failure.as_ref()?;
                Some(format!("{name}: {failure}"))
            })
        })
    }

    /// What follows when no further database may be begun.
    async fn fail(&self, why: String) -> End {
        let drain = self.operation.to_work_with().stop.drain;
        match self.strategy.on_failure {
            OnFailure::Stop if drain.is_cancelled() => End::Stopped,
            OnFailure::Stop => End::Halted(why),
            OnFailure::RollBack => {
                if self.is_stopped().await {
                    return End::NotRolledBack(why);
                }
                let said = format!("{why}; what the operation applied is rolled back");
                self.operation.update(|record| record.undoing = Some(why.clone()));
                self.operation.go(&[OperationState::Running], OperationState::Running, &said);
                faults::reached("undo", "decided");
                let left = self.undo().await;
                faults::reached("undo", "done");
                let is_stopped = self.is_stopped().await;
                if is_stopped && left > 0 { End::NotRolledBack(why) } else { End::RolledBack(why, left) }
            }
        }
    }

    /// Nothing more is expected of a wave; and what lies between it and the next one in which something is
    /// to be done. The two are one change: whoever takes over sees both, or neither.
    async fn settle(&self, index: usize) {
        let next = self
            .operation
            .look(|record| (index + 1..record.waves.len()).find(|&wave| !record.to_do(wave).is_empty()));
        let next = next.and_then(|next| self.waves.get(next));
        let between = self.waves.get(index).zip(next);
        let pause = between.and_then(|(wave, next)| {
            let between = format!("after {}, before {}", wave.name, next.name);
            match self.strategy.pause {
                Pause::None => None,
                Pause::Manual => Some((format!("waits to be resumed {between}"), None)),
                Pause::For(time) => {
                    let why = format!("pauses for {} {between}", humantime::format_duration(time));
                    Some((why, Some(time)))
                }
            }
        });
        let time = pause.as_ref().and_then(|(_, time)| *time);
        let until = time.map(|time| Timestamp::now().saturating_add(time).unwrap_or(Timestamp::MAX));
        let moved = self.operation.settle(index, pause.map(|(why, _)| why), until);
        faults::reached("wave", "settled");
        if let (Some(time), Some(moved)) = (time, moved) {
            self.rest_of_a_pause(time, moved).await;
        }
    }

    /// Waits for the end of the pause that the daemon before began.
    async fn end_its_pause(&self) {
        if let Some((until, moved)) = self.operation.pause_under_way() {
            let left = until.duration_since(Timestamp::now());
            self.rest_of_a_pause(Duration::try_from(left).unwrap_or_default(), moved).await;
        }
    }

    async fn rest_of_a_pause(&self, time: Duration, moved: u64) {
        let drain = self.operation.to_work_with().stop.drain;
        tokio::select! {
            () = tokio::time::sleep(time) => {
                // Whoever paused it meanwhile has it paused until he resumes it.
                self.operation.go_unmoved(moved, OperationState::Running, "");
            }
            () = self.operation.moves_on(moved) => {}
            () = drain.cancelled() => {}
        }
    }

    /// Ends the attempt; returns the state that it leaves the operation in.
    fn finish(&self, end: End) -> OperationState {
        let (outcome, bad) = self.operation.look(Record::outcome);
        let waiting = self.operation.look(|record| record.count(|state| state == DatabaseState::Waiting));
        let (state, why) = match end {
            End::Done => (outcome, bad),
            End::RolledBack(why, left) => {
                let what = match left {
                    0 => "what the operation had applied was rolled back".to_owned(),
                    left => {
                        format!("of {left} databases what the operation had applied could not be rolled back")
                    }
                };
                (OperationState::Failed, format!("{why}; {what}"))
            }
            // Nothing is left to be decided but whether the gate counts.
            End::Halted(_) if waiting == 0 && outcome != OperationState::Succeeded => (outcome, bad),
            End::Halted(why) => (OperationState::Halted, why),
            End::Stopped => {
                let is_whole = self.operation.look(Record::is_whole) && outcome != OperationState::Cancelled;
                if is_whole { (outcome, bad) } else { (OperationState::Cancelled, self.stopped_by()) }
            }
            End::NotRolledBack(why) => {
                let left = self.operation.look(Record::touched);
                let what = match left {
                    0 => "nothing is left of what the operation did".to_owned(),
                    left => format!("of {left} databases what the operation did was not rolled back"),
                };
                (OperationState::Cancelled, format!("{}; {why}; {what}", self.stopped_by()))
            }
        };
        self.operation.finish(state, &why)
    }

    /// Who or what stopped the attempt.
    fn stopped_by(&self) -> String {
        let is_cancelled = self.operation.state() == OperationState::Cancelling;
        let why = self.operation.look(|record| record.why.clone());
        if is_cancelled { why } else { "the daemon was stopped".to_owned() }
    }

    fn parallel(&self) -> usize {
        let limit = self.strategy.parallel.map_or(usize::MAX, std::num::NonZeroUsize::get);
        limit.min(self.fleet.max_parallel())
    }

    fn state_of(&self, database: &str) -> Option<DatabaseState> {
        self.operation.look(|record| record.databases.get(database).map(|database| database.state))
    }

    fn wave_of(&self, index: usize) -> WaveOf {
        let name = self.waves.get(index).map(|wave| wave.name.clone()).unwrap_or_default();
        WaveOf { name, number: number(index + 1), total: number(self.waves.len()) }
    }

    /// Tells of a wave, where there are several.
    fn tell_of_waves(&self, kind: impl FnOnce(WaveOf) -> EventKind, index: usize) {
        if self.waves.len() > 1 {
            self.operation.tell(kind(self.wave_of(index)));
        }
    }
}

fn number(count: usize) -> u32 {
    u32::try_from(count).unwrap_or(u32::MAX)
}
