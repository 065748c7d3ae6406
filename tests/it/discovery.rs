//! Discovery: databases that come and go by themselves, and looks that are refused.

use std::time::{Duration, Instant};

use nexus::postgres::embedded::Embedded;
use serde_json::Value;

use crate::support::{Database, Running, World, await_that, wait};

const SLOW: &str = "\n[watch]\npoll = \"10min\"\n";

/// A world whose `main` is beside what an entry finds.
fn with_entry(world: World, url: &str, entry: &str) -> World {
    world.more(&format!(
        "\n[[discover]]\nid = \"tenants\"\nurl = {url:?}\nmigrations = \"migrations\"\n{entry}\n"
    ))
}

fn listed(world: &Running, selector: &str) -> Vec<Value> {
    let answer = world.ctl(&["databases", "--selector", selector, "--output", "json"]);
    if answer.code == Some(1) {
        return Vec::new();
    }
    answer.json()["databases"].as_array().cloned().unwrap_or_default()
}

fn names(world: &Running, selector: &str) -> Vec<String> {
    listed(world, selector).iter().filter_map(|it| Some(it["name"].as_str()?.to_owned())).collect()
}

fn metric(world: &Running, name: &str) -> String {
    let page = world.daemon.page("/metrics").1;
    let line = page.lines().find(|line| line.split(' ').next() == Some(name));
    line.and_then(|line| line.split(' ').nth(1)).unwrap_or("none").to_owned()
}

/// The messages of the inventory's alerts that fire, with their subjects.
fn alerts(world: &Running) -> Vec<(String, String)> {
    let all = world.ctl(&["alerts", "--output", "json"]).json();
    let all = all["alerts"].as_array().cloned().unwrap_or_default();
    let is_meant = |alert: &&Value| alert["kind"] == "inventory_invalid" && alert["state"] == "firing";
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    all.iter().filter(is_meant).map(|alert| (text(&alert["subject"]), text(&alert["message"]))).collect()
}

fn await_alert(world: &Running, expected: &str) {
    await_that(expected, || alerts(world).iter().any(|(_, message)| message.contains(expected)));
    let (subject, message) = alerts(world).remove(0);
    assert!(subject == "tenants" && message.contains("nexus.toml:"), "{subject}: {message}");
}

#[test]
fn five_hundred_tenants_and_five_more_and_one_less() {
    let shop = Database::new();
    let make = |from: u32, to: u32| {
        shop.sql(&format!(
            "do $$ begin for i in {from}..{to} loop execute format('create schema tenant_%s', i); end loop; end $$"
        ));
    };
    make(1, 500);
    shop.sql("create schema tenant_internal");
    let world = with_entry(
        World::new(),
        &shop.url,
        "schemas = [\"tenant_*\"]\nexclude = [\"tenant_internal\"]\nname = \"shop-{schema}\"\n\
         labels = { kind = \"tenant\" }\nevery = \"300ms\"\n",
    );
    let begun = Instant::now();
    let world = world.start();
    let took = begun.elapsed();
    assert!(took < Duration::from_secs(5), "it serves after {took:?}");
    world.tables(1, 2);
    assert_eq!(names(&world, "kind=tenant").len(), 500);
    assert_eq!(metric(&world, "nexus_inventory_databases"), "501");
    // The looks share a handful of connections, and nobody else holds one.
    await_that("every tenant is looked at", || {
        listed(&world, "kind=tenant").iter().all(|database| database["observation"]["reachable"] == true)
    });
    let connected = "select count(*) from pg_stat_activity where datname = current_database() \
                     and application_name like 'nexusd%'";
    let connections: u32 = shop.sql(connected)[0].parse().expect("a count");
    assert!(connections <= 8, "{connections} connections");

    // An operation on one tenant is under way while others come and go.
    shop.sql("create table public.gate ()");
    let gate = shop.hold("begin; lock table public.gate");
    world.migration("0003_slow", "-- nexus: lock-timeout 5min\nlock table public.gate;", "select 1;");
    let slow = world.daemon.ctl_begin(&["apply", "--database", "shop-tenant_1"]);
    shop.await_row(
        "select 1 from pg_stat_activity where query like '%lock table public.gate%' \
         and wait_event_type = 'Lock' and pid <> pg_backend_pid()",
    );
    make(501, 505);
    shop.sql("drop schema tenant_250 cascade");
    let added = "schema~tenant_50[1-5]";
    await_that("the added ones are known", || names(&world, added).len() == 5);
    await_that("the dropped one is gone", || names(&world, "schema=tenant_250").is_empty());
    drop(gate);
    slow.end().expect(0);
    world.remove("0003_slow.up.sql");
    world.remove("0003_slow.down.sql");

    world.ctl(&["apply", "--selector", added]).expect(0);
    let migrated =
        "select count(*) from pg_tables where tablename = 't2' and schemaname ~ '^tenant_50[1-5]$'";
    assert_eq!(shop.sql(migrated), ["5"]);
    assert_eq!(shop.sql("select count(*) from tenant_501.schema_migrations where not dirty"), ["2"]);
    await_that("the look after the apply", || {
        let listed = listed(&world, "schema=tenant_501");
        listed[0]["observation"]["version"] == "0002_t2" && listed[0]["observation"]["pending"] == 0
    });
    let listed = listed(&world, "schema=tenant_501");
    assert_eq!(listed[0]["origin"], serde_json::json!({"kind": "discovery", "name": "tenants"}));
    // What is gone has no series.
    let page = world.daemon.page("/metrics").1;
    assert!(!page.contains("\"shop-tenant_250\"") && page.contains("\"shop-tenant_505\""));
    let changes = world.logged("Inventory changed");
    let has = |key: &str, name: &str| {
        changes.iter().any(|line| line[key].as_array().is_some_and(|names| names.contains(&name.into())))
    };
    assert!(has("added", "shop-tenant_501") && has("removed", "shop-tenant_250"), "{changes:?}");
    // Readable: a line for each, and one that sums up.
    let table = world.ctl(&["databases"]).expect(0);
    assert_eq!(table.lines().count(), 2 + 505 + 2);
    assert!(table.lines().last().is_some_and(|line| line.starts_with("505 databases")), "{table}");
}

