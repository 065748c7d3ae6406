//! One database: small migrations, nothing to do, the way back, and one large file.

use std::{
    fmt::Write as _,
    fs,
    path::PathBuf,
    thread,
    time::{Duration, Instant},
};

use crate::{Bench, in_turn, one, process::Peaks, say, tell};

/// How many small migrations there are.
const MIGRATIONS: u32 = 1_000;

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
pub(crate) fn apply(bench: &Bench) -> anyhow::Result<()> {
    let (directory, all, _) = small(bench)?;
    let pairs = in_turn(|| {
        bench.database("theirs")?;
        let theirs = bench.psql("theirs", &["-f", &all.display().to_string()])?;
        bench.database("ours")?;
        let daemon = bench.daemon("ours", &one(&bench.server.url("ours"), &directory))?;
        Ok((daemon.ctl(&["apply"])?, theirs))
    })?;
    tell("1,000 small migrations", &pairs)
}

/// Nothing pending among 1,000, and what the idle daemon takes.
pub(crate) fn nothing(bench: &Bench) -> anyhow::Result<()> {
    let (directory, ..) = small(bench)?;
    bench.database("ours")?;
    let daemon = bench.daemon("ours", &one(&bench.server.url("ours"), &directory))?;
    daemon.ctl(&["apply"])?;
    daemon.ctl(&["apply"])?;
    let query = "select version, checksum, dirty from schema_migrations";
    let pairs = in_turn(|| Ok((daemon.ctl(&["apply"])?, bench.psql("ours", &["-c", query])?)))?;
    tell("nothing pending among 1,000 (psql: one SELECT)", &pairs)?;
    drop(daemon);
    let daemon = bench.daemon("ours", &one(&bench.server.url("ours"), &directory))?;
    daemon.ctl(&["apply"])?;
    thread::sleep(Duration::from_secs(2));
    say(&format!("| idle daemon with 1,000 migrations, resident | {} KiB | – | – |", daemon.resident()?))
}

/// 100 steps back in one call.
pub(crate) fn rollback(bench: &Bench) -> anyhow::Result<()> {
    let (directory, all, back) = small(bench)?;
    let pairs = in_turn(|| {
        bench.database("theirs")?;
        bench.psql("theirs", &["-f", &all.display().to_string()])?;
        let theirs = bench.psql("theirs", &["-f", &back.display().to_string()])?;
        bench.database("ours")?;
        let daemon = bench.daemon("ours", &one(&bench.server.url("ours"), &directory))?;
        daemon.ctl(&["apply"])?;
        Ok((daemon.ctl(&["rollback", "--steps=100", "--yes"])?, theirs))
    })?;
    tell("rollback of 100", &pairs)
}

/// A file of 50 MB of single-row INSERTs; psql sends it whole, as one message.
pub(crate) fn large(bench: &Bench) -> anyhow::Result<()> {
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
        let daemon = bench.daemon("ours", &one(&bench.server.url("ours"), &directory))?;
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
