//! What goes wrong: daemons are killed, stopped and frozen, sessions are ended, things stand in the way.

use std::{
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

use fastrand::Rng;
use nix::sys::signal::Signal;

use crate::{
    fleet::Fleet,
    report::{Tally, count},
};

/// Does harm until it is told to stop.
pub(crate) fn run(fleet: &Fleet, stop: &AtomicBool, mut random: Rng) -> anyhow::Result<Tally> {
    let mut tally = Tally::new();
    let pause = |random: &mut Rng, from: u64, to: u64| {
        let until = Instant::now() + Duration::from_millis(random.u64(from..to));
        while Instant::now() < until && !stop.load(Ordering::Relaxed) {
            thread::sleep(Duration::from_millis(20));
        }
    };
    // The last of several daemons is never killed.
    let mortal = &fleet.daemons[..(fleet.daemons.len() - 1).max(1)];
    while !stop.load(Ordering::Relaxed) {
        pause(&mut random, 300, 5000);
        let daemon = &mortal[random.usize(..mortal.len())];
        match random.u32(0..10) {
            0..4 => {
                daemon.kill()?;
                pause(&mut random, 0, 4000);
                daemon.start()?;
                count(&mut tally, "chaos: nexusd killed");
            }
            4 => {
                daemon.signal(Signal::SIGTERM)?;
                let until = Instant::now() + Duration::from_mins(1);
                while !daemon.has_ended()? && Instant::now() < until {
                    thread::sleep(Duration::from_millis(20));
                }
                if !daemon.has_ended()? {
                    count(&mut tally, "VIOLATION chaos: nexusd does not stop");
                    daemon.kill()?;
                }
                daemon.start()?;
                count(&mut tally, "chaos: nexusd stopped");
            }
            5 => {
                daemon.signal(Signal::SIGSTOP)?;
                pause(&mut random, 500, 5000);
                daemon.signal(Signal::SIGCONT)?;
                count(&mut tally, "chaos: nexusd frozen");
            }
            6 => {
                let name = &fleet.databases[random.usize(..fleet.databases.len())];
                // It is refused where the migration has made the table.
                if fleet.sql(name, "create table step_9 (in_the_way int)").is_ok() {
                    pause(&mut random, 500, 3000);
                    fleet.sql(name, "drop table step_9")?;
                    count(&mut tally, "chaos: a table stood in the way");
                }
            }
            _ => {
                let ended = fleet.sql(
                    "postgres",
                    "select pg_terminate_backend(pid) from pg_stat_activity where application_name like 'nexusd%' \
                     order by (state = 'active') desc, random() limit 3",
                )?;
                let name =
                    if ended.is_empty() { "chaos: no session to end" } else { "chaos: sessions ended" };
                count(&mut tally, name);
            }
        }
    }
    Ok(tally)
}
