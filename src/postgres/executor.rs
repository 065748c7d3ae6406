//! Running one step on a session: the dirty mark, the SQL, the end. It obeys; what is run, and in
//! which order, was decided by the planner.

use std::{fmt::Write as _, time::Duration};

use tokio_postgres::types::Type;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::{
    migration::{Checksum, Direction, Mode, Step, StepAction, TraceContext, Version},
    postgres::{
        names::Names,
        quote::quote_literal,
        session::{BatchError, Session, SessionError},
        trace,
    },
    runtime::faults,
};

/// Who does it, for the journal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Author {
    /// The operation.
    pub operation: Uuid,
    /// Who asked.
    pub requested_by: String,
    /// The daemon's instance.
    pub instance: String,
    /// The trace.
    pub trace: TraceContext,
}

/// What the dirty mark records.
#[derive(Debug)]
pub struct Mark<'a> {
    /// The step.
    pub step: &'a Step,
    /// The up file's checksum, as hexadecimal digits; of a down the one in the row.
    pub checksum: &'a str,
    /// The down script to keep.
    pub down_text: Option<&'a str>,
    /// How many statements the script has.
    pub statements: u32,
    /// Of a resumed script, the digest of the statements that are done.
    pub done_digest: Option<&'a str>,
}

/// Marks the row dirty and opens an attempt, in one statement and one transaction: it is visible at
/// once and survives a killed daemon. Not flushed for a transactional step: what a server crash
/// takes of the mark it takes of the migration too, whose records come later in the WAL. Returns
/// the attempt's number.
pub async fn mark(session: &Session, author: &Author, mark: &Mark<'_>) -> Result<i64, SessionError> {
    if mark.step.mode == Mode::NonTransactional {
        session.rows("set synchronous_commit = on").await?;
    }
    let rows = session.rows(&mark_sql(&session.names, author, mark)).await?;
    let id = rows.first().and_then(|row| row.get(0));
    id.and_then(|id| id.parse().ok()).ok_or(SessionError::RowGone)
}

/// Two statements in one message: PostgreSQL plans them faster than one that does both. Where something has kept
/// the row from being dirty, the second fails, and nothing is left of the first.
fn mark_sql(names: &Names, author: &Author, mark: &Mark<'_>) -> String {
    let Names { tracking_sql: tracking, journal_sql: journal, .. } = names;
    let (version, checksum) = (quote_literal(mark.step.version.as_str()), quote_literal(mark.checksum));
    let optional = |text: Option<&str>| text.map_or_else(|| "null".to_owned(), quote_literal);
    let update = |set: &str| format!("update {tracking} set {set}dirty = true where version = {version}");
    let (row, direction, done) = match mark.step.action {
        StepAction::Apply => (
            format!("insert into {tracking} (version, checksum, dirty) values ({version}, {checksum}, true)"),
            "up",
            0,
        ),
        StepAction::Resume { done } => (update(&format!("checksum = {checksum}, ")), "up", done),
        StepAction::Undo => (update(""), "undo", 0),
        _ => (update(""), "down", 0),
    };
    format!(
        "{row}; insert into {journal} (operation_id, version, direction, mode, checksum, down_text, \
         statements_done, statements_total, outcome, requested_by, trace_id, instance, done_digest) \
         select '{operation}', version, '{direction}', '{mode}', {checksum}, {down_text}, {done}, {total}, \
         {running}, {requested_by}, {trace_id}, {instance}, {digest} \
         from {tracking} where version = {version} returning id",
        running = "case when dirty then 'running' else pg_catalog.current_setting('nexus.escaped.row') end",
        operation = author.operation,
        mode = mark.step.mode,
        down_text = optional(mark.down_text),
        total = mark.statements,
        requested_by = quote_literal(&author.requested_by),
        trace_id = quote_literal(&author.trace.trace_id()),
        instance = quote_literal(&author.instance),
        digest = optional(mark.done_digest),
    )
}

