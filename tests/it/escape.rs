//! Files that would escape their transaction, and other input that is refused before anything is
//! done: each has an error of its own and leaves the database as it was.

use std::{fs, os::unix::fs::symlink};

use crate::support::World;

/// Applies one migration with this up file; it must be refused with the code, and nothing changed.
#[track_caller]
fn refuses(up: impl AsRef<[u8]>, code: &str, mentions: &str) {
    let world = World::new().start();
    world.database.sql("create table before (id int)");
    world.tables(1, 1);
    world.write("0002_bad.up.sql", up);
    world.write("0002_bad.down.sql", "select 1;");
    let told = world.ctl(&["apply"]).expect(1);
    assert!(told.contains(code) && told.contains(mentions), "{code} {mentions}:\n{told}");
    assert!(world.database.rows().is_empty(), "not even the good one before it was run");
    assert_eq!(world.database.tables(), ["before"]);
}

#[test]
fn transaction_control() {
    refuses("create table a (id int);\nROLLBACK;\ncreate table b (id int);", "NX0008", "0002_bad.up.sql:2:1");
    refuses("create table a (id int);\nCOMMIT;\nselect 1/0;", "NX0008", "COMMIT");
    refuses("begin;\ncreate table a (id int);\ncommit;\nselect 1;", "NX0008", "0002_bad.up.sql:1:1");
    refuses("select 1;\n  prepare transaction 'x';", "NX0008", "0002_bad.up.sql:2:3");
}

#[test]
fn what_cannot_be_run_at_all() {
    refuses("create table a (id int);\ncopy a from stdin;\n1\n\\.\n", "NX0009", "0002_bad.up.sql:2:1");
    refuses("\\set x 1\nselect 1;", "NX0007", "\\set");
    refuses("create table a (id int);\n\\copy a from 'x'", "NX0007", "\\copy");
    refuses("select 1;\0", "NX0005", "0002_bad.up.sql");
    refuses(b"select '\xff';", "NX0004", "0002_bad.up.sql");
    refuses("-- only a comment\n/* and another */\n ; ;\n", "NX0003", "Migration 0002_bad is empty");
    refuses(
        "create table a (id int);\ncreate index concurrently i on a (id);",
        "NX0010",
        "0002_bad.up.sql:2:1",
    );
    refuses("vacuum;", "NX0010", "no-transaction");
    refuses("-- nexus: no-transction\nselect 1;", "NX0013", "no-transaction");
}

/// What only the server can see is stopped by the guard inside the transaction.
#[track_caller]
fn is_stopped(up: &str, what: &str) {
    let world = World::new().start();
    world.database.sql("create table before (id int); insert into before values (1)");
    world.migration("0001_bad", up, "drop table before;");
    let told = world.ctl(&["apply"]).expect(1);
    assert!(told.contains("NX0032") && told.contains(what), "{told}");
    assert_eq!(world.database.tables(), ["before"]);
    assert_eq!(world.database.rows(), ["0001_bad|t"]);
    world.write("0001_bad.up.sql", "create table good (id int);");
    world.ctl(&["apply"]).expect(0);
    assert_eq!(world.database.rows(), ["0001_bad|f"]);
    assert_eq!(world.database.sql("select * from before"), ["1"], "no down was run");
}

#[test]
fn the_guard_sees_a_lost_lock_and_another_role() {
    is_stopped("create table a (id int); select pg_advisory_unlock_all();", "lock");
    is_stopped("create table a (id int); set role pg_monitor;", "role");
}

#[test]
fn the_guard_sees_a_row_that_is_gone() {
    is_stopped("create table a (id int); delete from schema_migrations;", "its row");
    is_stopped("create table a (id int); update schema_migrations set version = 'x';", "its row");
    is_stopped("create table a (id int); delete from nexus_journal;", "its row");
    is_stopped("create table a (id int); update schema_migrations set dirty = false;", "its row");
    is_stopped("create table a (id int); update nexus_journal set outcome = 'succeeded';", "its row");
    is_stopped(
        "create function f() returns trigger language plpgsql as 'begin return null; end'; \
         create trigger t before update on schema_migrations for each row execute function f();",
        "the trigger or rule that keeps the row",
    );
}

#[test]
fn a_file_that_resets_all_is_no_escape() {
    let world = World::new().start();
    world.migration("0001_reset", "create table a (id int); reset all;", "drop table a; reset all;");
    world.tables(2, 1);
    world.ctl(&["apply"]).expect(0);
    world.ctl(&["rollback", "--steps=2"]).expect(0);
    assert!(world.database.tables().is_empty());
}

