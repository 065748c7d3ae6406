//! Settling dirty rows: evidence first, then the runbook's steps.

use crate::migration::{
    AppliedRow, Catalog, Code, Direction, Failure, Mode, Script, Tracked, Version,
    attempt::KeptDown,
    evidence::{self, Verdict},
    header::Header,
    plan::{Plan, Policy, Recovery, Source, Step, StepAction},
};

/// When a partly applied migration is gone on with, instead of being undone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum GoOn {
    /// Never: it is to be taken away.
    Never,
    /// Where every statement is done, of the very file: only its end is missing.
    AtTheEnd,
    /// Always: somebody wants it.
    Asked,
}

/// Plans to settle every dirty row, newest first, and nothing else.
pub fn plan_recover(
    catalog: &Catalog,
    tracked: &Tracked,
    policy: Policy,
    resume: bool,
) -> Result<Plan, Failure> {
    let go_on = if resume { GoOn::Asked } else { GoOn::AtTheEnd };
    let mut plan = Plan::default();
    for row in tracked.rows.iter().rev().filter(|row| row.dirty) {
        let step = settle(catalog, row, policy.recovery, go_on)?;
        plan.steps.push(Step { row_checksum: row.checksum.clone(), ..step });
    }
    Ok(plan)
}

/// Refuses dirty rows where recovery is off, for the policy or for this request.
pub(super) fn refuse_dirty(tracked: &Tracked, policy: Policy, no_auto_recover: bool) -> Result<(), Failure> {
    if policy.recovery != Recovery::Off && !no_auto_recover {
        return Ok(());
    }
    let dirty: Vec<_> = tracked.dirty().map(|row| (row, evidence::verdict(row))).collect();
    let Some((first, _)) = dirty.first() else { return Ok(()) };
    let message = match dirty.len() {
        1 => format!("Migration {} is dirty and recovery is off", first.version),
        count => format!("{count} migrations are dirty and recovery is off"),
    };
    let details = dirty.iter().map(|(row, verdict)| format!("{}: {verdict}", row.version)).collect();
    Err(Failure::new(Code::Dirty, message).version(&first.version).details(details))
}

/// The step that settles one dirty row.
pub(super) fn settle(
    catalog: &Catalog,
    row: &AppliedRow,
    recovery: Recovery,
    go_on: GoOn,
) -> Result<Step, Failure> {
    let is_at_its_end = |done, total| done == total && total > 0 && is_unchanged(catalog, row);
    let verdict = if recovery == Recovery::Down { Verdict::Unknown } else { evidence::verdict(row) };
    let reason = verdict.to_string();
    match verdict {
        Verdict::NothingCommitted => Ok(without_sql(&row.version, StepAction::ForgetAttempt, reason)),
        Verdict::StillApplied => Ok(without_sql(&row.version, StepAction::ClearMark, reason)),
        Verdict::Partly { direction: Direction::Up, done, total }
            if go_on == GoOn::Asked || (go_on == GoOn::AtTheEnd && is_at_its_end(done, total)) =>
        {
            let up = catalog.script(&row.version, Direction::Up).ok_or_else(|| no_file(&row.version))?;
            Ok(from_file(&row.version, StepAction::Resume { done }, up, reason))
        }
        Verdict::Partly { .. } | Verdict::Unknown => undo(catalog, row, reason),
        Verdict::Escaped => {
            let message =
                format!("Migration {} escaped its transaction: what stayed of it is not known", row.version);
            Err(Failure::new(Code::Undecided, message).version(&row.version))
        }
    }
}

/// Whether the up file is the one that the last attempt ran.
fn is_unchanged(catalog: &Catalog, row: &AppliedRow) -> bool {
    let file = catalog.get(&row.version).map(|it| it.up.checksums.raw.hex());
    file.is_some() && file == row.last_attempt.as_ref().map(|attempt| attempt.checksum.clone())
}

/// A recovery prefers the file: it is what was just corrected, or written, for this purpose.
fn undo(catalog: &Catalog, row: &AppliedRow, reason: String) -> Result<Step, Failure> {
    if let Some(down) = catalog.script(&row.version, Direction::Down) {
        return Ok(from_file(&row.version, StepAction::Undo, down, reason));
    }
    if let Some(kept) = &row.kept_down {
        return Ok(from_journal(&row.version, StepAction::Undo, kept, reason));
    }
    let message = "No down migration found for dirty migration";
    Err(Failure::new(Code::NoDownForDirty, message)
        .version(&row.version)
        .details(vec![format!("{}: {reason}", row.version)]))
}

fn no_file(version: &Version) -> Failure {
    Failure::new(Code::MissingFile, format!("Migration {version} cannot be resumed: its up file is gone"))
        .version(version)
}

fn without_sql(version: &Version, action: StepAction, reason: String) -> Step {
    let header = Header::default();
    Step {
        version: version.clone(),
        action,
        mode: Mode::Transactional,
        source: None,
        reason,
        header,
        size: 0,
        row_checksum: String::new(),
    }
}

/// A step that runs a file.
pub(super) fn from_file(version: &Version, action: StepAction, script: &Script, reason: String) -> Step {
    Step {
        version: version.clone(),
        action,
        mode: script.header.mode(),
        source: Some(Source::File),
        reason,
        header: script.header.clone(),
        size: script.size,
        row_checksum: String::new(),
    }
}

/// A step that runs the down text that the journal kept.
pub(super) fn from_journal(version: &Version, action: StepAction, kept: &KeptDown, reason: String) -> Step {
    Step {
        version: version.clone(),
        action,
        mode: kept.header.mode(),
        source: Some(Source::Journal),
        reason,
        header: kept.header.clone(),
        size: kept.size,
        row_checksum: String::new(),
    }
}
