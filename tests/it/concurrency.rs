//! Many at once: several daemons and clients on one database, and locks that are in the way.

use std::time::{Duration, Instant};

use crate::support::{World, await_that};

#[test]
fn two_daemons_and_ten_clients_apply_each_migration_once() {
    let world = World::new().set("lock_wait = \"2min\"").start();
    let other = world.second_daemon();
    for number in 1..=30 {
        world.migration(
            &format!("{number:04}_n{number}"),
            &format!("create table if not exists counted (n int);\ninsert into counted values ({number});\n"),
            "select 1;",
        );
    }
    let begun: Vec<_> = (0..10)
        .map(|index| if index % 2 == 0 { &world.daemon } else { &other })
        .map(|daemon| daemon.ctl_begin(&["apply"]))
        .collect();
    for client in begun {
        let told = client.end().expect(0);
        assert!(!told.contains("duplicate key"), "{told}");
    }
    let counts = world.database.sql("select count(*), count(distinct n) from counted");
    assert_eq!(counts, ["30|30"]);
    assert_eq!(world.database.sql("select count(*) from nexus_journal where outcome = 'succeeded'"), ["30"]);
}

#[test]
fn who_holds_the_lock_is_told() {
    let world = World::new().set("lock_wait = \"300ms\"").start();
    world.tables(1, 1);
    world.migration("0002_slow", "select pg_sleep(60);", "select 1;");
    let other = world.second_daemon();
    let slow = world.daemon.ctl_begin(&["apply"]);
    world.database.await_row("select 1 from pg_stat_activity where query like '%pg_sleep(60)%' and datname = current_database() and pid <> pg_backend_pid()");
    let told = other.ctl(&["apply"]).expect(1);
    assert!(told.contains("NX0040") && told.contains("nexusd "), "{told}");
    assert!(world.ctl(&["apply"]).expect(1).contains("NX0040"), "the same daemon refuses too");
    let status = world.ctl(&["status"]).expect(0);
    assert!(status.contains("Running") && status.contains("locked by pid"), "{status}");
    slow.kill();
}

#[test]
fn a_lock_of_the_application_is_waited_for_with_its_holder_named() {
    let world = World::new().set("lock_timeout = \"200ms\"\nlock_retries = 50").start();
    world.database.sql("create table busy (id int)");
    world.migration(
        "0001_alter",
        "alter table busy add column more int;",
        "alter table busy drop column more;",
    );
    let holder = world.database.hold("begin; lock table busy in access share mode");
    let client = world.daemon.ctl_begin(&["apply"]);
    await_that("a retry in the log", || {
        world.log().iter().any(|line| line["sqlstate"] == "55P03" && line["level"] == "warn")
    });
    // The application is not kept waiting behind a queue for longer than the lock's timeout.
    let began = Instant::now();
    world.database.sql("select * from busy");
    assert!(began.elapsed() < Duration::from_secs(5));
    drop(holder);
    let told = client.end().expect(0);
    assert!(told.contains("pid "), "the holder is named: {told}");
    assert_eq!(world.database.rows(), ["0001_alter|f"]);
}

#[test]
fn a_lock_that_never_comes_is_a_failure() {
    let world = World::new().set("lock_timeout = \"100ms\"\nlock_retries = 1").start();
    world.database.sql("create table busy (id int)");
    world.migration("0001_alter", "alter table busy add column more int;", "select 1;");
    let holder = world.database.hold("begin; lock table busy in access share mode");
    let told = world.ctl(&["apply"]).expect(1);
    assert!(told.contains("NX0033") && told.contains("55P03"), "{told}");
    drop(holder);
    world.ctl(&["apply"]).expect(0);
}

#[test]
fn indexes_are_built_concurrently_while_others_poll_for_the_lock() {
    let world = World::new().start();
    world.database.sql("create table big as select generate_series(1, 200000) as id");
    world.migration(
        "0001_index",
        "-- nexus: no-transaction\ncreate index concurrently big_id on big (id);\n",
        "-- nexus: no-transaction\ndrop index concurrently if exists big_id;\n",
    );
    let other = world.second_daemon();
    let clients: Vec<_> = [&world.daemon, &other, &world.daemon, &other]
        .into_iter()
        .map(|daemon| daemon.ctl_begin(&["apply"]))
        .collect();
    for client in clients {
        client.end().expect(0);
    }
    assert_eq!(
        world.database.sql("select indisvalid from pg_index where indexrelid = 'big_id'::regclass"),
        ["t"]
    );
}

#[test]
fn an_invalid_index_of_ours_is_healed_and_anothers_is_refused() {
    let world = World::new().start();
    world.database.sql("create table big (id int); insert into big values (1), (1)");
    let up = "-- nexus: no-transaction\ncreate unique index concurrently if not exists big_id on big (id);\n";
    world.migration("0001_index", up, "-- nexus: no-transaction\nselect 1;\n");
    world.ctl(&["apply"]).expect(1);
    let invalid = "select indisvalid from pg_index where indexrelid = 'big_id'::regclass";
    let indexes = "select count(*) from pg_class where relname = 'big_id'";
    assert_eq!(world.database.sql(indexes), ["0"], "what the failed build left is cleared");
    world.database.sql("delete from big");
    world.ctl(&["apply"]).expect(0);
    assert_eq!(world.database.sql(invalid), ["t"]);

    let foreign = World::new().start();
    foreign.database.sql("create table big (id int); insert into big values (1), (1)");
    assert!(foreign.database.try_sql("create unique index concurrently big_id on big (id)").is_err());
    foreign.migration("0001_index", up, "drop table big;");
    let told = foreign.ctl(&["apply"]).expect(1);
    assert!(told.contains("NX0035") && told.contains("big_id"), "{told}");
    foreign.database.sql("drop index concurrently big_id");
    foreign.database.sql("delete from big");
    foreign.ctl(&["apply"]).expect(0);
    assert_eq!(foreign.database.sql(invalid), ["t"]);
}

#[test]
fn the_same_request_id_runs_once() {
    let world = World::new().start();
    world.tables(1, 3);
    let arguments = ["apply", "--request-id", "01890000-0000-7000-8000-000000000001", "--output", "json"];
    let first = world.ctl(&arguments).json();
    world.tables(4, 1);
    let second = world.ctl(&arguments).json();
    assert_eq!(first, second);
    assert_eq!(world.database.tables().len(), 3);
    world.ctl(&["rollback", "--request-id", arguments[2]]).expect(1);
}

#[test]
fn a_client_that_goes_away_changes_nothing() {
    let world = World::new().start();
    world.migration("0001_slow", "create table slow (id int);\nselect pg_sleep(1);\n", "drop table slow;");
    world.tables(2, 1);
    let client = world.daemon.ctl_begin(&["apply"]);
    world.database.await_row("select 1 from pg_stat_activity where query like '%pg_sleep(1)%' and pid <> pg_backend_pid() and datname = current_database()");
    client.kill();
    world.database.await_row("select 1 where to_regclass('t2') is not null");
    await_that("both are applied", || world.database.rows() == ["0001_slow|f", "0002_t2|f"]);
}
