//! What the tests stand on: one PostgreSQL for the whole binary, a database, a directory and a
//! real daemon for each test, and `nexusctl` as its users run it.

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::Command,
    sync::{
        OnceLock,
        atomic::{AtomicU32, Ordering},
    },
    time::{Duration, Instant},
};

use nexus::postgres::embedded::Embedded;
use serde_json::Value;
use tempfile::TempDir;
use tokio_postgres::{NoTls, SimpleQueryMessage};

pub(crate) use crate::process::{Begun, Daemon, Ended};
use crate::{process::Environment, proxy::Proxy};

/// How long anything is waited for before the test fails.
pub(crate) const PATIENCE: Duration = Duration::from_mins(1);

/// Runs a future to its end, where a test stands outside of any runtime.
pub(crate) fn wait<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .expect("a runtime is built")
        .block_on(future)
}

/// The binary's PostgreSQL. A long delay of the WAL writer leaves every flush to who asks for it.
pub(crate) fn server() -> &'static Embedded {
    static SERVER: OnceLock<Embedded> = OnceLock::new();
    SERVER.get_or_init(|| {
        Embedded::start(&[("wal_writer_delay", "10s"), ("max_connections", "200")])
            .expect("PostgreSQL starts")
    })
}

/// A database of its own.
pub(crate) struct Database {
    pub(crate) url: String,
}

impl Database {
    pub(crate) fn new() -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        Self::on(server(), &format!("test_{}", COUNT.fetch_add(1, Ordering::Relaxed)))
    }

    /// A new one on a server of the test's own.
    pub(crate) fn on(server: &Embedded, name: &str) -> Self {
        wait(server.create_database(name)).expect("a database is created");
        Self::existing(server, name)
    }

    /// One that is there.
    pub(crate) fn existing(server: &Embedded, name: &str) -> Self {
        Self { url: server.url(name) }
    }

    /// Runs SQL and returns the rows, columns joined by `|`.
    pub(crate) fn sql(&self, sql: &str) -> Vec<String> {
        self.try_sql(sql).expect("the SQL runs")
    }

    pub(crate) fn try_sql(&self, sql: &str) -> Result<Vec<String>, tokio_postgres::Error> {
        wait(async {
            let (client, connection) = tokio_postgres::connect(&self.url, NoTls).await?;
            let run = async move { client.simple_query(sql).await };
            let (rows, _) = tokio::join!(run, connection);
            Ok(rows?
                .iter()
                .filter_map(|message| match message {
                    SimpleQueryMessage::Row(row) => {
                        let columns = (0..row.len()).map(|index| row.get(index).unwrap_or_default());
                        Some(columns.collect::<Vec<_>>().join("|"))
                    }
                    _ => None,
                })
                .collect())
        })
    }

    /// The rows of `schema_migrations`, as `version|dirty`; none where the table does not exist.
    pub(crate) fn rows(&self) -> Vec<String> {
        match self.sql("select to_regclass('public.schema_migrations') is not null")[0].as_str() {
            "t" => self.sql("select version, dirty from schema_migrations order by version"),
            _ => Vec::new(),
        }
    }

    /// The user's tables.
    pub(crate) fn tables(&self) -> Vec<String> {
        self.sql(
            "select tablename from pg_tables where schemaname = 'public' \
             and tablename not in ('schema_migrations', 'nexus_journal') order by 1",
        )
    }

    /// Runs SQL on a session that stays open until it is dropped, and its transaction with it.
    pub(crate) fn hold(&self, sql: &str) -> Held {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .expect("a runtime is built");
        let client = runtime.block_on(async {
            let (client, connection) = tokio_postgres::connect(&self.url, NoTls).await.expect("it connects");
            drop(nexus::runtime::spawn_owned(connection));
            client.batch_execute(sql).await.expect("the SQL runs");
            client
        });
        Held { _client: client, _runtime: runtime }
    }

    /// Waits until a query returns a row.
    pub(crate) fn await_row(&self, sql: &str) {
        await_that(sql, || !self.sql(sql).is_empty());
    }
}

