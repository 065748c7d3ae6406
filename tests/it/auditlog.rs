//! The audit log: what is recorded of whom, before what, and what `verify` finds.

use std::{
    fs,
    os::unix::fs::{PermissionsExt as _, symlink},
    path::{Path, PathBuf},
    process::Command,
};

use nexus::access::{Role, rule};
use nix::sys::signal::Signal;
use serde_json::Value;
use tonic::transport::Channel;

use crate::{
    access::{call, ctl, rpcs},
    operations::newest,
    people::{guarded, token},
    support::{Daemon, Database, Ended, Running, World, await_that, private, read_log, wait},
};

/// The records of a world's audit log.
fn records(world: &World) -> Vec<Value> {
    read_log(&world.path("audit.jsonl"))
}

/// Those of them that are of an event.
fn of_event(world: &World, event: &str) -> Vec<Value> {
    records(world).into_iter().filter(|record| record["event"] == event).collect()
}

/// Runs `nexusctl auditlog verify` on files.
fn verify(files: &[&Path], more: &[&str]) -> Ended {
    let mut command = Command::new(env!("CARGO_BIN_EXE_nexusctl"));
    command
        .args(["auditlog", "verify"])
        .args(files)
        .args(more)
        .env_remove("NEXUS_SERVER")
        .env("NO_COLOR", "1");
    Ended::of(&command.output().expect("nexusctl runs"))
}

fn lines(path: &Path) -> Vec<String> {
    fs::read_to_string(path).expect("it is read").lines().map(|line| format!("{line}\n")).collect()
}

