//! The server's own counters, which tell of all its databases at once where something was written.

use std::collections::HashMap;

use tokio_postgres::{SimpleQueryMessage, SimpleQueryRow};

use crate::postgres::{
    connect::Connection,
    session::{SessionError, text},
};

/// Whatever is written to a table is counted, and so is a table that is made, dropped or emptied, as
/// it is a row of the catalog. A server that crashed, and one told to, begins to count anew. A standby
/// does not count what it replays: it tells nothing, as one whose counting is switched off, for all or
/// for some. A superuser who switches it off in a session of his own is found by the next sweep.
const WRITTEN: &str = "select d.datname as counted, pg_catalog.concat_ws(' ', d.datid, \
     d.tup_inserted, d.tup_updated, d.tup_deleted, d.stats_reset, b.stats_reset, pg_catalog.pg_postmaster_start_time()) as written \
     from pg_catalog.pg_stat_database d, pg_catalog.pg_stat_bgwriter b where d.datname is not null \
     and not pg_catalog.pg_is_in_recovery() and pg_catalog.current_setting('track_counts')::boolean \
     and not exists (select from pg_catalog.pg_db_role_setting s \
       where pg_catalog.array_to_string(s.setconfig, ' ') ilike '%track_counts%')";

/// Sessions that may have written what is not counted yet. From PostgreSQL 15 on, a session counts what
/// it wrote before it is gone from the list, and otherwise when it has been idle for ten seconds, outside
/// of a transaction. What a role may not see of the sessions of others counts as such. Autovacuum
/// writes to no table of a user's.
const UNSETTLED: &str = "select a.datname as unsettled from pg_catalog.pg_stat_activity a \
     where a.datname is not null and a.backend_type is distinct from 'autovacuum worker' \
     and a.pid <> pg_catalog.pg_backend_pid() \
     and (a.backend_type = 'client backend' and a.state = 'idle' \
       and a.state_change < pg_catalog.clock_timestamp() - interval '20 s') is not true \
     group by a.datname; \
     select d.datname as locked, (l.classid::bigint << 32) | l.objid::bigint as lock_key \
     from pg_catalog.pg_locks l join pg_catalog.pg_database d on d.oid = l.database \
     where l.locktype = 'advisory' and l.granted and l.objsubid = 1; \
     select 'yes' as settles where pg_catalog.current_setting('server_version_num')::integer >= 150000";

/// What a server says of one of its databases.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Counted {
    /// How much was ever written: where two readings are equal, nothing that was counted was in between.
    /// A session may count late.
    pub written: String,
    /// Nobody was there who might have written something that was not counted.
    is_settled: bool,
    /// The advisory locks that sessions held.
    locks: Vec<i64>,
}

impl Counted {
    /// Whether what is written is all that was written before the reading, and nobody held this lock.
    pub fn is_settled(&self, lock_key: i64) -> bool {
        self.is_settled && !self.locks.contains(&lock_key)
    }
}

/// Reads what was written in each database of the server, by its name, in one message. Who is there is
/// read before the counters: whoever is gone by then has counted.
pub async fn read(connection: &Connection) -> Result<HashMap<String, Counted>, SessionError> {
    let messages = connection.client.simple_query(&format!("{UNSETTLED}; {WRITTEN}")).await?;
    let rows = messages.iter().filter_map(|message| match message {
        SimpleQueryMessage::Row(row) => Some(row),
        _ => None,
    });
    Ok(counted(rows))
}

fn counted<'a>(rows: impl Iterator<Item = &'a SimpleQueryRow> + Clone) -> HashMap<String, Counted> {
    let settles = rows.clone().any(|row| text(row, "settles").is_some());
    let written = rows.clone().filter_map(|row| {
        let written = text(row, "written")?.to_owned();
        Some((text(row, "counted")?.to_owned(), Counted { written, is_settled: settles, locks: Vec::new() }))
    });
    let mut counted: HashMap<_, _> = written.collect();
    for row in rows {
        if let Some(counted) = text(row, "unsettled").and_then(|dbname| counted.get_mut(dbname)) {
            counted.is_settled = false;
        }
        if let (Some(dbname), Some(key)) = (text(row, "locked"), text(row, "lock_key"))
            && let (Some(counted), Ok(key)) = (counted.get_mut(dbname), key.parse())
        {
            counted.locks.push(key);
        }
    }
    counted
}