/// Whether a commit waits until it is on disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Flush {
    /// It does, and everything before it is on disk with it.
    Yes,
    /// A later commit of the same run will see to it.
    Later,
}

/// The comment, in the form of sqlcommenter, by which `pg_stat_activity` and the server's log lead to
/// the trace. It stands in front: `pg_stat_activity` shows the beginning of a message.
fn comment(trace: &TraceContext) -> String {
    format!("/*traceparent='{trace}'*/ ")
}

/// What stands before a transactional script's own statements.
fn prefix(session: &Session, step: &Step, trace: &TraceContext) -> (String, usize) {
    let mut sql = comment(trace) + &session.begin_sql();
    let mut statements = Session::BEGIN_STATEMENTS;
    for (setting, limit) in limits(step) {
        // Writing to a String cannot fail.
        let _ = write!(sql, " set local {setting} = {};", limit.as_millis());
        statements += 1;
    }
    sql.push('\n');
    (sql, statements)
}

fn limits(step: &Step) -> impl Iterator<Item = (&'static str, Duration)> {
    let header = &step.header;
    [("lock_timeout", header.lock_timeout), ("statement_timeout", header.statement_timeout)]
        .into_iter()
        .filter_map(|(setting, limit)| Some((setting, limit?)))
}

/// What stands after a transactional script's own statements: the guard, the row, the journal's
/// outcome, the commit, and the session's settings put back. The line break ends a comment that the
/// script may end with, and the semicolon its last statement.
fn suffix(session: &Session, step: &Step, attempt: i64, flush: Flush) -> String {
    let durable = match flush {
        Flush::Yes => "set local synchronous_commit = on; ",
        Flush::Later => "set local synchronous_commit = off; ",
    };
    format!(
        "\n;{guard}; {end} {durable}commit; {reset}",
        guard = session.guard_sql(true),
        end = end_sql(&session.names, step, attempt),
        reset = session.reset_sql(),
    )
}

/// How many statements [`suffix`] has before the COMMIT: the guard, the three of [`end_sql`],
/// the setting, and what closes the attempts that a recovery settles.
fn statements_before_commit(step: &Step) -> usize {
    5 + usize::from(settles(step))
}

/// Whether a step settles earlier attempts: one of a recovery's, or a rollback of what an earlier one has
/// left, for which there is a reason then.
fn settles(step: &Step) -> bool {
    step.action.settles() || (step.action == StepAction::Rollback && !step.reason.is_empty())
}

/// Ends a step in the journal and in the table. It fails where a row is not there as the mark left it, which
/// the change of the journal asks for, or where something (a trigger, a rule) has kept one from being changed.
fn end_sql(names: &Names, step: &Step, attempt: i64) -> String {
    let Names { tracking_sql: tracking, journal_sql: journal, .. } = names;
    let version = quote_literal(step.version.as_str());
    let row = |is: &str| format!("exists (select from {tracking} where version = {version}{is})");
    let (change, changed) = match step.action.direction() {
        Some(Direction::Up) => (
            format!(
                "update {tracking} set dirty = false, applied_at = pg_catalog.now() where version = {version}"
            ),
            row(" and not dirty"),
        ),
        _ => (format!("delete from {tracking} where version = {version}"), format!("not {}", row(""))),
    };
    let ended = format!("exists (select from {journal} where id = {attempt} and outcome = 'succeeded')");
    let is_kept = Session::fail_sql(&[("row", &format!("not ({changed} and {ended})"))]);
    let settled = if settles(step) { close_settled_sql(names, &version, attempt) } else { String::new() };
    format!(
        "update {journal} set outcome = case when outcome = 'running' and {was_marked} then 'succeeded' \
           else pg_catalog.current_setting('nexus.escaped.row') end, statements_done = statements_total, \
         finished_at = pg_catalog.clock_timestamp(), \
         duration_ms = extract(epoch from pg_catalog.clock_timestamp() - started_at) * 1000 \
         where id = {attempt}; {change}; {is_kept};{settled}",
        was_marked = row(" and dirty"),
    )
}

