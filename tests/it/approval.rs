//! Protected databases: what one person asks for, another one approves. The transcript of the first test is
//! told in target/tmp/approval.txt.

use std::{fmt::Write as _, fs, path::Path};

use nix::sys::signal::Signal;

use crate::{
    people::{People, guarded},
    support::{Begun, Database, Ended, Running, World, await_that},
};

/// What was done, by whom, and how it was answered.
struct Transcript(String);

impl Transcript {
    fn new() -> Self {
        Self(format!("{:<6} {:<58} {:<5} answer\n", "who", "nexusctl", "exit"))
    }

    /// Notes a command of which `code` is expected, and `parts` in what it printed.
    fn note(
        &mut self,
        who: &str,
        arguments: &[&str],
        ended: &Ended,
        id: &str,
        (code, parts): (i32, &[&str]),
    ) {
        let told = format!("{}{}", ended.stdout, ended.stderr);
        assert_eq!(ended.code, Some(code), "{who} {arguments:?}\n{told}");
        for part in parts {
            assert!(told.contains(part), "{part:?} is not in\n{told}");
        }
        let words = arguments.join(" ").replace(id, "ID");
        let is_telling = |line: &&str| {
            let line = line.trim_start();
            line.starts_with("error: ")
                || line.starts_with("[NX")
                || parts.iter().any(|part| line.contains(part))
        };
        let telling: Vec<_> = told.lines().filter(is_telling).map(str::trim).collect();
        let telling = if telling.is_empty() { told.lines().take(1).collect() } else { telling };
        let answer = telling.join(" / ");
        writeln!(self.0, "{who:<6} {words:<58} {code:<5} {}", answer.replace(id, "ID"))
            .expect("it is written");
    }
}

#[test]
fn requested_by_one_refused_to_the_same_approved_by_another_refused_after_the_plan_moved() {
    let (people, world) = People::new("open_metrics = true\n");
    let world = world.start();
    let daemon = &world.daemon;
    let untouched = || world.database.tables().is_empty() && people.shop.tables().is_empty();
    let id = people.ask(daemon, "ana", &["apply", "--all", "--reason", "CHG-1"]);
    let mut transcript = Transcript::new();
    let mut run = |who: &str, arguments: &[&str], id: &str, expected: (i32, &[&str])| {
        transcript.note(who, arguments, &people.run(daemon, who, arguments), id, expected);
    };
    let approve: &[&str] = &["operation", "approve", "-y", &id];
    let waits = "waits for the approval of somebody other than ana";
    run("cy", &["operation", "list", "--state", "awaiting-approval"], &id, (0, &[&id, "awaiting approval"]));
    run("ana", &["apply", "--all", "--request-id", &id, "--reason", "CHG-1", "--detach"], &id, (0, &[waits]));
    // What the approver sees: who asked, why, each database's steps, the digest.
    let shown = people.show(daemon, &id);
    let digest = shown["approval"]["plan_digest"].as_str().expect("a digest");
    let of_plan = people.run(daemon, "bo", &["plan", "--all", "-o", "json"]).json();
    assert_eq!(of_plan["digest"], digest, "nexusctl plan prints the same");
    let parts =
        ["CHG-1", "ana", "main: 2 steps", "shop: 2 steps", "apply 0002_t2", digest, "protected  main"];
    run("bo", &["operation", "show", &id], &id, (0, &parts));
    // Who may not.
    run("ana", approve, &id, (1, &["NX0104", "ana asked for the operation"]));
    run("ana-2", approve, &id, (1, &["NX0104"]));
    run("cy", approve, &id, (1, &["NX0088"]));
    run("dee", approve, &id, (1, &["NX0089"]));
    run("dee", &["operation", "reject", &id], &id, (1, &["NX0089"]));
    run("bo", &["operation", "approve", "-y", "01a20000-0000"], &id, (1, &["NX0075"]));
    let other = format!("{}-{}", "a".repeat(32), "b".repeat(16));
    run(
        "bo",
        &["operation", "approve", "-y", &id, "--plan", &other],
        &id,
        (1, &["NX0105", "not the plan that was seen"]),
    );
    for verb in ["pause", "resume", "retry"] {
        run("bo", &["operation", verb, &id], &id, (1, &["NX0076", "is awaiting approval"]));
    }
    assert!(untouched() && people.state(daemon, &id) == "awaiting_approval");
    let (_, metrics) = daemon.page("/metrics");
    assert!(metrics.contains("nexus_operations{state=\"awaiting_approval\"} 1"), "{metrics}");
    // Another one approves.
    run(
        "bo",
        &["operation", "approve", "-y", &id, "--reason", "seen", "--plan", digest],
        &id,
        (0, &["approved by bo"]),
    );
    await_that("it is over", || people.state(daemon, &id) == "succeeded");
    assert_eq!((world.database.rows().len(), people.shop.rows().len()), (2, 2));
    run("bo", approve, &id, (1, &["NX0076", "is succeeded: it cannot be approved"]));
    let history = people.run(daemon, "cy", &["history", "-d", "main", "-o", "json"]).json();
    assert_eq!(history["attempts"][0]["requested_by"], "ana");
    let shown = people.show(daemon, &id);
    let approval = &shown["approval"];
    assert_eq!(
        (&approval["decision"], &approval["decided_by"], &approval["reason"]),
        (&"approved".into(), &"bo".into(), &"seen".into())
    );
    let messages: Vec<_> = world.log().iter().map(|line| line["message"].to_string()).collect();
    let place = |message: &str| messages.iter().position(|line| line.contains(message)).expect("it is told");
    assert!(place("awaits approval") < place("Operation approved"));
    assert!(place("Operation approved") < place("Operation started"));
    assert_eq!(world.logged("Operation approved")[0]["by"], "bo");
    // What would change nothing waits for nobody.
    run("ana", &["apply", "--all"], &id, (0, &["main: up to date"]));
    // The plan moves: the files.
    world.tables(3, 1);
    let moved = people.ask(daemon, "ana", &["apply", "-d", "main"]);
    world.tables(4, 1);
    let approve: &[&str] = &["operation", "approve", "-y", &moved];
    run("bo", approve, &moved, (1, &["NX0105", "main: The plan has moved", "the migration files"]));
    run("bo", approve, &moved, (1, &["NX0076"]));
    run("cy", &["operation", "list", "--limit", "1"], &moved, (0, &[&moved, "cancelled"]));
    assert_eq!(world.database.rows().len(), 2);
    // A rollback, too; and of what is asked for anew the same is true.
    let asked = people.ask(daemon, "bo", &["rollback", "-d", "main", "--yes"]);
    run("bo", &["operation", "approve", "-y", &asked], &asked, (1, &["NX0104", "bo asked"]));
    run("ana", &["operation", "approve", "-y", &asked], &asked, (0, &["approved by ana"]));
    await_that("it is rolled back", || world.database.rows().len() == 1);
    fs::write(Path::new(env!("CARGO_TARGET_TMPDIR")).join("approval.txt"), transcript.0)
        .expect("it is written");
}

