//! Several daemons with one control database: whoever works on an operation is killed or frozen at each
//! boundary, and another goes on.

use std::time::{Duration, Instant};

use nexus::postgres::embedded::Embedded;
use nix::sys::signal::Signal;

use crate::{
    fleet::{MIGRATIONS, counted, ran_once, rows_of, show, slow_to_undo, tables_of},
    people::People,
    support::{Daemon, Database, Running, World, await_that},
    trial::{Case, Trial},
};

/// How many schemas the fleet has.
const SCHEMAS: usize = 6;

pub(crate) fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    let points: [(&str, &[(&str, usize)]); 3] = [
        (
            "killed: wave change",
            &[
                ("wave.begun", 0),
                ("database.begun", 0),
                ("database.ended", 1),
                ("wave.done", 0),
                ("wave.gate passed", 0),
                ("wave.settled", 0),
                ("wave.begun", 1),
                ("database.begun", 4),
                ("wave.done", 1),
                ("wave.settled", 1),
            ],
        ),
        (
            "killed: lease and what is kept",
            &[
                ("operation.created", 0),
                ("operation.changed", 0),
                ("operation.kept", 0),
                ("operation.kept", 4),
                ("lease.due", 0),
                ("lease.renewed", 0),
                ("leader.beat", 3),
            ],
        ),
        ("killed: in a database of a fleet", &[("apply.marked", 5), ("apply.ended", 9), ("run.flushed", 2)]),
    ];
    for (fault, points) in points {
        for &(point, passed) in points {
            let name = format!("{point}, passed {passed} times");
            cases.push(Case::new(fault, name, move |trial| owner_killed(trial, point, passed)));
        }
    }
    for point in ["operation.claimed", "operation.taken over"] {
        cases.push(Case::new("killed: taking over", point, move |trial| taker_killed(trial, point)));
    }
    for (point, passed) in [("undo.decided", 0), ("roll back.marked", 3), ("undo.done", 0)] {
        let name = format!("{point}, passed {passed} times");
        cases
            .push(Case::new("killed: undo of a fleet", name, move |trial| undo_killed(trial, point, passed)));
    }
    for (point, passed) in [("roll back.marked", 3), ("database.ended", 1), ("operation.kept", 3)] {
        let name = format!("{point}, passed {passed} times");
        let fault = "killed: rollback of a fleet";
        cases.push(Case::new(fault, name, move |trial| rollback_killed(trial, point, passed)));
    }
    for point in ["repair.locked", "repair.tables made", "repair.changed", "repair.done"] {
        let fault = "killed: repair that was approved";
        cases.push(Case::new(fault, point, move |trial| repair_killed(trial, point)));
    }
    let fault = "killed: handing over";
    cases.push(Case::new(fault, "operation.to be handed over", killed_at_the_end));
    for point in ["lease.due", "lease.renewed", "wave.settled", "operation.changed"] {
        cases.push(Case::new("owner frozen past its lease", point, move |trial| owner_frozen(trial, point)));
    }
    let fault = "the same request meets its mirror";
    cases.push(Case::new(fault, "operation.read", request_meets_mirror));
    let gone = "control database: stopped at once, started again";
    cases.push(Case::new(gone, "an apply over a fleet", control_gone));
    cases
}

/// A request that every daemon knows by its id.
fn apply(id: &str) -> Vec<String> {
    words(&format!("apply -d t-* --parallel 3 --wave 50% --gate select_true --request-id {id}"))
}

fn words(line: &str) -> Vec<String> {
    line.split(' ').map(|word| word.replace("select_true", "select true")).collect()
}

fn ctl(daemon: &Daemon, arguments: &[String]) -> crate::support::Ended {
    daemon.ctl(&arguments.iter().map(String::as_str).collect::<Vec<_>>())
}

fn armed(world: World, point: &str, action: &str, passed: usize) -> Running {
    world.start_in(&[("FAILPOINTS", &format!("{point}={passed}*off->1*return({action})"))])
}

fn new_id() -> String {
    uuid::Uuid::now_v7().to_string()
}

fn dies(trial: &mut Trial, daemon: &mut Daemon) {
    let code = daemon.wait();
    if code != Some(128 + 9) {
        trial.violates(format!("the failpoint was not reached: the daemon ended with {code:?}"));
    }
}

