//! The daemon as a process: its ports, its health, its log, what it refuses to start with.

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    process::{Command, Stdio},
};

use nix::sys::signal::Signal;

use crate::support::{World, await_that, read_log};

/// Starts a daemon that must refuse to run; returns what it said.
fn refused(world: &World, configuration: &str) -> String {
    let path = world.path("refused.toml");
    fs::write(&path, configuration).expect("the configuration is written");
    let output = Command::new(env!("CARGO_BIN_EXE_nexusd"))
        .args(["serve", "--config"])
        .arg(&path)
        .stdin(Stdio::null())
        .output()
        .expect("nexusd runs");
    assert_eq!(output.status.code(), Some(1));
    String::from_utf8(output.stderr).expect("the error is text")
}

#[test]
fn what_it_does_not_start_with() {
    let world = World::new();
    let check = |toml: &str, mentions: &[&str]| {
        let told = refused(&world, toml);
        assert!(mentions.iter().all(|mention| told.contains(mention)), "{told}");
    };
    check("", &["no [[database]]"]);
    check("[server]\ngrpc = \"0.0.0.0:7421\"\n", &["0.0.0.0:7421", "refused.toml:2"]);
    check("[server]\ngrcp = \"127.0.0.1:0\"\n", &["refused.toml:2:1", "grpc"]);
    check("[[database]]\nname = \"a\"\nurl = \"postgres://u:CANARY@h/d?sslmod=x\"\n", &["sslmod"]);
    assert!(
        !refused(&world, "[[database]]\nname = \"a\"\nurl = \"postgres://u:CANARY@h/d?sslmod=x\"\n")
            .contains("CANARY")
    );
    let one = format!("[[database]]\nname = \"a\"\nurl = {:?}\n", world.database.url);
    let unwritable =
        "[server]\ngrpc = \"127.0.0.1:0\"\nhttp = \"127.0.0.1:0\"\n[log]\nfile = \"/proc/none/log\"\n";
    check(&format!("{unwritable}{one}"), &["Failed to write to migration log file"]);
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a port is bound");
    let port = taken.local_addr().expect("it has an address");
    check(&format!("[server]\ngrpc = \"{port}\"\nhttp = \"127.0.0.1:0\"\n{one}"), &["cannot listen on"]);
}

#[test]
fn check_config_masks_secrets() {
    let world = World::new();
    let path = world.path("nexus.toml");
    fs::write(&path, "[[database]]\nname = \"a\"\nurl = \"postgres://user:CANARY@localhost/shop\"\n")
        .expect("the configuration is written");
    let output = Command::new(env!("CARGO_BIN_EXE_nexusd"))
        .args(["check-config", "--config"])
        .arg(&path)
        .output()
        .expect("nexusd runs");
    let printed = String::from_utf8(output.stdout).expect("text");
    assert!(output.status.success() && printed.contains("lock_timeout = \"5s\""), "{printed}");
    assert!(printed.contains("localhost/shop") && !printed.contains("CANARY"), "{printed}");
}

#[test]
fn health_metrics_and_socket() {
    let world = World::new().start();
    world.tables(1, 1);
    world.ctl(&["apply"]).expect(0);
    assert_eq!(world.daemon.page("/-/healthy").0, 200);
    assert_eq!(world.daemon.page("/-/ready").0, 200);
    assert_eq!(world.daemon.page("/nothing").0, 404);
    let (_, metrics) = world.daemon.page("/metrics");
    for line in [
        "nexus_rpc_requests_total{code=\"OK\",method=\"nexus.v1.MigrationService/Apply\"} 1",
        "nexus_migration_steps_total{direction=\"up\",outcome=\"succeeded\"} 1",
        "nexus_build_info{",
        "process_resident_memory_bytes ",
    ] {
        assert!(metrics.contains(line), "{line}\n{metrics}");
    }
    let mode = fs::metadata(&world.daemon.socket).expect("the socket is there").permissions().mode();
    assert_eq!(mode & 0o777, 0o660);
    // Over TCP too.
    let mut command = world.daemon.ctl_command(&["status", "--check"]);
    let status = command.env("NEXUS_SERVER", &world.daemon.grpc).output().expect("nexusctl runs").status;
    assert_eq!(status.code(), Some(0));
}

