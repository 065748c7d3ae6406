//! Looking at a running step from beside it: who blocks it, whether its server is at work on it at all,
//! and whether what came before is on disk.

use std::time::Duration;

use tokio_postgres::SimpleQueryMessage;

use crate::postgres::{
    executor::FLUSH_SQL,
    pool::{self, Pool, Pooled},
    session::text,
};

/// How long a look may take; it is only a look.
const LIMIT: Duration = Duration::from_secs(2);

/// What a session looks like from beside it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sight {
    /// Who blocks it, one line each.
    pub blockers: Vec<String>,
    /// Whether the server has nothing to do for it, or knows it no more.
    pub is_idle: bool,
}

/// Looks at the session with this process id; `None` where it cannot be seen now.
pub async fn look(pool: &Pool, pid: i32) -> Option<Sight> {
    let sql = format!(
        "select pg_catalog.format('pid %s (%s%s%s)', a.pid, \
           coalesce(nullif(a.application_name, ''), 'unknown'), coalesce(', user ' || a.usename, ''), \
           coalesce(', ' || a.state || ' for ' || \
             pg_catalog.round(extract(epoch from pg_catalog.clock_timestamp() - a.state_change)) || ' s', '')) as blocker \
         from pg_catalog.pg_stat_activity a where a.pid = any (pg_catalog.pg_blocking_pids({pid})) order by a.pid; \
         select a.pid as busy from pg_catalog.pg_stat_activity a where a.pid = {pid} and a.state not like 'idle%'"
    );
    let mut sight = Sight { blockers: Vec::new(), is_idle: true };
    for message in simple(pool, &sql).await? {
        if let SimpleQueryMessage::Row(row) = message {
            sight.blockers.extend(text(&row, "blocker").map(str::to_owned));
            sight.is_idle &= text(&row, "busy").is_none();
        }
    }
    Some(sight)
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