/// Each migration has run once everywhere, the journals have nothing open, and the operation succeeded.
fn is_done(trial: &mut Trial, world: &World, daemon: &Daemon, id: &str) {
    ran_once(world, SCHEMAS);
    for schema in 0..SCHEMAS {
        let open = format!("select count(*) from s{schema:03}.nexus_journal where outcome = 'running'");
        if world.database.sql(&open) != ["0"] {
            trial.violates(format!("s{schema:03} has an open attempt"));
        }
    }
    let operation = show(daemon, id);
    if operation["state"] != "succeeded" {
        trial.violates(format!("the operation is {}", operation["state"]));
    }
    trial.saw(format!("begun {} times", operation["attempt"]));
}

fn owner_killed(trial: &mut Trial, point: &str, passed: usize) {
    let kept = Database::new();
    let mut world = armed(counted(SCHEMAS, &kept.url), point, "kill", passed);
    let second = world.second_daemon();
    let id = new_id();
    let mut request = apply(&id);
    if point == "leader.beat" {
        // There is time for it.
        request.push("--pause=3s".to_owned());
    }
    ctl(&world.daemon, &request).expect(4);
    dies(trial, &mut world.daemon);
    let over = Instant::now();
    // The same request, asked of the other one, is the same operation.
    ctl(&second, &request).expect(0);
    trial.converged(over.elapsed());
    is_done(trial, &world, &second, &id);
    world.daemon.restart();
    await_that("it comes back and knows", || show(&world.daemon, &id)["state"] == "succeeded");
}

fn taker_killed(trial: &mut Trial, point: &str) {
    let kept = Database::new();
    let mut world = armed(counted(SCHEMAS, &kept.url), "wave.settled", "kill", 0);
    let mut second = world.second_daemon_in(&[("FAILPOINTS", &format!("{point}=return(kill)"))]);
    let id = new_id();
    ctl(&world.daemon, &apply(&id)).expect(4);
    dies(trial, &mut world.daemon);
    dies(trial, &mut second);
    let over = Instant::now();
    world.daemon.restart();
    ctl(&world.daemon, &apply(&id)).expect(0);
    trial.converged(over.elapsed());
    is_done(trial, &world, &world.daemon, &id);
}

fn undo_killed(trial: &mut Trial, point: &str, passed: usize) {
    let kept = Database::new();
    let mut world = armed(slow_to_undo(SCHEMAS, &kept.url), point, "kill", passed);
    let second = world.second_daemon();
    world.database.sql("create table s005.m2 (id int)");
    let id = new_id();
    let request =
        words(&format!("apply -d t-* --wave 50% --on-failure rollback --parallel 2 --request-id {id}"));
    ctl(&world.daemon, &request).expect(4);
    dies(trial, &mut world.daemon);
    let over = Instant::now();
    ctl(&second, &request).expect(1);
    trial.converged(over.elapsed());
    let why = show(&second, &id)["why"].to_string();
    if !why.contains("what the operation had applied was rolled back") {
        trial.violates(format!("it ended so: {why}"));
    }
    for schema in 0..SCHEMAS {
        let (rows, tables) = (rows_of(&world, schema), tables_of(&world, schema));
        if (rows, tables) != (0, usize::from(schema == 5)) {
            trial.violates(format!("s{schema:03} has {rows} rows and {tables} tables"));
        }
    }
    trial.saw("all taken back".to_owned());
}

fn rollback_killed(trial: &mut Trial, point: &str, passed: usize) {
    let kept = Database::new();
    let mut world = armed(counted(SCHEMAS, &kept.url), point, "kill", passed);
    let second = world.second_daemon();
    second.ctl(&["apply", "-d", "t-*"]).expect(0);
    let id = new_id();
    let request = words(&format!("rollback -d t-* --steps 2 --parallel 3 --yes --request-id {id}"));
    ctl(&world.daemon, &request).expect(4);
    dies(trial, &mut world.daemon);
    let over = Instant::now();
    ctl(&second, &request).expect(0);
    trial.converged(over.elapsed());
    let left = MIGRATIONS as usize - 2;
    for schema in 0..SCHEMAS {
        let (rows, tables) = (rows_of(&world, schema), tables_of(&world, schema));
        if (rows, tables) != (left, left) {
            trial.violates(format!("s{schema:03} has {rows} rows and {tables} tables"));
        }
    }
    trial.saw(format!("begun {} times", show(&second, &id)["attempt"]));
}

