//! A step whose script runs outside a transaction, statement by statement, each recorded in the
//! journal when it is done.

use std::time::Duration;

use crate::{
    engine::{
        failure::{of_row, of_script, of_session},
        scripts::{self, Feed, Prepared},
        steps::{Reading, Steps, transactional::is_lock_trouble},
    },
    migration::{AttemptOutcome, Checksum, Code, EventKind, Failure, Step, StepAction},
    postgres::{
        error::SqlFault,
        executor::{self, Mark},
        index, journal,
        session::SessionError,
    },
    runtime::faults,
    sql::{self, ConcurrentIndex, Group, IndexAction, Statement},
};

/// How far a script is.
struct Progress {
    attempt: i64,
    done: u32,
    total: u32,
    /// Of the statements that are done, each with what stood before it.
    digest: Checksum,
}

impl Progress {
    /// How an attempt that ends here is recorded; `is_clear` where its last statement left nothing.
    fn outcome(&self, is_clear: bool) -> AttemptOutcome {
        if is_clear && self.done == 0 { AttemptOutcome::RolledBack } else { AttemptOutcome::Failed }
    }
}

/// A statement, and where it stands.
#[derive(Clone, Copy)]
struct Place<'a> {
    step: &'a Step,
    group: &'a Group,
    statement: &'a Statement,
    file: &'a str,
}

