//! The planner beside a small model of a database, which says by itself what has to come of a
//! request: whatever the files, the rows, the journal and the request, nothing is applied twice or out of
//! order, and what must be refused is.

use std::collections::BTreeMap;

use proptest::{prelude::*, sample::select};
use uuid::Uuid;

use super::tests::{attempt, kept, script, up_text};
use crate::migration::{
    AppliedRow, AttemptOutcome, Catalog, Direction, Migration, Mode, Plan, Tracked, Version,
    attempt::LastAttempt,
    checksum::Checksums,
    plan::{
        ApplyRequest, Extent, Policy, Recovery, RollbackRequest, Source, StepAction, Tolerance, plan_apply,
        plan_recover, plan_rollback,
    },
};

/// The operation that takes back what is its own.
const OPERATION: Uuid = Uuid::from_u128(7);

/// What the row and the journal say of a migration.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mark {
    /// It is clean.
    Clean,
    /// It is dirty, and nothing of it was committed.
    Nothing,
    /// It is dirty, and in place: a rollback of it failed.
    InPlace,
    /// It is dirty, and this many of its three statements are done, outside a transaction.
    Partly(Direction, u32),
    /// It is dirty, and its script left its transaction.
    Escaped,
    /// It is dirty, and the journal knows nothing.
    Unknown,
}

#[derive(Debug, Clone, Copy)]
struct File {
    is_edited: bool,
    has_down: bool,
}

#[derive(Debug, Clone, Copy)]
struct Row {
    mark: Mark,
    /// Whether the journal keeps a down script.
    is_kept: bool,
    /// Whether [`OPERATION`] put it there.
    is_own: bool,
    /// When it was put there.
    at: i64,
}

/// A migration: its file, and its row.
#[derive(Debug, Clone, Copy)]
struct Known {
    file: Option<File>,
    row: Option<Row>,
}

type World = Vec<Known>;

/// The rows that are left, by index: whether each is dirty.
type Rows = BTreeMap<usize, bool>;

impl Known {
    fn has_down(&self) -> bool {
        self.file.is_some_and(|file| file.has_down)
    }

    fn is_kept(&self) -> bool {
        self.row.is_some_and(|row| row.is_kept)
    }
}

fn worlds() -> impl Strategy<Value = World> {
    use Direction::{Down, Up};
    let marks = vec![
        Mark::Nothing,
        Mark::InPlace,
        Mark::Unknown,
        Mark::Escaped,
        Mark::Partly(Up, 1),
        Mark::Partly(Up, 3),
        Mark::Partly(Down, 2),
    ];
    let mark = prop_oneof![3 => Just(Mark::Clean), 1 => select(marks)];
    let row = (mark, prop::bool::weighted(0.3), any::<bool>(), 0_i64..4);
    let row = row.prop_map(|(mark, is_kept, is_own, at)| Row { mark, is_kept, is_own, at });
    let file = (prop::bool::weighted(0.1), prop::bool::weighted(0.8));
    let file = file.prop_map(|(is_edited, has_down)| File { is_edited, has_down });
    let file = prop_oneof![1 => Just(None), 8 => file.prop_map(Some)];
    let known = (file, prop::option::of(row)).prop_map(|(file, row)| Known { file, row });
    prop::collection::vec(known, 0..7)
}

fn policies() -> impl Strategy<Value = Policy> {
    let tolerance = || select(vec![Tolerance::Deny, Tolerance::Warn, Tolerance::Allow]);
    let recovery =
        prop_oneof![4 => Just(Recovery::Evidence), 2 => Just(Recovery::Down), 1 => Just(Recovery::Off)];
    (tolerance(), tolerance(), recovery).prop_map(|(out_of_order, missing_file, recovery)| Policy {
        out_of_order,
        missing_file,
        recovery,
    })
}

fn applies() -> impl Strategy<Value = ApplyRequest> {
    let to = prop_oneof![4 => Just(None), 1 => wanted().prop_map(Some)];
    let rarely = || prop::bool::weighted(0.2);
    (to, prop::option::of(0_u32..4), rarely(), any::<bool>(), rarely()).prop_map(
        |(to, limit, no_auto_recover, resume, reversible)| ApplyRequest {
            to,
            limit,
            no_auto_recover,
            resume,
            reversible,
        },
    )
}

