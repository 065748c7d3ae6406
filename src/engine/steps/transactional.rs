//! A step whose script runs in one transaction: the mark, then the script with its end in one
//! message, or in several where it is large.

use crate::{
    engine::{
        failure::{cancelled, of_script, of_session},
        scripts::{self, Feed, Prepared},
        steps::Steps,
    },
    migration::{AttemptOutcome, Code, EventKind, Failure, Location, Step},
    postgres::{
        executor::{self, Flush, Mark, Piece, StepError},
        session::{Session, SessionError},
    },
    sql::Group,
};

/// SQLSTATEs of a lock that was not had in time, and of a deadlock.
const LOCK_NOT_AVAILABLE: &str = "55P03";
const DEADLOCK_DETECTED: &str = "40P01";

/// Told of an error that no statement of the script raised.
const AT_COMMIT: &str = "it arose after the last statement, at the commit: a deferred constraint or trigger";

/// Whether a step that met this may be tried again.
pub(super) fn is_lock_trouble(sqlstate: &str) -> bool {
    matches!(sqlstate, LOCK_NOT_AVAILABLE | DEADLOCK_DETECTED)
}

/// Why one attempt at the transaction ended.
enum Trouble {
    /// The script could not be read, or is not what it was.
    Script(Failure),
    /// The session raised an error, at this place in the script.
    Session(SessionError, Option<Location>),
}

impl Steps<'_> {
    pub(super) async fn transactional(
        &mut self,
        step: &Step,
        prepared: &Prepared,
        flush: Flush,
    ) -> Result<(), Failure> {
        let mut attempt = None;
        let mut delays = self.retry_delays();
        for tried in 1.. {
            let Err(trouble) = self.transaction(step, prepared, &mut attempt, flush).await else {
                return Ok(());
            };
            let (failure, outcome) = match trouble {
                Trouble::Session(SessionError::Lost, _) => return self.resolve(step, attempt).await,
                Trouble::Session(SessionError::Sql(fault), location) => {
                    let delay = is_lock_trouble(&fault.sqlstate).then(|| delays.next()).flatten();
                    if let Some(delay) = delay {
                        self.undo_transaction(step, attempt).await?;
                        if self.wait_to_retry(step, tried, delay, &fault.sqlstate).await {
                            continue;
                        }
                        (cancelled(&step.version), AttemptOutcome::RolledBack)
                    } else {
                        let outcome = match Session::escaped(&fault) {
                            Some("its transaction") => AttemptOutcome::Failed,
                            _ => AttemptOutcome::RolledBack,
                        };
                        let blockers = self.told.blockers.iter().map(|who| format!("blocked by {who}"));
                        let blockers =
                            if is_lock_trouble(&fault.sqlstate) { blockers.collect() } else { Vec::new() };
                        let details = if location.is_none() { vec![AT_COMMIT.to_owned()] } else { blockers };
                        (of_script(fault, step, location, None).details(details), outcome)
                    }
                }
                Trouble::Session(SessionError::Cancelled, _) => {
                    (cancelled(&step.version), AttemptOutcome::RolledBack)
                }
                Trouble::Session(error, _) => (
                    of_session(error, "running a migration").version(&step.version),
                    AttemptOutcome::RolledBack,
                ),
                Trouble::Script(failure) => (failure.version(&step.version), AttemptOutcome::RolledBack),
            };
            self.undo_transaction(step, attempt).await?;
            self.close_attempt(attempt, outcome, &failure).await;
            return Err(failure);
        }
        Err(Failure::new(Code::Internal, "The retries of a step did not end"))
    }

    /// Ends the failed transaction. Where even that fails the connection is lost, and the tables
    /// are asked.
    async fn undo_transaction(&mut self, step: &Step, attempt: Option<i64>) -> Result<(), Failure> {
        match executor::roll_back(&self.session).await {
            Ok(()) => Ok(()),
            Err(_) => self.resolve(step, attempt).await,
        }
    }

    async fn transaction(
        &mut self,
        step: &Step,
        prepared: &Prepared,
        attempt: &mut Option<i64>,
        flush: Flush,
    ) -> Result<(), Trouble> {
        let mut feed = scripts::feed(self.run, step, prepared);
        let mut held: Option<Group> = None;
        let (mut first, mut sent) = (true, 0);
        loop {
            match feed.recv().await {
                Some(Feed::Down(down)) if attempt.is_none() => {
                    let mark = Mark {
                        step,
                        checksum: &prepared.checksum,
                        down_text: down.as_deref(),
                        statements: prepared.statements,
                    };
                    let marked = executor::mark(&self.session, &self.run.author, &mark).await;
                    *attempt = Some(marked.map_err(|error| Trouble::Session(error, None))?);
                }
                Some(Feed::Down(_)) => {}
                // One group is held back: only at the file's end is it known to be the last.
                Some(Feed::Group(group)) => {
                    if let Some(whole) = held.replace(group) {
                        self.send(step, prepared, *attempt, &whole, first, None).await?;
                        first = false;
                        sent += whole.text.len() as u64;
                        let version = step.version.clone();
                        self.run.emit(EventKind::StepProgress { version, done: sent, total: step.size });
                    }
                }
                Some(Feed::End) => {
                    let Some(last) = held.take() else { return Err(unexpected()) };
                    return self.send(step, prepared, *attempt, &last, first, Some(flush)).await;
                }
                Some(Feed::Failed(failure)) => return Err(Trouble::Script(failure)),
                None => return Err(unexpected()),
            }
        }
    }

    async fn send(
        &mut self,
        step: &Step,
        prepared: &Prepared,
        attempt: Option<i64>,
        group: &Group,
        first: bool,
        last: Option<Flush>,
    ) -> Result<(), Trouble> {
        let Some(attempt) = attempt else {
            return Err(Trouble::Script(Failure::new(Code::Internal, "A step was begun without its mark")));
        };
        let piece = Piece { text: &group.text, statements: group.statements.len(), first, last };
        let sending = executor::run_piece(&self.session, step, attempt, piece, &self.run.stop.cancel);
        let sent = self.told.watch(step, self.session.pid(), sending).await;
        sent.map_err(|error| {
            let location = locate(&error, group, prepared);
            Trouble::Session(error.error, location)
        })
    }
}

/// Where in the file an error arose: at the server's position, or at the statement that failed.
fn locate(error: &StepError, group: &Group, prepared: &Prepared) -> Option<Location> {
    let name = prepared.text.as_ref()?.name();
    let SessionError::Sql(fault) = &error.error else { return None };
    let statement = group.statements.get(error.completed?)?;
    let position = fault.position.and_then(|position| {
        let in_group = usize::try_from(position).ok()?.checked_sub(1 + error.prefix_characters)?;
        Some(group.location(name, 0, in_group))
    });
    Some(position.unwrap_or_else(|| group.location(name, statement.range.start, 0)))
}

fn unexpected() -> Trouble {
    Trouble::Script(Failure::new(Code::Internal, "The task that reads the script ended unexpectedly"))
}
