//! What PostgreSQL and the way to it answer when something fails, without anything that is secret.

use std::{error::Error as _, io, time::Duration};

use tokio_postgres::error::{DbError, ErrorPosition, Severity};

use crate::{
    migration::{Code, Failure},
    postgres::tls::TlsError,
    redact::{safe_nested_message, safe_sql_message, safe_text, without_quoted_sql},
};

/// What stands for a message that SQL raised itself: it may quote any row.
const RAISED: &str = "an exception that the script raised; its text is not kept";

/// An error that the server reported, with its message made safe.
///
/// DETAIL, CONTEXT and internal queries are not kept: they quote the rows of users.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SqlFault {
    /// The five characters of the SQLSTATE.
    pub sqlstate: String,
    /// The message, without values.
    pub message: String,
    /// What the script raised itself, as it stands but for credentials: for the operator only.
    pub shown: Option<String>,
    /// PostgreSQL's own hint, without values.
    pub hint: Option<String>,
    /// Where in the text that was sent, in characters from 1; absent for most run-time errors.
    pub position: Option<u32>,
    /// The constraint that was violated.
    pub constraint: Option<String>,
    /// The table concerned, as `schema.table`.
    pub table: Option<String>,
    /// The column concerned.
    pub column: Option<String>,
    /// Whether the server has ended the session with it.
    pub fatal: bool,
}

impl SqlFault {
    /// The server's report inside a driver's error; `None` where the server did not report one.
    pub fn from_error(error: &tokio_postgres::Error) -> Option<Self> {
        error.as_db_error().map(Self::from)
    }

    /// The same without the piece of the script that the message quotes: the script's own text is a
    /// credential there.
    #[must_use]
    pub fn without_quoted_sql(self) -> Self {
        Self { message: without_quoted_sql(&self.message), ..self }
    }
}

impl From<&DbError> for SqlFault {
    fn from(error: &DbError) -> Self {
        let sqlstate = error.code().code();
        let raised = error.routine() == Some("exec_stmt_raise")
            || ["P0", "38", "39"].iter().any(|class| sqlstate.starts_with(class));
        // Inside a function the SQL may have been made of the values of rows.
        let nested =
            error.where_().is_some() || matches!(error.position(), Some(ErrorPosition::Internal { .. }));
        let safe = if nested { safe_nested_message } else { safe_sql_message };
        Self {
            sqlstate: sqlstate.to_owned(),
            message: if raised { RAISED.to_owned() } else { safe(sqlstate, error.message()) },
            shown: raised.then(|| safe_text(error.message())),
            hint: error.hint().filter(|_| !raised).map(|hint| safe(sqlstate, hint)),
            position: match error.position() {
                Some(ErrorPosition::Original(position)) => Some(*position),
                Some(ErrorPosition::Internal { .. }) | None => None,
            },
            constraint: error.constraint().map(str::to_owned),
            table: error
                .table()
                .map(|table| error.schema().map_or(table.to_owned(), |schema| format!("{schema}.{table}"))),
            column: error.column().map(str::to_owned),
            fatal: is_fatal(error),
        }
    }
}

/// Whether the session is gone, so that what was under way is unknown until it is looked up.
pub fn is_connection_lost(error: &tokio_postgres::Error) -> bool {
    match error.as_db_error() {
        Some(error) => is_fatal(error),
        None => error.is_closed() || error.source().is_some_and(<dyn std::error::Error>::is::<io::Error>),
    }
}

/// Severity is absent before PostgreSQL 9.6 and translated where `severity` alone is sent.
fn is_fatal(error: &DbError) -> bool {
    matches!(error.parsed_severity(), Some(Severity::Fatal | Severity::Panic))
        || matches!(error.code().code(), "57P01" | "57P02" | "57P05" | "25P03")
}

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
#[error("cannot connect to PostgreSQL at {server}")]
pub struct ConnectError {
    /// The server as it is shown: host and port.
    pub server: String,
    /// Why.
    #[source]
    pub reason: ConnectReason,
}

