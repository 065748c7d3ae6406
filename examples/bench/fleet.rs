//! Many databases: migrating them beside `xargs -P` with psql, their status, and what watching costs.

use std::{
    fmt::Write as _,
    fs,
    io::{Read as _, Write as _},
    net::TcpStream,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, ensure};

use crate::{Bench, Daemon, process::cpu_of_family, say};

/// How many databases are migrated.
const DATABASES: usize = 100;

/// With how many migrations each.
const MIGRATIONS: usize = 10;

/// Pairs of runs, in turn.
const PAIRS: usize = 3;

/// How many databases are asked for their status.
const ASKED: [usize; 3] = [10, 100, 1_000];

/// On how many databases psql is run at once beside a status.
const PARALLEL: usize = 8;

/// How many databases are watched: the points of the curve.
const WATCHED: [usize; 3] = [10, 100, 1_000];

/// How often each of them is looked at.
const POLL: Duration = Duration::from_secs(5);

/// Over how many polls the cost is measured.
const POLLS: u32 = 4;

/// Ten migrations, and the same for psql: one transaction each.
fn migrations(bench: &Bench) -> anyhow::Result<(PathBuf, PathBuf)> {
    let (directory, all) = (bench.directory("ten")?, bench.home.path().join("ten.sql"));
    let mut text = String::from(
        "create table schema_migrations (version text primary key, applied_at timestamptz not null \
         default now(), checksum text not null, dirty boolean not null default false);\n",
    );
    for number in 1..=MIGRATIONS {
        let version = format!("{number:04}_orders_{number}");
        let up = format!(
            "create table orders_{number} (id bigserial primary key, name text not null, price numeric(10,2));\n\
             create index orders_{number}_name on orders_{number} (name);\n\
             insert into orders_{number} (name, price) values ('Sample Product', 99.99);\n"
        );
        fs::write(directory.join(format!("{version}.up.sql")), &up)?;
        fs::write(directory.join(format!("{version}.down.sql")), format!("drop table orders_{number};\n"))?;
        write!(
            text,
            "begin;\n{up}insert into schema_migrations (version, checksum) values ('{version}', '{}');\ncommit;\n",
            "0".repeat(64)
        )?;
    }
    fs::write(&all, text)?;
    Ok((directory, all))
}

fn names(prefix: &str, count: usize) -> Vec<String> {
    (0..count).map(|number| format!("{prefix}_{number:04}")).collect()
}

/// The configuration of databases that differ in their name only.
fn databases(bench: &Bench, names: &[String], directory: &Path) -> String {
    let mut toml = format!("[defaults]\nmigrations = '{}'\n", directory.display());
    for name in names {
        // Writing to a String cannot fail.
        let _ = write!(toml, "[[database]]\nname = \"{name}\"\nurl = '{}'\n", bench.server.socket_url(name));
    }
    toml
}

fn make(bench: &Bench, names: &[String]) -> anyhow::Result<()> {
    let sql: Vec<_> = names
        .iter()
        .map(|name| format!("drop database if exists {name} with (force);\ncreate database {name};\n"))
        .collect();
    let file = bench.home.path().join("databases.sql");
    fs::write(&file, sql.concat() + "checkpoint;\n")?;
    bench.psql("postgres", &["-f", &file.display().to_string()]).map(drop)
}

fn drop_all(bench: &Bench, names: &[String]) -> anyhow::Result<()> {
    let sql: Vec<_> = names.iter().map(|name| format!("drop database {name} with (force);\n")).collect();
    let file = bench.home.path().join("databases.sql");
    fs::write(&file, sql.concat())?;
    bench.psql("postgres", &["-f", &file.display().to_string()]).map(drop)
}

/// psql on every database, `parallel` at once.
fn xargs(bench: &Bench, names: &[String], all: &Path, parallel: usize) -> anyhow::Result<Duration> {
    let list = bench.home.path().join("urls");
    let urls: Vec<_> = names.iter().map(|name| bench.server.socket_url(name)).collect();
    fs::write(&list, urls.join("\n"))?;
    let began = Instant::now();
    let status = Command::new("xargs")
        .args(["-P", &parallel.to_string(), "-n", "1", "-a"])
        .arg(&list)
        .args(["psql", "-X", "-q", "-v", "ON_ERROR_STOP=1", "-f"])
        .arg(all)
        .arg("-d")
        .stdout(Stdio::null())
        .status()?;
    ensure!(status.success(), "xargs psql failed");
    Ok(began.elapsed())
}

/// 100 databases with 10 migrations each; psql with the best of several `-P`.
pub(crate) fn apply(bench: &Bench) -> anyhow::Result<()> {
    let (directory, all) = migrations(bench)?;
    let (ours, theirs) = (names("ours", DATABASES), names("theirs", DATABASES));
    let server = bench.server.pid().context("the server runs")?;
    let (mut rows, mut shares, mut best) = (Vec::new(), Vec::new(), 0);
    for _ in 0..PAIRS {
        let mut fastest = Duration::MAX;
        for parallel in [4, 8, 16] {
            make(bench, &theirs)?;
            let taken = xargs(bench, &theirs, &all, parallel)?;
            if taken < fastest {
                (fastest, best) = (taken, parallel);
            }
        }
        make(bench, &ours)?;
        let daemon = bench.daemon("fleet", &databases(bench, &ours, &directory))?;
        let (before, server_before) = (cpu_of_family(daemon.child.id()), cpu_of_family(server));
        rows.push((daemon.ctl(&["apply", "--all"])?, fastest));
        let used = cpu_of_family(daemon.child.id()) - before;
        shares.push(used / (cpu_of_family(server) - server_before));
    }
    crate::tell(
        &format!("{DATABASES} databases × {MIGRATIONS} migrations (best of xargs -P 4, 8, 16; last: {best})"),
        &rows,
    )?;
    shares.sort_by(f64::total_cmp);
    say(&format!("| … CPU of nexusd as a share of the server's | {:.3} | – | – |", shares[PAIRS / 2]))?;
    drop_all(bench, &ours)?;
    drop_all(bench, &theirs)
}

