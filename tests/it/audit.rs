//! Audits on real databases: what they find, that they wait for nobody, on schedules and on request,
//! and what they are told as.

use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use serde_json::{Value, json};

use crate::support::{Database, Running, World, await_that, fail};

/// A database where much is wrong, a sound one, and one that nobody listens for.
fn fleet() -> (Running, Database) {
    let sound = Database::new();
    let more = format!(
        "[[database]]\nname = \"sound\"\nurl = {:?}\nmigrations = \"none\"\n\
         [[database]]\nname = \"void\"\nurl = \"postgres://nobody@127.0.0.1:1/void\"\nmigrations = \"none\"\n\
         [[audit]]\nname = \"yearly\"\nschedule = \"0 0 1 1 *\"\ntime_zone = \"Asia/Kathmandu\"\n",
        sound.url
    );
    let world = World::new().set("labels = { env = \"prod\" }").more(&more);
    std::fs::create_dir(world.path("none")).expect("a directory is made");
    (world.start(), sound)
}

/// Spoils the database `main` in each way.
fn spoil(world: &World, ctl: &dyn Fn(&[&str])) {
    world.tables(1, 4);
    ctl(&["apply", "--database", "main"]);
    world.write("0001_t1.up.sql", "create table t1 (id bigint primary key);\n");
    world.remove("0002_t2.up.sql");
    world.remove("0002_t2.down.sql");
    world.database.sql("update schema_migrations set dirty = true where version = '0004_t4'");
    world.database.sql("insert into t3 values (1), (2)");
    world.database.sql("create table twins (n int, constraint positive check (n > 0) not valid)");
    world.database.sql("alter table t3 add column n int default 7");
    world.database.try_sql("create unique index concurrently broken on t3 (n)").expect_err("two are equal");
    world
        .database
        .sql("alter table twins drop constraint positive, add constraint small check (n < 9) not valid");
}

/// The findings of a database as `kind subject`.
fn found(audit: &Value, database: &str) -> Vec<String> {
    let databases = audit["databases"].as_array().expect("databases");
    let database = databases.iter().find(|it| it["database"] == database).expect("the database is there");
    let findings = database["findings"].as_array().expect("findings");
    let told = findings.iter().map(|finding| {
        let subject = finding["subject"].as_str().unwrap_or("-");
        format!("{} {subject}", finding["kind"].as_str().expect("a kind"))
    });
    let mut told: Vec<_> = told.collect();
    told.sort();
    told
}

#[test]
fn an_audit_finds_everything_that_is_wrong() {
    let (world, sound) = fleet();
    spoil(&world, &|arguments| drop(world.ctl(arguments).expect(0)));
    let audit = world.ctl(&["audit", "run", "--output", "json"]);
    assert_eq!(audit.code, Some(0), "{}", audit.stderr);
    let audit = audit.json();
    let expected = [
        "checksum_drift 0001_t1",
        "dirty 0004_t4",
        "invalid_index broken",
        "missing_file 0002_t2",
        "not_valid_constraint twins.small",
    ];
    assert_eq!(found(&audit, "main"), expected);
    assert_eq!(found(&audit, "void"), ["database_unreachable -"]);
    assert!(found(&audit, "sound").is_empty());
    assert_eq!((&audit["checked"], &audit["name"]), (&json!(3), &json!("manual")));
    assert_eq!(
        [&audit["critical"], &audit["warning"], &audit["info"]],
        [&json!(3), &json!(2), &json!(1)],
        "{audit}"
    );
    let files = &audit["databases"][0]["files"];
    assert_eq!(files["0001_t1"], world.path("migrations/0001_t1.up.sql").display().to_string());
    assert!(files["0002_t2"].is_null(), "it has no file: {files}");
    assert!(sound.tables().is_empty() && sound.rows().is_empty(), "nothing was written");

    let shown = world.ctl(&["audit", "show"]).expect(0);
    for words in ["critical  checksum_drift  0001_t1", "- stored checksum: ", "hint: ", "void", "3 databases"]
    {
        assert!(shown.contains(words), "{words} in {shown}");
    }
    let id = audit["id"].as_str().expect("an id");
    assert_eq!(world.ctl(&["audit", "show", &id[..23], "-o", "json"]).json(), audit);
    let lines = world.logged("Audit finished");
    let [line] = lines.as_slice() else { fail(&format!("one line: {lines:?}")) };
    assert_eq!((&line["audit"], &line["level"], &line["critical"]), (&json!(id), &json!("warn"), &json!(3)));
    assert!(line["operation"].is_null() && line["duration_ms"].is_u64(), "{line}");
}

