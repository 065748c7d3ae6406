//! The planner by tables: what is refused first, then what is planned.

use std::path::PathBuf;

use crate::migration::{
    AppliedRow, AttemptOutcome, Catalog, Code, Direction, Failure, Migration, Mode, Plan, Script, Tracked,
    Version,
    attempt::{KeptDown, LastAttempt},
    checksum::Checksums,
    header::Header,
    plan::{
        ApplyRequest, Extent, Policy, Recovery, RollbackRequest, Source, StepAction, Tolerance, plan_apply,
        plan_recover, plan_rollback,
    },
};

pub(super) fn script(name: &str, text: &str, no_transaction: bool) -> Script {
    Script {
        path: PathBuf::from(name),
        file_name: name.to_owned(),
        checksums: Checksums::of(text.as_bytes()),
        size: text.len() as u64,
        arrived: jiff::Timestamp::UNIX_EPOCH,
        header: Header { no_transaction, ..Header::default() },
    }
}

/// A directory of these versions. A trailing `!` leaves the down file out, a `~` makes it
/// non-transactional.
fn catalog(versions: &[&str]) -> Catalog {
    let migrations = versions.iter().map(|text| {
        let name = text.trim_end_matches(['!', '~']);
        let down = script(&format!("{name}.down.sql"), &format!("-- down of {name}"), false);
        Migration {
            version: Version::from_row(name),
            up: script(&format!("{name}.up.sql"), &up_text(name), text.ends_with('~')),
            down: (!text.ends_with('!')).then_some(down),
        }
    });
    Catalog::new(migrations.collect(), Vec::new())
}

pub(super) fn up_text(version: &str) -> String {
    format!("-- up of {version}\n")
}

/// A row; `evidence` makes it dirty.
fn row(version: &str, dirty: bool, last_attempt: Option<LastAttempt>) -> AppliedRow {
    AppliedRow {
        version: Version::from_row(version),
        applied_at: jiff::Timestamp::UNIX_EPOCH,
        checksum: Checksums::of(up_text(version).as_bytes()).raw.hex(),
        dirty,
        last_attempt,
        kept_down: None,
        applied_by: None,
    }
}

fn rows(versions: &[&str]) -> Tracked {
    Tracked::new(versions.iter().map(|version| row(version, false, None)).collect())
}

pub(super) fn attempt(direction: Direction, mode: Mode, outcome: AttemptOutcome) -> LastAttempt {
    LastAttempt {
        id: 1,
        direction: Some(direction),
        mode,
        outcome,
        statements_done: 2,
        statements_total: 3,
        checksum: String::new(),
    }
}

fn with(tracked: Tracked, row: AppliedRow) -> Tracked {
    Tracked::new(tracked.rows.into_iter().chain([row]).collect())
}

pub(super) fn kept(text: &str) -> KeptDown {
    KeptDown { checksum: Checksums::of(text.as_bytes()).raw.hex(), header: Header::default(), size: 1 }
}

/// The plan as `action version` lines, or the code of the refusal.
fn told(plan: &Result<Plan, Failure>) -> Result<Vec<String>, Code> {
    let steps =
        |plan: &Plan| plan.steps.iter().map(|step| format!("{} {}", step.action, step.version)).collect();
    plan.as_ref().map(steps).map_err(|failure| failure.code)
}

fn expect_steps(plan: &Result<Plan, Failure>, expected: &[&str]) {
    assert_eq!(told(plan), Ok(expected.iter().map(|&line| line.to_owned()).collect()));
}

fn expect_refusal(plan: &Result<Plan, Failure>, code: Code, mentions: &[&str]) {
    let failure = plan.as_ref().expect_err("the plan is refused");
    assert_eq!(failure.code, code);
    let whole = format!("{} {}", failure.message, failure.details.join(" "));
    for mention in mentions {
        assert!(whole.contains(mention), "{whole:?} mentions {mention:?}");
    }
}

fn apply(catalog: &Catalog, tracked: &Tracked, policy: Policy) -> Result<Plan, Failure> {
    plan_apply(catalog, tracked, &ApplyRequest::default(), policy)
}

const NOTHING: [&str; 0] = [];

#[test]
fn apply_refuses_every_mismatch_at_once() {
    let mut tracked = rows(&["0001_a", "0002_b", "0003_c"]);
    tracked.rows[0].checksum = "0".repeat(64);
    tracked.rows[2].checksum = "1".repeat(64);
    let plan = apply(&catalog(&["0001_a", "0002_b", "0003_c", "0004_d"]), &tracked, Policy::default());
    expect_refusal(&plan, Code::ChecksumMismatch, &["Migration 0001_a checksum mismatch", "0003_c"]);
}

