//! The figures of the README: Nexus beside psql, in turn, in one run, on one server.
//!
//! `make bench` runs all of it; `make bench ARGS=apply` only the parts whose names hold "apply".

use std::{
    fmt::Write as _,
    fs,
    io::{BufRead as _, BufReader},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, ensure};
use nexus::postgres::embedded::Embedded;

/// Pairs of runs, in turn; an odd number, so that the median is one of them.
const PAIRS: usize = 7;

/// How many small migrations there are.
const MIGRATIONS: u32 = 1_000;

fn main() -> anyhow::Result<()> {
    let wanted = std::env::args().nth(1).unwrap_or_default();
    let bench = Bench::start()?;
    let parts: [(&str, Part); 4] =
        [("apply", apply), ("nothing", nothing), ("rollback", rollback), ("large", large)];
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

    /// Starts a daemon for one database and directory.
    fn daemon(&self, database: &str, migrations: &Path) -> anyhow::Result<Daemon> {
        let home = self.directory(&format!("daemon_{database}"))?;
        let socket = home.join("nexusd.sock");
        let configuration = format!(
            "[server]\ngrpc = \"127.0.0.1:0\"\nhttp = \"127.0.0.1:0\"\nsocket = '{socket}'\n\
             [log]\nfile = '{log}'\n[[database]]\nname = \"bench\"\nurl = '{url}'\nmigrations = '{migrations}'\n",
            socket = socket.display(),
            log = home.join("migrations.jsonl").display(),
            url = self.server.url(database),
            migrations = migrations.display(),
        );
        fs::write(home.join("nexus.toml"), configuration)?;
        let mut child = Command::new(binary("nexusd")?)
            .args(["serve", "--config"])
            .arg(home.join("nexus.toml"))
            .stderr(Stdio::piped())
            .spawn()?;
        let stderr = child.stderr.take().context("stderr is piped")?;
        let mut lines = BufReader::new(stderr).lines();
        let serves = lines.by_ref().map_while(Result::ok).any(|line| line.contains("serving"));
        ensure!(serves, "nexusd does not serve");
        drop(thread::spawn(move || lines.for_each(drop)));
        Ok(Daemon { child, socket })
    }
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
        resident(self.child.id()).context("the daemon is gone")
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        // It may have ended; then there is nothing to do.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Memory of a process that is its own, in KiB: resident, without what it shares with others.
fn resident(pid: u32) -> Option<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let field = |name: &str| -> Option<u64> {
        status.lines().find_map(|line| line.strip_prefix(name))?.split_whitespace().next()?.parse().ok()
    };
    Some(field("VmRSS:")? - field("RssShmem:")?)
}

/// Writes the small migrations, and what psql runs for the same: one transaction per file with the
/// row of the tracking table, all in one session; and the way back.
fn small(bench: &Bench) -> anyhow::Result<(PathBuf, PathBuf, PathBuf)> {
    let directory = bench.directory("small")?;
    let (all, back) = (bench.home.path().join("all.sql"), bench.home.path().join("back.sql"));
    let mut up = String::from(
        "create table schema_migrations (version text primary key, applied_at timestamptz not null \
         default now(), checksum text not null, dirty boolean not null default false);\n",
    );
    let mut down = String::new();
    for number in 1..=MIGRATIONS {
        let version = format!("{number:04}_add_products_{number}");
        let up_sql = format!(
            "create table products_{number} (\n  id bigserial primary key,\n  name text not null,\n  \
             price decimal(10,2) not null,\n  stock integer not null default 0\n);\n\
             create index idx_products_{number}_name on products_{number} (name);\n\
             insert into products_{number} (name, price, stock) values ('Sample Product', 99.99, 100);\n"
        );
        let down_sql = format!("drop table products_{number};\n");
        fs::write(directory.join(format!("{version}.up.sql")), &up_sql)?;
        fs::write(directory.join(format!("{version}.down.sql")), &down_sql)?;
        let checksum = "0".repeat(64);
        write!(
            up,
            "begin;\n{up_sql}insert into schema_migrations (version, checksum) values ('{version}', '{checksum}');\ncommit;\n"
        )?;
        if number > MIGRATIONS - 100 {
            let undo = format!(
                "begin;\n{down_sql}delete from schema_migrations where version = '{version}';\ncommit;\n"
            );
            down.insert_str(0, &undo);
        }
    }
    fs::write(&all, up)?;
    fs::write(&back, down)?;
    Ok((directory, all, back))
}

/// 1,000 small migrations on one database.
fn apply(bench: &Bench) -> anyhow::Result<()> {
    let (directory, all, _) = small(bench)?;
    let pairs = in_turn(|| {
        bench.database("theirs")?;
        let theirs = bench.psql("theirs", &["-f", &all.display().to_string()])?;
        bench.database("ours")?;
        let daemon = bench.daemon("ours", &directory)?;
        Ok((daemon.ctl(&["apply"])?, theirs))
    })?;
    tell("1,000 small migrations", &pairs)
}

