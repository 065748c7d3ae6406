//! One session of a run: its connection, its lock, and how SQL is sent over it. The lock and the
//! migrations' SQL share the session, so that losing one is losing the other.

use std::{
    fmt::Write as _,
    pin::{Pin, pin},
    time::Duration,
};

use futures_util::StreamExt as _;
use tokio::time::Instant;
use tokio_postgres::{Client, SimpleQueryMessage, SimpleQueryRow};
use tokio_util::sync::CancellationToken;

mod lock;

use crate::postgres::{
    error::{SqlFault, is_connection_lost},
    names::Names,
    pool::{self, Pooled},
    quote::quote_literal,
    tracking::{Shape, ShapeError},
};

/// How long a message of Nexus's own (never a migration's SQL) may take before the connection
/// counts as lost: keepalives alone do not return from a black hole.
const OWN_MESSAGE_LIMIT: Duration = Duration::from_mins(1);

/// How long a cancelled statement may take to end before the connection is given up.
const CANCEL_LIMIT: Duration = Duration::from_secs(15);

/// The bounds of one database's sessions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// How long a statement waits for a lock of the database's.
    pub lock_timeout: Duration,
    /// How long a statement may run; zero: as long as it wants.
    pub statement_timeout: Duration,
    /// How long a transaction may stand idle, as when the daemon is frozen.
    pub idle_in_transaction_timeout: Duration,
    /// How long connecting may take.
    pub connect_timeout: Duration,
}

/// The settings that every connection starts with, and returns to by `reset all`. A pooler in
/// transaction mode refuses or loses them, and is recognised by that.
pub fn startup_settings(limits: &Limits, names: &Names) -> Vec<(&'static str, String)> {
    let millis = |duration: Duration| duration.as_millis().to_string();
    vec![
        ("application_name", "nexusd".to_owned()),
        ("search_path", crate::postgres::quote::quote_ident(&names.schema)),
        ("lock_timeout", millis(limits.lock_timeout)),
        ("statement_timeout", millis(limits.statement_timeout)),
        ("idle_in_transaction_session_timeout", millis(limits.idle_in_transaction_timeout)),
        ("client_connection_check_interval", CHECK_INTERVAL_MS.to_string()),
        // Where statements end depends on it: see `sql`.
        ("standard_conforming_strings", "on".to_owned()),
        // Durability is asked for by the commits that need it: see `executor`.
        ("synchronous_commit", "off".to_owned()),
    ]
}

const CHECK_INTERVAL_MS: u32 = 500;

/// How long the first wait for the lock is; later ones are longer.
const FIRST_PAUSE: Duration = Duration::from_millis(20);

/// SQLSTATE of a statement that was cancelled.
const QUERY_CANCELED: &str = "57014";

/// SQLSTATE of a setting that does not exist.
const UNDEFINED_OBJECT: &str = "42704";

/// SQLSTATE of the warning that there is no transaction.
const NO_ACTIVE_TRANSACTION: &str = "25P01";

/// What goes wrong on a session.
#[derive(Debug, thiserror::Error)]
pub enum SessionError {
    /// The server raised an error.
    #[error("{}", .0.message)]
    Sql(SqlFault),
    /// The connection is gone: what it was doing may have taken place or not.
    #[error("the connection was lost")]
    Lost,
    /// It was cancelled, on the server too.
    #[error("it was cancelled")]
    Cancelled,
    /// Somebody else held the lock until the deadline.
    #[error("the lock is held by {holder}")]
    LockHeld {
        /// Who.
        holder: String,
    },
    /// The connection's settings do not hold, or it changes servers under us.
    #[error("the connection does not keep a session")]
    Pooler,
    /// The row that a step is about is not there any more.
    #[error("the row of schema_migrations is gone")]
    RowGone,
    /// The server is a standby.
    #[error("the server is in recovery: it is read-only")]
    Standby,
    /// The tracking table is gone, and its journal is not.
    #[error("the tracking table is gone, and its journal is not")]
    TableGone,
    /// The tables are not ours.
    #[error(transparent)]
    Shape(#[from] ShapeError),
}

impl From<tokio_postgres::Error> for SessionError {
    fn from(error: tokio_postgres::Error) -> Self {
        if is_connection_lost(&error) {
            return Self::Lost;
        }
        SqlFault::from_error(&error).map_or(Self::Lost, Self::Sql)
    }
}

/// A batch that failed, and how far it came.
#[derive(Debug)]
pub struct BatchError {
    /// Why.
    pub error: SessionError,
    /// How many of its statements were completed before.
    pub completed: usize,
}

/// One session, on one database, for one run.
///
/// Dropped, it closes its connection: only [`Session::release`] and [`Session::give_back`] return
/// one to the pool, after nothing but Nexus's own statements ended well on it.
pub struct Session {
    /// Taken only when the session ends.
    connection: Option<Pooled>,
    /// The names of the tables.
    pub names: Names,
    key: i64,
    dbname: String,
    application_name: String,
    role: String,
    pid: i32,
}

/// What the first message tells, when the lock was got.
#[derive(Debug, Clone, Copy)]
pub struct Locked {
    /// Which of the tables exist.
    pub shape: Shape,
}

impl Session {
    /// Makes a session of a connection; `operation` becomes part of its `application_name`.
    pub fn new(connection: Pooled, names: Names, dbname: &str, operation: &str) -> Self {
        let key = names.lock_key(dbname);
        let application_name = format!("nexusd {operation}");
        let dbname = dbname.to_owned();
        Self {
            connection: Some(connection),
            names,
            key,
            dbname,
            application_name,
            role: String::new(),
            pid: 0,
        }
    }

