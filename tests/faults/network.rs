//! What breaks between the daemon and its server: cut, silent, slow, at a chosen message.

use std::time::{Duration, Instant};

use crate::{
    killed::{APPLY, ROLL_BACK},
    proxy::{Harm, How, Proxy},
    scene::{Mode, Scene},
    support::{await_that, server},
    trial::{Case, Trial},
};

/// The message that marks the row.
const MARK: &[&str] = &["0002_two", "dirty returning id"];
/// The one that ends a transactional step, with the COMMIT.
const COMMIT: &[&str] = &["0002_two", "nexus.escaped.transaction"];
/// The first of a large one, with the BEGIN.
const BEGIN: &[&str] = &["begin; set local nexus.transaction", "create table two"];
/// A statement of a non-transactional one.
const STATEMENT: &[&str] = &["create index concurrently two_id"];
/// What records it.
const RECORD: &[&str] = &["set statements_done = 3"];
/// The message that ends a non-transactional step, with the COMMIT.
const END: &[&str] = &["begin; select case", "0002_two", "'succeeded'"];

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
    cases
}

fn harmed(trial: &mut Trial, mode: Mode, verb: &'static [&'static str], harm: &Harm) {
    let proxy = Proxy::to(server().port());
    let is_rollback = verb == ROLL_BACK;
    let scene = Scene::start(mode, Scene::set(mode).reached_at(proxy.port()), "");
    if is_rollback {
        scene.ctl(APPLY).expect(0);
    }
    proxy.harm(harm.clone());
    let client = scene.running.daemon.ctl_begin(verb);
    await_that("the message is harmed", || proxy.has_harmed());
    let over = Instant::now();
    let ended = client.end();
    if matches!(harm.how, How::Slow(_)) && ended.code != Some(0) {
        trial.violates(format!("it was only slow: {ended:?}"));
    }
    scene.judge(trial, true);
    scene.converge(trial, over, &[verb], if is_rollback { 1 } else { 3 }, true);
}