#[test]
fn what_has_moved_is_not_approved() {
    let (people, world) = People::new("");
    let mut world = world.start();
    let first = people.ask(&world.daemon, "ana", &["apply", "-d", "main"]);
    people.approve(&world.daemon, "bo", &first);
    world.tables(3, 1);
    let refused = |world: &Running, id: &str, parts: &[&str]| {
        let told = people.run(&world.daemon, "bo", &["operation", "approve", "-y", id]).expect(1);
        for part in [&["NX0105", "the operation is over"], parts].concat() {
            assert!(told.contains(part), "{part:?} is not in\n{told}");
        }
        await_that("it is over", || people.state(&world.daemon, id) == "cancelled");
        let why = people.show(&world.daemon, id)["why"].to_string();
        assert!(why.contains("what was to be approved has moved"), "{why}");
    };
    // The applied rows.
    let id = people.ask(&world.daemon, "ana", &["apply", "-d", "main"]);
    world.database.sql("update schema_migrations set applied_at = now() where version = '0001_t1'");
    refused(&world, &id, &["the applied migrations"]);
    // A file whose name stays.
    let id = people.ask(&world.daemon, "ana", &["apply", "-d", "main"]);
    world.write("0003_t3.up.sql", "drop table t1;\n");
    refused(&world, &id, &["the migration files"]);
    world.tables(3, 1);
    // The database itself: its name means another one by now.
    let id = people.ask(&world.daemon, "ana", &["apply", "-d", "main"]);
    world.database.sql("create schema other");
    world.world = world.world.set("schema = \"other\"");
    fs::write(world.path("nexus.toml"), world.configuration()).expect("it is written");
    await_that("it is another one", || {
        people.run(&world.daemon, "cy", &["databases", "-d", "main"]).expect(0).contains(".other")
    });
    refused(&world, &id, &["public.schema_migrations", "other.schema_migrations now"]);
    assert_eq!(world.database.rows().len(), 2);
    assert!(world.database.try_sql("select 1 from other.schema_migrations").is_err(), "nothing was made");
}