    /// PostgreSQL's name of the database.
    pub fn dbname(&self) -> &str {
        &self.dbname
    }

    /// The server's process id for this session.
    pub fn pid(&self) -> i32 {
        self.pid
    }

    /// A condition, for [`Self::fail_sql`], that the session has lost its lock. Giving the lock back
    /// tells whether it was held; the same lock, taken for the transaction before and taken again
    /// after, leaves nobody a moment to get it in between. Asking `pg_locks` costs ten times as much.
    fn lock_is_lost_sql(&self) -> String {
        let key = self.key;
        format!(
            "not (pg_catalog.pg_try_advisory_xact_lock({key}) and pg_catalog.pg_advisory_unlock({key}) \
             and pg_catalog.pg_try_advisory_lock({key}))"
        )
    }

    /// A condition, for [`Self::fail_sql`], that the transaction is not the one that
    /// [`Self::begin_sql`] opened. The setting ends with its transaction; where a RESET ALL took it,
    /// the lock of that transaction decides, for which `pg_locks` is asked.
    fn transaction_is_another_sql(&self) -> String {
        let (high, low) = self.key_halves();
        format!(
            "pg_catalog.current_setting('nexus.transaction', true) is distinct from 'open' \
             and not exists (select from pg_catalog.pg_lock_status() l \
             where l.pid = pg_catalog.pg_backend_pid() and l.locktype = 'advisory' and l.granted \
             and l.classid = {high} and l.objid = {low} and l.objsubid = 2)"
        )
    }

    /// A statement that fails unless the session still holds its lock, its role is the one it began
    /// with, and (`in_transaction`) the transaction that [`Self::begin_sql`] opened is still the
    /// same one.
    pub fn guard_sql(&self, in_transaction: bool) -> String {
        let role = format!("current_user <> {}", quote_literal(&self.role));
        let (transaction, lock) = (self.transaction_is_another_sql(), self.lock_is_lost_sql());
        let conditions = [("transaction", &*transaction), ("role", &role), ("lock", &lock)];
        Self::fail_sql(if in_transaction { &conditions } else { &conditions[1..] })
    }

    /// A statement that fails when one of the conditions holds, checked in their order, with what
    /// [`Self::escaped`] knows by its name. A setting that does not exist is how it fails: no
    /// function is left in the user's database, and nothing can be decided before it runs.
    pub fn fail_sql(conditions: &[(&str, &str)]) -> String {
        let mut sql = String::from("select case");
        for (name, condition) in conditions {
            // Writing to a String cannot fail.
            let _ = write!(sql, " when {condition} then pg_catalog.current_setting('nexus.escaped.{name}')");
        }
        sql.push_str(" end");
        sql
    }

    /// The halves of the key, as `pg_locks` shows them.
    fn key_halves(&self) -> (i64, i64) {
        ((self.key >> 32) & 0xffff_ffff, self.key & 0xffff_ffff)
    }

    /// What it says of the row.
    pub const ROW: &'static str = "its row of schema_migrations or of nexus_journal";

    /// What the guard says of an error, if the guard raised it.
    pub fn escaped(fault: &SqlFault) -> Option<&'static str> {
        if fault.sqlstate != UNDEFINED_OBJECT {
            return None;
        }
        [
            ("nexus.escaped.transaction", "its transaction"),
            ("nexus.escaped.role", "its role"),
            ("nexus.escaped.lock", "the database's lock"),
            ("nexus.escaped.row", Self::ROW),
        ]
        .into_iter()
        .find_map(|(setting, what)| fault.message.contains(setting).then_some(what))
    }

    /// Opens a transaction that the guard recognises: by a setting, and by a lock that nothing can
    /// give up, on the same key in PostgreSQL's other key space. Both end with it. Three statements.
    pub fn begin_sql(&self) -> String {
        // This form takes the halves as signed integers, and `pg_locks` shows them as unsigned ones.
        let (high, low) = (self.key >> 32, (self.key << 32) >> 32);
        format!(
            "begin; set local nexus.transaction = 'open'; \
             select pg_catalog.pg_try_advisory_xact_lock({high}, {low});"
        )
    }

    /// How many statements [`Self::begin_sql`] has.
    pub const BEGIN_STATEMENTS: usize = 3;