#[test]
fn an_operation_from_its_question_to_its_end() {
    let world = World::new().start();
    world.tables(1, 2);
    let id = "018f3c5e-7a2b-7c3d-8e4f-000000000001";
    let reason = "CHG-7, see postgres://ana:hunter2@h/d";
    world.ctl(&["apply", "--reason", reason, "--request-id", id]).expect(0);
    await_that("the end is recorded", || !of_event(&world, "operation").is_empty());
    let all = records(&world);
    let events: Vec<_> = all.iter().map(|record| record["event"].as_str().unwrap_or_default()).collect();
    assert_eq!(events, ["opened", "call", "change", "database", "operation"]);
    let [_, call, change, database, end] = &all[..] else { unreachable!("there are five") };
    assert_eq!(
        (&call["rpc"], &call["decision"]),
        (&"/nexus.v1.MigrationService/Apply".into(), &"allowed".into())
    );
    assert_eq!((&call["operation"], &call["request_id"]), (&id.into(), &id.into()));
    assert_eq!(call["databases"], serde_json::json!(["main"]));
    assert_eq!(
        (&call["method"], call["from"].as_str().is_some_and(|it| it.contains("pid"))),
        (&"unix".into(), true)
    );
    let file = |name: &str| {
        let sum =
            Command::new("sha256sum").arg(world.path("migrations").join(name)).output().expect("it runs");
        String::from_utf8_lossy(&sum.stdout).split(' ').next().unwrap_or_default().to_owned()
    };
    for (index, name) in ["0001_t1.up.sql", "0002_t2.up.sql"].into_iter().enumerate() {
        let used = &change["files"][index];
        assert_eq!((&used["file"], used["sha256"].as_str()), (&name.into(), Some(file(name).as_str())));
    }
    assert_eq!(database["done"].as_array().map(Vec::len), Some(2));
    assert_eq!((&end["result"], &end["operation"]), (&"succeeded".into(), &id.into()));
    let path = world.path("audit.jsonl");
    assert_eq!(fs::metadata(&path).expect("it is there").permissions().mode() & 0o777, 0o600);
    assert!(!fs::read_to_string(&path).expect("it is read").contains("hunter2"));
    // The same request again, a dry run, and what is refused by the databases' truth.
    world.ctl(&["apply", "--reason", reason, "--request-id", id]).expect(0);
    world.ctl(&["apply", "--dry-run"]).expect(0);
    world.ctl(&["apply", "-d", "nothing"]).expect(1);
    world.ctl(&["repair", "forget", "0002_t2", "--reason", "by mistake", "-y"]).expect(0);
    await_that("the repair's end is recorded", || of_event(&world, "result").len() == 1);
    let refused =
        of_event(&world, "call").into_iter().find(|it| it["decision"] == "refused").expect("one was");
    assert_eq!(
        (&refused["code"], &refused["selection"]["databases"][0]),
        (&"NX0050".into(), &"nothing".into())
    );
    let repair = of_event(&world, "call").pop().expect("there are calls");
    assert_eq!((&repair["action"], &repair["version"]), (&"forget".into(), &"0002_t2".into()));
    assert_eq!(
        (&repair["reason"], &of_event(&world, "result")[0]["call"]),
        (&"by mistake".into(), &repair["call"])
    );
    // What was done once by an id is not done again.
    let id = repair["operation"].as_str().expect("an id").to_owned();
    let again = ["repair", "forget", "0001_t1", "--reason", "x", "-y", "--request-id", &id];
    assert!(world.ctl(&again).expect(1).contains("NX0057"));
    // A row that is changed by hand is told before it is, with the file that is taken as it is.
    world.ctl(&["repair", "mark-applied", "2", "--reason", "it is there", "-y"]).expect(0);
    let changes = of_event(&world, "change").into_iter().skip(1).collect::<Vec<_>>();
    let used: Vec<_> = changes.iter().map(|change| &change["files"][0]).collect();
    assert_eq!((changes.len(), &changes[0]["operation"]), (2, &repair["operation"]));
    assert_eq!((&used[0]["action"], &used[0]["sha256"]), (&"forget 0002_t2".into(), &Value::Null));
    assert_eq!(
        (&used[1]["version"], &used[1]["action"], used[1]["sha256"].as_str()),
        (&"0002_t2".into(), &"mark-applied 2".into(), Some(file("0002_t2.up.sql").as_str()))
    );
    let listed =
        world.ctl(&["auditlog", "list", path.to_str().expect("UTF-8"), "--refused", "-o", "json"]).json();
    assert_eq!(listed["records"].as_array().map(Vec::len), Some(1));
    verify(&[&path], &[]).expect(0);
    let out = world.ctl(&["auditlog", "verify", "--daemon", path.to_str().expect("UTF-8")]).expect(0);
    assert!(out.starts_with("OK: "), "{out}");
}

