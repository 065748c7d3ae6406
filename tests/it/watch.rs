//! The monitor: what is wrong is told within a poll, and told once; looking disturbs nobody.

use std::{
    net::TcpListener,
    sync::Arc,
    time::{Duration, Instant},
};

use nexus::{
    engine::{self, Depth},
    migration::{Catalog, FindingKind},
};
use serde_json::Value;

use crate::{
    direct::database,
    proxy::Proxy,
    support::{Database, Running, World, await_that, read_log, server, wait},
};

const FAST: &str = "\n[watch]\npoll = \"100ms\"\n";

/// The log's lines on findings of a kind.
fn told(world: &Running, message: &str, kind: &str) -> Vec<Value> {
    world.logged(message).into_iter().filter(|line| line["kind"] == kind).collect()
}

fn await_told(world: &Running, message: &str, kind: &str, times: usize) -> Value {
    await_that(&format!("{message}: {kind}"), || told(world, message, kind).len() >= times);
    let mut lines = told(world, message, kind);
    assert_eq!(lines.len(), times, "{lines:?}");
    lines.pop().expect("there is one")
}

#[test]
fn an_edited_file_and_a_dirty_row_are_told_once_and_so_is_their_end() {
    let world = World::new().more(FAST).start();
    world.tables(1, 2);
    world.ctl(&["apply"]).expect(0);
    world.write("0001_t1.up.sql", "create table t1 (id bigint);\n");
    let line = await_told(&world, "Finding appeared", "checksum_drift", 1);
    assert_eq!(
        (&line["version"], &line["level"], &line["database"]),
        (&"0001_t1".into(), &"error".into(), &"main".into())
    );
    assert!(line["evidence"][0].as_str().is_some_and(|text| text.starts_with("stored checksum: ")), "{line}");
    world.write("0001_t1.up.sql", "create table t1 (id int primary key);\n");
    await_told(&world, "Finding is over", "checksum_drift", 1);

    world.database.sql("update schema_migrations set dirty = true where version like '0002%'");
    let line = await_told(&world, "Found migrations in dirty state", "dirty", 1);
    assert_eq!((&line["versions"][0], &line["level"]), (&"0002_t2".into(), &"warn".into()));
    world.database.sql("update schema_migrations set dirty = false");
    await_told(&world, "Finding is over", "dirty", 1);

    // A table that is gone, and was quiet before, is looked at as a whole.
    world.database.sql("update schema_migrations set checksum = 'ab' where version like '0001%'");
    await_told(&world, "Finding appeared", "checksum_drift", 2);
    world.database.sql("drop table schema_migrations, nexus_journal");
    await_told(&world, "Finding is over", "checksum_drift", 2);
}

#[test]
fn what_is_pending_for_too_long_is_told_though_nothing_changes() {
    let world = World::new().more("\n[watch]\npoll = \"100ms\"\npending_limit = \"3s\"\n").start();
    world.tables(1, 1);
    let line = await_told(&world, "Finding appeared", "pending_too_long", 1);
    assert_eq!(line["finding"], "Migration 0001_t1 has been pending for longer than 3s");
    world.ctl(&["apply"]).expect(0);
    await_told(&world, "Finding is over", "pending_too_long", 1);
}

#[test]
fn a_quiet_poll_costs_one_round_trip_and_only_reads() {
    let proxy = Proxy::to(server().port());
    let world = World::through(&proxy).more(FAST).start();
    world.tables(1, 3);
    world.ctl(&["apply"]).expect(0);
    let is_pulse = |text: &String| !text.contains("row_version") && !text.contains("unique_in");
    let mut quiet = Vec::new();
    await_that("the quiet of a fleet at rest", || {
        quiet = proxy.take_watched();
        !quiet.is_empty() && quiet.iter().all(is_pulse)
    });
    await_that("ten polls", || {
        quiet.extend(proxy.take_watched());
        quiet.len() >= 10
    });
    assert!(quiet.iter().all(|text| *text == quiet[0]), "{quiet:?}");

    world.database.sql("update schema_migrations set checksum = 'ab' where version like '0001%'");
    await_told(&world, "Finding appeared", "checksum_drift", 1);
    let looks = proxy.take_watched();
    assert!(looks.iter().any(|text| text.contains("row_version")), "{looks:?}");
    for text in quiet.iter().chain(&looks).filter(|text| text.starts_with('Q')) {
        assert!(text.contains(" read only; ") && text.ends_with("; commit\0"), "{text}");
        assert!(!text.contains("try_advisory") && !text.contains("for update"), "{text}");
    }
}

