//! From a [`Target`] to an open session: hosts in turn, TLS as asked, all within one deadline.

use std::{net::SocketAddr, time::Duration};

use futures_util::{StreamExt as _, stream};
use tokio::{
    sync::{OwnedSemaphorePermit, mpsc, oneshot},
    task::JoinHandle,
    time::{Instant, timeout, timeout_at},
};
use tokio_postgres::{
    AsyncMessage, CancelToken, Client, Config, Socket,
    config::{SslMode as Negotiation, SslNegotiation},
    error::DbError,
    tls::MakeTlsConnect,
};
use tokio_postgres_rustls::MakeRustlsConnect;

use crate::{
    postgres::{
        error::{ConnectError, ConnectReason},
        passfile, tls,
        url::{Endpoint, Host, Role, SslMode, Target},
    },
    redact::{ExposeSecret as _, safe_sql_message},
    runtime,
};

/// How long a cancel request may take.
const CANCEL_LIMIT: Duration = Duration::from_secs(5);
/// How long a dropped connection may take to say goodbye before its socket is closed.
const GOODBYE_LIMIT: Duration = Duration::from_millis(500);
/// The most notices that wait to be read; the server's further ones are dropped.
const NOTICES: usize = 1000;
/// The oldest server that Nexus works with.
const OLDEST_MAJOR: u32 = 14;

/// A message of the server beside the results: `NOTICE: table "x" does not exist, skipping`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Notice {
    /// Its severity, as the server writes it.
    pub severity: String,
    /// The five characters of its SQLSTATE.
    pub sqlstate: String,
    /// The message, without credentials; one that SQL raised itself may hold anything else.
    pub message: String,
}

impl From<&DbError> for Notice {
    fn from(notice: &DbError) -> Self {
        let sqlstate = notice.code().code();
        Self {
            severity: notice.severity().to_owned(),
            sqlstate: sqlstate.to_owned(),
            message: safe_sql_message(sqlstate, notice.message()),
        }
    }
}

/// An open session. Dropping it closes it, also while a statement is running.
pub struct Connection {
    /// What statements are sent with.
    pub client: Client,
    /// The server's notices, at most a thousand of them.
    pub notices: mpsc::Receiver<Notice>,
    heard: mpsc::Receiver<()>,
    server: String,
    version: String,
    canceller: Canceller,
    driver: JoinHandle<()>,
    alive: oneshot::Sender<()>,
    /// Its place among those of its server that may be kept; free again when the connection is dropped.
    pub(super) place: Option<OwnedSemaphorePermit>,
}

impl std::fmt::Debug for Connection {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Connection").field("server", &self.server).finish_non_exhaustive()
    }
}

impl Connection {
    /// The host and port that answered.
    pub fn server(&self) -> &str {
        &self.server
    }

    /// The server's version as it reports it, such as `15.18`.
    pub fn server_version(&self) -> &str {
        &self.version
    }

    /// Whether the session is known to be gone. Costs nothing; a broken network shows only in use.
    pub fn is_closed(&self) -> bool {
        self.client.is_closed()
    }

    /// Asks the server to cancel what the session is running; see [`Canceller::cancel`].
    pub async fn cancel(&self) -> Result<(), ConnectError> {
        self.canceller.cancel().await
    }

    /// What cancels statements of this session from elsewhere.
    pub fn canceller(&self) -> Canceller {
        self.canceller.clone()
    }

    /// The notices that have arrived by now.
    pub fn take_notices(&mut self) -> Vec<Notice> {
        std::iter::from_fn(|| self.notices.try_recv().ok()).collect()
    }

    /// Waits for the next notification of a channel that the session listens on; those that come
    /// together count as one. False where the session has ended.
    pub async fn hear(&mut self) -> bool {
        self.heard.recv().await.is_some()
    }

    /// Closes the session and waits, for half a second at most, until the server has been told.
    pub async fn close(self) {
        let Self { client, driver, alive, .. } = self;
        drop((client, alive));
        if let Err(error) = driver.await {
            tracing::warn!(%error, "connection driver failed");
        }
    }
}

