//! Protected databases: what is done is what was approved, whatever became of the files, the configuration and
//! the daemon since.

use std::fs;

use serde_json::Value;

use crate::{
    people::People,
    support::{Database, Running, await_that},
};

#[test]
fn what_goes_on_is_what_was_approved() {
    let (people, world) = People::new("");
    let world = world.start();
    let daemon = &world.daemon;
    let asked = ["apply", "--all", "--canary", "shop", "--pause", "manual"];
    let id = people.ask(daemon, "ana", &asked);
    people.run(daemon, "bo", &["operation", "approve", "-y", &id]).expect(0);
    await_that("it pauses", || people.state(daemon, &id) == "paused");
    assert_eq!((people.shop.rows().len(), world.database.rows().len()), (2, 0));
    // Other files than those that were approved.
    world.tables(3, 1);
    let resume = |more: &[&str]| {
        let arguments = [&["operation", "resume", id.as_str(), "--detach"], more].concat();
        people.run(daemon, "ana", &arguments).expect(1)
    };
    assert!(resume(&[]).contains("NX0077"));
    assert!(resume(&["--accept-new-catalog"]).contains("NX0107"));
    // Whoever cancels it and retries asks for an approval of what is left.
    people.run(daemon, "ana", &["operation", "cancel", &id]).expect(0);
    await_that("it is over", || people.state(daemon, &id) == "cancelled");
    let retry = ["operation", "retry", id.as_str(), "--accept-new-catalog", "--detach"];
    people.run(daemon, "ana", &retry).expect(0);
    let shown = people.show(daemon, &id);
    assert_eq!(
        (&shown["state"], &shown["approval"]["decision"]),
        (&"awaiting_approval".into(), &Value::Null)
    );
    let steps = |shown: &Value, index: usize| {
        shown["databases"][index]["planned"].as_array().map(Vec::len).unwrap_or_default()
    };
    assert_eq!(steps(&shown, 0), 3, "{shown}");
    assert!(people.run(daemon, "ana", &["operation", "approve", "-y", &id]).expect(1).contains("NX0104"));
    people.run(daemon, "bo", &["operation", "approve", "-y", &id]).expect(0);
    await_that("it is over", || people.state(daemon, &id) == "succeeded");
    assert_eq!(world.database.rows().len(), 3);
    // What moves between the approval and the database's turn is refused there.
    world.tables(4, 1);
    let id = people.ask(daemon, "ana", &asked);
    people.run(daemon, "bo", &["operation", "approve", "-y", &id]).expect(0);
    await_that("it pauses", || people.state(daemon, &id) == "paused");
    world.database.sql("update schema_migrations set applied_at = now() where version = '0001_t1'");
    let told = people.run(daemon, "ana", &["operation", "resume", &id]).expect(1);
    assert!(told.contains("NX0084"), "{told}");
    assert_eq!(world.database.rows().len(), 3);
}

#[test]
fn what_was_approved_for_one_place_is_not_begun_at_another() {
    let (kept, other) = (Database::new(), Database::new());
    let (people, world) = People::new("");
    let mut world = world.more(&format!("[control]\nurl = {:?}\nlease = \"2s\"\n", kept.url)).start();
    let id = people.ask(&world.daemon, "ana", &["apply", "--all", "--canary", "shop", "--pause", "manual"]);
    people.run(&world.daemon, "bo", &["operation", "approve", "-y", &id]).expect(0);
    await_that("it pauses", || people.state(&world.daemon, &id) == "paused");
    // Whoever takes it over reads another configuration, in which the name means another database.
    world.daemon.kill();
    let moved = world.configuration().replacen(&world.database.url, &other.url, 1);
    fs::write(world.path("nexus.toml"), moved).expect("it is written");
    world.daemon.restart();
    await_that("it is taken over", || people.show(&world.daemon, &id)["attempt"] == 2);
    let told = people.run(&world.daemon, "ana", &["operation", "resume", &id]).expect(1);
    assert!(told.contains("NX0107"), "{told}");
    assert!(other.tables().is_empty() && world.database.tables().is_empty());
}

