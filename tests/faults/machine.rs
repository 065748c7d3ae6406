//! What breaks on the daemon's machine: its log's disk, its descriptors, its clock, its directory, its
//! sinks; and how it is stopped.

use std::{
    fs,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, Instant},
};

use nix::sys::signal::Signal;

use crate::{
    killed::{APPLY, RECOVER, ROLL_BACK, correct, spoil},
    scene::{MIGRATIONS, Mode, Scene},
    support::{World, await_that},
    trial::{Case, Trial},
};

const MODES: [Mode; 3] = [Mode::Transactional, Mode::NonTransactional, Mode::Large];
const TX: Mode = Mode::Transactional;

pub(crate) fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for mode in MODES {
        for verb in [APPLY, ROLL_BACK] {
            let name = format!("{mode:?}, {}", verb[0]);
            let stop = |times| move |trial: &mut Trial| stopped(trial, mode, verb, times);
            cases.push(Case::new("SIGTERM in mid-step", name.clone(), stop(1)));
            cases.push(Case::new("SIGTERM twice in mid-step", name.clone(), stop(2)));
            cases.push(Case::new("the client goes away", name, move |trial| client_gone(trial, mode, verb)));
        }
        cases.push(Case::new("log disk full", format!("{mode:?}"), move |trial| log_full(trial, mode)));
        cases.push(Case::new("out of descriptors", format!("{mode:?}"), move |trial| {
            out_of_descriptors(trial, mode);
        }));
        for (name, jump) in [("a day ahead", "+86400"), ("an hour back", "-3600")] {
            let name = format!("{mode:?}, {name}");
            cases.push(Case::new("the clock jumps", name, move |trial| clock_jumps(trial, mode, jump)));
        }
    }
    let swapped = "the directory is swapped";
    cases.push(Case::new(swapped, "for other files", |trial| directory_swapped(trial, Swap::Edited)));
    cases.push(Case::new(swapped, "for the same files", |trial| directory_swapped(trial, Swap::Same)));
    cases.push(Case::new(swapped, "for nothing", |trial| directory_swapped(trial, Swap::Gone)));
    cases.push(Case::new("sinks and collector down", "an apply that fails", nobody_listens));
    cases
}

/// Begins a slow step.
fn begin(mode: Mode, verb: &[&str], environment: &[(&str, &str)]) -> (Scene, crate::support::Begun) {
    let scene = Scene::start_in(mode, Scene::slow(mode, Scene::set(mode)), environment);
    if verb == ROLL_BACK {
        scene.ctl(APPLY).expect(0);
    }
    let client = scene.running.daemon.ctl_begin(verb);
    scene.await_work();
    (scene, client)
}

fn goal(verb: &[&str]) -> usize {
    if verb == ROLL_BACK { 1 } else { 3 }
}

fn stopped(trial: &mut Trial, mode: Mode, verb: &'static [&'static str], times: usize) {
    let (mut scene, client) = begin(mode, verb, &[]);
    scene.running.daemon.signal(Signal::SIGTERM);
    if times == 2 {
        await_that("it drains", || scene.running.daemon.page("/-/ready").0 == 503);
        scene.running.daemon.signal(Signal::SIGTERM);
    }
    let code = scene.running.daemon.wait();
    if code != Some(i32::from(times == 2)) {
        trial.violates(format!("it ended with {code:?}"));
    }
    client.end();
    let over = Instant::now();
    let before = scene.judge(trial, times == 1);
    scene.running.daemon.restart();
    before.await_told(&scene, trial);
    scene.converge(trial, over, &[verb], goal(verb), times == 1);
}

fn client_gone(trial: &mut Trial, mode: Mode, verb: &'static [&'static str]) {
    let (scene, client) = begin(mode, verb, &[]);
    client.kill();
    let over = Instant::now();
    let goal = goal(verb);
    await_that("it goes on to its end", || {
        scene.world().database.rows().iter().filter(|row| row.ends_with("|f")).count() == goal
    });
    scene.converge(trial, over, &[verb], goal, true);
}

/// A run goes on, and what it would log is kept; a new one is refused.
fn log_full(trial: &mut Trial, mode: Mode) {
    let (scene, client) = begin(mode, APPLY, &[]);
    let (log, kept) = (scene.world().path("migrations.jsonl"), scene.world().path("kept.jsonl"));
    fs::rename(&log, &kept).expect("the log is moved");
    symlink("/dev/full", &log).expect("a full disk takes its place");
    scene.running.daemon.signal(Signal::SIGHUP);
    client.end().expect(0);
    let refused = scene.ctl(ROLL_BACK).expect(1);
    if !refused.contains("ENOSPC") {
        trial.violates(format!("it is not refused for its log: {refused}"));
    }
    fs::remove_file(&log).expect("it goes");
    fs::rename(&kept, &log).expect("the log comes back");
    scene.converge(trial, Instant::now(), &[APPLY], 3, true);
}

