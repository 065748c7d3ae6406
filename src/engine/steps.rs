//! The steps of a run, one after the other on one session, and what is told of them: a step is
//! reported as done only when a flush covers its commit.

use std::time::{Duration, Instant};

use backon::BackoffBuilder as _;
use tracing::Instrument as _;

use crate::{
    engine::{
        Durability, Lease, Run,
        failure::{of_row, of_session},
        run::lock_from,
        scripts::{self, Prepared},
        trace,
    },
    migration::{
        AttemptOutcome, Code, Direction, EventKind, Failure, Mode, Plan, Step, StepAction, event::StepDone,
    },
    postgres::{
        executor::{self, Fate, Flush},
        journal,
        observer::{self, Sight},
        session::{Session, SessionError},
        tracking::{self, Kept, Shape},
    },
    runtime::faults,
};

/// A step's script, as it is read.
type Reading = tokio::sync::mpsc::Receiver<scripts::Feed>;

mod non_transactional;
mod transactional;

/// The longest that a commit waits for its flush.
const FLUSH_PERIOD: Duration = Duration::from_secs(1);

/// How long a server may have nothing to do for a session that awaits an answer of it, until the connection
/// counts as lost: one that is silent says nothing of it, and a migration's SQL may take any time.
const SILENCE_LIMIT: Duration = Duration::from_secs(30);

/// How long the session of before may take to end by itself, once its connection is lost.
const LAST_STATEMENT: Duration = Duration::from_secs(2);

/// How long a lost connection is tried to be replaced, to learn what became of a step.
const RECONNECT_LIMIT: Duration = Duration::from_mins(1);

/// The steps of one run.
pub(super) struct Steps<'a> {
    run: &'a Run,
    session: Session,
    told: Told<'a>,
}

/// What was done and what was told of it.
struct Told<'a> {
    run: &'a Run,
    done: &'a mut Vec<StepDone>,
    /// Committed, and not known to be on disk.
    unflushed: Vec<StepDone>,
    flushed_at: Instant,
    /// Who was last seen to block the running step.
    blockers: Vec<String>,
    /// Since when the server is seen to have nothing to do for it.
    idle_since: Option<Instant>,
}

/// A step that failed.
struct Failed {
    direction: Option<Direction>,
    duration_ms: u64,
    failure: Failure,
}

impl<'a> Steps<'a> {
    /// Steps on a session that holds the lock; what is done, durably, goes to `done`.
    pub(super) fn new(run: &'a Run, session: Session, done: &'a mut Vec<StepDone>) -> Self {
        let told = Told {
            run,
            done,
            unflushed: Vec::new(),
            flushed_at: Instant::now(),
            blockers: Vec::new(),
            idle_since: None,
        };
        Self { run, session, told }
    }

    /// Does the steps in order and closes the session; stops at the first that fails.
    pub(super) async fn run(mut self, plan: &Plan, prepared: Vec<Prepared>) -> Result<(), Failure> {
        let mut result = self.all(plan, &prepared).await;
        if !self.told.unflushed.is_empty() {
            match executor::flush(&self.session).await {
                Ok(()) => self.told.flushed(),
                Err(error) => {
                    let flushing = of_session(error, "flushing the last commits");
                    let (step, mut failed) = result
                        .err()
                        .unwrap_or((None, Failed { direction: None, duration_ms: 0, failure: flushing }));
                    failed.failure = self.told.not_durable(failed.failure);
                    result = Err((step, failed));
                }
            }
        }
        result.map_err(|(step, failed)| {
            if let (Some(step), Some(direction)) = (step, failed.direction) {
                self.run.emit(EventKind::StepFailed {
                    version: step.version.clone(),
                    direction,
                    failure: Box::new(failed.failure.clone()),
                    duration_ms: failed.duration_ms,
                });
            }
            failed.failure
        })
    }

