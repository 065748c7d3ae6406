//! Operations over many databases: a canary that fails, waves that are taken back, gates, halts.

use serde_json::{Value, json};

use crate::support::{Running, World, await_that};

/// A fleet of this many schemas, `t-000` and on, each a database of the inventory.
pub(crate) fn tenants(count: usize) -> World {
    let world = World::new();
    let entry = |number| {
        let (url, region) = (&world.database.url, number % 5);
        format!(
            "[[database]]\nname = \"t-{number:03}\"\nurl = {url:?}\nschema = \"s{number:03}\"\n\
             labels = {{ region = \"r{region}\" }}\n"
        )
    };
    let more = (0..count).map(entry).collect::<Vec<_>>().concat();
    let create = |number| format!("create schema s{number:03};");
    world.database.sql(&(0..count).map(create).collect::<Vec<_>>().concat());
    world.more(&more)
}

/// The operations, the newest first.
pub(crate) fn operations(world: &Running) -> Vec<Value> {
    let listed = world.ctl(&["operation", "list", "-o", "json"]).json();
    listed["operations"].as_array().expect("a list").clone()
}

/// The id of the newest operation.
pub(crate) fn newest(world: &Running) -> String {
    operations(world)[0]["id"].as_str().expect("an id").to_owned()
}

pub(crate) fn shown(world: &Running, id: &str) -> Value {
    world.ctl(&["operation", "show", id, "-o", "json"]).json()
}

/// The state of each database, by name.
pub(crate) fn states(operation: &Value) -> Vec<(String, String)> {
    let text = |value: &Value| value.as_str().expect("a text").to_owned();
    let databases = operation["databases"].as_array().expect("a list").iter();
    databases.map(|database| (text(&database["name"]), text(&database["state"]))).collect()
}

fn migrated(world: &World) -> Vec<String> {
    world.database.sql("select schemaname from pg_tables where tablename = 'schema_migrations' order by 1")
}

fn has_metric(world: &Running, line: &str) -> bool {
    world.daemon.page("/metrics").1.lines().any(|each| each == line)
}

/// Everything in the tenants' schemas, but for the record of migrations: columns, constraints,
/// indexes, sequences; and the rows of `schema_migrations` themselves.
fn everything(world: &World, count: usize) -> Vec<String> {
    let mut all = world.database.sql(
        "select c.relnamespace::regnamespace, c.relname, c.relkind, a.attname, a.atttypid::regtype, a.attnotnull, \
           (select string_agg(pg_get_constraintdef(k.oid), ',' order by k.conname) from pg_constraint k where k.conrelid = c.oid), \
           (select string_agg(pg_get_indexdef(i.indexrelid), ',' order by i.indexrelid::regclass::text) from pg_index i where i.indrelid = c.oid) \
         from pg_class c left join pg_attribute a on a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped \
         where c.relnamespace::regnamespace::text ~ '^s[0-9]+$' and c.relname !~ '^(schema_migrations|nexus_journal)' \
         order by 1, 2, 4",
    );
    for number in 0..count {
        let rows = format!(
            "select 's{number:03}', version, checksum, dirty from s{number:03}.schema_migrations order by 2"
        );
        all.extend(world.database.sql(&rows));
    }
    all
}