#[test]
fn a_file_that_ends_its_transaction_unseen_is_never_undone_by_itself() {
    let world = World::new().start();
    world.database.sql("create table before (id int); insert into before values (1)");
    // In a file of several messages, what the lexer takes for a string the server does not, once
    // an earlier message has turned that off.
    let padding = format!("select '{}';\n", "x".repeat(1_000)).repeat(1_200);
    let up =
        format!("set standard_conforming_strings = off;\n{padding}select '\\''; commit; --';\nselect 1/0;\n");
    world.migration("0001_unseen", &up, "drop table before;");
    let told = world.ctl(&["apply"]).expect(1);
    assert!(told.contains("NX0032"), "{told}");
    for verb in ["apply", "rollback"] {
        let told = world.ctl(&[verb]).expect(1);
        assert!(told.contains("NX0058"), "{told}");
    }
    assert_eq!(world.database.sql("select * from before"), ["1"]);
    world.ctl(&["repair", "forget", "1", "--reason", "looked", "--yes"]).expect(0);
    assert!(world.database.rows().is_empty());
}

#[test]
fn a_file_that_ended_its_transaction_is_not_tried_again() {
    let world = World::new().set("lock_timeout = \"100ms\"\nlock_retries = 2").start();
    world.database.sql("create table seen (id int); create table busy (id int)");
    let padding = format!("select '{}';\n", "x".repeat(1_000)).repeat(1_200);
    let up = format!(
        "set standard_conforming_strings = off;\ninsert into seen values (1);\n{padding}\
         select '\\''; commit; --';\nalter table busy add column more int;\n"
    );
    world.migration("0001_unseen", &up, "drop table seen;");
    let holder = world.database.hold("begin; lock table busy in access share mode");
    let told = world.ctl(&["apply"]).expect(1);
    drop(holder);
    assert!(told.contains("NX0032"), "{told}");
    assert_eq!(world.database.sql("select count(*) from seen"), ["1"]);
}

#[test]
fn what_has_no_end_is_refused() {
    for (up, what) in [
        ("insert into t values ('abc", "string"),
        ("select \"abc", "quoted identifier"),
        ("select $a$ abc $b$", "dollar-quoted string"),
        ("select 1; /* abc /* */", "comment"),
    ] {
        refuses(up, "NX0018", what);
    }
}

#[test]
fn a_changed_search_path_changes_nothing_of_ours() {
    let world = World::new().start();
    let up = "create schema other; create table other.schema_migrations (x int);\n\
              set search_path = other; create table there (id int);\n";
    world.migration("0001_path", up, "drop schema other cascade;");
    world.tables(2, 1);
    world.ctl(&["apply"]).expect(0);
    assert_eq!(world.database.rows(), ["0001_path|f", "0002_t2|f"]);
    assert_eq!(world.database.tables(), ["t2"], "the next one has its own search_path");
    assert_eq!(world.database.sql("select count(*) from other.there"), ["0"]);
}

#[test]
fn settings_roles_and_temporary_objects_do_not_reach_the_next_file() {
    let world = World::new().start();
    world.migration("0001_a", "set work_mem = '77MB'; create temp table scratch (id int);", "select 1;");
    world.migration(
        "0002_b",
        "create table seen as select current_setting('work_mem') as work_mem, to_regclass('pg_temp.scratch') as scratch;",
        "drop table seen;",
    );
    world.ctl(&["apply"]).expect(0);
    let seen = world.database.sql("select work_mem, scratch is null from seen");
    assert!(seen[0].ends_with("|t") && !seen[0].starts_with("77MB"), "{seen:?}");
}

#[test]
fn a_file_wrapped_for_another_tool_is_accepted() {
    let world = World::new().start();
    world.migration(
        "0001_a",
        "-- made elsewhere\nBEGIN;\ncreate table a (id int);\nCOMMIT;\n",
        "begin; drop table a; end;",
    );
    let told = world.ctl(&["apply"]).expect(0);
    assert!(told.contains("its own BEGIN and COMMIT are left out"), "{told}");
    assert_eq!(world.database.tables(), ["a"]);
    world.ctl(&["rollback"]).expect(0);
    assert!(world.database.tables().is_empty());
}

#[test]
fn names_duplicates_and_sizes() {
    let world = World::new().set("max_file_size = \"1KiB\"").start();
    let check = |name: &str, text: &str, code: &str| {
        world.tables(1, 1);
        world.write(name, text);
        for verb in ["apply", "plan"] {
            let told = world.ctl(&[verb]).expect(1);
            assert!(told.contains(code) && told.contains(name), "{told}");
        }
        assert!(world.database.rows().is_empty());
        world.remove(name);
    };
    check("002_short.up.sql", "select 1;", "NX0001");
    check("0002_Upper.up.sql", "select 1;", "NX0001");
    check("0002_none.sql", "select 1;", "NX0001");
    check("0001_twice.up.sql", "select 1;", "NX0002");
    check("0002_alone.down.sql", "select 1;", "NX0011");
    check("0002_big.up.sql", &"select 1;\n".repeat(200), "NX0006");
    symlink("nowhere", world.path("migrations/0002_gone.up.sql")).expect("a link is made");
    assert!(world.ctl(&["apply"]).expect(1).contains("NX0015"));
    world.remove("0002_gone.up.sql");
    world.write("notes.txt", "not SQL: ignored");
    world.ctl(&["apply"]).expect(0);
}