/// What stands in the way of a connection.
#[derive(Debug, thiserror::Error)]
pub enum ConnectReason {
    /// Nobody listens there.
    #[error("nothing listens there")]
    Refused(#[source] io::Error),
    /// No answer in time.
    #[error("no answer within {after:?}")]
    TimedOut {
        /// How long was waited.
        after: Duration,
    },
    /// All connections that the pool may open are in use, for all of the deadline.
    #[error("all {limit} connections to it were in use for {after:?}")]
    Busy {
        /// The most that the pool opens.
        limit: usize,
        /// How long was waited.
        after: Duration,
    },
    /// The host's name is not known.
    #[error("its host name cannot be resolved")]
    Resolve(#[source] io::Error),
    /// The network failed otherwise, or the server hung up.
    #[error("the connection broke")]
    Network(#[source] io::Error),
    /// The server speaks no TLS and `sslmode` wants it.
    #[error("the server does not offer TLS, which sslmode asks for")]
    TlsNotOffered,
    /// The TLS handshake failed: mostly, a certificate that is not trusted.
    #[error("the TLS handshake failed")]
    TlsHandshake(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The certificates of the URL cannot be used.
    #[error("the URL's TLS parameters cannot be used")]
    TlsSettings(#[from] TlsError),
    /// The server asks for a password and there is none.
    #[error("the server asks for a password, and neither the URL nor a password file has one")]
    PasswordMissing,
    /// The credentials were refused.
    #[error("the server refused the credentials: {0}")]
    Authentication(String),
    /// The server lets nobody in this way: no line of `pg_hba.conf` fits, or there is no such role.
    #[error("the server does not admit the connection: {0}")]
    NotAdmitted(String),
    /// There is no such database.
    #[error("database \"{0}\" does not exist")]
    UnknownDatabase(String),
    /// A pooler stands between.
    #[error("a connection pooler answered: {0}")]
    Pooler(String),
    /// The server is too old, or not PostgreSQL.
    #[error("the server's version is {0}; PostgreSQL 14 or newer is needed")]
    TooOld(String),
    /// The server is not of the kind that `target_session_attrs` asks for.
    #[error("the server is not what target_session_attrs asks for")]
    WrongRole,
    /// The server refused for another reason of its own.
    #[error("{} ({})", .0.message, .0.sqlstate)]
    Server(Box<SqlFault>),
    /// The driver and the server did not understand each other.
    #[error("the start-up failed")]
    Startup(#[source] Box<dyn std::error::Error + Send + Sync>),
}

impl ConnectReason {
    /// Sorts out what the driver says.
    pub(super) fn from_driver(error: tokio_postgres::Error, dbname: &str) -> Self {
        if let Some(fault) = SqlFault::from_error(&error) {
            return Self::from_fault(fault, dbname);
        }
        // The driver's kinds are private: its constant texts tell them apart.
        let (kind, closed) = (error.to_string(), error.is_closed());
        let Some(source) = error.into_source() else {
            let said = if closed { "the server closed the connection".to_owned() } else { kind };
            return Self::Network(io::Error::other(said));
        };
        match &*kind {
            "error performing TLS handshake" if source.to_string() == "server does not support TLS" => {
                Self::TlsNotOffered
            }
            "error performing TLS handshake" => Self::TlsHandshake(source),
            "authentication error" => Self::Authentication(source.to_string()),
            "invalid configuration" if source.to_string() == "password missing" => Self::PasswordMissing,
            _ => match source.downcast::<io::Error>() {
                Ok(source)
                    if matches!(
                        source.kind(),
                        io::ErrorKind::ConnectionRefused | io::ErrorKind::NotFound
                    ) =>
                {
                    Self::Refused(*source)
                }
                Ok(source) => Self::Network(*source),
                Err(source) => Self::Startup(source),
            },
        }
    }

    fn from_fault(fault: SqlFault, dbname: &str) -> Self {
        match &*fault.sqlstate {
            "28P01" => Self::Authentication(fault.message),
            "28000" => Self::NotAdmitted(fault.message),
            "3D000" => Self::UnknownDatabase(dbname.to_owned()),
            _ if fault.message.contains("unsupported startup parameter") => Self::Pooler(fault.message),
            _ => Self::Server(Box::new(fault)),
        }
    }

    /// Whether another host of the same target may do better: libpq stops at a refusal.
    pub(super) fn tries_next_host(&self) -> bool {
        match self {
            Self::Server(fault) => fault.sqlstate == "57P03",
            Self::Authentication(_)
            | Self::NotAdmitted(_)
            | Self::PasswordMissing
            | Self::UnknownDatabase(_)
            | Self::Pooler(_)
            | Self::TlsSettings(_) => false,
            _ => true,
        }
    }
}

impl From<&ConnectError> for Failure {
    fn from(error: &ConnectError) -> Self {
        let reason = &error.reason;
        let (code, hint) = match reason {
            ConnectReason::Refused(_) => {
                (Code::Unreachable, "start the server, or correct the host and the port in the URL")
            }
            ConnectReason::TimedOut { .. } => {
                (Code::Unreachable, "check the host and the port in the URL, and the firewalls between")
            }
            ConnectReason::Busy { .. } => {
                (Code::Unreachable, "wait, or raise the limit of connections per server")
            }
            ConnectReason::Resolve(_) => {
                (Code::Unreachable, "correct the host in the URL, or the name service")
            }
            ConnectReason::TlsNotOffered => {
                (Code::Unreachable, "turn TLS on in the server (ssl = on), or lower sslmode in the URL")
            }
            ConnectReason::TlsHandshake(_) => (
                Code::Unreachable,
                "name the authority's certificate with sslrootcert, and the host as its certificate does",
            ),
            ConnectReason::UnknownDatabase(_) => {
                (Code::Unreachable, "create the database, or correct its name in the URL")
            }
            ConnectReason::WrongRole => (
                Code::UnfitServer,
                "name the primary's host in the URL, or all hosts of the cluster, or change target_session_attrs",
            ),
            ConnectReason::Server(fault) => match &*fault.sqlstate {
                "53300" => (Code::Unreachable, "raise the server's max_connections, or end idle sessions"),
                "57P03" => (Code::Unreachable, "wait until the server has started"),
                "42501" => (Code::Privilege, "grant the role the right to connect to the database"),
                _ => (Code::Unreachable, ""),
            },
            ConnectReason::TlsSettings(_) => (Code::BadConfig, "correct the TLS parameters in the URL"),
            ConnectReason::PasswordMissing => {
                (Code::Authentication, "put the password into the URL or into a password file of mode 0600")
            }
            ConnectReason::Authentication(_) => (Code::Authentication, ""),
            ConnectReason::NotAdmitted(_) => {
                (Code::Authentication, "correct the user and sslmode in the URL, or the server's pg_hba.conf")
            }
            ConnectReason::Pooler(_) => (Code::Pooler, ""),
            ConnectReason::TooOld(_) => (Code::UnfitServer, ""),
            ConnectReason::Network(_) | ConnectReason::Startup(_) => (Code::Unreachable, ""),
        };
        let mut failure = Self::new(code, chain(error)).hint(hint);
        if let ConnectReason::Server(fault) = reason {
            failure.sqlstate = Some(fault.sqlstate.clone());
            failure.server_message = Some(fault.message.clone());
            failure.server_hint.clone_from(&fault.hint);
        }
        failure
    }
}

/// An error with its causes, in one line; a cause that only repeats what is said is left out.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let said = error.to_string();
        if !text.contains(&said) {
            text = format!("{text}: {said}");
        }
        cause = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fault(sqlstate: &str, message: &str) -> SqlFault {
        SqlFault {
            sqlstate: sqlstate.to_owned(),
            message: message.to_owned(),
            hint: None,
            shown: None,
            position: None,
            constraint: None,
            table: None,
            column: None,
            fatal: true,
        }
    }

    #[test]
    fn refusals_have_codes_of_their_own() {
        let cases = [
            ("28P01", "password authentication failed for user \"app\"", Code::Authentication),
            ("28000", "no pg_hba.conf entry for host \"10.0.0.1\"", Code::Authentication),
            ("3D000", "database \"shop\" does not exist", Code::Unreachable),
            ("08P01", "unsupported startup parameter in options: lock_timeout", Code::Pooler),
            ("53300", "sorry, too many clients already", Code::Unreachable),
            ("42501", "permission denied for database \"shop\"", Code::Privilege),
        ];
        for (sqlstate, message, code) in cases {
            let reason = ConnectReason::from_fault(fault(sqlstate, message), "shop");
            let failure = Failure::from(&ConnectError { server: "db:5432".to_owned(), reason });
            assert_eq!(failure.code, code, "{message}");
            assert!(failure.message.starts_with("cannot connect to PostgreSQL at db:5432: "));
            assert!(failure.message.contains(message), "{}", failure.message);
            assert!(!failure.remedy().is_empty());
        }
    }
}