#[test]
fn a_canary_that_fails_stops_a_rollout_over_200() {
    let world = tenants(200).alerts("hold = \"100ms\"").start();
    world.tables(1, 2);
    world.database.sql("create table s000.t2 (in_the_way int)");

    let told =
        world.ctl(&["apply", "-d", "t-*", "--canary", "1", "--wave", "25%", "--reason", "CHG-123"]).expect(1);
    assert!(told.contains("The operation is halted: 1 of 1 databases failed in canary; t-000: "), "{told}");
    assert_eq!(migrated(&world), ["s000"], "nothing beyond the canary is touched");
    let id = newest(&world);
    assert!(told.contains(&format!("nexusctl operation show {id}")), "{told}");

    let operation = shown(&world, &id[..13]);
    assert_eq!(
        (&operation["state"], &operation["reason"], &operation["attempt"]),
        (&json!("halted"), &json!("CHG-123"), &json!(1))
    );
    assert_eq!(operation["counts"], json!({ "failed": 1, "waiting": 199 }));
    assert!(operation["why"].as_str().is_some_and(|why| why.contains("canary; t-000: ")), "{operation}");
    assert_eq!(operation["databases"][0]["applied"], json!(["0001_t1"]));
    assert_eq!(operation["databases"][0]["failure"]["sqlstate"], "42P07");
    let text = world.ctl(&["operation", "show", &id]).expect(0);
    assert!(text.contains("why        1 of 1 databases failed in canary; t-000: "), "{text}");
    assert!(text.contains("199 databases more"), "{text}");
    let halted = world.logged("Operation halted");
    assert_eq!((halted.len(), &halted[0]["why"]), (1, &operation["why"]));
    assert_eq!(world.logged("Operation started")[0]["reason"], "CHG-123");

    await_that("the alert fires", || {
        let alerts = world.ctl(&["alerts", "-o", "json"]).json();
        let is_it = |alert: &Value| {
            alert["kind"] == "operation_halted" && alert["state"] == "firing" && alert["subject"] == json!(id)
        };
        alerts["alerts"].as_array().is_some_and(|alerts| alerts.iter().any(is_it))
    });
    let alerts = world.ctl(&["alerts"]).expect(0);
    assert!(alerts.contains("is halted: 1 of 1 databases failed in canary"), "{alerts}");
    assert!(has_metric(&world, "nexus_operations{state=\"halted\"} 1"));
    assert!(has_metric(&world, "nexus_operation_halts_total 1"));
    let firing = "nexus_alerts_firing{kind=\"operation_halted\",severity=\"critical\"} ";
    await_that("the gauge shows the alert", || has_metric(&world, &format!("{firing}1")));

    // Fixed in the files: going on with other migrations than were begun has to be meant.
    world.write("0002_t2.up.sql", "create table if not exists t2 (id int primary key);\n");
    let refused = world.ctl(&["operation", "retry", &id]).expect(1);
    assert!(refused.contains("NX0077") && refused.contains("0002_t2 was edited"), "{refused}");
    assert_eq!(shown(&world, &id)["state"], "halted");
    let told = world.ctl(&["operation", "retry", &id, "--accept-new-catalog"]).expect(0);
    assert!(told.contains("attempt 2: 200 databases"), "{told}");

    let operation = shown(&world, &id);
    assert_eq!((&operation["state"], &operation["attempt"]), (&json!("succeeded"), &json!(2)));
    assert_eq!(operation["counts"], json!({ "succeeded": 200 }));
    assert_eq!(migrated(&world).len(), 200);
    let done = "select count(*) from information_schema.tables where table_name in ('t1', 't2')";
    assert_eq!(world.database.sql(done), ["400"]);
    await_that("the alert is over", || has_metric(&world, &format!("{firing}0")));
    assert!(has_metric(&world, "nexus_operations{state=\"halted\"} 0"));
}

#[test]
fn what_an_operation_applied_is_taken_back() {
    const COUNT: usize = 25;
    let world = tenants(COUNT).start();
    world.tables(1, 1);
    world.ctl(&["apply", "-d", "t-*"]).expect(0);
    // In the third of five waves; it has applied one of the two migrations by then.
    world.database.sql("create table s012.t3 (in_the_way int)");
    let before = everything(&world, COUNT);

    world.migration(
        "0002_t2",
        "create table t2 (id int primary key, n int unique);\nalter table t1 add column more text;\n",
        "alter table t1 drop column more;\ndrop table t2;\n",
    );
    world.tables(3, 1);
    let arguments = ["apply", "-d", "t-*", "--wave", "20%", "--on-failure", "rollback", "-o", "json"];
    let result = world.ctl(&arguments);
    assert_eq!(result.code, Some(1), "{result:?}");
    let result = result.json();
    assert_eq!((&result["state"], &result["succeeded"]), (&json!("failed"), &json!(false)));
    assert_eq!(everything(&world, COUNT), before, "every database is as it was");

    let operation = shown(&world, &newest(&world));
    let expected = |number: usize| if number < 15 { "rolled_back" } else { "cancelled" };
    let expected: Vec<_> =
        (0..COUNT).map(|number| (format!("t-{number:03}"), expected(number).to_owned())).collect();
    assert_eq!(states(&operation), expected);
    let why = operation["why"].as_str().unwrap_or_default();
    assert!(why.contains("t-012: ") && why.ends_with("was rolled back"), "{why}");
    assert_eq!(operation["databases"][0]["applied"], json!([]));
    assert_eq!(operation["databases"][12]["failure"]["code"], "NX0030", "why is still to be read");
    let outcomes: Vec<_> = result["databases"].as_array().expect("a list").iter().collect();
    assert!(outcomes.iter().all(|database| database["outcome"] == "rolled_back"), "{result}");
    assert_eq!(result["not_begun"].as_array().map(Vec::len), Some(10));

    // Put right, the same operation does all of it.
    world.database.sql("drop table s012.t3");
    world.ctl(&["operation", "retry", operation["id"].as_str().expect("an id")]).expect(0);
    let tables = "select count(*) from information_schema.tables where table_name in ('t1', 't2', 't3')";
    assert_eq!(world.database.sql(tables), ["75"]);
}

