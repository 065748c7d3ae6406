//! The control database: what several daemons of one service know together, kept in PostgreSQL, which
//! is the only one to coordinate them.
//!
//! It keeps documents whose meaning it does not know: [`operations`] with their leases, [`errands`]
//! from one daemon to another, what the leader knows ([`documents`]), and who that is ([`leader`]); and a copy
//! of their audit logs ([`audit_log`]).
//! Every statement is bounded in time and says of itself whether the database was reached, so that
//! [`Control::admit`] can refuse new work without asking it.

use std::{sync::Arc, time::Duration};

use tokio::sync::watch;
use tokio_postgres::{
    Row,
    types::{ToSql, Type},
};

use crate::{
    migration::{Code, Failure},
    postgres::{
        ConnectError, Pool, SqlFault, Target,
        connect::Connection,
        error::is_connection_lost,
        pool::{self, Pooled},
        quote_ident,
    },
};

pub mod audit_log;
pub mod documents;
pub mod errands;
pub mod failures;
pub mod leader;
pub mod listen;
pub mod operations;
mod schema;

/// How long one statement, or connecting, may take.
const PATIENCE: Duration = Duration::from_secs(5);

/// How many connections a daemon has at most for statements; one more listens, and one more leads.
const CONNECTIONS: usize = 4;

/// How long it is waited, about, before it is tried again to open the database.
const RETRY: Duration = Duration::from_secs(1);

/// A parameter and its type: with it, a statement is one round trip.
type Parameter<'a> = (&'a (dyn ToSql + Sync), Type);

/// Where the control database is, and who uses it.
#[derive(Debug, Clone)]
pub struct Settings {
    /// How to connect.
    pub target: Target,
    /// The schema that everything is kept in.
    pub schema: String,
    /// This run of the daemon.
    pub instance: String,
    /// How long an owner that is silent stays the owner.
    pub lease: Duration,
}

/// The control database, as one daemon uses it.
#[derive(Debug)]
pub struct Control {
    settings: Settings,
    pool: Pool,
    /// Why it cannot be used; `None` where it can.
    trouble: watch::Sender<Option<String>>,
    /// Whether its schema is what this program needs.
    opened: watch::Sender<bool>,
    /// Whether this daemon leads.
    term: leader::Term,
}

impl Control {
    /// Nothing is connected to yet.
    pub fn new(settings: Settings) -> Arc<Self> {
        let pool = Pool::new(settings.target.clone(), startup_settings(&settings), CONNECTIONS);
        let trouble = watch::Sender::new(Some("nobody has connected to it yet".to_owned()));
        Arc::new(Self {
            settings,
            pool,
            trouble,
            opened: watch::Sender::new(false),
            term: leader::Term::default(),
        })
    }

    /// This run of the daemon.
    pub fn instance(&self) -> &str {
        &self.settings.instance
    }

    /// How long an owner that is silent stays the owner.
    pub fn lease(&self) -> Duration {
        self.settings.lease
    }

    /// Opens it, again and again until that is done: a daemon may start before its control database.
    pub async fn open(&self) {
        let mut told = String::new();
        while let Err(failure) = self.open_once().await {
            let reason = failure.to_string();
            if reason != told {
                tracing::warn!(reason, "the control database cannot be opened yet");
                told = reason;
            }
            tokio::time::sleep(RETRY.mul_f64(0.5 + fastrand::f64())).await;
        }
        self.opened.send_replace(true);
    }

    /// Refuses to say what is kept there before it was ever read.
    pub fn known(&self) -> Result<(), Failure> {
        if *self.opened.borrow() { Ok(()) } else { self.admit() }
    }

    /// Waits until it is open.
    pub async fn opened(&self) {
        // It cannot be closed: it is one's own.
        let _ = self.opened.subscribe().wait_for(|opened| *opened).await;
    }

    /// Connects and brings the schema up to date.
    async fn open_once(&self) -> Result<(), Failure> {
        let opened = async {
            let connection = Box::pin(self.pool.get(PATIENCE)).await.map_err(|error| refused(&error))?;
            let upgraded = schema::upgrade(&self.settings, &connection).await;
            drop(Pooled::take(connection));
            upgraded
        };
        let opened = opened.await;
        self.heard(opened.as_ref().err().map(ToString::to_string));
        opened
    }