#[test]
fn what_was_done_to_the_file_is_found_with_its_line() {
    let mut world = World::new().start();
    world.tables(1, 2);
    world.ctl(&["apply"]).expect(0);
    await_that("the end is recorded", || !of_event(&world, "operation").is_empty());
    world.daemon.signal(Signal::SIGTERM);
    world.daemon.wait();
    assert_eq!(records(&world).last().map(|record| record["event"].clone()), Some("closed".into()));
    let whole = lines(&world.path("audit.jsonl"));
    let path = world.path("copy.jsonl");
    let found = |text: &[String], more: &[&str]| {
        fs::write(&path, text.concat()).expect("it is written");
        let found = verify(&[&path], &[more, &["-o", "json"]].concat());
        let (code, stderr) = (found.code, found.stderr.clone());
        let fault = found.json()["fault"].clone();
        assert_eq!(code == Some(0), fault.is_null(), "{stderr}");
        let place = format!("{}:{}: ", path.display(), fault["line"]);
        assert!(fault.is_null() || stderr.contains(&place), "{place} is not in {stderr}");
        (fault["kind"].as_str().unwrap_or_default().to_owned(), fault["line"].as_u64().unwrap_or_default())
    };
    assert_eq!(found(&whole, &[]), (String::new(), 0));
    let mut tampered = whole.clone();
    tampered[1] = tampered[1].replace("\"decision\":\"allowed\"", "\"decision\":\"refused\"");
    assert_eq!(found(&tampered, &[]), ("altered".to_owned(), 2));
    let mut shorter = whole.clone();
    shorter.remove(2);
    assert_eq!(found(&shorter, &[]), ("missing".to_owned(), 3));
    let mut torn = whole.clone();
    let last = torn.len() - 1;
    torn[last].truncate(50);
    assert_eq!(found(&torn, &[]), ("torn".to_owned(), last as u64 + 1));
    // What was cut off at the end fits: an anchor shows it, the one beside the file or one that was noted.
    let cut = &whole[..3];
    assert_eq!(found(cut, &[]), (String::new(), 0));
    assert!(verify(&[&path], &[]).expect(0).contains("missing at the end cannot be seen: no .head"));
    let head: Value = serde_json::from_str(whole.last().expect("a line")).expect("it is JSON");
    let noted = head["hash"].as_str().expect("it has a hash").to_owned();
    assert_eq!(found(cut, &["--expect", &noted]), ("truncated".to_owned(), 3));
    fs::copy(world.path("audit.jsonl.head"), world.path("copy.jsonl.head")).expect("it is copied");
    assert_eq!(found(cut, &[]), ("truncated".to_owned(), 3));
    // A daemon that starts on such a file leaves the gap to be seen.
    fs::write(world.path("audit.jsonl"), cut.concat()).expect("it is written");
    world.daemon.restart();
    let told = verify(&[&world.path("audit.jsonl")], &[]).expect(1);
    assert!(told.contains("audit.jsonl:4: records 4 to 6 are missing before this one"), "{told}");
    // And on one whose last record was altered, not at all.
    world.daemon.kill();
    let text = fs::read_to_string(world.path("audit.jsonl")).expect("it is read");
    fs::write(world.path("audit.jsonl"), text.replace("opened", "0pened")).expect("it is written");
    let mut command = Command::new(env!("CARGO_BIN_EXE_nexusd"));
    let ended =
        command.args(["serve", "--config"]).arg(world.path("nexus.toml")).output().expect("nexusd runs");
    assert!(Ended::of(&ended).expect(1).contains("its last record is not as nexusd has written it"));
}

#[test]
fn the_chain_goes_on_over_crashes_and_rotation() {
    let mut world = World::new().start();
    let path = world.path("audit.jsonl");
    world.tables(1, 1);
    world.ctl(&["apply"]).expect(0);
    world.daemon.restart();
    // As a crash in the middle of writing leaves it.
    world.daemon.kill();
    let mut torn = fs::read_to_string(&path).expect("it is read");
    torn.push_str("{\"sequence\":99,\"time\":\"20");
    fs::write(&path, &torn).expect("it is written");
    world.daemon.restart();
    assert!(fs::read_to_string(&path).expect("it is read").starts_with(&torn), "nothing is taken away");
    let told = verify(&[&path], &[]).expect(0);
    assert!(told.contains("a line that is no record; the record after it tells of it"), "{told}");
    let old = world.path("audit.jsonl.1");
    fs::rename(&path, &old).expect("it is moved");
    world.tables(2, 1);
    world.ctl(&["apply"]).expect(0);
    assert!(!path.exists(), "until it is told to, it goes on with the file that it has");
    world.daemon.signal(Signal::SIGHUP);
    await_that("it is reopened", || path.exists() && !lines(&path).is_empty());
    let (last, first) = (lines(&old).pop().expect("a line"), lines(&path).remove(0));
    let [last, first]: [Value; 2] =
        [last, first].map(|line| serde_json::from_str(&line).expect("it is JSON"));
    assert_eq!((&first["event"], &first["previous"]), (&"reopened".into(), &last["hash"]));
    assert!(
        first["continues"].as_str().is_some_and(|it| it.contains(last["hash"].as_str().expect("a hash")))
    );
    world.tables(3, 1);
    world.ctl(&["apply"]).expect(0);
    verify(&[&old, &path], &[]).expect(0);
    assert!(verify(&[&path], &[]).expect(0).contains("those before it are in an earlier file"));
    assert!(verify(&[&path, &old], &[]).expect(1).contains("audit.jsonl.1:1: record 1 comes after"));
}