#[test]
fn a_missing_directory_is_told_and_found_again() {
    let world = World::new().start();
    fs::rename(world.path("migrations"), world.path("away")).expect("the directory is moved");
    assert!(world.ctl(&["apply"]).expect(1).contains("NX0014"));
    assert!(world.ctl(&["status"]).expect(1).contains("NX0014"));
    fs::rename(world.path("away"), world.path("migrations")).expect("the directory is moved");
    world.tables(1, 1);
    world.ctl(&["apply"]).expect(0);
}

#[test]
fn line_endings_and_marks_are_a_warning() {
    let world = World::new().start();
    world.migration(
        "0001_a",
        "\u{feff}create table a (id int);\r\ncreate table b (id int);\r\n",
        "drop table a, b;",
    );
    world.ctl(&["apply"]).expect(0);
    world.write("0001_a.up.sql", "create table a (id int);\ncreate table b (id int);\n");
    let told = world.ctl(&["apply"]).expect(0);
    assert!(told.contains("line endings"), "{told}");
    world.ctl(&["status", "--check"]).expect(0);
    world.write("0001_a.up.sql", "create table a (id int);\n");
    world.ctl(&["status", "--check"]).expect(3);
    assert!(world.ctl(&["apply"]).expect(1).contains("NX0020"));
}

#[test]
fn another_tools_table_is_not_touched() {
    for (ddl, tool) in [
        (
            "create table schema_migrations (version bigint primary key, dirty boolean not null)",
            "golang-migrate",
        ),
        ("create table schema_migrations (version varchar(128) primary key)", "dbmate"),
        ("create view schema_migrations as select 1 as version", "not a table"),
    ] {
        let world = World::new().start();
        world.database.sql(ddl);
        world.tables(1, 1);
        let told = world.ctl(&["apply"]).expect(1);
        assert!(told.contains("NX0028") && told.contains(tool), "{told}");
        assert!(
            world.database.sql("select to_regclass('t1') is null and to_regclass('nexus_journal') is null")
                [0]
                == "t"
        );
        assert!(world.ctl(&["status"]).expect(1).contains(tool));
    }
}

#[test]
fn values_of_tables_are_in_no_log_and_no_journal() {
    let world = World::new().start();
    let up = "create table secrets (id int primary key, code text);\n\
              insert into secrets values (1, 'CANARY-ONE');\n\
              select 'CANARY-TWO'::int;\n";
    world.migration("0001_secret", up, "drop table secrets;");
    let up = "create table keys (code text primary key);\n\
              insert into keys values ('CANARY-THREE'), ('CANARY-THREE');\n";
    world.ctl(&["apply"]).expect(1);
    world.write("0001_secret.up.sql", up);
    world.ctl(&["apply"]).expect(1);
    let raise = "create table keys (code text); insert into keys values ('CANARY FOUR');\n\
                 do $$ begin raise exception 'no: %', (select code from keys) using errcode = '55000', \
                 hint = (select code from keys); end $$;\n";
    world.write("0001_secret.up.sql", raise);
    let told = world.ctl(&["apply"]).expect(1);
    assert!(told.contains("no: CANARY FOUR"), "the operator sees it: {told}");
    let log = fs::read_to_string(world.path("migrations.jsonl")).expect("the log is read");
    let journal = world.database.sql("select message from nexus_journal").join("\n");
    assert!(!log.contains("CANARY") && !journal.contains("CANARY"), "{log}\n{journal}");
    assert!(log.contains("22P02") && log.contains("23505"), "{log}");
}

#[test]
fn the_guard_lets_a_script_reset_what_is_its_own() {
    let world = World::new().start();
    world.migration(
        "0001_tidy",
        "create table a (id int); reset all; close all; unlisten *;",
        "drop table a;",
    );
    world.ctl(&["apply"]).expect(0);
    assert_eq!(world.database.rows(), ["0001_tidy|f"]);
}

#[test]
fn a_table_that_is_gone_is_no_new_beginning() {
    let world = World::new().start();
    world.tables(1, 2);
    world.ctl(&["apply"]).expect(0);
    let before = world.database.sql("select version, checksum from schema_migrations order by 1");
    world.database.sql("drop table schema_migrations; drop table t1");
    let told = world.ctl(&["apply"]).expect(1);
    assert!(told.contains("NX0059") && told.contains("schema_migrations is gone"), "{told}");
    assert!(!world.database.tables().contains(&"t1".to_owned()), "nothing was run again");
    assert!(world.ctl(&["status"]).expect(1).contains("NX0059"));
    assert!(world.ctl(&["audit", "run"]).expect(0).contains("table_gone"));
    let history = world.ctl(&["history"]).expect(0);
    assert!(history.contains("0001_t1") && history.contains("0002_t2"), "the evidence is read: {history}");

    // The remedy of the finding's page.
    let page = include_str!("../../docs/findings/table_gone.md");
    let sql = page.split("```sql\n").nth(1).and_then(|rest| rest.split("```").next());
    world.database.sql(sql.expect("the page has the SQL"));
    assert_eq!(world.database.sql("select version, checksum from schema_migrations order by 1"), before);
    assert!(world.ctl(&["apply"]).expect(0).contains("up to date"));
}
