//! What clients do: apply, roll back, recover, look, steer, and go away in the middle.

use std::{
    os::unix::process::ExitStatusExt as _,
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::Duration,
};

use fastrand::Rng;

use crate::{
    fleet::{Daemon, Fleet},
    report::{Tally, count},
};

/// Works until it is told to stop.
pub(crate) fn client(fleet: &Fleet, stop: &AtomicBool, mut random: Rng) -> anyhow::Result<Tally> {
    let mut tally = Tally::new();
    while !stop.load(Ordering::Relaxed) {
        let daemon = &fleet.daemons[random.usize(..fleet.daemons.len())];
        match random.u32(0..100) {
            0..40 => apply(fleet, daemon, &mut random, &mut tally)?,
            40..70 => rollback(fleet, daemon, &mut random, &mut tally)?,
            70..78 => {
                let some = some(fleet, &mut random);
                ask(daemon, "recover", &[&["recover", "-y"], &refs(&some)[..]].concat(), &mut tally)?;
            }
            78..90 => steer(daemon, &mut random, &mut tally)?,
            _ => look(fleet, daemon, &mut random, &mut tally)?,
        }
        thread::sleep(Duration::from_millis(random.u64(0..200)));
    }
    Ok(tally)
}

/// Some databases, as arguments.
fn some(fleet: &Fleet, random: &mut Rng) -> Vec<String> {
    if random.u32(0..10) == 0 {
        return vec!["--all".to_owned()];
    }
    let many = random.usize(1..=8);
    (0..many)
        .flat_map(|_| ["-d".to_owned(), fleet.databases[random.usize(..fleet.databases.len())].clone()])
        .collect()
}

fn refs(arguments: &[String]) -> Vec<&str> {
    arguments.iter().map(String::as_str).collect()
}

fn apply(fleet: &Fleet, daemon: &Daemon, random: &mut Rng, tally: &mut Tally) -> anyhow::Result<()> {
    let some = some(fleet, random);
    let mut arguments = vec!["apply"];
    arguments.extend(refs(&some));
    arguments.extend(match random.u32(0..5) {
        0 => vec!["--limit", "3"],
        1 => vec!["--wave", "50%", "--canary", "1"],
        2 => vec!["--parallel", "2", "--max-failures", "50%"],
        3 => vec!["--on-failure", "rollback"],
        _ => vec![],
    });
    run(daemon, "apply", &arguments, random, tally)
}

fn rollback(fleet: &Fleet, daemon: &Daemon, random: &mut Rng, tally: &mut Tally) -> anyhow::Result<()> {
    let some = some(fleet, random);
    let steps = random.u32(1..5).to_string();
    let mut arguments = vec!["rollback", "-y", "--steps", &steps];
    arguments.extend(refs(&some));
    run(daemon, "rollback", &arguments, random, tally)
}

/// Runs a command to its end, leaves it alone, or goes away in the middle of it.
fn run(
    daemon: &Daemon,
    what: &str,
    arguments: &[&str],
    random: &mut Rng,
    tally: &mut Tally,
) -> anyhow::Result<()> {
    match random.u32(0..10) {
        0 | 1 => ask(daemon, what, &[arguments, &["--detach"]].concat(), tally),
        2 => {
            let mut client = daemon.ctl_command(arguments)?.spawn()?;
            thread::sleep(Duration::from_millis(random.u64(10..600)));
            client.kill()?;
            client.wait()?;
            count(tally, format!("{what}, the client was killed"));
            Ok(())
        }
        _ => ask(daemon, what, arguments, tally),
    }
}

fn steer(daemon: &Daemon, random: &mut Rng, tally: &mut Tally) -> anyhow::Result<()> {
    let ids = daemon.operations(&["--state", "running", "--state", "paused", "--state", "halted"])?;
    let Some(id) = random.choice(ids) else { return Ok(()) };
    let order = random.choice(["pause", "resume", "cancel", "retry", "show", "cancel"]).unwrap_or("show");
    let detach: &[&str] = if matches!(order, "resume" | "retry") { &["--detach"] } else { &[] };
    ask(daemon, &format!("operation {order}"), &[&["operation", order, &id], detach].concat(), tally)?;
    if order == "pause" {
        thread::sleep(Duration::from_millis(random.u64(0..2000)));
        ask(daemon, "operation resume", &["operation", "resume", &id, "--detach"], tally)?;
    }
    Ok(())
}

fn look(fleet: &Fleet, daemon: &Daemon, random: &mut Rng, tally: &mut Tally) -> anyhow::Result<()> {
    let some = some(fleet, random);
    let verb = random.choice(["status", "plan", "history", "audit", "alerts"]).unwrap_or("status");
    let arguments: &[&str] = if verb == "audit" { &["audit", "run"] } else { &[verb] };
    ask(daemon, verb, &[arguments, &refs(&some)[..]].concat(), tally)
}

/// Runs it and counts how it ended.
fn ask(daemon: &Daemon, what: &str, arguments: &[&str], tally: &mut Tally) -> anyhow::Result<()> {
    let told = daemon.ctl(arguments)?;
    let said = String::from_utf8_lossy(&told.stderr);
    count(
        tally,
        match told.status.code() {
            Some(0 | 3) => format!("{what}: done"),
            Some(1) => format!("{what}: failed or refused"),
            None if told.status.signal() == Some(9) => format!("{what}: waited in vain"),
            Some(4) => format!("{what}: daemon lost or unreachable"),
            other => format!("VIOLATION {what}: ended with {other:?}: {}", said.trim()),
        },
    );
    for code in said.split('[').filter_map(|part| part.split_once(']')).map(|(code, _)| code) {
        if code.starts_with("NX") && code.len() == 6 {
            count(tally, format!("code {code}"));
        }
    }
    if said.contains("NX0099") || said.contains("panicked") {
        count(tally, format!("VIOLATION {what}: {}", said.trim()));
    }
    Ok(())
}
