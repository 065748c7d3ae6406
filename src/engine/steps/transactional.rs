//! A step whose script runs in one transaction: the mark, then the script with its end in one
//! message, or in several where it is large.

use crate::{
    engine::{
        failure::{cancelled, of_row, of_script, of_session},
        scripts::{self, Feed, Prepared},
        steps::{Reading, Steps},
    },
    migration::{AttemptOutcome, Code, EventKind, Failure, Location, Step},
    postgres::{
        executor::{self, Flush, Mark, Piece, StepError},
        session::{Session, SessionError},
    },
    runtime::faults,
    sql::Group,
};

/// SQLSTATEs of a lock that was not had in time, and of a deadlock.
const LOCK_NOT_AVAILABLE: &str = "55P03";
const DEADLOCK_DETECTED: &str = "40P01";

/// Told of an error that no statement of the script raised.
const AT_COMMIT: &str = "it arose at the commit: a deferred constraint or trigger";

/// Whether a step that met this may be tried again.
pub(super) fn is_lock_trouble(sqlstate: &str) -> bool {
    matches!(sqlstate, LOCK_NOT_AVAILABLE | DEADLOCK_DETECTED)
}

/// Why one attempt at the transaction ended.
enum Trouble {
    /// The row could not be marked: nothing was begun.
    Mark(SessionError),
    /// The script could not be read, or is not what it was.
    Script(Failure),
    /// The session raised an error.
    Session {
        error: SessionError,
        /// The place in the script, where it arose there.
        location: Option<Location>,
        /// Whether the COMMIT itself failed.
        at_commit: bool,
        /// Whether the transaction had been opened.
        begun: bool,
    },
}

/// What a failed transaction has come to.
#[derive(Clone, Copy, PartialEq)]
enum Undone {
    /// Nothing of it is there.
    RolledBack,
    /// It was committed: what failed came after.
    Committed,
    /// The script had ended it by itself.
    Escaped,
}

impl Steps<'_> {
    pub(super) async fn transactional(
        &mut self,
        step: &Step,
        prepared: &Prepared,
        mut script: Reading,
        flush: Flush,
    ) -> Result<(), Failure> {
        let mut attempt = None;
        let mut delays = self.retry_delays();
        let mut tried = 0;
        loop {
            tried += 1;
            let Err(trouble) = self.transaction(step, prepared, script, &mut attempt, flush).await else {
                return Ok(());
            };
            if let Trouble::Mark(SessionError::Lost) | Trouble::Session { error: SessionError::Lost, .. } =
                trouble
            {
                return self.resolve(step, attempt).await;
            }
            let begun = matches!(trouble, Trouble::Session { begun: true, .. });
            let mut undone = self.undo_transaction(step, attempt.filter(|_| begun)).await?;
            if undone == Undone::Committed {
                return Ok(());
            }
            // A commit that fails, at a deferred constraint, rolls back by itself.
            if matches!(trouble, Trouble::Session { at_commit: true, .. }) {
                undone = Undone::RolledBack;
            }
            // What left its transaction has done a part: doing it again would do that twice.
            if undone == Undone::RolledBack
                && let Trouble::Session { error: SessionError::Sql(fault), .. } = &trouble
                && is_lock_trouble(&fault.sqlstate)
                && let Some(delay) = delays.next()
                && self.wait_to_retry(step, tried, delay, &fault.sqlstate).await
            {
                script = scripts::feed(self.run, step, prepared);
                continue;
            }
            let (failure, outcome) = self.explain(step, trouble, undone);
            self.close_attempt(attempt, outcome, &failure).await;
            return Err(failure);
        }
    }

    /// What a failed attempt is told as, and recorded as.
    fn explain(&self, step: &Step, trouble: Trouble, undone: Undone) -> (Failure, AttemptOutcome) {
        let is_out = matches!(
            &trouble,
            Trouble::Session { error: SessionError::Sql(fault), .. }
                if Session::escaped(fault) == Some("its transaction")
        );
        let outcome = if is_out || undone == Undone::Escaped {
            AttemptOutcome::Failed
        } else {
            AttemptOutcome::RolledBack
        };
        let failure = match trouble {
            Trouble::Session { .. } if undone == Undone::Escaped => {
                let message = format!("Migration {} changed its transaction, and was stopped", step.version);
                Failure::new(Code::Escaped, message)
            }
            Trouble::Session { error: SessionError::Sql(fault), location, at_commit, .. } => {
                let details = if is_lock_trouble(&fault.sqlstate) {
                    self.told.blockers.iter().map(|who| format!("blocked by {who}")).collect()
                } else if at_commit {
                    vec![AT_COMMIT.to_owned()]
                } else {
                    Vec::new()
                };
                of_script(fault, step, location, None).details(details)
            }
            Trouble::Session { error: SessionError::Cancelled, .. } => cancelled(&step.version),
            Trouble::Session { error, .. } => of_session(error, "running a migration"),
            Trouble::Mark(error) => of_row(error, "marking the row"),
            Trouble::Script(failure) => failure,
        };
        (failure.version(&step.version), outcome)
    }

    /// Ends the failed transaction of an attempt; `None` where none was opened. Where even that
    /// fails the connection is lost, and the journal is asked.
    async fn undo_transaction(&mut self, step: &Step, attempt: Option<i64>) -> Result<Undone, Failure> {
        let Ok(had_one) = executor::roll_back(&mut self.session).await else {
            return self.resolve(step, attempt).await.map(|()| Undone::Committed);
        };
        let Some(attempt) = attempt.filter(|_| !had_one) else { return Ok(Undone::RolledBack) };
        let fate = executor::fate(&self.session, attempt).await;
        let fate = fate.map_err(|error| of_session(error, "learning what became of a step"))?;
        Ok(if fate.committed { Undone::Committed } else { Undone::Escaped })
    }

    async fn transaction(
        &mut self,
        step: &Step,
        prepared: &Prepared,
        mut script: Reading,
        attempt: &mut Option<i64>,
        flush: Flush,
    ) -> Result<(), Trouble> {
        let mut held: Option<Group> = None;
        let (mut first, mut sent) = (true, 0);
        loop {
            match script.recv().await {
                Some(Feed::Down(down)) if attempt.is_none() => {
                    let mark = Mark {
                        step,
                        checksum: &prepared.checksum_for(step),
                        down_text: down.as_deref(),
                        statements: prepared.statements,
                        done_digest: None,
                    };
                    let marked = executor::mark(&self.session, &self.run.author, &mark).await;
                    *attempt = Some(marked.map_err(Trouble::Mark)?);
                    faults::reached(step.action, "marked");
                }
                Some(Feed::Down(_)) => {}
                // One group is held back: only at the file's end is it known to be the last.
                Some(Feed::Group(group)) => {
                    if let Some(whole) = held.replace(group) {
                        self.send(step, prepared, *attempt, &whole, first, None).await?;
                        first = false;
                        faults::reached(step.action, "partly sent");
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
        let attempt = (attempt, &self.run.author.trace);
        let sending = executor::run_piece(&self.session, step, attempt, piece, &self.run.stop.cancel);
        let sent = self.told.watch(step, self.session.pid(), sending).await;
        sent.map_err(|error| {
            let location = locate(&error, group, prepared);
            let StepError { at_commit, begun, error, .. } = error;
            Trouble::Session { error, location, at_commit, begun }
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
    Trouble::Script(scripts::ended_unexpectedly())
}
