//! Gates on a real PostgreSQL: what holds, what does not, and all that cannot be decided.

use std::{
    net::TcpListener,
    time::{Duration, Instant},
};

use nexus::engine::{self, GateVerdict};

use crate::{
    direct::database,
    support::{Database, fail, wait},
};

/// Short, so that what does not pass is told soon.
const LIMIT: Duration = Duration::from_millis(700);

#[test]
fn what_is_not_one_boolean_is_inconclusive_and_changes_nothing() {
    let plain = Database::new();
    plain.sql(
        "create schema app; create table app.t (n int, secret text); insert into app.t values (1, 'hunter2'); \
         create function app.swallow() returns boolean language sql as 'update app.t set n = 2 returning true'; \
         create function app.leak() returns boolean language plpgsql as \
           'begin raise exception ''%'', (select secret from app.t); end'; \
         create procedure app.commits(inout b boolean) language plpgsql as \
           'begin commit; update app.t set n = 3; end'",
    );
    let database = database(&plain.url, "app");
    let check = |sql: &str, expected: Result<bool, &str>| {
        let verdict = wait(engine::gate(&database, sql, LIMIT));
        match (&verdict, expected) {
            (GateVerdict::Passed, Ok(true)) | (GateVerdict::Failed, Ok(false)) => {}
            (GateVerdict::Inconclusive(why), Err(words)) if why.contains(words) => {
                assert!(!why.contains("hunter2"), "{sql}: {why}");
            }
            _ => fail(&format!("{sql}: {verdict:?}")),
        }
    };
    check("select true", Ok(true));
    check("select count(*) = 1 from t", Ok(true));
    check("select count(*) = 1 from t;", Ok(true));
    check("with x as (select n from t) select n > 1 from x", Ok(false));
    check("values (true)", Ok(true));
    check("select current_setting('transaction_read_only')::boolean", Ok(true));
    check("select 1", Err("it returns int4, not boolean"));
    check("select secret from t", Err("it returns text, not boolean"));
    check("select true, false", Err("it returns 2 columns, not one boolean"));
    check("select null::boolean", Err("it returned null"));
    check("select true where false", Err("it returned no row"));
    check("select true from generate_series(1, 1000)", Err("it returned several rows"));
    check("select $1::boolean", Err("it has parameters"));
    check("select secret::boolean from t", Err("it failed with 22P02"));
    check("select leak()", Err("it failed with P0001"));
    check("select nothing from nowhere", Err("it failed with 42P01"));
    check("selekt", Err("it failed with 42601"));
    check("", Err("it returns no rows"));
    check("commit", Err("it returns no rows"));
    check("select true; commit; delete from t", Err("it failed with 42601"));
    check("delete from t returning true", Err("it failed with 25006"));
    check("select swallow()", Err("it failed with 25006"));
    check("call commits(true)", Err("it failed with 2D000"));
    check("select pg_sleep(600) is null", Err("it did not answer within 700ms"));
    let held = plain.hold("begin; lock table app.t");
    check("select count(*) = 1 from t", Err("it"));
    drop(held);
    assert_eq!(plain.sql("select n from app.t"), ["1"]);
    let left = "select count(*) from pg_stat_activity where datname = current_database() \
                and pid <> pg_backend_pid() and query like '%pg_sleep%'";
    crate::support::await_that("the end of the statement that hung", || plain.sql(left) == ["0"]);
}

#[test]
fn a_gate_is_asked_again_until_it_holds_or_its_limit_is_over() {
    let plain = Database::new();
    plain.sql("create table ready (at timestamptz)");
    plain.sql("insert into ready values (now() + interval '2 seconds')");
    let database = database(&plain.url, "public");
    let sql = "select clock_timestamp() > at from ready";
    let started = Instant::now();
    assert_eq!(wait(engine::gate(&database, sql, Duration::from_millis(100))), GateVerdict::Failed);
    let patient = Duration::from_secs(50);
    assert_eq!(wait(engine::gate(&database, sql, patient)), GateVerdict::Passed);
    assert!(started.elapsed() > Duration::from_secs(1) && started.elapsed() < patient);
    // What failed and then hangs has failed.
    let hangs = "select case when clock_timestamp() < (select at + interval '2 s' from ready) then false \
                 else pg_sleep(600) is null end";
    plain.sql("update ready set at = clock_timestamp()");
    assert_eq!(wait(engine::gate(&database, hangs, Duration::from_secs(4))), GateVerdict::Failed);
}

#[test]
fn a_database_that_does_not_answer_is_inconclusive() {
    let free = TcpListener::bind("127.0.0.1:0").expect("a port is bound");
    let refused = free.local_addr().expect("it has an address").port();
    drop(free);
    // Connections are queued and never accepted.
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port is bound");
    let silent = listener.local_addr().expect("it has an address").port();
    for (port, words) in [(refused, "nothing listens there"), (silent, "answer within")] {
        let database = database(&format!("postgres://u@127.0.0.1:{port}/x"), "public");
        let started = Instant::now();
        let verdict = wait(engine::gate(&database, "select true", LIMIT));
        assert!(
            matches!(&verdict, GateVerdict::Inconclusive(why) if why.contains(words)),
            "{port}: {verdict:?}"
        );
        assert!(started.elapsed() < Duration::from_secs(5));
    }
    drop(listener);
}