#[test]
fn line_endings_are_a_notice() {
    let mut tracked = rows(&["0001_a"]);
    tracked.rows[0].checksum = Checksums::of(up_text("0001_a").replace('\n', "\r\n").as_bytes()).raw.hex();
    let plan = apply(&catalog(&["0001_a"]), &tracked, Policy::default());
    expect_steps(&plan, &NOTHING);
    assert_eq!(plan.map(|plan| plan.notices.len()), Ok(1));
}

#[test]
fn missing_files_by_policy() {
    let catalog = catalog(&["0002_renamed", "0003_c"]);
    let tracked = rows(&["0001_a", "0002_b"]);
    let policy = |missing_file| Policy { missing_file, out_of_order: Tolerance::Allow, ..Policy::default() };
    let denied = apply(&catalog, &tracked, policy(Tolerance::Deny));
    expect_refusal(&denied, Code::MissingFile, &["0001_a: no file", "repair rename 0002_b 0002_renamed"]);
    for (tolerance, notices) in [(Tolerance::Warn, 2), (Tolerance::Allow, 0)] {
        let plan = apply(&catalog, &tracked, policy(tolerance));
        expect_steps(&plan, &["apply 0002_renamed", "apply 0003_c"]);
        assert_eq!(plan.map(|plan| plan.notices.len()), Ok(notices));
    }
}

#[test]
fn out_of_order_by_policy() {
    let (catalog, tracked) = (catalog(&["0001_a", "0002_b", "0003_c"]), rows(&["0002_b"]));
    let policy = |out_of_order| Policy { out_of_order, ..Policy::default() };
    expect_refusal(&apply(&catalog, &tracked, policy(Tolerance::Deny)), Code::OutOfOrder, &["0001_a"]);
    for (tolerance, notices) in [(Tolerance::Warn, 1), (Tolerance::Allow, 0)] {
        let plan = apply(&catalog, &tracked, policy(tolerance));
        expect_steps(&plan, &["apply 0001_a", "apply 0003_c"]);
        assert_eq!(plan.map(|plan| plan.notices.len()), Ok(notices));
    }
}

#[test]
fn targets_and_limits() {
    let (catalog, tracked) = (catalog(&["0001_a", "0002_b", "0010_c"]), rows(&["0001_a"]));
    let plan = |to: Option<&str>, limit| {
        let request = ApplyRequest { to: to.map(str::to_owned), limit, ..ApplyRequest::default() };
        plan_apply(&catalog, &tracked, &request, Policy::default())
    };
    expect_refusal(&plan(Some("11"), None), Code::UnknownVersion, &["11", "0010_c"]);
    expect_steps(&plan(None, None), &["apply 0002_b", "apply 0010_c"]);
    expect_steps(&plan(Some("2"), None), &["apply 0002_b"]);
    expect_steps(&plan(Some("0010_c"), None), &["apply 0002_b", "apply 0010_c"]);
    expect_steps(&plan(Some("0001_a"), None), &NOTHING);
    expect_steps(&plan(None, Some(1)), &["apply 0002_b"]);
}

#[test]
fn what_has_to_be_reversible_has_its_down_files() {
    let catalog = catalog(&["0001_a", "0002_b!", "0003_c"]);
    let plan = |to: &str, applied: &[&str]| {
        let request = ApplyRequest { to: Some(to.to_owned()), reversible: true, ..ApplyRequest::default() };
        plan_apply(&catalog, &rows(applied), &request, Policy::default())
    };
    expect_refusal(&plan("3", &[]), Code::NoDown, &["0002_b", "no down file"]);
    expect_steps(&plan("1", &[]), &["apply 0001_a"]);
    expect_steps(&plan("3", &["0001_a", "0002_b"]), &["apply 0003_c"]);
}

