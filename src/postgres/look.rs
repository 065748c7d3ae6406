//! A look at a database from beside: what its tables, its journal and its schema say, read only,
//! without its lock, and with limits so short that it never stands in anybody's way.

use std::collections::HashMap;

use jiff::Timestamp;
use tokio_postgres::SimpleQueryRow;

use crate::{
    migration::Tracked,
    postgres::{
        names::Names,
        quote::quote_literal,
        session::{Session, SessionError, text},
        tracking::{self, BEGIN_SNAPSHOT, Kept, Shape},
    },
};

/// What a look begins with. Each statement sees the present, so that the lock's holder, asked for
/// before the rows and after them, tells a run's own mark from one that was left behind.
const BEGIN: &str = "begin read only; ";

/// The settings that the connections of those who look start with.
pub fn startup_settings() -> Vec<(&'static str, String)> {
    [
        ("application_name", "nexusd watch"),
        ("lock_timeout", "1s"),
        ("statement_timeout", "5s"),
        ("idle_in_transaction_session_timeout", "10s"),
    ]
    .map(|(name, value)| (name, value.to_owned()))
    .to_vec()
}

/// What changes whenever something of a database changes that a look would see: equal ones mean
/// that there is nothing new.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Pulse(Vec<String>);

/// What a look at one database saw.
#[derive(Debug, Default)]
pub struct Look {
    /// Which tables exist.
    pub shape: Shape,
    /// The pulse, felt before the rows were read: a change in between shows in the next one; `None`
    /// where the rows alone were read, or where a table has come or gone meanwhile.
    pub pulse: Option<Pulse>,
    /// The rows, with the journal's evidence.
    pub tracked: Tracked,
    /// The versions that the journal knows, and when it last had to do with each; empty where the rows
    /// alone were read.
    pub journal: HashMap<String, Timestamp>,
    /// Somebody held the lock: a dirty row may be an attempt under way. Not asked where the rows were enough.
    pub is_locked: bool,
    /// What is unfinished in the schema; `None` where that was not looked for.
    pub leftovers: Option<Leftovers>,
}

/// What PostgreSQL holds in a schema and does not fully use, each with its table.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Leftovers {
    /// INVALID indexes that nobody is building: name, table.
    pub indexes: Vec<(String, String)>,
    /// NOT VALID constraints: name, table.
    pub constraints: Vec<(String, String)>,
}

impl Pulse {
    /// Whether these tables were there, and no others, when it was felt.
    fn is_of(&self, shape: Shape) -> bool {
        let tables = self.0.first().map_or(0, |ids| ids.split_whitespace().count());
        tables == usize::from(shape.tracking) + usize::from(shape.journal)
    }
}

/// Feels the pulse, in one message; an error where a table of the shape is gone.
pub async fn pulse(session: &Session, shape: Shape) -> Result<Pulse, SessionError> {
    let sql = format!("{BEGIN}{}; commit", pulse_queries(session, shape));
    Ok(read_pulse(&session.rows(&sql).await?))
}

/// The tables' identities, the sum of the hashes of all rows, the journal's last line, and who
/// holds the lock.
fn pulse_queries(session: &Session, shape: Shape) -> String {
    let Names { tracking_sql: tracking, journal_sql: journal, .. } = &session.names;
    let mut queries = vec![format!(
        "select pg_catalog.concat_ws(' ', pg_catalog.to_regclass({})::oid, pg_catalog.to_regclass({})::oid) as pulse",
        quote_literal(tracking),
        quote_literal(journal)
    )];
    if shape.tracking {
        queries.push(format!(
            "select pg_catalog.concat_ws(' ', pg_catalog.count(*), \
               pg_catalog.sum(pg_catalog.hashtextextended(m::text, 0))) as pulse from {tracking} m"
        ));
    }
    if shape.journal {
        queries.push(format!(
            "select pg_catalog.concat_ws(' ', j.id, j.outcome, j.statements_done) as pulse \
             from {journal} j order by j.id desc limit 1"
        ));
    }
    queries.push(session.held_query());
    queries.join("; ")
}

fn read_pulse(rows: &[SimpleQueryRow]) -> Pulse {
    let beat = |row| text(row, "pulse").or_else(|| text(row, "holder")).map(str::to_owned);
    Pulse(rows.iter().filter_map(beat).collect())
}

