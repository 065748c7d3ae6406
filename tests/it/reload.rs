//! Reloading: databases come and go with the files, and a wrong file changes nothing.

use std::{fs, os::unix::fs::symlink, process::Command};

use nix::sys::signal::Signal;
use serde_json::Value;

use crate::support::{Database, Ended, Running, World, await_that};

const SLOW: &str = "\n[watch]\npoll = \"10min\"\n";

/// A world with a directory of included files.
fn with_include() -> World {
    let world = World::new().alerts("hold = \"0s\"\nflap_window = \"0s\"").more(SLOW);
    fs::create_dir(world.path("teams")).expect("a directory is made");
    world
}

fn configuration(world: &World) -> String {
    format!("include = [\"teams/*.toml\"]\n{}", world.configuration())
}

/// Starts a daemon that includes the directory's files.
fn start(world: World) -> Running {
    Running { daemon: world.daemon("nexus.toml", &configuration(&world)), world }
}

/// What `nexusd check-config` says.
fn check(world: &World) -> Ended {
    put(world, "nexus.toml", &configuration(world));
    let mut command = Command::new(env!("CARGO_BIN_EXE_nexusd"));
    command.args(["check-config", "--config"]).arg(world.path("nexus.toml"));
    Ended::of(&command.output().expect("nexusd runs"))
}

fn entry(name: &str, url: &str) -> String {
    format!("[[database]]\nname = \"{name}\"\nurl = {url:?}\nmigrations = \"../migrations\"\n")
}

fn put(world: &World, file: &str, text: &str) {
    fs::write(world.path(file), text).expect("a file is written");
}

fn names(world: &Running) -> Vec<String> {
    let listed = world.ctl(&["databases", "--output", "json"]).json();
    let listed = listed["databases"].as_array().cloned().unwrap_or_default();
    listed.iter().filter_map(|it| Some(it["name"].as_str()?.to_owned())).collect()
}

fn alerts(world: &Running, kind: &str) -> Vec<Value> {
    let all = world.ctl(&["alerts", "--output", "json"]).json();
    let all = all["alerts"].as_array().cloned().unwrap_or_default();
    all.into_iter().filter(|alert| alert["kind"] == kind && alert["state"] == "firing").collect()
}

fn is_successful(world: &Running) -> bool {
    world.daemon.page("/metrics").1.contains("\nnexus_inventory_reload_successful 1\n")
}

#[test]
fn a_wrong_file_keeps_the_last_good_inventory_and_is_told_until_it_is_right() {
    let (orders, users) = (Database::new(), Database::new());
    let world = with_include();
    put(&world, "teams/orders.toml", &entry("orders", &orders.url));
    let world = start(world);
    assert_eq!(names(&world), ["main", "orders"]);
    assert!(is_successful(&world));

    // A name that is taken: both places are named.
    put(&world, "teams/users.toml", &format!("\n{}", entry("orders", &users.url)));
    await_that("the alert", || !alerts(&world, "inventory_invalid").is_empty());
    let alert = alerts(&world, "inventory_invalid").remove(0);
    let message = alert["message"].to_string();
    assert!(
        message.contains("users.toml:3:8: ") && message.contains("orders.toml:2:8 has this name already"),
        "{message}"
    );
    assert_eq!((&alert["severity"], &alert["database"]), (&"critical".into(), &Value::Null), "{alert}");
    assert!(!is_successful(&world));
    assert_eq!(names(&world), ["main", "orders"]);
    let refused = world.ctl(&["reload"]).expect(1);
    assert!(refused.contains("NX0070") && refused.contains("users.toml:3:8"), "{refused}");
    assert_eq!(world.ctl(&["reload", "--output", "json"]).json()["error"]["code"], "NX0070");
    // What is there goes on.
    world.tables(1, 1);
    world.ctl(&["apply", "--database", "orders"]).expect(0);

    put(&world, "teams/users.toml", &entry("users", &users.url));
    await_that("the new database", || names(&world) == ["main", "orders", "users"]);
    await_that("the alert's end", || alerts(&world, "inventory_invalid").is_empty());
    await_that("the metric", || is_successful(&world));

    // A file that is no TOML, with a signal.
    let good = fs::read_to_string(world.path("nexus.toml")).expect("it is read");
    put(&world, "nexus.toml", &format!("{good}\n[[database]\n"));
    world.daemon.signal(Signal::SIGHUP);
    await_that("the alert", || !alerts(&world, "inventory_invalid").is_empty());
    put(&world, "nexus.toml", &good);
    world.daemon.signal(Signal::SIGHUP);
    await_that("the alert's end", || alerts(&world, "inventory_invalid").is_empty());
}

