//! What scripts may be: large, slow, limited by their headers, changed under the run.

use std::fmt::Write as _;

use crate::support::World;

#[test]
fn a_large_file_is_one_transaction_in_many_messages() {
    let world = World::new().start();
    let mut text = String::from("create table rows (id int primary key, note text);\n");
    for number in 1..=30_000 {
        writeln!(text, "insert into rows values ({number}, 'a note, and it''s ; not -- the end');")
            .expect("a text grows");
    }
    world.migration(
        "0001_rows",
        &format!("{text}insert into rows values (7, 'twice');\n"),
        "drop table rows;",
    );
    let told = world.ctl(&["apply"]).expect(1);
    assert!(told.contains("0001_rows.up.sql:30002:1") && told.contains("23505"), "{told}");
    assert!(world.database.tables().is_empty(), "nothing of it was kept");
    world.write("0001_rows.up.sql", &text);
    world.ctl(&["apply"]).expect(0);
    assert_eq!(world.database.sql("select count(*), max(id) from rows"), ["30000|30000"]);
}

#[test]
fn positions_are_those_of_the_file() {
    let world = World::new().start();
    let check = |up: &str, place: &str| {
        world.write("0001_a.up.sql", up);
        world.write("0001_a.down.sql", "select 1;");
        let told = world.ctl(&["apply"]).expect(1);
        assert!(told.contains(place), "{place}: {told}");
    };
    check("create table a (id int);\nselect nothing from a;\n", "0001_a.up.sql:2:8");
    check("-- Ünïcödé\nselect 'ä', nowhere;", "0001_a.up.sql:2:13");
    check("\u{feff}select\r\n  nowhere;\r\n", "0001_a.up.sql:2:3");
    check(
        "create table a (id int unique deferrable initially deferred);\ninsert into a values (1), (1);\n",
        "commit",
    );
    check("-- nexus: no-transaction\nselect 1;\nselect nowhere;\n", "0001_a.up.sql:3:8");
}

#[test]
fn headers_set_limits() {
    let world = World::new().start();
    world.migration("0001_slow", "-- nexus: statement-timeout 200ms\nselect pg_sleep(60);\n", "select 1;");
    let told = world.ctl(&["apply"]).expect(1);
    assert!(told.contains("NX0034") && told.contains("57014"), "{told}");
    world.write(
        "0001_slow.up.sql",
        "-- nexus: no-transaction\n-- nexus: statement-timeout 200ms\nselect pg_sleep(60);\n",
    );
    let told = world.ctl(&["apply"]).expect(1);
    assert!(told.contains("NX0031") && told.contains("57014"), "{told}");
    world.write("0001_slow.up.sql", "select current_setting('statement_timeout');\n");
    world.ctl(&["apply"]).expect(0);
}

#[test]
fn a_file_that_changes_under_the_run_is_not_run() {
    let world = World::new().start();
    world.migration("0001_slow", "create table slow (id int);\nselect pg_sleep(1.5);\n", "drop table slow;");
    // The script after the running one has been read already, as it was planned.
    world.tables(2, 2);
    let client = world.daemon.ctl_begin(&["apply"]);
    world.database.await_row("select 1 from pg_stat_activity where query like '%pg_sleep(1.5)%' and application_name like 'nexusd %' and datname = current_database()");
    world.write("0003_t3.up.sql", "create table another (id int);\n");
    let told = client.end().expect(1);
    assert!(told.contains("NX0016") && told.contains("0003_t3.up.sql"), "{told}");
    assert_eq!(world.database.tables(), ["slow", "t2"]);
    world.ctl(&["apply"]).expect(0);
    assert_eq!(world.database.tables(), ["another", "slow", "t2"]);
}

#[test]
fn functions_blocks_and_bodies_are_whole() {
    let world = World::new().start();
    let up = "create function f() returns int language plpgsql as $body$\nbegin\n  return 1; -- ; commit;\nend\n$body$;\n\
              create function g(a int) returns int language sql begin atomic select case when a > 0 then 1 else 2 end; end;\n\
              create table t (id int);\ncreate rule r as on delete to t do also (select 1; select 2);\n\
              do $$ begin perform f(); end $$;\nselect 'it''s ; here' -- the end";
    world.migration("0001_bodies", up, "drop table t; drop function g; drop function f;");
    world.ctl(&["apply"]).expect(0);
    assert_eq!(world.database.sql("select f(), g(1)"), ["1|1"]);
    world.ctl(&["rollback"]).expect(0);
    assert!(world.database.tables().is_empty());
}

#[test]
fn deep_nesting_does_not_end_the_daemon() {
    let world = World::new().start();
    let deep = format!("create table t as select {}1{} as one;\n", "(".repeat(100_000), ")".repeat(100_000));
    world.migration("0001_deep", &deep, "drop table t;");
    world.ctl(&["apply"]).expect(1);
    world.write("0001_deep.up.sql", "create table t as select 1 as one;\n");
    world.ctl(&["apply"]).expect(0);
}
