//! Indexes that CREATE INDEX CONCURRENTLY left INVALID.

use tokio_postgres::types::Type;

use crate::{
    migration::Version,
    postgres::session::{Session, SessionError},
};

/// Finds an invalid index of this name on this table (as written in SQL; resolved by the session's
/// `search_path`). Returns its qualified name, quoted.
pub async fn find_invalid(
    session: &Session,
    name: &str,
    table: Option<&str>,
) -> Result<Option<String>, SessionError> {
    let sql = "select pg_catalog.format('%I.%I', n.nspname, c.relname) \
               from pg_catalog.pg_index i \
               join pg_catalog.pg_class c on c.oid = i.indexrelid \
               join pg_catalog.pg_namespace n on n.oid = c.relnamespace \
               where not i.indisvalid and c.relname = $1 \
               and ($2::text is null or i.indrelid = pg_catalog.to_regclass($2))";
    let rows = session.query(sql, &[(&name, Type::TEXT), (&table, Type::TEXT)]).await?;
    Ok(rows.first().map(|row| row.get(0)))
}

/// Whether an earlier attempt at this migration ended part-way, so that what it left is ours.
pub async fn left_by_us(session: &Session, version: &Version, attempt: i64) -> Result<bool, SessionError> {
    let sql = format!(
        "select exists (select from {} where version = $1 and direction = 'up' \
         and mode = 'non-transactional' and outcome <> 'succeeded' and id <> $2)",
        session.names.journal_sql
    );
    let rows = session.query(&sql, &[(&version.as_str(), Type::TEXT), (&attempt, Type::INT8)]).await?;
    Ok(rows.first().is_some_and(|row| row.get(0)))
}

/// Drops an index, given by its quoted and qualified name.
pub async fn drop_concurrently(session: &Session, index: &str) -> Result<(), SessionError> {
    session.rows(&format!("drop index concurrently if exists {index}")).await.map(drop)
}