/// Closes the attempts that a recovery settled; `version` is a quoted literal, `attempt` the one
/// that settles them.
fn close_settled_sql(names: &Names, version: &str, attempt: i64) -> String {
    format!(
        " update {} set outcome = 'recovered', \
         finished_at = coalesce(finished_at, pg_catalog.clock_timestamp()) \
         where version = {version} and id <> {attempt} \
         and outcome in ('running', 'rolled_back', 'failed', 'interrupted');",
        names.journal_sql
    )
}

/// Where in a batch an error arose.
#[derive(Debug)]
pub struct StepError {
    /// Why.
    pub error: SessionError,
    /// The characters that stood before the script's own text in the message.
    pub prefix_characters: usize,
    /// How many of the script's own statements in this piece were completed; `None` where the
    /// error arose after all of them, in the guard or at the commit.
    pub completed: Option<usize>,
    /// Whether the COMMIT itself failed, as it does at a deferred constraint.
    pub at_commit: bool,
    /// Whether the transaction had been opened: a syntax error is found before anything is run.
    pub begun: bool,
}

impl From<SessionError> for StepError {
    /// An error of the session itself, somewhere in the piece.
    fn from(error: SessionError) -> Self {
        Self { error, prefix_characters: 0, completed: None, at_commit: false, begun: true }
    }
}

/// A piece of a transactional script: whole statements.
#[derive(Debug, Clone, Copy)]
pub struct Piece<'a> {
    /// The text.
    pub text: &'a str,
    /// How many statements it has.
    pub statements: usize,
    /// Whether it is the script's first.
    pub first: bool,
    /// Set for the script's last: how its commit is flushed.
    pub last: Option<Flush>,
}

/// Sends one piece of a transactional script. The first opens the transaction, the last commits it;
/// a script of one piece is one message.
pub async fn run_piece(
    session: &Session,
    step: &Step,
    (attempt, trace): (i64, &TraceContext),
    piece: Piece<'_>,
    cancel: &CancellationToken,
) -> Result<(), StepError> {
    let (mut sql, before) = if piece.first { prefix(session, step, trace) } else { (comment(trace), 0) };
    let prefix_characters = sql.chars().count();
    sql.push_str(piece.text);
    match piece.last {
        Some(flush) => sql.push_str(&suffix(session, step, attempt, flush)),
        None => sql.push_str("\n;"),
    }
    session.batch(&sql, cancel).await.map(drop).map_err(|BatchError { error, completed }| {
        let begun = !piece.first || completed > 0;
        let at_commit =
            piece.last.is_some() && completed == before + piece.statements + statements_before_commit(step);
        let completed = completed.saturating_sub(before);
        let completed = (completed < piece.statements).then_some(completed);
        StepError { error, prefix_characters, completed, at_commit, begun }
    })
}

/// Ends a failed transaction and puts the session's settings back; says whether there was one.
pub async fn roll_back(session: &mut Session) -> Result<bool, SessionError> {
    let had_one = session.roll_back().await?;
    session.rows(&session.reset_sql()).await?;
    Ok(had_one)
}

/// Sets how long the next statements wait for a lock; zero: as long as it takes.
pub async fn set_lock_timeout(session: &Session, timeout: Duration) -> Result<(), SessionError> {
    session.rows(&format!("set lock_timeout = {}", timeout.as_millis())).await.map(drop)
}

/// Sets the session's limits for a non-transactional step.
pub async fn set_limits(session: &Session, step: &Step) -> Result<(), SessionError> {
    let mut sql = String::from("set synchronous_commit = on");
    for (setting, limit) in limits(step) {
        // Writing to a String cannot fail.
        let _ = write!(sql, "; set {setting} = {}", limit.as_millis());
    }
    session.rows(&sql).await.map(drop)
}