#[test]
fn dirty_rows_are_settled_by_evidence() {
    use Direction::{Down, Up};
    use Mode::{NonTransactional, Transactional};
    let catalog = catalog(&["0001_a", "0002_b"]);
    let check = |last_attempt, resume, expected: &[&str]| {
        let tracked = with(rows(&["0001_a"]), row("0002_b", true, last_attempt));
        let request = ApplyRequest { resume, ..ApplyRequest::default() };
        expect_steps(&plan_apply(&catalog, &tracked, &request, Policy::default()), expected);
    };
    let running = AttemptOutcome::Running;
    check(Some(attempt(Up, Transactional, running)), false, &["forget attempt 0002_b", "apply 0002_b"]);
    check(Some(attempt(Down, Transactional, running)), false, &["clear mark 0002_b"]);
    check(Some(attempt(Up, NonTransactional, running)), false, &["undo 0002_b", "apply 0002_b"]);
    check(Some(attempt(Up, NonTransactional, running)), true, &["resume 0002_b"]);
    check(
        Some(attempt(Up, Transactional, AttemptOutcome::Succeeded)),
        false,
        &["undo 0002_b", "apply 0002_b"],
    );
    check(None, false, &["undo 0002_b", "apply 0002_b"]);
}

#[test]
fn an_edited_file_of_a_failed_attempt_is_no_mismatch() {
    let catalog = catalog(&["0001_a"]);
    let check = |direction, expected: Result<&[&str], Code>| {
        let mut dirty =
            row("0001_a", true, Some(attempt(direction, Mode::Transactional, AttemptOutcome::RolledBack)));
        dirty.checksum = "0".repeat(64);
        let plan = apply(&catalog, &Tracked::new(vec![dirty]), Policy::default());
        let expected = expected.map(|lines| lines.iter().map(|&line| line.to_owned()).collect());
        assert_eq!(told(&plan), expected);
    };
    check(Direction::Up, Ok(&["forget attempt 0001_a", "apply 0001_a"]));
    check(Direction::Down, Err(Code::ChecksumMismatch));
}

#[test]
fn recovery_can_be_off_or_literal() {
    let catalog = catalog(&["0001_a"]);
    let failed = Some(attempt(Direction::Up, Mode::Transactional, AttemptOutcome::RolledBack));
    let tracked = Tracked::new(vec![row("0001_a", true, failed)]);
    let off = Policy { recovery: Recovery::Off, ..Policy::default() };
    expect_refusal(&apply(&catalog, &tracked, off), Code::Dirty, &["0001_a", "nothing of the attempt"]);
    let request = ApplyRequest { no_auto_recover: true, ..ApplyRequest::default() };
    let plan = plan_apply(&catalog, &tracked, &request, Policy::default());
    expect_refusal(&plan, Code::Dirty, &["0001_a"]);
    let literal = Policy { recovery: Recovery::Down, ..Policy::default() };
    expect_steps(&apply(&catalog, &tracked, literal), &["undo 0001_a", "apply 0001_a"]);
}

#[test]
fn a_dirty_row_without_a_down_script() {
    let catalog = catalog(&["0001_a!"]);
    let mut dirty = row("0001_a", true, None);
    let plan = apply(&catalog, &Tracked::new(vec![dirty.clone()]), Policy::default());
    expect_refusal(&plan, Code::NoDownForDirty, &["No down migration found for dirty migration"]);
    dirty.kept_down = Some(kept("select 1"));
    let plan = plan_recover(&catalog, &Tracked::new(vec![dirty]), Policy::default(), false);
    expect_steps(&plan, &["undo 0001_a"]);
    assert_eq!(plan.map(|plan| plan.steps[0].source), Ok(Some(Source::Journal)));
}

#[test]
fn dirty_rows_are_settled_newest_first() {
    let tracked = Tracked::new(["0001_a", "0002_b"].map(|version| row(version, true, None)).into());
    let plan = plan_recover(&catalog(&["0001_a", "0002_b"]), &tracked, Policy::default(), false);
    expect_steps(&plan, &["undo 0002_b", "undo 0001_a"]);
}

fn rollback(catalog: &Catalog, tracked: &Tracked, extent: Extent) -> Result<Plan, Failure> {
    let request = RollbackRequest { extent, ..RollbackRequest::default() };
    plan_rollback(catalog, tracked, &request, Policy::default())
}

#[test]
fn rollback_refuses_wrong_extents() {
    let (catalog, tracked) = (catalog(&["0001_a", "0002_b", "0003_c"]), rows(&["0001_a", "0002_b"]));
    let check = |tracked: &Tracked, extent, code, mentions: &str| {
        expect_refusal(&rollback(&catalog, tracked, extent), code, &[mentions]);
    };
    check(&tracked, Extent::Steps(0), Code::BadSteps, "2 are applied");
    check(&tracked, Extent::Steps(-1), Code::BadSteps, "2 are applied");
    check(&tracked, Extent::Steps(3), Code::BadSteps, "2 are applied");
    check(&rows(&[]), Extent::Steps(1), Code::BadSteps, "no migration is applied");
    check(&tracked, Extent::To("3".to_owned()), Code::UnknownVersion, "is not applied");
    check(&tracked, Extent::To("9".to_owned()), Code::UnknownVersion, "is known");
}

