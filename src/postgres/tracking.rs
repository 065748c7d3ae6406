//! The table `schema_migrations`: making it, recognising it, reading it, marking its rows.

use std::{collections::HashMap, fmt::Write as _};

use jiff::Timestamp;
use tokio_postgres::{SimpleQueryRow, types::Type};

use crate::{
    migration::{AppliedRow, Tracked, Version},
    postgres::{
        journal,
        names::Names,
        quote::quote_literal,
        session::{Session, SessionError, text},
    },
};

/// Microseconds from 1970 to 2000.
const MICROS_TO_2000: i64 = 946_684_800_000_000;

/// Which of the two tables exist.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Shape {
    /// `schema_migrations`.
    pub tracking: bool,
    /// `nexus_journal`.
    pub journal: bool,
}

impl Shape {
    /// Whether there is a tracking table to read. Where it is gone and its journal is not, that is
    /// no new beginning: to begin anew would run again what the journal knows to be applied.
    pub(super) fn has_rows(self) -> Result<bool, SessionError> {
        if self.journal && !self.tracking { Err(SessionError::TableGone) } else { Ok(self.tracking) }
    }
}

/// A table of that name exists and is not ours.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{table} is not Nexus's: {found}")]
pub struct ShapeError {
    /// The table.
    pub table: String,
    /// What it is, with the tool that it looks like.
    pub found: String,
}

/// What a message with [`shape_query`] begins with where the lock is not held: its queries see the
/// tables of one moment. Only which table has the name now, PostgreSQL tells of the present.
pub(super) const BEGIN_SNAPSHOT: &str = "begin isolation level repeatable read read only; ";

/// Reads name, kind, columns and unique columns of both tables, in three queries: a session that has just
/// begun plans these in half the time that a join takes.
pub fn shape_query(names: &Names) -> String {
    let id = |table: &str| format!("pg_catalog.to_regclass({})", quote_literal(table));
    let tables = format!("({}, {})", id(&names.tracking_sql), id(&names.journal_sql));
    format!(
        "select c.oid as table_id, c.relname as name, c.relkind as kind \
         from pg_catalog.pg_class c where c.oid in {tables}; \
         select a.attrelid as column_of, a.attname as name, a.attnum as number, a.atttypid as type, \
           a.attnotnull and not a.atthasdef as is_required \
         from pg_catalog.pg_attribute a where a.attrelid in {tables} and a.attnum > 0 and not a.attisdropped; \
         select i.indrelid as unique_in, i.indkey[0] as number from pg_catalog.pg_index i \
         where i.indrelid in {tables} and i.indisunique and i.indnatts = 1 and i.indpred is null"
    )
}

/// Reads the rows of [`shape_query`]; refuses a table that is not ours.
pub fn read_shape(names: &Names, rows: &[SimpleQueryRow]) -> Result<Shape, ShapeError> {
    let mut shape = Shape::default();
    for row in rows {
        let Some(id) = text(row, "table_id") else { continue };
        let is_table = matches!(text(row, "kind"), Some("r" | "p"));
        let of_table = |row: &&SimpleQueryRow| text(row, "column_of") == Some(id);
        let mut columns: Vec<_> = rows.iter().filter(of_table).map(Column::of).collect();
        columns.sort_by_key(|column| column.number);
        if text(row, "name") == Some(names.journal.as_str()) {
            check_journal(names, &columns, is_table)?;
            shape.journal = true;
        } else {
            let unique = rows.iter().filter(|row| text(row, "unique_in") == Some(id));
            let unique: Vec<_> = unique.map(|row| number(row, "number")).collect();
            check_tracking(names, &columns, is_table, &unique)?;
            shape.tracking = true;
        }
    }
    Ok(shape)
}

/// A column of a table that is there.
struct Column<'a> {
    number: u32,
    name: &'a str,
    /// The id of its type.
    kind: u32,
    /// It must be given.
    is_required: bool,
}

impl<'a> Column<'a> {
    fn of(row: &'a SimpleQueryRow) -> Self {
        Self {
            number: number(row, "number"),
            name: text(row, "name").unwrap_or_default(),
            kind: number(row, "type"),
            is_required: text(row, "is_required") == Some("t"),
        }
    }
}