#[test]
fn what_was_applied_since_is_not_taken_from_under() {
    let world = tenants(2).start();
    world.tables(1, 2);
    world.migration("0003_fails", "select 1 / 0;", "select 1;");
    world.migration("0004_slow", "select pg_sleep(0.1);", "select 1;");
    // Somebody else works on the first database while the second one fails.
    world.database.sql(
        "create function public.another() returns trigger language plpgsql as $$ begin \
           insert into s000.schema_migrations (version, checksum, applied_at) \
           values ('0009_by_hand', '', clock_timestamp() + interval '1 hour') on conflict do nothing; return new; end $$",
    );
    world.ctl(&["apply", "-d", "t-*", "--to", "1"]).expect(0);
    world.database.sql(
        "create trigger another after insert on s001.nexus_journal for each row execute function public.another()",
    );
    let arguments = ["apply", "-d", "t-*", "--wave", "1", "--to", "2", "--on-failure", "rollback"];
    world.database.sql("create table s001.t2 (in_the_way int)");
    let told = world.ctl(&arguments).expect(1);
    assert!(told.contains("NX0081") && told.contains("0009_by_hand"), "{told}");
    let operation = shown(&world, &newest(&world));
    assert_eq!(operation["databases"][0]["state"], "failed");
    assert_eq!(operation["databases"][0]["applied"], json!(["0002_t2"]), "it is still there, and said so");
    assert!(operation["why"].as_str().is_some_and(|why| why.contains("could not be rolled back")));
}

#[test]
fn what_another_operation_applied_is_not_taken_away() {
    let world = tenants(2).start();
    world.tables(1, 2);
    world.database.sql("create table s000.t2 (in_the_way int)");
    let arguments = ["apply", "-d", "t-*", "--wave", "1", "--max-failures", "1", "--pause", "manual"];
    world.ctl(&[&arguments[..], &["--on-failure", "rollback", "--detach"]].concat()).expect(0);
    let id = newest(&world);
    await_that("it has failed at 0002 on the first", || shown(&world, &id)["state"] == "paused");
    assert_eq!(shown(&world, &id)["databases"][0]["applied"], json!(["0001_t1"]));
    // Somebody else puts it right, and applies it.
    world.database.sql("drop table s000.t2; create table s001.t2 (in_the_way int)");
    world.ctl(&["apply", "-d", "t-000"]).expect(0);
    let told = world.ctl(&["operation", "resume", &id]).expect(1);
    assert!(told.contains("NX0081") && told.contains("0002_t2"), "{told}");
    let rows = world.database.sql("select version, dirty from s000.schema_migrations order by 1");
    assert_eq!(rows, ["0001_t1|f", "0002_t2|f"], "what the other one applied is there, and what is below");
    let why = shown(&world, &id)["why"].as_str().unwrap_or_default().to_owned();
    assert!(why.contains("of 1 databases what the operation had applied could not be rolled back"), "{why}");
}

#[test]
fn cancelled_while_the_last_gate_is_asked_it_has_not_succeeded() {
    let world = tenants(2).start();
    world.tables(1, 1);
    world.ctl(&["apply", "-d", "t-*", "--gate", "select true", "--gate-wait", "1min", "--detach"]).expect(0);
    let id = newest(&world);
    await_that("only the gate is left", || shown(&world, &id)["counts"] == json!({ "succeeded": 2 }));
    world.ctl(&["operation", "cancel", &id]).expect(0);
    await_that("it is cancelled", || shown(&world, &id)["state"] == "cancelled");
    let why = shown(&world, &id)["why"].as_str().unwrap_or_default().to_owned();
    assert!(why.starts_with("cancelled by "), "{why}");
}

#[test]
fn a_gate_that_does_not_hold_halts() {
    let world = tenants(6).start();
    world.tables(1, 1);
    let gate = "select current_schema() <> 's001'";
    let arguments = ["apply", "-d", "t-*", "--wave", "2", "--gate", gate, "--gate-limit", "300ms"];
    let told = world.ctl(&arguments).expect(1);
    assert!(told.contains("the gate after wave 1 did not hold on t-001"), "{told}");
    assert_eq!(migrated(&world), ["s000", "s001"]);
    let id = newest(&world);
    let operation = shown(&world, &id);
    assert_eq!(operation["databases"][1]["gate"]["outcome"], "failed");
    // Tried again, the gate is asked again; resumed, what it said is left as it is.
    world.ctl(&["operation", "retry", &id]).expect(1);
    assert_eq!(migrated(&world).len(), 2);
    world.ctl(&["operation", "resume", &id]).expect(0);
    assert_eq!(migrated(&world).len(), 6);
    assert_eq!(shown(&world, &id)["state"], "succeeded");
    assert_eq!(world.logged("Gate checked").iter().filter(|line| line["outcome"] == "failed").count(), 2);
}

