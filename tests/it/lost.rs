//! A connection that is cut around the COMMIT, and a server that crashes: what became of the step
//! is asked of the tables, never guessed.

use nexus::postgres::embedded::Embedded;

use crate::{
    proxy::{Harm, How, Proxy},
    support::{Database, World, await_that, server},
};

/// A text that stands only in the message that ends a transactional step.
const END_OF_STEP: &str = "nexus.escaped.transaction";

#[test]
fn a_commit_whose_answer_is_lost_counts() {
    let proxy = Proxy::to(server().port());
    let world = World::through(&proxy).start();
    world.tables(1, 3);
    proxy.harm(Harm { at: &["create table t2"], how: How::CutAfter });
    world.ctl(&["apply"]).expect(0);
    assert_eq!(world.database.rows(), ["0001_t1|f", "0002_t2|f", "0003_t3|f"]);
    assert_eq!(world.logged("Migration applied successfully").len(), 3);
    assert_eq!(world.database.sql("select count(*) from nexus_journal where outcome = 'succeeded'"), ["3"]);
}

#[test]
fn a_commit_that_never_arrived_does_not() {
    let proxy = Proxy::to(server().port());
    let world = World::through(&proxy).start();
    world.tables(1, 3);
    proxy.harm(Harm { at: &["create table t2"], how: How::CutBefore });
    let told = world.ctl(&["apply"]).expect(1);
    assert!(told.contains("NX0036") && told.contains("nothing of it was committed"), "{told}");
    assert_eq!(world.database.rows(), ["0001_t1|f", "0002_t2|t"]);
    assert_eq!(world.database.tables(), ["t1"]);
    assert_eq!(world.logged("Migration applied successfully").len(), 1, "the first one is reported");
    world.ctl(&["apply"]).expect(0);
    assert_eq!(world.database.tables(), ["t1", "t2", "t3"]);
}

#[test]
fn the_same_for_a_rollback() {
    for (how, code) in [(How::CutAfter, 0), (How::CutBefore, 1)] {
        let proxy = Proxy::to(server().port());
        let world = World::through(&proxy).start();
        world.tables(1, 2);
        world.ctl(&["apply"]).expect(0);
        proxy.harm(Harm { at: &[END_OF_STEP], how });
        world.ctl(&["rollback"]).expect(code);
        world.ctl(&["apply", "--to=1"]).expect(0);
        let expected: &[&str] = if how == How::CutAfter { &["t1"] } else { &["t1", "t2"] };
        assert_eq!(world.database.tables(), expected);
        world.ctl(&["apply"]).expect(0);
        assert_eq!(world.database.rows(), ["0001_t1|f", "0002_t2|f"]);
    }
}

#[test]
fn a_server_that_crashes_takes_no_step_that_was_reported() {
    let mut crashing = Embedded::start(&[("wal_writer_delay", "10s")]).expect("PostgreSQL starts");
    let world = World::on(Database::on(&crashing, "crashing")).start();
    world.tables(1, 20);
    world.migration("0021_slow", "select pg_sleep(600);", "select 1;");
    let client = world.daemon.ctl_begin(&["apply"]);
    world.database.await_row("select 1 from pg_stat_activity where query like '%pg_sleep(600)%' and state = 'active' and application_name like 'nexusd %'");
    crashing.kill().expect("it crashes");
    crashing.restart().expect("it starts again");
    client.end().expect(1);
    let reported = world.logged("Migration applied successfully").len();
    let applied = world.database.sql("select count(*) from schema_migrations where not dirty");
    assert_eq!(applied, [reported.to_string()], "what was reported is there, and nothing else");
    world.write("0021_slow.up.sql", "select 1;");
    await_that("everything is applied", || world.ctl(&["apply"]).code == Some(0));
    assert_eq!(world.database.tables().len(), 20);
    world.ctl(&["status", "--check"]).expect(0);
}