/// Cancels the running statement of one session, over a connection of its own with the same TLS.
#[derive(Clone)]
pub struct Canceller {
    server: String,
    token: CancelToken,
    tls: MakeRustlsConnect,
}

impl Canceller {
    /// Sends the request, within five seconds.
    ///
    /// The server does not say whether there was something to cancel: the statement itself then fails
    /// with 57014, or has ended before.
    pub async fn cancel(&self) -> Result<(), ConnectError> {
        let error = |reason| ConnectError { server: self.server.clone(), reason };
        match timeout(CANCEL_LIMIT, self.token.cancel_query(self.tls.clone())).await {
            Ok(sent) => sent.map_err(|sent| error(ConnectReason::from_driver(sent, ""))),
            Err(_) => Err(error(ConnectReason::TimedOut { after: CANCEL_LIMIT })),
        }
    }
}

/// Opens a session within the deadline.
///
/// The settings are sent with the start-up message, after the URL's own `options`, and so hold from the
/// first statement on and survive `RESET ALL`. `application_name` among them replaces the URL's.
pub async fn connect(
    target: &Target,
    settings: &[(&str, String)],
    deadline: Duration,
) -> Result<Connection, ConnectError> {
    let until = Instant::now() + deadline;
    let tls = tls::connector(&target.tls)
        .map_err(|error| ConnectError { server: target.server(), reason: error.into() })?;
    let mut endpoints: Vec<&Endpoint> = target.endpoints.iter().collect();
    if target.shuffled {
        fastrand::shuffle(&mut endpoints);
    }
    let roles = match target.role {
        Role::PreferStandby => vec![Role::Standby, Role::Any],
        role => vec![role],
    };
    let mut last = None;
    for role in roles {
        for endpoint in &endpoints {
            let attempt = Attempt { target, settings, endpoint, role, tls: &tls };
            match attempt.endpoint(until).await {
                Ok(connection) => return Ok(connection),
                Err(reason) => {
                    let next = reason.tries_next_host();
                    last = Some(ConnectError { server: endpoint.to_string(), reason });
                    if !next {
                        return Err(last.take().unwrap_or_else(|| timed_out(target, deadline)));
                    }
                }
            }
        }
    }
    Err(last.unwrap_or_else(|| timed_out(target, deadline)))
}

/// The error of a target that did not answer in time.
pub(super) fn timed_out(target: &Target, after: Duration) -> ConnectError {
    ConnectError { server: target.server(), reason: ConnectReason::TimedOut { after } }
}

/// What is tried at one host.
struct Attempt<'a> {
    target: &'a Target,
    settings: &'a [(&'a str, String)],
    endpoint: &'a Endpoint,
    role: Role,
    tls: &'a MakeRustlsConnect,
}

