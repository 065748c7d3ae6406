//! From rows, journal and catalog to findings, purely.

use std::time::Duration;

use jiff::Timestamp;

use crate::{
    migration::{
        AppliedRow, AttemptOutcome, Catalog, Counts, Finding, FindingKind, Version,
        drift::{self, Standing, State},
        evidence,
        plan::{Policy, Tolerance},
    },
    postgres::look::{Leftovers, Look},
};

/// What is right and what is wrong is also a matter of these.
#[derive(Debug, Clone, Copy)]
pub(super) struct Rules {
    /// What the database's policy allows is no finding.
    pub(super) policy: Policy,
    /// How long a migration may be pending; zero is without a limit.
    pub(super) pending_limit: Duration,
    /// When the look took place.
    pub(super) now: Timestamp,
}

/// Compares the rows with the files: counts them, and adds what is wrong with them.
pub(super) fn files(catalog: &Catalog, look: &Look, rules: &Rules, findings: &mut Vec<Finding>) -> Counts {
    let mut counts = Counts::default();
    for standing in drift::examine(catalog, &look.tracked) {
        count(&standing, look, catalog, &mut counts);
        findings.extend(of_standing(&standing, catalog, look, rules));
    }
    counts
}

fn count(standing: &Standing, look: &Look, catalog: &Catalog, counts: &mut Counts) {
    let has = |kind| standing.findings.contains(&kind);
    match standing.state {
        State::Applied => {
            counts.applied += 1;
            counts.drift += u32::from(has(FindingKind::ChecksumDrift));
        }
        State::Pending => {
            counts.pending += 1;
            let since = pending_since(&standing.version, catalog, look);
            counts.oldest_pending = [counts.oldest_pending, since].into_iter().flatten().min();
        }
        // With the lock held, an attempt that runs is no dirty row.
        State::Dirty(_) => {
            let is_running = look.tracked.get(&standing.version).is_some_and(is_running);
            counts.dirty += u32::from(!(look.is_locked && is_running));
        }
    }
    counts.missing += u32::from(has(FindingKind::MissingFile));
}

fn is_running(row: &AppliedRow) -> bool {
    row.last_attempt.as_ref().is_some_and(|attempt| attempt.outcome == AttemptOutcome::Running)
}

/// Since when a migration has been pending: since its up file came to be as it is, or since the
/// journal last had to do with it (it was rolled back, say), whichever is later.
fn pending_since(version: &Version, catalog: &Catalog, look: &Look) -> Option<Timestamp> {
    let arrived = catalog.get(version).map(|migration| migration.up.arrived);
    arrived.max(look.journal.get(version.as_str()).copied())
}