/// Reads which tables exist and their rows, in two messages; and everything else only where the rows are not
/// `enough`, as those are of which none is dirty. For a session that has just begun, planning the other queries
/// takes as long as beginning it did.
pub async fn look_at_rows(
    session: &Session,
    enough: impl Fn(&Tracked) -> bool,
) -> Result<Look, SessionError> {
    let shape = shape(session).await?;
    if shape.has_rows()? {
        let sql = format!("{BEGIN}{}; commit", tracking::rows_query(&session.names));
        let tracked = tracking::read_tracked(&session.rows(&sql).await?);
        if enough(&tracked) {
            return Ok(Look { shape, tracked, ..Look::default() });
        }
    }
    look_into(session, shape, false).await
}

/// Reads everything, in two messages: which tables exist, and what is in them. `is_deep` also looks
/// for what is unfinished in the schema.
pub async fn look(session: &Session, is_deep: bool) -> Result<Look, SessionError> {
    let shape = shape(session).await?;
    look_into(session, shape, is_deep).await
}

async fn shape(session: &Session) -> Result<Shape, SessionError> {
    let sql = format!("{BEGIN_SNAPSHOT}{}; commit", tracking::shape_query(&session.names));
    Ok(tracking::read_shape(&session.names, &session.rows(&sql).await?)?)
}

async fn look_into(session: &Session, shape: Shape, is_deep: bool) -> Result<Look, SessionError> {
    let mut queries = vec![pulse_queries(session, shape)];
    if shape.has_rows()? {
        queries.push(tracking::queries(&session.names, shape, Kept::All));
    }
    if shape.journal {
        queries.push(format!(
            "select j.version as journal_version, \
               (extract(epoch from max(coalesce(j.finished_at, j.started_at))) * 1000000)::bigint as journal_time \
             from {} j group by j.version",
            session.names.journal_sql
        ));
    }
    if is_deep {
        queries.push(leftovers_queries(&session.names));
    }
    queries.push(session.held_query());
    let rows = session.rows(&format!("{BEGIN}{}; commit", queries.join("; "))).await?;
    let journal = rows.iter().filter_map(|row| {
        Some((text(row, "journal_version")?.to_owned(), tracking::time(row, "journal_time")))
    });
    Ok(Look {
        shape,
        pulse: Some(read_pulse(&rows)).filter(|pulse| pulse.is_of(shape)),
        tracked: tracking::read_tracked(&rows),
        journal: journal.collect(),
        is_locked: rows.iter().any(|row| text(row, "holder").is_some()),
        leftovers: is_deep.then(|| read_leftovers(&rows)),
    })
}

/// An index that is being built is invalid too. A role that may not see what others build takes
/// any build in the database for it.
fn leftovers_queries(names: &Names) -> String {
    let schema = quote_literal(&names.schema);
    format!(
        "select c.relname as invalid_index, t.relname as on_table \
         from pg_catalog.pg_index i \
         join pg_catalog.pg_class c on c.oid = i.indexrelid \
         join pg_catalog.pg_class t on t.oid = i.indrelid \
         join pg_catalog.pg_namespace n on n.oid = c.relnamespace \
         where n.nspname = {schema} and not i.indisvalid and not exists (\
           select from pg_catalog.pg_stat_progress_create_index p \
           where p.datname = pg_catalog.current_database() \
           and (p.index_relid = i.indexrelid or p.index_relid is null)) \
         order by 1; \
         select k.conname as not_valid, t.relname as on_table \
         from pg_catalog.pg_constraint k \
         join pg_catalog.pg_class t on t.oid = k.conrelid \
         join pg_catalog.pg_namespace n on n.oid = k.connamespace \
         where n.nspname = {schema} and not k.convalidated \
         order by 2, 1"
    )
}

fn read_leftovers(rows: &[SimpleQueryRow]) -> Leftovers {
    let read = |column: &str| {
        let found = rows.iter().filter_map(|row| Some((text(row, column)?, text(row, "on_table")?)));
        found.map(|(name, table)| (name.to_owned(), table.to_owned())).collect()
    };
    Leftovers { indexes: read("invalid_index"), constraints: read("not_valid") }
}