#[test]
fn exit_codes_and_reports() {
    let (world, _sound) = fleet();
    spoil(&world, &|arguments| drop(world.ctl(arguments).expect(0)));
    let run = |arguments: &[&str]| world.ctl(&[&["audit", "run"], arguments].concat());
    run(&["--database", "sound", "--check", "--fail-on", "info"]).expect(0);
    run(&["--database", "main"]).expect(0);
    run(&["--database", "main", "--check"]).expect(3);
    run(&["--database", "void", "--check", "--fail-on", "critical"]).expect(3);
    run(&["--database", "nothing"]).expect(1);
    run(&["--selector", "env=dev", "--check"]).expect(1);
    run(&["--selector", "env=prod", "--check"]).expect(3);

    let junit = run(&["--format", "junit", "--check"]);
    assert_eq!((junit.code, junit.stderr.as_str()), (Some(3), ""));
    assert!(
        junit.stdout.starts_with("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<testsuites "),
        "{}",
        junit.stdout
    );
    assert!(junit.stdout.contains("tests=\"7\" failures=\"5\""), "{}", junit.stdout);
    let sarif = world.ctl(&["audit", "show", "--format", "sarif"]).json();
    let results = sarif["runs"][0]["results"].as_array().expect("results");
    assert_eq!((&sarif["version"], results.len()), (&json!("2.1.0"), 6));
    let drift = results.iter().find(|it| it["ruleId"] == "checksum_drift").expect("the drift is told");
    let uri =
        drift["locations"][0]["physicalLocation"]["artifactLocation"]["uri"].as_str().unwrap_or_default();
    let path = uri.strip_prefix("file://").expect("it is absolute");
    assert!(std::path::Path::new(path).is_file(), "{uri}");
}

#[test]
fn an_audit_waits_for_nobody() {
    let world = World::new().start();
    world.tables(1, 2);
    world.ctl(&["apply"]).expect(0);
    for table in ["t1", "schema_migrations", "nexus_journal"] {
        let held = world.database.hold(&format!("begin; lock table {table} in access exclusive mode"));
        let begun = Instant::now();
        let audit = world.ctl(&["audit", "run", "--output", "json"]);
        assert_eq!(audit.code, Some(0), "{table}: {}", audit.stderr);
        assert!(begun.elapsed() < Duration::from_secs(15), "{table}: it took {:?}", begun.elapsed());
        let database = &audit.json()["databases"][0];
        if table == "t1" {
            assert_eq!((&database["applied"], &database["unchecked"]), (&json!(2), &json!([])));
        } else {
            assert!(database["applied"].is_null(), "{table}: {database}");
            assert!(database["unchecked"].as_array().is_some_and(|kinds| kinds.len() > 5), "{database}");
            let told = world.ctl(&["audit", "run", "--check"]).expect(3);
            assert!(told.contains("a lock is held on its tables"), "{told}");
        }
        drop(held);
    }
    world.ctl(&["audit", "run", "--check"]).expect(0);
}

#[test]
fn an_audit_holds_no_lock_that_delays_the_application() {
    let world = World::new().start();
    world.tables(1, 1);
    world.ctl(&["apply"]).expect(0);
    // Whoever waits for a lock shows in pg_stat_activity; the application changes its table meanwhile.
    // One caller has no more than two at once.
    let audits: Vec<_> = (0..2).map(|_| world.daemon.ctl_begin(&["audit", "run"])).collect();
    for round in 0..20 {
        let change =
            "set lock_timeout = '500ms'; alter table t1 add column n int; alter table t1 drop column n";
        assert!(world.database.try_sql(change).is_ok(), "round {round}");
    }
    for audit in audits {
        audit.end().expect(0);
    }
}

