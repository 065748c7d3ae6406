//! Several daemons with one control database: they are one service.

use std::time::{Duration, Instant};

use nexus::postgres::embedded::Embedded;
use nix::sys::signal::Signal;
use serde_json::{Value, json};

use crate::{
    operations::{newest, shown, states, tenants},
    support::{Daemon, Database, Running, World, await_that},
};

/// How long an owner that is silent stays the owner, in these tests.
const LEASE: &str = "2s";

/// How many migrations each schema gets.
pub(crate) const MIGRATIONS: u32 = 4;

fn control(url: &str) -> String {
    format!("[control]\nurl = {url:?}\nlease = \"{LEASE}\"\n")
}

/// So many schemas, with a table beside them that every migration writes itself into.
pub(crate) fn counted(count: usize, control_url: &str) -> World {
    let world = tenants(count).more(&control(control_url));
    world.database.sql("create table public.ran (schema text, migration int)");
    for number in 1..=MIGRATIONS {
        world.migration(
            &format!("{number:04}_m{number}"),
            &format!(
                "create table m{number} (id int);\nselect pg_sleep(0.05);\n\
                 insert into public.ran values (current_schema(), {number});\n"
            ),
            &format!("drop table m{number};\n"),
        );
    }
    world
}

/// Every migration has run once in each schema, and every row is clean.
pub(crate) fn ran_once(world: &World, count: usize) {
    let each = "select count(*), count(distinct (schema, migration)) from public.ran";
    let all = count * MIGRATIONS as usize;
    assert_eq!(world.database.sql(each), [format!("{all}|{all}")]);
    for number in 0..count {
        let rows =
            format!("select count(*), count(*) filter (where dirty) from s{number:03}.schema_migrations");
        assert_eq!(world.database.sql(&rows), [format!("{MIGRATIONS}|0")], "s{number:03}");
    }
}

pub(crate) fn show(daemon: &Daemon, id: &str) -> Value {
    daemon.ctl(&["operation", "show", id, "-o", "json"]).json()
}

fn counts(daemon: &Daemon, id: &str, state: &str) -> u64 {
    show(daemon, id)["counts"][state].as_u64().unwrap_or(0)
}

#[test]
fn what_one_daemon_does_another_shows_steers_and_lets_watch() {
    let kept = Database::new();
    let world = counted(12, &kept.url).start();
    let second = world.second_daemon();
    world.ctl(&["apply", "-d", "t-*", "--parallel", "1", "--reason", "why not", "--detach"]).expect(0);
    let id = newest(&world);
    await_that("the other one knows it", || second.ctl(&["operation", "show", &id]).code == Some(0));
    let watching = second.ctl_begin(&["operation", "watch", &id]);
    let paused = second.ctl(&["operation", "pause", &id]).expect(0);
    assert!(paused.contains("paused by"), "{paused}");
    assert_eq!(shown(&world, &id)["state"], "paused", "the owner has obeyed before it was answered");
    await_that("those under way are done", || counts(&second, &id, "running") == 0);
    let refused = second.ctl(&["operation", "retry", &id]).expect(1);
    assert!(refused.contains("NX0076") || refused.contains("it cannot be retried"), "{refused}");
    second.ctl(&["operation", "resume", &id]).expect(0);
    let told = watching.end().expect(0);
    for part in ["paused: paused by", "resumed", "t-011"] {
        assert!(told.contains(part), "{part:?} is not in\n{told}");
    }
    await_that("the other one knows its end", || show(&second, &id)["state"] == "succeeded");
    let (here, there) = (shown(&world, &id), show(&second, &id));
    assert_eq!(here, there);
    assert_eq!(there["reason"], "why not");
    ran_once(&world, 12);
    // The same request is the same operation, wherever it comes to.
    let again = ["apply", "-d", "t-*", "--parallel", "1", "--reason", "why not", "--request-id", &id];
    let again = second.ctl(&again).expect(0);
    assert!(again.contains("t-011"), "{again}");
    assert_eq!(show(&second, &id)["attempt"], 1);
    assert_eq!(kept.sql("select count(*), sum(fence) from nexus.operation"), ["1|1"]);
}