impl Attempt<'_> {
    /// Tries each address of the host, each with a fair share of the time that is left.
    async fn endpoint(&self, until: Instant) -> Result<Connection, ConnectReason> {
        let config = self.config();
        let addresses = self.addresses(until).await?;
        let mut last = ConnectReason::TimedOut { after: Duration::ZERO };
        for (index, address) in addresses.iter().enumerate() {
            let left = u32::try_from(addresses.len() - index).unwrap_or(u32::MAX);
            let share = until.saturating_duration_since(Instant::now()) / left;
            let limit = self.target.connect_timeout.map_or(share, |limit| limit.min(share));
            let mut config = config.clone();
            if let Some(address) = address {
                config.hostaddr(address.ip());
            }
            match timeout(limit, self.negotiate(config)).await {
                Ok(Ok(connection)) => return Ok(connection),
                Ok(Err(reason)) if !reason.tries_next_host() => return Err(reason),
                Ok(Err(reason)) => last = reason,
                Err(_) => last = ConnectReason::TimedOut { after: limit },
            }
        }
        Err(last)
    }

    /// The host's addresses; `None` stands for a Unix socket.
    async fn addresses(&self, until: Instant) -> Result<Vec<Option<SocketAddr>>, ConnectReason> {
        let name = match (&self.endpoint.host, self.endpoint.hostaddr) {
            (Host::Socket(_), _) => return Ok(vec![None]),
            (Host::Tcp(_), Some(address)) => {
                return Ok(vec![Some(SocketAddr::new(address, self.endpoint.port))]);
            }
            (Host::Tcp(name), None) => name,
        };
        let wait = until.saturating_duration_since(Instant::now());
        let found = timeout_at(until, tokio::net::lookup_host((&**name, self.endpoint.port)))
            .await
            .map_err(|_| ConnectReason::TimedOut { after: wait })?
            .map_err(ConnectReason::Resolve)?;
        let mut addresses: Vec<_> = found.map(Some).collect();
        if self.target.shuffled {
            fastrand::shuffle(&mut addresses);
        }
        Ok(addresses)
    }

    /// Tries with and without TLS, in the order that `sslmode` gives.
    async fn negotiate(&self, mut config: Config) -> Result<Connection, ConnectReason> {
        let (first, second) = match (&self.endpoint.host, self.target.tls.mode) {
            // libpq never uses TLS on a Unix socket, whatever sslmode says.
            (Host::Socket(_), _) | (_, SslMode::Disable) => (Negotiation::Disable, None),
            (_, SslMode::Allow) => (Negotiation::Disable, Some(Negotiation::Require)),
            (_, SslMode::Prefer) => (Negotiation::Prefer, Some(Negotiation::Disable)),
            _ => (Negotiation::Require, None),
        };
        let failed = match self.open(config.ssl_mode(first)).await {
            Ok(connection) => return Ok(connection),
            Err(reason) => reason,
        };
        // A wrong password is wrong either way: it is not sent twice.
        let either_way = !matches!(failed, ConnectReason::TlsHandshake(_) | ConnectReason::NotAdmitted(_));
        match second.filter(|_| !either_way) {
            None => Err(failed),
            // With `prefer`, the attempt over TLS tells more than the plain one.
            Some(Negotiation::Disable) => {
                self.open(config.ssl_mode(Negotiation::Disable)).await.map_err(|_| failed)
            }
            Some(other) => self.open(config.ssl_mode(other)).await,
        }
    }

    async fn open(&self, config: &Config) -> Result<Connection, ConnectReason> {
        let (client, connection) = config
            .connect(self.tls.clone())
            .await
            .map_err(|error| ConnectReason::from_driver(error, &self.target.dbname))?;
        let version = connection.parameter("server_version").unwrap_or("unknown").to_owned();
        if major(&version) < OLDEST_MAJOR {
            return Err(ConnectReason::TooOld(version));
        }
        let is_on = |parameter| connection.parameter(parameter) == Some("on");
        let (standby, read_only) = (is_on("in_hot_standby"), is_on("default_transaction_read_only"));
        if !fits(self.role, standby, standby || read_only) {
            return Err(ConnectReason::WrongRole);
        }
        let (notices_in, notices) = mpsc::channel(NOTICES);
        let (alive, dropped) = oneshot::channel();
        let (heard_in, heard) = mpsc::channel(1);
        let driver = runtime::spawn_owned(drive(connection, notices_in, heard_in, dropped));
        let server = self.endpoint.to_string();
        let canceller =
            Canceller { server: server.clone(), token: client.cancel_token(), tls: self.tls.clone() };
        Ok(Connection { client, notices, heard, server, version, canceller, driver, alive, place: None })
    }

    /// All that does not depend on the address.
    fn config(&self) -> Config {
        let target = self.target;
        let mut config = Config::new();
        match &self.endpoint.host {
            Host::Tcp(name) => config.host(name),
            Host::Socket(directory) => config.host_path(directory),
        };
        config.port(self.endpoint.port).user(&target.user).dbname(&target.dbname);
        config.channel_binding(target.channel_binding);
        let from_file = || passfile::password(target, self.endpoint);
        if let Some(password) = target.password.clone().or_else(from_file) {
            config.password(password.expose_secret());
        }
        if target.tls.direct {
            config.ssl_negotiation(SslNegotiation::Direct);
        }
        let name = self.settings.iter().find(|(name, _)| *name == "application_name");
        let name = name.map(|(_, value)| &**value).or(target.application_name.as_deref());
        config.application_name(name.unwrap_or("nexus"));
        let options = options(target.options.as_deref(), self.settings);
        if !options.is_empty() {
            config.options(options);
        }
        config.keepalives(target.keepalive.enabled);
        if let Some(idle) = target.keepalive.idle {
            config.keepalives_idle(idle);
        }
        if let Some(interval) = target.keepalive.interval {
            config.keepalives_interval(interval);
        }
        if let Some(count) = target.keepalive.count {
            config.keepalives_retries(count);
        }
        if let Some(limit) = target.keepalive.user_timeout {
            config.tcp_user_timeout(limit);
        }
        config
    }
}