#[test]
fn who_takes_over_does_no_more_than_was_approved() {
    let kept = Database::new();
    let (people, world) = People::new("");
    let mut world = world.more(&format!("[control]\nurl = {:?}\nlease = \"2s\"\n", kept.url)).start();
    world.migration("0002_t2", "create table t2 ();", "select pg_sleep(600); drop table t2;");
    world.migration("0003_t3", "create table t3 ();", "drop table t3;");
    let id = people.ask(&world.daemon, "ana", &["apply", "-d", "main"]);
    people.approve(&world.daemon, "bo", &id);
    world.migration("0004_t4", "create table t4 ();", "drop table t4;");
    let id = people.ask(&world.daemon, "eve", &["rollback", "-d", "main", "--steps", "2", "-y"]);
    people.run(&world.daemon, "fay", &["operation", "approve", "-y", &id]).expect(0);
    await_that("the first step is done", || world.database.rows().len() == 2);
    world.daemon.kill();
    // Somebody else is faster than whoever takes over.
    let row = "insert into schema_migrations (version, checksum) values ('0004_t4', repeat('a', 64))";
    world.database.sql(row);
    world.daemon.restart();
    await_that("it is over", || people.state(&world.daemon, &id) == "failed");
    let failure = people.show(&world.daemon, &id)["databases"][0]["failure"].clone();
    assert_eq!(failure["code"], "NX0084", "{failure}");
    assert!(world.database.rows().contains(&"0004_t4|f".into()), "{:?}", world.database.rows());
}

#[test]
fn what_becomes_protected_meanwhile_is_not_begun() {
    let (people, world) = People::new("");
    world.migration("0003_slow", "select pg_sleep(3);", "select 1;");
    let protected = world.configuration();
    let daemon = world.daemon("nexus.toml", &protected.replace("protected = true", "protected = false"));
    let world = Running { daemon, world };
    let daemon = &world.daemon;
    let begun = ["apply", "--all", "--canary", "shop", "--detach", "-o", "json"];
    let begun = people.run(daemon, "ana", &begun).json();
    assert_eq!(begun["awaiting_approval"], false, "{begun}");
    let id = begun["operation_id"].as_str().expect("an id");
    fs::write(world.path("nexus.toml"), protected).expect("it is written");
    await_that("it is protected", || {
        let databases = people.run(daemon, "cy", &["databases", "-d", "main", "-o", "json"]).json();
        databases["databases"][0]["protected"] == true
    });
    assert_eq!(people.state(daemon, id), "running", "its turn has not come");
    await_that("it is over", || people.state(daemon, id) != "running");
    let shown = people.show(daemon, id);
    assert_eq!(shown["databases"][0]["failure"]["code"], "NX0107", "{shown}");
    assert_eq!((people.shop.rows().len(), world.database.tables().len()), (3, 0));
}

#[test]
fn an_undo_takes_back_what_an_earlier_approval_let_through() {
    let (people, world) = People::new("");
    let world = world.start();
    let daemon = &world.daemon;
    world.migration("0002_t2", "select pg_sleep(600);", "select 1;");
    let id = people.ask(daemon, "ana", &["apply", "-d", "main", "--on-failure", "rollback"]);
    people.run(daemon, "bo", &["operation", "approve", "-y", &id]).expect(0);
    await_that("the first step is done", || world.database.tables() == ["t1"]);
    people.run(daemon, "ana", &["operation", "cancel", &id]).expect(0);
    await_that("it is over", || people.state(daemon, &id) == "cancelled");
    // What is left is approved anew, and fails.
    world.migration("0002_t2", "select 1/0;", "select 1;");
    people.run(daemon, "ana", &["operation", "retry", &id, "--accept-new-catalog", "--detach"]).expect(0);
    people.run(daemon, "bo", &["operation", "approve", "-y", &id]).expect(0);
    await_that("it is over", || people.state(daemon, &id) == "failed");
    assert!(world.database.tables().is_empty(), "{}", people.show(daemon, &id));
}
