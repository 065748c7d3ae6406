//! How a whole fleet stands: versions counted, what lacks a version, what the daemon itself saw, and
//! the live view.

use std::{
    io::{BufRead as _, BufReader},
    process::Stdio,
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use crate::support::{Database, Running, World, await_that};

/// Fourteen schemas of one database, and a poll that sees changes soon.
fn fleet() -> Running {
    let world = World::on(Database::new()).more("\n[watch]\npoll = \"100ms\"\n");
    let world = (1..=14).fold(world, |world, number| {
        world.database.sql(&format!("create schema s{number:02}"));
        let more = format!(
            "\n[[database]]\nname = \"s{number:02}\"\nschema = \"s{number:02}\"\nurl = {:?}\nlabels = {{ kind = \"tenant\" }}\n",
            world.database.url
        );
        world.more(&more)
    });
    world.start()
}

const TENANTS: &str = "--selector=kind=tenant";

#[test]
fn a_fleet_is_shown_by_its_versions() {
    let world = fleet();
    world.tables(1, 2);
    world.ctl(&["apply", TENANTS]).expect(0);
    world.ctl(&["rollback", "-d", "s03", "--yes"]).expect(0);
    world.database.sql("update s07.schema_migrations set dirty = true where version = '0002_t2'");
    let shown = world.ctl(&["status", TENANTS]).expect(0);
    let rows: Vec<Vec<&str>> = shown.lines().map(|line| line.split_whitespace().collect()).collect();
    assert_eq!(rows[2][..4], ["0002_t2", "12", "-", "-"], "{shown}");
    assert_eq!(rows[3], ["0001_t1", "2", "1", "0002_t2", "1", "s03,", "s07"], "{shown}");
    assert!(shown.contains("0002_t2 is dirty"), "{shown}");
    assert!(shown.contains("14 databases: 12 ✓ Clean, 1 · Pending, 1 ⚠️  DIRTY"), "{shown}");
    assert!(!shown.contains("s05"), "{shown}");
    let full = world.ctl(&["status", TENANTS, "--full"]).expect(0);
    assert!(full.contains("s05"), "{full}");

    let check = |arguments: &[&str], expected: &[&str]| {
        let document = world.ctl(&[&["status", TENANTS, "-o", "json"], arguments].concat()).json();
        let names = document["databases"].as_array().expect("a list").iter().map(|it| &it["database"]);
        assert_eq!(names.collect::<Vec<_>>(), expected, "{arguments:?}");
    };
    check(&["--missing", "2"], &["s03", "s07"]);
    check(&["--missing", "0002_t2"], &["s03", "s07"]);
    check(&["--missing", "1"], &[]);
    // What the daemon saw comes to the same, as soon as it has looked.
    await_that("the monitor's look", || {
        let seen = world.ctl(&["status", TENANTS, "--cached", "--missing", "2", "-o", "json"]).json();
        seen["databases"].as_array().is_some_and(|databases| databases.len() == 2)
    });
    check(&["--cached", "--missing", "2"], &["s03", "s07"]);
    let cached = world.ctl(&["status", TENANTS, "--cached"]).expect(0);
    let table = |text: &str| text.lines().take(4).map(str::to_owned).collect::<Vec<_>>();
    assert_eq!(table(&cached), table(&shown));
    assert!(cached.contains("as the daemon saw it"), "{cached}");
    let everywhere = world.ctl(&["status", TENANTS, "--missing", "1"]).expect(0);
    assert_eq!(everywhere, "1 is in place everywhere\n");
    for arguments in [&["--missing", "77"][..], &["--missing", "77", "--cached"]] {
        let refused = world.ctl(&[&["status", TENANTS], arguments].concat()).expect(1);
        assert!(refused.contains("NX0027") && refused.contains("No migration 77 is known"), "{refused}");
    }
}

#[test]
fn what_the_daemon_saw_needs_no_database() {
    let own = nexus::postgres::embedded::Embedded::start(&[]).expect("PostgreSQL starts");
    let world = World::on(Database::on(&own, "gone")).more("\n[watch]\npoll = \"100ms\"\n").start();
    world.tables(1, 1);
    world.ctl(&["apply"]).expect(0);
    await_that("a look", || {
        let seen = world.ctl(&["status", "--cached", "-o", "json"]).json();
        seen["databases"][0]["applied"] == 1
    });
    own.stop().expect("PostgreSQL stops");
    await_that("a look at what is gone", || world.ctl(&["status", "--cached"]).code == Some(1));
    let told = world.ctl(&["status", "--cached"]).expect(1);
    assert!(told.contains("NX0041") && told.contains("as the daemon saw it"), "{told}");
}

#[test]
fn watching_tells_each_change_and_ends_with_ctrl_c() {
    let world = World::new().start();
    world.tables(1, 1);
    let mut command = world.daemon.ctl_command(&["status", "--watch"]);
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("nexusctl starts");
    let mut lines = BufReader::new(child.stdout.take().expect("stdout is piped")).lines();
    let mut next = || lines.next().expect("there is a line").expect("it is read");
    let first = next();
    assert!(first.ends_with("main: 0 applied, 1 pending"), "{first}");
    world.ctl(&["apply"]).expect(0);
    let second = next();
    assert!(second.ends_with("main: 1 applied; at 0001_t1"), "{second}");
    let pid = Pid::from_raw(i32::try_from(child.id()).expect("a pid fits"));
    kill(pid, Signal::SIGINT).expect("nexusctl is signalled");
    assert_eq!(child.wait().expect("nexusctl ends").code(), Some(0));
    let refused = world.ctl(&["status", "--watch", "--check"]);
    refused.expect(2);
}