/// Whether a server is of the kind asked for. Servers since PostgreSQL 14 tell it at the start.
fn fits(role: Role, standby: bool, read_only: bool) -> bool {
    match role {
        Role::Any | Role::PreferStandby => true,
        Role::ReadWrite => !read_only,
        Role::ReadOnly => read_only,
        Role::Primary => !standby,
        Role::Standby => standby,
    }
}

/// The number before the first point: `15.18 (Debian …)`, `16beta1`.
fn major(version: &str) -> u32 {
    let digits = version.find(|c: char| !c.is_ascii_digit()).unwrap_or(version.len());
    version[..digits].parse().unwrap_or(0)
}

/// The start-up message's `options`, where a backslash escapes white space and itself.
fn options(own: Option<&str>, settings: &[(&str, String)]) -> String {
    let mut options = own.unwrap_or_default().to_owned();
    for (name, value) in settings.iter().filter(|(name, _)| *name != "application_name") {
        options.push_str(if options.is_empty() { "-c " } else { " -c " });
        options.push_str(name);
        options.push('=');
        for letter in value.chars() {
            if letter == '\\' || letter.is_ascii_whitespace() || letter == '\x0b' {
                options.push('\\');
            }
            options.push(letter);
        }
    }
    options
}

/// Moves the session's bytes until it ends, or until its owner has dropped it and goodbye is said.
async fn drive(
    mut connection: tokio_postgres::Connection<Socket, <MakeRustlsConnect as MakeTlsConnect<Socket>>::Stream>,
    notices: mpsc::Sender<Notice>,
    heard: mpsc::Sender<()>,
    dropped: oneshot::Receiver<()>,
) {
    let work = async move {
        let mut messages = stream::poll_fn(move |context| connection.poll_message(context));
        while let Some(message) = messages.next().await {
            match message {
                // A full channel loses the notice: nobody reads them, and memory is bounded.
                Ok(AsyncMessage::Notice(notice)) => drop(notices.try_send(Notice::from(&notice))),
                // Where one waits already, it stands for this one too.
                Ok(AsyncMessage::Notification(_)) => drop(heard.try_send(())),
                Ok(_) => {}
                Err(error) => {
                    tracing::debug!(%error, "connection ended");
                    break;
                }
            }
        }
    };
    tokio::pin!(work);
    tokio::select! {
        () = &mut work => {}
        _ = dropped => drop(timeout(GOODBYE_LIMIT, work).await),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_are_escaped_after_the_users_own() {
        let settings = [
            ("search_path", "\"my schema\", public".to_owned()),
            ("application_name", "nexusd 1".to_owned()),
            ("a.b", "back\\slash".to_owned()),
        ];
        assert_eq!(
            options(Some("-c x=1"), &settings),
            r#"-c x=1 -c search_path="my\ schema",\ public -c a.b=back\\slash"#
        );
        assert_eq!(options(None, &settings[..0]), "");
        assert_eq!(options(None, &[("lock_timeout", "5s".to_owned())]), "-c lock_timeout=5s");
    }

    #[test]
    fn versions_and_roles() {
        for (version, expected) in
            [("15.18 (Debian 15.18-0)", 15), ("16beta1", 16), ("9.6.24", 9), ("unknown", 0)]
        {
            assert_eq!(major(version), expected);
        }
        for (role, primary, standby) in [
            (Role::Any, true, true),
            (Role::ReadWrite, true, false),
            (Role::ReadOnly, false, true),
            (Role::Primary, true, false),
            (Role::Standby, false, true),
        ] {
            assert_eq!(fits(role, false, false), primary, "{role:?}");
            assert_eq!(fits(role, true, true), standby, "{role:?}");
        }
    }
}
