//! The table `schema_migrations`: making it, recognising it, reading it, marking its rows.

use std::{collections::HashMap, fmt::Write as _};

use tokio_postgres::SimpleQueryRow;

use crate::{
    migration::{AppliedRow, Tracked, Version},
    postgres::{
        journal,
        names::Names,
        quote::quote_literal,
        session::{Session, SessionError, text},
    },
};

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

/// Reads name, kind and columns of both tables. Rows are recognised by their column `relation`.
pub fn shape_query(names: &Names) -> String {
    format!(
        "select c.relname as relation, c.relkind as kind, \
           (select pg_catalog.string_agg(a.attname || ' ' || pg_catalog.format_type(a.atttypid, null) || \
              case when a.attnotnull and not a.atthasdef then ' required' else '' end, ',' order by a.attnum) \
            from pg_catalog.pg_attribute a \
            where a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped) as columns, \
           exists (select from pg_catalog.pg_index i join pg_catalog.pg_attribute a \
             on a.attrelid = c.oid and a.attnum = i.indkey[0] \
             where i.indrelid = c.oid and i.indisunique and i.indnatts = 1 and a.attname = 'version') as is_unique \
         from pg_catalog.pg_class c join pg_catalog.pg_namespace n on n.oid = c.relnamespace \
         where n.nspname = {schema} and c.relname in ({table}, {journal})",
        schema = quote_literal(&names.schema),
        table = quote_literal(&names.table),
        journal = quote_literal(&names.journal),
    )
}

/// Reads the rows of [`shape_query`]; refuses a table that is not ours.
pub fn read_shape(names: &Names, rows: &[SimpleQueryRow]) -> Result<Shape, ShapeError> {
    let mut shape = Shape::default();
    for row in rows {
        let columns = text(row, "columns").unwrap_or_default();
        let is_table = matches!(text(row, "kind"), Some("r" | "p"));
        let is_unique = text(row, "is_unique") == Some("t");
        if text(row, "relation") == Some(names.journal.as_str()) {
            check_journal(names, columns, is_table)?;
            shape.journal = true;
        } else {
            check_tracking(names, columns, is_table, is_unique)?;
            shape.tracking = true;
        }
    }
    Ok(shape)
}

const COLUMNS: [(&str, &[&str]); 4] = [
    ("version", &["text", "character varying"]),
    ("applied_at", &["timestamp with time zone"]),
    ("checksum", &["text", "character varying"]),
    ("dirty", &["boolean"]),
];

fn check_tracking(names: &Names, columns: &str, is_table: bool, is_unique: bool) -> Result<(), ShapeError> {
    let table = format!("{}.{}", names.schema, names.table);
    let refuse = |found: String| Err(ShapeError { table: table.clone(), found });
    if !is_table {
        return refuse("it is not a table".to_owned());
    }
    let columns: Vec<(&str, &str)> = columns.split(',').filter_map(|column| column.split_once(' ')).collect();
    let column_type = |name: &str| {
        let found = columns.iter().find(|(column, _)| *column == name);
        found.map(|(_, kind)| kind.trim_end_matches(" required"))
    };
    let fits =
        COLUMNS.iter().all(|(name, types)| column_type(name).is_some_and(|found| types.contains(&found)));
    if !fits {
        return refuse(looks_like(&columns));
    }
    let extra = columns
        .iter()
        .find(|(name, kind)| kind.ends_with(" required") && !COLUMNS.iter().any(|(known, _)| known == name));
    if let Some((name, _)) = extra {
        return refuse(format!("it has a column {name} that must be given and that Nexus does not know"));
    }
    if !is_unique {
        return refuse("its column version is neither a primary key nor unique".to_owned());
    }
    Ok(())
}

/// Whose table it looks like.
fn looks_like(columns: &[(&str, &str)]) -> String {
    let has = |name: &str| columns.iter().any(|(column, _)| *column == name);
    let version = columns.iter().find(|(column, _)| *column == "version").map(|(_, kind)| *kind);
    let tool = match (version, columns.len()) {
        (Some(kind), 2) if kind.starts_with("bigint") && has("dirty") => "golang-migrate's",
        (Some(kind), 1) if kind.starts_with("character varying") => "dbmate's or Rails'",
        (Some(_), _) if has("inserted_at") => "Ecto's",
        _ => "another tool's",
    };
    let names: Vec<_> = columns.iter().map(|(name, _)| *name).collect();
    format!("it looks like {tool} (columns: {})", names.join(", "))
}

fn check_journal(names: &Names, columns: &str, is_table: bool) -> Result<(), ShapeError> {
    let has = |name: &str| columns.split(',').any(|column| column.starts_with(&format!("{name} ")));
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

/// Reads the rows alone.
pub(super) fn rows_query(names: &Names) -> String {
    format!(
        "select m.version as row_version, \
           (extract(epoch from m.applied_at) * 1000000)::bigint as applied_at, \
           m.checksum, m.dirty from {} m",
        names.tracking_sql
    )
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
pub(super) fn time(row: &SimpleQueryRow, column: &str) -> jiff::Timestamp {
    let micros = text(row, column).and_then(|micros| micros.parse().ok()).unwrap_or_default();
    jiff::Timestamp::from_microsecond(micros).unwrap_or_default()
}

fn read_row(version: &str, row: &SimpleQueryRow) -> AppliedRow {
    AppliedRow {
        version: Version::from_row(version),
        applied_at: time(row, "applied_at"),
        checksum: text(row, "checksum").unwrap_or_default().to_owned(),
        dirty: text(row, "dirty") == Some("t"),
        last_attempt: None,
        kept_down: None,
        applied_by: None,
    }
}
