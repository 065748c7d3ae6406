//! The table `nexus_journal`: one row per attempt, append-only except for closing an attempt. It is
//! the evidence by which dirty rows are settled.

use tokio_postgres::{
    SimpleQueryRow,
    types::{ToSql, Type},
};
use uuid::Uuid;

use crate::{
    migration::{
        Attempt, AttemptOutcome, Direction, Mode, Version,
        attempt::{KeptDown, LastAttempt},
        header::Header,
    },
    postgres::{
        executor::Author,
        names::Names,
        session::{Session, SessionError, text},
        tracking::Kept,
    },
};

/// Columns that a journal must have.
pub(super) const COLUMNS: [&str; 11] = [
    "id",
    "operation_id",
    "version",
    "direction",
    "mode",
    "checksum",
    "down_text",
    "statements_done",
    "statements_total",
    "outcome",
    "done_digest",
];

/// How much of a kept down script is read to know its header.
const HEADER_CHARACTERS: u32 = 64 * 1024;

/// Makes the journal.
pub(super) fn create_sql(names: &Names) -> String {
    format!(
        "create table {} (\
         id bigint generated always as identity primary key, \
         operation_id uuid, \
         version text not null, \
         direction text not null, \
         mode text not null default '', \
         checksum text not null default '', \
         down_text text, \
         statements_done integer not null default 0, \
         statements_total integer not null default 0, \
         started_at timestamptz not null default clock_timestamp(), \
         finished_at timestamptz, \
         outcome text not null, \
         sqlstate text, \
         message text, \
         requested_by text not null default '', \
         trace_id text, \
         instance text not null default '', \
         duration_ms bigint, \
         done_digest text); ",
        names.journal_sql
    )
}

/// Reads, for dirty rows, the last attempt that says anything: an undo in a transaction that was
/// not committed changed nothing, nor did a new checksum, so what was before them counts; and what
/// is older than the row is about another one. And the kept down scripts; and, where it is asked for,
/// the operation of the last attempt that put each row there.
pub(super) fn evidence_queries(names: &Names, kept: Kept) -> String {
    let Names { tracking_sql: tracking, journal_sql: journal, .. } = names;
    let only_dirty = match kept {
        Kept::Dirty => "and m.dirty",
        Kept::All | Kept::AllWithAuthors => "",
    };
    let authors = match kept {
        Kept::AllWithAuthors => format!(
            "; select distinct on (j.version) j.version as author_version, j.operation_id \
             from {journal} j join {tracking} m on m.version = j.version \
             where j.direction in ('up', 'rename', 'mark-applied') order by j.version, j.id desc"
        ),
        Kept::Dirty | Kept::All => String::new(),
    };
    format!(
        "; select distinct on (j.version) j.version as attempt_version, j.id, j.direction, j.mode, j.outcome, \
           j.statements_done, j.statements_total, j.checksum \
         from {journal} j join {tracking} m on m.version = j.version \
         where m.dirty and j.started_at >= m.applied_at and j.direction <> 'accept-checksum' \
         and not (j.direction = 'undo' and j.mode = 'transactional' and j.outcome <> 'succeeded') \
         order by j.version, j.id desc; \
         select k.version as down_version, \
           encode(pg_catalog.sha256(pg_catalog.convert_to(k.down_text, 'UTF8')), 'hex') as down_checksum, \
           pg_catalog.octet_length(k.down_text) as down_size, \
           pg_catalog.left(k.down_text, {HEADER_CHARACTERS}) as down_head \
         from (select distinct on (j.version) j.version, j.down_text \
           from {journal} j join {tracking} m on m.version = j.version \
           where j.direction in ('up', 'rename') {only_dirty} \
           order by j.version, j.id desc) k where k.down_text is not null{authors}"
    )
}

/// Reads a row of the first of [`evidence_queries`].
pub(super) fn read_last_attempt(row: &SimpleQueryRow) -> Option<LastAttempt> {
    Some(LastAttempt {
        id: text(row, "id")?.parse().ok()?,
        direction: match text(row, "direction")? {
            "up" => Some(Direction::Up),
            "down" | "undo" => Some(Direction::Down),
            _ => None,
        },
        mode: if text(row, "mode")? == "transactional" {
            Mode::Transactional
        } else {
            Mode::NonTransactional
        },
        outcome: AttemptOutcome::parse(text(row, "outcome")?)?,
        statements_done: text(row, "statements_done")?.parse().ok()?,
        statements_total: text(row, "statements_total")?.parse().ok()?,
        checksum: text(row, "checksum")?.to_owned(),
    })
}

/// Reads a row of the second of [`evidence_queries`]. A kept script whose header cannot be read was
/// not kept by Nexus.
pub(super) fn read_kept_down(row: &SimpleQueryRow) -> Option<KeptDown> {
    Some(KeptDown {
        checksum: text(row, "down_checksum")?.to_owned(),
        header: Header::parse(text(row, "down_head")?).ok()?,
        size: text(row, "down_size")?.parse().ok()?,
    })
}

