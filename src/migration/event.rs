//! What happens in an operation. The engine tells, others listen.

use std::collections::BTreeSet;

use jiff::Timestamp;
use uuid::Uuid;

use crate::migration::{
    Alert, AuditReport, Catalog, Direction, Failure, GateOutcome, Migration, Observation, OperationState,
    Plan, Step, StepAction, TraceContext, Version,
};

/// One thing that happened.
#[derive(Debug, Clone)]
pub struct Event {
    /// The operation.
    pub operation: Uuid,
    /// The trace that the operation belongs to; `None` for what belongs to no operation.
    pub trace: Option<TraceContext>,
    /// When.
    pub time: Timestamp,
    /// The database; empty for the operation as a whole.
    pub database: String,
    /// What.
    pub kind: EventKind,
}

/// What happened.
#[derive(Debug, Clone)]
pub enum EventKind {
    /// The operation began, or begins again, on these databases.
    OperationStarted {
        /// `apply`, `rollback`, `recover` or `repair`.
        verb: &'static str,
        /// The resolved databases: all of them, or those that are tried again.
        databases: Vec<String>,
        /// Who asked.
        requested_by: String,
        /// Why, in their words; may be empty.
        reason: String,
        /// How many waves there are.
        waves: u32,
        /// Counts how often it was begun, from 1.
        attempt: u32,
    },
    /// The operation is in another state.
    OperationChanged {
        /// The state until now; `None` where it is new.
        from: Option<OperationState>,
        /// The state from now on.
        to: OperationState,
        /// Why, in a sentence without a full stop; may be empty.
        why: String,
        /// Who asked for it; empty where it came by itself.
        by: String,
    },
    /// A wave of the operation began.
    WaveStarted {
        /// Which.
        wave: WaveOf,
        /// How many databases it has.
        databases: u32,
    },
    /// Every database of a wave that was begun is done.
    WaveFinished {
        /// Which.
        wave: WaveOf,
        /// How many of its databases failed.
        failed: u32,
    },
    /// The gate after a wave was asked on a database, for the last time.
    GateChecked {
        /// After which wave.
        wave: WaveOf,
        /// How it came out.
        outcome: GateOutcome,
        /// Why it did not hold; empty where it did. Never a value from a table.
        reason: String,
    },
    /// A database's plan is made.
    DatabaseStarted {
        /// What will be done.
        steps: Vec<Step>,
    },
    /// Somebody else holds the lock.
    LockWaiting {
        /// Who, for a person.
        holder: String,
    },
    /// The lock that somebody else held was taken.
    LockTaken {
        /// How long that took.
        waited: std::time::Duration,
    },
    /// Dirty rows were found: the runbook's "Found migrations in dirty state".
    FoundDirty {
        /// Their versions.
        versions: Vec<Version>,
    },
    /// A step began.
    StepStarted {
        /// The step.
        step: Step,
        /// Its place in the plan, from 1.
        number: u32,
        /// Of how many.
        total: u32,
    },
    /// A step goes on.
    StepProgress {
        /// The migration.
        version: Version,
        /// Bytes sent, or statements done.
        done: u64,
        /// Of how many.
        total: u64,
    },
    /// A step will be tried again.
    StepRetrying {
        /// The migration.
        version: Version,
        /// The attempt that failed, from 1.
        attempt: u32,
        /// Until the next one.
        delay: std::time::Duration,
        /// Who stood in the way.
        blockers: Vec<String>,
        /// `55P03` or `40P01`.
        sqlstate: String,
    },
    /// A step is done, durably.
    StepFinished(StepDone),
    /// A step failed.
    StepFailed {
        /// The migration.
        version: Version,
        /// Which file.
        direction: Direction,
        /// Why.
        failure: Box<Failure>,
        /// How long it took.
        duration_ms: u64,
    },
    /// Something worth knowing.
    Notice {
        /// The migration, where it is about one.
        version: Option<Version>,
        /// The text; never a value from a table.
        message: String,
    },
    /// A database is done.
    DatabaseFinished(Box<DatabaseReport>),
    /// The monitor or an audit looked at a database; the event belongs to no operation.
    Observed(Box<Observation>),
    /// The files of a migration directory have changed, or it can be read again and nothing has; the
    /// event belongs to no operation.
    CatalogChanged(CatalogChange),
    /// A migration directory cannot be read: the last good catalog stays; no operation's event.
    CatalogFailed {
        /// The directory.
        directory: String,
        /// Why.
        failure: Box<Failure>,
    },
    /// The inventory was read anew, well or not, or a discovery looked for its databases; the event
    /// belongs to no operation.
    InventoryLoaded(Box<InventoryChange>),
    /// An audit has ended; the event belongs to no operation.
    AuditFinished(Box<AuditReport>),
    /// An alert is in another state now; the event belongs to no operation.
    AlertChanged(Box<Alert>),
    /// An alert was sent to a sink, or could not be; the event belongs to no operation.
    AlertSent {
        /// The sink's name in the configuration: never its URL.
        sink: String,
        /// `sent`, `failed` (it will be tried again) or `dropped` (given up).
        outcome: &'static str,
    },
    /// Nobody is at work on the operation any more.
    OperationFinished {
        /// How it stands.
        state: OperationState,
        /// Why; empty where it succeeded.
        why: String,
        /// The databases that were not begun.
        not_begun: Vec<String>,
        /// Which attempt has ended, from 1.
        attempt: u32,
    },
}