#[test]
fn rollback_goes_newest_first() {
    let (catalog, tracked) =
        (catalog(&["0001_a", "0002_b", "0010_c"]), rows(&["0001_a", "0002_b", "0010_c"]));
    let check = |extent, expected: &[&str]| expect_steps(&rollback(&catalog, &tracked, extent), expected);
    check(Extent::Steps(1), &["roll back 0010_c"]);
    check(Extent::Steps(2), &["roll back 0010_c", "roll back 0002_b"]);
    check(Extent::To("1".to_owned()), &["roll back 0010_c", "roll back 0002_b"]);
    check(Extent::To("0010_c".to_owned()), &NOTHING);
    check(Extent::To("0".to_owned()), &["roll back 0010_c", "roll back 0002_b", "roll back 0001_a"]);
}

#[test]
fn rollback_chooses_its_script() {
    let check = |file: &str, kept_down, source, expected: Result<Source, Code>, notices| {
        let mut tracked = rows(&["0001_a"]);
        tracked.rows[0].kept_down = kept_down;
        let request = RollbackRequest { source, ..RollbackRequest::default() };
        let plan = plan_rollback(&catalog(&[file]), &tracked, &request, Policy::default());
        let chosen = plan.as_ref().map(|plan| plan.steps[0].source).map_err(|failure| failure.code);
        assert_eq!(chosen, expected.map(Some), "{file} {source:?}");
        assert_eq!(plan.map_or(0, |plan| plan.notices.len()), notices, "{file} {source:?}");
    };
    let same = Some(kept("-- down of 0001_a"));
    check("0001_a!", None, None, Err(Code::NoDown), 0);
    check("0001_a!", same.clone(), Some(Source::File), Err(Code::NoDown), 0);
    check("0001_a", None, Some(Source::Journal), Err(Code::NoDown), 0);
    check("0001_a", None, None, Ok(Source::File), 0);
    check("0001_a", same.clone(), None, Ok(Source::File), 0);
    check("0001_a", Some(kept("-- another")), None, Ok(Source::Journal), 1);
    check("0001_a", Some(kept("-- another")), Some(Source::File), Ok(Source::File), 0);
    check("0001_a!", same.clone(), None, Ok(Source::Journal), 1);
    check("0002_b", same, None, Ok(Source::Journal), 1);
}

#[test]
fn rollback_of_dirty_rows_is_by_evidence_and_counts_them() {
    let catalog = catalog(&["0001_a", "0002_b"]);
    let check = |last_attempt, expected: &[&str]| {
        let tracked = with(rows(&["0001_a"]), row("0002_b", true, last_attempt));
        expect_steps(&rollback(&catalog, &tracked, Extent::Steps(1)), expected);
    };
    let failed = AttemptOutcome::RolledBack;
    check(Some(attempt(Direction::Up, Mode::Transactional, failed)), &["forget attempt 0002_b"]);
    check(Some(attempt(Direction::Down, Mode::Transactional, failed)), &["roll back 0002_b"]);
    check(Some(attempt(Direction::Up, Mode::NonTransactional, failed)), &["undo 0002_b"]);
    check(None, &["undo 0002_b"]);
    // Of one whose every statement is done only the end is missing; a rollback does not write it.
    let whole = LastAttempt {
        statements_total: 2,
        checksum: Checksums::of(up_text("0002_b").as_bytes()).raw.hex(),
        ..attempt(Direction::Up, Mode::NonTransactional, AttemptOutcome::Interrupted)
    };
    check(Some(whole.clone()), &["undo 0002_b"]);
    let tracked = with(rows(&["0001_a"]), row("0002_b", true, Some(whole)));
    let recovered = plan_recover(&catalog, &tracked, Policy::default(), false);
    expect_steps(&recovered, &["resume 0002_b"]);
}

#[test]
fn modes_come_from_the_scripts() {
    let plan = apply(&catalog(&["0001_a~", "0002_b"]), &rows(&[]), Policy::default());
    let modes: Vec<_> =
        plan.iter().flat_map(|plan| &plan.steps).map(|step| (step.action, step.mode)).collect();
    assert_eq!(
        modes,
        [(StepAction::Apply, Mode::NonTransactional), (StepAction::Apply, Mode::Transactional)]
    );
}

