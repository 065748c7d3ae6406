//! The planner beside a small model of a database, which says by itself what has to come of a
//! request: whatever the files, the rows and their evidence, nothing is applied twice or out of order,
//! and what must be refused is.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::tests::{attempt, script, up_text};
use crate::migration::{
    AppliedRow, AttemptOutcome, Catalog, Direction, Migration, Mode, Plan, Tracked, Version,
    checksum::Checksums,
    plan::{
        ApplyRequest, Extent, Policy, Recovery, RollbackRequest, StepAction, Tolerance, plan_apply,
        plan_rollback,
    },
};

/// What the journal says of a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mark {
    /// It is clean.
    Clean,
    /// It is dirty, and nothing of it was committed.
    Nothing,
    /// It is dirty, and in place: a rollback of it failed.
    InPlace,
    /// It is dirty, and the journal knows nothing.
    Unknown,
}

/// A migration: its file, and its row.
#[derive(Debug, Clone, Copy)]
struct Known {
    /// Whether it was edited, and whether it has a down file; `None`: there is no file.
    file: Option<(bool, bool)>,
    row: Option<Mark>,
}

type World = Vec<Known>;

fn worlds() -> impl Strategy<Value = World> {
    let mark = prop_oneof![
        6 => Just(Mark::Clean), 1 => Just(Mark::Nothing), 1 => Just(Mark::InPlace), 1 => Just(Mark::Unknown)
    ];
    let file = prop_oneof![1 => Just(None), 8 => (prop::bool::weighted(0.1), prop::bool::weighted(0.8)).prop_map(Some)];
    let known = (file, prop::option::of(mark)).prop_map(|(file, row)| Known { file, row });
    prop::collection::vec(known, 0..7)
}

fn policies() -> impl Strategy<Value = Policy> {
    let tolerance = || prop_oneof![Just(Tolerance::Deny), Just(Tolerance::Warn), Just(Tolerance::Allow)];
    let recovery = prop_oneof![4 => Just(Recovery::Evidence), 1 => Just(Recovery::Off)];
    (tolerance(), tolerance(), recovery).prop_map(|(out_of_order, missing_file, recovery)| Policy {
        out_of_order,
        missing_file,
        recovery,
    })
}

fn name(index: usize) -> String {
    format!("{:04}_m", index + 1)
}

fn catalog(world: &World) -> Catalog {
    let files = world.iter().enumerate().filter_map(|(index, known)| Some((name(index), known.file?)));
    let migration = |(name, (is_edited, has_down)): (String, (bool, bool))| {
        let text = if is_edited { "-- another one".to_owned() } else { up_text(&name) };
        Migration {
            version: Version::from_row(&name),
            up: script(&format!("{name}.up.sql"), &text, false),
            down: has_down.then(|| script(&format!("{name}.down.sql"), "-- down", false)),
        }
    };
    Catalog::new(files.map(migration).collect(), Vec::new())
}

fn tracked(world: &World) -> Tracked {
    let rows = world.iter().enumerate().filter_map(|(index, known)| Some((name(index), known.row?)));
    let row = |(name, mark): (String, Mark)| AppliedRow {
        version: Version::from_row(&name),
        applied_at: jiff::Timestamp::UNIX_EPOCH,
        checksum: Checksums::of(up_text(&name).as_bytes()).raw.hex(),
        dirty: mark != Mark::Clean,
        last_attempt: match mark {
            Mark::Clean | Mark::Unknown => None,
            Mark::Nothing => Some(attempt(Direction::Up, Mode::Transactional, AttemptOutcome::RolledBack)),
            Mark::InPlace => Some(attempt(Direction::Down, Mode::Transactional, AttemptOutcome::RolledBack)),
        },
        kept_down: None,
        applied_by: None,
    };
    Tracked::new(rows.map(row).collect())
}