#[test]
fn the_start_record_is_there_before_the_change() {
    let mut world = World::new().start();
    world.migration("0001_slow", "create table slow (id int);\nselect pg_sleep(600);\n", "drop table slow;");
    let client = world.daemon.ctl_begin(&["apply"]);
    world.database.await_row("select 1 from pg_stat_activity where query like '%pg_sleep(600)%' and pid <> pg_backend_pid() and datname = current_database()");
    world.daemon.kill();
    client.kill();
    let events: Vec<_> = records(&world).iter().map(|record| record["event"].clone()).collect();
    assert_eq!(events, ["opened", "call", "change"]);
    assert_eq!(of_event(&world, "change")[0]["files"][0]["file"], "0001_slow.up.sql");
    // Nobody is told what has become of it but by what comes after.
    world.remove("0001_slow.up.sql");
    world.remove("0001_slow.down.sql");
    world.tables(2, 1);
    world.daemon.restart();
    world.ctl(&["apply"]).expect(0);
    await_that("the end is recorded", || !of_event(&world, "operation").is_empty());
    verify(&[&world.path("audit.jsonl")], &[]).expect(0);
}

#[test]
fn what_cannot_be_recorded_is_not_done() {
    let world = World::new().start();
    let path = world.path("audit.jsonl");
    world.tables(1, 1);
    world.ctl(&["apply"]).expect(0);
    world.tables(2, 1);
    fs::remove_file(&path).expect("it is removed");
    symlink("/dev/full", &path).expect("it is linked");
    let refusals: [&[&str]; 4] = [
        &["apply"],
        &["rollback", "-y"],
        &["repair", "forget", "0001_t1", "--reason", "x", "-y"],
        &["reload"],
    ];
    for command in refusals {
        let told = world.ctl(command).expect(1);
        assert!(told.contains("NX0110") && told.contains("audit.jsonl"), "{command:?}: {told}");
    }
    assert_eq!(
        (world.database.tables(), world.database.rows()),
        (vec!["t1".into()], vec!["0001_t1|f".into()])
    );
    // Reading goes on, and whoever asks for its health is told.
    world.ctl(&["status"]).expect(0);
    let (status, page) = world.daemon.page("/-/ready");
    assert!(status == 503 && page.contains("The audit log"), "{status} {page}");
    let (_, metrics) = world.daemon.page("/metrics");
    assert!(!metrics.contains("nexus_auditlog_write_failures_total 0"), "{metrics}");
    fs::remove_file(&path).expect("it is removed");
    await_that("changes are admitted again", || world.daemon.page("/-/ready").0 == 200);
    world.ctl(&["apply"]).expect(0);
    assert_eq!(world.database.tables(), ["t1", "t2"]);
    await_that("the end is recorded", || !of_event(&world, "operation").is_empty());
    // The new file goes on behind the one that is gone, and tells that, and what was refused meanwhile.
    let told = verify(&[&path], &[]).expect(1);
    assert!(told.contains("tampering: the file before this record was deleted"), "{told}");
    let refused: Vec<_> = of_event(&world, "call").into_iter().filter(|it| it["code"] == "NX0110").collect();
    assert_eq!(refused.len(), 4, "{refused:#?}");
}

/// Who asked for what, and what was decided, as the last call has it.
fn last_call(world: &Running) -> [String; 4] {
    let call = of_event(world, "call").pop().expect("there is a call");
    ["who", "method", "proof", "decision"].map(|key| call[key].as_str().unwrap_or_default().to_owned())
}

