//! The runbook's walk: files, checksums, apply, rollback, status, log.

use std::{fs, process::Command};

use crate::support::{World, fail};

const UP: &str = include_str!("../../migrations/0010_add_products.up.sql");
const DOWN: &str = include_str!("../../migrations/0010_add_products.down.sql");

#[test]
fn a_new_pair_is_applied_rolled_back_and_applied_again() {
    let world = World::new().start();
    world.migration("0010_add_products", UP, DOWN);
    world.ctl(&["apply"]).expect(0);
    assert_eq!(world.database.sql("select name, price from products"), ["Sample Product|99.99"]);
    assert_eq!(world.database.rows(), ["0010_add_products|f"]);
    world.ctl(&["rollback", "--steps=1"]).expect(0);
    assert!(world.database.tables().is_empty());
    assert!(world.database.rows().is_empty());
    world.ctl(&["up"]).expect(0);
    assert_eq!(world.database.tables(), ["products"]);
}

#[test]
fn the_stored_checksum_is_sha256sum() {
    let world = World::new().start();
    world.migration("0010_add_products", UP, DOWN);
    world.ctl(&["apply"]).expect(0);
    let file = world.path("migrations/0010_add_products.up.sql");
    let sum = Command::new("sha256sum").arg(&file).output().expect("sha256sum runs");
    let sum = String::from_utf8(sum.stdout).expect("sha256sum prints text");
    let stored = world.database.sql("select checksum from schema_migrations");
    assert_eq!(sum.split_whitespace().next(), Some(stored[0].as_str()));
    let ours = world.ctl(&["checksum", &file.display().to_string()]).expect(0);
    assert_eq!(ours, sum);
}

#[test]
fn rollback_goes_newest_first_and_counts() {
    let world = World::new().start();
    world.tables(1, 5);
    world.ctl(&["apply"]).expect(0);
    for (arguments, mentions) in [
        (["rollback", "--steps=0"], "5 are applied"),
        (["rollback", "--steps=-1"], "5 are applied"),
        (["rollback", "--steps=6"], "5 are applied"),
        (["rollback", "--to=9"], "No migration 9 is known"),
    ] {
        let told = world.ctl(&arguments).expect(1);
        assert!(told.contains(mentions), "{told}");
        assert_eq!(world.database.tables().len(), 5);
    }
    world.ctl(&["down", "--steps=2"]).expect(0);
    assert_eq!(world.database.tables(), ["t1", "t2", "t3"]);
    world.ctl(&["rollback", "--to=0001_t1"]).expect(0);
    assert_eq!(world.database.tables(), ["t1"]);
    world.ctl(&["rollback", "--to=0"]).expect(0);
    assert!(world.database.tables().is_empty());
    assert!(world.ctl(&["rollback"]).expect(1).contains("no migration is applied"));
}

#[test]
fn the_table_is_the_runbooks() {
    let world = World::new().start();
    world.tables(1, 1);
    world.ctl(&["apply"]).expect(0);
    let columns = world.database.sql(
        "select column_name, data_type, is_nullable, column_default from information_schema.columns \
         where table_name = 'schema_migrations' order by ordinal_position",
    );
    assert_eq!(
        columns,
        [
            "version|text|NO|",
            "applied_at|timestamp with time zone|NO|now()",
            "checksum|text|NO|",
            "dirty|boolean|NO|false"
        ]
    );
}

#[test]
fn the_log_is_the_runbooks() {
    let world = World::new().start();
    world.migration("0010_add_products", UP, DOWN);
    world.ctl(&["apply"]).expect(0);
    let lines = world.logged("Migration applied successfully");
    let [line] = lines.as_slice() else { fail(&format!("one line: {lines:?}")) };
    assert_eq!(line["level"], "info");
    assert_eq!(line["version"], "0010_add_products");
    assert_eq!(line["type"], "up");
    assert_eq!(line["database"], "main");
    assert_eq!(line["checksum"], world.database.sql("select checksum from schema_migrations")[0]);
    let timestamp = line["timestamp"].as_str().expect("a text");
    assert_eq!((timestamp.len(), timestamp.ends_with('Z')), (24, true), "{timestamp}");
    let text = fs::read_to_string(world.path("migrations.jsonl")).expect("the log is read");
    assert!(text.lines().all(|line| line.starts_with("{\"timestamp\":")), "{text}");
}

#[test]
fn targets_limits_and_dry_runs() {
    let world = World::new().start();
    world.tables(1, 4);
    let told = world.ctl(&["apply", "--dry-run"]).expect(0);
    assert!(told.contains("0004_t4"), "{told}");
    world.ctl(&["plan"]).expect(0);
    assert!(world.database.rows().is_empty() && world.database.tables().is_empty());
    world.ctl(&["apply", "--limit=1"]).expect(0);
    assert_eq!(world.database.tables(), ["t1"]);
    world.ctl(&["apply", "--to=3"]).expect(0);
    assert_eq!(world.database.tables(), ["t1", "t2", "t3"]);
    assert!(world.ctl(&["apply", "--to=77"]).expect(1).contains("No migration 77"));
    world.ctl(&["rollback", "--dry-run", "--steps=3"]).expect(0);
    assert_eq!(world.database.tables().len(), 3);
}

#[test]
fn status_check_finds_what_is_pending() {
    let world = World::new().start();
    world.tables(1, 2);
    world.ctl(&["status", "--check"]).expect(3);
    world.ctl(&["apply"]).expect(0);
    world.ctl(&["status", "--check"]).expect(0);
    let status = world.ctl(&["status", "--output", "json"]).json();
    assert_eq!(status["databases"][0]["applied"], 2, "{status}");
    assert_eq!(status["databases"][0]["current_version"], "0002_t2");
}

#[test]
fn a_rollback_works_when_the_file_has_gone() {
    let world = World::new().set("missing_file = \"allow\"").start();
    world.tables(1, 2);
    world.ctl(&["apply"]).expect(0);
    world.remove("0002_t2.up.sql");
    world.remove("0002_t2.down.sql");
    let told = world.ctl(&["rollback"]).expect(0);
    assert!(told.contains("journal"), "{told}");
    assert_eq!(world.database.tables(), ["t1"]);
    // A down file that was changed since: the one that was kept is used, and that is said.
    world.write("0001_t1.down.sql", "select 1/0;\n");
    let told = world.ctl(&["rollback"]).expect(0);
    assert!(told.contains("differs"), "{told}");
    assert!(world.database.tables().is_empty());
}

#[test]
fn history_tells_every_attempt() {
    let world = World::new().start();
    world.tables(1, 1);
    world.ctl(&["apply"]).expect(0);
    world.ctl(&["rollback"]).expect(0);
    let history = world.ctl(&["history", "--output", "json"]).json();
    let attempts = history["attempts"].as_array().expect("a list");
    let told: Vec<_> = attempts.iter().map(|it| format!("{} {}", it["direction"], it["outcome"])).collect();
    assert_eq!(told, ["\"down\" \"succeeded\"", "\"up\" \"succeeded\""]);
    // By the socket: the kernel says who asks.
    let user = nix::unistd::User::from_uid(nix::unistd::geteuid()).expect("users are known");
    assert_eq!(attempts[0]["requested_by"].as_str(), user.map(|user| user.name).as_deref(), "{history}");
}