    /// Refuses new work while the control database cannot be used.
    pub fn admit(&self) -> Result<(), Failure> {
        match &*self.trouble.borrow() {
            None => Ok(()),
            Some(reason) => Err(Failure::new(Code::ControlUnavailable, reason)),
        }
    }

    /// Runs one statement, in one round trip. A warm connection may have died with its server: then a
    /// new one is tried, once: what is run twice does no harm, though its first answer is lost.
    async fn query(&self, sql: &str, parameters: &[Parameter<'_>]) -> Result<Vec<Row>, Failure> {
        let mut answer = self.query_once(sql, parameters).await;
        if matches!(answer, Err(Trouble::Lost(_))) {
            answer = self.query_once(sql, parameters).await;
        }
        let answer = answer.map_err(Failure::from);
        self.heard(answer.as_ref().err().map(ToString::to_string));
        answer
    }

    async fn query_once(&self, sql: &str, parameters: &[Parameter<'_>]) -> Result<Vec<Row>, Trouble> {
        let connection = Box::pin(self.pool.get(PATIENCE)).await;
        let connection = connection.map_err(|error| Trouble::Refused(refused(&error)))?;
        let answer = tokio::time::timeout(PATIENCE, connection.client.query_typed(sql, parameters)).await;
        match answer {
            Ok(Ok(rows)) => {
                pool::give_back(connection);
                Ok(rows)
            }
            Ok(Err(error)) if is_connection_lost(&error) => {
                drop(Pooled::take(connection));
                Err(Trouble::Lost(failure_of(&self.settings, &error)))
            }
            Ok(Err(error)) => {
                drop(Pooled::take(connection));
                Err(Trouble::Refused(failure_of(&self.settings, &error)))
            }
            Err(_) => {
                drop(Pooled::take(connection));
                Err(Trouble::Refused(self.silent(PATIENCE)))
            }
        }
    }

    fn silent(&self, patience: Duration) -> Failure {
        let (server, patience) = (self.settings.target.server(), humantime::format_duration(patience));
        let message = format!("The control database at {server} did not answer within {patience}");
        Failure::new(Code::ControlUnavailable, message)
    }

    fn lost(&self) -> Failure {
        let server = self.settings.target.server();
        let message = format!("The connection to the control database at {server} was lost");
        Failure::new(Code::ControlUnavailable, message)
    }

    /// A connection of its own, for who listens and for who leads.
    async fn connect(&self) -> Result<Connection, Failure> {
        let startup = startup_settings(&self.settings);
        let connected = crate::postgres::connect(&self.settings.target, &startup, PATIENCE);
        Box::pin(connected).await.map_err(|error| refused(&error))
    }

    /// Notes whether the database could be used just now, and tells of a change.
    fn heard(&self, trouble: Option<String>) {
        self.trouble.send_if_modified(|before| {
            let has_changed = before.is_some() != trouble.is_some();
            match &trouble {
                Some(reason) if has_changed => tracing::warn!(reason, "the control database cannot be used"),
                None if has_changed => tracing::info!("the control database is in use"),
                _ => {}
            }
            *before = trouble;
            has_changed
        });
    }
}

/// How a statement did not come to its end.
enum Trouble {
    /// The connection went away under it.
    Lost(Failure),
    /// Anything else.
    Refused(Failure),
}

impl From<Trouble> for Failure {
    fn from(trouble: Trouble) -> Self {
        match trouble {
            Trouble::Lost(failure) | Trouble::Refused(failure) => failure,
        }
    }
}

fn startup_settings(settings: &Settings) -> Vec<(&'static str, String)> {
    vec![
        ("application_name", "nexusd control".to_owned()),
        ("search_path", quote_ident(&settings.schema)),
        ("statement_timeout", PATIENCE.as_millis().to_string()),
        ("lock_timeout", PATIENCE.as_millis().to_string()),
        ("idle_in_transaction_session_timeout", "10s".to_owned()),
    ]
}

fn refused(error: &ConnectError) -> Failure {
    let cause = Failure::from(error);
    let message = format!("The control database cannot be used: {}", cause.message);
    Failure { code: Code::ControlUnavailable, message, ..cause }
}

fn failure_of(settings: &Settings, error: &tokio_postgres::Error) -> Failure {
    let server = settings.target.server();
    let message = match SqlFault::from_error(error) {
        Some(fault) => format!("The control database at {server}: {} ({})", fault.message, fault.sqlstate),
        None => format!("The connection to the control database at {server} was lost"),
    };
    Failure::new(Code::ControlUnavailable, message)
}