/// Runs one statement of a non-transactional script by itself, then records, durably, that `done`
/// are done, with their digest: also where the guard has found that the script went astray.
pub async fn run_statement(
    session: &Session,
    (attempt, trace): (i64, &TraceContext),
    statement: &str,
    (done, digest): (u32, Checksum),
    cancel: &CancellationToken,
) -> Result<(), SessionError> {
    let comment = comment(trace);
    let sql = format!("{comment}{statement}");
    let sent = trace::statement(session.dbname(), statement, session.batch(&sql, cancel));
    sent.await.map_err(|failed| without_comment(failed.error, &comment))?;
    faults::reached("statement", "run");
    let guard = session.rows(&session.guard_sql(false)).await;
    let record = format!(
        "reset session authorization; reset role; begin; set local synchronous_commit = on; \
         update {} set statements_done = {done}, done_digest = '{digest}' where id = {attempt}; commit",
        session.names.journal_sql,
    );
    session.rows(&record).await?;
    guard.map(drop)
}

/// An error with its position in the statement itself.
fn without_comment(mut error: SessionError, comment: &str) -> SessionError {
    if let SessionError::Sql(fault) = &mut error {
        let characters = u32::try_from(comment.chars().count()).unwrap_or(u32::MAX);
        fault.position = fault.position.map(|position| position.saturating_sub(characters));
    }
    error
}

/// Ends a non-transactional step, durably.
pub async fn end_non_transactional(session: &Session, step: &Step, attempt: i64) -> Result<(), SessionError> {
    let sql = format!(
        "begin; {} set local synchronous_commit = on; commit; {}",
        end_sql(&session.names, step, attempt),
        session.reset_sql()
    );
    session.rows(&sql).await.map(drop)
}

/// Settles a dirty row without running SQL, durably: removes it, or clears its mark; fails where that is not
/// what became of it. The attempts that left it so are closed.
pub async fn settle(session: &Session, version: &Version, action: StepAction) -> Result<(), SessionError> {
    let tracking = &session.names.tracking_sql;
    let version = quote_literal(version.as_str());
    let (row, wrong) = match action {
        StepAction::ClearMark => (
            format!("update {tracking} set dirty = false where version = {version} and dirty"),
            format!("not exists (select from {tracking} where version = {version} and not dirty)"),
        ),
        _ => (
            format!("delete from {tracking} where version = {version} and dirty"),
            format!("exists (select from {tracking} where version = {version})"),
        ),
    };
    let sql = format!(
        "begin; set local synchronous_commit = on; {row}; {};{} commit",
        Session::fail_sql(&[("row", &wrong)]),
        close_settled_sql(&session.names, &version, 0)
    );
    session.rows(&sql).await.map(drop)
}

/// What became of an attempt whose end was not heard, and whether a later one was made meanwhile.
pub async fn fate(session: &Session, attempt: i64) -> Result<Fate, SessionError> {
    let sql = format!(
        "select (select j.outcome = 'succeeded' from {journal} j where j.id = $1), \
         exists (select from {journal} j where j.id > $1)",
        journal = session.names.journal_sql
    );
    let rows = session.query(&sql, &[(&attempt, Type::INT8)]).await?;
    let row = rows.first().ok_or(SessionError::Lost)?;
    Ok(Fate { committed: row.get::<_, Option<bool>>(0).unwrap_or(false), overtaken: row.get(1) })
}

/// What became of an attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Fate {
    /// It was committed.
    pub committed: bool,
    /// Another run was at work after it.
    pub overtaken: bool,
}

/// Waits until everything that was committed on this server is on disk.
pub async fn flush(session: &Session) -> Result<(), SessionError> {
    session.rows(FLUSH_SQL).await.map(drop)
}

/// A commit that writes something, so that it flushes whatever was committed before it.
pub(super) const FLUSH_SQL: &str = "begin; set local synchronous_commit = on; \
                                    select pg_catalog.pg_logical_emit_message(true, 'nexus', ''); commit";