    async fn all<'p>(
        &mut self,
        plan: &'p Plan,
        prepared: &[Prepared],
    ) -> Result<(), (Option<&'p Step>, Failed)> {
        let (run, total) = (self.run, plan.steps.len());
        let mut steps = plan.steps.iter().zip(prepared).enumerate().peekable();
        let mut script = None;
        while let Some((index, (step, prepared))) = steps.next() {
            if self.run.stop.is_draining() {
                let message = format!("The operation was stopped before {}", step.version);
                let failure = Failure::new(Code::Cancelled, message).version(&step.version);
                return Err((None, Failed { direction: None, duration_ms: 0, failure }));
            }
            faults::reached(step.action, "begun");
            let (number, of) = (count(index + 1), count(total));
            self.run.emit(EventKind::StepStarted { step: step.clone(), number, total: of });
            let started = Instant::now();
            let flush = self.told.when_to_flush(step, index + 1 == total);
            self.told.blockers.clear();
            // The server is at work on this step's mark while the next step's script is read.
            let next = async {
                // What was said to the server is on its way only when the connection has had its turn.
                tokio::task::yield_now().await;
                steps.peek().map(|(_, (step, prepared))| scripts::feed(run, step, prepared))
            };
            let script_of_step = script.take().unwrap_or_else(|| scripts::feed(run, step, prepared));
            let span = trace::step(&run.database, run.author.operation, step);
            let work = self.step(step, prepared, script_of_step, flush).instrument(span.clone());
            let (result, ahead) = tokio::join!(work, next);
            script = ahead;
            let duration_ms = u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX);
            result.map_err(|failure| {
                trace::failed(&span, &failure);
                (Some(step), Failed { direction: step.action.direction(), duration_ms, failure })
            })?;
            faults::reached(step.action, "ended");
            let checksum = prepared.checksum_for(step);
            self.told.unflushed.push(StepDone { step: step.clone(), checksum, duration_ms });
            if flush == Flush::Yes {
                self.told.flushed();
            }
        }
        Ok(())
    }

    async fn step(
        &mut self,
        step: &Step,
        prepared: &Prepared,
        script: Reading,
        flush: Flush,
    ) -> Result<(), Failure> {
        match (step.action, step.mode) {
            (StepAction::ForgetAttempt | StepAction::ClearMark, _) => {
                executor::settle(&self.session, &step.version, step.action)
                    .await
                    .map_err(|error| of_row(error, "settling a dirty row").version(&step.version))
            }
            (_, Mode::Transactional) => self.transactional(step, prepared, script, flush).await,
            (_, Mode::NonTransactional) => self.non_transactional(step, prepared, script).await,
        }
    }

    /// The connection was lost in mid-step: gets another one and the lock, then the old session is
    /// surely gone, and asks the journal. `Ok` if the attempt was committed and nobody else has
    /// been at work since, so that the plan still holds. Never guesses.
    async fn resolve(&mut self, step: &Step, attempt: Option<i64>) -> Result<(), Failure> {
        let message = "the connection was lost: connecting again to learn what became of it".to_owned();
        self.run.emit(EventKind::Notice { version: Some(step.version.clone()), message });
        let shape = self.reconnect(step).await?;
        faults::reached(step.action, "connected again");
        let doing = "learning what became of a step";
        let fail = |error: SessionError| of_session(error, doing).version(&step.version);
        let fate = match attempt {
            Some(attempt) if shape.journal => executor::fate(&self.session, attempt).await.map_err(fail)?,
            _ => Fate::default(),
        };
        if fate.committed && !fate.overtaken {
            return Ok(());
        }
        let what = match (fate.committed, step.mode) {
            (true, _) => "it was committed",
            (false, Mode::Transactional) => "nothing of it was committed",
            (false, Mode::NonTransactional) => "it is partly done",
        };
        let since = if fate.overtaken { ", and another run has been at work since" } else { "" };
        let message = format!("The connection was lost while {} was running: {what}{since}", step.version);
        let failure = Failure::new(Code::ConnectionLost, message).version(&step.version);
        self.close_attempt(attempt, AttemptOutcome::Interrupted, &failure).await;
        Err(failure)
    }

    /// Replaces the session, with the lock, and drops from what awaits its flush whatever a crash
    /// of the server took. The old connection is closed first: alive, it would keep the lock.
    async fn reconnect(&mut self, step: &Step) -> Result<Shape, Failure> {
        self.session.hang_up();
        let until = Instant::now() + RECONNECT_LIMIT;
        let (session, shape) = loop {
            match self.locked_session().await {
                Ok(locked) => break locked,
                Err(failure)
                    if matches!(failure.code, Code::Unreachable | Code::ConnectionLost)
                        && Instant::now() < until =>
                {
                    tokio::time::sleep(Duration::from_millis(500)).await;
                }
                Err(failure) => {
                    let message = format!(
                        "The connection was lost while {} was running, and what became of it is not known: {failure}",
                        step.version
                    );
                    let lost = Failure::new(Code::ConnectionLost, message).version(&step.version);
                    return Err(self.told.not_durable(lost));
                }
            }
        };
        self.session = session;
        let doing = "reading the applied migrations again";
        let tracked = tracking::read(&self.session, shape, Kept::Dirty).await;
        let tracked = tracked.map_err(|error| of_session(error, doing))?;
        executor::flush(&self.session).await.map_err(|error| of_session(error, doing))?;
        self.told.unflushed.retain(|done| {
            let row = tracked.get(&done.step.version);
            match done.step.action.direction() {
                Some(Direction::Up) => row.is_some_and(|row| !row.dirty),
                _ => row.is_none(),
            }
        });
        self.told.flushed();
        Ok(shape)
    }

    async fn locked_session(&self) -> Result<(Session, Shape), Failure> {
        let mut session = self.run.database.session(&self.run.author.operation.to_string()).await?;
        // Also while the daemon drains: what became of the step must be known. The session of before may
        // not have heard that it is over, and would keep the lock.
        let started = Instant::now();
        let is_ours = || self.run.stop.lease.as_ref().is_none_or(Lease::is_held);
        let takes_over = || started.elapsed() > LAST_STATEMENT && is_ours();
        let shape = lock_from(self.run, &mut session, &self.run.stop.cancel, takes_over).await?;
        Ok((session, shape))
    }

    /// Closes an attempt that failed; if even that cannot be done, the journal's `running` says the
    /// same, and the first failure is the one to tell.
    async fn close_attempt(&self, attempt: Option<i64>, outcome: AttemptOutcome, failure: &Failure) {
        let Some(attempt) = attempt else { return };
        let message = match &failure.server_message {
            Some(server) => format!("{failure}: {server}"),
            None => failure.to_string(),
        };
        faults::reached("attempt", "failed");
        let closed =
            journal::close(&self.session, attempt, outcome, failure.sqlstate.as_deref(), &message).await;
        if let Err(error) = closed {
            tracing::warn!(attempt, %error, "the attempt could not be closed in the journal");
        }
    }

    /// The waits between the attempts at a step that meets a lock or a deadlock.
    fn retry_delays(&self) -> impl Iterator<Item = Duration> + use<> {
        backon::ExponentialBuilder::default()
            .with_min_delay(Duration::from_millis(250))
            .with_max_delay(Duration::from_secs(10))
            .with_jitter()
            .with_max_times(self.run.database.lock_retries)
            .build()
    }

    /// Tells of a retry and waits; false when the run was cancelled meanwhile.
    async fn wait_to_retry(&self, step: &Step, attempt: u32, delay: Duration, sqlstate: &str) -> bool {
        self.run.emit(EventKind::StepRetrying {
            version: step.version.clone(),
            attempt,
            delay,
            blockers: self.told.blockers.clone(),
            sqlstate: sqlstate.to_owned(),
        });
        tokio::select! {
            () = tokio::time::sleep(delay) => true,
            () = self.run.stop.drain.cancelled() => false,
            () = self.run.stop.cancel.cancelled() => false,
        }
    }
}

