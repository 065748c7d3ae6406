//! Looking at a running step from beside it: who blocks it, and whether what came before is on disk.

use std::time::Duration;

use tokio_postgres::SimpleQueryMessage;

use crate::postgres::{
    executor::FLUSH_SQL,
    pool::{self, Pool, Pooled},
    session::text,
};

/// How long a look may take; it is only a look.
const LIMIT: Duration = Duration::from_secs(2);

/// Who blocks the session with this process id, one line each; empty where nobody does or where it
/// cannot be seen.
pub async fn blockers(pool: &Pool, pid: i32) -> Vec<String> {
    let sql = format!(
        "select pg_catalog.format('pid %s (%s%s%s)', a.pid, \
           coalesce(nullif(a.application_name, ''), 'unknown'), coalesce(', user ' || a.usename, ''), \
           coalesce(', ' || a.state || ' for ' || \
             pg_catalog.round(extract(epoch from pg_catalog.clock_timestamp() - a.state_change)) || ' s', '')) as blocker \
         from pg_catalog.pg_stat_activity a where a.pid = any (pg_catalog.pg_blocking_pids({pid})) order by a.pid"
    );
    let rows = simple(pool, &sql).await.unwrap_or_default();
    rows.iter()
        .filter_map(|message| match message {
            SimpleQueryMessage::Row(row) => text(row, "blocker").map(str::to_owned),
            _ => None,
        })
        .collect()
}

/// Flushes from another connection what was committed before: whether that was done.
pub async fn flush(pool: &Pool) -> bool {
    simple(pool, FLUSH_SQL).await.is_some()
}

/// A connection that did not answer in time is closed: its answer must not reach somebody else.
async fn simple(pool: &Pool, sql: &str) -> Option<Vec<SimpleQueryMessage>> {
    let connection = Box::pin(pool.get(LIMIT)).await.ok()?;
    let answer = tokio::time::timeout(LIMIT, connection.client.simple_query(sql)).await;
    if let Ok(Ok(rows)) = answer {
        pool::give_back(connection);
        return Some(rows);
    }
    drop(Pooled::take(connection));
    None
}
