//! What is wrong with the rows of one database, compared with its catalog. Read by `status`, and by
//! the planner, which refuses what it must.

use jiff::Timestamp;

use crate::migration::{
    AppliedRow, Catalog, FindingKind, Migration, Tracked, Version,
    checksum::Comparison,
    evidence::{self, Verdict},
};

/// How one migration stands in one database.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Standing {
    /// The migration.
    pub version: Version,
    /// How it stands.
    pub state: State,
    /// When it was applied, or its attempt began.
    pub applied_at: Option<Timestamp>,
    /// The stored checksum; of a pending one the file's.
    pub checksum: String,
    /// What is wrong with it.
    pub findings: Vec<FindingKind>,
}

/// How a migration stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// In place.
    Applied,
    /// Not applied.
    Pending,
    /// An attempt began and is not known to have ended well.
    Dirty(Verdict),
}

/// Compares a catalog with the rows: every version that either knows, in order.
pub fn examine(catalog: &Catalog, tracked: &Tracked) -> Vec<Standing> {
    let newest = tracked.newest_clean();
    let mut standings: Vec<_> = tracked.rows.iter().map(|row| examine_row(catalog, row)).collect();
    let missing = catalog.migrations().iter().filter(|it| tracked.get(&it.version).is_none());
    standings.extend(missing.map(|it| pending(it, newest)));
    standings.sort_by(|a, b| a.version.cmp(&b.version));
    standings
}

/// How a migration stands that no row is about; `newest` is the newest one that is in place.
pub fn pending(migration: &Migration, newest: Option<&Version>) -> Standing {
    let mut findings = Vec::new();
    if newest.is_some_and(|newest| migration.version.number() <= newest.number()) {
        findings.push(FindingKind::OutOfOrder);
    }
    if migration.down.is_none() {
        findings.push(FindingKind::NoDown);
    }
    Standing {
        version: migration.version.clone(),
        state: State::Pending,
        applied_at: None,
        checksum: migration.up.checksums.raw.hex(),
        findings,
    }
}

fn examine_row(catalog: &Catalog, row: &AppliedRow) -> Standing {
    let migration = catalog.get(&row.version);
    let mut findings = Vec::new();
    if row.dirty {
        findings.push(FindingKind::Dirty);
    }
    match migration.map(|it| it.up.checksums.compare(&row.checksum)) {
        None => findings.push(FindingKind::MissingFile),
        Some(Comparison::Different) => findings.push(FindingKind::ChecksumDrift),
        Some(Comparison::LineEndings) => findings.push(FindingKind::LineEndings),
        Some(Comparison::Equal) => {}
    }
    if row.kept_down.is_none() && migration.is_none_or(|it| it.down.is_none()) {
        findings.push(FindingKind::NoDown);
    }
    Standing {
        version: row.version.clone(),
        state: if row.dirty { State::Dirty(evidence::verdict(row)) } else { State::Applied },
        applied_at: Some(row.applied_at),
        checksum: row.checksum.clone(),
        findings,
    }
}
