//! Operations that are paused, resumed, cancelled and watched while they run.

use serde_json::json;

use crate::{
    operations::{newest, shown, states, tenants},
    support::{Running, World, await_that},
};

/// The sessions that sleep in a migration; one that keeps its text in the journal does not.
const SLEEPING: &str = "select count(*) from pg_stat_activity where wait_event = 'PgSleep' \
    and pid <> pg_backend_pid() and datname = current_database()";

fn count(world: &Running, id: &str, state: &str) -> u64 {
    shown(world, id)["counts"][state].as_u64().unwrap_or(0)
}

#[test]
fn paused_resumed_and_cancelled_in_mid_wave_before_two_watchers() {
    let world = tenants(30).start();
    world.migration("0001_slow", "select pg_sleep(0.4);", "select 1;");
    let begun = world.ctl(&["apply", "-d", "t-*", "--parallel", "2", "--detach", "-o", "json"]).json();
    let id = begun["operation_id"].as_str().expect("an id").to_owned();
    assert_eq!(begun["databases"].as_array().map(Vec::len), Some(30));
    let watching = world.daemon.ctl_begin(&["operation", "watch", &id]);
    let killed = world.daemon.ctl_begin(&["operation", "watch", &id[..13]]);
    await_that("some are done", || count(&world, &id, "succeeded") >= 2);

    let paused = world.ctl(&["operation", "pause", &id]).expect(0);
    assert!(paused.contains(" paused: paused by "), "{paused}");
    await_that("those under way are finished", || count(&world, &id, "running") == 0);
    let done = count(&world, &id, "succeeded");
    assert_eq!(done + count(&world, &id, "waiting"), 30, "whole databases are done, and no other is begun");
    assert_eq!(world.database.sql(SLEEPING), ["0"]);
    killed.kill();
    assert_eq!(count(&world, &id, "succeeded"), done);
    assert_eq!(shown(&world, &id)["state"], "paused");

    world.ctl(&["operation", "resume", &id, "--detach"]).expect(0);
    await_that("it goes on", || count(&world, &id, "succeeded") > done);
    await_that("two are under way", || count(&world, &id, "running") == 2);
    let cancelled = world.ctl(&["operation", "cancel", &id]).expect(0);
    assert!(cancelled.contains("cancelled by "), "{cancelled}");
    let told = watching.end().expect(1);
    for part in
        ["paused: paused by ", "resumed\n", "stopping what is under way", "The operation was cancelled"]
    {
        assert!(told.contains(part), "{part:?} is not in\n{told}");
    }
    assert_eq!(world.database.sql(SLEEPING), ["0"], "it is cancelled on the server");
    let operation = shown(&world, &id);
    assert_eq!(operation["state"], "cancelled");
    let done = count(&world, &id, "succeeded");
    assert_eq!(operation["counts"], json!({ "succeeded": done, "cancelled": 30 - done }));
    let succeeded = "select count(*) from information_schema.tables where table_name = 'nexus_journal'";
    assert!(world.database.sql(succeeded)[0].parse::<u64>().is_ok_and(|begun| begun < 30));

    world.ctl(&["operation", "pause", &id]).expect(1);
    world.ctl(&["operation", "retry", &id]).expect(0);
    assert!(states(&shown(&world, &id)).iter().all(|(_, state)| state == "succeeded"));
    let again = world.ctl(&["operation", "watch", &id, "-o", "json"]).json();
    let told = again["databases"].as_array().expect("a list");
    let is_whole = |it: &serde_json::Value| it["done"].as_array().is_some_and(|done| !done.is_empty());
    assert!(told.len() == 30 && told.iter().all(is_whole), "each is told once, with what was done: {again}");
}

