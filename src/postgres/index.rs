//! Indexes that CREATE INDEX CONCURRENTLY left INVALID.

use tokio_postgres::types::Type;
use tokio_util::sync::CancellationToken;

use crate::{
    migration::Version,
    postgres::session::{Session, SessionError},
};

/// Finds an invalid index of this name on this table; all names as the catalog has them, the schema
/// being the session's own where none is given. Returns its qualified name, quoted.
pub async fn find_invalid(
    session: &Session,
    name: &str,
    schema: Option<&str>,
    table: Option<&str>,
) -> Result<Option<String>, SessionError> {
    let sql = "select pg_catalog.format('%I.%I', n.nspname, c.relname) \
               from pg_catalog.pg_index i \
               join pg_catalog.pg_class c on c.oid = i.indexrelid \
               join pg_catalog.pg_namespace n on n.oid = c.relnamespace \
               join pg_catalog.pg_class t on t.oid = i.indrelid \
               where not i.indisvalid and c.relname = $1 and ($2::text is null or t.relname = $2) \
               and n.nspname = coalesce($3::text, pg_catalog.current_schema())";
    let rows =
        session.query(sql, &[(&name, Type::TEXT), (&table, Type::TEXT), (&schema, Type::TEXT)]).await?;
    Ok(rows.first().map(|row| row.get(0)))
}

/// Whether the attempt at this migration before this one ended part-way, so that what it left is ours.
pub async fn left_by_us(session: &Session, version: &Version, attempt: i64) -> Result<bool, SessionError> {
    let sql = format!(
        "select j.outcome <> 'succeeded' from {} j where j.version = $1 and j.direction = 'up' \
         and j.mode = 'non-transactional' and j.id < $2 order by j.id desc limit 1",
        session.names.journal_sql
    );
    let rows = session.query(&sql, &[(&version.as_str(), Type::TEXT), (&attempt, Type::INT8)]).await?;
    Ok(rows.first().is_some_and(|row| row.get(0)))
}

/// Drops an index, given by its quoted and qualified name.
pub async fn drop_concurrently(session: &Session, index: &str) -> Result<(), SessionError> {
    let sql = format!("drop index concurrently if exists {index}");
    let dropped = session.batch(&sql, &CancellationToken::new()).await;
    dropped.map(drop).map_err(|failed| failed.error)
}