/// Kills the owner at a moment of its choice; the other one has to go on.
///
/// Returns how often it was begun: twice, where the first one had not ended it by then.
fn killed_in_mid_wave(pause: Duration) -> u64 {
    let kept = Database::new();
    let mut world = counted(10, &kept.url).start();
    let second = world.second_daemon();
    world.ctl(&["apply", "-d", "t-*", "--parallel", "3", "--wave", "50%", "--detach"]).expect(0);
    let id = newest(&world);
    std::thread::sleep(pause);
    world.daemon.kill();
    let killed = Instant::now();
    await_that("the other one ends it", || {
        second.ctl(&["operation", "show", &id, "-o", "json"]).code == Some(0)
            && show(&second, &id)["state"] == "succeeded"
    });
    assert!(killed.elapsed() < Duration::from_secs(15), "{:?}", killed.elapsed());
    ran_once(&world, 10);
    let operation = show(&second, &id);
    for database in operation["databases"].as_array().expect("a list") {
        let applied = database["applied"].as_array().expect("a list").len();
        assert_eq!(applied, MIGRATIONS as usize, "what the first one did counts too: {database}");
    }
    let told = second.ctl(&["operation", "watch", &id]).expect(0);
    assert!(told.contains("applied 40 migrations on 10 databases"), "{told}");
    world.daemon.restart();
    await_that("it comes back and knows", || shown(&world, &id)["state"] == "succeeded");
    operation["attempt"].as_u64().expect("a number")
}

#[test]
fn an_owner_that_is_killed_is_succeeded() {
    for pause in [20, 300, 500] {
        assert_eq!(killed_in_mid_wave(Duration::from_millis(pause)), 2, "it was not over yet");
    }
}

/// More of the same, at random moments, told in target/tmp/killed.txt:
/// `cargo test --test it -- --ignored twenty`.
#[test]
#[ignore = "takes a minute; the three above are of the suite"]
fn twenty_owners_are_killed_and_succeeded() {
    let path = std::path::Path::new(env!("CARGO_TARGET_TMPDIR")).join("killed.txt");
    let mut lines = Vec::new();
    for round in 1..=20 {
        let pause = Duration::from_millis(fastrand::u64(0..900));
        let attempts = killed_in_mid_wave(pause);
        lines.push(format!(
            "{round}: killed after {pause:?}, begun {attempts} times, each migration ran once\n"
        ));
        std::fs::write(&path, lines.concat()).expect("the report is written");
    }
}

#[test]
fn a_frozen_owner_does_no_harm_when_it_wakes_up() {
    let kept = Database::new();
    let world = counted(10, &kept.url).start();
    let second = world.second_daemon();
    world.ctl(&["apply", "-d", "t-*", "--parallel", "3", "--detach"]).expect(0);
    let id = newest(&world);
    await_that("it is at work", || counts(&world.daemon, &id, "succeeded") >= 2);
    world.daemon.signal(Signal::SIGSTOP);
    await_that("the other one ends it", || {
        second.ctl(&["operation", "show", &id, "-o", "json"]).code == Some(0)
            && show(&second, &id)["state"] == "succeeded"
    });
    ran_once(&world, 10);
    let fenced = kept.sql("select fence, owner from nexus.operation");
    world.daemon.signal(Signal::SIGCONT);
    await_that("it knows what became of it", || shown(&world, &id)["state"] == "succeeded");
    assert_eq!(shown(&world, &id), show(&second, &id));
    ran_once(&world, 10);
    assert_eq!(kept.sql("select fence, owner from nexus.operation"), fenced);
    assert!(
        states(&shown(&world, &id)).iter().all(|(_, state)| state == "succeeded" || state == "up to date")
    );
}

