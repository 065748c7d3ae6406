//! What a server knows of its databases and schemas, and what a query says of them: read only.

use std::time::Duration;

use tokio::time::timeout;
use tokio_postgres::Client;

use crate::postgres::{
    connect::connect,
    error::{ConnectError, SqlFault},
    quote::quote_ident,
    url::Target,
};

/// The columns that a query may have.
pub const COLUMNS: [&str; 4] = ["name", "dbname", "schema", "labels"];

/// Why nothing is known.
#[derive(Debug, thiserror::Error)]
pub enum DiscoverError {
    /// There is no connection.
    #[error(transparent)]
    Connect(#[from] ConnectError),
    /// The server refused.
    #[error("{}", .0.message)]
    Sql(SqlFault),
    /// The connection was lost.
    #[error("the connection was lost")]
    Lost,
    /// It took longer than it may.
    #[error("the databases could not be looked for within {0:?}")]
    Late(Duration),
    /// The query has a column that means nothing.
    #[error("the query's column `{0}` means nothing: its columns may be name, dbname, schema and labels")]
    UnknownColumn(String),
}

impl From<tokio_postgres::Error> for DiscoverError {
    fn from(error: tokio_postgres::Error) -> Self {
        SqlFault::from_error(&error).map_or(Self::Lost, Self::Sql)
    }
}

/// One row of a query; what it does not say is `None`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Row {
    /// The column `name`.
    pub name: Option<String>,
    /// The column `dbname`.
    pub dbname: Option<String>,
    /// The column `schema`.
    pub schema: Option<String>,
    /// The entries of the column `labels`, a JSON object.
    pub labels: Vec<(String, String)>,
}

/// The databases that a server lets in, but for templates.
pub async fn databases(target: &Target, limit: Duration) -> Result<Vec<String>, DiscoverError> {
    let sql = "select d.datname::text from pg_catalog.pg_database d \
               where d.datallowconn and not d.datistemplate order by 1";
    within(target, limit, async |client| texts(client, sql).await).await
}

/// The schemas of a database, but for PostgreSQL's own.
pub async fn schemas(target: &Target, limit: Duration) -> Result<Vec<String>, DiscoverError> {
    let sql = "select n.nspname::text from pg_catalog.pg_namespace n \
               where n.nspname !~ '^pg_' and n.nspname <> 'information_schema' order by 1";
    within(target, limit, async |client| texts(client, sql).await).await
}

/// The rows of a query, at most `most` of them.
pub async fn rows(
    target: &Target,
    query: &str,
    most: usize,
    limit: Duration,
) -> Result<Vec<Row>, DiscoverError> {
    within(target, limit, async |client| read_rows(client, query, most).await).await
}

/// Reads in a transaction that can only read. The connection is closed afterwards.
async fn within<T>(
    target: &Target,
    limit: Duration,
    read: impl AsyncFnOnce(&Client) -> Result<T, DiscoverError>,
) -> Result<T, DiscoverError> {
    let millis = limit.as_millis().to_string();
    let settings = [
        ("application_name", "nexusd discover".to_owned()),
        ("lock_timeout", millis.clone()),
        ("statement_timeout", millis.clone()),
        ("idle_in_transaction_session_timeout", millis),
        ("standard_conforming_strings", "on".to_owned()),
    ];
    let connection = connect(target, &settings, limit).await?;
    let found = async {
        connection.client.batch_execute("begin transaction read only").await?;
        let found = read(&connection.client).await?;
        connection.close().await;
        Ok(found)
    };
    timeout(limit, found).await.unwrap_or(Err(DiscoverError::Late(limit)))
}

async fn texts(client: &Client, sql: &str) -> Result<Vec<String>, DiscoverError> {
    let rows = client.query(sql, &[]).await?;
    Ok(rows.iter().map(|row| row.get(0)).collect())
}

/// As a sub-query it is one statement that returns rows, whatever it is.
async fn read_rows(client: &Client, query: &str, most: usize) -> Result<Vec<Row>, DiscoverError> {
    let statement = client.prepare(&format!("select * from (\n{query}\n) as found")).await?;
    let columns: Vec<&str> = statement.columns().iter().map(tokio_postgres::Column::name).collect();
    if let Some(unknown) = columns.iter().find(|column| !COLUMNS.contains(column)) {
        return Err(DiscoverError::UnknownColumn((*unknown).to_owned()));
    }
    let text = |column: &str| {
        let is_there = columns.contains(&column);
        if is_there { format!("found.{}::text", quote_ident(column)) } else { "null::text".to_owned() }
    };
    let labels = if columns.contains(&"labels") {
        "array(select e.key || '=' || e.value \
         from pg_catalog.jsonb_each_text(pg_catalog.to_jsonb(found.labels)) e where e.value is not null)"
    } else {
        "'{}'::text[]"
    };
    let [name, dbname, schema] = [text("name"), text("dbname"), text("schema")];
    let sql = format!("select {name}, {dbname}, {schema}, {labels} from (\n{query}\n) as found limit {most}");
    let rows = client.query(&sql, &[]).await?;
    let row = |row: &tokio_postgres::Row| {
        let labels: Vec<String> = row.get(3);
        let labels = labels.iter().filter_map(|label| label.split_once('='));
        Row {
            name: row.get(0),
            dbname: row.get(1),
            schema: row.get(2),
            labels: labels.map(|(key, value)| (key.to_owned(), value.to_owned())).collect(),
        }
    };
    Ok(rows.iter().map(row).collect())
}