#[test]
fn databases_come_and_go_and_what_is_under_way_goes_on() {
    let (orders, users) = (Database::new(), Database::new());
    let world = with_include();
    put(&world, "teams/orders.toml", &entry("orders", &orders.url));
    put(&world, "teams/users.toml", &entry("users", &users.url));
    let world = start(world);
    world.tables(1, 1);
    world.ctl(&["apply", "--all"]).expect(0);
    users.sql("update schema_migrations set dirty = true");
    world.ctl(&["audit", "run"]).expect(0);
    await_that("the alert", || !alerts(&world, "dirty").is_empty());
    let has_series = |name: &str| world.daemon.page("/metrics").1.contains(&format!("database=\"{name}\""));
    assert!(has_series("users"));

    // An operation is under way on the one that goes, and on the one that stays.
    let gates = [&orders, &world.database].map(|database| {
        database.sql("create table gate ()");
        database.hold("begin; lock table gate")
    });
    world.migration("0002_slow", "-- nexus: lock-timeout 5min\nlock table gate;", "select 1;");
    let running = "select 1 from pg_stat_activity where query like '%lock table gate%' \
                   and wait_event_type = 'Lock' and datname = current_database()";
    let slow = world.daemon.ctl_begin(&["apply", "--database", "orders", "--database", "main"]);
    orders.await_row(running);
    world.database.await_row(running);
    fs::remove_file(world.path("teams/orders.toml")).expect("it is removed");
    fs::remove_file(world.path("teams/users.toml")).expect("it is removed");
    let told = world.ctl(&["reload"]).expect(0);
    assert!(told.contains("1 database\n"), "{told}");
    assert_eq!(names(&world), ["main"]);
    assert!(world.ctl(&["apply", "--database", "orders"]).expect(1).contains("NX0050"));
    drop(gates);
    slow.end().expect(0);
    assert_eq!(orders.rows(), ["0001_t1|f", "0002_slow|f"]);
    await_that("the alert of the one that is gone", || alerts(&world, "dirty").is_empty());
    assert!(!has_series("users") && !has_series("orders"));
    let changes = world.logged("Inventory changed");
    let removed: Vec<_> = changes.iter().filter_map(|line| line["removed"].as_array()).flatten().collect();
    assert_eq!(removed, ["orders", "users"]);
    let connected = "select count(*) from pg_stat_activity where datname = current_database() \
                     and application_name like 'nexusd%'";
    await_that("its connections are closed", || orders.sql(connected) == ["0"]);
}

#[test]
fn what_has_not_changed_keeps_its_connections_and_what_has_is_another() {
    let world = World::new().more("\n[watch]\npoll = \"100ms\"\n").start();
    world.tables(1, 1);
    world.ctl(&["apply"]).expect(0);
    let pids = "select pid, backend_start from pg_stat_activity where datname = current_database() \
                and application_name like 'nexusd watch%' order by 1";
    world.database.await_row(pids);
    let before = world.database.sql(pids);
    let text = fs::read_to_string(world.path("nexus.toml")).expect("it is read");
    // A comment moves the place, and changes nothing.
    put(&world, "nexus.toml", &format!("# moved\n{text}"));
    assert!(world.ctl(&["reload"]).expect(0).contains("nothing has changed"));
    assert_eq!(world.database.sql(pids), before);
    // Labels are settings; a section that is read at the start only is said.
    let other = text.replace("name = \"main\"", "name = \"main\"\nlabels = { env = \"dev\" }");
    let other = other.replace("shutdown_timeout = \"30s\"", "shutdown_timeout = \"20s\"");
    put(&world, "nexus.toml", &other);
    let told = world.ctl(&["reload"]).expect(0);
    assert!(told.contains("takes effect with a restart: [server]"), "{told}");
    await_that("the labels", || world.ctl(&["status", "--selector", "env=dev"]).code == Some(0));
    let changes = world.logged("Inventory changed");
    assert_eq!(changes.last().map(|line| line["changed"][0].clone()), Some("main".into()));
    // Without any database there is nothing to serve.
    let none = text.split("[[database]]").next().unwrap_or_default().to_owned();
    put(&world, "nexus.toml", &none);
    assert!(world.ctl(&["reload"]).expect(1).contains("there is nothing to serve"));
    assert_eq!(names(&world), ["main"]);
}