impl Steps<'_> {
    pub(super) async fn non_transactional(
        &mut self,
        step: &Step,
        prepared: &Prepared,
        mut script: Reading,
    ) -> Result<(), Failure> {
        let skip = match step.action {
            StepAction::Resume { done } => done,
            _ => 0,
        };
        let file = prepared.text.as_ref().map_or("", |text| text.name());
        let (mut progress, mut known_digest) = (None, None);
        let mut seen = 0;
        loop {
            match script.recv().await {
                Some(Feed::Down(down)) => {
                    let began = self.begin(step, prepared, down.as_deref(), skip).await;
                    let (began, known) = began.map_err(|failure| failure.version(&step.version))?;
                    (progress, known_digest) = (Some(began), known);
                }
                Some(Feed::Group(group)) => {
                    let Some(progress) = &mut progress else { return Err(scripts::ended_unexpectedly()) };
                    for statement in &group.statements {
                        seen += 1;
                        let place = Place { step, group: &group, statement, file };
                        if seen > skip {
                            self.statement(place, progress).await?;
                            continue;
                        }
                        progress.digest = chain(progress.digest, group.statement(statement));
                        if seen == skip && known_digest.as_ref() != Some(&progress.digest.hex()) {
                            return Err(self.edited_above(place, progress).await);
                        }
                    }
                }
                Some(Feed::End) => {
                    let Some(progress) = progress else { return Err(scripts::ended_unexpectedly()) };
                    return self.end(step, &progress).await;
                }
                Some(Feed::Failed(failure)) => {
                    let attempt = progress.map(|progress| progress.attempt);
                    self.close_attempt(attempt, AttemptOutcome::Failed, &failure).await;
                    return Err(failure.version(&step.version));
                }
                None => return Err(scripts::ended_unexpectedly()),
            }
        }
    }

    /// Marks the row, and finds the digest of what an earlier attempt had done.
    async fn begin(
        &mut self,
        step: &Step,
        prepared: &Prepared,
        down_text: Option<&str>,
        skip: u32,
    ) -> Result<(Progress, Option<String>), Failure> {
        let known = match skip {
            0 => None,
            _ => journal::done_digest(&self.session, &step.version)
                .await
                .map_err(|error| of_session(error, "reading what was done"))?,
        };
        let total = prepared.statements;
        let checksum = &prepared.checksum_for(step);
        let mark = Mark { step, checksum, down_text, statements: total, done_digest: known.as_deref() };
        let marked = executor::mark(&self.session, &self.run.author, &mark).await;
        let attempt = marked.map_err(|error| of_row(error, "marking the row"))?;
        faults::reached(step.action, "marked");
        let limits = executor::set_limits(&self.session, step).await;
        limits.map_err(|error| of_session(error, "setting the limits"))?;
        Ok((Progress { attempt, done: skip, total, digest: Checksum::of(b"") }, known))
    }

    async fn end(&mut self, step: &Step, progress: &Progress) -> Result<(), Failure> {
        let ended = executor::end_non_transactional(&self.session, step, progress.attempt).await;
        let failure = match ended {
            Ok(()) => return Ok(()),
            Err(SessionError::Lost) => return self.resolve(step, Some(progress.attempt)).await,
            Err(SessionError::Sql(fault)) => {
                of_script(fault, step, None, Some((progress.done, progress.total)))
            }
            Err(error) => of_session(error, "ending a migration").version(&step.version),
        };
        self.abandon(progress, AttemptOutcome::Failed, &failure).await;
        Err(failure)
    }

    /// The statements that an earlier attempt had done are not those of the file any more.
    async fn edited_above(&mut self, place: Place<'_>, progress: &Progress) -> Failure {
        let message = format!(
            "Migration {} cannot be resumed: its first {} statements are not those that were run",
            place.step.version, progress.done
        );
        let failure = Failure::new(Code::Undecided, message).version(&place.step.version);
        self.abandon(progress, AttemptOutcome::Failed, &failure).await;
        failure
    }

    /// Runs one statement, again where it meets a lock.
    async fn statement(&mut self, place: Place<'_>, progress: &mut Progress) -> Result<(), Failure> {
        let sql = place.group.statement(place.statement);
        let index = sql::concurrent_index(sql);
        let digest = chain(progress.digest, sql);
        let mut delays = self.retry_delays();
        let mut tried = 0;
        loop {
            tried += 1;
            if let Err(failure) = self.prepare_index(place, index.as_ref(), progress, tried > 1).await {
                self.abandon(progress, progress.outcome(true), &failure).await;
                return Err(failure);
            }
            let record = (progress.done + 1, digest);
            let cancel = &self.run.stop.cancel;
            let attempt = (progress.attempt, &self.run.author.trace);
            let running = executor::run_statement(&self.session, attempt, sql, record, cancel);
            let ran = self.told.watch(place.step, self.session.pid(), running).await;
            let (failure, is_whole) = match ran {
                Ok(()) => break,
                Err(SessionError::Lost) => {
                    let resolved = self.resolve(place.step, Some(progress.attempt)).await;
                    return Err(resolved.err().unwrap_or_else(scripts::ended_unexpectedly));
                }
                Err(SessionError::Sql(fault)) => {
                    if is_lock_trouble(&fault.sqlstate)
                        && let Some(delay) = delays.next()
                        && self.wait_to_retry(place.step, tried, delay, &fault.sqlstate).await
                    {
                        continue;
                    }
                    let is_whole = sql::is_atomic(sql);
                    (failed_at(place, fault, progress), is_whole)
                }
                Err(SessionError::Cancelled) => (cancelled(place.step, progress), sql::is_atomic(sql)),
                Err(error) => (of_session(error, "running a statement").version(&place.step.version), false),
            };
            // What a failed build leaves behind is cleared at once; where that succeeds, nothing is left.
            let is_cleared = match &index {
                Some(index) if index.action == IndexAction::Create => {
                    self.prepare_index(place, Some(index), progress, true).await.is_ok()
                }
                _ => is_whole,
            };
            self.abandon(progress, progress.outcome(is_cleared), &failure).await;
            return Err(failure);
        }
        faults::reached(place.step.action, "statement recorded");
        progress.done += 1;
        progress.digest = digest;
        let (done, total) = (u64::from(progress.done), u64::from(progress.total));
        self.run.emit(EventKind::StepProgress { version: place.step.version.clone(), done, total });
        Ok(())
    }

    /// Closes the attempt, with the session's settings put back, so that nothing of the script's
    /// stands in the way.
    async fn abandon(&mut self, progress: &Progress, outcome: AttemptOutcome, failure: &Failure) {
        if let Err(error) = executor::roll_back(&mut self.session).await {
            tracing::warn!(%error, "the session could not be put back");
        }
        self.close_attempt(Some(progress.attempt), outcome, failure).await;
    }

    /// Before an index is built concurrently: drops the invalid one that a failed attempt of ours
    /// left under its name; refuses one that is not ours, which IF NOT EXISTS would take for done.
    /// The build waits for every transaction that is older than itself, so it waits for locks as
    /// long as that takes, unless the header says otherwise.
    async fn prepare_index(
        &mut self,
        place: Place<'_>,
        wanted: Option<&ConcurrentIndex>,
        progress: &Progress,
        again: bool,
    ) -> Result<(), Failure> {
        let step = place.step;
        let fail =
            |error: SessionError| of_session(error, "preparing to build an index").version(&step.version);
        let default = self.run.database.limits.lock_timeout;
        let timeout = step.header.lock_timeout;
        let timeout = timeout.unwrap_or(if wanted.is_some() { Duration::ZERO } else { default });
        executor::set_lock_timeout(&self.session, timeout).await.map_err(fail)?;
        let Some(wanted) = wanted.filter(|it| it.action == IndexAction::Create) else { return Ok(()) };
        let Some(name) = &wanted.name else { return Ok(()) };
        let (schema, table) = (wanted.schema.as_deref(), wanted.table.as_deref());
        let found = index::find_invalid(&self.session, name, schema, table).await.map_err(fail)?;
        let Some(invalid) = found else { return Ok(()) };
        let ours =
            again || index::left_by_us(&self.session, &step.version, progress.attempt).await.map_err(fail)?;
        if !ours {
            let message = format!("An invalid index {invalid} stands in the way of {}", step.version);
            return Err(Failure::new(Code::InvalidIndex, message)
                .version(&step.version)
                .hint(format!("drop index concurrently {invalid}; then run apply again")));
        }
        // Not cancelled with the run: it is what makes the cancelled build leave nothing.
        let dropping = index::drop_concurrently(&self.session, &invalid);
        self.told.watch(step, self.session.pid(), dropping).await.map_err(fail)?;
        let message = format!("dropped the invalid index {invalid} that an attempt had left");
        self.run.emit(EventKind::Notice { version: Some(step.version.clone()), message });
        Ok(())
    }
}

/// The digest of the statements that are done: of the digest before, and of the next one's text.
fn chain(before: Checksum, statement: &str) -> Checksum {
    Checksum::of(format!("{before} {statement}").as_bytes())
}

fn failed_at(place: Place<'_>, fault: SqlFault, progress: &Progress) -> Failure {
    let position = fault.position.and_then(|position| usize::try_from(position).ok()?.checked_sub(1));
    let start = place.statement.range.start;
    let location = place.group.location(place.file, start, position.unwrap_or_default());
    of_script(fault, place.step, Some(location), Some((progress.done, progress.total)))
}

fn cancelled(step: &Step, progress: &Progress) -> Failure {
    let message = format!(
        "Migration {} was cancelled after {} of {} statements",
        step.version, progress.done, progress.total
    );
    Failure::new(Code::PartlyApplied, message).version(&step.version)
}
