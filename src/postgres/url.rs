//! Where a database is and how it is reached: libpq's URLs and keyword DSNs, held as secrets.
//!
//! The parameters mean what libpq's manual says of them (PostgreSQL 15, section 34.1.2). Of libpq's
//! environment only `PGPASSFILE` counts: one process serves many databases.

mod parameters;
mod syntax;

use std::{fmt, net::IpAddr, path::PathBuf, time::Duration};

use tokio_postgres::config::ChannelBinding;

use self::parameters::Parameters;
use crate::{
    migration::{Code, Failure},
    redact::{ExposeSecret as _, SecretString},
};

/// Why a URL or DSN cannot be used. It never repeats a value: that may be the password.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum UrlError {
    /// There is nothing in it.
    #[error("the URL is empty")]
    Empty,
    /// It is of another kind.
    #[error("the URL is neither of the form postgres://… nor of the form host=… user=…")]
    Scheme,
    /// Its syntax is broken.
    #[error("the URL is malformed: {0}")]
    Malformed(&'static str),
    /// A parameter that libpq does not know either.
    #[error("unknown parameter `{name}` in the URL")]
    UnknownParameter {
        /// The parameter, where it looks like a name; it may be a piece of a password otherwise.
        name: String,
        /// The name that was probably meant.
        suggestion: Option<&'static str>,
    },
    /// A parameter of libpq that Nexus does not support.
    #[error("parameter `{name}` in the URL is not supported: {why}")]
    Unsupported {
        /// The parameter.
        name: &'static str,
        /// The reason, or what to use instead.
        why: &'static str,
    },
    /// A parameter with a value that it cannot have.
    #[error("parameter `{name}` in the URL must be {expected}")]
    BadValue {
        /// The parameter.
        name: &'static str,
        /// What it takes.
        expected: &'static str,
    },
    /// No user is named and the operating system knows no name for ours.
    #[error("the URL names no user, and the user of this process has no name")]
    NoUser,
}

impl From<&UrlError> for Failure {
    fn from(error: &UrlError) -> Self {
        let failure = Self::new(Code::BadConfig, error.to_string());
        match error {
            UrlError::UnknownParameter { suggestion: Some(name), .. } => {
                failure.hint(format!("did you mean `{name}`?"))
            }
            UrlError::Empty | UrlError::Scheme | UrlError::Malformed(_) => failure.hint(
                "write postgres://USER:PASSWORD@HOST:PORT/DATABASE, with special characters percent-encoded",
            ),
            _ => failure,
        }
    }
}

/// One database of one server, or of one of several servers that are tried in turn.
///
/// The password has no `Debug`, and no accessor of this type shows it.
#[derive(Debug, Clone)]
pub struct Target {
    pub(super) endpoints: Vec<Endpoint>,
    pub(super) user: String,
    pub(super) password: Option<SecretString>,
    pub(super) passfile: Option<PathBuf>,
    pub(super) dbname: String,
    pub(super) tls: TlsSettings,
    pub(super) channel_binding: ChannelBinding,
    pub(super) connect_timeout: Option<Duration>,
    pub(super) application_name: Option<String>,
    pub(super) options: Option<String>,
    pub(super) role: Role,
    pub(super) shuffled: bool,
    pub(super) keepalive: Keepalive,
}

/// One host and port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Endpoint {
    pub(super) host: Host,
    pub(super) hostaddr: Option<IpAddr>,
    pub(super) port: u16,
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.host {
            Host::Tcp(name) if name.contains(':') => write!(f, "[{name}]:{}", self.port),
            Host::Tcp(name) => write!(f, "{name}:{}", self.port),
            Host::Socket(directory) => write!(f, "{}:{}", directory.display(), self.port),
        }?;
        // Whatever the name means elsewhere, this is the server that is asked.
        match self.hostaddr {
            Some(address) if self.host != Host::Tcp(address.to_string()) => write!(f, " ({address})"),
            _ => Ok(()),
        }
    }
}

/// A name or address, or the directory of a Unix socket.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Host {
    Tcp(String),
    Socket(PathBuf),
}

/// Whether TLS is used, in the order of strength.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum SslMode {
    Disable,
    Allow,
    Prefer,
    Require,
    VerifyCa,
    VerifyFull,
}

/// Where the certificates that are trusted come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Roots {
    /// libpq's `~/.postgresql/root.crt` where it exists; else, to verify, the system's.
    Default,
    System,
    File(PathBuf),
}

#[derive(Debug, Clone)]
pub(super) struct TlsSettings {
    pub(super) mode: SslMode,
    pub(super) roots: Roots,
    pub(super) certificate: Option<PathBuf>,
    pub(super) key: Option<PathBuf>,
    pub(super) sni: bool,
    pub(super) direct: bool,
}

/// What the session must be able to do: `target_session_attrs`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Role {
    Any,
    ReadWrite,
    ReadOnly,
    Primary,
    Standby,
    PreferStandby,
}

