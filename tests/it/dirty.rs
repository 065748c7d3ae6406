//! Dirty rows: how they come, what is told of them, and how the evidence settles them.

use crate::support::{Running, World, fail};

const FAILING: &str = "create table half (id int);\ninsert into half values (1);\nselect 1/0;\n";

#[test]
fn a_failing_migration_leaves_a_dirty_row_and_nothing_else() {
    let world = World::new().start();
    world.tables(1, 1);
    world.migration("0002_half", FAILING, "drop table half;");
    world.tables(3, 1);
    let told = world.ctl(&["apply"]).expect(1);
    assert!(told.contains("0002_half.up.sql:3:1"), "{told}");
    assert!(told.contains("22012") && told.contains("hint:"), "{told}");
    assert_eq!(world.database.rows(), ["0001_t1|f", "0002_half|t"]);
    assert_eq!(world.database.tables(), ["t1"]);
    let lines = world.logged("Migration failed and was rolled back");
    let [line] = lines.as_slice() else { fail(&format!("one line: {lines:?}")) };
    assert_eq!((&line["level"], &line["version"]), (&"error".into(), &"0002_half".into()));
    world.ctl(&["status", "--check"]).expect(3);
    let status = world.ctl(&["status"]).expect(0);
    assert!(status.contains("DIRTY"), "{status}");

    // Corrected: the next apply settles it by evidence and goes on.
    world.write("0002_half.up.sql", FAILING.replace("1/0", "1"));
    world.ctl(&["apply"]).expect(0);
    assert_eq!(world.database.rows(), ["0001_t1|f", "0002_half|f", "0003_t3|f"]);
    let found = world.logged("Found migrations in dirty state");
    assert_eq!(found[0]["versions"], serde_json::json!(["0002_half"]));
    assert_eq!(found[0]["level"], "warn");
}

#[test]
fn recovery_can_be_refused() {
    let world = World::new().start();
    world.migration("0001_half", FAILING, "drop table half;");
    world.ctl(&["apply"]).expect(1);
    let told = world.ctl(&["apply", "--no-auto-recover"]).expect(1);
    assert!(told.contains("NX0023") && told.contains("nothing of the attempt was committed"), "{told}");
    assert_eq!(world.database.rows(), ["0001_half|t"]);
    world.ctl(&["recover", "--yes"]).expect(0);
    assert!(world.database.rows().is_empty());
}

#[test]
fn a_row_marked_by_hand_is_recovered_through_its_down_file() {
    let world = World::new().start();
    world.tables(1, 2);
    world.ctl(&["apply"]).expect(0);
    world.database.sql("insert into t2 values (7)");
    world.database.sql("update schema_migrations set dirty = true where version = '0002_t2'");
    world.ctl(&["apply"]).expect(0);
    assert_eq!(world.database.rows(), ["0001_t1|f", "0002_t2|f"]);
    assert!(world.database.sql("select * from t2").is_empty(), "the down and the up were run");
}

#[test]
fn without_a_down_script_nothing_is_changed() {
    let world = World::new().start();
    world.write("0001_t1.up.sql", "create table t1 (id int);");
    world.ctl(&["apply"]).expect(0);
    world.database.sql("update schema_migrations set dirty = true");
    let told = world.ctl(&["apply"]).expect(1);
    assert!(told.contains("No down migration found for dirty migration"), "{told}");
    assert_eq!(world.database.rows(), ["0001_t1|t"]);
    assert_eq!(world.database.tables(), ["t1"]);
    let lines = world.logged("No down migration found for dirty migration");
    assert_eq!((&lines[0]["level"], &lines[0]["version"]), (&"error".into(), &"0001_t1".into()));
    // The remedies of the runbook.
    world.write("0001_t1.down.sql", "drop table t1;");
    world.ctl(&["rollback", "--steps=1"]).expect(0);
    assert!(world.database.tables().is_empty() && world.database.rows().is_empty());
}

