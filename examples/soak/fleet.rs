//! The databases, their migrations, the daemons, and how they are brought to rest.

use std::{
    fmt::Write as _,
    fs,
    io::{BufRead as _, BufReader},
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    sync::{Mutex, MutexGuard, PoisonError},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail, ensure};
use nexus::postgres::embedded::Embedded;
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde_json::Value;

use crate::{
    report::Report,
    watch::{Rest, open_files, resident},
};

/// How many migrations each database gets.
pub(crate) const MIGRATIONS: usize = 12;

/// The one of them that does not run in a transaction.
pub(crate) const OUTSIDE: usize = 6;

/// How long a daemon that is silent stays the owner.
const LEASE: &str = "2s";

/// How long connections are kept that nobody uses.
const IDLE: Duration = Duration::from_secs(5);

/// How long bringing everything to rest may take.
const PATIENCE: Duration = Duration::from_mins(3);

/// How long a client may wait. It waits as long as somebody has paused what it asked for.
const LONGEST: Duration = Duration::from_mins(1);

/// What every migration writes itself into, in its own transaction.
const LEDGER: &str = "create table ledger (id bigint generated always as identity, version text not null, up boolean not null)";

/// Everything that runs.
pub(crate) struct Fleet {
    pub(crate) server: Embedded,
    home: tempfile::TempDir,
    pub(crate) databases: Vec<String>,
    /// The last of several is never killed: its memory is looked at.
    pub(crate) daemons: Vec<Daemon>,
    pub(crate) alone: bool,
}

/// One daemon, which comes and goes.
pub(crate) struct Daemon {
    home: PathBuf,
    child: Mutex<Option<Child>>,
}

fn version(number: usize) -> String {
    format!("{number:04}_step_{number}")
}

impl Fleet {
    pub(crate) fn start(count: usize, alone: bool) -> anyhow::Result<Self> {
        let server = Embedded::start(&[("max_connections", "400")])?;
        let home = tempfile::tempdir()?;
        let databases: Vec<_> = (0..count).map(|number| format!("soak_{number:03}")).collect();
        let names = if alone { vec!["alone"] } else { vec!["first", "second", "steady"] };
        let daemons =
            names.iter().map(|name| Daemon { home: home.path().join(name), child: Mutex::default() });
        let fleet = Self { daemons: daemons.collect(), server, home, databases, alone };
        fleet.write_migrations()?;
        fleet.sql("postgres", "create database control")?;
        for name in &fleet.databases {
            fleet.sql("postgres", &format!("create database {name}"))?;
            fleet.sql(name, LEDGER)?;
        }
        for daemon in &fleet.daemons {
            fs::create_dir(&daemon.home)?;
            fs::write(daemon.home.join("nexus.toml"), fleet.configuration(daemon))?;
            daemon.start()?;
        }
        Ok(fleet)
    }

    fn write_migrations(&self) -> anyhow::Result<()> {
        let directory = self.home.path().join("migrations");
        fs::create_dir(&directory)?;
        for number in 1..=MIGRATIONS {
            let version = version(number);
            let note = |up: bool| format!("insert into ledger (version, up) values ('{version}', {up});\n");
            let (up, down) = if number == OUTSIDE {
                (
                    format!(
                        "-- nexus: no-transaction\ncreate index concurrently step_{number} on step_1 (id);\n{}",
                        note(true)
                    ),
                    format!("drop index if exists step_{number};\n{}", note(false)),
                )
            } else {
                (
                    format!(
                        "create table step_{number} (id int);\n{}select pg_sleep(random() * 0.05);\n",
                        note(true)
                    ),
                    format!("drop table step_{number};\n{}select pg_sleep(random() * 0.02);\n", note(false)),
                )
            };
            fs::write(directory.join(format!("{version}.up.sql")), up)?;
            fs::write(directory.join(format!("{version}.down.sql")), down)?;
        }
        Ok(())
    }

    fn configuration(&self, daemon: &Daemon) -> String {
        let path = |name: &str| format!("{:?}", daemon.home.join(name).display().to_string());
        let mut toml = format!(
            "[server]\ngrpc = \"127.0.0.1:0\"\nhttp = \"127.0.0.1:0\"\nsocket = {}\nshutdown_timeout = \"5s\"\n\
             [log]\nfile = {}\n[alerts]\nstate_file = {}\n[limits]\nidle_connection = \"{}s\"\n\
             [watch]\npoll = \"2s\"\nmax_connections = 8\n\
             [defaults]\nmigrations = {:?}\nlock_wait = \"5s\"\n",
            path("nexusd.sock"),
            path("logs/migrations.jsonl"),
            path("logs/alerts.json"),
            IDLE.as_secs(),
            self.home.path().join("migrations").display().to_string(),
        );
        if !self.alone {
            let _ = write!(toml, "[control]\nurl = {:?}\nlease = \"{LEASE}\"\n", self.server.url("control"));
        }
        for name in &self.databases {
            let _ = write!(toml, "[[database]]\nname = \"{name}\"\nurl = {:?}\n", self.server.url(name));
        }
        toml
    }

