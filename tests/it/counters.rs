//! What a run costs, counted: round trips by a proxy, flushes by PostgreSQL's own statistics.

use nexus::postgres::embedded::Embedded;
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use crate::{
    proxy::Proxy,
    support::{Database, World, await_that, server},
};

/// Migrations that make a row each.
fn rows(world: &World, first: u32, count: u32) {
    for number in first..first + count {
        let up = format!("create table if not exists n (n int);\ninsert into n values ({number});\n");
        world.migration(
            &format!("{number:04}_n{number}"),
            &up,
            &format!("delete from n where n = {number};\n"),
        );
    }
}

#[test]
fn two_round_trips_a_migration_and_three_for_nothing() {
    let proxy = Proxy::to(server().port());
    let world = World::through(&proxy).start();
    rows(&world, 1, 1);
    world.ctl(&["apply"]).expect(0);
    proxy.take();
    world.ctl(&["apply"]).expect(0);
    // The first nothing-to-do connects; the second finds its connection warm.
    proxy.take();
    world.ctl(&["apply"]).expect(0);
    assert_eq!(proxy.take(), 3, "nothing pending, over a warm connection");

    let cost_of = |first, count| {
        rows(&world, first, count);
        // Warm again, so that connecting is not counted.
        world.ctl(&["status"]).expect(0);
        proxy.take();
        world.ctl(&["apply"]).expect(0);
        proxy.take()
    };
    let (ten, thirty) = (cost_of(2, 10), cost_of(12, 30));
    assert_eq!(thirty - ten, 2 * 20, "ten cost {ten}, thirty {thirty}");
}

/// A server of its own whose WAL writer and checkpointer stand still, so that every flush counted
/// is one that a session asked for.
struct Quiet {
    server: Embedded,
    stopped: Vec<Pid>,
}

impl Quiet {
    fn start() -> (Self, Database) {
        let server = Embedded::start(&[("autovacuum", "off")]).expect("PostgreSQL starts");
        let database = Database::on(&server, "quiet");
        let pids = database.sql("select pid from pg_stat_activity where backend_type in ('walwriter', 'checkpointer', 'background writer')");
        let stopped: Vec<_> =
            pids.iter().map(|pid| Pid::from_raw(pid.parse().expect("a process id"))).collect();
        for &pid in &stopped {
            kill(pid, Signal::SIGSTOP).expect("it stands still");
        }
        (Self { server, stopped }, database)
    }
}

impl Drop for Quiet {
    fn drop(&mut self) {
        for &pid in &self.stopped {
            // It must go on to be able to end.
            let _ = kill(pid, Signal::SIGCONT);
        }
    }
}

/// How often the WAL was flushed by `run`. Sessions report their counts when they end.
fn flushes(database: &Database, run: impl FnOnce()) -> u32 {
    let count = || -> u32 {
        await_that("the runs' sessions end", || {
            let runs = "select 1 from pg_stat_activity where application_name like 'nexusd %' \
                        and application_name <> 'nexusd watch'";
            database.sql(runs).is_empty()
        });
        database.sql("select wal_sync from pg_stat_wal")[0].parse().expect("a number")
    };
    let before = count();
    run();
    count() - before
}

#[test]
fn one_flush_a_run_or_one_a_migration() {
    let (quiet, database) = Quiet::start();
    for (durability, expected) in [("run", 1), ("each", 10)] {
        let schema = format!("s_{durability}");
        database.sql(&format!("create schema {schema}"));
        let settings = format!("durability = {durability:?}\nschema = {schema:?}");
        let world = World::on(Database::existing(&quiet.server, "quiet")).set(&settings).start();
        rows(&world, 1, 1);
        world.ctl(&["apply"]).expect(0);
        rows(&world, 2, 10);
        let counted = flushes(&database, || drop(world.ctl(&["apply"]).expect(0)));
        assert_eq!(counted, expected, "durability = {durability:?}");
    }
}