#[test]
fn a_query_names_databases_and_labels_them_or_is_refused() {
    let shop = Database::new();
    shop.sql(
        "create table tenants (tenant text, region text); \
         insert into tenants values ('a', 'eu'), ('b', 'us'); create schema a; create schema b",
    );
    let entry = "query = \"\"\"\n-- the tenants\nselect 'shop-' || tenant as name, tenant as schema, \
                 jsonb_build_object('region', region, 'tier', null) as labels from tenants;\n\"\"\"\n\
                 labels = { region = \"none\", kind = \"tenant\" }\nevery = \"200ms\"\nlimit = 1000\n";
    let world = with_entry(World::new().alerts("hold = \"0s\""), &shop.url, entry).start();
    world.tables(1, 1);
    assert_eq!(names(&world, "kind=tenant"), ["shop-a", "shop-b"]);
    assert_eq!(names(&world, "kind=tenant,region=eu"), ["shop-a"]);
    world.ctl(&["apply", "--selector", "region=us"]).expect(0);
    assert_eq!(shop.sql("select version from b.schema_migrations"), ["0001_t1"]);
    assert_eq!(metric(&world, "nexus_inventory_reload_successful"), "1");

    let refused = |sql: &str, expected: &str| {
        shop.sql(sql);
        await_alert(&world, expected);
        assert_eq!(names(&world, "kind=tenant"), ["shop-a", "shop-b"], "what was good stays");
        assert_eq!(metric(&world, "nexus_inventory_reload_successful"), "0");
        let told = world.ctl(&["reload"]).expect(1);
        assert!(told.contains(expected) && told.contains("nexus.toml:"), "{told}");
    };
    refused(
        "insert into tenants select 'x' || i, 'eu' from generate_series(1, 10000) i",
        "more than 1000 databases were found",
    );
    refused(
        "delete from tenants where tenant like 'x%'; insert into tenants values ('a', 'us')",
        "several are called \"shop-a\"",
    );
    refused(
        "delete from tenants where tenant = 'a' and region = 'us'; insert into tenants values ('Ä', 'eu')",
        "is not a name of letters",
    );
    let emptied =
        "delete from tenants where tenant = 'Ä'; create table kept as table tenants; delete from tenants";
    refused(emptied, "nothing was found, where there were 2");
    shop.sql("insert into tenants table kept");
    refused("alter table tenants rename column region to area", "column \"region\" does not exist");
    shop.sql("alter table tenants rename column area to region");
    await_that("all is well", || alerts(&world).is_empty());
    world.ctl(&["reload"]).expect(0);
    assert_eq!(metric(&world, "nexus_inventory_reload_successful"), "1");
    // It was told once each time, however often it was looked.
    assert_eq!(
        world.logged("Finding appeared").iter().filter(|line| line["kind"] == "inventory_invalid").count(),
        1
    );

    // A name that a file's database has.
    shop.sql("insert into tenants values ('main', 'eu')");
    await_that("a third", || names(&world, "kind=tenant").len() == 3);
    let text = std::fs::read_to_string(world.path("nexus.toml")).expect("it is read");
    let text = text.replace("'shop-' || tenant as name", "tenant as name");
    std::fs::write(world.path("nexus.toml"), text).expect("it is written");
    await_alert(&world, "\"main\" is the name of a database of ");
    assert_eq!(names(&world, "kind=tenant"), ["shop-a", "shop-b", "shop-main"], "what was good stays");
}