/// A process may open no further file or socket.
fn out_of_descriptors(trial: &mut Trial, mode: Mode) {
    let (scene, client) = begin(mode, APPLY, &[]);
    let pid = scene.running.daemon.pid();
    let prlimit = |arguments: &[&str]| {
        let output = Command::new("prlimit").arg(format!("--pid={pid}")).args(arguments).output();
        let output = output.map_err(|error| error.to_string())?;
        let said = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_owned();
        if output.status.success() { Ok(said(&output.stdout)) } else { Err(said(&output.stderr)) }
    };
    let open = fs::read_dir(format!("/proc/{pid}/fd")).expect("its descriptors are listed").count();
    let before = prlimit(&["--nofile", "--output=SOFT", "--noheadings"]);
    let before = match before.and_then(|before| prlimit(&[&format!("--nofile={open}:")]).map(|_| before)) {
        Ok(before) => before,
        Err(why) => return trial.cannot_run(format!("the limit cannot be set ({why})")),
    };
    let another = scene.running.daemon.ctl_begin(&["status", "--timeout", "2s"]);
    client.end();
    another.end();
    scene.judge(trial, false);
    prlimit(&[&format!("--nofile={before}:")]).expect("it may open files again");
    scene.converge(trial, Instant::now(), &[APPLY], 3, true);
}

/// The library that fakes the clock of a process, where it is installed.
fn faketime() -> Option<PathBuf> {
    let machines = fs::read_dir("/usr/lib").ok()?.filter_map(Result::ok);
    let mut found = machines.map(|entry| entry.path().join("faketime/libfaketime.so.1"));
    found.find(|path| path.exists())
}

/// The wall clock of the daemon's machine is set while a step runs; the monotonic one goes on.
fn clock_jumps(trial: &mut Trial, mode: Mode, jump: &str) {
    let Some(library) = faketime() else {
        return trial.cannot_run("libfaketime is not installed (Debian's package faketime)");
    };
    let home = tempfile::tempdir().expect("a directory is made");
    let clock = home.path().join("clock");
    fs::write(&clock, "+0").expect("the clock is set");
    let environment = [
        ("LD_PRELOAD", library.to_str().expect("a path")),
        ("FAKETIME_TIMESTAMP_FILE", clock.to_str().expect("a path")),
        ("FAKETIME_NO_CACHE", "1"),
        ("FAKETIME_DONT_FAKE_MONOTONIC", "1"),
    ];
    let (scene, client) = begin(mode, APPLY, &environment);
    fs::write(&clock, jump).expect("the clock is set");
    let over = Instant::now();
    client.end().expect(0);
    let log = scene.world().log();
    let hour = |line: Option<&serde_json::Value>| Some(line?["timestamp"].as_str()?.get(..13)?.to_owned());
    let (first, last) = (hour(log.first()), hour(log.last()));
    if first == last {
        trial.violates(format!("the clock did not jump: it is still {last:?}"));
    }
    scene.judge(trial, true);
    scene.ctl(ROLL_BACK).expect(0);
    scene.converge(trial, over, &[APPLY], 3, true);
}

#[derive(Clone, Copy, PartialEq)]
enum Swap {
    Edited,
    Same,
    Gone,
}

fn directory_swapped(trial: &mut Trial, swap: Swap) {
    // The first step is held up, before the later files are read.
    let scene = Scene::start(TX, Scene::set(TX), "apply.marked=1*sleep(1200)");
    let (directory, away) = (scene.world().path("migrations"), scene.world().path("away"));
    let client = scene.running.daemon.ctl_begin(APPLY);
    scene.await_dirty();
    fs::rename(&directory, &away).expect("the directory goes");
    if swap != Swap::Gone {
        copy(&away, &directory);
    }
    if swap == Swap::Edited {
        let last = &MIGRATIONS[2];
        scene.world().migration(last.version, "create table another (id int);", "drop table another;");
    }
    let ended = client.end();
    if (swap == Swap::Same) != (ended.code == Some(0)) {
        trial.violates(format!("it ended so: {ended:?}"));
    }
    if !scene.world().database.sql("select 1 from pg_tables where tablename = 'another'").is_empty() {
        trial.violates("what was swapped in was run");
    }
    scene.judge(trial, true);
    if directory.exists() {
        fs::remove_dir_all(&directory).expect("the other directory goes");
    }
    fs::rename(&away, &directory).expect("the directory comes back");
    scene.converge(trial, Instant::now(), &[APPLY], 3, true);
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir(to).expect("a directory is made");
    for entry in fs::read_dir(from).expect("it is read").filter_map(Result::ok) {
        fs::copy(entry.path(), to.join(entry.file_name())).expect("a file is copied");
    }
}

/// Alerts reach nobody, traces reach nobody: nothing waits for that.
fn nobody_listens(trial: &mut Trial) {
    let nobody = "http://127.0.0.1:9";
    let deaf = |world: World| {
        world.more(&format!(
            "[telemetry]\nendpoint = \"{nobody}\"\n[[alerts.webhook]]\nurl = \"{nobody}\"\n\
             [[alerts.alertmanager]]\nurl = \"{nobody}\"\n"
        ))
    };
    let mut scene = Scene::start(TX, deaf(Scene::set(TX)), "");
    spoil(scene.world(), TX, "up");
    scene.ctl(APPLY).expect(1);
    let state = scene.judge(trial, true);
    state.await_told(&scene, trial);
    correct(scene.world(), TX);
    scene.converge(trial, Instant::now(), &[RECOVER, APPLY], 3, true);
    let began = Instant::now();
    scene.running.daemon.signal(Signal::SIGTERM);
    let code = scene.running.daemon.wait();
    if code != Some(0) || began.elapsed() > Duration::from_secs(15) {
        trial.violates(format!("it ended with {code:?} after {:?}", began.elapsed()));
    }
}
