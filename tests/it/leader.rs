//! Several daemons with one control database: one leads, the others show what it keeps, and one of them
//! goes on where it ends.

use nexus::postgres::embedded::Embedded;
use nix::sys::signal::Signal;
use serde_json::{Value, json};

use crate::{
    alerts::Receiver,
    support::{Daemon, Database, Running, World, await_that},
};

/// A world whose daemons have a control database, with more of a configuration.
fn served(world: World, control: &Database, more: &str) -> World {
    let url = &control.url;
    world
        .alerts("hold = \"0s\"\nflap_window = \"0s\"")
        .more(&format!("[watch]\npoll = \"200ms\"\n[control]\nurl = {url:?}\nlease = \"2s\"\n{more}"))
}

fn webhook(receiver: &Receiver) -> String {
    format!("[[alerts.webhook]]\nurl = \"{}/s3cret\"\n", receiver.0.uri())
}

fn leads(daemon: &Daemon) -> bool {
    daemon.try_page("/metrics").is_some_and(|(_, page)| page.contains("\nnexus_leader 1\n"))
}

/// Starts a world whose daemon leads, and then another daemon, which follows.
fn two(world: World) -> (Running, Daemon) {
    let leader = world.start();
    await_that("the first leads", || leads(&leader.daemon));
    let follower = leader.second_daemon();
    assert!(!leads(&follower));
    (leader, follower)
}

/// The alerts as `kind state`, the gravest first.
fn alerts(daemon: &Daemon) -> Vec<String> {
    let listed = daemon.ctl(&["alerts", "--output", "json"]);
    let listed = if listed.code == Some(0) { listed.json() } else { json!({"alerts": []}) };
    let word = |alert: &Value, key: &str| alert[key].as_str().unwrap_or_default().to_owned();
    let alerts = listed["alerts"].as_array().cloned().unwrap_or_default();
    alerts.iter().map(|alert| format!("{} {}", word(alert, "kind"), word(alert, "state"))).collect()
}

/// The ids of the audits, the newest first.
fn audits(daemon: &Daemon) -> Vec<String> {
    let listed = daemon.ctl(&["audit", "list", "--output", "json"]).json();
    let audits = listed["audits"].as_array().cloned().unwrap_or_default();
    audits.iter().filter_map(|audit| Some(audit["id"].as_str()?.to_owned())).collect()
}

/// Writes another text than was applied.
fn spoil(world: &World, number: u32) {
    let text = format!("create table t{number} (id bigint primary key);\n");
    world.write(&format!("{number:04}_t{number}.up.sql"), text);
}

/// Where a daemon's gauges of databases are.
fn has_gauges(daemon: &Daemon) -> bool {
    daemon.page("/metrics").1.contains("nexus_database_up{")
}

#[test]
fn a_leader_that_is_killed_is_succeeded() {
    let (control, receiver) = (Database::new(), Receiver::start());
    let (mut world, follower) = two(served(World::new(), &control, &webhook(&receiver)));
    world.tables(1, 2);
    world.ctl(&["apply"]).expect(0);
    spoil(&world, 1);
    await_that("the webhook is told", || receiver.told() == ["checksum_drift firing"]);
    await_that("the follower shows it", || alerts(&follower) == ["checksum_drift firing"]);
    let id = world.ctl(&["alerts", "-o", "json"]).json()["alerts"][0]["id"].clone();
    let audit = world.ctl(&["audit", "run", "-o", "json"]).json()["id"].clone();
    let of_follower = follower.ctl(&["audit", "run", "-o", "json"]).json()["id"].clone();
    assert_eq!(json!(audits(&world.daemon)), json!([of_follower, audit]));

    // What the follower cannot do, the leader does for it.
    let id = id.as_str().expect("an id");
    let noted = follower.ctl(&["alerts", "ack", id, "--reason", "it is meant"]).expect(0);
    assert!(noted.contains(" acknowledged critical main checksum_drift: "), "{noted}");
    assert_eq!(alerts(&world.daemon), ["checksum_drift acknowledged"]);
    assert_eq!(alerts(&follower), ["checksum_drift acknowledged"]);
    assert!(follower.ctl(&["alerts", "ack", "ff", "--reason", "x"]).expect(1).contains("NX0065"));
    assert!(has_gauges(&world.daemon) && !has_gauges(&follower));

    world.daemon.kill();
    await_that("the follower leads", || leads(&follower));
    await_that("it looks at the databases", || has_gauges(&follower));
    let listed = follower.ctl(&["alerts", "-o", "json"]).json();
    assert_eq!(listed["alerts"][0]["id"], id);
    assert_eq!(listed["alerts"][0]["acknowledged"]["reason"], "it is meant");
    assert_eq!(json!(audits(&follower)), json!([of_follower, audit]));
    // It goes on: what begins is told, and the end of what its predecessor told; nothing twice.
    spoil(&world, 2);
    await_that("another one is told", || receiver.told().len() == 2);
    world.tables(1, 1);
    await_that("the end is told", || receiver.told().len() == 3);
    let told = ["checksum_drift firing", "checksum_drift firing", "checksum_drift resolved"];
    assert_eq!(receiver.told(), told);
}

