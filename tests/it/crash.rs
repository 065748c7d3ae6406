//! What is killed in the middle: the daemon, its connection, the server.

use nix::sys::signal::Signal;

use crate::support::{World, await_that};

/// A query that sees a statement of the daemon's run.
fn running(what: &str) -> String {
    format!(
        "select pid from pg_stat_activity where query like '%{what}%' and application_name like 'nexusd %' \
         and state = 'active' and datname = current_database()"
    )
}

#[test]
fn a_daemon_killed_in_a_transactional_migration() {
    let mut world = World::new().start();
    world.tables(1, 1);
    world.migration("0002_slow", "create table slow (id int);\nselect pg_sleep(600);\n", "drop table slow;");
    let client = world.daemon.ctl_begin(&["apply"]);
    world.database.await_row(&running("pg_sleep(600)"));
    assert_eq!(world.database.rows(), ["0001_t1|f", "0002_slow|t"], "the mark is visible at once");
    world.daemon.kill();
    client.end().expect(4);
    await_that("the server gives up the dead client's statement", || {
        world.database.sql(&running("pg_sleep(600)")).is_empty()
    });
    assert_eq!(world.database.tables(), ["t1"], "nothing of it was kept");

    world.daemon.restart();
    let status = world.ctl(&["status", "--output", "json"]).json();
    let explained = status["databases"][0]["migrations"][1]["explanation"].to_string();
    assert!(explained.contains("nothing of the attempt was committed"), "{status}");
    await_that("the start is told of in the log", || {
        !world.logged("Found migrations in dirty state").is_empty()
    });
    world.write("0002_slow.up.sql", "create table slow (id int);\n");
    world.ctl(&["apply"]).expect(0);
    assert_eq!(world.database.rows(), ["0001_t1|f", "0002_slow|f"]);
    assert_eq!(world.database.tables(), ["slow", "t1"]);
}

#[test]
fn a_daemon_killed_in_a_non_transactional_migration() {
    let mut world = World::new().start();
    let up = "-- nexus: no-transaction\ncreate table a (id int);\nselect pg_sleep(600);\ncreate table b (id int);\n";
    world.migration("0001_ab", up, "drop table if exists b; drop table a;");
    let client = world.daemon.ctl_begin(&["apply"]);
    world.database.await_row(&running("pg_sleep(600)"));
    world.daemon.kill();
    client.end().expect(4);
    await_that("the server gives up the dead client's statement", || {
        world.database.sql(&running("pg_sleep(600)")).is_empty()
    });
    assert_eq!(world.database.tables(), ["a"]);
    world.daemon.restart();
    let status = world.ctl(&["status", "--output", "json"]).json();
    assert!(status.to_string().contains("1 of 3 statements"), "{status}");
    world.write("0001_ab.up.sql", up.replace("select pg_sleep(600)", "select 1"));
    world.ctl(&["apply"]).expect(0);
    assert_eq!(world.database.tables(), ["a", "b"]);
    assert_eq!(world.database.rows(), ["0001_ab|f"]);
    let outcomes = world.database.sql("select direction, outcome from nexus_journal order by id");
    assert_eq!(outcomes, ["up|recovered", "undo|succeeded", "up|succeeded"]);
}

#[test]
fn a_connection_terminated_in_a_step_is_resolved_by_the_tables() {
    let world = World::new().start();
    world.tables(1, 1);
    world.migration("0002_slow", "create table slow (id int);\nselect pg_sleep(600);\n", "drop table slow;");
    let client = world.daemon.ctl_begin(&["apply"]);
    world.database.await_row(&running("pg_sleep(600)"));
    world.database.sql(&running("pg_sleep(600)").replace("select pid", "select pg_terminate_backend(pid)"));
    let told = client.end().expect(1);
    assert!(told.contains("NX0036") && told.contains("nothing of it was committed"), "{told}");
    assert_eq!(world.database.rows(), ["0001_t1|f", "0002_slow|t"]);
    assert_eq!(
        world.database.sql("select outcome from nexus_journal order by id"),
        ["succeeded", "interrupted"]
    );
}

#[test]
fn sigterm_lets_a_short_step_end_and_leaves_the_rest() {
    let mut world = World::new().start();
    world.migration("0001_slow", "create table slow (id int);\nselect pg_sleep(2);\n", "drop table slow;");
    world.tables(2, 1);
    let client = world.daemon.ctl_begin(&["apply"]);
    world.database.await_row(&running("pg_sleep(2)"));
    world.daemon.signal(Signal::SIGTERM);
    let told = client.end().expect(1);
    assert!(told.contains("NX0054") && told.contains("before 0002_t2"), "{told}");
    assert_eq!(world.daemon.wait(), Some(0));
    assert_eq!(world.database.rows(), ["0001_slow|f"]);
    assert_eq!(world.logged("Migration applied successfully").len(), 1);
}

#[test]
fn sigterm_cancels_a_long_step_on_the_server() {
    let mut world = World::new().shutdown_timeout("300ms").start();
    world.migration("0001_slow", "create table slow (id int);\nselect pg_sleep(600);\n", "drop table slow;");
    let client = world.daemon.ctl_begin(&["apply"]);
    world.database.await_row(&running("pg_sleep(600)"));
    world.daemon.signal(Signal::SIGTERM);
    client.end().expect(1);
    assert_eq!(world.daemon.wait(), Some(0));
    assert!(world.database.sql(&running("pg_sleep(600)")).is_empty());
    assert_eq!(world.database.sql("select outcome from nexus_journal"), ["rolled_back"]);
    assert!(world.database.tables().is_empty());
}

#[test]
fn a_second_signal_exits_at_once() {
    let mut world = World::new().start();
    world.migration("0001_slow", "select pg_sleep(600);", "select 1;");
    let client = world.daemon.ctl_begin(&["apply"]);
    world.database.await_row(&running("pg_sleep(600)"));
    world.daemon.signal(Signal::SIGTERM);
    await_that("it drains", || world.daemon.page("/-/ready").0 == 503);
    let refused = world.ctl(&["apply"]);
    assert_eq!(refused.code, Some(1), "{refused:?}");
    assert!(refused.stderr.contains("NX0055"), "{refused:?}");
    world.ctl(&["status"]).expect(0);
    world.daemon.signal(Signal::SIGTERM);
    assert_eq!(world.daemon.wait(), Some(1));
    client.end().expect(4);
}

/// What can kill the daemon from its environment is in no build but the one for tests/faults.
#[cfg(not(feature = "failpoints"))]
#[test]
fn failpoints_are_in_no_other_build() {
    let world = World::new().start_in(&[("FAILPOINTS", "apply.marked=return(kill)")]);
    world.tables(1, 1);
    world.ctl(&["apply"]).expect(0);
}
