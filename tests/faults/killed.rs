//! The daemon killed at each boundary of each verb, in each mode.

use crate::{
    model::State,
    scene::{MIGRATIONS, Migration, Mode, Scene},
    support::World,
    trial::{Case, Trial},
};

pub(crate) const APPLY: &[&str] = &["apply"];
pub(crate) const ROLL_BACK: &[&str] = &["rollback", "--to=0001_one", "--yes"];
pub(crate) const RECOVER: &[&str] = &["recover", "--yes"];
const RESUME: &[&str] = &["recover", "--resume", "--yes"];

/// The migration that things happen to.
const TARGET: &Migration = &MIGRATIONS[1];

pub(crate) fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    applies(&mut cases);
    rollbacks(&mut cases);
    recoveries(&mut cases);
    failures(&mut cases);
    repairs(&mut cases);
    cases
}

/// What `FAILPOINTS` has to be to kill at a point, after it was passed so many times.
pub(crate) fn kill_at(point: &str, passed: usize) -> String {
    match passed {
        0 => format!("{point}=return(kill)"),
        passed => format!("{point}={passed}*off->return(kill)"),
    }
}

fn applies(cases: &mut Vec<Case>) {
    let modes = [
        (
            "killed: apply, transactional",
            Mode::Transactional,
            &[
                ("apply.locked", 0),
                ("apply.tables made", 0),
                ("apply.begun", 1),
                ("apply.marked", 1),
                ("apply.ended", 1),
                ("run.flushed", 0),
                ("apply.told", 0),
                ("apply.done", 0),
                ("database.begun", 0),
                ("database.ended", 0),
            ][..],
        ),
        (
            "killed: apply, non-transactional",
            Mode::NonTransactional,
            &[
                ("apply.begun", 1),
                ("apply.marked", 1),
                ("statement.run", 0),
                ("apply.statement recorded", 0),
                ("statement.run", 1),
                ("statement.run", 2),
                ("apply.statement recorded", 2),
                ("apply.ended", 1),
                ("apply.told", 1),
            ],
        ),
        (
            "killed: apply, large",
            Mode::Large,
            &[("apply.marked", 1), ("apply.partly sent", 0), ("apply.partly sent", 1), ("apply.ended", 1)],
        ),
    ];
    for (fault, mode, points) in modes {
        for &(point, passed) in points {
            cases.push(Case::new(fault, format!("{point}, passed {passed} times"), move |trial| {
                let mut scene = Scene::start(mode, Scene::set(mode), &kill_at(point, passed));
                scene.ctl(APPLY).expect(4);
                scene.is_dead(trial);
                scene.revive(trial, &[APPLY], 3);
            }));
        }
    }
}

fn rollbacks(cases: &mut Vec<Case>) {
    let modes = [
        (
            "killed: rollback, transactional",
            Mode::Transactional,
            &[
                ("rollback.locked", 0),
                ("roll back.begun", 1),
                ("roll back.marked", 1),
                ("roll back.ended", 1),
                ("run.flushed", 1),
                ("roll back.told", 0),
                ("rollback.done", 0),
            ][..],
        ),
        (
            "killed: rollback, non-transactional",
            Mode::NonTransactional,
            &[
                ("roll back.marked", 1),
                // The three statements of the up file were the first to come there.
                ("statement.run", 3),
                ("roll back.statement recorded", 0),
                ("statement.run", 4),
                ("roll back.ended", 1),
            ],
        ),
    ];
    for (fault, mode, points) in modes {
        for &(point, passed) in points {
            cases.push(Case::new(fault, format!("{point}, passed {passed} times"), move |trial| {
                // A non-transactional step is flushed by itself.
                let passed = passed + usize::from(point == "run.flushed" && mode == Mode::NonTransactional);
                let mut scene = Scene::start(mode, Scene::set(mode), &kill_at(point, passed));
                scene.ctl(APPLY).expect(0);
                scene.ctl(ROLL_BACK).expect(4);
                scene.is_dead(trial);
                scene.revive(trial, &[ROLL_BACK], 1);
                scene.ctl(APPLY).expect(0);
            }));
        }
    }
}