fn rollbacks() -> impl Strategy<Value = RollbackRequest> {
    let own = prop::collection::vec(0_usize..7, 0..7).prop_map(|indexes| Extent::Exactly {
        versions: indexes.into_iter().map(|index| Version::from_row(&name(index))).collect(),
        operation: OPERATION,
    });
    let extent =
        prop_oneof![3 => (-1_i64..5).prop_map(Extent::Steps), 1 => wanted().prop_map(Extent::To), 2 => own];
    let source = select(vec![None, Some(Source::File), Some(Source::Journal)]);
    let most = prop_oneof![2 => Just(None), 1 => (1_u32..4).prop_map(Some)];
    (extent, prop::bool::weighted(0.1), source, most).prop_map(|(extent, no_auto_recover, source, most)| {
        RollbackRequest { extent, no_auto_recover, source, most }
    })
}

/// A migration as somebody names it: there may be none of that name.
fn wanted() -> impl Strategy<Value = String> {
    (0_usize..8, any::<bool>()).prop_map(|(at, in_full)| match (at, in_full) {
        (0, _) => "0".to_owned(),
        (at, true) => name(at - 1),
        (at, false) => at.to_string(),
    })
}

/// The index that is meant by a name.
fn meant(wanted: &str) -> Option<usize> {
    let number: usize = wanted.trim_end_matches("_m").parse().expect("it begins with a number");
    number.checked_sub(1)
}

fn name(index: usize) -> String {
    format!("{:04}_m", index + 1)
}

fn catalog(world: &World) -> Catalog {
    let files = world.iter().enumerate().filter_map(|(index, known)| Some((name(index), known.file?)));
    let migration = |(name, file): (String, File)| {
        let text = if file.is_edited { "-- another one".to_owned() } else { up_text(&name) };
        Migration {
            version: Version::from_row(&name),
            up: script(&format!("{name}.up.sql"), &text, false),
            down: file.has_down.then(|| script(&format!("{name}.down.sql"), "-- down", false)),
        }
    };
    Catalog::new(files.map(migration).collect(), Vec::new())
}

fn tracked(world: &World) -> Tracked {
    let rows = world.iter().enumerate().filter_map(|(index, known)| Some((name(index), known.row?)));
    let row = |(name, row): (String, Row)| {
        let checksum = Checksums::of(up_text(&name).as_bytes()).raw.hex();
        let last = |direction, mode, outcome, statements_done| LastAttempt {
            statements_done,
            checksum: checksum.clone(),
            ..attempt(direction, mode, outcome)
        };
        let tried = |direction, outcome| Some(last(direction, Mode::Transactional, outcome, 0));
        AppliedRow {
            version: Version::from_row(&name),
            applied_at: jiff::Timestamp::from_second(row.at).expect("it is small"),
            dirty: row.mark != Mark::Clean,
            last_attempt: match row.mark {
                Mark::Clean | Mark::Unknown => None,
                Mark::Nothing => tried(Direction::Up, AttemptOutcome::RolledBack),
                Mark::InPlace => tried(Direction::Down, AttemptOutcome::Interrupted),
                Mark::Escaped => tried(Direction::Up, AttemptOutcome::Failed),
                Mark::Partly(direction, done) => {
                    Some(last(direction, Mode::NonTransactional, AttemptOutcome::Interrupted, done))
                }
            },
            kept_down: row.is_kept.then(|| kept("-- down as it was")),
            applied_by: row.is_own.then_some(OPERATION),
            checksum,
        }
    };
    Tracked::new(rows.map(row).collect())
}

/// The rows as they are.
fn rows(world: &World) -> Rows {
    let rows = world.iter().enumerate().filter_map(|(at, known)| Some((at, known.row?.mark != Mark::Clean)));
    rows.collect()
}

/// The rows as a plan leaves them. Fails where a step does what it must not.
fn run(world: &World, plan: &Plan, policy: Policy) -> Rows {
    let mut rows = rows(world);
    let (mut newest, mut oldest) = (None, usize::MAX);
    for step in &plan.steps {
        let (at, version) = (meant(step.version.as_str()).expect("it is none of ours"), &step.version);
        let mark = world[at].row.map(|row| row.mark);
        match step.source {
            Some(Source::File) if step.action.direction() == Some(Direction::Down) => {
                assert!(world[at].has_down(), "{version} has no down file");
            }
            Some(Source::File) => assert!(world[at].file.is_some(), "{version} has no file"),
            Some(Source::Journal) => assert!(world[at].is_kept(), "{version} has no kept script"),
            None => assert_eq!(step.action.direction(), None, "{version} runs nothing"),
        }
        if step.action != StepAction::Apply {
            assert!(newest.is_none(), "{version} is settled or rolled back after others were applied");
            assert!(at < oldest, "{version} is settled or rolled back after an older one");
            oldest = at;
        }
        match step.action {
            StepAction::Apply => {
                assert!(rows.insert(at, false).is_none(), "{version} is applied twice");
                assert!(newest.is_none_or(|newest| newest < at), "{version} is applied after a newer one");
                newest = Some(at);
            }
            StepAction::ForgetAttempt => {
                assert_eq!(mark, Some(Mark::Nothing), "{version} may be in place");
                rows.remove(&at);
            }
            StepAction::ClearMark => {
                assert_eq!(mark, Some(Mark::InPlace), "{version} may not be in place");
                rows.insert(at, false);
            }
            StepAction::Undo | StepAction::Rollback => {
                let is_known = mark != Some(Mark::Escaped) || policy.recovery == Recovery::Down;
                assert!(is_known, "nobody knows what stayed of {version}");
                let is_dirty = rows.remove(&at).expect("it is there");
                assert!(is_dirty || step.action == StepAction::Rollback, "{version} is clean");
            }
            StepAction::Resume { done } => {
                assert_eq!(mark, Some(Mark::Partly(Direction::Up, done)), "{version}");
                rows.insert(at, false);
            }
        }
    }
    rows
}