/// The rows as a plan leaves them, by index: whether each is dirty. Fails where a step does what it
/// must not.
fn run(world: &World, plan: &Plan) -> BTreeMap<usize, bool> {
    let index = |version: &Version| usize::try_from(version.number()).expect("it is small") - 1;
    let rows = world.iter().enumerate().filter_map(|(index, it)| Some((index, it.row? != Mark::Clean)));
    let mut rows: BTreeMap<_, _> = rows.collect();
    let mut newest = None;
    for step in &plan.steps {
        let at = index(&step.version);
        let mark = world[at].row;
        match step.action {
            StepAction::Apply => {
                assert!(rows.insert(at, false).is_none(), "{} is applied twice", step.version);
                assert!(
                    newest.is_none_or(|newest| newest < at),
                    "{} is applied after a newer one",
                    step.version
                );
                newest = Some(at);
            }
            StepAction::ForgetAttempt => {
                assert_eq!(mark, Some(Mark::Nothing), "{} may be in place", step.version);
                rows.remove(&at);
            }
            StepAction::ClearMark => {
                assert_eq!(mark, Some(Mark::InPlace), "{} may not be in place", step.version);
                rows.insert(at, false);
            }
            StepAction::Undo | StepAction::Rollback => {
                assert!(world[at].file.is_some_and(|(_, has_down)| has_down), "{} has no down", step.version);
                assert!(rows.remove(&at).is_some(), "{} is not there", step.version);
            }
            StepAction::Resume { .. } => assert!(rows.insert(at, false).is_some(), "{}", step.version),
        }
    }
    rows
}

/// What an apply has to leave, or `None` where it has to be refused.
fn applied(world: &World, policy: Policy, limit: Option<u32>) -> Option<BTreeMap<usize, bool>> {
    let marks = || world.iter().filter_map(|known| known.row);
    if policy.recovery == Recovery::Off && marks().any(|mark| mark != Mark::Clean) {
        return None;
    }
    let mut rows = BTreeMap::new();
    for (index, known) in world.iter().enumerate() {
        match known.row {
            Some(Mark::Clean | Mark::InPlace) => {
                rows.insert(index, false);
                let is_fine = match known.file {
                    Some((is_edited, _)) => !is_edited,
                    None => policy.missing_file != Tolerance::Deny,
                };
                is_fine.then_some(())?;
            }
            // The runbook's steps: undone by its down file.
            Some(Mark::Unknown) => known.file.filter(|(_, has_down)| *has_down).map(drop)?,
            Some(Mark::Nothing) | None => {}
        }
    }
    let newest = rows.keys().next_back().copied();
    let pending = (0..world.len()).filter(|index| world[*index].file.is_some() && !rows.contains_key(index));
    let pending: Vec<_> = pending.take(limit.map_or(usize::MAX, |limit| limit as usize)).collect();
    let is_late = pending.iter().any(|index| newest.is_some_and(|newest| *index < newest));
    if is_late && policy.out_of_order == Tolerance::Deny {
        return None;
    }
    rows.extend(pending.into_iter().map(|index| (index, false)));
    Some(rows)
}

/// What a rollback has to leave, or `None` where it has to be refused.
fn rolled_back(world: &World, policy: Policy, steps: i64) -> Option<BTreeMap<usize, bool>> {
    let rows = world.iter().enumerate().filter_map(|(index, known)| Some((index, known.row?)));
    let mut rows: Vec<_> = rows.collect();
    if policy.recovery == Recovery::Off && rows.iter().any(|(_, mark)| *mark != Mark::Clean) {
        return None;
    }
    let steps = usize::try_from(steps).ok().filter(|steps| (1..=rows.len()).contains(steps))?;
    for (index, mark) in rows.split_off(rows.len() - steps) {
        let has_down = world[index].file.is_some_and(|(_, has_down)| has_down);
        (has_down || mark == Mark::Nothing).then_some(())?;
    }
    Some(rows.into_iter().map(|(index, mark)| (index, mark != Mark::Clean)).collect())
}

proptest! {
    #[test]
    fn an_apply_does_what_the_model_says(
        world in worlds(), policy in policies(), limit in prop::option::of(0_u32..4)
    ) {
        let request = ApplyRequest { limit, ..ApplyRequest::default() };
        let plan = plan_apply(&catalog(&world), &tracked(&world), &request, policy);
        let left = plan.as_ref().ok().map(|plan| run(&world, plan));
        prop_assert_eq!(left, applied(&world, policy, limit), "{:?}", plan);
    }

    #[test]
    fn a_rollback_does_what_the_model_says(world in worlds(), policy in policies(), steps in -1_i64..5) {
        let request = RollbackRequest { extent: Extent::Steps(steps), ..RollbackRequest::default() };
        let plan = plan_rollback(&catalog(&world), &tracked(&world), &request, policy);
        let left = plan.as_ref().ok().map(|plan| run(&world, plan));
        prop_assert_eq!(left, rolled_back(&world, policy, steps), "{:?}", plan);
    }
}