/// The status of databases that are up to date: the first one of a daemon, the next ones, and what the daemon
/// saw last; beside psql, which connects to each of them.
pub(crate) fn status(bench: &Bench) -> anyhow::Result<()> {
    let (directory, _) = migrations(bench)?;
    for count in ASKED {
        let names = names("ours", count);
        make(bench, &names)?;
        let configuration = databases(bench, &names, &directory);
        bench.daemon("status", &configuration)?.ctl(&["apply", "--all"])?;
        let query = bench.home.path().join("status.sql");
        fs::write(&query, "select version, checksum, dirty from schema_migrations;\n")?;
        let theirs = xargs(bench, &names, &query, PARALLEL)?;
        let daemon = bench.daemon("status", &configuration)?;
        let cold = daemon.ctl(&["status", "--all"])?;
        say(&format!(
            "| status of {count} databases, cold (psql: a SELECT each, `xargs -P {PARALLEL}`) | {:.1} ms | {:.1} ms | {:.2} |",
            cold.as_secs_f64() * 1e3,
            theirs.as_secs_f64() * 1e3,
            cold.as_secs_f64() / theirs.as_secs_f64()
        ))?;
        let median = |arguments: &[&str]| -> anyhow::Result<f64> {
            let mut took = (0..15).map(|_| daemon.ctl(arguments)).collect::<Result<Vec<_>, _>>()?;
            took.sort_unstable();
            Ok(took[7].as_secs_f64() * 1e3)
        };
        say(&format!("| … warm | {:.1} ms | – | – |", median(&["status", "--all"])?))?;
        say(&format!("| … `--cached` | {:.1} ms | – | – |", median(&["status", "--all", "--cached"])?))?;
        say(&format!("| … the daemon, resident | {} KiB | – | – |", daemon.resident()?))?;
        drop(daemon);
        drop_all(bench, &names)?;
    }
    Ok(())
}

/// What it costs to watch databases that do not change: schemas of one database, and databases of
/// one server.
pub(crate) fn watch(bench: &Bench) -> anyhow::Result<()> {
    let (directory, _) = migrations(bench)?;
    say(
        "\n| watched, a poll each 5 s | CPU of nexusd a poll | CPU of the server a poll | connections | resident | scrape |\n| --- | ---: | ---: | ---: | ---: | ---: |",
    )?;
    for count in WATCHED {
        bench.database("tenants")?;
        let mut toml =
            format!("[watch]\npoll = \"5s\"\n[defaults]\nmigrations = '{}'\n", directory.display());
        let mut sql = String::new();
        for name in names("tenant", count) {
            write!(
                toml,
                "[[database]]\nname = \"{name}\"\nurl = '{}'\nschema = \"{name}\"\n",
                bench.server.url("tenants")
            )?;
            writeln!(sql, "create schema {name};")?;
        }
        let file = bench.home.path().join("schemas.sql");
        fs::write(&file, sql)?;
        bench.psql("tenants", &["-f", &file.display().to_string()])?;
        measure(bench, &format!("{count} schemas of one database"), &toml)?;
    }
    for count in WATCHED {
        let names = names("watched", count);
        make(bench, &names)?;
        let toml = format!("[watch]\npoll = \"5s\"\n{}", databases(bench, &names, &directory));
        measure(bench, &format!("{count} databases of one server"), &toml)?;
        drop_all(bench, &names)?;
    }
    Ok(())
}

fn measure(bench: &Bench, what: &str, configuration: &str) -> anyhow::Result<()> {
    let server = bench.server.pid().context("the server runs")?;
    bench.daemon("first", configuration)?.ctl(&["apply", "--all"])?;
    let daemon = bench.daemon("watch", configuration)?;
    // What the first looks and the ends of the last sessions cost is over.
    thread::sleep(3 * POLL);
    let (before, server_before) = (cpu_of_family(daemon.child.id()), cpu_of_family(server));
    thread::sleep(POLLS * POLL);
    let used = (cpu_of_family(daemon.child.id()) - before) / f64::from(POLLS);
    let server_used = (cpu_of_family(server) - server_before) / f64::from(POLLS);
    let connections = Command::new("psql")
        .args(["-X", "-A", "-t", "-d", &bench.server.url("postgres"), "-c"])
        .arg("select count(*) from pg_stat_activity where application_name like 'nexusd%'")
        .output()?;
    let (took, size) = scrape(&daemon)?;
    say(&format!(
        "| {what} | {:.0} ms | {:.0} ms | {} | {} KiB | {:.1} ms, {} KiB |",
        used * 1e3,
        server_used * 1e3,
        String::from_utf8_lossy(&connections.stdout).trim(),
        daemon.resident()?,
        took.as_secs_f64() * 1e3,
        size / 1024
    ))
}

/// How long a scrape takes, the median of many, and its size.
fn scrape(daemon: &Daemon) -> anyhow::Result<(Duration, usize)> {
    let mut size = 0;
    let mut took = Vec::new();
    for _ in 0..15 {
        let began = Instant::now();
        let mut stream = TcpStream::connect(&daemon.http)?;
        write!(stream, "GET /metrics HTTP/1.1\r\nHost: nexusd\r\nConnection: close\r\n\r\n")?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer)?;
        took.push(began.elapsed());
        size = answer.len();
    }
    took.sort_unstable();
    Ok((took[7], size))
}
