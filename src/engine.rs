//! The verbs on ONE database: status, plan, apply, rollback, recover, repair, history.
//!
//! A mutating verb takes the lock, reads, plans (purely), inspects every script of the plan, and
//! hands each step to `postgres`. What was done returns as a value; progress goes to the event sink.

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use tokio_util::sync::CancellationToken;

use crate::{
    migration::{
        Basis, Catalog, EventKind, EventSink, Failure, ScriptReader, Version,
        plan::{ApplyRequest, Policy, RollbackRequest},
    },
    postgres::{
        executor::Author,
        names::Names,
        pool::Pool,
        session::{Limits, Session},
    },
};

mod done;
mod failure;
mod gate;
mod history;
mod observe;
mod repair;
mod run;
mod scripts;
mod status;
mod steps;
pub mod trace;
mod witness;

pub use done::{Done, done};
pub use gate::{GateVerdict, gate};
pub use history::history;
pub use observe::{Compared, Depth, Glance, Memory, OF_THE_SCHEMA, observe, observe_again};
pub use repair::{Repair, RepairAction, repair};
pub use run::{plan, run};
pub use status::{LeftOut, Status, status};
pub use witness::{Intent, Used, Witness, no_witness};

/// One database, as the engine needs to know it.
#[derive(Debug)]
pub struct Database {
    /// Its name in the fleet.
    pub name: String,
    /// PostgreSQL's name for it.
    pub dbname: String,
    /// The tables.
    pub names: Names,
    /// Its connections.
    pub pool: Pool,
    /// The connections of those who only look, shared by all databases with the same URL.
    pub looks: Pool,
    /// Whether such a connection stays open from one look to the next: not where a server has more
    /// databases than it should have connections.
    pub keeps_looks: bool,
    /// Whether a trigger tells of changes of the rows.
    pub notifies: bool,
    /// Whether what changes it takes a second person's approval.
    pub is_protected: bool,
    /// What is refused and what is let pass.
    pub policy: Policy,
    /// Bounds of its sessions.
    pub limits: Limits,
    /// How long a run waits for the database's lock.
    pub lock_wait: Duration,
    /// How often a step that met a lock or a deadlock is tried again.
    pub lock_retries: usize,
    /// When commits are flushed.
    pub durability: Durability,
}

/// When the commits of a run's steps are flushed to disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Durability {
    /// Once for the run, or once a second; a step is reported only then.
    #[default]
    Run,
    /// Each by itself.
    Each,
}

/// How a run is stopped.
#[derive(Debug, Clone, Default)]
pub struct Stop {
    /// End after the step that is running.
    pub drain: CancellationToken,
    /// Cancel the running statement on the server.
    pub cancel: CancellationToken,
    /// Until when whoever runs may begin steps, where that is not for ever.
    pub lease: Option<Lease>,
}

impl Stop {
    /// Whether no further step may be begun. The lease is looked at here and not only by a clock: one
    /// that was frozen may come to its next step before its clock does.
    pub fn is_draining(&self) -> bool {
        self.drain.is_cancelled() || self.lease.as_ref().is_some_and(|lease| !lease.is_held())
    }
}

/// A right that ends by itself, unless it is renewed. Clones share it.
#[derive(Debug, Clone)]
pub struct Lease(Arc<Mutex<Instant>>);

impl Lease {
    /// One that ends then.
    pub fn until(end: Instant) -> Self {
        Self(Arc::new(Mutex::new(end)))
    }

    /// Whether it has not ended.
    pub fn is_held(&self) -> bool {
        Instant::now() < *self.end()
    }

    /// Has it end later. One that has ended stays so: whoever relied on it has stopped by then.
    pub fn renew(&self, later: Instant) {
        let mut end = self.end();
        if Instant::now() < *end {
            *end = later.max(*end);
        }
    }

    fn end(&self) -> MutexGuard<'_, Instant> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Where a request of the same id may have been at work before, as far as the daemon can know.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Before {
    /// Nowhere: it is new, or what it did is remembered.
    Nowhere,
    /// In another instance of the daemon.
    Elsewhere,
    /// In this very one too, which has forgotten some requests.
    Anywhere,
}

/// Everything that one run on one database is given.
#[derive(Clone)]
pub struct Run {
    /// The database.
    pub database: Arc<Database>,
    /// The migrations.
    pub catalog: Arc<Catalog>,
    /// Opens their files.
    pub reader: Arc<dyn ScriptReader>,
    /// Who does it.
    pub author: Author,
    /// Takes what happens.
    pub events: Arc<dyn EventSink>,
    /// Stops it.
    pub stop: Stop,
    /// Where the request's id may have been at work before: there the journal is asked.
    pub before: Before,
    /// The operation was another owner's, whose lease is over: a session of the same operation that
    /// still holds the lock is ended.
    pub takes_over: bool,
    /// What the plan was made over that the run is held to: where that has moved, nothing is run.
    pub basis: Option<Basis>,
    /// The migrations that the plan was about, where the run is held to these alone: the operation itself has
    /// moved what the plan was made over.
    pub only: Option<BTreeSet<Version>>,
    /// Is told what is about to be changed, and may refuse it.
    pub witness: Witness,
}

/// What a run does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verb {
    /// Apply what is pending.
    Apply(ApplyRequest),
    /// Roll back what is newest.
    Rollback(RollbackRequest),
    /// Settle dirty rows.
    Recover {
        /// Go on with partly applied migrations instead of undoing them.
        resume: bool,
    },
    /// Change one row by hand.
    Repair(Repair),
}

impl Verb {
    /// Its name.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Apply(_) => "apply",
            Self::Rollback(_) => "rollback",
            Self::Recover { .. } => "recover",
            Self::Repair(_) => "repair",
        }
    }

    /// What a repair does, in words: its plan has no steps that would say so; empty for what has.
    pub fn repair(&self) -> String {
        match self {
            Self::Repair(repair) => repair.to_string(),
            Self::Apply(_) | Self::Rollback(_) | Self::Recover { .. } => String::new(),
        }
    }
}

impl Run {
    fn emit(&self, kind: EventKind) {
        self.events.emit(&self.database.name, kind);
    }
}

impl Database {
    /// Takes a connection for a session of this operation.
    async fn session(&self, operation: &str) -> Result<Session, Failure> {
        let connection = Box::pin(self.pool.get(self.limits.connect_timeout)).await;
        let connection = connection.map_err(|error| Failure::from(&error))?;
        Ok(Session::new(connection, self.names.clone(), &self.dbname, operation))
    }
}