/// What has to become of a dirty row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Settled {
    /// It is gone.
    Gone,
    /// It is clean: what it stands for is in place.
    InPlace,
    /// It is clean, as the file is gone on with.
    Resumed,
}

/// What has to become of a dirty row, or `None` where that has to be refused. `resume` says whether a
/// partly applied one is gone on with: `None`: never.
fn settled(known: &Known, mark: Mark, recovery: Recovery, resume: Option<bool>) -> Option<Settled> {
    let undone = || (known.has_down() || known.is_kept()).then_some(Settled::Gone);
    match mark {
        // The runbook's steps, whatever the journal says.
        _ if recovery == Recovery::Down => undone(),
        Mark::Nothing => Some(Settled::Gone),
        Mark::Clean | Mark::InPlace => Some(Settled::InPlace),
        Mark::Escaped => None,
        Mark::Partly(Direction::Up, _) if resume == Some(true) => known.file.map(|_| Settled::Resumed),
        Mark::Partly(Direction::Up, 3)
            if resume.is_some() && known.file.is_some_and(|file| !file.is_edited) =>
        {
            Some(Settled::Resumed)
        }
        Mark::Partly(..) | Mark::Unknown => undone(),
    }
}

/// What a recovery has to leave, or `None` where it has to be refused; with the rows that need not be as
/// their files are.
fn recovered(world: &World, policy: Policy, resume: bool) -> Option<(Rows, Vec<usize>)> {
    let (mut left, mut resumed) = (Rows::new(), Vec::new());
    for (index, known) in world.iter().enumerate() {
        let Some(row) = known.row else { continue };
        let settled = match row.mark {
            Mark::Clean => Settled::InPlace,
            mark => settled(known, mark, policy.recovery, Some(resume))?,
        };
        if settled != Settled::Gone {
            left.insert(index, false);
        }
        if settled == Settled::Resumed {
            resumed.push(index);
        }
    }
    Some((left, resumed))
}

/// Whether dirty rows are there and may not be settled.
fn is_stuck(world: &World, policy: Policy, no_auto_recover: bool) -> bool {
    (policy.recovery == Recovery::Off || no_auto_recover) && rows(world).values().any(|is_dirty| *is_dirty)
}

/// What an apply has to leave, or `None` where it has to be refused.
fn applied(world: &World, policy: Policy, request: &ApplyRequest) -> Option<Rows> {
    let has_file = |index: &usize| world.get(*index).is_some_and(|known| known.file.is_some());
    let last = match &request.to {
        None => usize::MAX,
        Some(to) => meant(to).filter(has_file)?,
    };
    if is_stuck(world, policy, request.no_auto_recover) {
        return None;
    }
    let (mut rows, resumed) = recovered(world, policy, request.resume)?;
    for index in rows.keys().filter(|index| !resumed.contains(index)) {
        let is_fine = match world[*index].file {
            Some(file) => !file.is_edited,
            None => policy.missing_file != Tolerance::Deny,
        };
        is_fine.then_some(())?;
    }
    let pending =
        (0..world.len()).filter(|index| *index <= last && has_file(index) && !rows.contains_key(index));
    let pending: Vec<_> = pending.take(request.limit.map_or(usize::MAX, |limit| limit as usize)).collect();
    let newest = rows.keys().next_back();
    let is_late = pending.iter().any(|index| newest.is_some_and(|newest| index < newest));
    let is_one_way = pending.iter().any(|index| !world[*index].has_down());
    if (is_late && policy.out_of_order == Tolerance::Deny) || (is_one_way && request.reversible) {
        return None;
    }
    rows.extend(pending.into_iter().map(|index| (index, false)));
    Some(rows)
}

