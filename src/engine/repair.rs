//! Repairs: one row of `schema_migrations` changed by hand, with the reason kept in the journal.

use std::fmt;

use crate::{
    engine::{
        Run,
        failure::{of_row, of_session},
        run::{locked, refuse_repeated},
        witness::Used,
    },
    migration::{AppliedRow, Basis, Code, Failure, Migration, Plan, Tracked, Version},
    postgres::{
        self,
        repair::Change,
        tracking::{self, Kept},
    },
    runtime::faults,
};

/// A repair of one row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Repair {
    /// What it does.
    pub action: RepairAction,
    /// The row's version, or its number.
    pub version: String,
    /// Why; the journal keeps it.
    pub reason: String,
}

/// What a repair does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RepairAction {
    /// The migration is in place: `dirty = false`.
    ClearDirty,
    /// The migration is not in place: the row goes.
    Forget,
    /// The file as it is now is what counts as applied.
    AcceptChecksum,
    /// The file was renamed: the row gets this version.
    Rename(String),
    /// The migration is in place although Nexus did not apply it: a row comes.
    MarkApplied,
}

impl fmt::Display for Repair {
    /// What it does, as it is typed.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let version = &self.version;
        match &self.action {
            RepairAction::ClearDirty => write!(f, "clear-dirty {version}"),
            RepairAction::Forget => write!(f, "forget {version}"),
            RepairAction::AcceptChecksum => write!(f, "accept-checksum {version}"),
            RepairAction::Rename(new) => write!(f, "rename {version} {new}"),
            RepairAction::MarkApplied => write!(f, "mark-applied {version}"),
        }
    }
}

/// Does one repair under the lock and says what was done. Refused where the rows are not those that it is
/// held to.
pub async fn repair(run: &Run, repair: &Repair) -> Result<String, Failure> {
    let (session, shape) = locked(run).await?;
    faults::reached("repair", "locked");
    refuse_repeated(run, &session, shape).await?;
    let doing = "repairing a row";
    let tracked = tracking::read(&session, shape, Kept::All).await;
    let tracked = tracked.map_err(|error| of_session(error, doing))?;
    let held = run.basis.as_ref().map_or(Ok(()), |basis| basis.hold(&basis_of(run, &tracked)));
    let mut decided = held.and_then(|()| decide(run, repair, &tracked));
    if let Ok(it) = &decided
        && let Err(failure) = run.witnessed(vec![it.used(repair)]).await
    {
        decided = Err(failure);
    }
    let changed = match &decided {
        Ok(Decided { change, .. }) => {
            let made = tracking::create(&session, shape).await;
            faults::reached("repair", "tables made");
            match made {
                Ok(()) => postgres::repair::change(&session, &run.author, change, &repair.reason).await,
                Err(error) => Err(error),
            }
        }
        Err(_) => Ok(()),
    };
    faults::reached("repair", "changed");
    drop(session);
    let Decided { message, .. } = decided?;
    changed.map_err(|error| of_row(error, doing))?;
    Ok(message)
}

/// What a repair is decided over, where it would not be refused.
pub(super) fn basis(run: &Run, repair: &Repair, tracked: &Tracked) -> Result<Basis, Failure> {
    decide(run, repair, tracked)?;
    Ok(basis_of(run, tracked))
}

fn basis_of(run: &Run, tracked: &Tracked) -> Basis {
    Basis::of(&run.catalog, tracked, &Plan { steps: Vec::new(), notices: Vec::new() })
}

/// What a repair comes to.
struct Decided<'a> {
    change: Change,
    /// The sentence that says it.
    message: String,
    /// The migration whose file is taken as it is.
    taken: Option<&'a Migration>,
}

impl Decided<'_> {
    fn used(&self, repair: &Repair) -> Used {
        let (Change::ClearDirty { version }
        | Change::Forget { version }
        | Change::AcceptChecksum { version, .. }
        | Change::Rename { version, .. }
        | Change::MarkApplied { version, .. }) = &self.change;
        Used::of_repair(version, repair.to_string(), self.taken)
    }
}

fn decide<'a>(run: &'a Run, repair: &Repair, tracked: &Tracked) -> Result<Decided<'a>, Failure> {
    let wanted = &repair.version;
    let decided = match &repair.action {
        RepairAction::ClearDirty => {
            let row = row(tracked, wanted)?;
            if !row.dirty {
                return Err(unfit(&row.version, "it is not dirty"));
            }
            let message = format!("{} is no longer dirty and counts as applied", row.version);
            Decided { change: Change::ClearDirty { version: row.version.clone() }, message, taken: None }
        }
        RepairAction::Forget => {
            let row = row(tracked, wanted)?;
            let message = format!("{} is forgotten: its row was removed, and no SQL was run", row.version);
            Decided { change: Change::Forget { version: row.version.clone() }, message, taken: None }
        }
        RepairAction::AcceptChecksum => {
            let row = row(tracked, wanted)?;
            let migration =
                run.catalog.get(&row.version).ok_or_else(|| unfit(&row.version, "it has no file"))?;
            let checksum = migration.up.checksums.raw.hex();
            if checksum == row.checksum {
                return Err(unfit(&row.version, "its checksum is that of the file already"));
            }
            let message = format!("{} now has the checksum {checksum}; it was {}", row.version, row.checksum);
            let change = Change::AcceptChecksum { version: row.version.clone(), checksum };
            Decided { change, message, taken: Some(migration) }
        }
        RepairAction::Rename(new) => {
            let row = row(tracked, wanted)?;
            if row.dirty {
                // The evidence of what became of it stands under its present name.
                return Err(unfit(&row.version, "it is dirty: recover it first"));
            }
            let migration = file(run, new)?;
            let target = migration.version.clone();
            if tracked.get(&target).is_some() {
                return Err(unfit(&target, "it has a row already"));
            }
            let message = format!("{} is now called {target}", row.version);
            let change = Change::Rename { version: row.version.clone(), new: target };
            Decided { change, message, taken: Some(migration) }
        }
        RepairAction::MarkApplied => {
            let migration = file(run, wanted)?;
            if tracked.get(&migration.version).is_some() {
                return Err(unfit(&migration.version, "it has a row already"));
            }
            let message = format!("{} counts as applied, and no SQL was run", migration.version);
            let checksum = migration.up.checksums.raw.hex();
            let change = Change::MarkApplied { version: migration.version.clone(), checksum };
            Decided { change, message, taken: Some(migration) }
        }
    };
    Ok(decided)
}

fn row<'a>(tracked: &'a Tracked, wanted: &str) -> Result<&'a AppliedRow, Failure> {
    tracked.rows.iter().find(|row| row.version.is_meant_by(wanted)).ok_or_else(|| {
        Failure::new(Code::UnknownVersion, format!("No migration {wanted} in schema_migrations"))
    })
}

fn file<'a>(run: &'a Run, wanted: &str) -> Result<&'a Migration, Failure> {
    run.catalog
        .find(wanted)
        .ok_or_else(|| Failure::new(Code::UnknownVersion, format!("No migration {wanted} in the directory")))
}

fn unfit(version: &Version, why: &str) -> Failure {
    Failure::new(Code::BadRepair, format!("Migration {version} cannot be repaired so: {why}"))
        .version(version)
}
