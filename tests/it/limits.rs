//! What clients may take of a daemon: connections, time, descriptors, changes; and what it reads for them.

use std::{
    fs,
    io::{ErrorKind, Read as _, Write as _},
    net::TcpStream,
    os::unix::{fs::symlink, net::UnixStream},
    process::Command,
    time::{Duration, Instant},
};

use nexus::rpc::{
    client::{Client, ClientError, Credentials},
    proto,
};
use nix::{sys::stat::Mode, unistd::mkfifo};
use tempfile::TempDir;

use crate::{
    certificates::Authority,
    support::{Ended, PATIENCE, Running, World, await_that, private, wait},
};

/// A daemon with such `[limits]`.
fn start(limits: &str) -> Running {
    World::new().more(&format!("[limits]\n{limits}\n")).start()
}

/// `nexusctl` over TCP.
fn remote(world: &Running, server: &str, arguments: &[&str]) -> Ended {
    let mut command = world.daemon.ctl_command(arguments);
    Ended::of(&command.env("NEXUS_SERVER", server).output().expect("nexusctl runs"))
}

/// Waits until the other side has closed a connection, whatever it says before.
fn is_closed(stream: &mut (impl std::io::Read + ?Sized)) -> bool {
    let mut rest = [0; 1024];
    loop {
        match stream.read(&mut rest) {
            Ok(0) => return true,
            Ok(_) => {}
            Err(error) => return !matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut),
        }
    }
}

#[test]
fn who_says_nothing_is_disconnected_and_nobody_else() {
    let world = start("handshake_timeout = \"1s\"");
    let connect = |address: &str| {
        let stream = TcpStream::connect(address).expect("it connects");
        stream.set_read_timeout(Some(Duration::from_secs(20))).expect("it is set");
        stream
    };
    wait(async {
        let address = world.daemon.grpc.parse().expect("an address");
        let client = Client::connect(&address, &Credentials::default(), PATIENCE).await.expect("it connects");
        let watch = client.alerts().watch_alerts(proto::WatchAlertsRequest::default()).await;
        let mut alerts = watch.expect("it is served").into_inner();
        let began = Instant::now();
        let mut silent: Vec<_> = (0..20).map(|_| connect(&world.daemon.grpc)).collect();
        silent.extend((0..5).map(|_| connect(&world.daemon.http)));
        let mut halves = connect(&world.daemon.grpc);
        halves.write_all(b"PRI * HTTP/2.0\r\n").expect("it is sent");
        silent.push(halves);
        let mut page = connect(&world.daemon.http);
        page.write_all(b"GET /metrics HTTP/1.1\r\nhost: n").expect("it is sent");
        silent.push(page);
        let mut local = UnixStream::connect(&world.daemon.socket).expect("it connects");
        local.set_read_timeout(Some(Duration::from_secs(20))).expect("it is set");
        world.ctl(&["status"]).expect(0);
        for stream in &mut silent {
            assert!(is_closed(stream), "{stream:?} is still open");
        }
        assert!(is_closed(&mut local));
        let took = began.elapsed();
        assert!((Duration::from_millis(900)..Duration::from_secs(15)).contains(&took), "{took:?}");
        // Whoever has begun to speak may be silent for as long as they like.
        let quiet = tokio::time::timeout(Duration::from_millis(500), alerts.message()).await;
        assert!(quiet.is_err(), "a stream was ended: {quiet:?}");
        let version = client.fleet().get_version(proto::GetVersionRequest::default()).await;
        client.answer(version).expect("the connection is there");
    });
}