#[test]
fn who_asked_and_how_that_is_known() {
    let home = tempfile::tempdir().expect("a directory is made");
    let entries = token(home.path(), "ci", &["--role", "operator", "--all"])
        + &token(home.path(), "eye", &["--role", "viewer", "--all"]);
    let world = guarded(&entries).start();
    world.tables(1, 1);
    let run = |name: &str, arguments: &[&str]| ctl(&world, home.path(), name, arguments);
    run("ci", &["apply"]).expect(0);
    let [who, method, proof, decision] = last_call(&world);
    let sha256 = entries.lines().find_map(|line| line.strip_prefix("sha256 = \"")).expect("it has one");
    assert_eq!((who.as_str(), method.as_str(), decision.as_str()), ("ci", "token", "allowed"));
    assert_eq!(proof, format!("token {}", &sha256[..8]));
    world.ctl(&["apply"]).expect(0);
    assert_eq!(last_call(&world)[1], "unix");
    run("eye", &["apply"]).expect(1);
    // What was refused is recorded, and the answer does not wait for that.
    await_that("it is recorded", || {
        let [who, method, _, decision] = last_call(&world);
        (who.as_str(), method.as_str(), decision.as_str()) == ("eye", "token", "refused")
    });
    // Of many that are alike one is recorded, and the others are counted.
    private(&home.path().join("wrong.token"), "nexus_wrong\n");
    for _ in 0..20 {
        run("wrong", &["status"]).expect(4);
    }
    let wrong = |event: &str| {
        let all = of_event(&world, event).into_iter();
        all.filter(|record| record["code"] == "NX0086").collect::<Vec<_>>()
    };
    assert_eq!(wrong("call").len(), 1, "{:#?}", wrong("call"));
    assert_eq!(wrong("call")[0]["rpc"], "/nexus.v1.MigrationService/Status");
    let text = fs::read_to_string(world.path("audit.jsonl")).expect("it is read");
    assert!(!text.contains("nexus_wrong") && !text.contains("nexus_0"), "{text}");
    world.daemon.signal(Signal::SIGTERM);
    await_that("what was counted is told", || !wrong("refused_again").is_empty());
    assert_eq!(wrong("refused_again")[0]["count"], 19);
}

#[test]
fn without_a_proof_it_is_told_that_there_is_none() {
    let world = World::new().start();
    world.tables(1, 1);
    let mut command = world.daemon.ctl_command(&["apply"]);
    command.env("NEXUS_SERVER", format!("http://{}", world.daemon.grpc));
    Ended::of(&command.output().expect("nexusctl runs")).expect(0);
    let [who, method, _, decision] = last_call(&world);
    assert!(who.contains('@'), "{who}");
    assert_eq!((method.as_str(), decision.as_str()), ("none", "allowed"));
}

#[test]
fn every_rpc_that_changes_something_leaves_a_record() {
    let world = World::new().start();
    let is_meant = |path: &str| rule::of(path).is_some_and(|rule| rule.least >= Some(Role::Operator));
    let meant: Vec<_> = rpcs().into_iter().filter(|(path, _)| is_meant(path)).collect();
    assert!(meant.len() >= 10, "{meant:?}");
    wait(async {
        let endpoint = Channel::from_shared(format!("http://{}", world.daemon.grpc)).expect("an address");
        let channel = endpoint.connect().await.expect("the daemon answers");
        for (path, is_stream) in &meant {
            call(&channel, path, *is_stream, None).await;
        }
    });
    for (path, _) in meant {
        let is_there = || of_event(&world, "call").iter().any(|record| record["rpc"] == path.as_str());
        await_that(&path, is_there);
    }
}

/// The copy of a chain, as a file.
fn copied(control: &Database, world: &World, chain: &str) -> PathBuf {
    let rows =
        control.sql(&format!("select line from nexus.audit_log where chain = '{chain}' order by sequence"));
    let path = world.path(&format!("{chain}.jsonl"));
    fs::write(&path, rows.join("\n") + "\n").expect("it is written");
    path
}