#[test]
fn a_table_that_was_there_before_survives_the_recovery() {
    let world = World::new().start();
    world.database.sql("create table products (id int); insert into products values (1), (2)");
    let up = "create table if not exists products (id int);\ninsert into nowhere values (1);\n";
    world.migration("0010_add_products", up, "drop table if exists products;\n");
    world.ctl(&["apply"]).expect(1);
    world.write("0010_add_products.up.sql", "create table if not exists products (id int);\n");
    world.ctl(&["apply"]).expect(0);
    assert_eq!(world.database.sql("select count(*) from products"), ["2"]);
}

#[test]
fn a_failed_rollback_leaves_the_migration_applied() {
    let world = World::new().start();
    world.migration("0001_t1", "create table t1 (id int);", "drop table t1; drop table nowhere;");
    world.ctl(&["apply"]).expect(0);
    let told = world.ctl(&["rollback"]).expect(1);
    assert!(told.contains("0001_t1.down.sql:1:16") && told.contains("rollback --from file"), "{told}");
    assert_eq!(world.database.rows(), ["0001_t1|t"]);
    world.ctl(&["apply"]).expect(0);
    assert_eq!(world.database.rows(), ["0001_t1|f"]);
    assert_eq!(world.database.tables(), ["t1"]);
}

#[test]
fn a_partly_applied_migration_is_undone_or_resumed() {
    const NO_TRANSACTION: &str = "-- nexus: no-transaction\n";
    let up = format!(
        "{NO_TRANSACTION}create table a (id int);\ncreate table b (id int);\nselect 1/0;\ncreate table c (id int);\n"
    );
    let down =
        format!("{NO_TRANSACTION}drop table if exists c; drop table if exists b; drop table if exists a;\n");
    for resume in [false, true] {
        let world = World::new().start();
        world.migration("0001_abc", &up, &down);
        let told = world.ctl(&["apply"]).expect(1);
        assert!(told.contains("after 2 of 4 statements") && told.contains("0001_abc.up.sql:4:1"), "{told}");
        assert_eq!(world.database.tables(), ["a", "b"]);
        assert_eq!(world.database.rows(), ["0001_abc|t"]);
        world.database.sql("insert into a values (1)");
        world.write("0001_abc.up.sql", up.replace("1/0", "1"));
        world.ctl(if resume { &["apply", "--resume"] } else { &["apply"] }).expect(0);
        assert_eq!(world.database.tables(), ["a", "b", "c"]);
        assert_eq!(world.database.rows(), ["0001_abc|f"]);
        let kept = world.database.sql("select count(*) from a");
        assert_eq!(kept, [if resume { "1" } else { "0" }], "resumed, the first statements are not run again");
        world.ctl(&["status", "--check"]).expect(0);
    }
}