/// Reads a row of the third of [`evidence_queries`].
pub(super) fn read_author(row: &SimpleQueryRow) -> Option<Uuid> {
    text(row, "operation_id")?.parse().ok()
}

/// Reads the kept down script of a version.
pub async fn kept_down(session: &Session, version: &Version) -> Result<Option<String>, SessionError> {
    let sql = format!(
        "select j.down_text from {} j where j.version = $1 and j.direction in ('up', 'rename') \
         order by j.id desc limit 1",
        session.names.journal_sql
    );
    let rows = session.query(&sql, &[(&version.as_str(), Type::TEXT)]).await?;
    Ok(rows.first().and_then(|row| row.get(0)))
}

/// Whether another instance of the daemon has left an attempt of this operation here; or, where its
/// own ones count too, any has.
pub async fn knows(session: &Session, author: &Author, own_too: bool) -> Result<bool, SessionError> {
    let sql = format!(
        "select exists (select from {} where operation_id = $1 and ($3 or instance <> $2))",
        session.names.journal_sql
    );
    let parameters: [(&(dyn ToSql + Sync), Type); 3] =
        [(&author.operation, Type::UUID), (&author.instance, Type::TEXT), (&own_too, Type::BOOL)];
    let rows = session.query(&sql, &parameters).await?;
    Ok(rows.first().is_some_and(|row| row.get(0)))
}

/// The attempts of one operation, oldest first: the version, the direction, and whether it succeeded.
pub async fn of_operation(
    session: &Session,
    operation: Uuid,
) -> Result<Vec<(Version, String, bool)>, SessionError> {
    let sql = format!(
        "select version, direction, outcome = '{}' from {} where operation_id = $1 order by id",
        AttemptOutcome::Succeeded.as_str(),
        session.names.journal_sql
    );
    let rows = session.query(&sql, &[(&operation, Type::UUID)]).await?;
    Ok(rows.iter().map(|row| (Version::from_row(row.get(0)), row.get(1), row.get(2))).collect())
}

/// The digest of the statements that the last attempt on a non-transactional script had done.
pub async fn done_digest(session: &Session, version: &Version) -> Result<Option<String>, SessionError> {
    let sql = format!(
        "select j.done_digest from {} j where j.version = $1 and j.direction = 'up' order by j.id desc limit 1",
        session.names.journal_sql
    );
    let rows = session.query(&sql, &[(&version.as_str(), Type::TEXT)]).await?;
    Ok(rows.first().and_then(|row| row.get(0)))
}

/// Closes an attempt that did not succeed, durably.
pub async fn close(
    session: &Session,
    attempt: i64,
    outcome: AttemptOutcome,
    sqlstate: Option<&str>,
    message: &str,
) -> Result<(), SessionError> {
    session.rows("set synchronous_commit = on").await?;
    let sql = format!(
        "update {} set outcome = $2, sqlstate = $3, message = $4, finished_at = clock_timestamp(), \
         duration_ms = extract(epoch from clock_timestamp() - started_at) * 1000 where id = $1 and outcome = 'running'",
        session.names.journal_sql
    );
    session
        .query(
            &sql,
            &[
                (&attempt, Type::INT8),
                (&outcome.as_str(), Type::TEXT),
                (&sqlstate, Type::TEXT),
                (&message, Type::TEXT),
            ],
        )
        .await
        .map(drop)
}

/// Reads attempts, newest first: of one version or of all, at most `limit`.
pub async fn history(
    session: &Session,
    version: Option<&str>,
    limit: i64,
) -> Result<Vec<Attempt>, SessionError> {
    let sql = format!(
        "select id, operation_id, version, direction, mode, checksum, statements_done, statements_total, \
           started_at, finished_at, outcome, sqlstate, message, requested_by, instance, duration_ms, trace_id \
         from {} where $1::text is null or version = $1 or \
           ($1 ~ '^[0-9]+$' and version ~ '^[0-9]{{1,18}}_' and split_part(version, '_', 1)::numeric = $1::numeric) \
         order by id desc limit $2",
        session.names.journal_sql
    );
    let rows = session.query(&sql, &[(&version, Type::TEXT), (&limit, Type::INT8)]).await?;
    let attempts = rows.iter().map(|row| Attempt {
        id: row.get(0),
        operation: row.get::<_, Option<Uuid>>(1),
        version: Version::from_row(row.get(2)),
        direction: row.get(3),
        mode: row.get(4),
        checksum: row.get(5),
        statements_done: row.get(6),
        statements_total: row.get(7),
        started_at: row.get(8),
        finished_at: row.get(9),
        outcome: row.get(10),
        sqlstate: row.get(11),
        message: row.get(12),
        requested_by: row.get(13),
        instance: row.get(14),
        duration_ms: row.get(15),
        trace_id: row.get(16),
    });
    Ok(attempts.collect())
}
