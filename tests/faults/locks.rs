//! Who is in the way: another session with the lock, another daemon, a frozen one; and another tool that
//! writes the rows meanwhile.

use std::time::Instant;

use nexus::postgres::names::Names;
use nix::sys::signal::Signal;

use crate::{
    killed::APPLY,
    scene::{MIGRATIONS, Mode, Scene},
    support::{World, await_that},
    trial::{Case, Trial},
};

const IMPATIENT: &str = "lock_wait = \"400ms\"";
const TX: Mode = Mode::Transactional;

pub(crate) fn cases() -> Vec<Case> {
    let held = "lock held by another session";
    let frozen = "lock held by a frozen daemon";
    let foreign = "another tool writes schema_migrations";
    vec![
        Case::new(held, "for longer than lock_wait", held_for_long),
        Case::new(held, "for less than lock_wait", held_for_a_while),
        Case::new("lock held by another daemon", "in mid-step", another_daemon),
        Case::new(frozen, "it is killed", |trial| frozen_with_the_lock(trial, Signal::SIGKILL)),
        Case::new(frozen, "it wakes up", |trial| frozen_with_the_lock(trial, Signal::SIGCONT)),
        Case::new(frozen, "in a transaction, and wakes up behind the others", frozen_in_a_transaction),
        Case::new(foreign, "deletes the row under way", |trial| {
            foreign_writes(trial, "delete from schema_migrations where version = '0002_two'", "");
        }),
        Case::new(foreign, "clears the mark under way", |trial| {
            foreign_writes(
                trial,
                "update schema_migrations set dirty = false where version = '0002_two'",
                // It has lied: what it wrote is put right before it is judged.
                "update schema_migrations set dirty = true where version = '0002_two'",
            );
        }),
        Case::new(foreign, "edits a checksum", |trial| {
            foreign_writes(
                trial,
                "alter table schema_migrations add column old text; \
                 update schema_migrations set old = checksum, checksum = 'ab' where version = '0001_one'",
                "update schema_migrations set checksum = old where version = '0001_one'; \
                 alter table schema_migrations drop column old",
            );
        }),
        Case::new(foreign, "marks the next one as under way", |trial| {
            foreign_writes(
                trial,
                "insert into schema_migrations (version, checksum, dirty) values ('0003_three', 'ab', true)",
                "delete from schema_migrations where version = '0003_three' and checksum = 'ab'",
            );
        }),
    ]
}

/// Takes the lock as another tool would, by its documented key.
fn lock(world: &World) -> String {
    let dbname = &world.database.sql("select current_database()")[0];
    let key = Names::new("public", "schema_migrations").lock_key(dbname);
    format!("select pg_advisory_lock({key})")
}

fn held_for_long(trial: &mut Trial) {
    let scene = Scene::start(TX, Scene::set(TX).set(IMPATIENT), "");
    let held = scene.world().database.hold(&lock(scene.world()));
    let told = scene.ctl(APPLY).expect(1);
    if !told.contains("NX0040") {
        trial.violates(format!("who holds the lock is not told: {told}"));
    }
    scene.judge(trial, true);
    drop(held);
    scene.converge(trial, Instant::now(), &[APPLY], 3, true);
}

fn held_for_a_while(trial: &mut Trial) {
    let scene = Scene::start(TX, Scene::set(TX), "");
    let held = scene.world().database.hold(&lock(scene.world()));
    let client = scene.running.daemon.ctl_begin(APPLY);
    await_that("it waits", || !scene.running.logged("Waiting for the migration lock").is_empty());
    drop(held);
    let over = Instant::now();
    client.end().expect(0);
    scene.converge(trial, over, &[APPLY], 3, true);
}

fn another_daemon(trial: &mut Trial) {
    let scene = Scene::start(TX, Scene::slow(TX, Scene::set(TX).set(IMPATIENT)), "");
    let other = scene.world().second_daemon();
    let client = other.ctl_begin(APPLY);
    scene.await_work();
    scene.ctl(APPLY).expect(1);
    scene.judge(trial, false);
    client.end().expect(0);
    scene.converge(trial, Instant::now(), &[APPLY], 3, false);
}

/// Whoever is frozen between two messages keeps the lock; nobody may go past it.
fn frozen_with_the_lock(trial: &mut Trial, then: Signal) {
    let world = Scene::set(TX).set(IMPATIENT);
    let mut scene = Scene::start(TX, world, "apply.marked=1*off->1*return(freeze)");
    let other = scene.world().second_daemon();
    let client = scene.running.daemon.ctl_begin(APPLY);
    scene.await_dirty();
    let told = other.ctl(APPLY).expect(1);
    if !told.contains("NX0040") {
        trial.violates(format!("the lock of a frozen daemon is passed: {told}"));
    }
    scene.running.daemon.signal(then);
    let over = Instant::now();
    client.end();
    if then == Signal::SIGKILL {
        scene.is_dead(trial);
        scene.judge(trial, false);
        other.ctl(APPLY).expect(0);
        scene.running.daemon.restart();
    }
    scene.converge(trial, over, &[APPLY], 3, false);
}

/// The server ends a transaction that stands idle for too long. Whoever wakes up then does no harm.
fn frozen_in_a_transaction(trial: &mut Trial) {
    let mode = Mode::Large;
    let world = Scene::set(mode).set("idle_in_transaction_timeout = \"1s\"");
    let scene = Scene::start(mode, world, "apply.partly sent=1*return(freeze)");
    let other = scene.world().second_daemon();
    let client = scene.running.daemon.ctl_begin(APPLY);
    scene.await_dirty();
    other.ctl(APPLY).expect(0);
    scene.judge(trial, false);
    scene.running.daemon.signal(Signal::SIGCONT);
    let over = Instant::now();
    client.end().expect(1);
    scene.converge(trial, over, &[APPLY], 3, false);
}

/// Another tool writes while the second migration is under way.
fn foreign_writes(trial: &mut Trial, sql: &str, put_right: &str) {
    let scene = Scene::start(TX, Scene::slow(TX, Scene::set(TX)), "");
    let client = scene.running.daemon.ctl_begin(APPLY);
    scene.await_work();
    scene.world().database.sql(sql);
    let ended = client.end();
    if !put_right.is_empty() {
        scene.world().database.sql(put_right);
    }
    let version = MIGRATIONS[1].version;
    if ended.code == Some(0) && !scene.world().database.rows().contains(&format!("{version}|f")) {
        trial.violates(format!("it is told as done: {ended:?}"));
    }
    scene.judge(trial, true);
    scene.converge(trial, Instant::now(), &[APPLY], 3, true);
}