/// What a rollback has to leave, or `None` where it has to be refused.
fn rolled_back(world: &World, policy: Policy, request: &RollbackRequest) -> Option<Rows> {
    if is_stuck(world, policy, request.no_auto_recover) {
        return None;
    }
    let mut left = rows(world);
    let newest = |count: usize| left.keys().rev().take(count).copied().collect::<Vec<_>>();
    let taken = match &request.extent {
        Extent::Steps(steps) => {
            newest(usize::try_from(*steps).ok().filter(|steps| (1..=left.len()).contains(steps))?)
        }
        Extent::To(to) => match meant(to) {
            None => newest(left.len()),
            Some(to) => newest(left.contains_key(&to).then(|| left.keys().filter(|at| **at > to).count())?),
        },
        Extent::Exactly { versions, .. } => {
            let at = |index: usize| world[index].row.expect("it has a row").at;
            let is_own = |index: &usize| {
                world[*index].row.is_some_and(|row| row.is_own)
                    && versions.contains(&Version::from_row(&name(*index)))
            };
            let (own, others): (Vec<_>, Vec<_>) = left.keys().copied().partition(is_own);
            let first = own.iter().map(|index| at(*index)).min();
            if others.iter().any(|index| first.is_some_and(|first| at(*index) > first)) {
                return None;
            }
            own
        }
    };
    let is_bounded = !matches!(request.extent, Extent::Exactly { .. });
    if is_bounded && request.most.is_some_and(|most| taken.len() > most as usize) {
        return None;
    }
    for index in taken {
        let known = &world[index];
        let mark = known.row.expect("it has a row").mark;
        let is_in_place = mark == Mark::Clean || (mark == Mark::InPlace && policy.recovery != Recovery::Down);
        let is_possible = match request.source {
            _ if !is_in_place => settled(known, mark, policy.recovery, None).is_some(),
            None => known.has_down() || known.is_kept(),
            Some(Source::File) => known.has_down(),
            Some(Source::Journal) => known.is_kept(),
        };
        is_possible.then_some(())?;
        left.remove(&index);
    }
    Some(left)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn an_apply_does_what_the_model_says(world in worlds(), policy in policies(), request in applies()) {
        let plan = plan_apply(&catalog(&world), &tracked(&world), &request, policy);
        let left = plan.as_ref().ok().map(|plan| run(&world, plan, policy));
        prop_assert_eq!(left, applied(&world, policy, &request), "{:?}", plan);
    }

    #[test]
    fn a_rollback_does_what_the_model_says(world in worlds(), policy in policies(), request in rollbacks()) {
        let plan = plan_rollback(&catalog(&world), &tracked(&world), &request, policy);
        let left = plan.as_ref().ok().map(|plan| run(&world, plan, policy));
        prop_assert_eq!(left, rolled_back(&world, policy, &request), "{:?}", plan);
    }

    #[test]
    fn a_recovery_does_what_the_model_says(world in worlds(), policy in policies(), resume in any::<bool>()) {
        let plan = plan_recover(&catalog(&world), &tracked(&world), policy, resume);
        let left = plan.as_ref().ok().map(|plan| run(&world, plan, policy));
        prop_assert_eq!(left, recovered(&world, policy, resume).map(|(rows, _)| rows), "{:?}", plan);
    }

    #[test]
    fn what_was_applied_is_not_pending_again(world in worlds(), policy in policies(), request in applies()) {
        let request = ApplyRequest { limit: None, to: None, ..request };
        if let Ok(plan) = plan_apply(&catalog(&world), &tracked(&world), &request, policy) {
            let left = run(&world, &plan, policy);
            let clean = Row { mark: Mark::Clean, is_kept: false, is_own: false, at: 0 };
            let ran = |index| plan.steps.iter().any(|step| {
                meant(step.version.as_str()) == Some(index) && step.action.direction() == Some(Direction::Up)
            });
            // The row of what ran has the checksum of the file that ran.
            let file = |index, file: File| File { is_edited: file.is_edited && !ran(index), ..file };
            let after: World = world.iter().enumerate().map(|(index, known)| Known {
                file: known.file.map(|it| file(index, it)),
                row: left.contains_key(&index).then_some(clean),
            }).collect();
            let again = plan_apply(&catalog(&after), &tracked(&after), &request, policy);
            prop_assert!(again.as_ref().is_ok_and(|plan| plan.steps.is_empty()), "{:?} after {:?}", again, plan);
        }
    }
}
