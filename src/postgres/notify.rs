//! The trigger that tells of every change of the rows, and listening to it.

use tokio_postgres::SimpleQueryMessage;

use crate::postgres::{
    connect::Connection,
    names::Names,
    quote::{quote_ident, quote_literal},
    session::SessionError,
};

/// Listens on the channel of a database's rows.
pub async fn listen(connection: &Connection, names: &Names, dbname: &str) -> Result<(), SessionError> {
    let sql = format!("listen {}", quote_ident(&names.channel(dbname)));
    Ok(connection.client.batch_execute(&sql).await?)
}

/// Makes the trigger where it is missing; says whether it is there. Without the table it is not.
pub async fn install(connection: &Connection, names: &Names, dbname: &str) -> Result<bool, SessionError> {
    let there = lookup(connection, names).await?;
    if there != Some(false) {
        return Ok(there.is_some());
    }
    let Names { tracking_sql: table, schema, .. } = names;
    let name = quote_ident(&names.watch());
    let sql = format!(
        "begin; \
         create or replace function {schema}.{name}() returns trigger language plpgsql as \
         $nexus$ begin perform pg_catalog.pg_notify(tg_argv[0], ''); return null; end $nexus$; \
         create trigger {name} after insert or update or delete or truncate on {table} \
         for each statement execute function {schema}.{name}({channel}); \
         commit",
        schema = quote_ident(schema),
        channel = quote_literal(&names.channel(dbname)),
    );
    connection.client.batch_execute(&sql).await?;
    Ok(true)
}

/// Takes the trigger and its function away where they are; says whether they were.
pub async fn remove(connection: &Connection, names: &Names) -> Result<bool, SessionError> {
    if lookup(connection, names).await? != Some(true) {
        return Ok(false);
    }
    let Names { tracking_sql: table, schema, .. } = names;
    let name = quote_ident(&names.watch());
    let sql = format!(
        "begin; drop trigger {name} on {table}; drop function {schema}.{name}(); commit",
        schema = quote_ident(schema)
    );
    connection.client.batch_execute(&sql).await?;
    Ok(true)
}

/// Whether the table has the trigger; `None` where there is no table.
async fn lookup(connection: &Connection, names: &Names) -> Result<Option<bool>, SessionError> {
    let sql = format!(
        "select exists (select from pg_catalog.pg_trigger t where t.tgrelid = c.oid and t.tgname = {}) as there \
         from pg_catalog.pg_class c where c.oid = pg_catalog.to_regclass({})",
        quote_literal(&names.watch()),
        quote_literal(&names.tracking_sql)
    );
    let rows = connection.client.simple_query(&sql).await?;
    Ok(rows.iter().find_map(|message| match message {
        SimpleQueryMessage::Row(row) => Some(row.get("there") == Some("t")),
        _ => None,
    }))
}