#[test]
fn databases_of_a_server_by_pattern_and_a_server_that_goes_away() {
    let own = Embedded::start(&[]).expect("PostgreSQL starts");
    for name in ["disc_a", "disc_b", "disc_test"] {
        drop(Database::on(&own, name));
    }
    let world = World::new().alerts("hold = \"0s\"").more(SLOW);
    let entry = "databases = [\"disc_*\"]\nexclude = [\"*_test\"]\nevery = \"200ms\"\ntimeout = \"2s\"\n";
    let world = with_entry(world, &own.url("postgres"), entry).start();
    assert_eq!(names(&world, "name~disc_*"), ["disc_a", "disc_b"]);
    assert_eq!(names(&world, "dbname=disc_b,schema=public"), ["disc_b"]);
    wait(own.drop_database("disc_b")).expect("it is dropped");
    await_that("the dropped one is gone", || names(&world, "name~disc_*") == ["disc_a"]);
    own.stop().expect("it stops");
    await_alert(&world, "discover \"tenants\"");
    assert_eq!(names(&world, "name~disc_*"), ["disc_a"], "what was good stays");
}

#[test]
fn a_query_can_only_read() {
    let shop = Database::new();
    shop.sql("create table log (n int)");
    shop.sql(
        "create function f() returns text language sql volatile as \
         $$ insert into log values (1); select 'x' $$",
    );
    let world = with_entry(World::new().more(SLOW), &shop.url, "query = \"select f() as name\"\n").start();
    let told = world.ctl(&["reload"]).expect(1);
    assert!(told.contains("NX0072") && told.contains("read-only transaction"), "{told}");
    assert_eq!(shop.sql("select count(*) from log"), ["0"]);
    assert_eq!(names(&world, "name~*"), ["main"]);
}

#[test]
fn a_query_that_hangs_ends_within_its_time_and_a_column_is_known() {
    let shop = Database::new();
    let entry = "query = \"select 'x' as name, pg_sleep(600)::text as schema\"\ntimeout = \"500ms\"\n";
    let begun = Instant::now();
    let world = with_entry(World::new().more(SLOW), &shop.url, entry).start();
    assert!(begun.elapsed() < Duration::from_secs(10), "{:?}", begun.elapsed());
    let told = world.ctl(&["reload"]).expect(1);
    assert!(told.contains("NX0072") || told.contains("NX0041"), "{told}");
    assert_eq!(metric(&world, "nexus_inventory_reload_successful"), "0");
    let text = std::fs::read_to_string(world.path("nexus.toml")).expect("it is read");
    let text = text.replace("pg_sleep(600)::text as schema", "'d' as datname");
    std::fs::write(world.path("nexus.toml"), text).expect("it is written");
    let told = world.ctl(&["reload"]).expect(1);
    assert!(told.contains("the query's column `datname` means nothing"), "{told}");
}

#[test]
fn a_slow_discovery_does_not_keep_the_daemon_from_serving() {
    let shop = Database::new();
    let entry = "query = \"select 'x' as name, jsonb_build_object('slept', pg_sleep(25)::text) as labels\"\ntimeout = \"50s\"\n";
    let begun = Instant::now();
    let world = with_entry(World::new().more(SLOW), &shop.url, entry).start();
    assert!(begun.elapsed() < Duration::from_secs(20), "{:?}", begun.elapsed());
    assert_eq!(names(&world, "name~*"), ["main"]);
    await_that("what was found late", || names(&world, "name~*") == ["main", "x"]);
}
