//! Planning an apply: settle dirty rows, refuse what drifted, then the pending ones in order.

use crate::migration::{
    AppliedRow, Catalog, Code, Failure, Migration, Tracked, Version,
    checksum::Comparison,
    plan::{
        ApplyRequest, Plan, Policy, StepAction, Tolerance,
        settle::{from_file, plan_recover, refuse_dirty},
    },
};

/// Plans to apply what is pending. Refuses, before anything is done and listing every case at once:
/// dirty rows where recovery is off, changed files, missing files and out-of-order versions by
/// policy, an unknown `to`, and what has no down file where all has to be reversible.
pub fn plan_apply(
    catalog: &Catalog,
    tracked: &Tracked,
    request: &ApplyRequest,
    policy: Policy,
) -> Result<Plan, Failure> {
    refuse_dirty(tracked, policy, request.no_auto_recover)?;
    let limit_at = request.to.as_deref().map(|to| find_target(catalog, to)).transpose()?;
    let mut plan = plan_recover(catalog, tracked, policy, request.resume)?;

    let becomes_pending = |row: &AppliedRow| {
        plan.steps.iter().any(|step| {
            step.version == row.version && matches!(step.action, StepAction::ForgetAttempt | StepAction::Undo)
        })
    };
    let resumed = |row: &AppliedRow| {
        plan.steps
            .iter()
            .any(|step| step.version == row.version && matches!(step.action, StepAction::Resume { .. }))
    };
    let in_place: Vec<_> = tracked.rows.iter().filter(|row| !row.dirty || !becomes_pending(row)).collect();
    let mut notices = Vec::new();
    compare(catalog, in_place.iter().copied().filter(|row| !resumed(row)), policy, &mut notices)?;

    let is_in_place = |version: &Version| in_place.binary_search_by(|row| row.version.cmp(version)).is_ok();
    let pending = catalog
        .migrations()
        .iter()
        .filter(|it| limit_at.is_none_or(|last| it.version <= *last))
        .filter(|it| !is_in_place(&it.version))
        .take(request.limit.map_or(usize::MAX, |limit| limit as usize));
    let pending: Vec<_> = pending.collect();
    check_order(&pending, in_place.last().map(|row| &row.version), policy, &mut notices)?;

    let one_way: Vec<_> = pending.iter().filter(|it| it.down.is_none()).collect();
    if request.reversible {
        refuse_one_way(&one_way)?;
    }
    notices
        .extend(one_way.iter().map(|it| format!("{}: no down file: it cannot be rolled back", it.version)));
    let steps = pending.iter().map(|it| from_file(&it.version, StepAction::Apply, &it.up, String::new()));
    plan.steps.extend(steps);
    plan.notices.extend(notices);
    Ok(plan)
}

fn refuse_one_way(one_way: &[&&Migration]) -> Result<(), Failure> {
    let Some(first) = one_way.first() else { return Ok(()) };
    let details = one_way.iter().map(|it| format!("{}: no down file", it.version)).collect();
    let message = format!("Migration {} has no down file: it could not be rolled back", first.version);
    let failure = Failure::new(Code::NoDown, message).version(&first.version).details(details);
    Err(failure.hint("create the down file, or say --on-failure stop"))
}

fn find_target<'a>(catalog: &'a Catalog, to: &str) -> Result<&'a Version, Failure> {
    catalog.find(to).map(|it| &it.version).ok_or_else(|| {
        let newest = catalog.migrations().last().map(|it| format!("the newest is {}", it.version));
        Failure::new(Code::UnknownVersion, format!("No migration {to} in the directory"))
            .details(newest.into_iter().collect())
    })
}

/// Compares the rows that stay with their files.
fn compare<'a>(
    catalog: &Catalog,
    rows: impl Iterator<Item = &'a AppliedRow>,
    policy: Policy,
    notices: &mut Vec<String>,
) -> Result<(), Failure> {
    let (mut changed, mut missing) = (Vec::new(), Vec::new());
    for row in rows {
        match catalog.get(&row.version).map(|it| (it, it.up.checksums.compare(&row.checksum))) {
            None => missing.push(row),
            Some((it, Comparison::Different)) => changed.push((row, it)),
            Some((_, Comparison::LineEndings)) => notices.push(format!(
                "{}: the file differs from what was applied in line endings or a byte-order mark only",
                row.version
            )),
            Some((_, Comparison::Equal)) => {}
        }
    }
    if let [(first, _), ..] = changed.as_slice() {
        let details = changed.iter().map(|(row, it)| {
            format!("{}: stored {}, file {}", row.version, row.checksum, it.up.checksums.raw)
        });
        return Err(Failure::new(
            Code::ChecksumMismatch,
            format!("Migration {} checksum mismatch", first.version),
        )
        .version(&first.version)
        .details(details.collect()));
    }
    let details: Vec<_> = missing.iter().map(|row| missing_file(catalog, row)).collect();
    match (missing.first(), policy.missing_file) {
        (Some(first), Tolerance::Deny) => {
            let message = match missing.len() {
                1 => format!("Migration {} is applied, but its file is gone", first.version),
                count => format!("The files of {count} applied migrations are gone"),
            };
            return Err(Failure::new(Code::MissingFile, message).version(&first.version).details(details));
        }
        (Some(_), Tolerance::Warn) => notices.extend(details),
        (None, _) | (_, Tolerance::Allow) => {}
    }
    Ok(())
}

fn missing_file(catalog: &Catalog, row: &AppliedRow) -> String {
    let renamed = catalog.migrations().iter().find(|it| it.version.number() == row.version.number());
    match renamed {
        Some(it) => format!(
            "{old}: no file; the directory has {new}: if it was renamed, nexusctl repair rename {old} {new} --reason …",
            old = row.version,
            new = it.version
        ),
        None => format!("{}: no file", row.version),
    }
}

fn check_order(
    pending: &[&Migration],
    newest: Option<&Version>,
    policy: Policy,
    notices: &mut Vec<String>,
) -> Result<(), Failure> {
    let Some(newest) = newest else { return Ok(()) };
    let late: Vec<_> = pending.iter().filter(|it| it.version.number() <= newest.number()).collect();
    let details: Vec<_> =
        late.iter().map(|it| format!("{} is pending, but {newest} is applied already", it.version)).collect();
    match (late.first(), policy.out_of_order) {
        (Some(first), Tolerance::Deny) => {
            let message = format!("Migration {} is out of order", first.version);
            Err(Failure::new(Code::OutOfOrder, message).version(&first.version).details(details))
        }
        (Some(_), Tolerance::Warn) => {
            notices.extend(details);
            Ok(())
        }
        (None, _) | (_, Tolerance::Allow) => Ok(()),
    }
}
