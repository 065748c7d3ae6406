//! What systemd is told through `NOTIFY_SOCKET`, by a real daemon on a real socket.

use std::{
    fs::{self, OpenOptions},
    os::unix::net::UnixDatagram,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use nix::{
    fcntl::{FcntlArg, fcntl},
    sys::{
        signal::{Signal, kill},
        stat::Mode,
    },
    unistd::{Pid, mkfifo},
};

use crate::{
    servers::{Server, free_port, http_get},
    support::{Ended, PATIENCE, World, fail},
};

/// How long the daemon may be silent before the manager would end it.
const LIMIT: Duration = Duration::from_millis(900);

/// Within what time a daemon that hangs has to fall silent.
const SOON: Duration = Duration::from_secs(12);

/// The manager's end of the socket.
struct Manager(UnixDatagram);

impl Manager {
    fn new(path: &Path) -> Self {
        Self(UnixDatagram::bind(path).expect("a socket is bound"))
    }

    /// The next message that comes within this time.
    fn next(&self, within: Duration) -> Option<String> {
        self.0.set_read_timeout(Some(within)).expect("a time-out is set");
        let mut message = [0; 4096];
        let length = self.0.recv(&mut message).ok()?;
        Some(String::from_utf8_lossy(&message[..length]).into_owned())
    }

    /// The next message that is not about the watchdog.
    fn next_state(&self) -> String {
        let until = Instant::now() + PATIENCE;
        while let Some(message) = self.next(until.saturating_duration_since(Instant::now()).max(LIMIT)) {
            if message != "WATCHDOG=1\n" {
                return message;
            }
        }
        fail("the manager is told nothing")
    }

    /// Whether the watchdog would be content for some time.
    fn is_fed_for(&self, time: Duration) -> bool {
        let until = Instant::now() + time;
        while Instant::now() < until {
            match self.next(LIMIT) {
                Some(message) if message == "WATCHDOG=1\n" => {}
                _ => return false,
            }
        }
        true
    }

    /// Waits until nothing more comes for twice as long as the watchdog's limit; that has to be soon, as
    /// timers go on for a while after a thread hangs.
    fn await_silence(&self) {
        let until = Instant::now() + SOON;
        while self.next(2 * LIMIT).is_some() {
            assert!(Instant::now() < until, "the watchdog is fed though the daemon hangs");
        }
    }
}

/// A daemon under a manager with a watchdog.
struct Managed {
    daemon: Server,
    manager: Manager,
    /// Where it answers over HTTP.
    http: String,
    socket: PathBuf,
}

impl Managed {
    fn start(world: &World) -> Self {
        let manager = Manager::new(&world.path("notify.sock"));
        let (http, socket) = (format!("127.0.0.1:{}", free_port()), world.path("nexusd.sock"));
        let config = format!(
            "[server]\ngrpc = \"127.0.0.1:0\"\nhttp = {http:?}\nsocket = \"{socket}\"\nshutdown_timeout = \"7s\"\n\
             [log]\nfile = \"{log}\"\naudit_file = \"{audit_log}\"\n[alerts]\nstate_file = \"{alerts}\"\n\
             [[database]]\nname = \"main\"\nurl = {url:?}\n",
            log = world.path("migrations.jsonl").display(),
            audit_log = world.path("audit.jsonl").display(),
            alerts = world.path("alerts.json").display(),
            url = world.database.url,
            socket = socket.display(),
        );
        fs::write(world.path("nexus.toml"), config).expect("the configuration is written");
        let daemon = Command::new(env!("CARGO_BIN_EXE_nexusd"))
            .args(["serve", "--config"])
            .arg(world.path("nexus.toml"))
            .env("NOTIFY_SOCKET", world.path("notify.sock"))
            .env("WATCHDOG_USEC", LIMIT.as_micros().to_string())
            // What hangs takes a few threads with it, not all of them: a blind timer would go on.
            .env("TOKIO_WORKER_THREADS", "8")
            .stdin(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("nexusd starts");
        Self { daemon: Server(daemon), manager, http, socket }
    }

    fn signal(&self, signal: Signal) {
        let pid = Pid::from_raw(i32::try_from(self.daemon.0.id()).expect("a pid fits"));
        kill(pid, signal).expect("the daemon is signalled");
    }

    fn ctl(&self, command: &str) -> Command {
        let mut ctl = Command::new(env!("CARGO_BIN_EXE_nexusctl"));
        ctl.arg(command).arg(format!("--server=unix:{}", self.socket.display()));
        ctl
    }
}

#[test]
fn the_manager_is_told_of_a_life() {
    let world = World::new();
    world.tables(1, 2);
    let mut nexusd = Managed::start(&world);
    let manager = &nexusd.manager;
    assert_eq!(manager.next_state(), "READY=1\nSTATUS=serving\n");
    assert_eq!(http_get(&nexusd.http, "/-/ready").expect("it answers").0, 200);
    Ended::of(&nexusd.ctl("apply").output().expect("nexusctl runs")).expect(0);
    assert!(manager.is_fed_for(3 * LIMIT));

    nexusd.signal(Signal::SIGHUP);
    let reloading = manager.next_state();
    assert!(reloading.starts_with("RELOADING=1\nMONOTONIC_USEC="), "{reloading}");
    assert_eq!(manager.next_state(), "READY=1\nSTATUS=serving\n");
    assert!(world.log().iter().any(|line| line["message"] == "Log reopened"));
    assert!(manager.is_fed_for(LIMIT));

    nexusd.signal(Signal::SIGTERM);
    let stopping = manager.next_state();
    assert!(stopping.starts_with("STOPPING=1\nEXTEND_TIMEOUT_USEC=47000000\nSTATUS=stopping"), "{stopping}");
    assert!(nexusd.daemon.0.wait().expect("it ends").success());
}

#[test]
fn a_daemon_that_hangs_does_not_feed_the_watchdog() {
    let world = World::new();
    world.tables(1, 30);
    // Whoever writes to a pipe that nobody reads hangs as one does whose disk hangs.
    let path = world.path("migrations.jsonl");
    mkfifo(&path, Mode::S_IRUSR | Mode::S_IWUSR).expect("a pipe is made");
    let mut log = OpenOptions::new().read(true).write(true).open(&path).expect("the pipe is opened");
    fcntl(&log, FcntlArg::F_SETPIPE_SZ(4096)).expect("the pipe is made small");
    let managed = Managed::start(&world);
    assert!(managed.manager.next_state().starts_with("READY=1"));
    assert!(managed.manager.is_fed_for(2 * LIMIT));

    let mut apply = managed.ctl("apply").stdout(Stdio::null()).spawn().expect("nexusctl runs");
    managed.manager.await_silence();

    // Once somebody reads, it goes on where it was.
    let reader = std::thread::spawn(move || std::io::copy(&mut log, &mut std::io::sink()));
    assert!(managed.manager.next(PATIENCE).is_some_and(|message| message == "WATCHDOG=1\n"));
    assert!(apply.wait().expect("nexusctl ends").success());
    drop((managed, reader));
}