fn number(row: &SimpleQueryRow, column: &str) -> u32 {
    text(row, column).and_then(|number| number.parse().ok()).unwrap_or_default()
}

const COLUMNS: [(&str, &[Type]); 4] = [
    ("version", &[Type::TEXT, Type::VARCHAR]),
    ("applied_at", &[Type::TIMESTAMPTZ]),
    ("checksum", &[Type::TEXT, Type::VARCHAR]),
    ("dirty", &[Type::BOOL]),
];

fn check_tracking(
    names: &Names,
    columns: &[Column<'_>],
    is_table: bool,
    unique: &[u32],
) -> Result<(), ShapeError> {
    let table = format!("{}.{}", names.schema, names.table);
    let refuse = |found: String| Err(ShapeError { table: table.clone(), found });
    if !is_table {
        return refuse("it is not a table".to_owned());
    }
    let column = |name: &str| columns.iter().find(|column| column.name == name);
    let fits = |name: &str, kinds: &[Type]| {
        column(name).is_some_and(|column| kinds.iter().any(|kind| kind.oid() == column.kind))
    };
    if !COLUMNS.iter().all(|(name, kinds)| fits(name, kinds)) {
        return refuse(looks_like(columns));
    }
    let is_known = |column: &Column<'_>| COLUMNS.iter().any(|(known, _)| *known == column.name);
    if let Some(extra) = columns.iter().find(|column| column.is_required && !is_known(column)) {
        let name = extra.name;
        return refuse(format!("it has a column {name} that must be given and that Nexus does not know"));
    }
    if !column("version").is_some_and(|column| unique.contains(&column.number)) {
        return refuse("its column version is neither a primary key nor unique".to_owned());
    }
    Ok(())
}

/// Whose table it looks like.
fn looks_like(columns: &[Column<'_>]) -> String {
    let has = |name: &str| columns.iter().any(|column| column.name == name);
    let version = columns.iter().find(|column| column.name == "version").map(|column| column.kind);
    let is_of = |kind: &Type| version == Some(kind.oid());
    let tool = match columns.len() {
        2 if is_of(&Type::INT8) && has("dirty") => "golang-migrate's",
        1 if is_of(&Type::VARCHAR) => "dbmate's or Rails'",
        _ if version.is_some() && has("inserted_at") => "Ecto's",
        _ => "another tool's",
    };
    let names: Vec<_> = columns.iter().map(|column| column.name).collect();
    format!("it looks like {tool} (columns: {})", names.join(", "))
}

fn check_journal(names: &Names, columns: &[Column<'_>], is_table: bool) -> Result<(), ShapeError> {
    let has = |name: &str| columns.iter().any(|column| column.name == name);
    if is_table && journal::COLUMNS.iter().all(|name| has(name)) {
        return Ok(());
    }
    Err(ShapeError {
        table: format!("{}.{}", names.schema, names.journal),
        found: "its columns are not the journal's".to_owned(),
    })
}

/// Makes the tables that do not exist yet.
pub async fn create(session: &Session, shape: Shape) -> Result<(), SessionError> {
    if shape.tracking && shape.journal {
        return Ok(());
    }
    let mut sql = String::from("begin; ");
    if !shape.tracking {
        // Writing to a String cannot fail.
        let _ = write!(
            sql,
            "create table {} (\
             version text primary key, \
             applied_at timestamptz not null default now(), \
             checksum text not null, \
             dirty boolean not null default false); ",
            session.names.tracking_sql
        );
    }
    if !shape.journal {
        sql.push_str(&journal::create_sql(&session.names));
    }
    sql.push_str("commit");
    session.rows(&sql).await.map(drop)
}

/// Of which rows the kept down scripts are read, and what else is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kept {
    /// Of the dirty ones only: all that an apply needs.
    Dirty,
    /// Of all.
    All,
    /// Of all; and which operation put each row there, as a rollback may be held to one's own.
    AllWithAuthors,
}

/// Reads the rows, and what the journal says of them: in one message, or in two where only what is said of
/// dirty ones is wanted, and there are some.
pub async fn read(session: &Session, shape: Shape, kept: Kept) -> Result<Tracked, SessionError> {
    if !shape.has_rows()? {
        return Ok(Tracked::default());
    }
    if kept == Kept::Dirty {
        let tracked = read_tracked(&session.rows(&rows_query(&session.names)).await?);
        if tracked.dirty().next().is_none() {
            return Ok(tracked);
        }
    }
    Ok(read_tracked(&session.rows(&queries(&session.names, shape, kept)).await?))
}

/// Reads the rows alone. A session that has just begun takes longer to find what `extract` takes than to read
/// the rows.
pub(super) fn rows_query(names: &Names) -> String {
    format!(
        "select m.version as row_version, \
           pg_catalog.encode(pg_catalog.timestamptz_send(m.applied_at), 'hex') as applied_at, \
           m.checksum, m.dirty from {} m",
        names.tracking_sql
    )
}

/// A time as [`rows_query`] has it: microseconds since 2000, as PostgreSQL's protocol has them.
fn sent_time(sent: &str) -> Timestamp {
    let micros = u64::from_str_radix(sent, 16).unwrap_or_default().cast_signed();
    // `infinity` and `-infinity` are the largest and the smallest number.
    let is_late = micros > 0;
    Timestamp::from_microsecond(micros.saturating_add(MICROS_TO_2000)).unwrap_or(if is_late {
        Timestamp::MAX
    } else {
        Timestamp::MIN
    })
}

/// The queries of [`read`], for a tracking table that exists.
pub(super) fn queries(names: &Names, shape: Shape, kept: Kept) -> String {
    let mut sql = rows_query(names);
    if shape.journal {
        sql.push_str(&journal::evidence_queries(names, kept));
    }
    sql
}

/// Reads the rows of [`queries`], among which there may be others.
pub(super) fn read_tracked(rows: &[SimpleQueryRow]) -> Tracked {
    let mut tracked: Vec<AppliedRow> = Vec::with_capacity(rows.len());
    let (mut attempts, mut downs, mut authors) = (HashMap::new(), HashMap::new(), HashMap::new());
    for row in rows {
        if let Some(version) = text(row, "row_version") {
            tracked.push(read_row(version, row));
        } else if let Some(version) = text(row, "attempt_version") {
            attempts.insert(version, row);
        } else if let Some(version) = text(row, "down_version") {
            downs.insert(version, row);
        } else if let Some(version) = text(row, "author_version") {
            authors.insert(version, row);
        }
    }
    for row in &mut tracked {
        let version = row.version.as_str();
        row.last_attempt = attempts.get(version).and_then(|found| journal::read_last_attempt(found));
        row.kept_down = downs.get(version).and_then(|found| journal::read_kept_down(found));
        row.applied_by = authors.get(version).and_then(|found| journal::read_author(found));
    }
    Tracked::new(tracked)
}

/// A column that holds microseconds since 1970.
pub(super) fn time(row: &SimpleQueryRow, column: &str) -> Timestamp {
    let micros = text(row, column).and_then(|micros| micros.parse().ok()).unwrap_or_default();
    Timestamp::from_microsecond(micros).unwrap_or_default()
}

fn read_row(version: &str, row: &SimpleQueryRow) -> AppliedRow {
    AppliedRow {
        version: Version::from_row(version),
        applied_at: sent_time(text(row, "applied_at").unwrap_or_default()),
        checksum: text(row, "checksum").unwrap_or_default().to_owned(),
        dirty: text(row, "dirty") == Some("t"),
        last_attempt: None,
        kept_down: None,
        applied_by: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_those_of_the_protocol() {
        let check = |sent: &str, expected: &str| assert_eq!(sent_time(sent).to_string(), expected, "{sent}");
        check("0000000000000000", "2000-01-01T00:00:00Z");
        check("ffffffffffffffff", "1999-12-31T23:59:59.999999Z");
        check("000303f0c7417a44", "2026-11-23T14:00:00.12346Z");
        check("7fffffffffffffff", &Timestamp::MAX.to_string());
        check("8000000000000000", &Timestamp::MIN.to_string());
    }
}