/// A script that fails in mid-way leaves a dirty row; it is corrected before the recovery.
pub(crate) fn spoil(world: &World, mode: Mode, direction: &str) {
    let (right, first) = match direction {
        "up" => (TARGET.up(mode), "insert into ran"),
        _ => (TARGET.down(mode), "insert into ran"),
    };
    let wrong = match mode {
        // Its second statement was run, its third fails.
        Mode::NonTransactional if direction == "up" => {
            right.replace("create index concurrently two_id on two (id)", "select 1/0")
        }
        _ => right.replacen(first, "select 1/0;\ninsert into ran", 1),
    };
    assert_ne!(wrong, right, "there is an error in it");
    world.write(&format!("{}.{direction}.sql", TARGET.version), wrong);
}

pub(crate) fn correct(world: &World, mode: Mode) {
    world.migration(TARGET.version, &TARGET.up(mode), &TARGET.down(mode));
}

fn recoveries(cases: &mut Vec<Case>) {
    let (tx, non_tx) = (Mode::Transactional, Mode::NonTransactional);
    let whats = [
        (
            "killed: recover, an apply that was rolled back",
            tx,
            "up",
            RECOVER,
            &[
                ("recover.locked", 0),
                ("recover.tables made", 0),
                ("forget attempt.begun", 0),
                ("forget attempt.ended", 0),
                ("forget attempt.told", 0),
                ("recover.done", 0),
            ][..],
        ),
        (
            "killed: recover, a rollback that was rolled back",
            tx,
            "down",
            RECOVER,
            &[
                ("recover.locked", 0),
                ("clear mark.begun", 0),
                ("clear mark.ended", 0),
                ("clear mark.told", 0),
            ],
        ),
        (
            "killed: recover, a part to be undone",
            non_tx,
            "up",
            RECOVER,
            &[
                ("undo.begun", 0),
                ("undo.marked", 0),
                // Two statements of the up file were run before.
                ("statement.run", 2),
                ("undo.statement recorded", 0),
                ("statement.run", 3),
                ("undo.statement recorded", 1),
                ("undo.ended", 0),
            ],
        ),
        (
            "killed: recover, a part to be gone on with",
            non_tx,
            "up",
            RESUME,
            &[
                ("resume.begun", 0),
                ("resume.marked", 0),
                ("statement.run", 2),
                ("resume.statement recorded", 0),
                ("resume.ended", 0),
            ],
        ),
    ];
    for (fault, mode, direction, verb, points) in whats {
        for &(point, passed) in points {
            cases.push(Case::new(fault, format!("{point}, passed {passed} times"), move |trial| {
                let mut scene = Scene::start(mode, Scene::set(mode), &kill_at(point, passed));
                if direction == "down" {
                    scene.ctl(APPLY).expect(0);
                    spoil(scene.world(), mode, direction);
                    scene.ctl(&["rollback", "--to=0001_one", "--yes", "--from=file"]);
                } else {
                    spoil(scene.world(), mode, direction);
                    scene.ctl(APPLY).expect(1);
                }
                correct(scene.world(), mode);
                let dirty = State::of(&scene, scene.world());
                assert!(dirty.label().contains('+'), "there is a dirty row: {}", dirty.label());
                scene.ctl(verb).expect(4);
                scene.is_dead(trial);
                // A statement that was run and is not recorded cannot be told from one that was not: to go
                // on would run it again. It is undone instead.
                let retry = if point == "statement.run" { RECOVER } else { verb };
                scene.revive(trial, &[retry, APPLY], 3);
            }));
        }
    }
}