/// Nothing pending among 1,000, and what the idle daemon takes.
fn nothing(bench: &Bench) -> anyhow::Result<()> {
    let (directory, ..) = small(bench)?;
    bench.database("ours")?;
    let daemon = bench.daemon("ours", &directory)?;
    daemon.ctl(&["apply"])?;
    daemon.ctl(&["apply"])?;
    let query = "select version, checksum, dirty from schema_migrations";
    let pairs = in_turn(|| Ok((daemon.ctl(&["apply"])?, bench.psql("ours", &["-c", query])?)))?;
    tell("nothing pending among 1,000 (psql: one SELECT)", &pairs)?;
    drop(daemon);
    let daemon = bench.daemon("ours", &directory)?;
    daemon.ctl(&["apply"])?;
    thread::sleep(Duration::from_secs(2));
    say(&format!("| idle daemon with 1,000 migrations, resident | {} KiB | – | – |", daemon.resident()?))
}

/// 100 steps back in one call.
fn rollback(bench: &Bench) -> anyhow::Result<()> {
    let (directory, all, back) = small(bench)?;
    let pairs = in_turn(|| {
        bench.database("theirs")?;
        bench.psql("theirs", &["-f", &all.display().to_string()])?;
        let theirs = bench.psql("theirs", &["-f", &back.display().to_string()])?;
        bench.database("ours")?;
        let daemon = bench.daemon("ours", &directory)?;
        daemon.ctl(&["apply"])?;
        Ok((daemon.ctl(&["rollback", "--steps=100", "--yes"])?, theirs))
    })?;
    tell("rollback of 100", &pairs)
}

/// A file of 50 MB of single-row INSERTs; psql sends it whole, as one message.
fn large(bench: &Bench) -> anyhow::Result<()> {
    let directory = bench.directory("large")?;
    let mut text = String::from("create table rows (id bigint, name text, note text);\n");
    let mut number = 0;
    while text.len() < 50_000_000 {
        number += 1;
        writeln!(
            text,
            "insert into rows values ({number}, 'name of {number}', 'a note that is neither long nor short');"
        )?;
    }
    fs::write(directory.join("0001_rows.up.sql"), &text)?;
    fs::write(directory.join("0001_rows.down.sql"), "drop table rows;\n")?;
    let (mut growth, mut server_growth) = (0, 0);
    let runtime = tokio::runtime::Runtime::new()?;
    let pairs = in_turn(|| {
        bench.database("theirs")?;
        let theirs = runtime.block_on(async {
            let (client, connection) =
                tokio_postgres::connect(&bench.server.url("theirs"), tokio_postgres::NoTls).await?;
            let driver = nexus::runtime::spawn_owned(connection);
            let began = Instant::now();
            client.batch_execute(&format!("begin;\n{text}\ncommit;")).await?;
            let taken = began.elapsed();
            driver.abort();
            anyhow::Ok(taken)
        })?;
        bench.database("ours")?;
        let daemon = bench.daemon("ours", &directory)?;
        daemon.ctl(&["status"])?;
        let before = daemon.resident()?;
        let peaks = Peaks::watch(daemon.child.id());
        let ours = daemon.ctl(&["apply"])?;
        let (peak, server_peak) = peaks.end();
        growth = growth.max(peak.saturating_sub(before));
        server_growth = server_growth.max(server_peak);
        Ok((ours, theirs))
    })?;
    tell("a file of 50 MB (psql column: one message)", &pairs)?;
    say(&format!("| … growth of the daemon | {growth} KiB | – | – |"))?;
    say(&format!("| … largest backend, without shared memory | {server_growth} KiB | – | – |"))
}

/// Looks, ten times a second, at the memory of the daemon and of the backend that works for it.
struct Peaks {
    stop: Arc<AtomicBool>,
    seen: Arc<[AtomicU64; 2]>,
    thread: thread::JoinHandle<()>,
}

impl Peaks {
    fn watch(daemon: u32) -> Self {
        let (stop, peaks) =
            (Arc::new(AtomicBool::new(false)), Arc::new([AtomicU64::new(0), AtomicU64::new(0)]));
        let (until, highest) = (stop.clone(), peaks.clone());
        let thread = thread::spawn(move || {
            while !until.load(Ordering::Relaxed) {
                highest[0].fetch_max(resident(daemon).unwrap_or(0), Ordering::Relaxed);
                let backends = fs::read_dir("/proc").into_iter().flatten().filter_map(Result::ok);
                let pids = backends.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
                let of_ours = |pid: &u32| {
                    let command = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
                    let command = String::from_utf8_lossy(&command).into_owned();
                    command.starts_with("postgres:") && command.contains(" ours ")
                };
                let largest = pids.filter(of_ours).filter_map(resident).max();
                highest[1].fetch_max(largest.unwrap_or(0), Ordering::Relaxed);
                thread::sleep(Duration::from_millis(100));
            }
        });
        Self { stop, seen: peaks, thread }
    }

    fn end(self) -> (u64, u64) {
        self.stop.store(true, Ordering::Relaxed);
        // A look that failed leaves the peaks that were seen before it.
        let _ = self.thread.join();
        (self.seen[0].load(Ordering::Relaxed), self.seen[1].load(Ordering::Relaxed))
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