#[test]
fn one_more_client_is_told_that_there_are_too_many() {
    let world = start("max_clients = 8\nmax_clients_per_address = 4\nhandshake_timeout = \"60s\"");
    let held: Vec<_> = (0..4).map(|_| TcpStream::connect(&world.daemon.grpc).expect("it connects")).collect();
    let server = world.daemon.grpc.clone();
    let is_refused = || remote(&world, &server, &["status"]).code != Some(0);
    await_that("the four are there", is_refused);
    let refused = remote(&world, &server, &["status"]).stderr;
    assert!(refused.contains("NX0117") && refused.contains("4 connections of yours"), "{refused}");
    assert!(refused.contains("max_clients_per_address"), "{refused}");
    // A probe is told how it is all the same, and the socket and the pages have places of their own.
    remote(&world, &server, &["health"]).expect(0);
    world.ctl(&["status"]).expect(0);
    let (status, metrics) = world.daemon.page("/metrics");
    assert_eq!(status, 200);
    assert!(metrics.contains("\nnexus_clients{listener=\"grpc\"} 4\n"), "{metrics}");
    assert!(!metrics.contains("nexus_clients_turned_away_total{listener=\"grpc\"} 0\n"), "{metrics}");
    // More than are told so are not even that.
    let many: Vec<_> = (0..100).map(|_| TcpStream::connect(&server).expect("it connects")).collect();
    world.ctl(&["status"]).expect(0);
    drop((held, many));
    await_that("there is room again", || !is_refused());
}

/// What a process has used of the processor, in hundredths of a second.
fn ticks(pid: &str) -> u64 {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).expect("it runs");
    let fields = stat.rsplit_once(')').expect("a name").1.split_whitespace();
    fields.skip(11).take(2).map(|field| field.parse::<u64>().expect("a number")).sum()
}

#[test]
fn a_daemon_without_descriptors_waits_and_recovers() {
    let world = start("");
    world.tables(1, 1);
    let pid = world.log()[0]["pid"].to_string();
    let allow = |descriptors: usize| {
        // The hard limit stays as it is.
        let limit = format!("--nofile={descriptors}:");
        let set = Command::new("prlimit").args(["--pid", &pid, &limit]).status();
        assert!(set.expect("prlimit runs").success());
    };
    let open = || fs::read_dir(format!("/proc/{pid}/fd")).expect("it runs").count();
    world.ctl(&["status"]).expect(0);
    allow(open() + 2);
    let connect = || TcpStream::connect(&world.daemon.grpc).expect("the system takes it");
    let held: Vec<_> = (0..30).map(|_| connect()).collect();
    std::thread::sleep(Duration::from_millis(500));
    let before = ticks(&pid);
    std::thread::sleep(Duration::from_secs(2));
    let used = ticks(&pid) - before;
    assert!(used < 60, "{used} hundredths of a second in two seconds");
    drop(held);
    allow(1024);
    let is_well = || world.ctl(&["status"]).code == Some(0);
    await_that("it serves again", is_well);
    world.ctl(&["apply"]).expect(0);
    assert_eq!(world.database.tables(), ["t1"]);
}