    /// Runs SQL; the rows, their columns joined by `|`.
    pub(crate) fn sql(&self, database: &str, sql: &str) -> anyhow::Result<Vec<String>> {
        let output = Command::new("psql")
            .args([
                "-X",
                "-q",
                "-A",
                "-t",
                "-v",
                "ON_ERROR_STOP=1",
                "-d",
                &self.server.url(database),
                "-c",
                sql,
            ])
            .output()
            .context("cannot run psql")?;
        ensure!(output.status.success(), "psql: {}", String::from_utf8_lossy(&output.stderr));
        Ok(String::from_utf8_lossy(&output.stdout).lines().map(str::to_owned).collect())
    }

    /// The one that is not killed, where there are several.
    pub(crate) fn steady(&self) -> &Daemon {
        &self.daemons[self.daemons.len() - 1]
    }

    /// Starts what is not there, wakes up what is frozen.
    pub(crate) fn rescue(&self, report: &mut Report) -> anyhow::Result<()> {
        for daemon in &self.daemons {
            daemon.signal(Signal::SIGCONT)?;
            if daemon.has_ended()? {
                report.violation(format!("{} had ended by itself", daemon.home.display()));
            }
            daemon.start()?;
        }
        Ok(())
    }

    /// Ends every operation and brings every database to the head.
    pub(crate) fn settle(&self, report: &mut Report) -> anyhow::Result<()> {
        let until = Instant::now() + PATIENCE;
        let daemon = self.steady();
        loop {
            for id in daemon.unfinished()? {
                daemon.ctl(&["operation", "cancel", &id])?;
            }
            daemon.ctl(&["recover", "--all", "-y"])?;
            let applied = daemon.ctl(&["apply", "--all"])?;
            if applied.status.success() && daemon.unfinished()?.is_empty() {
                return Ok(());
            }
            if Instant::now() > until {
                let told = String::from_utf8_lossy(&applied.stderr).into_owned();
                report.violation(format!("the fleet does not come to the head: {}", told.trim()));
                return Ok(());
            }
            thread::sleep(Duration::from_millis(500));
        }
    }

    /// Waits until nobody uses a connection any more, and says what there is then.
    pub(crate) fn at_rest(&self, report: &mut Report) -> anyhow::Result<Rest> {
        thread::sleep(IDLE + Duration::from_secs(8));
        let open = "select count(*) from pg_stat_activity \
                    where application_name like 'nexusd%' and state like 'idle in transaction%'";
        let number =
            |sql: &str| -> anyhow::Result<usize> { Ok(self.sql("postgres", sql)?.join("").parse()?) };
        // A look at a database may be under way: what is left behind is there at each of them.
        let mut left = number(open)?;
        for _ in 0..20 {
            if left == 0 {
                break;
            }
            thread::sleep(Duration::from_millis(300));
            left = number(open)?;
        }
        report.must_be("sessions at rest that are in a transaction", left, 0);
        let sessions =
            "select count(*) from pg_stat_activity where application_name like 'nexusd%' and datname";
        let locks = "select count(*) from pg_locks where locktype = 'advisory' and granted";
        let steady = self.steady().pid()?;
        Ok(Rest {
            of_control: number(&format!("{sessions} = 'control'"))?,
            of_fleet: number(&format!("{sessions} <> 'control'"))?,
            locks: number(locks)?,
            resident: resident(steady).context("the steady daemon is gone")?,
            files: open_files(steady).context("the steady daemon is gone")?,
        })
    }

    /// What there is of files of a name in the directories of all daemons.
    pub(crate) fn logs(&self, name: &str) -> Vec<PathBuf> {
        let logs = self.daemons.iter().map(|daemon| daemon.home.join("logs").join(name));
        logs.filter(|path| path.is_file()).collect()
    }

    /// Stops every daemon in order, and the server.
    pub(crate) fn end(self, report: &mut Report) -> anyhow::Result<()> {
        for daemon in &self.daemons {
            daemon.signal(Signal::SIGTERM)?;
            let until = Instant::now() + Duration::from_mins(1);
            while !daemon.has_ended()? {
                if Instant::now() > until {
                    report.violation(format!("{} does not stop", daemon.home.display()));
                    daemon.kill()?;
                    break;
                }
                thread::sleep(Duration::from_millis(50));
            }
        }
        drop(self.daemons);
        Ok(self.server.stop()?)
    }
}