#[test]
fn a_swap_of_a_volume_is_seen() {
    let (orders, users) = (Database::new(), Database::new());
    // As Kubernetes mounts a ConfigMap: files are links through `..data`.
    let world = World::new().more(SLOW);
    let teams = world.path("teams");
    fs::create_dir_all(teams.join("..1")).expect("a directory is made");
    fs::create_dir_all(teams.join("..2")).expect("a directory is made");
    fs::write(teams.join("..1/team.toml"), entry("orders", &orders.url)).expect("it is written");
    fs::write(teams.join("..2/team.toml"), entry("users", &users.url)).expect("it is written");
    symlink("..1", teams.join("..data")).expect("a link is made");
    symlink("..data/team.toml", teams.join("team.toml")).expect("a link is made");
    let world = start(world);
    assert_eq!(names(&world), ["main", "orders"]);
    symlink("..2", teams.join("..data_tmp")).expect("a link is made");
    fs::rename(teams.join("..data_tmp"), teams.join("..data")).expect("it is swapped");
    await_that("the swap", || names(&world) == ["main", "users"]);
}

#[test]
fn globs_that_match_nothing_are_a_warning_and_errors_name_their_file() {
    let world = with_include();
    let told = check(&world);
    assert_eq!(told.code, Some(0), "{}", told.stderr);
    assert!(told.stderr.contains("no file matches \"teams/*.toml\""), "{}", told.stderr);
    let refused = |text: &str, expected: &str| {
        put(&world, "teams/a.toml", text);
        let told = check(&world);
        assert!(told.code == Some(1) && told.stderr.contains(expected), "{}", told.stderr);
    };
    refused("[server]\ngrpc = \"127.0.0.1:1\"\n", "a.toml:1:2: unknown key `server`");
    refused(
        "[[database]]\nname = \"x\"\nurl = \"postgres://u@h/d?sslmode=maybe\"\n",
        "a.toml:1:1: database \"x\": the URL is wrong",
    );
    refused("[[database]\n", "a.toml:1:12: ");
}

#[test]
fn an_operation_is_tried_again_with_the_inventory_as_it_is_then() {
    let (orders, users) = (Database::new(), Database::new());
    let world = with_include();
    put(&world, "teams/orders.toml", &entry("orders", &orders.url));
    put(&world, "teams/users.toml", &entry("users", &users.url));
    let world = start(world);
    world.migration("0001_t1", "create table t1 (id int); select 1 / 0;", "drop table t1;");
    let failed = world.ctl(&["apply", "--all", "--canary", "main", "--output", "json"]);
    assert_eq!(failed.code, Some(1));
    let halted = world.ctl(&["operation", "list", "--output", "json"]).json();
    let id = halted["operations"][0]["id"].as_str().expect("an id").to_owned();
    // One goes, and one is another database now.
    let other = Database::new();
    fs::remove_file(world.path("teams/users.toml")).expect("it is removed");
    put(&world, "teams/orders.toml", &entry("orders", &other.url));
    world.ctl(&["reload"]).expect(0);
    world.write("0001_t1.up.sql", "create table t1 (id int);");
    let told = world.ctl(&["operation", "retry", &id, "--accept-new-catalog"]).expect(1);
    assert!(told.contains("NX0078"), "{told}");
    let shown = world.ctl(&["operation", "show", &id, "--output", "json"]).json();
    let databases = shown["databases"].as_array().cloned().unwrap_or_default();
    let states: Vec<_> = databases.iter().map(|it| (it["name"].clone(), it["state"].clone())).collect();
    let expected = [("main", "succeeded"), ("orders", "succeeded"), ("users", "skipped")];
    assert_eq!(states, expected.map(|(name, state)| (name.into(), state.into())), "{shown}");
    assert_eq!((world.database.rows().len(), other.rows().len()), (1, 1));
    assert!(orders.rows().is_empty() && users.rows().is_empty(), "they were never begun, or are gone");
}
