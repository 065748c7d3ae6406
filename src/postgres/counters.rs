//! The server's own counters, which tell of all its databases at once where something was written.

use std::collections::HashMap;

use tokio_postgres::SimpleQueryMessage;

use crate::postgres::{connect::Connection, session::SessionError};

/// Whatever is written to a table is counted, and so is a table that is made, dropped or emptied, as
/// it is a row of the catalog. A server that crashed, and one told to, begins to count anew. A standby
/// does not count what it replays: it tells nothing, as one whose counting is switched off.
const WRITTEN: &str = "select d.datname, pg_catalog.concat_ws(' ', d.datid, \
     d.tup_inserted, d.tup_updated, d.tup_deleted, d.stats_reset) as written \
     from pg_catalog.pg_stat_database d where d.datname is not null \
     and not pg_catalog.pg_is_in_recovery() and pg_catalog.current_setting('track_counts')::boolean";

/// Reads how much was ever written in each database of the server, by its name: where two readings
/// are equal, nothing was in between. A session may count up to ten seconds late.
pub async fn read(connection: &Connection) -> Result<HashMap<String, String>, SessionError> {
    let messages = connection.client.simple_query(WRITTEN).await?;
    let written = messages.iter().filter_map(|message| match message {
        SimpleQueryMessage::Row(row) => Some((row.get(0)?.to_owned(), row.get(1)?.to_owned())),
        _ => None,
    });
    Ok(written.collect())
}