/// A session that is held open.
pub(crate) struct Held {
    _client: tokio_postgres::Client,
    _runtime: tokio::runtime::Runtime,
}

/// Waits until something is so; it is looked at often, and the test fails where it never is.
pub(crate) fn await_that(what: &str, mut is_so: impl FnMut() -> bool) {
    let until = Instant::now() + PATIENCE;
    while !is_so() {
        assert!(Instant::now() < until, "never came: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// A directory of migrations, a configuration, a log.
pub(crate) struct World {
    pub(crate) database: Database,
    pub(crate) home: TempDir,
    /// The database as the daemon reaches it.
    daemon_url: String,
    settings: String,
    alerts: String,
    more: String,
    shutdown_timeout: &'static str,
}

/// Fails the test.
#[track_caller]
#[allow(clippy::panic, reason = "how a test fails")]
pub(crate) fn fail(message: &str) -> ! {
    panic!("{message}")
}

impl World {
    /// An empty migration directory, and a database of one's own named `main`.
    pub(crate) fn new() -> Self {
        Self::on(Database::new())
    }

    /// The same on a given database.
    pub(crate) fn on(database: Database) -> Self {
        let home = TempDir::new().expect("a directory is made");
        fs::create_dir(home.path().join("migrations")).expect("a directory is made");
        Self {
            daemon_url: database.url.clone(),
            database,
            home,
            settings: String::new(),
            alerts: String::new(),
            more: String::new(),
            shutdown_timeout: "30s",
        }
    }

    /// A world whose daemon reaches PostgreSQL through a proxy only.
    pub(crate) fn through(proxy: &Proxy) -> Self {
        Self::new().reached_at(proxy.port())
    }

    /// The daemon reaches PostgreSQL at another port than its own.
    pub(crate) fn reached_at(self, port: u16) -> Self {
        let address = |port: u16| format!("127.0.0.1:{port}/");
        let url = self.database.url.replace(&address(server().port()), &address(port));
        Self { daemon_url: url, ..self }
    }

    /// Adds lines to the `[[database]]` of the configuration.
    pub(crate) fn set(mut self, lines: &str) -> Self {
        self.settings.push_str(lines);
        self.settings.push('\n');
        self
    }

    pub(crate) fn shutdown_timeout(mut self, timeout: &'static str) -> Self {
        self.shutdown_timeout = timeout;
        self
    }

    /// Adds lines to the `[alerts]` of the configuration.
    pub(crate) fn alerts(mut self, lines: &str) -> Self {
        self.alerts.push_str(lines);
        self.alerts.push('\n');
        self
    }

    /// Adds tables to the configuration.
    pub(crate) fn more(mut self, toml: &str) -> Self {
        self.more.push_str(toml);
        self
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.home.path().join(name)
    }

    /// Writes a file of the migration directory.
    pub(crate) fn write(&self, name: &str, text: impl AsRef<[u8]>) {
        fs::write(self.path("migrations").join(name), text).expect("a file is written");
    }

    /// Writes both files of a migration.
    pub(crate) fn migration(&self, version: &str, up: &str, down: &str) {
        self.write(&format!("{version}.up.sql"), up);
        self.write(&format!("{version}.down.sql"), down);
    }

    /// Writes `count` migrations that make a table each, from number `first`.
    pub(crate) fn tables(&self, first: u32, count: u32) {
        for number in first..first + count {
            self.migration(
                &format!("{number:04}_t{number}"),
                &format!("create table t{number} (id int primary key);\n"),
                &format!("drop table t{number};\n"),
            );
        }
    }

    pub(crate) fn remove(&self, name: &str) {
        fs::remove_file(self.path("migrations").join(name)).expect("a file is removed");
    }

    pub(crate) fn configuration(&self) -> String {
        format!(
            "[server]\ngrpc = \"127.0.0.1:0\"\nhttp = \"127.0.0.1:0\"\nsocket = {socket:?}\n\
             shutdown_timeout = {timeout:?}\n\n\
             [log]\nfile = {log:?}\naudit_file = {audit_log:?}\n\n\
             [alerts]\nstate_file = {alerts:?}\n{alert_settings}\n\
             [[database]]\nname = \"main\"\nurl = {url:?}\nmigrations = {migrations:?}\n{settings}\n{more}",
            socket = self.path("nexusd.sock").display().to_string(),
            timeout = self.shutdown_timeout,
            log = self.path("migrations.jsonl").display().to_string(),
            audit_log = self.path("audit.jsonl").display().to_string(),
            alerts = self.path("alerts.json").display().to_string(),
            alert_settings = self.alerts,
            url = self.daemon_url,
            migrations = self.path("migrations").display().to_string(),
            settings = self.settings,
            more = self.more,
        )
    }

    /// Starts a daemon on it and waits until it serves.
    pub(crate) fn start(self) -> Running {
        self.start_in(&[])
    }

    /// The same, with variables of the environment for this one start.
    pub(crate) fn start_in(self, environment: Environment<'_>) -> Running {
        let path = self.path("nexus.toml");
        fs::write(&path, self.configuration()).expect("the configuration is written");
        let daemon = Daemon::start(&path, self.path("nexusd.sock"), environment);
        Running { daemon, world: self }
    }

    /// What `nexusd check-config` says of it.
    pub(crate) fn check_config(&self) -> Ended {
        let path = self.path("nexus.toml");
        fs::write(&path, self.configuration()).expect("the configuration is written");
        let mut command = Command::new(env!("CARGO_BIN_EXE_nexusd"));
        command.args(["check-config", "--config"]).arg(&path);
        Ended::of(&command.output().expect("nexusd runs"))
    }

    /// Starts a daemon with a configuration file of this name and text.
    pub(crate) fn daemon(&self, file: &str, configuration: &str) -> Daemon {
        let path = self.path(file);
        fs::write(&path, configuration).expect("the configuration is written");
        Daemon::start(&path, self.path("nexusd.sock"), &[])
    }

    /// Starts another daemon on the same database and directory, with logs of its own.
    pub(crate) fn second_daemon(&self) -> Daemon {
        self.second_daemon_in(&[])
    }

    /// The same, with variables of the environment for this one start.
    pub(crate) fn second_daemon_in(&self, environment: Environment<'_>) -> Daemon {
        let files = ["nexusd.sock", "migrations.jsonl", "audit.jsonl", "alerts.json"];
        let own = |text: String, file| text.replace(file, &format!("second-{file}"));
        let configuration = files.into_iter().fold(self.configuration(), own);
        let path = self.path("second.toml");
        fs::write(&path, configuration).expect("the configuration is written");
        Daemon::start(&path, self.path("second-nexusd.sock"), environment)
    }

    /// The lines of the migration log.
    pub(crate) fn log(&self) -> Vec<Value> {
        read_log(&self.path("migrations.jsonl"))
    }
}

/// The lines of a migration log.
pub(crate) fn read_log(path: &Path) -> Vec<Value> {
    let text = fs::read_to_string(path).expect("the log is read");
    text.lines().map(|line| serde_json::from_str(line).expect("a line of the log is JSON")).collect()
}

/// A world with a daemon on it.
pub(crate) struct Running {
    pub(crate) daemon: Daemon,
    pub(crate) world: World,
}

impl std::ops::Deref for Running {
    type Target = World;

    fn deref(&self) -> &World {
        &self.world
    }
}

impl Running {
    pub(crate) fn ctl(&self, arguments: &[&str]) -> Ended {
        self.daemon.ctl(arguments)
    }

    /// The lines of the log with this message.
    pub(crate) fn logged(&self, message: &str) -> Vec<Value> {
        self.log().into_iter().filter(|line| line["message"] == message).collect()
    }
}

/// Writes a file for its owner only.
pub(crate) fn private(path: &Path, text: &str) {
    fs::write(path, text).expect("it is written");
    fs::set_permissions(path, fs::Permissions::from_mode(0o600)).expect("its mode is set");
}
