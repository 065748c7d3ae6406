//! A step whose script runs outside a transaction, statement by statement, each recorded in the
//! journal when it is done.

use crate::{
    engine::{
        failure::{of_script, of_session},
        scripts::{self, Feed, Prepared},
        steps::{Steps, transactional::is_lock_trouble},
    },
    migration::{AttemptOutcome, Code, EventKind, Failure, Step, StepAction},
    postgres::{
        executor::{self, Mark},
        index,
        session::SessionError,
    },
    sql::{self, Group, Statement},
};

/// How far a script is.
struct Progress {
    attempt: i64,
    done: u32,
    total: u32,
}

impl Steps<'_> {
    pub(super) async fn non_transactional(
        &mut self,
        step: &Step,
        prepared: &Prepared,
    ) -> Result<(), Failure> {
        let mut feed = scripts::feed(self.run, step, prepared);
        let skip = match step.action {
            StepAction::Resume { done } => done,
            _ => 0,
        };
        let mut progress = None;
        let mut seen = 0;
        loop {
            match feed.recv().await {
                Some(Feed::Down(down)) => {
                    let total = prepared.statements;
                    let mark = Mark {
                        step,
                        checksum: &prepared.checksum,
                        down_text: down.as_deref(),
                        statements: total,
                    };
                    let marked = executor::mark(&self.session, &self.run.author, &mark).await;
                    let attempt = marked
                        .map_err(|error| of_session(error, "marking the row").version(&step.version))?;
                    let limits = executor::set_limits(&self.session, step).await;
                    limits.map_err(|error| of_session(error, "setting the limits").version(&step.version))?;
                    progress = Some(Progress { attempt, done: skip, total });
                }
                Some(Feed::Group(group)) => {
                    let Some(progress) = &mut progress else { return Err(unexpected()) };
                    for statement in &group.statements {
                        seen += 1;
                        if seen > skip {
                            self.statement(step, prepared, &group, statement, progress).await?;
                        }
                    }
                }
                Some(Feed::End) => {
                    let Some(progress) = progress else { return Err(unexpected()) };
                    let ended = executor::end_non_transactional(&self.session, step, progress.attempt).await;
                    return match ended {
                        Err(SessionError::Lost) => self.resolve(step, Some(progress.attempt)).await,
                        ended => ended
                            .map_err(|error| of_session(error, "ending a migration").version(&step.version)),
                    };
                }
                Some(Feed::Failed(failure)) => {
                    let attempt = progress.map(|progress| progress.attempt);
                    self.close_attempt(attempt, AttemptOutcome::Failed, &failure).await;
                    return Err(failure.version(&step.version));
                }
                None => return Err(unexpected()),
            }
        }
    }

    /// Runs one statement, again where it meets a lock.
    async fn statement(
        &mut self,
        step: &Step,
        prepared: &Prepared,
        group: &Group,
        statement: &Statement,
        progress: &mut Progress,
    ) -> Result<(), Failure> {
        let sql = group.statement(statement);
        let mut delays = self.retry_delays();
        for tried in 1.. {
            self.heal(step, sql, progress.attempt, tried > 1).await?;
            let cancel = &self.run.stop.cancel;
            let running =
                executor::run_statement(&self.session, progress.attempt, sql, progress.done + 1, cancel);
            let ran = self.told.watch(step, self.session.pid(), running).await;
            let error = match ran {
                Ok(()) => break,
                Err(SessionError::Lost) => return self.resolve(step, Some(progress.attempt)).await,
                Err(error) => error,
            };
            let failure = match error {
                SessionError::Sql(fault) => {
                    let delay = is_lock_trouble(&fault.sqlstate).then(|| delays.next()).flatten();
                    if let Some(delay) = delay
                        && self.wait_to_retry(step, tried, delay, &fault.sqlstate).await
                    {
                        continue;
                    }
                    let name = prepared.text.as_ref().map_or("", |text| text.name());
                    let in_statement =
                        fault.position.and_then(|position| usize::try_from(position).ok()?.checked_sub(1));
                    let location =
                        group.location(name, statement.range.start, in_statement.unwrap_or_default());
                    of_script(fault, step, Some(location), Some((progress.done, progress.total)))
                }
                SessionError::Cancelled => Failure::new(
                    Code::PartlyApplied,
                    format!(
                        "Migration {} was cancelled after {} of {} statements",
                        step.version, progress.done, progress.total
                    ),
                )
                .version(&step.version),
                error => of_session(error, "running a statement").version(&step.version),
            };
            self.close_attempt(Some(progress.attempt), AttemptOutcome::Failed, &failure).await;
            return Err(failure);
        }
        progress.done += 1;
        let (done, total) = (u64::from(progress.done), u64::from(progress.total));
        self.run.emit(EventKind::StepProgress { version: step.version.clone(), done, total });
        Ok(())
    }

    /// Before an index is built concurrently: drops the invalid one that a failed attempt of ours
    /// left under its name; refuses one that is not ours, which IF NOT EXISTS would take for done.
    async fn heal(&mut self, step: &Step, sql: &str, attempt: i64, again: bool) -> Result<(), Failure> {
        let Some(wanted) = sql::concurrent_index(sql).filter(|it| it.action == sql::IndexAction::Create)
        else {
            return Ok(());
        };
        let Some(name) = wanted.name else { return Ok(()) };
        let fail =
            |error: SessionError| of_session(error, "looking for an invalid index").version(&step.version);
        let found = index::find_invalid(&self.session, &name, wanted.table.as_deref()).await.map_err(fail)?;
        let Some(invalid) = found else { return Ok(()) };
        let ours = again || index::left_by_us(&self.session, &step.version, attempt).await.map_err(fail)?;
        if !ours {
            let message = format!("An invalid index {invalid} stands in the way of {}", step.version);
            let failure = Failure::new(Code::InvalidIndex, message)
                .version(&step.version)
                .hint(format!("drop index concurrently {invalid}; then run apply again"));
            self.close_attempt(Some(attempt), AttemptOutcome::Failed, &failure).await;
            return Err(failure);
        }
        index::drop_concurrently(&self.session, &invalid).await.map_err(fail)?;
        let message = format!("dropped the invalid index {invalid} that an attempt had left");
        self.run.emit(EventKind::Notice { version: Some(step.version.clone()), message });
        Ok(())
    }
}

fn unexpected() -> Failure {
    Failure::new(Code::Internal, "The task that reads the script ended unexpectedly")
}