#[test]
fn nobody_notices_that_connections_are_replaced() {
    let world = start("max_connection_age = \"500ms\"");
    wait(async {
        let address = world.daemon.grpc.parse().expect("an address");
        let client = Client::connect(&address, &Credentials::default(), PATIENCE).await.expect("it connects");
        let until = Instant::now() + Duration::from_secs(3);
        let mut calls = 0;
        while Instant::now() < until {
            let ask = || async {
                let asked = client.fleet().get_version(proto::GetVersionRequest::default()).await;
                client.answer(asked)
            };
            // What meets the end of a connection on its way is not begun: that is asked again.
            match ask().await {
                Err(ClientError::Lost { reason, .. }) if reason.contains("not a result of an error") => {
                    ask().await.expect("the next connection is a new one");
                }
                answer => drop(answer.expect("no call fails")),
            }
            calls += 1;
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        assert!(calls > 20, "{calls}");
    });
}

#[test]
fn one_caller_makes_so_many_changes_and_reads_on() {
    let world = start("max_changes_per_minute = 2");
    world.tables(1, 1);
    for _ in 0..2 {
        world.ctl(&["apply"]).expect(0);
    }
    let refused = world.ctl(&["apply", "-o", "json"]);
    assert_ne!(refused.code, Some(0));
    let told = refused.json();
    assert_eq!(told["error"]["code"], "NX0115", "{told}");
    assert!(told["error"]["hint"].as_str().is_some_and(|hint| hint.starts_with("ask again in ")), "{told}");
    world.ctl(&["status"]).expect(0);
    world.ctl(&["history"]).expect(0);
}

#[test]
fn what_is_no_file_of_the_directory_is_not_read() {
    let world = World::new().start();
    world.tables(1, 1);
    let path = |name: &str| world.path("migrations").join(name);
    let refused = |code: &str, part: &str| {
        let began = Instant::now();
        let told = world.ctl(&["apply"]);
        assert_ne!(told.code, Some(0), "{}", told.stdout);
        let told = format!("{}{}", told.stdout, told.stderr);
        assert!(told.contains(code) && told.contains(part), "{told}");
        assert!(began.elapsed() < Duration::from_secs(20), "it was waited for");
    };
    mkfifo(&path("0002_pipe.up.sql"), Mode::S_IRWXU).expect("a pipe is made");
    refused("NX0015", "0002_pipe.up.sql: it is no regular file");
    world.remove("0002_pipe.up.sql");
    let outside = TempDir::new().expect("a directory is made");
    fs::write(outside.path().join("secret"), "hunter2").expect("it is written");
    for target in [outside.path().join("secret"), "../migrations.jsonl".into(), "/dev/zero".into()] {
        symlink(&target, path("0002_out.up.sql")).expect("a link is made");
        refused("NX0119", "0002_out.up.sql: it is a symbolic link that leads out");
        world.remove("0002_out.up.sql");
    }
    // One that stays inside is followed.
    symlink("0001_t1.down.sql", path("0001_t1.more")).expect("a link is made");
    fs::rename(path("0001_t1.down.sql"), path("real")).expect("it is renamed");
    symlink("real", path("0001_t1.down.sql")).expect("a link is made");
    world.ctl(&["apply"]).expect(0);
    world.ctl(&["rollback", "--steps", "1", "--yes"]).expect(0);
    assert!(world.database.tables().is_empty());
}

#[test]
fn a_protected_database_takes_a_directory_of_its_own() {
    use std::os::unix::fs::PermissionsExt as _;
    let world = World::new().set("protected = true");
    private(&world.path("access.toml"), "");
    let access = format!("[access]\nfile = {:?}\n", world.path("access.toml").display().to_string());
    let world = world.more(&access).start();
    world.tables(1, 1);
    let set = |mode| {
        fs::set_permissions(world.path("migrations"), fs::Permissions::from_mode(mode)).expect("it is set");
    };
    set(0o777);
    let refused = world.ctl(&["plan"]);
    let told = format!("{}{}", refused.stdout, refused.stderr);
    assert!(told.contains("NX0118") && told.contains("mode 0777") && told.contains("chmod o-w"), "{told}");
    set(0o755);
    world.ctl(&["plan"]).expect(0);
}

#[test]
fn the_wrong_scheme_is_named() {
    let world = World::new().start();
    let home = TempDir::new().expect("a directory is made");
    let ca = Authority::new().write(&home.path().join("ca.pem"));
    let mut command = world.daemon.ctl_command(&["status"]);
    let server = format!("https://{}", world.daemon.grpc);
    let told = command.env("NEXUS_SERVER", server).env("NEXUS_CA", ca).output().expect("nexusctl runs");
    let told = Ended::of(&told);
    assert!(told.code == Some(4) && told.stderr.contains("with http://"), "{}", told.stderr);
}

#[test]
fn a_page_is_asked_for_in_few_words() {
    let world = World::new().start();
    let mut stream = TcpStream::connect(&world.daemon.http).expect("it connects");
    let long = "y".repeat(64 << 10);
    // It may be disconnected before it has said everything.
    let sent = write!(stream, "GET /metrics HTTP/1.1\r\nhost: nexus\r\nx: {long}\r\n\r\n");
    let mut answer = Vec::new();
    let read = stream.read_to_end(&mut answer);
    let answer = String::from_utf8_lossy(&answer);
    assert!(answer.starts_with("HTTP/1.1 431") || sent.is_err() || read.is_err(), "{answer}");
    assert_eq!(world.daemon.page("/-/healthy").0, 200);
}