    /// Puts back what a migration may have changed for the session, outside a transaction. It
    /// stands behind the commit, so nothing in it may run into a limit of the script's.
    pub fn reset_sql(&self) -> String {
        format!(
            "set statement_timeout = 0; set lock_timeout = 0; reset session authorization; reset role; \
             close all; unlisten *; deallocate all; discard sequences; discard temp; reset all; \
             set application_name = {};",
            quote_literal(&self.application_name)
        )
    }

    /// Gives the lock back and the connection with it, on which no migration was run.
    pub async fn release(self) -> Result<(), SessionError> {
        let sql =
            format!("select pg_catalog.pg_advisory_unlock({}); set application_name = 'nexusd'", self.key);
        self.rows(&sql).await?;
        self.give_back();
        Ok(())
    }

    /// Gives the connection back, on which nothing was done but reading, and that ended well.
    pub fn give_back(mut self) {
        if let Some(connection) = self.connection.take() {
            pool::give_back(connection);
        }
    }

    /// Closes the connection at once: the server gives the lock free, whatever is still running.
    pub fn hang_up(&mut self) {
        drop(self.connection.take().map(Pooled::take));
    }

    fn client(&self) -> Result<&Client, SessionError> {
        self.connection.as_ref().map(|connection| &connection.client).ok_or(SessionError::Lost)
    }

    /// Rolls back; says whether there was a transaction to roll back.
    pub async fn roll_back(&mut self) -> Result<bool, SessionError> {
        let connection = self.connection.as_mut().ok_or(SessionError::Lost)?;
        drop(connection.take_notices());
        self.rows("rollback").await?;
        let connection = self.connection.as_mut().ok_or(SessionError::Lost)?;
        let had_none =
            connection.take_notices().iter().any(|notice| notice.sqlstate == NO_ACTIVE_TRANSACTION);
        Ok(!had_none)
    }

    /// Sends a message of Nexus's own and returns all its rows.
    pub async fn rows(&self, sql: &str) -> Result<Vec<SimpleQueryRow>, SessionError> {
        let messages = tokio::time::timeout(OWN_MESSAGE_LIMIT, self.client()?.simple_query(sql));
        let messages = messages.await.map_err(|_| SessionError::Lost)??;
        Ok(messages
            .into_iter()
            .filter_map(|message| match message {
                SimpleQueryMessage::Row(row) => Some(row),
                _ => None,
            })
            .collect())
    }

    /// Runs one statement of Nexus's own with parameters, in one round trip.
    pub async fn query(
        &self,
        sql: &str,
        parameters: &[(&(dyn tokio_postgres::types::ToSql + Sync), tokio_postgres::types::Type)],
    ) -> Result<Vec<tokio_postgres::Row>, SessionError> {
        let rows = self.client()?.query_typed(sql, parameters);
        Ok(tokio::time::timeout(OWN_MESSAGE_LIMIT, rows).await.map_err(|_| SessionError::Lost)??)
    }

    /// Sends a batch that holds a migration's SQL, and waits for its end. When `cancel` fires, the
    /// server is told to cancel it and its end is awaited all the same. Returns how many
    /// statements were completed.
    pub async fn batch(&self, sql: &str, cancel: &CancellationToken) -> Result<usize, BatchError> {
        let mut completed = 0;
        let result = {
            let mut run = pin!(self.drive(sql, &mut completed));
            tokio::select! {
                result = &mut run => result,
                () = cancel.cancelled() => self.cancel(run).await,
            }
        };
        result.map(|()| completed).map_err(|error| BatchError { error, completed })
    }

    /// Cancels on the server and waits for the end. Dropping the future would not stop the SQL, and
    /// would lose the news that it was done after all. A request that comes between two statements
    /// is lost on the server, so it is made again every second.
    async fn cancel(
        &self,
        mut run: Pin<&mut impl Future<Output = Result<(), SessionError>>>,
    ) -> Result<(), SessionError> {
        let give_up = Instant::now() + CANCEL_LIMIT;
        while Instant::now() < give_up {
            if let Some(connection) = &self.connection
                && let Err(error) = Box::pin(connection.cancel()).await
            {
                tracing::debug!(%error, "a cancel request did not reach the server");
            }
            match tokio::time::timeout(Duration::from_secs(1), &mut run).await {
                Ok(Err(SessionError::Sql(fault))) if fault.sqlstate == QUERY_CANCELED => {
                    return Err(SessionError::Cancelled);
                }
                Ok(ended) => return ended,
                Err(_) => {}
            }
        }
        Err(SessionError::Lost)
    }

    async fn drive(&self, sql: &str, completed: &mut usize) -> Result<(), SessionError> {
        let mut messages = pin!(self.client()?.simple_query_raw(sql).await?);
        while let Some(message) = messages.next().await {
            if let SimpleQueryMessage::CommandComplete(_) = message? {
                *completed += 1;
            }
        }
        Ok(())
    }
}

/// A column of a row, by its name; `None` also where the row has no such column.
pub(super) fn text<'a>(row: &'a SimpleQueryRow, column: &str) -> Option<&'a str> {
    row.try_get(column).ok().flatten()
}

impl Drop for Session {
    fn drop(&mut self) {
        self.hang_up();
    }
}