/// What is wrong with one migration, but for its being dirty.
fn of_standing(standing: &Standing, catalog: &Catalog, look: &Look, rules: &Rules) -> Vec<Finding> {
    let version = standing.version.as_str();
    let finding = |kind, message: String| Finding::new(kind, version, message);
    let migration = catalog.get(&standing.version);
    let checksums = || {
        let file = migration.map(|migration| format!("file checksum: {}", migration.up.checksums.raw));
        std::iter::once(format!("stored checksum: {}", standing.checksum)).chain(file)
    };
    let applied = || standing.applied_at.map(|time| format!("applied at {time:.0}"));
    let allowed = |tolerance| tolerance == Tolerance::Allow;
    let is_dirty = matches!(standing.state, State::Dirty(_));
    let seen = standing.findings.iter().filter_map(|kind| match kind {
        // A dirty row's checksum is an attempt's, and its file may have been corrected since.
        FindingKind::ChecksumDrift | FindingKind::LineEndings if is_dirty => None,
        FindingKind::ChecksumDrift => {
            Some(finding(*kind, format!("Migration {version} checksum mismatch")).evidence(checksums()))
        }
        FindingKind::LineEndings => {
            let message = format!("Migration {version} differs from what was applied by line endings only");
            Some(finding(*kind, message).evidence(checksums()))
        }
        FindingKind::MissingFile if look.journal.contains_key(version) => {
            let message = format!("Migration {version} is applied and its file is gone");
            (!allowed(rules.policy.missing_file)).then(|| finding(*kind, message).evidence(applied()))
        }
        FindingKind::MissingFile => {
            let message = format!("Row {version} has neither a file nor an attempt in the journal");
            let unknown = finding(FindingKind::UnknownRow, message).evidence(applied()).evidence(checksums());
            (!allowed(rules.policy.missing_file)).then_some(unknown)
        }
        FindingKind::OutOfOrder => {
            let newest = look.tracked.newest_clean().map(|newest| format!("newest applied: {newest}"));
            let message = format!("Migration {version} is pending, and a later one is applied");
            (!allowed(rules.policy.out_of_order)).then(|| finding(*kind, message).evidence(newest))
        }
        FindingKind::NoDown => {
            let message = match standing.state {
                State::Pending => format!("Migration {version} has no down file"),
                _ => format!("Migration {version} has no down file, and the journal keeps none"),
            };
            Some(finding(*kind, message))
        }
        // Told by `dirty`; the others are not of a migration.
        _ => None,
    });
    let mut findings: Vec<_> = seen.collect();
    if standing.state == State::Pending
        && let Some((since, until)) = pending_from_to(&standing.version, catalog, look, rules)
        && rules.now > until
    {
        let limit = humantime::format_duration(rules.pending_limit);
        let message = format!("Migration {version} has been pending for longer than {limit}");
        let since = format!("pending since {since:.0}");
        findings.push(finding(FindingKind::PendingTooLong, message).evidence([since]));
    }
    findings
}

/// Since when a migration has been pending, and until when it may be; `None` where there is no limit.
fn pending_from_to(
    version: &Version,
    catalog: &Catalog,
    look: &Look,
    rules: &Rules,
) -> Option<(Timestamp, Timestamp)> {
    let since = pending_since(version, catalog, look).filter(|_| !rules.pending_limit.is_zero())?;
    Some((since, since.checked_add(rules.pending_limit).ok()?))
}

/// When the next pending migration will have been so for too long.
pub(super) fn due(catalog: &Catalog, look: &Look, rules: &Rules) -> Option<Timestamp> {
    let pending = catalog.migrations().iter().filter(|it| look.tracked.get(&it.version).is_none());
    let until = pending.filter_map(|it| Some(pending_from_to(&it.version, catalog, look, rules)?.1));
    until.filter(|until| *until > rules.now).min()
}

/// What a dirty row is, where nobody holds the lock. An attempt that the journal has as running has
/// lost its daemon: that says more than that the row is dirty, and is told instead of it, so that
/// one row is one finding.
pub(super) fn dirty(row: &AppliedRow) -> Finding {
    let version = row.version.as_str();
    let finding = if is_running(row) {
        let message = format!("The last attempt at migration {version} neither ended nor is under way");
        Finding::new(FindingKind::AttemptInterrupted, version, message)
    } else {
        Finding::new(FindingKind::Dirty, version, format!("Migration {version} is in dirty state"))
    };
    let statements = row.last_attempt.as_ref().filter(|attempt| attempt.statements_total > 0);
    let statements = statements.map(|attempt| {
        format!("statements done: {} of {}", attempt.statements_done, attempt.statements_total)
    });
    finding
        .evidence([evidence::verdict(row).to_string(), format!("row written at {:.0}", row.applied_at)])
        .evidence(statements)
}

/// What migrations left unfinished in the schema.
pub(super) fn schema(leftovers: &Leftovers) -> Vec<Finding> {
    let index = |(name, table): &(String, String)| {
        let message = format!("Index {name} is INVALID: PostgreSQL does not use it");
        Finding::new(FindingKind::InvalidIndex, name.clone(), message).evidence([format!("on table {table}")])
    };
    let constraint = |(name, table): &(String, String)| {
        let message = format!("Constraint {name} of {table} is NOT VALID: old rows were never checked");
        Finding::new(FindingKind::NotValidConstraint, format!("{table}.{name}"), message)
    };
    let indexes = leftovers.indexes.iter().map(index);
    indexes.chain(leftovers.constraints.iter().map(constraint)).collect()
}