#[test]
fn exactly_what_an_operation_applied_is_rolled_back() {
    let (catalog, up) = (catalog(&["0001_a", "0002_b", "0003_c", "0004_d"]), Direction::Up);
    let (own, another) = (uuid::Uuid::from_u128(1), uuid::Uuid::from_u128(2));
    // The rows with the second in which each was applied; `!` is dirty, nothing of it committed; `?`
    // was applied by another operation, `*` by hand.
    let tracked = |rows: &[(&str, i64)]| {
        let failed = attempt(up, Mode::Transactional, AttemptOutcome::RolledBack);
        let rows = rows.iter().map(|(text, second)| {
            let version = text.trim_end_matches(['!', '?', '*']);
            let applied_by = [('?', Some(another)), ('*', None)];
            let applied_by = applied_by.into_iter().find(|(mark, _)| text.ends_with(*mark));
            let applied_by = applied_by.map_or(Some(own), |(_, by)| by);
            let is_dirty = text.ends_with('!');
            let applied_at = jiff::Timestamp::from_second(*second).expect("a time");
            let row = row(version, is_dirty, is_dirty.then(|| failed.clone()));
            AppliedRow { applied_at, kept_down: Some(kept("-- kept")), applied_by, ..row }
        });
        Tracked::new(rows.collect())
    };
    let check = |rows: &[(&str, i64)], versions: &[&str], expected: Result<&[&str], Code>| {
        let versions_meant = versions.iter().map(|version| Version::from_row(version)).collect();
        let extent = Extent::Exactly { versions: versions_meant, operation: own };
        let request = RollbackRequest { extent, ..RollbackRequest::default() };
        let planned = plan_rollback(&catalog, &tracked(rows), &request, Policy::default());
        let planned = planned.map(|plan| {
            assert!(plan.steps.iter().all(|it| it.source.is_none() || it.source == Some(Source::Journal)));
            plan.steps.iter().map(|step| format!("{} {}", step.action, step.version)).collect::<Vec<_>>()
        });
        let expected = expected.map(|steps| steps.iter().map(|&step| step.to_owned()).collect::<Vec<_>>());
        assert_eq!(planned.map_err(|failure| failure.code), expected, "{rows:?} {versions:?}");
    };
    let all: &[_] = &[("0001_a", 1), ("0002_b", 5), ("0003_c", 6)];
    check(all, &["0002_b", "0003_c"], Ok(&["roll back 0003_c", "roll back 0002_b"]));
    check(all, &["0003_c"], Ok(&["roll back 0003_c"]));
    // The failed one is settled with the others.
    check(
        &[("0001_a", 1), ("0002_b", 5), ("0003_c!", 6)],
        &["0002_b", "0003_c"],
        Ok(&["forget attempt 0003_c", "roll back 0002_b"]),
    );
    // One that was out of order: what was there before stays.
    check(&[("0001_a", 1), ("0002_b", 5), ("0003_c", 2)], &["0002_b"], Ok(&["roll back 0002_b"]));
    // What somebody else has applied since may stand on it.
    check(all, &["0002_b"], Err(Code::AppliedSince));
    check(&[("0002_b", 5), ("0004_d!", 7)], &["0002_b"], Err(Code::AppliedSince));
    // What somebody else has rolled back already is gone.
    check(&[("0001_a", 1), ("0002_b", 5)], &["0002_b", "0003_c"], Ok(&["roll back 0002_b"]));
    check(&[("0001_a", 1)], &["0002_b"], Ok(&NOTHING));
    check(&[], &["0002_b"], Ok(&NOTHING));
    // It failed at 0003, and another operation has applied that since: it stays, with what is below.
    check(&[("0002_b", 5), ("0003_c?", 6)], &["0002_b", "0003_c"], Err(Code::AppliedSince));
    check(&[("0002_b", 5), ("0003_c*", 6)], &["0002_b", "0003_c"], Err(Code::AppliedSince));
    check(&[("0001_a", 1), ("0003_c?", 6)], &["0003_c"], Ok(&NOTHING));
    check(&[("0001_a", 1), ("0003_c*", 6)], &["0003_c"], Ok(&NOTHING));
    // What it applied was rolled back and was applied again by another one, below what it applied last.
    check(&[("0002_b?", 4), ("0003_c", 6)], &["0002_b", "0003_c"], Ok(&["roll back 0003_c"]));
    // It failed at 0003 with an unknown COMMIT, and the row is clean: it is its own.
    check(all, &["0003_c"], Ok(&["roll back 0003_c"]));
}