#[test]
fn nobody_approves_it_or_somebody_rejects_it() {
    let (people, world) = People::new("approval_limit = \"2s\"\n");
    let world = world.start();
    let daemon = &world.daemon;
    // Whoever follows it hears why.
    let told = people.run(daemon, "ana", &["apply", "-d", "main"]).expect(1);
    assert!(told.contains("nobody approved it within 2s"), "{told}");
    let listed = people.run(daemon, "cy", &["operation", "list", "-o", "json"]).json();
    let id = listed["operations"][0]["id"].as_str().expect("an id").to_owned();
    assert_eq!(people.state(daemon, &id), "cancelled");
    let refused = people.run(daemon, "bo", &["operation", "approve", "-y", &id]).expect(1);
    assert!(refused.contains("NX0076"), "{refused}");
    // A retry is asked for anew, by whoever retries.
    let retried = people.run(daemon, "bo", &["operation", "retry", &id, "--detach"]).expect(0);
    assert!(retried.contains("somebody other than bo"), "{retried}");
    assert!(people.run(daemon, "bo", &["operation", "approve", "-y", &id]).expect(1).contains("NX0104"));
    let rejected = ["operation", "reject", &id, "--reason", "not on a Friday"];
    let told = people.run(daemon, "ana", &rejected).expect(0);
    assert!(told.contains("rejected by ana"), "{told}");
    await_that("it is over", || people.state(daemon, &id) == "cancelled");
    assert_eq!(people.show(daemon, &id)["approval"]["reason"], "not on a Friday");
    assert!(people.run(daemon, "ana", &["operation", "approve", "-y", &id]).expect(1).contains("NX0076"));
    // Cancelled meanwhile.
    people.run(daemon, "bo", &["operation", "retry", &id, "--detach"]).expect(0);
    people.run(daemon, "bo", &["operation", "cancel", &id]).expect(0);
    assert!(people.run(daemon, "ana", &["operation", "approve", "-y", &id]).expect(1).contains("NX0076"));
    assert!(world.database.tables().is_empty());
    // And approved at last, while somebody follows it.
    let mut command = people.command(daemon, "bo", &["operation", "retry", &id]);
    command.env("NO_COLOR", "1");
    let following = Begun::of(command);
    await_that("it waits", || people.state(daemon, &id) == "awaiting_approval");
    let unseen = people.run(daemon, "ana", &["operation", "approve", &id]).expect(1);
    assert!(unseen.contains("no terminal") && unseen.contains("0002_t2"), "{unseen}");
    people.run(daemon, "ana", &["operation", "approve", "-y", &id]).expect(0);
    let told = following.end().expect(0);
    assert!(told.contains("approved by ana") && told.contains("applied 0002_t2"), "{told}");
    assert_eq!(world.database.rows().len(), 2);
}

#[test]
fn a_repair_is_nobodys_alone() {
    let (people, world) = People::new("");
    let world = world.start();
    let daemon = &world.daemon;
    let id = people.ask(daemon, "ana", &["apply", "-d", "main"]);
    people.approve(daemon, "bo", &id);
    let forget = |version: &str, more: &[&str]| {
        let repair = ["repair", "forget", version, "--reason", "CHG-2", "-y", "-d", "main"];
        people.run(daemon, "eve", &[&repair, more].concat())
    };
    assert!(forget("0009", &[]).expect(1).contains("NX0103"), "there is nothing to approve");
    let told = forget("0002", &[]).expect(0);
    assert!(told.contains("waits for the approval of somebody other than eve"), "{told}");
    let repeated = forget("0001", &["-o", "json"]).json();
    assert_eq!(repeated["awaiting_approval"], true, "{repeated}");
    assert_eq!(world.database.rows().len(), 2);
    let listed = people.run(daemon, "cy", &["operation", "list", "-o", "json"]).json();
    let [one, two] = [1, 0].map(|index: usize| listed["operations"][index].clone());
    assert_eq!((&one["repair"], &two["repair"]), (&"forget 0002".into(), &"forget 0001".into()));
    let [one, two] = [one, two].map(|it| it["id"].as_str().expect("an id").to_owned());
    let shown = people.run(daemon, "fay", &["operation", "show", &one]).expect(0);
    assert!(shown.contains("main: forget 0002") && !shown.contains("nothing to do"), "{shown}");
    // It takes an admin, as the repair does, and somebody else.
    assert!(people.run(daemon, "bo", &["operation", "approve", "-y", &one]).expect(1).contains("NX0089"));
    assert!(people.run(daemon, "eve", &["operation", "approve", "-y", &one]).expect(1).contains("NX0104"));
    people.approve(daemon, "fay", &one);
    assert_eq!(world.database.rows().len(), 1);
    // Asked for again by the same id, it is told as it is: done.
    let again = forget("0002", &["--request-id", &one, "-o", "json"]).json();
    assert_eq!(again["awaiting_approval"], false, "{again}");
    let history = people.run(daemon, "cy", &["history", "-d", "main", "-o", "json"]).json();
    let attempt = &history["attempts"][0];
    assert_eq!((&attempt["requested_by"], &attempt["message"]), (&"eve".into(), &"CHG-2".into()));
    // The other one was asked for over other rows.
    assert!(people.run(daemon, "fay", &["operation", "approve", "-y", &two]).expect(1).contains("NX0105"));
    assert_eq!(world.database.rows().len(), 1);
}