#[test]
fn a_gate_that_cannot_be_decided_pauses() {
    let world = tenants(4).start();
    world.tables(1, 1);
    let gate = "select count(*) from nowhere";
    let arguments =
        ["apply", "-d", "t-*", "--wave", "2", "--gate", gate, "--gate-limit", "300ms", "--detach"];
    world.ctl(&arguments).expect(0);
    let id = newest(&world);
    await_that("it is paused", || shown(&world, &id)["state"] == "paused");
    let why = shown(&world, &id)["why"].as_str().unwrap_or_default().to_owned();
    assert!(why.contains("could not be decided") && why.contains("t-00"), "{why}");
    assert_eq!(migrated(&world).len(), 2);
    world.ctl(&["operation", "resume", &id, "--detach"]).expect(0);
    await_that("the next wave is done", || migrated(&world).len() == 4);
    await_that("the gate after the last wave pauses too", || shown(&world, &id)["state"] == "paused");
    world.ctl(&["operation", "resume", &id]).expect(0);
    assert_eq!(shown(&world, &id)["state"], "succeeded");
}

#[test]
fn an_open_alert_keeps_the_gate_shut() {
    let watch = "[watch]\npoll = \"200ms\"\npending_limit = \"100ms\"\n";
    let world = tenants(2).alerts("hold = \"100ms\"").more(watch).start();
    world.tables(1, 2);
    let alerts = |database| world.ctl(&["alerts", "-d", database]).expect(0);
    await_that("both have an alert", || {
        ["t-000", "t-001"].iter().all(|database| alerts(database).contains("pending_too_long"))
    });
    // What stays pending keeps its alert, however well the wave comes out.
    let arguments = ["apply", "-d", "t-*", "--to", "1", "--wave", "1", "--gate-no-alerts"];
    let told = world.ctl(&[&arguments[..], &["--gate-limit", "300ms"]].concat()).expect(1);
    assert!(told.contains("the gate after wave 1 did not hold on t-000: open alerts: "), "{told}");
    assert_eq!(migrated(&world), ["s000"], "nothing beyond the gate is touched");
    let id = newest(&world);
    world.ctl(&["apply", "-d", "t-000"]).expect(0);
    await_that("the first one's alert is over", || alerts("t-000").contains("no alerts"));
    let told = world.ctl(&["operation", "retry", &id]).expect(1);
    assert!(told.contains("the gate after wave 2 did not hold on t-001: open alerts: "), "{told}");
    assert_eq!(migrated(&world), ["s000", "s001"]);
    // One that goes away while the gate is asked opens it.
    world.ctl(&["apply", "-d", "t-*", "--wave", "1", "--gate-no-alerts"]).expect(0);
}

#[test]
fn without_a_strategy_one_that_fails_stops_nobody() {
    let world = tenants(4).start();
    world.tables(1, 1);
    world.database.sql("create table s000.t1 (in_the_way int)");
    world.ctl(&["apply", "-d", "t-*"]).expect(1);
    let operation = shown(&world, &newest(&world));
    assert_eq!(operation["state"], "failed");
    assert_eq!(operation["counts"], json!({ "failed": 1, "succeeded": 3 }));
    assert_eq!(operation["why"], "1 of 4 databases failed");
    assert!(world.logged("Wave started").is_empty());
    world.database.sql("drop table s000.t1");
    let retried = world.ctl(&["operation", "retry", operation["id"].as_str().expect("an id")]).expect(0);
    assert!(retried.contains("attempt 2: 1 database\n"), "{retried}");
    let attempts = "select count(*) from s001.nexus_journal";
    assert_eq!(world.database.sql(attempts), ["1"], "the others are not run again");
}

#[test]
fn what_is_in_place_already_is_not_gone_on_with_in_another_form() {
    let world = tenants(3).start();
    world.tables(1, 1);
    world.database.sql("create table s001.t1 (in_the_way int)");
    world.ctl(&["apply", "-d", "t-*", "--canary", "t-000", "--wave", "1"]).expect(1);
    let id = newest(&world);
    // It is right for the second, and other than what the canary has.
    world.write("0001_t1.up.sql", "create table if not exists t1 (id int primary key);\n");
    for command in ["retry", "resume"] {
        let refused = world.ctl(&["operation", command, &id, "--accept-new-catalog"]).expect(1);
        assert!(refused.contains("NX0077") && refused.contains("0001_t1 is in place on t-000"), "{refused}");
    }
    assert_eq!(states(&shown(&world, &id))[2], ("t-002".to_owned(), "waiting".to_owned()));
}