#[test]
fn a_leader_that_stops_hands_over_at_once() {
    let (control, receiver) = (Database::new(), Receiver::start());
    let (mut world, follower) = two(served(World::new(), &control, &webhook(&receiver)));
    world.tables(1, 1);
    world.ctl(&["apply"]).expect(0);
    spoil(&world, 1);
    await_that("the webhook is told", || receiver.told() == ["checksum_drift firing"]);
    world.daemon.signal(Signal::SIGTERM);
    await_that("the follower leads", || leads(&follower));
    assert_eq!(world.daemon.wait(), Some(0));
    world.tables(1, 1);
    await_that("the end is told", || receiver.told() == ["checksum_drift firing", "checksum_drift resolved"]);
}

#[test]
fn a_frozen_leader_does_no_harm() {
    let (control, receiver) = (Database::new(), Receiver::start());
    let (world, follower) = two(served(World::new(), &control, &webhook(&receiver)));
    world.tables(1, 3);
    world.ctl(&["apply"]).expect(0);
    spoil(&world, 1);
    await_that("the webhook is told", || receiver.told() == ["checksum_drift firing"]);
    world.daemon.signal(Signal::SIGSTOP);
    await_that("the follower leads", || leads(&follower));
    spoil(&world, 2);
    await_that("another one is told", || receiver.told().len() == 2);
    await_that("both are there", || alerts(&follower).len() == 2);
    world.daemon.signal(Signal::SIGCONT);
    await_that("the first follows", || !leads(&world.daemon) && !has_gauges(&world.daemon));
    assert!(leads(&follower));
    spoil(&world, 3);
    await_that("the third one is told", || receiver.told().len() == 3);
    await_that("the first shows it", || alerts(&world.daemon).len() == 3);
    assert_eq!(receiver.told(), ["checksum_drift firing"; 3]);
    let kept = "select count(*), count(distinct body->>'subject') from nexus.document where kind = 'alert'";
    assert_eq!(control.sql(kept), ["3|3"]);
}

#[test]
fn what_is_discovered_is_known_to_all() {
    let (control, shop) = (Database::new(), Database::new());
    shop.sql("create schema tenant_1; create schema tenant_2");
    let entry = format!(
        "[[discover]]\nid = \"tenants\"\nurl = {:?}\nmigrations = \"migrations\"\nschemas = [\"tenant_*\"]\n\
         name = \"shop-{{schema}}\"\nevery = \"1h\"\n",
        shop.url
    );
    let names = |daemon: &Daemon| {
        let listed = daemon.ctl(&["databases", "--output", "json"]).json();
        let databases = listed["databases"].as_array().cloned().unwrap_or_default();
        databases.iter().filter_map(|it| Some(it["name"].as_str()?.to_owned())).collect::<Vec<_>>()
    };
    let (mut world, follower) = two(served(World::new(), &control, &entry));
    let both = ["main", "shop-tenant_1", "shop-tenant_2"];
    assert_eq!(
        (names(&world.daemon), names(&follower)),
        (both.map(str::to_owned).into(), both.map(str::to_owned).into())
    );
    // Asked for at the follower, the leader looks.
    shop.sql("create schema tenant_3");
    let told = follower.ctl(&["reload"]).expect(0);
    assert!(told.contains("shop-tenant_3"), "{told}");
    assert!(names(&world.daemon).contains(&"shop-tenant_3".to_owned()));
    // A discovery that fails is told by both.
    shop.sql(
        "alter schema tenant_1 rename to gone_1; alter schema tenant_2 rename to gone_2; \
              alter schema tenant_3 rename to gone_3",
    );
    for daemon in [&follower, &world.daemon] {
        let told = daemon.ctl(&["reload"]).expect(1);
        assert!(told.contains("nothing was found, where there were 3"), "{told}");
    }
    // What was found outlives whoever found it, also where nothing can be found any more.
    world.daemon.kill();
    await_that("the follower leads", || leads(&follower));
    assert_eq!(names(&follower).len(), 4);
    world.daemon.restart();
    assert_eq!(names(&world.daemon).len(), 4);
}