#[derive(Debug, Clone)]
pub(super) struct Keepalive {
    pub(super) enabled: bool,
    pub(super) idle: Option<Duration>,
    pub(super) interval: Option<Duration>,
    pub(super) count: Option<u32>,
    pub(super) user_timeout: Option<Duration>,
}

impl Target {
    /// Reads a `postgres://` or `postgresql://` URL, or a keyword DSN.
    ///
    /// Left out, the user is the one of this process, the database is named as the user, and the host is
    /// the Unix socket in `/var/run/postgresql`, or `localhost` where that directory is missing.
    pub fn parse(url: &SecretString) -> Result<Self, UrlError> {
        let mut parameters = Parameters::read(url.expose_secret())?;
        let user = match parameters.take("user") {
            Some(user) => user,
            None => process_user().ok_or(UrlError::NoUser)?,
        };
        parameters.check_fixed()?;
        Ok(Self {
            endpoints: parameters.endpoints()?,
            dbname: parameters.take("dbname").unwrap_or_else(|| user.clone()),
            user,
            password: parameters.take("password").map(SecretString::from),
            passfile: parameters.take("passfile").map(PathBuf::from),
            tls: parameters.tls()?,
            channel_binding: parameters
                .choose(
                    "channel_binding",
                    "disable, prefer or require",
                    &[
                        ("disable", ChannelBinding::Disable),
                        ("prefer", ChannelBinding::Prefer),
                        ("require", ChannelBinding::Require),
                    ],
                )?
                .unwrap_or(ChannelBinding::Prefer),
            // libpq: zero or less waits for ever, and the least that counts is two seconds.
            connect_timeout: parameters
                .number::<i32>("connect_timeout", "a number of seconds")?
                .and_then(|seconds| u64::try_from(seconds).ok())
                .filter(|seconds| *seconds > 0)
                .map(|seconds| Duration::from_secs(seconds.max(2))),
            application_name: parameters
                .take("application_name")
                .or_else(|| parameters.take("fallback_application_name")),
            options: parameters.take("options"),
            role: parameters
                .choose(
                    "target_session_attrs",
                    "any, read-write, read-only, primary, standby or prefer-standby",
                    &[
                        ("any", Role::Any),
                        ("read-write", Role::ReadWrite),
                        ("read-only", Role::ReadOnly),
                        ("primary", Role::Primary),
                        ("standby", Role::Standby),
                        ("prefer-standby", Role::PreferStandby),
                    ],
                )?
                .unwrap_or(Role::Any),
            shuffled: parameters
                .choose("load_balance_hosts", "disable or random", &[("disable", false), ("random", true)])?
                .unwrap_or(false),
            keepalive: parameters.keepalive()?,
        })
    }

    /// The server, as it is shown and told apart from others: `HOST:PORT`, with `(ADDRESS)` behind it
    /// where `hostaddr` is given, or `DIRECTORY:PORT` of a Unix socket; several of them are joined by commas.
    pub fn server(&self) -> String {
        self.endpoints.iter().map(Endpoint::to_string).collect::<Vec<_>>().join(",")
    }

    /// The name of the database.
    pub fn dbname(&self) -> &str {
        &self.dbname
    }

    /// The name of the role that connects.
    pub fn user(&self) -> &str {
        &self.user
    }

    /// The same server and credentials with another database.
    #[must_use]
    pub fn with_dbname(&self, dbname: impl Into<String>) -> Self {
        Self { dbname: dbname.into(), ..self.clone() }
    }
}

