//! MANY databases: which there are, which of them a request means, and the operations on them.
//!
//! An operation runs here, in tasks of the daemon, not in the RPC that asked for it: a client that
//! goes away changes nothing. What happens is sent to the daemon's one receiver, which hands it back
//! to [`Fleet::publish`] when the log has it; whoever watches the operation reads it from there.

use std::{
    sync::{
        Arc, Mutex, OnceLock, PoisonError, RwLock,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use jiff::Timestamp;
use tokio::{sync::mpsc, time::Instant};
use tracing::Instrument as _;
use uuid::Uuid;

use crate::{
    access::Permit,
    auditlog::{Allowed, Call},
    engine::{self, Before, Repair, Run, Status, Stop, Verb, Witness},
    migration::{
        Attempt, Catalog, Code, Event, EventKind, EventSink, Failure, OperationState, TraceContext,
        event::CatalogChange,
    },
    postgres::executor::Author,
    runtime::Tasks,
};

mod approve;
pub mod audit;
mod begin;
pub mod discovery;
pub mod inventory;
mod kept;
mod monitor;
pub mod operation;
pub mod plan;
mod reload;
mod run;
pub mod schedule;
mod seen;
pub mod selector;
mod service;
mod sight;
mod steer;
pub mod strategy;
mod watching;

use inventory::{Inventory, Member};
use monitor::Directories;
use operation::Operations;
use selector::{Need, Selection};
use strategy::Strategy;
use watching::Watching;

pub use reload::{Reload, Reloaded};
pub use seen::{SeenElsewhere, SeenHere};
pub use service::Shared;
pub use sight::Sight;
pub use steer::Order;
pub use watching::ReloadFault;

/// How long statements that are cancelled on the server may take to end.
pub const CANCELLING: Duration = Duration::from_secs(20);

/// Whether new mutations are admitted; the daemon asks its log.
pub type Gate = Arc<dyn Fn() -> Result<(), Failure> + Send + Sync>;

/// The databases of one daemon, and what is done to them.
pub struct Fleet {
    inventory: RwLock<Arc<Inventory>>,
    watching: Watching,
    operations: Mutex<Operations>,
    tasks: Tasks,
    events: mpsc::UnboundedSender<Event>,
    stop: Stop,
    settings: Settings,
    started: Timestamp,
    /// Every discovery has answered: what is not there is gone.
    inventory_is_complete: AtomicBool,
    alerts: OnceLock<OpenAlerts>,
}

/// How a fleet works.
pub struct Settings {
    /// Whether new mutations are admitted.
    pub gate: Gate,
    /// Is told what is about to be changed on a database.
    pub witness: Witness,
    /// The daemon's instance, as in the journal.
    pub instance: String,
    /// On how many databases one operation works at once.
    pub max_parallel: usize,
    /// For how long a migration may be pending.
    pub pending_limit: Duration,
    /// What becomes of operations about the same database.
    pub overlap: Overlap,
    /// How long an operation waits for a second person's approval.
    pub approval_limit: Duration,
    /// What it shares with other daemons; `None`: nothing.
    pub shared: Option<Shared>,
}

/// A request to do something to some databases.
#[derive(Debug, Clone)]
pub struct Request {
    /// The caller's id for it: the same one never runs twice.
    pub id: Option<Uuid>,
    /// Who asks.
    pub requested_by: String,
    /// Which databases.
    pub selection: Selection,
    /// Why, in their words; may be empty.
    pub reason: String,
    /// How the databases are gone through.
    pub strategy: Strategy,
    /// The plan that it is held to; `None`: whatever is planned at the moment of the run.
    pub plan: Option<plan::Held>,
    /// The trace that it belongs to; `None` begins one.
    pub trace: Option<TraceContext>,
    /// What it may do.
    pub permit: Permit,
    /// Where it is recorded that it is done.
    pub call: Arc<Call>,
}

/// What came of a repair.
#[derive(Debug, Clone)]
pub struct Repaired {
    /// The database.
    pub database: String,
    /// What was done, or how the operation stands.
    pub message: String,
    /// The operation.
    pub operation: Uuid,
    /// Whether it is not done yet: what is protected waits for an approval.
    pub waits: bool,
}

/// What becomes of a new operation about a database that an unfinished one is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Overlap {
    /// The database waits until the other operation is done with it, as long as for its lock.
    #[default]
    Queue,
    /// The new operation is refused.
    Refuse,
}

/// Tells the alerts that are open on a database; the daemon asks those who keep them.
pub type OpenAlerts = Arc<dyn Fn(&str) -> Vec<String> + Send + Sync>;

/// How a database of the fleet stands.
pub struct MemberStatus {
    /// The database.
    pub member: Arc<Member>,
    /// Its migrations, and what the directory has to say.
    pub status: Result<(Status, Vec<String>), Failure>,
    /// Why the directory cannot be read: then the migrations are compared with its last good
    /// catalog.
    pub catalog_failure: Option<Failure>,
}

impl Fleet {
    /// A fleet over an inventory, in `tasks` of its own; what happens goes to `events`.
    pub fn new(
        inventory: Inventory,
        tasks: Tasks,
        events: mpsc::UnboundedSender<Event>,
        settings: Settings,
    ) -> Arc<Self> {
        Arc::new(Self {
            inventory: RwLock::new(Arc::new(inventory)),
            watching: Watching::default(),
            operations: Mutex::default(),
            tasks,
            events,
            stop: Stop::default(),
            settings,
            started: Timestamp::now(),
            inventory_is_complete: AtomicBool::new(false),
            alerts: OnceLock::new(),
        })
    }

    /// The databases as they are now; whoever goes on with them keeps this very inventory.
    pub fn inventory(&self) -> Arc<Inventory> {
        self.inventory.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn is_inventory_complete(&self) -> bool {
        self.inventory_is_complete.load(Ordering::Relaxed)
    }

    /// The daemon's instance, as in the journal.
    pub fn instance(&self) -> &str {
        &self.settings.instance
    }

    /// Where a request with this id may have been at work before: in a daemon before this one, or in
    /// this one, which has forgotten it. An id that bears its time is believed; of any other the
    /// journal knows.
    fn before(&self, id: Uuid) -> Before {
        let (made, started) = (operation::made(id), self.started.as_millisecond().unsigned_abs());
        if self.operations().may_have_forgotten(id) {
            Before::Anywhere
        } else if made.is_none_or(|made| made < started) {
            Before::Elsewhere
        } else {
            Before::Nowhere
        }
    }

    /// Says whom to ask for the alerts of a database, and tells them that no operation is halted: the
    /// daemon has just begun.
    pub fn ask_for_alerts(&self, alerts: OpenAlerts) {
        let _ = self.alerts.set(alerts);
        self.tell_halted();
    }

    /// On how many databases one operation works at once.
    fn max_parallel(&self) -> usize {
        self.settings.max_parallel.max(1)
    }

    fn open_alerts(&self, database: &str) -> Vec<String> {
        self.alerts.get().map(|alerts| alerts(database)).unwrap_or_default()
    }

    fn admit(&self) -> Result<(), Failure> {
        if self.stop.drain.is_cancelled() {
            return Err(Failure::new(Code::ShuttingDown, "The daemon is stopping"));
        }
        (self.settings.gate)()?;
        self.settings.shared.as_ref().map_or(Ok(()), |shared| shared.control.admit())
    }

    fn author(&self, operation: Uuid, request: &Request) -> Author {
        Author {
            operation,
            requested_by: request.requested_by.clone(),
            instance: self.settings.instance.clone(),
            trace: request.trace.unwrap_or_else(run::new_trace),
        }
    }

    /// Reads how the selected databases stand. Of several, `is_brief` leaves out what is applied and well:
    /// then those are not read of which it is certain that nothing was written since the last look.
    pub async fn status(
        &self,
        selection: &Selection,
        is_brief: bool,
        permit: &Permit,
    ) -> Result<Vec<MemberStatus>, Failure> {
        let since = Instant::now();
        let members = self.inventory().select(selection, Need::Any, permit)?;
        let is_brief = is_brief && members.len() > 1;
        let directories = Directories::default();
        let read = |member: Arc<Member>| {
            let directories = &directories;
            async move {
                let compared = directories.compared_with(&member, since).await;
                let in_order = if is_brief { self.in_order(&member, &compared, since).await } else { None };
                let (status, catalog_failure) = match (in_order, compared) {
                    (Some(status), Ok((catalog, failure))) => (Ok((status, catalog)), failure),
                    (_, Ok((catalog, failure))) => {
                        let _place = member.reading_place().await;
                        let status = engine::status(&member.database, &catalog).await;
                        (status.map(|status| (status, catalog)), failure)
                    }
                    (_, Err(failure)) => (Err(failure), None),
                };
                let status = status.map(|(status, catalog)| (status, catalog.notices().to_vec()));
                MemberStatus { member, status, catalog_failure }
            }
        };
        Ok(run::bounded(self.max_parallel(), members, read).await)
    }

    /// Reads the journals of the selected databases.
    pub async fn history(
        &self,
        selection: &Selection,
        version: Option<&str>,
        limit: u32,
        permit: &Permit,
    ) -> Result<Vec<(Arc<Member>, Result<Vec<Attempt>, Failure>)>, Failure> {
        let members = self.inventory().select(selection, Need::Any, permit)?;
        let read = |member: Arc<Member>| async move {
            let place = member.reading_place().await;
            let attempts = engine::history(&member.database, version, limit).await;
            drop(place);
            (member, attempts)
        };
        Ok(run::bounded(self.max_parallel(), members, read).await)
    }

    /// Does one repair on one database. On a protected one it is an operation, which waits for an approval.
    pub async fn repair(self: &Arc<Self>, request: &Request, repair: Repair) -> Result<Repaired, Failure> {
        self.admit()?;
        let members = self.inventory().select(&request.selection, Need::Named, &request.permit)?;
        let [member] = members.as_slice() else {
            let names = members.iter().map(|member| member.name().to_owned()).collect();
            return Err(Failure::new(Code::NoSelection, "A repair is done on one database").details(names));
        };
        let name = member.name().to_owned();
        if member.database.is_protected {
            let operation = self.start(request, Verb::Repair(repair)).await?;
            let (state, why) = operation.look(|record| (record.state, record.why.clone()));
            let message = if why.is_empty() { operation.line() } else { why };
            // It may have been asked for before.
            if state.is_at_rest() && state != OperationState::Succeeded {
                let failure = operation.look(|record| record.databases.get(&name)?.failure.clone());
                return Err(failure.unwrap_or_else(|| Failure::new(Code::OperationState, message)));
            }
            let waits = state == OperationState::AwaitingApproval;
            return Ok(Repaired { database: name, message, operation: operation.id(), waits });
        }
        let id = request.id.unwrap_or_else(Uuid::now_v7);
        // It is no operation that is remembered: only the journal knows whether it was done before.
        let before = request.id.map_or(Before::Nowhere, |_| Before::Anywhere);
        let run = self.run(member, member.catalog().await?, self.author(id, request));
        let run = Run { before, ..run };
        let allowed = Allowed { operation: Some(id), databases: vec![name.clone()] };
        request.call.allow(&allowed).await?;
        let span = engine::trace::operation(id, "repair", 1);
        // In a task of its own, so that a client that goes away does not leave it half done.
        let (member, call) = (member.clone(), request.call.clone());
        let repair = async move {
            let done = match member.busy(&run).await {
                Ok(_busy) => engine::repair(&run, &repair).await,
                Err(failure) => Err(failure),
            };
            call.answered(done.as_ref().map(drop));
            member.nudge(Instant::now());
            if let Ok(message) = &done {
                let message = format!("{message}; reason: {}", repair.reason);
                run.events.emit(&run.database.name, EventKind::Notice { version: None, message });
            }
            done
        };
        let done = self.tasks.spawn("repair", repair.instrument(span)).await;
        let message = done.map_err(|_| Failure::new(Code::Internal, "The repair ended unexpectedly"))??;
        Ok(Repaired { database: name, message, operation: id, waits: false })
    }

    /// Takes back an event that the log has, for those who watch its operation.
    pub fn publish(&self, event: Event) {
        if let EventKind::CatalogChanged(CatalogChange { directory, .. })
        | EventKind::CatalogFailed { directory, .. } = &event.kind
        {
            self.nudge_directory(directory);
        }
        let halts = |state| state == OperationState::Halted;
        let is_about_a_halt = matches!(&event.kind,
            EventKind::OperationChanged { from, to, .. } if halts(*to) || from.is_some_and(halts));
        let operation = self.operations().get(event.operation);
        if let Some(operation) = operation {
            operation.publish(event);
        }
        if is_about_a_halt {
            self.tell_halted();
        }
    }

    /// Ends every operation: after the running step within `deadline`, else by cancelling it on the
    /// server. Says whether all ended.
    pub async fn shutdown(&self, deadline: Duration) -> bool {
        self.stop.drain.cancel();
        let mut ended = self.tasks.join(deadline).await;
        if !ended {
            self.stop.cancel.cancel();
            ended = self.tasks.join(CANCELLING).await;
        }
        self.hand_over().await;
        ended
    }

    /// Closes connections that were idle for longer than `idle`.
    pub fn evict_idle(&self, idle: Duration) {
        for member in self.inventory().members() {
            member.database.pool.evict_idle(idle);
            member.database.looks.evict_idle(idle);
        }
    }

    fn run(&self, member: &Arc<Member>, catalog: Arc<Catalog>, author: Author) -> Run {
        Run {
            database: member.database.clone(),
            catalog,
            reader: member.directory.texts(),
            events: self.sink(author.operation, Some(author.trace)),
            before: self.before(author.operation),
            takes_over: false,
            basis: None,
            only: None,
            witness: self.settings.witness.clone(),
            author,
            stop: self.stop.clone(),
        }
    }

    fn sink(&self, operation: Uuid, trace: Option<TraceContext>) -> Arc<Sink> {
        Arc::new(Sink { operation, trace, events: self.events.clone() })
    }
}

/// The sink of one operation.
struct Sink {
    operation: Uuid,
    trace: Option<TraceContext>,
    events: mpsc::UnboundedSender<Event>,
}

impl EventSink for Sink {
    fn emit(&self, database: &str, kind: EventKind) {
        let Self { operation, trace, .. } = *self;
        let event = Event { operation, trace, time: Timestamp::now(), database: database.to_owned(), kind };
        // The receiver outlives every operation; after it, nobody is left to be told.
        let _ = self.events.send(event);
    }
}