#[test]
fn any_daemon_takes_the_approval_and_it_survives_its_owner() {
    let kept = Database::new();
    let (people, world) = People::new("");
    let control = format!("[control]\nurl = {:?}\nlease = \"2s\"\n", kept.url);
    let mut world = world.more(&control).start();
    let mut second = world.second_daemon();
    let id = people.ask(&world.daemon, "ana", &["apply", "-d", "main"]);
    await_that("the other one knows it", || {
        people.run(&second, "cy", &["operation", "show", &id, "-o", "json"]).code == Some(0)
            && people.state(&second, &id) == "awaiting_approval"
    });
    assert!(people.run(&second, "ana", &["operation", "approve", "-y", &id]).expect(1).contains("NX0104"));
    people.approve(&second, "bo", &id);
    assert_eq!(world.database.rows().len(), 2);
    // It waits on, whoever owns it: handed over, killed, all of them gone.
    world.tables(3, 1);
    let id = people.ask(&world.daemon, "ana", &["apply", "-d", "main"]);
    world.daemon.signal(Signal::SIGTERM);
    assert_eq!(world.daemon.wait(), Some(0));
    await_that("the other one has it", || people.state(&second, &id) == "awaiting_approval");
    second.kill();
    world.daemon.restart();
    await_that("it still waits", || {
        people.run(&world.daemon, "cy", &["operation", "show", &id, "-o", "json"]).code == Some(0)
            && people.state(&world.daemon, &id) == "awaiting_approval"
    });
    assert_eq!(people.show(&world.daemon, &id)["attempt"], 1, "it has not begun");
    assert_eq!(world.database.rows().len(), 2);
    assert!(
        people.run(&world.daemon, "ana-2", &["operation", "approve", "-y", &id]).expect(1).contains("NX0104")
    );
    await_that("its new owner takes the approval", || {
        people.run(&world.daemon, "bo", &["operation", "approve", "-y", &id]).code == Some(0)
    });
    await_that("it is over", || people.state(&world.daemon, &id) == "succeeded");
    assert_eq!(world.database.rows().len(), 3);
}

#[test]
fn it_takes_people_who_are_known() {
    let world = World::new().set("protected = true");
    let refused = world.check_config().expect(1);
    assert!(refused.contains("protected: an approval takes two people who are known"), "{refused}");
    // Protected only since the daemon began, which knows nobody.
    let world = World::new();
    world.tables(1, 1);
    let mut world = world.start();
    let access = guarded("");
    fs::copy(access.path("access.toml"), world.path("access.toml")).expect("it is there");
    let file = world.path("access.toml").display().to_string();
    world.world = world.world.set("protected = true").more(&format!("[access]\nfile = {file:?}\n"));
    fs::write(world.path("nexus.toml"), world.configuration()).expect("it is written");
    await_that("it is protected", || {
        world.ctl(&["databases", "-o", "json"]).json()["databases"][0]["protected"] == true
    });
    let mut command = world.daemon.ctl_command(&["apply"]);
    command.env("NEXUS_SERVER", format!("http://{}", world.daemon.grpc));
    let refused = Ended::of(&command.output().expect("nexusctl runs")).expect(4);
    assert!(refused.contains("NX0102"), "{refused}");
    assert!(world.database.tables().is_empty());
}