impl Told<'_> {
    /// When a step's commit is flushed: the last one, one that stands alone, and one a second.
    fn when_to_flush(&self, step: &Step, last: bool) -> Flush {
        let alone = step.mode == Mode::NonTransactional || step.source.is_none();
        let each = self.run.database.durability == Durability::Each;
        if last || alone || each || self.flushed_at.elapsed() >= FLUSH_PERIOD {
            Flush::Yes
        } else {
            Flush::Later
        }
    }

    /// Everything that was committed is on disk: tells it.
    fn flushed(&mut self) {
        faults::reached("run", "flushed");
        self.flushed_at = Instant::now();
        for done in self.unflushed.drain(..) {
            self.run.emit(EventKind::StepFinished(done.clone()));
            faults::reached(done.step.action, "told");
            self.done.push(done);
        }
    }

    /// Adds what was committed and may not be on disk to a failure.
    fn not_durable(&self, mut failure: Failure) -> Failure {
        let lines = self
            .unflushed
            .iter()
            .map(|done| format!("{}: committed, but not known to be on disk", done.step.version));
        failure.details.extend(lines);
        failure
    }

    /// Awaits a statement and looks at it now and then from beside: who blocks it is told, and what
    /// was committed before it is flushed, so that a long step delays no report. Where the server has
    /// long had nothing to do for the session, no answer will come: the connection is lost.
    async fn watch<T, E: From<SessionError>>(
        &mut self,
        step: &Step,
        pid: i32,
        statement: impl Future<Output = Result<T, E>>,
    ) -> Result<T, E> {
        let period = (self.run.database.limits.lock_timeout / 2)
            .clamp(Duration::from_millis(100), Duration::from_secs(1));
        let mut statement = std::pin::pin!(statement);
        self.idle_since = None;
        loop {
            match tokio::time::timeout(period, &mut statement).await {
                Ok(output) => return output,
                Err(_) => self.look(step, pid).await,
            }
            if self.idle_since.is_some_and(|since| since.elapsed() >= SILENCE_LIMIT) {
                return Err(SessionError::Lost.into());
            }
        }
    }

    async fn look(&mut self, step: &Step, pid: i32) {
        let pool = &self.run.database.pool;
        let Some(Sight { blockers, is_idle }) = observer::look(pool, pid).await else { return };
        self.idle_since = if is_idle { self.idle_since.or_else(|| Some(Instant::now())) } else { None };
        if !blockers.is_empty() && blockers != self.blockers {
            if self.blockers.is_empty() {
                let message = format!("waits for a lock held by {}", blockers.join(", "));
                self.run.emit(EventKind::Notice { version: Some(step.version.clone()), message });
            }
            self.blockers = blockers;
        }
        if !self.unflushed.is_empty()
            && self.flushed_at.elapsed() >= FLUSH_PERIOD
            && observer::flush(pool).await
        {
            self.flushed();
        }
    }
}

fn count(number: usize) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}