#[test]
fn two_daemons_and_their_copies_in_the_control_database() {
    let control = Database::new();
    let more = format!("[control]\nurl = {:?}\nlease = \"2s\"\n", control.url);
    let mut world = World::new().more(&more).start();
    let second = world.second_daemon();
    world.migration("0001_slow", "create table slow (id int);\nselect pg_sleep(2);\n", "drop table slow;");
    world.tables(2, 1);
    let client = world.daemon.ctl_begin(&["apply", "--detach"]);
    world.database.await_row("select 1 from pg_stat_activity where query like '%pg_sleep(2)%' and pid <> pg_backend_pid() and datname = current_database()");
    client.end().expect(0);
    let id = newest(&world);
    world.daemon.kill();
    let of = |daemon: &Daemon| daemon.ctl(&["operation", "show", &id, "-o", "json"]).json()["state"].clone();
    await_that("the other one has ended it", || of(&second) == "succeeded");
    // The first one has the question, the other one the end.
    let question = of_event(&world, "call").pop().expect("there is a call");
    assert_eq!((&question["operation"], of_event(&world, "operation").len()), (&id.as_str().into(), 0));
    let path = world.path("second-audit.jsonl");
    let ends = || {
        read_log(&path).into_iter().filter(|it| it["event"] == "operation" && it["operation"] == id.as_str())
    };
    await_that("the other one has recorded the end", || ends().count() == 1);
    let taken: Vec<_> = read_log(&path).into_iter().filter(|it| it["event"] == "attempt").collect();
    assert_eq!((&taken[0]["attempt"], &taken[0]["operation"]), (&2.into(), &id.as_str().into()));
    // Both are copied: what the first one did not come to is copied when it is there again.
    world.daemon.restart();
    for (path, daemon) in [(world.path("audit.jsonl"), &world.daemon), (path.clone(), &second)] {
        let records = read_log(&path);
        let chain = records[0]["chain"].as_str().expect("it has a chain").to_owned();
        let count = format!("select count(*) from nexus.audit_log where chain = '{chain}'");
        await_that("everything is copied", || {
            control.sql(&count)[0].parse::<usize>().unwrap_or(0) >= records.len()
        });
        let copy = copied(&control, &world, &chain);
        verify(&[&copy], &[]).expect(0);
        daemon.ctl(&["auditlog", "verify", "--daemon", copy.to_str().expect("UTF-8")]).expect(0);
    }
    for change in
        ["update nexus.audit_log set line = ''", "delete from nexus.audit_log", "truncate nexus.audit_log"]
    {
        let refused = control.try_sql(change).expect_err("it is refused");
        let message = refused.as_db_error().map(|error| error.message().to_owned()).unwrap_or_default();
        assert_eq!(message, "the audit log is only ever added to", "{change}");
    }
    // Who cuts the end of the file off, and what lies beside it, is found out by the copy.
    world.daemon.kill();
    let path = world.path("audit.jsonl");
    let kept = lines(&path);
    fs::write(&path, kept[..2].concat()).expect("it is written");
    fs::remove_file(world.path("audit.jsonl.head")).expect("it is removed");
    world.daemon.restart();
    await_that("it is noticed", || {
        of_event(&world, "noticed")
            .iter()
            .any(|it| it["noticed"].as_str().is_some_and(|it| it.contains("was cut off")))
    });
    // What was written since fits to what is left, and the file is not well all the same.
    let told = verify(&[&path], &["-o", "json"]);
    assert_eq!((told.code, &told.json()["fault"]["kind"]), (Some(1), &"tampering".into()));
    let metric = |count| format!("\nnexus_auditlog_tampering_total {count}\n");
    await_that("it is counted", || world.daemon.page("/metrics").1.contains(&metric(1)));
    // And so is what is done to the file while the daemon writes it.
    fs::write(&path, lines(&path)[1..].concat()).expect("it is written");
    world.ctl(&["reload"]).expect(0);
    await_that("it is counted", || world.daemon.page("/metrics").1.contains(&metric(2)));
}