#[test]
fn repairs_change_one_row_and_keep_their_reason() {
    let world = World::new().start();
    world.tables(1, 2);
    world.ctl(&["apply"]).expect(0);
    world.database.sql("update schema_migrations set dirty = true where version = '0002_t2'");
    world.ctl(&["repair", "clear-dirty", "0002_t2", "--yes"]).expect(2);
    world.ctl(&["repair", "clear-dirty", "2", "--reason", "looked: it is in place", "--yes"]).expect(0);
    assert_eq!(world.database.rows(), ["0001_t1|f", "0002_t2|f"]);
    let again = world.ctl(&["repair", "clear-dirty", "2", "--reason", "x", "--yes"]).expect(1);
    assert!(again.contains("it is not dirty"), "{again}");

    world.write("0001_t1.up.sql", "create table t1 (id int primary key); -- a comment\n");
    assert!(world.ctl(&["apply"]).expect(1).contains("Migration 0001_t1 checksum mismatch"));
    assert_eq!(world.logged("Migration 0001_t1 checksum mismatch").len(), 1);
    world.ctl(&["repair", "accept-checksum", "1", "--reason", "a comment", "--yes"]).expect(0);
    world.ctl(&["apply"]).expect(0);

    for direction in ["up", "down"] {
        let path = |name: &str| world.path("migrations").join(format!("{name}.{direction}.sql"));
        std::fs::rename(path("0002_t2"), path("0005_t2")).expect("a file is renamed");
    }
    assert!(world.ctl(&["apply"]).expect(1).contains("NX0022"));
    world.ctl(&["repair", "rename", "0002_t2", "0005_t2", "--reason", "collision", "--yes"]).expect(0);
    world.ctl(&["status", "--check"]).expect(0);

    world.ctl(&["repair", "forget", "5", "--reason", "try", "--yes"]).expect(0);
    assert_eq!(world.database.rows(), ["0001_t1|f"]);
    world.ctl(&["repair", "mark-applied", "5", "--reason", "it is there", "--yes"]).expect(0);
    assert_eq!(world.database.rows(), ["0001_t1|f", "0005_t2|f"]);
    let history = world.ctl(&["history"]).expect(0);
    for reason in ["looked: it is in place", "a comment", "collision", "it is there"] {
        assert!(history.contains(reason), "{history}");
    }
    // The kept down script went along with the new name.
    world.remove("0005_t2.down.sql");
    world.ctl(&["rollback"]).expect(0);
    assert_eq!(world.database.tables(), ["t1"]);
}

#[test]
fn what_a_trigger_or_a_rule_keeps_is_not_told_as_done() {
    let world = World::new().start();
    world.migration("0001_t1", "select 1/0;", "select 1;");
    world.ctl(&["apply"]).expect(1);
    assert_eq!(world.database.rows(), ["0001_t1|t"]);
    let kept = |arguments: &[&str]| {
        let told = world.ctl(arguments).expect(1);
        assert!(told.contains("NX0046") && told.contains("triggers and rules"), "{told}");
        assert_eq!(world.database.rows(), ["0001_t1|t"]);
    };
    world.database.sql(
        "create function keep() returns trigger language plpgsql as 'begin return null; end'; \
         create trigger keep before update or delete on schema_migrations for each row execute function keep()",
    );
    let clear = ["repair", "clear-dirty", "1", "--reason", "looked", "--yes"];
    kept(&["recover"]);
    kept(&clear);
    world.database.sql("drop trigger keep on schema_migrations");
    world.database.sql(
        "create or replace function keep() returns trigger language plpgsql as \
         'begin raise ''not now''; end'",
    );
    world.database.sql("create trigger keep before update on schema_migrations execute function keep()");
    kept(&clear);
    world.database.sql("drop trigger keep on schema_migrations");
    world.database.sql(
        "create or replace function keep() returns trigger language plpgsql as \
         'begin new.dirty := true; return new; end'",
    );
    world
        .database
        .sql("create trigger keep before update on schema_migrations for each row execute function keep()");
    kept(&clear);
    world.database.sql("drop trigger keep on schema_migrations");
    world.database.sql("create rule keep as on update to schema_migrations do instead nothing");
    kept(&clear);
    world.database.sql("drop rule keep on schema_migrations");
    world.ctl(&["recover"]).expect(0);
    assert!(world.database.rows().is_empty());
    // What would count as applied before it was run.
    world.database.sql(
        "create or replace function keep() returns trigger language plpgsql as \
         'begin new.dirty := false; return new; end'",
    );
    world
        .database
        .sql("create trigger keep before insert on schema_migrations for each row execute function keep()");
    world.write("0001_t1.up.sql", "create table t1 (id int);");
    let told = world.ctl(&["apply"]).expect(1);
    assert!(told.contains("NX0046") && told.contains("while marking the row"), "{told}");
    assert!(world.database.rows().is_empty() && world.database.tables().is_empty());
}

