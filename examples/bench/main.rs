//! The figures of the README: Nexus beside psql, in turn, in one run, on one server.
//!
//! `make bench` runs all of it; `make bench ARGS=apply` only the parts whose names hold "apply".

mod fleet;
mod process;
mod single;

use std::{
    fs,
    io::{BufRead as _, BufReader},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, ensure};
use nexus::postgres::embedded::Embedded;

/// Pairs of runs, in turn; an odd number, so that the median is one of them.
const PAIRS: usize = 7;

fn main() -> anyhow::Result<()> {
    let wanted = std::env::args().nth(1).unwrap_or_default();
    let bench = Bench::start()?;
    let parts: [(&str, Part); 7] = [
        ("apply", single::apply),
        ("nothing", single::nothing),
        ("rollback", single::rollback),
        ("large", single::large),
        ("fleet", fleet::apply),
        ("status", fleet::status),
        ("watch", fleet::watch),
    ];
    say("| what | Nexus | psql | median ratio (least – most) |\n| --- | ---: | ---: | ---: |")?;
    for (name, part) in parts {
        if name.contains(&wanted) {
            part(&bench).with_context(|| format!("the part {name}"))?;
        }
    }
    bench.server.stop()?;
    Ok(())
}

/// One part: it prints its rows of the table.
type Part = fn(&Bench) -> anyhow::Result<()>;

/// The server, the binaries, a directory for everything.
struct Bench {
    server: Embedded,
    home: tempfile::TempDir,
}

impl Bench {
    fn start() -> anyhow::Result<Self> {
        let server = Embedded::start(&[])?;
        Ok(Self { server, home: tempfile::tempdir()? })
    }

    /// A new database.
    fn database(&self, name: &str) -> anyhow::Result<()> {
        self.psql("postgres", &["-c", &format!("drop database if exists {name} with (force)")])?;
        self.psql("postgres", &["-c", &format!("create database {name}")])?;
        self.psql("postgres", &["-c", "checkpoint"]).map(drop)
    }

    fn psql(&self, database: &str, arguments: &[&str]) -> anyhow::Result<Duration> {
        let began = Instant::now();
        let output = Command::new("psql")
            .args(["-X", "-q", "-v", "ON_ERROR_STOP=1", "-d", &self.server.url(database)])
            .args(arguments)
            .output()?;
        ensure!(output.status.success(), "psql: {}", String::from_utf8_lossy(&output.stderr));
        Ok(began.elapsed())
    }

    /// A directory of its own.
    fn directory(&self, name: &str) -> anyhow::Result<PathBuf> {
        let path = self.home.path().join(name);
        fs::create_dir_all(&path)?;
        Ok(path)
    }

    /// Starts a daemon for the databases of this configuration.
    fn daemon(&self, name: &str, databases: &str) -> anyhow::Result<Daemon> {
        let home = self.directory(&format!("daemon_{name}"))?;
        let socket = home.join("nexusd.sock");
        let configuration = format!(
            "[server]\ngrpc = \"127.0.0.1:0\"\nhttp = \"127.0.0.1:0\"\nsocket = '{socket}'\n\
             [log]\nfile = '{log}'\n[alerts]\nstate_file = '{alerts}'\n{databases}",
            socket = socket.display(),
            log = home.join("migrations.jsonl").display(),
            alerts = home.join("alerts.json").display(),
        );
        fs::write(home.join("nexus.toml"), configuration)?;
        let mut child = Command::new(binary("nexusd")?)
            .args(["serve", "--config"])
            .arg(home.join("nexus.toml"))
            .stderr(Stdio::piped())
            .spawn()?;
        let stderr = child.stderr.take().context("stderr is piped")?;
        let mut lines = BufReader::new(stderr).lines();
        let serves = lines.by_ref().map_while(Result::ok).find(|line| line.contains("serving"));
        let serves = serves.context("nexusd does not serve")?;
        let http = serves.split_once("http=").and_then(|(_, rest)| rest.split_whitespace().next());
        let http = http.context("nexusd does not say where it serves")?.to_owned();
        drop(thread::spawn(move || lines.for_each(drop)));
        Ok(Daemon { child, socket, http })
    }
}

/// The configuration of one database.
fn one(url: &str, migrations: &Path) -> String {
    format!("[[database]]\nname = \"bench\"\nurl = '{url}'\nmigrations = '{}'\n", migrations.display())
}

/// A binary that was built beside this example.
fn binary(name: &str) -> anyhow::Result<PathBuf> {
    let example = std::env::current_exe()?;
    let directory = example.parent().and_then(Path::parent).context("an example is in a directory")?;
    let path = directory.join(name);
    ensure!(path.is_file(), "{} is missing: cargo build --release --bins", path.display());
    Ok(path)
}

struct Daemon {
    child: Child,
    socket: PathBuf,
    /// Where it serves its metrics.
    http: String,
}

impl Daemon {
    /// Runs `nexusctl` as a whole process.
    fn ctl(&self, arguments: &[&str]) -> anyhow::Result<Duration> {
        let mut command = Command::new(binary("nexusctl")?);
        let server = format!("unix:{}", self.socket.display());
        command.args(arguments).env("NEXUS_SERVER", server).stdout(Stdio::null());
        let began = Instant::now();
        let output = command.output()?;
        ensure!(output.status.success(), "nexusctl: {}", String::from_utf8_lossy(&output.stderr));
        Ok(began.elapsed())
    }

    fn resident(&self) -> anyhow::Result<u64> {
        process::resident(self.child.id()).context("the daemon is gone")
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        // It may have ended; then there is nothing to do.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Runs pairs in turn: ours, theirs.
fn in_turn(
    mut pair: impl FnMut() -> anyhow::Result<(Duration, Duration)>,
) -> anyhow::Result<Vec<(Duration, Duration)>> {
    (0..PAIRS).map(|_| pair()).collect()
}

fn tell(what: &str, pairs: &[(Duration, Duration)]) -> anyhow::Result<()> {
    let sorted = |mut values: Vec<f64>| {
        values.sort_by(f64::total_cmp);
        values
    };
    let ours = sorted(pairs.iter().map(|(ours, _)| ours.as_secs_f64()).collect());
    let theirs = sorted(pairs.iter().map(|(_, theirs)| theirs.as_secs_f64()).collect());
    let ratios =
        sorted(pairs.iter().map(|(ours, theirs)| ours.as_secs_f64() / theirs.as_secs_f64()).collect());
    let middle = pairs.len() / 2;
    say(&format!(
        "| {what} | {:.1} ms | {:.1} ms | {:.2} ({:.2} – {:.2}) |",
        ours[middle] * 1e3,
        theirs[middle] * 1e3,
        ratios[middle],
        ratios[0],
        ratios[pairs.len() - 1]
    ))
}

fn say(line: &str) -> anyhow::Result<()> {
    std::io::Write::write_fmt(&mut std::io::stdout(), format_args!("{line}\n")).context("stdout is closed")
}