/// What two people have agreed upon is done once, and told as done.
fn repair_killed(trial: &mut Trial, point: &str) {
    let kept = Database::new();
    let (people, world) = People::new("");
    let world = world.more(&format!("[control]\nurl = {:?}\nlease = \"2s\"\n", kept.url));
    let mut world = armed(world, point, "kill", 0);
    let second = world.second_daemon();
    let id = people.ask(&second, "ana", &["apply", "-d", "main"]);
    people.approve(&second, "bo", &id);
    let forget = "repair forget 0002 --reason gone -y -d main -o json".split(' ').collect::<Vec<_>>();
    let asked = people.run(&world.daemon, "eve", &forget).json();
    let id = asked["operation_id"].as_str().expect("an id");
    people.run(&world.daemon, "fay", &["operation", "approve", "-y", id]);
    dies(trial, &mut world.daemon);
    let over = Instant::now();
    await_that("it is over", || ["succeeded", "failed"].contains(&&*people.state(&second, id)));
    trial.converged(over.elapsed());
    let state = people.state(&second, id);
    let recorded = "select count(*) from nexus_journal where direction = 'forget' and outcome = 'succeeded'";
    let done = (state.as_str(), world.database.rows().len(), &*world.database.sql(recorded)[0] == "1");
    if done != ("succeeded", 1, true) {
        trial.violates(format!("state, rows, recorded once: {done:?}"));
    }
    trial.saw("done once".to_owned());
}

fn killed_at_the_end(trial: &mut Trial) {
    let kept = Database::new();
    let mut world = armed(counted(SCHEMAS, &kept.url), "operation.to be handed over", "kill", 0);
    let second = world.second_daemon();
    let id = new_id();
    let begun = words(&format!("apply -d t-* --wave 50% --pause 3s --detach --request-id {id}"));
    ctl(&world.daemon, &begun).expect(0);
    await_that("it pauses", || show(&world.daemon, &id)["state"] == "paused");
    world.daemon.signal(Signal::SIGTERM);
    dies(trial, &mut world.daemon);
    let over = Instant::now();
    await_that("the other one ends it", || show(&second, &id)["state"] == "succeeded");
    trial.converged(over.elapsed());
    is_done(trial, &world, &second, &id);
}

/// It wakes up when another one has done its work, and does no harm.
fn owner_frozen(trial: &mut Trial, point: &str) {
    let kept = Database::new();
    let world = armed(counted(SCHEMAS, &kept.url), point, "freeze", 0);
    let second = world.second_daemon();
    let id = new_id();
    let begun = Instant::now();
    let request = apply(&id);
    let client = world.daemon.ctl_begin(&request.iter().map(String::as_str).collect::<Vec<_>>());
    await_that("the other one knows it", || second.ctl(&["operation", "show", &id]).code == Some(0));
    ctl(&second, &request).expect(0);
    trial.converged(begun.elapsed());
    is_done(trial, &world, &second, &id);
    let fence = kept.sql("select fence, owner from nexus.operation");
    world.daemon.signal(Signal::SIGCONT);
    client.end();
    await_that("it knows what became of it", || show(&world.daemon, &id)["state"] == "succeeded");
    is_done(trial, &world, &world.daemon, &id);
    if kept.sql("select fence, owner from nexus.operation") != fence {
        trial.violates("whoever woke up has changed the operation");
    }
}

/// A daemon is just reading an operation of another's when it is asked for the very same.
fn request_meets_mirror(trial: &mut Trial) {
    let kept = Database::new();
    let world = counted(SCHEMAS, &kept.url).start();
    let second = world.second_daemon_in(&[("FAILPOINTS", "operation.read=1*sleep(700)->off")]);
    let id = new_id();
    let request = apply(&id);
    let client = world.daemon.ctl_begin(&request.iter().map(String::as_str).collect::<Vec<_>>());
    kept.await_row("select from nexus.operation");
    std::thread::sleep(Duration::from_millis(300));
    let over = Instant::now();
    ctl(&second, &request).expect(0);
    trial.converged(over.elapsed());
    client.end().expect(0);
    is_done(trial, &world, &second, &id);
}

fn control_gone(trial: &mut Trial) {
    let mut server = Embedded::start(&[]).expect("a server starts");
    let kept = Database::on(&server, "control");
    let world = counted(SCHEMAS, &kept.url).start();
    let id = new_id();
    let begun = words(&format!("apply -d t-* --parallel 1 --detach --request-id {id}"));
    ctl(&world.daemon, &begun).expect(0);
    await_that("it is at work", || show(&world.daemon, &id)["counts"]["succeeded"].as_u64() >= Some(1));
    server.kill().expect("the server ends");
    std::thread::sleep(Duration::from_secs(3));
    world.ctl(&["status", "-d", "t-000"]).expect(0);
    server.restart().expect("the server starts again");
    let over = Instant::now();
    await_that("it goes on", || show(&world.daemon, &id)["state"] == "succeeded");
    trial.converged(over.elapsed());
    is_done(trial, &world, &world.daemon, &id);
}