#[test]
fn a_daemon_that_is_stopped_hands_over_at_once() {
    let kept = Database::new();
    let mut world = counted(10, &kept.url).start();
    let second = world.second_daemon();
    let begun = ["apply", "-d", "t-*", "--parallel", "2", "--wave", "50%", "--pause", "4s", "--detach"];
    world.ctl(&begun).expect(0);
    let id = newest(&world);
    await_that("it pauses", || shown(&world, &id)["state"] == "paused");
    world.daemon.signal(Signal::SIGTERM);
    assert_eq!(world.daemon.wait(), Some(0));
    await_that("the other one ends it", || show(&second, &id)["state"] == "succeeded");
    assert_eq!(show(&second, &id)["attempt"], 2);
    ran_once(&world, 10);
}

#[test]
fn what_is_halted_is_gone_on_with_by_whoever_is_asked() {
    let kept = Database::new();
    let mut world = counted(4, &kept.url).start();
    let second = world.second_daemon();
    world.database.sql("create table s000.m2 (id int)");
    world.ctl(&["apply", "-d", "t-*", "--canary", "1"]).expect(1);
    let id = newest(&world);
    world.daemon.kill();
    await_that("it is known", || show(&second, &id)["state"] == "halted");
    assert_eq!(show(&second, &id)["counts"], json!({ "failed": 1, "waiting": 3 }));
    world.database.sql("drop table s000.m2");
    second.ctl(&["operation", "retry", &id]).expect(0);
    assert_eq!(show(&second, &id)["counts"], json!({ "succeeded": 4 }));
    ran_once(&world, 4);
}

fn started(world: &Running) -> u64 {
    world.logged("Operation started").len() as u64
}

#[test]
fn without_the_control_database_nothing_new_begins_and_all_goes_on_with_it() {
    let mut server = Embedded::start(&[]).expect("a server starts");
    let kept = Database::on(&server, "control");
    let world = counted(10, &kept.url).start();
    world.ctl(&["apply", "-d", "t-*", "--parallel", "1", "--detach"]).expect(0);
    let id = newest(&world);
    await_that("it is at work", || counts(&world.daemon, &id, "succeeded") >= 1);
    server.kill().expect("the server ends");
    await_that("new operations are refused", || {
        world.ctl(&["recover", "-d", "t-000", "--yes"]).expect(1).contains("NX0100")
    });
    await_that("nothing is begun", || counts(&world.daemon, &id, "running") == 0);
    let before = counts(&world.daemon, &id, "succeeded");
    std::thread::sleep(Duration::from_secs(3));
    assert_eq!(counts(&world.daemon, &id, "succeeded"), before);
    assert!(before < 10);
    world.ctl(&["status", "-d", "t-000"]).expect(0);
    server.restart().expect("the server starts again");
    await_that("it goes on", || show(&world.daemon, &id)["state"] == "succeeded");
    ran_once(&world, 10);
    assert_eq!(started(&world), 2);
    world.ctl(&["recover", "-d", "t-000", "--yes"]).expect(0);
}

#[test]
fn a_control_database_that_was_never_reached_is_not_taken_for_an_empty_one() {
    let mut server = Embedded::start(&[]).expect("a server starts");
    let kept = Database::on(&server, "control");
    server.kill().expect("the server ends");
    let world = counted(1, &kept.url).start();
    for told in [&["alerts"][..], &["audit", "list"], &["audit", "show"], &["operation", "list"]] {
        assert!(world.ctl(told).expect(1).contains("NX0100"), "{told:?}");
    }
    world.ctl(&["status", "-d", "t-000"]).expect(0);
    server.restart().expect("the server starts again");
    await_that("it is read", || world.ctl(&["alerts"]).code == Some(0));
    world.ctl(&["audit", "list"]).expect(0);
}

/// The same with slow down files: there is time to kill whoever runs them.
pub(crate) fn slow_to_undo(count: usize, control_url: &str) -> World {
    let world = counted(count, control_url);
    for number in 1..=MIGRATIONS {
        let down = format!("select pg_sleep(0.3);\ndrop table m{number};\n");
        world.write(&format!("{number:04}_m{number}.down.sql"), down);
    }
    world
}