#[test]
fn a_pause_between_waves_is_for_a_time_or_until_somebody_resumes() {
    let world = tenants(4).start();
    world.tables(1, 1);
    world.ctl(&["apply", "-d", "t-*", "--wave", "50%", "--pause", "300ms"]).expect(0);
    let paused = world.logged("Operation paused");
    assert_eq!(paused[0]["why"], "pauses for 300ms after wave 1, before wave 2");
    assert_eq!(world.logged("Operation resumed").len(), 1);

    world.tables(2, 1);
    world.ctl(&["apply", "-d", "t-*", "--wave", "50%", "--pause", "manual", "--detach"]).expect(0);
    let id = newest(&world);
    await_that("it waits", || shown(&world, &id)["state"] == "paused");
    assert_eq!(shown(&world, &id)["why"], "waits to be resumed after wave 1, before wave 2");
    assert_eq!(shown(&world, &id)["counts"], json!({ "succeeded": 2, "waiting": 2 }));
    world.ctl(&["operation", "resume", &id]).expect(0);
    assert_eq!(shown(&world, &id)["counts"], json!({ "succeeded": 4 }));

    // Paused by hand during a pause for a time, it does not go on by itself.
    world.tables(3, 1);
    world.ctl(&["apply", "-d", "t-*", "--wave", "50%", "--pause", "700ms", "--detach"]).expect(0);
    let id = newest(&world);
    await_that("it pauses", || shown(&world, &id)["state"] == "paused");
    world.ctl(&["operation", "pause", &id]).expect(0);
    // A pause as long that began later is over: so is the first one.
    world.ctl(&["recover", "-d", "t-*", "--wave", "50%", "--pause", "700ms", "--yes"]).expect(0);
    assert_eq!(shown(&world, &id)["state"], "paused");
    world.ctl(&["operation", "cancel", &id]).expect(0);
    await_that("it is cancelled", || shown(&world, &id)["state"] == "cancelled");
    assert_eq!(shown(&world, &id)["counts"], json!({ "cancelled": 2, "succeeded": 2 }));
}

#[test]
fn files_that_changed_while_it_was_paused_are_refused() {
    let world = tenants(2).start();
    world.tables(1, 1);
    world.ctl(&["apply", "-d", "t-*", "--wave", "1", "--pause", "manual", "--detach"]).expect(0);
    let id = newest(&world);
    await_that("it waits", || shown(&world, &id)["state"] == "paused");
    world.tables(2, 1);
    let refused = world.ctl(&["operation", "resume", &id]).expect(1);
    assert!(refused.contains("NX0077") && refused.contains("0002_t2 was added"), "{refused}");
    assert_eq!(shown(&world, &id)["state"], "paused");
    world.ctl(&["operation", "resume", &id, "--accept-new-catalog"]).expect(0);
    let operation = shown(&world, &id);
    assert_eq!(operation["databases"][0]["applied"], json!(["0001_t1"]));
    assert_eq!(operation["databases"][1]["applied"], json!(["0001_t1", "0002_t2"]));
    assert_ne!(operation["databases"][0]["catalog_digest"], operation["databases"][1]["catalog_digest"]);
}

#[test]
fn who_holds_a_database_is_told() {
    let world = World::new().set("lock_wait = \"1min\"").start();
    world.migration("0001_slow", "select pg_sleep(60);", "select 1;");
    world.ctl(&["apply", "--detach"]).expect(0);
    let first = newest(&world);
    await_that("it sleeps", || world.database.sql(SLEEPING) == ["1"]);
    world.ctl(&["recover", "--detach", "--yes"]).expect(0);
    let second = newest(&world);
    assert_ne!(first, second);
    let holder = json!(format!("operation {first}"));
    await_that("it waits", || shown(&world, &second)["databases"][0]["waits_for"] == holder);
    assert_eq!(shown(&world, &second)["databases"][0]["state"], "waiting");
    let text = world.ctl(&["operation", "show", &second]).expect(0);
    assert!(text.contains(&format!("waits for operation {first}")), "{text}");
    world.ctl(&["operation", "cancel", &first]).expect(0);
    world.ctl(&["operation", "watch", &second]).expect(0);
    assert_eq!(shown(&world, &second)["databases"][0]["waits_for"], json!(null));
}

#[test]
fn what_waits_for_a_lock_waits_as_long_as_it_is_paused() {
    let world = World::new().set("lock_wait = \"3s\"").start();
    world.migration("0001_slow", "select pg_sleep(60);", "select 1;");
    world.ctl(&["apply", "--detach"]).expect(0);
    let first = newest(&world);
    await_that("it sleeps", || world.database.sql(SLEEPING) == ["1"]);
    world.ctl(&["recover", "--detach", "--yes"]).expect(0);
    let second = newest(&world);
    await_that("it waits", || shown(&world, &second)["databases"][0]["waits_for"] != json!(null));
    world.ctl(&["operation", "pause", &second]).expect(0);
    await_that("it does not wait for it any more", || {
        shown(&world, &second)["databases"][0]["waits_for"] == json!(null)
    });
    let operation = shown(&world, &second);
    assert_eq!((&operation["state"], &operation["counts"]), (&json!("paused"), &json!({ "waiting": 1 })));
    world.ctl(&["operation", "cancel", &first]).expect(0);
    await_that("the first one is over", || shown(&world, &first)["state"] == "cancelled");
    world.ctl(&["operation", "resume", &second]).expect(0);
}