/// A dirty row whose down file would drop a table that was there before: recovery must not run it.
#[track_caller]
fn recovery_keeps_the_table(failing: &str, between: impl Fn(&Running), good: &str) {
    let world = World::new().start();
    world.database.sql("create table products (id int); insert into products values (1), (2)");
    world.migration("0001_products", failing, "drop table if exists products;\n");
    world.ctl(&["apply"]).expect(1);
    world.write("0001_products.up.sql", good);
    between(&world);
    world.ctl(&["apply"]).expect(0);
    assert_eq!(world.database.sql("select count(*) from products"), ["2"]);
    world.ctl(&["status", "--check"]).expect(0);
}

#[test]
fn a_first_statement_that_fails_outside_a_transaction_has_changed_nothing() {
    let header = "-- nexus: no-transaction\n";
    let failing = format!("{header}create table products (oops);\nselect 1;\n");
    recovery_keeps_the_table(&failing, |_| {}, &format!("{header}select 1;\nselect 2;\n"));
}

#[test]
fn a_new_checksum_is_no_evidence() {
    let accept = |world: &Running| {
        let repair = ["repair", "accept-checksum", "1", "--reason", "corrected", "--yes"];
        world.ctl(&repair).expect(0);
    };
    let good = "create table if not exists products (id int);\n";
    recovery_keeps_the_table(&format!("{good}select 1/0;\n"), accept, good);
}

#[test]
fn a_dirty_row_keeps_its_name_and_a_foreign_one_has_no_evidence() {
    let world = World::new().start();
    world.migration("0001_a", "select 1/0;", "create table down_was_run (id int);");
    world.ctl(&["apply"]).expect(1);
    world.migration("0002_b", "select 1;", "select 1;");
    let told = world.ctl(&["repair", "rename", "0001_a", "0002_b", "--reason", "x", "--yes"]).expect(1);
    assert!(told.contains("NX0029") && told.contains("recover it first"), "{told}");
    world.remove("0002_b.up.sql");
    world.remove("0002_b.down.sql");
    // The older tool makes the row again: what the journal says is about another one.
    world.database.sql("delete from schema_migrations");
    world
        .database
        .sql("insert into schema_migrations (version, checksum, dirty) values ('0001_a', 'x', true)");
    world.write("0001_a.up.sql", "select 1;");
    world.ctl(&["apply"]).expect(0);
    assert_eq!(world.database.tables(), ["down_was_run"]);
}

#[test]
fn a_resume_over_an_edited_beginning_is_refused() {
    let world = World::new().start();
    let up = "-- nexus: no-transaction\ncreate table a (id int);\nselect 1/0;\n";
    world.migration("0001_a", up, "drop table a;");
    world.ctl(&["apply"]).expect(1);
    world.write("0001_a.up.sql", up.replace("table a", "table b").replace("1/0", "1"));
    let told = world.ctl(&["apply", "--resume"]).expect(1);
    assert!(told.contains("NX0058") && told.contains("not those that were run"), "{told}");
    world.write("0001_a.up.sql", up.replace("1/0", "1"));
    world.ctl(&["apply", "--resume"]).expect(0);
    assert_eq!(world.database.tables(), ["a"]);
}

#[test]
fn a_script_that_was_done_to_its_end_is_ended_and_not_undone() {
    let world = World::new().start();
    let up = "-- nexus: no-transaction\ncreate table a (id int);\nselect 1;\n";
    world.migration("0001_a", up, "drop table a;");
    world.ctl(&["apply"]).expect(0);
    world.database.sql("insert into a values (7)");
    // As a daemon leaves it that dies between the last statement and the end.
    world.database.sql("update nexus_journal set outcome = 'running', started_at = now()");
    world.database.sql(
        "update schema_migrations set dirty = true, applied_at = (select started_at from nexus_journal)",
    );
    world.ctl(&["apply"]).expect(0);
    assert_eq!(world.database.sql("select * from a"), ["7"]);
    assert_eq!(world.database.rows(), ["0001_a|f"]);
}