#[test]
fn the_log_is_private_reopened_and_guarded() {
    let world = World::new().start();
    let log = world.path("migrations.jsonl");
    assert_eq!(fs::metadata(&log).expect("the log is there").permissions().mode() & 0o777, 0o600);
    world.tables(1, 1);
    world.ctl(&["apply"]).expect(0);

    let old = world.path("old.jsonl");
    fs::rename(&log, &old).expect("the log is moved");
    world.daemon.signal(Signal::SIGHUP);
    await_that("the log is reopened", || log.exists());
    world.tables(2, 1);
    world.ctl(&["apply"]).expect(0);
    assert!(read_log(&old).iter().all(|line| line["version"] != "0002_t2"));
    assert_eq!(world.logged("Migration applied successfully").len(), 1);

    // It cannot be written any more: new mutations are refused, reading goes on.
    fs::remove_file(&log).expect("the log is removed");
    fs::create_dir(&log).expect("a directory stands in its place");
    world.tables(3, 1);
    let told = world.ctl(&["apply"]).expect(1);
    assert!(told.contains("NX0053") && told.contains("Failed to write to migration log file"), "{told}");
    assert_eq!(world.database.tables(), ["t1", "t2"]);
    world.ctl(&["status"]).expect(0);
    assert_eq!(world.daemon.page("/-/ready").0, 503);
    fs::remove_dir(&log).expect("the directory is removed");
    world.ctl(&["apply"]).expect(0);
    assert_eq!(world.logged("Migration applied successfully").len(), 1);
}

#[test]
fn a_log_that_fails_in_mid_run_does_not_end_the_run() {
    let world = World::new().start();
    world.migration("0001_slow", "create table slow (id int);\nselect pg_sleep(1);\n", "drop table slow;");
    world.tables(2, 1);
    let client = world.daemon.ctl_begin(&["apply"]);
    world.database.await_row("select 1 from pg_stat_activity where query like '%pg_sleep(1)%' and pid <> pg_backend_pid() and datname = current_database()");
    let log = world.path("migrations.jsonl");
    fs::remove_file(&log).expect("the log is removed");
    fs::create_dir(&log).expect("a directory stands in its place");
    client.end().expect(0);
    assert_eq!(world.database.rows(), ["0001_slow|f", "0002_t2|f"]);
}

#[test]
fn databases_that_cannot_be_reached_are_told_apart() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a port is bound");
    let silent = taken.local_addr().expect("it has an address");
    let free = {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port is bound");
        listener.local_addr().expect("it has an address")
    };
    let more = format!(
        "[[database]]\nname = \"refused\"\nurl = \"postgres://u:CANARY@{free}/x\"\nmigrations = \"migrations\"\n\
         [[database]]\nname = \"silent\"\nurl = \"postgres://u:CANARY@{silent}/x\"\nconnect_timeout = \"500ms\"\nmigrations = \"migrations\"\n",
    );
    let world = World::new().more(&more).start();
    world.tables(1, 1);
    assert!(world.ctl(&["apply"]).expect(1).contains("NX0051"));
    assert!(world.ctl(&["apply", "--database", "nothing"]).expect(1).contains("NX0050"));
    let result = world.ctl(&["apply", "--all", "--output", "json"]);
    assert_eq!(result.code, Some(1));
    let result = result.json();
    let told: Vec<_> = result["databases"]
        .as_array()
        .expect("a list")
        .iter()
        .map(|it| format!("{} {} {}", it["database"], it["outcome"], it["failure"]["code"]))
        .collect();
    assert_eq!(
        told,
        [
            "\"main\" \"succeeded\" null",
            "\"refused\" \"failed\" \"NX0041\"",
            "\"silent\" \"failed\" \"NX0041\""
        ]
    );
    assert!(!result.to_string().contains("CANARY"));
    assert_eq!(world.database.rows(), ["0001_t1|f"]);
    world.ctl(&["status", "--check", "--database", "refused"]).expect(3);
}

#[test]
fn what_failed_once_does_not_stay_in_the_way() {
    let world = World::new().set("schema = \"later\"").start();
    world.tables(1, 1);
    assert!(world.ctl(&["apply"]).expect(1).contains("NX0056"));
    world.ctl(&["status"]).expect(0);
    world.database.sql("create schema later");
    world.ctl(&["apply"]).expect(0);

    let foreign = World::new().start();
    foreign.database.sql("create table schema_migrations (version bigint primary key)");
    foreign.tables(1, 1);
    foreign.ctl(&["apply"]).expect(1);
    let locks = "select count(*) from pg_locks where locktype = 'advisory' and database = \
                 (select oid from pg_database where datname = current_database())";
    await_that("the lock is given back", || foreign.database.sql(locks) == ["0"]);
}

#[test]
fn a_request_id_is_known_after_a_restart() {
    let mut world = World::new().start();
    world.tables(1, 3);
    world.ctl(&["apply"]).expect(0);
    let id = world.database.sql("select operation_id from nexus_journal limit 1").remove(0);
    world.daemon.restart();
    let told = world.ctl(&["apply", "--request-id", &id]).expect(1);
    assert!(told.contains("NX0057"), "{told}");
    assert_eq!(world.database.tables().len(), 3);
}