#[test]
fn schedules_run_and_are_listed() {
    let audits = "[[audit]]\nname = \"often\"\nschedule = \"* * * * * *\"\nselector = \"env!=dev\"\n\
                  [[audit]]\nname = \"yearly\"\nschedule = \"0 0 1 1 *\"\ntime_zone = \"Asia/Kathmandu\"\n\
                  [[audit]]\nname = \"void\"\nschedule = \"* * * * * *\"\ndatabases = [\"nothing\"]\n";
    let mut world = World::new().more(audits).start();
    let listed = world.ctl(&["audit", "list"]).expect(0);
    assert!(listed.contains("0 0 1 1 *") && listed.contains("Asia/Kathmandu"), "{listed}");
    await_that("three audits", || world.logged("Audit finished").len() >= 3);
    let lines = world.logged("Audit finished");
    assert!(lines.iter().all(|line| line["name"] == "often" && line["level"] == "info"), "{lines:?}");
    let seconds = |line: &Value| line["timestamp"].as_str().map(|time| time[..19].to_owned());
    assert!(lines.windows(2).all(|pair| seconds(&pair[0]) < seconds(&pair[1])), "one a second: {lines:?}");

    let listed = world.ctl(&["audit", "list", "--limit", "2", "-o", "json"]).json();
    let audits = listed["audits"].as_array().expect("audits");
    assert_eq!(audits.len(), 2);
    assert!(
        audits[0]["started_at"].as_str() > audits[1]["started_at"].as_str(),
        "the newest first: {listed}"
    );
    assert_eq!(audits[0]["checked"], 1);
    let schedules = listed["schedules"].as_array().expect("schedules");
    assert_eq!((schedules.len(), &schedules[1]["schedule"]), (3, &json!("0 0 1 1 *")));
    assert!(
        schedules[1]["next_at"].as_str().is_some_and(|next| next.ends_with("-12-31T18:15:00.000Z")),
        "{listed}"
    );

    let told = world.ctl(&["audit", "show", "ffff"]).expect(1);
    assert!(told.contains("No audit ffff is remembered") && told.contains("NX0060"), "{told}");
    let told = world.ctl(&["audit", "show", "0"]).expect(1);
    assert!(told.contains("Several audits begin with 0") && told.contains("NX0052"), "{told}");
    world.daemon.signal(Signal::SIGTERM);
    assert_eq!(world.daemon.wait(), Some(0));
}

#[test]
fn nothing_is_remembered_at_first() {
    let world = World::new().start();
    assert!(world.ctl(&["audit", "list"]).expect(0).contains("no audit is remembered"));
    let told = world.ctl(&["audit", "show"]).expect(1);
    assert!(told.contains("No audit was made yet") && told.contains("hint:"), "{told}");
}

#[test]
fn bad_schedules_are_refused() {
    let check = |audit: &str, expected: &[&str]| {
        let world = World::new().more(&format!("[[audit]]\nname = \"nightly\"\n{audit}\n"));
        let told = world.check_config();
        assert_eq!(told.code, Some(1), "{audit}: {}", told.stdout);
        assert!(expected.iter().all(|words| told.stderr.contains(words)), "{audit}: {}", told.stderr);
    };
    check(
        "schedule = \"61 * * * *\"",
        &["[[audit]] nightly", "\"61 * * * *\" is not a cron expression", "hint:"],
    );
    check("schedule = \"0 0 30 2 *\"", &["[[audit]] nightly", "is never due", "hint:"]);
    let atlantis = "schedule = \"@daily\"\ntime_zone = \"Europe/Atlantis\"";
    check(atlantis, &["[[audit]] nightly", "\"Europe/Atlantis\" is not a time zone", "hint:"]);
    check(
        "schedule = \"@daily\"\nselector = \"prod\"",
        &["nexus.toml:", "audit \"nightly\": selector: expected =, !=, ~ or !~ after `prod`"],
    );
    check("schedule = \"@daily\"\ndatabases = [\"a[\"]", &["[[audit]] nightly", "is not a name or a glob"]);

    // One that matches nothing is a warning.
    let of_none = "[[audit]]\nname = \"nightly\"\nschedule = \"@daily\"\nselector = \"env=dev\"\n";
    let told = World::new().more(of_none).check_config();
    assert_eq!(told.code, Some(0), "{}", told.stderr);
    assert!(told.stderr.contains("WARN") && told.stderr.contains("nightly"), "{}", told.stderr);
    assert!(
        told.stdout.contains("[[audit]]\nname = \"nightly\"\nschedule = \"@daily\"\n"),
        "{}",
        told.stdout
    );
}