#[test]
fn cancelled_while_it_rolls_back_it_says_what_is_left() {
    let world = tenants(2).start();
    world.migration("0001_slow", "create table t1 (id int);", "select pg_sleep(60);");
    world.database.sql("create table s001.t1 (in_the_way int)");
    let arguments = ["apply", "-d", "t-*", "--wave", "1", "--parallel", "1", "--on-failure", "rollback"];
    world.ctl(&[&arguments[..], &["--detach"]].concat()).expect(0);
    let id = newest(&world);
    await_that("it rolls the first one back", || world.database.sql(SLEEPING) == ["1"]);
    world.ctl(&["operation", "cancel", &id]).expect(0);
    await_that("it is cancelled", || shown(&world, &id)["state"] == "cancelled");
    let why = shown(&world, &id)["why"].as_str().unwrap_or_default().to_owned();
    assert!(why.starts_with("cancelled by ") && why.contains("t-001: "), "{why}");
    assert!(why.ends_with("of 1 databases what the operation did was not rolled back"), "{why}");
}

#[test]
fn an_overlap_is_refused_where_that_is_the_policy() {
    let world = tenants(2).more("[limits]\noverlap = \"refuse\"\n").start();
    world.migration("0001_slow", "select pg_sleep(60);", "select 1;");
    world.ctl(&["apply", "-d", "t-000", "--detach"]).expect(0);
    let id = newest(&world);
    await_that("it sleeps", || world.database.sql(SLEEPING) == ["1"]);
    let refused = world.ctl(&["apply", "-d", "t-*"]).expect(1);
    assert!(
        refused.contains("NX0079") && refused.contains(&format!("t-000: operation {id} apply of t-000 by ")),
        "{refused}"
    );
    world.ctl(&["operation", "cancel", &id]).expect(0);
    await_that("it is cancelled", || shown(&world, &id)["state"] == "cancelled");
    // Nor is one begun again while another one is about its database.
    world.ctl(&["apply", "-d", "t-000", "--detach"]).expect(0);
    let second = newest(&world);
    await_that("the second one sleeps", || world.database.sql(SLEEPING) == ["1"]);
    assert!(world.ctl(&["operation", "retry", &id]).expect(1).contains("NX0079"));
    assert_eq!(shown(&world, &id)["state"], "cancelled");
    world.ctl(&["operation", "cancel", &second]).expect(0);
    await_that("that is cancelled too", || shown(&world, &second)["state"] == "cancelled");
    world.ctl(&["recover", "-d", "t-*", "--yes"]).expect(0);
}

#[test]
fn a_canary_that_is_cancelled_is_no_failure_and_a_single_database_is_simple() {
    let world = World::new().start();
    world.migration("0001_slow", "select pg_sleep(60);", "select 1;");
    let client = world.daemon.ctl_begin(&["apply"]);
    await_that("it sleeps", || world.database.sql(SLEEPING) == ["1"]);
    let id = newest(&world);
    world.ctl(&["operation", "cancel", &id]).expect(0);
    let told = client.end().expect(1);
    assert!(told.contains("NX0054"), "{told}");
    assert_eq!(shown(&world, &id)["state"], "cancelled");
    world.write("0001_slow.up.sql", "select 1;");
    assert!(world.ctl(&["operation", "retry", &id]).expect(1).contains("0001_slow was edited"));
    world.ctl(&["operation", "retry", &id, "--accept-new-catalog"]).expect(0);
    assert_eq!(world.database.rows(), ["0001_slow|f"]);
}

#[test]
fn ids_that_mean_none_or_several() {
    let world = World::new().start();
    assert!(world.ctl(&["operation", "show", "ff"]).expect(1).contains("NX0075"));
    world.tables(1, 1);
    world.ctl(&["apply"]).expect(0);
    world.ctl(&["apply"]).expect(0);
    let told = world.ctl(&["operation", "show", "0"]).expect(1);
    assert!(told.contains("Several operations begin with") && told.contains(" apply of main by "), "{told}");
    let id = newest(&world);
    for command in ["pause", "resume", "cancel", "retry"] {
        let told = world.ctl(&["operation", command, &id[..7]]).expect(1);
        assert!(told.contains("is too short: an operation is steered by 8 characters"), "{told}");
        let told = world.ctl(&["operation", command, &id]).expect(1);
        assert!(told.contains("NX0076") && told.contains("The operation is succeeded"), "{told}");
    }
    world.ctl(&["operation", "watch", &id]).expect(0);
    let halted = world.ctl(&["operation", "list", "--state", "halted"]).expect(0);
    assert_eq!(halted, "no operations\n");
    let listed = world.ctl(&["operation", "list", "-d", "main"]).expect(0);
    assert_eq!(listed.matches("  apply  succeeded  ").count(), 2, "{listed}");
}