/// Which wave of an operation is meant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WaveOf {
    /// Its name.
    pub name: String,
    /// Its place, from 1.
    pub number: u32,
    /// Of how many.
    pub total: u32,
}

/// How a directory's catalog has changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CatalogChange {
    /// The directory.
    pub directory: String,
    /// The new catalog's digest, in hexadecimal digits.
    pub digest: String,
    /// Versions that were not there.
    pub added: Vec<Version>,
    /// Versions whose up or down file is another one.
    pub edited: Vec<Version>,
    /// Versions that are gone.
    pub removed: Vec<Version>,
}

impl CatalogChange {
    /// What has changed from one catalog of a directory to the next.
    pub fn between(directory: String, old: &Catalog, new: &Catalog) -> Self {
        let versions = |of: &Catalog, is_meant: &dyn Fn(&Migration) -> bool| {
            let meant = of.migrations().iter().filter(|migration| is_meant(migration));
            meant.map(|migration| migration.version.clone()).collect()
        };
        let texts = |migration: &Migration| {
            let down = migration.down.as_ref().map(|down| down.checksums.raw);
            (migration.up.checksums.raw, down)
        };
        Self {
            directory,
            digest: new.digest().to_owned(),
            added: versions(new, &|migration| old.get(&migration.version).is_none()),
            edited: versions(new, &|migration| {
                old.get(&migration.version).is_some_and(|before| texts(before) != texts(migration))
            }),
            removed: versions(old, &|migration| new.get(&migration.version).is_none()),
        }
    }

    /// Whether nothing has changed.
    pub fn is_empty(&self) -> bool {
        self.added.is_empty() && self.edited.is_empty() && self.removed.is_empty()
    }
}

/// How the inventory has changed.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct InventoryChange {
    /// Databases that were not there.
    pub added: Vec<String>,
    /// Databases whose settings are others.
    pub changed: Vec<String>,
    /// Databases that are gone.
    pub removed: Vec<String>,
    /// All databases that there are now.
    pub databases: BTreeSet<String>,
    /// Every discovery has found its databases at least once: what is not there is gone.
    pub is_complete: bool,
    /// Nothing is wrong: neither a file nor a discovery.
    pub is_valid: bool,
}

impl InventoryChange {
    /// Whether nothing has changed.
    pub fn is_empty(&self) -> bool {
        self.added.is_empty() && self.changed.is_empty() && self.removed.is_empty()
    }
}

/// One step that was done, durably.
#[derive(Debug, Clone)]
pub struct StepDone {
    /// The step.
    pub step: Step,
    /// The up file's checksum as it stands in the table or stood there, in hexadecimal digits.
    pub checksum: String,
    /// How long it took.
    pub duration_ms: u64,
}

/// How a database came out of an operation.
#[derive(Debug, Clone)]
pub struct DatabaseReport {
    /// Its name.
    pub database: String,
    /// What was planned; `None` where it did not come to a plan.
    pub plan: Option<Plan>,
    /// What was done, durably, in order: also of a run that failed later.
    pub done: Vec<StepDone>,
    /// What the operation had done there before it changed hands, by the journal, in order: whoever did it is
    /// gone, and may not have told. Rows that were settled without SQL are not among it.
    pub done_before: Vec<(Version, StepAction)>,
    /// How it came out.
    pub result: Result<DatabaseOutcome, Box<Failure>>,
    /// How long it took.
    pub duration_ms: u64,
}

/// How a database came out well.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DatabaseOutcome {
    /// Every step was done.
    Succeeded,
    /// There was nothing to do.
    UpToDate,
    /// What the operation had applied was rolled back.
    RolledBack,
    /// A dry run: nothing was done.
    Planned,
}

/// Takes events. Handed down through every layer; whoever makes the operation owns the other end.
pub trait EventSink: Send + Sync {
    /// Takes what happened to a database; it must not block.
    fn emit(&self, database: &str, kind: EventKind);
}
