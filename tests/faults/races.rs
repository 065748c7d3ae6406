//! Two daemons at once on one database, without a control database. With the lock nothing is to be seen
//! of it; with the lock taken away the model has to see it: a test that cannot fail shows nothing.

use std::time::Instant;

use crate::{
    killed::{APPLY, ROLL_BACK},
    scene::{Mode, Scene},
    trial::{Case, Trial},
};

/// How often each race is run.
const ROUNDS: usize = 3;

const RACES: [(&str, &[&str], &[&str]); 3] = [
    ("apply against apply", APPLY, APPLY),
    ("rollback against rollback", ROLL_BACK, ROLL_BACK),
    ("rollback against apply", ROLL_BACK, APPLY),
];

pub(crate) fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for (race, first, second) in RACES {
        for mode in [Mode::Transactional, Mode::NonTransactional] {
            for round in 1..=ROUNDS {
                let name = format!("{race}, {mode:?}, {round}");
                cases.push(Case::new("race of two daemons", name, move |trial| {
                    let scene = run(trial, mode, (first, second), "");
                    scene.converge(trial, Instant::now(), &[APPLY], 3, false);
                }));
            }
            let seen = "race without the lock: it is seen";
            cases.push(Case::new(seen, format!("{race}, {mode:?}"), move |trial| {
                let mut attempt = Trial::default();
                for _ in 0..ROUNDS {
                    run(&mut attempt, mode, (first, second), "the lock=return");
                    if attempt.violations() > 0 {
                        return trial.saw("seen".to_owned());
                    }
                }
                trial.violates(format!("in {ROUNDS} races without the lock nothing was seen"));
            }));
        }
    }
    cases
}

/// Two daemons do something at once: both succeed, one after the other, and no attempt fails.
fn run(trial: &mut Trial, mode: Mode, (first, second): (&[&str], &[&str]), failpoints: &str) -> Scene {
    let scene = Scene::start(mode, Scene::slow(mode, Scene::set(mode)), failpoints);
    let other = scene.world().second_daemon_in(&[("FAILPOINTS", failpoints)]);
    if first == ROLL_BACK {
        scene.ctl(APPLY).expect(0);
    }
    let begun = scene.running.daemon.ctl_begin(first);
    if first != second && failpoints.is_empty() {
        // Whoever came first would find nothing to do. Without the lock, none may come so far.
        scene.await_work();
    }
    let clients = [begun, other.ctl_begin(second)];
    for client in clients {
        let ended = client.end();
        if ended.code != Some(0) {
            trial.violates(format!("one of the two failed: {ended:?}"));
        }
    }
    for failed in scene.judge(trial, false).failed() {
        trial.violates(failed);
    }
    scene
}