pub(crate) fn rows_of(world: &World, schema: usize) -> usize {
    let rows = world.database.try_sql(&format!("select count(*) from s{schema:03}.schema_migrations"));
    // There is no table before the first run.
    rows.map_or(0, |rows| rows[0].parse().expect("a number"))
}

pub(crate) fn tables_of(world: &World, schema: usize) -> usize {
    let tables =
        format!("select count(*) from pg_tables where schemaname = 's{schema:03}' and tablename like 'm_'");
    world.database.sql(&tables)[0].parse().expect("a number")
}

#[test]
fn a_rollback_that_changes_hands_goes_no_further() {
    let kept = Database::new();
    let mut world = slow_to_undo(6, &kept.url).start();
    let second = world.second_daemon();
    world.ctl(&["apply", "-d", "t-*"]).expect(0);
    world.ctl(&["rollback", "-d", "t-*", "--steps", "2", "--parallel", "3", "--yes", "--detach"]).expect(0);
    let id = newest(&world);
    await_that("some are rolled back", || (0..6).any(|schema| rows_of(&world, schema) == 3));
    world.daemon.kill();
    await_that("the other one ends it", || show(&second, &id)["state"] == "succeeded");
    assert_eq!(show(&second, &id)["attempt"], 2);
    for schema in 0..6 {
        assert_eq!((rows_of(&world, schema), tables_of(&world, schema)), (2, 2), "s{schema:03}");
        let open = format!("select count(*) from s{schema:03}.nexus_journal where outcome = 'running'");
        assert_eq!(world.database.sql(&open), ["0"], "what was cut off is settled");
    }
}

#[test]
fn an_undo_whose_owner_is_killed_is_ended_by_another() {
    let kept = Database::new();
    let mut world = slow_to_undo(6, &kept.url).start();
    let second = world.second_daemon();
    world.database.sql("create table s005.m2 (id int)");
    let begun =
        ["apply", "-d", "t-*", "--wave", "50%", "--on-failure", "rollback", "--parallel", "2", "--detach"];
    world.ctl(&begun).expect(0);
    let id = newest(&world);
    await_that("it is being undone", || (0..6).any(|schema| matches!(rows_of(&world, schema), 1..=3)));
    await_that("it says so", || {
        shown(&world, &id)["why"].as_str().is_some_and(|why| why.contains("rolled back"))
    });
    world.daemon.kill();
    await_that("the other one ends it", || show(&second, &id)["state"] == "failed");
    let why = show(&second, &id)["why"].to_string();
    assert!(why.contains("what the operation had applied was rolled back"), "{why}");
    for schema in 0..6 {
        let own = usize::from(schema == 5);
        assert_eq!((rows_of(&world, schema), tables_of(&world, schema)), (0, own), "s{schema:03}");
    }
}

#[test]
fn a_step_that_is_longer_than_the_lease_ends_before_another_daemon_goes_on() {
    let kept = Database::new();
    let mut world = tenants(1).more(&control(&kept.url)).start();
    let second = world.second_daemon();
    world.migration("0001_slow", "create table slow (id int);\nselect pg_sleep(5);", "drop table slow;");
    world.tables(2, 1);
    world.ctl(&["apply", "-d", "t-000", "--detach"]).expect(0);
    let id = newest(&world);
    await_that("it is at work", || counts(&world.daemon, &id, "running") == 1);
    world.daemon.signal(Signal::SIGTERM);
    assert_eq!(world.daemon.wait(), Some(0));
    await_that("the other one ends it", || show(&second, &id)["state"] == "succeeded");
    let attempts = "select version, outcome from s000.nexus_journal order by id";
    assert_eq!(world.database.sql(attempts), ["0001_slow|succeeded", "0002_t2|succeeded"]);
}