/// A migration fails, and the daemon dies as it is about to say so, or has just done so.
fn failures(cases: &mut Vec<Case>) {
    let fault = "killed: after a migration failed";
    for mode in [Mode::Transactional, Mode::NonTransactional] {
        for direction in ["up", "down"] {
            cases.push(Case::new(fault, format!("attempt.failed, {mode:?}, {direction}"), move |trial| {
                let mut scene = Scene::start(mode, Scene::set(mode), "attempt.failed=return(kill)");
                if direction == "down" {
                    scene.ctl(APPLY).expect(0);
                }
                spoil(scene.world(), mode, direction);
                let verb: &[&str] = if direction == "up" {
                    APPLY
                } else {
                    &["rollback", "--to=0001_one", "--yes", "--from=file"]
                };
                scene.ctl(verb).expect(4);
                scene.is_dead(trial);
                correct(scene.world(), mode);
                scene.revive(trial, &[RECOVER, APPLY], 3);
            }));
        }
    }
}

/// A repair: the action, what makes it necessary, and the row and the journal's entries before and after.
struct Repair {
    action: &'static str,
    arguments: &'static [&'static str],
    setting: &'static str,
    before: &'static str,
    after: &'static str,
}

const REPAIRS: [Repair; 4] = [
    Repair {
        action: "clear-dirty",
        arguments: &["0002_two"],
        setting: "update schema_migrations set dirty = true where version = '0002_two'",
        before: "0001_one|f 0002_two|t 0003_three|f",
        after: "0001_one|f 0002_two|f 0003_three|f",
    },
    Repair {
        action: "forget",
        arguments: &["0003_three"],
        setting: "drop table three",
        before: "0001_one|f 0002_two|f 0003_three|f",
        after: "0001_one|f 0002_two|f",
    },
    Repair {
        action: "mark-applied",
        arguments: &["0003_three"],
        setting: "delete from schema_migrations where version = '0003_three'",
        before: "0001_one|f 0002_two|f",
        after: "0001_one|f 0002_two|f 0003_three|f",
    },
    Repair {
        action: "rename",
        arguments: &["0003_old", "0003_three"],
        setting: "update schema_migrations set version = '0003_old' where version = '0003_three'",
        before: "0001_one|f 0002_two|f 0003_old|f",
        after: "0001_one|f 0002_two|f 0003_three|f",
    },
];

fn repairs(cases: &mut Vec<Case>) {
    for repair in &REPAIRS {
        for point in ["repair.locked", "repair.tables made", "repair.changed"] {
            let name = format!("{}, {point}", repair.action);
            cases.push(Case::new("killed: repair", name, move |trial| {
                killed_in_a_repair(trial, repair, point);
            }));
        }
    }
}

/// The row and the journal's entry are changed together, or neither is.
fn killed_in_a_repair(trial: &mut Trial, repair: &'static Repair, point: &str) {
    let mode = Mode::Transactional;
    let mut scene = Scene::start(mode, Scene::set(mode), &kill_at(point, 0));
    scene.ctl(APPLY).expect(0);
    scene.world().database.sql(repair.setting);
    let mut arguments = vec!["repair", repair.action];
    arguments.extend(repair.arguments);
    arguments.extend(["--reason=as the test wants it", "--yes"]);
    scene.ctl(&arguments).expect(4);
    scene.is_dead(trial);
    let seen = |scene: &Scene| {
        let entries = format!("select count(*) from nexus_journal where direction = '{}'", repair.action);
        (scene.world().database.rows().join(" "), scene.world().database.sql(&entries).join(" "))
    };
    let (rows, entries) = seen(&scene);
    match (rows == repair.before, rows == repair.after, entries.as_str()) {
        (true, _, "0") => trial.saw("before".to_owned()),
        (_, true, "1") => trial.saw("after".to_owned()),
        _ => trial.violates(format!("neither before nor after: {rows}, with {entries} entries")),
    }
    let over = std::time::Instant::now();
    scene.running.daemon.restart();
    if rows == repair.before {
        scene.ctl(&arguments).expect(0);
    } else {
        // What is done is refused, and changes nothing.
        scene.ctl(&arguments).expect(1);
    }
    trial.converged(over.elapsed());
    let now = seen(&scene);
    if now != (repair.after.to_owned(), "1".to_owned()) {
        trial.violates(format!("it does not come to {:?}: {now:?}", repair.after));
    }
}
