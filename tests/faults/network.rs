//! What breaks between the daemon and its server: cut, silent, slow, at a chosen message.

use std::time::{Duration, Instant};

use crate::{
    killed::{APPLY, RECOVER, ROLL_BACK, correct, kill_at, spoil},
    proxy::{Harm, How, Proxy},
    scene::{Mode, Scene},
    support::{await_that, server},
    trial::{Case, Trial},
};

/// The message that marks the row.
const MARK: &[&str] = &["0002_two", "when dirty then 'running'"];
/// The one that ends a transactional step, with the COMMIT.
const COMMIT: &[&str] = &["0002_two", "nexus.escaped.transaction"];
/// The first of a large one, with the BEGIN.
const BEGIN: &[&str] = &["begin; set local nexus.transaction", "create table two"];
/// A statement of a non-transactional one.
const STATEMENT: &[&str] = &["create index concurrently two_id"];
/// What records it.
const RECORD: &[&str] = &["set statements_done = 3"];
/// The message that ends a non-transactional step, with the COMMIT.
const END: &[&str] = &["begin; update", "0002_two", "'succeeded'"];

/// The message that settles a dirty row without SQL.
const SETTLING: &[&str] = &["delete from", "0002_two", "'recovered'"];

pub(crate) fn cases() -> Vec<Case> {
    let (tx, non_tx, large) = (Mode::Transactional, Mode::NonTransactional, Mode::Large);
    let places = [
        (tx, APPLY, "the mark", MARK),
        (tx, APPLY, "the commit", COMMIT),
        (tx, ROLL_BACK, "the mark", MARK),
        (tx, ROLL_BACK, "the commit", COMMIT),
        (large, APPLY, "the begin", BEGIN),
        (large, APPLY, "the commit", COMMIT),
        (non_tx, APPLY, "a statement", STATEMENT),
        (non_tx, APPLY, "its record", RECORD),
        (non_tx, APPLY, "the end", END),
        (non_tx, ROLL_BACK, "the end", END),
        (tx, RECOVER, "the settling", SETTLING),
    ];
    let mut cases = Vec::new();
    let silent = "connection: silent for ever";
    for (mode, verb, place, at) in places {
        for (fault, how) in [
            ("connection: cut before the server has it", How::CutBefore),
            ("connection: cut before the answer", How::CutAfter),
            ("connection: slow", How::Slow(Duration::from_millis(700))),
        ] {
            let name = format!("{mode:?}, {}, {place}", verb[0]);
            cases.push(Case::new(fault, name, move |trial| harmed(trial, mode, verb, &Harm { at, how })));
        }
    }
    for (mode, verb, place, at) in [places[1], places[3], places[4], places[5], places[6], places[8]] {
        for how in [How::SilentBefore, How::SilentAfter] {
            let name = format!("{mode:?}, {}, {place}, {how:?}", verb[0]);
            cases.push(
                Case::new(silent, name, move |trial| harmed(trial, mode, verb, &Harm { at, how })).waiting(),
            );
        }
    }
    for how in [How::CutBefore, How::CutAfter] {
        let fault = "killed: connected again after a cut";
        cases.push(Case::new(fault, format!("{how:?}"), move |trial| killed_when_connected(trial, how)));
    }
    cases
}

fn harmed(trial: &mut Trial, mode: Mode, verb: &'static [&'static str], harm: &Harm) {
    let proxy = Proxy::to(server().port());
    let scene = Scene::start(mode, Scene::set(mode).reached_at(proxy.port()), "");
    match verb {
        ROLL_BACK => drop(scene.ctl(APPLY).expect(0)),
        RECOVER => {
            spoil(scene.world(), mode, "up");
            scene.ctl(APPLY).expect(1);
            correct(scene.world(), mode);
        }
        _ => {}
    }
    proxy.harm(harm.clone());
    let client = scene.running.daemon.ctl_begin(verb);
    await_that("the message is harmed", || proxy.has_harmed());
    let over = Instant::now();
    let ended = client.end();
    if matches!(harm.how, How::Slow(_)) && ended.code != Some(0) {
        trial.violates(format!("it was only slow: {ended:?}"));
    }
    scene.judge(trial, true).await_told(&scene, trial);
    match verb {
        ROLL_BACK => scene.converge(trial, over, &[verb], 1, true),
        _ => scene.converge(trial, over, &[verb, APPLY], 3, true),
    }
}

/// It has a new connection and the lock, and dies before it has asked what became of its step.
fn killed_when_connected(trial: &mut Trial, how: How) {
    let proxy = Proxy::to(server().port());
    let mode = Mode::Transactional;
    let world = Scene::set(mode).reached_at(proxy.port());
    let mut scene = Scene::start(mode, world, &kill_at("apply.connected again", 0));
    proxy.harm(Harm { at: COMMIT, how });
    scene.ctl(APPLY).expect(4);
    scene.is_dead(trial);
    scene.revive(trial, &[APPLY], 3);
}
