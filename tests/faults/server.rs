//! What breaks on the server's side: it stops at once, a backend dies, the disk is full.

use std::{
    fs,
    os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown},
    path::PathBuf,
    process::Command,
    time::Instant,
};

use nexus::postgres::embedded::Embedded;
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use tempfile::TempDir;

use crate::{
    killed::{APPLY, ROLL_BACK},
    scene::{Mode, Scene},
    support::Database,
    trial::{Case, Trial},
};

const MODES: [Mode; 3] = [Mode::Transactional, Mode::NonTransactional, Mode::Large];

pub(crate) fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for mode in MODES {
        for how in [Crash::Server, Crash::Backend] {
            for verb in [APPLY, ROLL_BACK] {
                let name = format!("{mode:?}, {}", verb[0]);
                cases.push(Case::new(how.name(), name, move |trial| crashed(trial, mode, how, verb)));
            }
        }
        for verb in [APPLY, ROLL_BACK] {
            let name = format!("{mode:?}, {}, in a statement", verb[0]);
            cases.push(Case::new(TERMINATED, name, move |trial| terminated(trial, mode, verb)));
        }
    }
    for point in ["apply.begun", "apply.marked", "apply.ended"] {
        cases.push(Case::new(TERMINATED, format!("at {point}"), move |trial| terminated_at(trial, point)));
    }
    cases.push(Case::new(DISK_FULL, "the tables' file system", disk_full));
    cases
}

const TERMINATED: &str = "pg_terminate_backend";
const DISK_FULL: &str = "server: disk full";

#[derive(Clone, Copy)]
enum Crash {
    /// As `pg_ctl stop -m immediate` does, and started again.
    Server,
    /// One process is killed: the postmaster ends all others and recovers.
    Backend,
}

impl Crash {
    fn name(self) -> &'static str {
        match self {
            Self::Server => "server: stopped at once, started again",
            Self::Backend => "server: a backend killed",
        }
    }
}

/// A slow step is under way: of an apply, or of a rollback of what was applied before.
fn begin(scene: &Scene, verb: &[&str]) -> crate::support::Begun {
    if verb == ROLL_BACK {
        scene.ctl(APPLY).expect(0);
    }
    scene.running.daemon.ctl_begin(verb)
}

fn goal(verb: &[&str]) -> usize {
    if verb == ROLL_BACK { 1 } else { 3 }
}

fn crashed(trial: &mut Trial, mode: Mode, how: Crash, verb: &'static [&'static str]) {
    let mut server = Embedded::start(&[("wal_writer_delay", "10s")]).expect("PostgreSQL starts");
    let world = Scene::slow(mode, Scene::on(mode, Database::on(&server, "crashing")));
    let scene = Scene::start(mode, world, "");
    let client = begin(&scene, verb);
    let pid = scene.await_work();
    match how {
        Crash::Server => {
            server.kill().expect("it stops");
            server.restart().expect("it starts again");
        }
        Crash::Backend => kill(Pid::from_raw(pid), Signal::SIGKILL).expect("the backend is killed"),
    }
    let over = Instant::now();
    // It ends when the daemon could ask what became of its step: the server is back by then.
    client.end();
    scene.judge(trial, true).await_told(&scene, trial);
    scene.converge(trial, over, &[verb], goal(verb), true);
}

fn terminated(trial: &mut Trial, mode: Mode, verb: &'static [&'static str]) {
    let scene = Scene::start(mode, Scene::slow(mode, Scene::set(mode)), "");
    let client = begin(&scene, verb);
    let pid = scene.await_work();
    scene.world().database.sql(&format!("select pg_terminate_backend({pid})"));
    let over = Instant::now();
    client.end().expect(1);
    scene.judge(trial, true).await_told(&scene, trial);
    scene.converge(trial, over, &[verb], goal(verb), true);
}

/// Between two messages: the session is idle, and its end is noticed with the next one.
fn terminated_at(trial: &mut Trial, point: &str) {
    let mode = Mode::Transactional;
    let scene = Scene::start(mode, Scene::set(mode), &format!("{point}=1*off->1*sleep(1500)"));
    let client = scene.running.daemon.ctl_begin(APPLY);
    let idle = "select pg_terminate_backend(pid) from pg_stat_activity where state = 'idle' \
                and application_name ~ '^nexusd [0-9a-f]{8}-' and datname = current_database() \
                and state_change < clock_timestamp() - interval '300 ms'";
    scene.world().database.await_row(idle);
    let over = Instant::now();
    client.end();
    scene.judge(trial, true).await_told(&scene, trial);
    scene.converge(trial, over, &[APPLY], 3, true);
}

/// A small file system that ends with the case.
struct Small(TempDir);

impl Small {
    fn mount(owner: &fs::Metadata, size: &str) -> Result<Self, String> {
        let home = TempDir::new().map_err(|error| error.to_string())?;
        fs::set_permissions(home.path(), fs::Permissions::from_mode(0o755))
            .map_err(|error| error.to_string())?;
        let mount = Self(home);
        mount.run("mount", &["-t", "tmpfs", "-o", &format!("size={size}"), "tmpfs"])?;
        let place = mount.path().join("space");
        let made = fs::create_dir(&place).and_then(|()| chown(&place, Some(owner.uid()), Some(owner.gid())));
        made.map_err(|error| error.to_string())?;
        Ok(mount)
    }

    fn path(&self) -> PathBuf {
        self.0.path().to_owned()
    }

    fn run(&self, program: &str, arguments: &[&str]) -> Result<(), String> {
        let output = Command::new(program).args(arguments).arg(self.path()).output();
        let output = output.map_err(|error| format!("{program}: {error}"))?;
        let why = || format!("{program}: {}", String::from_utf8_lossy(&output.stderr).trim());
        if output.status.success() { Ok(()) } else { Err(why()) }
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        // Where it was not mounted, there is nothing to undo.
        let _ = self.run("umount", &["--lazy"]);
    }
}

fn disk_full(trial: &mut Trial) {
    let mode = Mode::Large;
    let server = Embedded::start(&[]).expect("PostgreSQL starts");
    let owner = fs::metadata(server.data_directory()).expect("its directory is there");
    let small = match Small::mount(&owner, "1m") {
        Ok(small) => small,
        Err(why) => return trial.cannot_run(format!("a small file system could not be mounted ({why})")),
    };
    let world = Scene::on(mode, Database::on(&server, "full"));
    let space = small.path().join("space").display().to_string();
    world.database.sql(&format!("create tablespace small location '{space}'"));
    world.database.sql("alter database \"full\" set default_tablespace = small");
    let scene = Scene::start(mode, world, "");
    let told = scene.ctl(APPLY).expect(1);
    if !told.contains("53100") {
        trial.violates(format!("the disk was not full: {told}"));
    }
    scene.judge(trial, true).await_told(&scene, trial);
    small.run("mount", &["-o", "remount,size=64m"]).expect("there is room now");
    scene.converge(trial, Instant::now(), &[APPLY], 3, true);
    drop(server);
}
