//! Asking a user's statement whether something holds: in a transaction that only reads, with limits
//! so short that it stands in nobody's way, and on a connection that is closed after it.

use std::{pin::pin, time::Duration};

use futures_util::TryStreamExt as _;
use tokio_postgres::types::Type;

use crate::postgres::{
    connect::Connection,
    names::Names,
    quote::{quote_ident, quote_literal},
    session::SessionError,
};

/// How long the statement waits for a lock: whoever holds one so long is at work.
const LOCK_LIMIT: Duration = Duration::from_secs(1);

/// What a statement answered.
#[derive(Debug, PartialEq, Eq)]
pub enum Answer {
    /// One row with one boolean.
    Boolean(bool),
    /// Anything else, in words that tell no value.
    Unfit(String),
}

/// Runs the statement, which sees the tables of the database's schema by their bare names.
///
/// The server is asked what the statement returns before it is run: several statements at once, and
/// any that returns something other than one boolean, are not run at all.
pub async fn ask(
    connection: &Connection,
    names: &Names,
    sql: &str,
    limit: Duration,
) -> Result<Answer, SessionError> {
    let begin = format!(
        "begin read only; set local search_path = {schema}; set local statement_timeout = {limit}; \
         set local lock_timeout = {lock}; set local client_connection_check_interval = {check}",
        schema = quote_ident(&names.schema),
        limit = limit.as_millis().max(1),
        lock = LOCK_LIMIT.min(limit).as_millis().max(1),
        check = quote_literal("500ms"),
    );
    let client = &connection.client;
    client.batch_execute(&begin).await?;
    let statement = client.prepare(sql).await?;
    let unfit = |what: String| Ok(Answer::Unfit(what));
    if !statement.params().is_empty() {
        return unfit("it has parameters, and nothing gives them values".to_owned());
    }
    match statement.columns() {
        [column] if *column.type_() == Type::BOOL => {}
        [] => return unfit("it returns no rows, not one boolean".to_owned()),
        [column] => return unfit(format!("it returns {}, not boolean", column.type_().name())),
        columns => return unfit(format!("it returns {} columns, not one boolean", columns.len())),
    }
    let mut rows = pin!(client.query_raw(&statement, std::iter::empty::<bool>()).await?);
    let Some(first) = rows.try_next().await? else { return unfit("it returned no row".to_owned()) };
    if rows.try_next().await?.is_some() {
        return unfit("it returned several rows".to_owned());
    }
    match first.try_get::<_, Option<bool>>(0)? {
        Some(answer) => Ok(Answer::Boolean(answer)),
        None => unfit("it returned null".to_owned()),
    }
}