#[test]
fn an_attempt_under_way_is_not_dirty_and_a_locked_table_is_not_unreachable() {
    let proxy = Proxy::to(server().port());
    let world = World::through(&proxy).more(FAST).start();
    world.tables(1, 1);
    world.ctl(&["apply"]).expect(0);
    world.migration("0002_wide", "alter table t1 add n int;\n", "alter table t1 drop n;\n");
    let held = world.database.hold("begin; lock table t1");
    let apply = world.daemon.ctl_begin(&["apply"]);
    world.database.await_row("select 1 from schema_migrations where dirty");
    let polls = |count: usize| {
        proxy.take_watched();
        let mut seen = 0;
        await_that("some polls", || {
            seen += proxy.take_watched().len();
            seen >= count
        });
    };
    polls(6);
    drop(held);
    apply.end().expect(0);
    assert_eq!(told(&world, "Found migrations in dirty state", "dirty"), [] as [Value; 0]);

    let held = world.database.hold("begin; lock table schema_migrations");
    polls(4);
    drop(held);
    world.database.sql("update schema_migrations set dirty = true where version like '0001%'");
    await_told(&world, "Found migrations in dirty state", "dirty", 1);
    assert_eq!(told(&world, "Finding appeared", "database_unreachable"), [] as [Value; 0]);
}

#[test]
fn databases_that_do_not_answer_delay_nobody() {
    let free = TcpListener::bind("127.0.0.1:0").expect("a port is bound");
    let refused = free.local_addr().expect("it has an address").port();
    drop(free);
    // Connections are queued and never accepted.
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port is bound");
    let silent = listener.local_addr().expect("it has an address").port();
    let good = server().port();
    let database = |name: String, user: &str, port: u16| {
        format!(
            "\n[[database]]\nname = \"{name}\"\nurl = \"postgres://{user}@127.0.0.1:{port}/postgres\"\nmigrations = \"migrations\"\n"
        )
    };
    let world = (0..4).fold(World::new().more(FAST), |world, number| {
        world
            .more(&database(format!("refused-{number}"), "postgres", refused))
            .more(&database(format!("silent-{number}"), "postgres", silent))
            .more(&database(format!("stranger-{number}"), "postgres:wrong", good))
    });
    let world = world.start();
    world.tables(1, 1);
    world.ctl(&["apply", "--database", "main"]).expect(0);
    // Before the first of the silent ones is known to be so, the others are watched.
    world.database.sql("update schema_migrations set dirty = true");
    await_told(&world, "Found migrations in dirty state", "dirty", 1);
    assert_eq!(
        told(&world, "Finding appeared", "database_unreachable")
            .iter()
            .filter(|line| line["database"].as_str().is_some_and(|name| name.starts_with("silent")))
            .count(),
        0
    );
    await_that("all twelve", || told(&world, "Finding appeared", "database_unreachable").len() == 12);
    let evidence = |name: &str| {
        let lines = told(&world, "Finding appeared", "database_unreachable");
        let line = lines.iter().find(|line| line["database"] == name).expect("it is told");
        (line["evidence"][0].clone(), line["finding"].to_string())
    };
    for (name, code, said) in [
        ("refused-0", "NX0041", "nothing listens there"),
        ("silent-0", "NX0041", "no answer within 3s"),
        ("stranger-0", "NX0042", "password authentication failed"),
    ] {
        let (found, text) = evidence(name);
        assert!(found == code && text.contains(said), "{name}: {found} {text}");
    }
    // While they are waited for again, the good one is still on its poll.
    world.database.sql("update schema_migrations set dirty = false");
    await_told(&world, "Finding is over", "dirty", 1);
    drop(listener);
}

#[test]
fn what_was_interrupted_is_told_by_the_next_daemon() {
    let mut world = World::new().more(FAST).start();
    world.tables(1, 1);
    world.ctl(&["apply"]).expect(0);
    world.migration("0002_slow", "select pg_sleep(600);\n", "select 1;\n");
    let apply = world.daemon.ctl_begin(&["apply"]);
    let running = "select 1 from pg_stat_activity where query like '%pg_sleep(600)%' and state = 'active' \
                   and datname = current_database() and pid <> pg_backend_pid()";
    world.database.await_row(running);
    world.daemon.kill();
    drop(apply.end());
    await_that("the server gives up the dead client's statement", || world.database.sql(running).is_empty());
    world.daemon.restart();
    await_told(&world, "Found migrations in dirty state", "attempt_interrupted", 1);
    let line = await_told(&world, "Finding appeared", "attempt_interrupted", 1);
    assert_eq!(line["version"], "0002_slow");
    world.ctl(&["recover"]).expect(0);
    await_told(&world, "Finding is over", "attempt_interrupted", 1);
}

#[test]
fn a_log_that_cannot_be_written_is_told_to_be_over() {
    let world = World::new().more(FAST).start();
    let log = world.path("migrations.jsonl");
    std::fs::rename(&log, world.path("old.jsonl")).expect("it is moved");
    std::fs::create_dir(&log).expect("a directory takes its place");
    await_that("not ready", || world.daemon.page("/-/ready").0 == 503);
    // What was open before is still written to.
    let in_old = |message: &str| {
        let lines = read_log(&world.path("old.jsonl"));
        lines.into_iter().find(|line| line["message"] == message && line["kind"] == "log_unwritable")
    };
    await_that("the finding", || in_old("Finding appeared").is_some());
    std::fs::remove_dir(&log).expect("it is removed");
    let is_over = || log.exists() && !told(&world, "Finding is over", "log_unwritable").is_empty();
    await_that("its being over", || is_over() || in_old("Finding is over").is_some());
}