impl Daemon {
    fn child(&self) -> MutexGuard<'_, Option<Child>> {
        self.child.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.home.join("nexusd.sock")
    }

    pub(crate) fn pid(&self) -> anyhow::Result<u32> {
        self.child().as_ref().map(Child::id).context("the daemon does not run")
    }

    /// Starts it, where it does not run, and waits until it serves.
    pub(crate) fn start(&self) -> anyhow::Result<()> {
        let mut running = self.child();
        if let Some(child) = running.as_mut()
            && child.try_wait()?.is_none()
        {
            return Ok(());
        }
        let mut child = Command::new(binary("nexusd")?)
            .args(["serve", "--config"])
            .arg(self.home.join("nexus.toml"))
            .current_dir(&self.home)
            .stdin(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()?;
        let mut lines = BufReader::new(child.stderr.take().context("stderr is piped")?).lines();
        let mut said = Vec::new();
        while let Some(line) = lines.next().transpose()? {
            if line.contains("serving") {
                let log = self.home.join("stderr");
                // What it says is kept, for whoever looks for the cause of a violation.
                drop(thread::spawn(move || {
                    let mut log = fs::File::options().create(true).append(true).open(log)?;
                    lines
                        .map_while(Result::ok)
                        .try_for_each(|line| std::io::Write::write_fmt(&mut log, format_args!("{line}\n")))
                }));
                *running = Some(child);
                return Ok(());
            }
            said.push(line);
        }
        bail!("nexusd does not start: {}", said.join("\n"))
    }

    pub(crate) fn signal(&self, signal: Signal) -> anyhow::Result<()> {
        let running = self.child();
        let Some(child) = running.as_ref() else { return Ok(()) };
        match kill(Pid::from_raw(child.id().cast_signed()), signal) {
            // It may have ended by itself: whoever waits for it sees that.
            Ok(()) | Err(nix::errno::Errno::ESRCH) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// SIGKILL, and gone.
    pub(crate) fn kill(&self) -> anyhow::Result<()> {
        if let Some(mut child) = self.child().take() {
            child.kill()?;
            child.wait()?;
        }
        Ok(())
    }

    /// Whether it was there and is gone.
    pub(crate) fn has_ended(&self) -> anyhow::Result<bool> {
        Ok(match self.child().as_mut() {
            Some(child) => child.try_wait()?.is_some(),
            None => false,
        })
    }

    /// A `nexusctl` that asks it.
    pub(crate) fn ctl_command(&self, arguments: &[&str]) -> anyhow::Result<Command> {
        let mut command = Command::new(binary("nexusctl")?);
        command
            .args(arguments)
            .env("NEXUS_SERVER", format!("unix:{}", self.socket().display()))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        Ok(command)
    }

    /// Runs `nexusctl`; one that waits too long is killed, as its status tells.
    pub(crate) fn ctl(&self, arguments: &[&str]) -> anyhow::Result<Output> {
        let mut child = self.ctl_command(arguments)?.spawn()?;
        let id = Pid::from_raw(child.id().cast_signed());
        let (ended, waits) = std::sync::mpsc::channel::<()>();
        let guard = thread::spawn(move || {
            if waits.recv_timeout(LONGEST).is_err() {
                // It may just have ended.
                let _ = kill(id, Signal::SIGKILL);
            }
        });
        // Both streams are read to their ends, so that it never waits for its reader.
        let stdout = child.stdout.take();
        let reader = thread::spawn(move || read(stdout));
        let stderr = read(child.stderr.take());
        let stdout = reader.join().unwrap_or_default();
        // Told before it is waited for: afterwards its id may be another's.
        let _ = ended.send(());
        drop(guard.join());
        Ok(Output { status: child.wait()?, stdout, stderr })
    }

    /// The ids of the operations that have not come to their end.
    fn unfinished(&self) -> anyhow::Result<Vec<String>> {
        let states = ["pending", "running", "paused", "halted", "cancelling"];
        self.operations(&states.map(|state| ["--state", state]).concat())
    }

    /// The ids of operations, the newest first; none where it does not answer.
    pub(crate) fn operations(&self, arguments: &[&str]) -> anyhow::Result<Vec<String>> {
        let all = [&["operation", "list", "-o", "json", "--limit", "1000"], arguments].concat();
        let told = self.ctl(&all)?;
        let Ok(listed) = serde_json::from_slice::<Value>(&told.stdout) else { return Ok(Vec::new()) };
        let listed = listed["operations"].as_array().cloned().unwrap_or_default();
        Ok(listed.iter().filter_map(|it| Some(it["id"].as_str()?.to_owned())).collect())
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        // The soak is over: what cannot be ended now is ended with its server.
        let _ = self.kill();
    }
}

fn read(stream: Option<impl std::io::Read>) -> Vec<u8> {
    let mut bytes = Vec::new();
    if let Some(mut stream) = stream {
        // What was read before an error is what there is.
        let _ = stream.read_to_end(&mut bytes);
    }
    bytes
}

/// A binary that was built beside this example.
pub(crate) fn binary(name: &str) -> anyhow::Result<PathBuf> {
    let example = std::env::current_exe()?;
    let directory = example.parent().and_then(Path::parent).context("an example is in a directory")?;
    let path = directory.join(name);
    ensure!(path.is_file(), "{} is missing: cargo build --bins", path.display());
    Ok(path)
}
