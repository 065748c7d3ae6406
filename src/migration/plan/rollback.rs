//! Planning a rollback: the newest rows first, each with its down script.

use uuid::Uuid;

use crate::migration::{
    AppliedRow, Catalog, Code, Direction, Failure, Tracked, Version,
    evidence::{self, Verdict},
    plan::{
        Extent, Plan, Policy, Recovery, RollbackRequest, Source, Step, StepAction,
        settle::{GoOn, from_file, from_journal, refuse_dirty, settle},
    },
};

/// Plans to roll back the newest rows, the dirty ones among them included: one that was never
/// committed is forgotten, any other is undone. Refuses before anything is done: fewer than one
/// step or more than there are rows, more than the request may, an unknown `to`, a row without a down
/// script, dirty rows where recovery is off.
pub fn plan_rollback(
    catalog: &Catalog,
    tracked: &Tracked,
    request: &RollbackRequest,
    policy: Policy,
) -> Result<Plan, Failure> {
    refuse_dirty(tracked, policy, request.no_auto_recover)?;
    let count = match &request.extent {
        Extent::Steps(steps) => count_steps(*steps, tracked.rows.len())?,
        Extent::To(to) => count_newer(to, catalog, tracked)?,
        Extent::Exactly { versions, operation } => {
            let is_meant = |row: &AppliedRow| is_own(row, versions, *operation);
            return exactly(catalog, tracked, is_meant, request, policy);
        }
    };
    if let Some(most) = request.most.filter(|&most| count > most as usize) {
        let message = format!("At most {most} may be rolled back at once, and these are {count}");
        return Err(Failure::new(Code::RollbackTooFar, message));
    }
    let mut plan = Plan::default();
    for row in tracked.rows.iter().rev().take(count) {
        let step = step(catalog, row, request, policy, &mut plan.notices)?;
        plan.steps.push(Step { row_checksum: row.checksum.clone(), ..step });
    }
    let left_dirty = tracked.rows.iter().rev().skip(count).filter(|row| row.dirty);
    plan.notices.extend(left_dirty.map(|row| format!("{} stays dirty: it is older", row.version)));
    Ok(plan)
}

/// Whether an operation put a row there. A version that it failed to apply, or that was rolled back
/// since, may have been applied by somebody else: that row is none of its own.
fn is_own(row: &AppliedRow, versions: &[Version], operation: Uuid) -> bool {
    versions.contains(&row.version) && row.applied_by == Some(operation)
}

/// Plans to take back the rows that are meant. Rows between them that were there before stay; what
/// was applied after them may stand on them, so that nothing is taken from under it. What somebody
/// else applied where nothing of these is left stays as well, and is no obstacle.
fn exactly(
    catalog: &Catalog,
    tracked: &Tracked,
    is_meant: impl Fn(&AppliedRow) -> bool,
    request: &RollbackRequest,
    policy: Policy,
) -> Result<Plan, Failure> {
    let (meant, others): (Vec<_>, Vec<_>) = tracked.rows.iter().partition(|row| is_meant(row));
    let first = meant.iter().map(|row| row.applied_at).min();
    let since: Vec<_> =
        others.iter().filter(|row| first.is_some_and(|first| row.applied_at > first)).collect();
    if let Some(newest) = since.last() {
        let message = format!("{} was applied since by somebody else", newest.version);
        let details = since.iter().map(|row| format!("{}: applied at {:.0}", row.version, row.applied_at));
        return Err(Failure::new(Code::AppliedSince, message)
            .version(&newest.version)
            .details(details.collect()));
    }
    let mut plan = Plan::default();
    for row in meant.into_iter().rev() {
        let step = step(catalog, row, request, policy, &mut plan.notices)?;
        plan.steps.push(Step { row_checksum: row.checksum.clone(), ..step });
    }
    Ok(plan)
}

fn count_steps(steps: i64, applied: usize) -> Result<usize, Failure> {
    let are_applied = match applied {
        0 => "none is applied".to_owned(),
        1 => "1 is applied".to_owned(),
        count => format!("{count} are applied"),
    };
    let refuse = |message: String| Err(Failure::new(Code::BadSteps, message));
    match usize::try_from(steps) {
        Ok(0) | Err(_) => refuse(format!(
            "Cannot roll back {steps} migrations: steps must be at least 1, and {are_applied}"
        )),
        Ok(1) if applied == 0 => refuse("Nothing to roll back: no migration is applied".to_owned()),
        Ok(steps) if steps > applied => refuse(format!("Cannot roll back {steps} migrations: {are_applied}")),
        Ok(steps) => Ok(steps),
    }
}

fn count_newer(to: &str, catalog: &Catalog, tracked: &Tracked) -> Result<usize, Failure> {
    if to.bytes().all(|byte| byte == b'0') && !to.is_empty() {
        return Ok(tracked.rows.len());
    }
    match tracked.rows.iter().position(|row| row.version.is_meant_by(to)) {
        Some(index) => Ok(tracked.rows.len() - index - 1),
        None if catalog.find(to).is_some() => {
            Err(Failure::new(Code::UnknownVersion, format!("Migration {to} is not applied")))
        }
        None => Err(Failure::new(Code::UnknownVersion, format!("No migration {to} is known"))),
    }
}

fn step(
    catalog: &Catalog,
    row: &AppliedRow,
    request: &RollbackRequest,
    policy: Policy,
    notices: &mut Vec<String>,
) -> Result<Step, Failure> {
    let mut reason = String::new();
    if row.dirty {
        let verdict = evidence::verdict(row);
        if verdict != Verdict::StillApplied || policy.recovery == Recovery::Down {
            return settle(catalog, row, policy.recovery, GoOn::Never);
        }
        // The earlier rollback left it in place, so this one rolls it back.
        reason = verdict.to_string();
    }
    let file = catalog.script(&row.version, Direction::Down);
    let by_file = |reason| file.map(|script| from_file(&row.version, StepAction::Rollback, script, reason));
    let by_journal = |reason| {
        row.kept_down.as_ref().map(|kept| from_journal(&row.version, StepAction::Rollback, kept, reason))
    };
    let chosen = match request.source {
        Some(Source::File) => by_file(reason),
        Some(Source::Journal) => by_journal(reason),
        None => match (file, &row.kept_down) {
            (Some(file), Some(kept)) if file.checksums.raw.hex() != kept.checksum => {
                notices.push(format!(
                    "{}: the down file differs from the one kept when the migration was applied: the kept one is used (--from file to use the file)",
                    row.version
                ));
                by_journal(reason)
            }
            (Some(_), _) => by_file(reason),
            (None, Some(_)) => {
                notices.push(format!(
                    "{}: the down file is gone: the one kept in the journal is used",
                    row.version
                ));
                by_journal(reason)
            }
            (None, None) => None,
        },
    };
    chosen.ok_or_else(|| {
        let place = match request.source {
            Some(Source::File) => "in the directory",
            Some(Source::Journal) => "in the journal",
            None => "in the directory or the journal",
        };
        Failure::new(Code::NoDown, format!("No down migration found for {} {place}", row.version))
            .version(&row.version)
    })
}