#[test]
fn a_follower_shows_what_the_leader_saw() {
    let control = Database::new();
    let (world, follower) = two(served(World::new(), &control, ""));
    world.tables(1, 3);
    world.ctl(&["apply", "--to", "2"]).expect(0);
    let shown = |daemon: &Daemon| {
        let listed = daemon.ctl(&["databases", "-o", "json"]).json();
        let seen = &listed["databases"][0]["observation"];
        (seen["version"].clone(), seen["pending"].clone())
    };
    await_that("the follower shows it", || shown(&follower) == (json!("0002_t2"), json!(1)));
    let cached = |daemon: &Daemon| {
        let mut status = daemon.ctl(&["status", "--cached", "-o", "json"]).json();
        let database = status["databases"][0].as_object_mut().expect("a database");
        (database.remove("observed_at"), status)
    };
    assert_eq!(cached(&world.daemon).1, cached(&follower).1);
    assert!(follower.ctl(&["status", "--cached", "--missing", "3"]).expect(0).contains("main"));
    // It grows no older than the leader's looks are.
    let first = cached(&follower).0.expect("a time");
    await_that("a later look", || cached(&follower).0.is_some_and(|at| at.as_str() > first.as_str()));
}

#[test]
fn a_schedule_that_nobody_kept_is_made_up_for_once() {
    let control = Database::new();
    let yearly = "[[audit]]\nname = \"yearly\"\nschedule = \"0 0 1 1 *\"\n";
    let (mut world, follower) = two(served(World::new(), &control, yearly));
    control.await_row("select from nexus.document where kind = 'audit_schedule'");
    drop(follower);
    world.daemon.kill();
    control.sql(
        "update nexus.document set body = body || '{\"last\": \"2020-12-31T12:00:00Z\"}' \
         where kind = 'audit_schedule'",
    );
    world.daemon.restart();
    await_that("it is made", || audits(&world.daemon).len() == 1);
    control.await_row("select from nexus.document where kind = 'audit_schedule' and body->>'last' > '2021'");
    let follower = world.second_daemon();
    world.daemon.kill();
    await_that("the follower leads", || leads(&follower));
    await_that("it looks at the databases", || has_gauges(&follower));
    assert_eq!(audits(&follower).len(), 1);
}

#[test]
fn without_the_control_database_nobody_leads_until_it_is_back() {
    let mut own = Embedded::start(&[]).expect("PostgreSQL starts");
    let control = Database::on(&own, "control");
    let receiver = Receiver::start();
    let (world, follower) = two(served(World::new(), &control, &webhook(&receiver)));
    world.tables(1, 2);
    world.ctl(&["apply"]).expect(0);
    spoil(&world, 1);
    await_that("the webhook is told", || receiver.told() == ["checksum_drift firing"]);
    own.kill().expect("it is killed");
    await_that("nobody leads", || !leads(&world.daemon) && !leads(&follower));
    // What was known is shown, and reading works.
    assert_eq!(alerts(&world.daemon), ["checksum_drift firing"]);
    follower.ctl(&["status"]).expect(0);
    spoil(&world, 2);
    own.restart().expect("it starts again");
    await_that("one leads", || leads(&world.daemon) != leads(&follower));
    await_that("it goes on", || receiver.told().len() == 2);
    assert_eq!(receiver.told(), ["checksum_drift firing"; 2]);
}