fn process_user() -> Option<String> {
    nix::unistd::User::from_uid(nix::unistd::geteuid()).ok().flatten().map(|user| user.name)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(url: &str) -> Result<Target, UrlError> {
        Target::parse(&SecretString::from(url))
    }

    #[test]
    fn servers_databases_and_users() {
        let cases = [
            ("postgres://app:p@db:6432/shop", "db:6432", "shop", "app"),
            ("postgresql://app@db", "db:5432", "app", "app"),
            ("postgres://app@[::1]:5433/x", "[::1]:5433", "x", "app"),
            ("postgres://app@a,b:1/x", "a:5432,b:1", "x", "app"),
            ("postgres://app@a,b/x?port=7", "a:7,b:7", "x", "app"),
            ("postgres://a%40b:p%2F@%2Frun%2Fpg/d%20b", "/run/pg:5432", "d b", "a@b"),
            ("postgres:///shop?host=/run/pg&user=app", "/run/pg:5432", "shop", "app"),
            ("postgres://app@h/x?hostaddr=10.0.0.1", "h:5432 (10.0.0.1)", "x", "app"),
            ("hostaddr=10.0.0.1 user=app", "10.0.0.1:5432", "app", "app"),
            ("host=db port=1 user='a \\' b' dbname = x\\ y", "db:1", "x y", "a ' b"),
        ];
        for (url, server, dbname, user) in cases {
            let target = parse(url).unwrap_or_else(|error| unreachable!("{url}: {error}"));
            assert_eq!((&*target.server(), target.dbname(), target.user()), (server, dbname, user), "{url}");
        }
    }

    #[test]
    fn parameters_have_libpqs_meanings() {
        let target = parse(
            "postgres://app:pw@h/x?sslmode=verify-full&sslrootcert=/ca.pem&connect_timeout=1&keepalives=0\
             &keepalives_idle=30&target_session_attrs=read-write&options=-c%20a%3Db&application_name=me",
        )
        .expect("a good URL");
        assert_eq!(target.tls.mode, SslMode::VerifyFull);
        assert_eq!(target.tls.roots, Roots::File("/ca.pem".into()));
        assert_eq!(target.connect_timeout, Some(Duration::from_secs(2)));
        assert!(!target.keepalive.enabled);
        assert_eq!(target.keepalive.idle, Some(Duration::from_secs(30)));
        assert_eq!(target.role, Role::ReadWrite);
        assert_eq!(target.options.as_deref(), Some("-c a=b"));
        assert_eq!(parse("host=h user=u sslrootcert=system").map(|t| t.tls.mode), Ok(SslMode::VerifyFull));
        assert_eq!(parse("postgres://u@h/?ssl=true").map(|t| t.tls.mode), Ok(SslMode::Require));
        assert_eq!(parse("postgres://u@h/?sslmode=disable").map(|t| t.tls.mode), Ok(SslMode::Disable));
        assert!(parse("host=h user=u connect_timeout=0").expect("good").connect_timeout.is_none());
        assert!(!format!("{target:?}").contains("pw"), "Debug hides the password");
    }

    #[test]
    fn errors_name_the_parameter_and_never_a_value() {
        let cases = [
            ("", "the URL is empty"),
            (
                "mysql://u:s3cret@h/x",
                "the URL is neither of the form postgres://… nor of the form host=… user=…",
            ),
            ("s3cret", "the URL is neither of the form postgres://… nor of the form host=… user=…"),
            ("postgres://u:s3cret@h/x?sslmod=require", "unknown parameter `sslmod` in the URL"),
            ("postgres://u@h/x?password=a&s3cret!=1", "unknown parameter `…` in the URL"),
            (
                "host=h user=u sslcrl=/s3cret",
                "parameter `sslcrl` in the URL is not supported: revocation lists are not checked",
            ),
            ("postgres://u:s3cret@h:54x/d", "parameter `port` in the URL must be a number from 1 to 65535"),
            (
                "postgres://u:s3/cret@h/d",
                "the URL is malformed: a `/` in the user or the password must be written as %2F",
            ),
            (
                "postgres://app:p@/?host=db w@db:5432/shop",
                "the URL is malformed: an `@` after the `?` must be written as %40",
            ),
            (
                "postgres://u:s3@cret@h/d",
                "the URL is malformed: an `@` in the user or the password must be written as %40",
            ),
            (
                "postgres://u:s3@cr/et@h/d",
                "the URL is malformed: an `@` or a `/` in the user, the password or the database must be written as %40 or %2F",
            ),
            ("postgres://u:s3cret@[::1/d", "the URL is malformed: an IPv6 address lacks its closing bracket"),
            ("postgres://u:%ffs3cret@h/d", "the URL is malformed: a percent-encoded part is not UTF-8"),
            ("host=h password=my s3cret", "the URL is malformed: a word is not followed by `=`"),
            ("host=h password='s3cret", "the URL is malformed: a quoted value lacks its closing quote"),
            (
                "host=h user=u sslmode=s3cret",
                "parameter `sslmode` in the URL must be disable, allow, prefer, require, verify-ca or verify-full",
            ),
            (
                "host=h user=u sslmode=require sslrootcert=system",
                "parameter `sslmode` in the URL must be verify-full where sslrootcert is `system`",
            ),
            (
                "host=h user=u client_encoding=latin1",
                "parameter `client_encoding` in the URL must be utf8 or auto",
            ),
            (
                "host=a,b user=u port=1,2,3",
                "parameter `port` in the URL must be one port, or one for each host",
            ),
        ];
        for (url, expected) in cases {
            let error = parse(url).map(|target| target.server()).expect_err(url);
            assert_eq!(error.to_string(), expected, "{url}");
            assert!(!format!("{error:?}").contains("s3"), "{error:?}");
        }
        let hint = |url| Failure::from(&parse(url).map(|target| target.server()).expect_err(url)).hint;
        assert_eq!(hint("postgres://u@h/x?sslmod=require"), "did you mean `sslmode`?");
        assert_eq!(hint("postgres://u@h/x?database=y"), "");
        assert_eq!(hint("postgres://u@h/x?Connect-Timeout=y"), "did you mean `connect_timeout`?");
    }
}