#[test]
fn a_deep_look_finds_what_the_schema_does_not_use() {
    let plain = Database::new();
    plain.sql(
        "create table t (n int); insert into t values (1), (1); \
         alter table t add constraint positive check (n > 5) not valid",
    );
    // It fails, and leaves its index.
    let failed = plain.try_sql("create unique index concurrently t_n on t (n)");
    assert!(failed.is_err());
    let database = Arc::new(database(&plain.url, "public"));
    let compared = Ok((Arc::new(Catalog::default()), None));
    let look = |depth| wait(engine::observe(&database, &compared, Duration::ZERO, depth));
    let seen = look(Depth::Everything);
    let found: Vec<_> = seen.findings.iter().map(|it| (it.kind, it.subject.as_str())).collect();
    assert_eq!(found, [(FindingKind::InvalidIndex, "t_n"), (FindingKind::NotValidConstraint, "t.positive")]);
    let shallow = look(Depth::Rows);
    assert_eq!(shallow.findings, []);
    assert!(shallow.unknown.contains(&FindingKind::InvalidIndex));
}

#[test]
fn with_notify_a_change_is_seen_at_once_and_the_trigger_goes_with_the_setting() {
    let slow = "\n[watch]\npoll = \"10min\"\n";
    let mut world = World::new().set("watch = \"notify\"").more(slow).start();
    world.tables(1, 2);
    world.ctl(&["apply"]).expect(0);
    let trigger = "select tgname from pg_trigger where tgname = 'nexus_watch'";
    world.database.await_row(trigger);
    let mut times = [Duration::ZERO; 3];
    for (number, time) in times.iter_mut().enumerate() {
        let is_told = |message| told(&world, message, "dirty").len() == number + 1;
        let begun = Instant::now();
        world.database.sql("update schema_migrations set dirty = true where version like '0001%'");
        await_that("the dirty row", || is_told("Found migrations in dirty state"));
        *time = begun.elapsed();
        world.database.sql("update schema_migrations set dirty = false");
        await_that("its end", || is_told("Finding is over"));
    }
    assert!(times.iter().all(|time| *time < Duration::from_secs(1)), "{times:?}");
    world.database.sql("truncate schema_migrations");
    world.database.sql("insert into schema_migrations (version, checksum) values ('0009_by_hand', 'ab')");
    await_told(&world, "Finding appeared", "unknown_row", 1);

    let config = world.path("nexus.toml");
    let text = std::fs::read_to_string(&config).expect("it is read");
    std::fs::write(&config, text.replace("\"notify\"", "\"poll\"")).expect("it is written");
    world.daemon.restart();
    await_that("the trigger's end", || world.database.sql(trigger).is_empty());
    let function = "select proname from pg_proc where proname = 'nexus_watch'";
    assert_eq!(world.database.sql(function), [] as [String; 0]);
}

#[test]
fn where_no_connection_is_kept_a_database_is_opened_only_when_something_was_written() {
    let other = Database::new();
    // Of two connections, one is for looking: it is the first database's.
    let more = format!(
        "{FAST}\n[limits]\nmax_connections_per_server = 2\n\n\
         [[database]]\nname = \"other\"\nurl = {:?}\nmigrations = \"migrations\"\n",
        other.url
    );
    let world = World::new().more(&more).start();
    world.tables(1, 1);
    world.ctl(&["apply", "--all"]).expect(0);
    let name = &other.sql("select current_database()")[0];
    let opened = || {
        let sql = format!("select sessions from pg_stat_database where datname = '{name}'");
        world.database.sql(&sql)
    };
    let observed = || {
        let page = world.daemon.page("/metrics").1;
        let name = "nexus_last_observation_timestamp_seconds{database=\"other\"}";
        page.lines().find(|line| line.starts_with(name)).map(str::to_owned)
    };
    let polls_that_open_nothing = || {
        let before = opened();
        for _ in 0..4 {
            let last = observed();
            await_that("a poll", || observed() != last);
        }
        opened() == before
    };
    await_that("four polls that open nothing", polls_that_open_nothing);
    other.sql("update schema_migrations set dirty = true");
    assert_eq!(await_told(&world, "Found migrations in dirty state", "dirty", 1)["database"], "other");
    other.sql("update schema_migrations set dirty = false");
    await_told(&world, "Finding is over", "dirty", 1);
    // The counters do not tell of what is opened once in a while all the same.
    let before = opened();
    await_that("it is opened by itself", || opened() != before);
    // The one goes whose connection told of the counters: the other's tells of them now.
    let without_main = world.configuration();
    let (begin, end) =
        (without_main.find("[[database]]").expect("main"), without_main.find(FAST).expect("it"));
    let without_main = format!("{}{}", &without_main[..begin], &without_main[end..]);
    std::fs::write(world.path("nexus.toml"), without_main).expect("the configuration is written");
    await_that("main is gone", || {
        let listed = world.ctl(&["databases", "--output", "json"]).json();
        listed["databases"].as_array().map(Vec::len) == Some(1)
    });
    await_that("four more polls that open nothing", polls_that_open_nothing);
}
