//! Finding operations, and steering those that are there.

use std::{
    collections::BTreeMap,
    sync::{Arc, MutexGuard, PoisonError},
};

use tracing::Instrument as _;
use uuid::Uuid;

use crate::{
    access::Permit,
    auditlog::{Allowed, Call},
    engine::{self, Lease, Stop},
    fleet::{
        Fleet,
        inventory::Member,
        operation::{Catalogs, Command, Operation, Operations, Record, catalog_of, state},
        run,
    },
    migration::{
        Code, DatabaseState, EventKind, EventSink as _, Failure, Finding, FindingKind, Observation,
        OperationState, PlanDigest, Version, catalog::CatalogResult, event::CatalogChange,
    },
};

/// How many details a refusal lists.
const MOST_DETAILS: usize = 50;

/// By how many characters of its id, at least, an operation is steered.
const LEAST_OF_AN_ID: usize = 8;

/// How many databases a detail names.
const MOST_NAMES: usize = 5;

/// What a command says of itself.
#[derive(Debug, Clone)]
pub struct Order {
    /// The operation's id, or the beginning of it where that is enough.
    pub id: String,
    /// Who gives it.
    pub by: String,
    /// What they may do.
    pub permit: Permit,
    /// Where it is recorded that it is obeyed.
    pub call: Arc<Call>,
    /// Going on is meant although the migration directories have changed since the beginning.
    pub accept_new_catalog: bool,
    /// Why, in their words; may be empty.
    pub reason: String,
    /// The plan that they have seen and approve.
    pub plan: Option<PlanDigest>,
}

impl Fleet {
    /// Runs the attempt of an operation that has just begun.
    pub(super) fn work_on(self: &Arc<Self>, operation: &Arc<Operation>) {
        let (verb, databases) = operation.look(|record| (record.verb.name(), record.databases.len()));
        let span = engine::trace::operation(operation.id(), verb, databases);
        let work = run::operation(self.clone(), operation.clone()).instrument(span);
        let work = self.tasks.spawn("operation", work);
        let operation = operation.clone();
        // Nobody else would ever end an operation whose work has panicked.
        drop(self.tasks.spawn("operation's end", async move {
            if work.await.is_err() {
                operation.abandon();
            }
        }));
    }

    pub(super) fn stop_of_an_attempt(&self, lease: Option<Lease>) -> Stop {
        Stop { drain: self.stop.drain.child_token(), cancel: self.stop.cancel.child_token(), lease }
    }

    /// The one operation that an order means: what may be looked up by any beginning of an id is not
    /// changed by one that is met by chance.
    fn ordered(&self, order: &Order) -> Result<Arc<Operation>, Failure> {
        let id = order.id.trim();
        if id.len() < LEAST_OF_AN_ID {
            let message = format!(
                "{id:?} is too short: an operation is steered by {LEAST_OF_AN_ID} characters of its id"
            );
            return Err(Failure::new(Code::BadRequest, message));
        }
        let operation = self.operation(id, &order.permit)?;
        self.permitted(operation, &order.permit)
    }

    /// Refuses to tell of what the control database keeps (operations, alerts, audits) where it was never read:
    /// that there are none would not be true.
    pub fn what_is_kept_is_known(&self) -> Result<(), Failure> {
        self.shared().map_or(Ok(()), |shared| shared.control.known())
    }

    /// The operations that are remembered, the newest first.
    pub fn list_operations(&self) -> Vec<Arc<Operation>> {
        self.operations().newest().cloned().collect()
    }

    /// Begins no further database of an operation; those under way are finished.
    pub async fn pause(self: &Arc<Self>, order: &Order) -> Result<Arc<Operation>, Failure> {
        self.command(order, Command::Pause).await
    }

    /// Cancels what is under way, on the servers, and begins nothing more.
    pub async fn cancel(self: &Arc<Self>, order: &Order) -> Result<Arc<Operation>, Failure> {
        self.command(order, Command::Cancel).await
    }

    /// Goes on with an operation that is paused or halted: with what was not begun. Refused where the
    /// migration directories are not what they were at the beginning, unless that is accepted.
    pub async fn resume(self: &Arc<Self>, order: &Order) -> Result<Arc<Operation>, Failure> {
        self.command(order, Command::Resume).await
    }

    /// Tries again what failed, was cancelled, was rolled back or was not begun, in the same waves.
    /// Refused likewise.
    pub async fn retry(self: &Arc<Self>, order: &Order) -> Result<Arc<Operation>, Failure> {
        self.command(order, Command::Retry).await
    }

    pub(super) async fn command(
        self: &Arc<Self>,
        order: &Order,
        command: Command,
    ) -> Result<Arc<Operation>, Failure> {
        let operation = self.ordered(order)?;
        self.refuse_too_far(&operation, command, &order.permit)?;
        let order = match command {
            Command::Approve | Command::Reject => &self.as_approver(&operation, order, command)?,
            Command::Resume | Command::Retry => {
                self.refuse_unproven_on(&operation, &order.permit)?;
                self.refuse_lesser(&operation, &order.permit)?;
                order
            }
            Command::Pause | Command::Cancel => order,
        };
        let databases = operation.look(|record| record.databases.keys().cloned().collect());
        let allowed = Allowed { operation: Some(operation.id()), databases };
        match command {
            // What stops others is not stopped itself.
            Command::Pause | Command::Cancel | Command::Reject => order.call.allow_in_any_case(&allowed),
            Command::Resume | Command::Retry | Command::Approve => order.call.allow(&allowed).await?,
        }
        if let Some(shared) = self.shared() {
            self.order_shared(shared, &operation, order, command).await?;
        } else {
            self.obey(&operation, order, command).await?;
        }
        Ok(operation)
    }

    /// Has an operation obey that this daemon owns.
    pub(super) async fn obey(
        self: &Arc<Self>,
        operation: &Arc<Operation>,
        order: &Order,
        command: Command,
    ) -> Result<(), Failure> {
        match command {
            Command::Pause | Command::Cancel => operation.obey(command, &order.by, |_, _| Ok(())).map(drop),
            Command::Approve | Command::Reject => self.decide(operation, order, command).await,
            Command::Resume | Command::Retry => self.go_on(operation, order, command).await,
        }
    }

    async fn go_on(
        self: &Arc<Self>,
        operation: &Arc<Operation>,
        order: &Order,
        command: Command,
    ) -> Result<(), Failure> {
        if state::obey(operation.state(), command)?.is_none() {
            return Ok(());
        }
        self.admit()?;
        let work = operation.to_work_with();
        let members = self.members_of(operation);
        let mut catalogs = now_in(&work.catalogs).await;
        let is_new = |member: &&Arc<Member>| work.catalog(member).is_none();
        catalogs.extend(read_catalogs(members.values().filter(is_new)).await);
        if !order.accept_new_catalog {
            refuse_moved(&work.catalogs, &catalogs)?;
            operation.refuse_elsewhere(members.values().filter(is_new), &catalogs)?;
        }
        operation.refuse_diverging(&members, &work.catalogs, &catalogs)?;
        let asked = self.ask_to_go_on(operation, order, command, &members).await?;
        // From here on nobody begins another one.
        let operations = self.operations();
        self.refuse_overlap(&operations, operation.id(), &operation.look(Record::names))?;
        let mut is_idle = false;
        let obeyed = operation.obey(command, &order.by, |record, from| {
            is_idle = from.is_at_rest();
            if order.accept_new_catalog {
                record.hold_to_no_plan();
            }
            if command == Command::Retry {
                record.try_again();
            } else if is_idle {
                record.pass_over();
            }
            match asked {
                Some(asked) => asked.put(record),
                None => record.forget_undecided(),
            }
            operation.with_work(|work| {
                if is_idle {
                    work.stop = self.stop_of_an_attempt(work.stop.lease.take());
                    work.takes_over = false;
                    work.members = Arc::new(members);
                    if !order.by.is_empty() {
                        work.author.requested_by.clone_from(&order.by);
                    }
                }
                work.take_catalogs(catalogs);
            });
            Ok(())
        })?;
        drop(operations);
        if obeyed.is_some() {
            operation.note_digests();
        }
        if obeyed.is_some() && is_idle {
            self.work_on(operation);
        }
        Ok(())
    }

    /// The databases of an operation, as they are now; without those that are gone.
    pub(super) fn members_of(&self, operation: &Operation) -> BTreeMap<String, Arc<Member>> {
        let inventory = self.inventory();
        operation.look(|record| {
            let members = record.databases.keys().filter_map(|name| inventory.get(name));
            members.map(|member| (member.name().to_owned(), member.clone())).collect()
        })
    }

    /// Tells the alerts which operations are halted: all of them, so that what is over is over.
    pub(super) fn tell_halted(&self) {
        let halted = self.operations();
        let halted = halted.newest().filter(|operation| operation.state() == OperationState::Halted);
        let finding = |operation: &Arc<Operation>| {
            operation.look(|record| {
                let (id, verb) = (record.id.to_string(), record.verb.name());
                let message = format!("The {verb} of {} is halted: {}", record.requested_by, record.why);
                let not_begun = record.count(|state| state == DatabaseState::Waiting);
                let evidence = [
                    format!("{not_begun} of {} databases were not begun", record.databases.len()),
                    format!("nexusctl operation show {id}"),
                ];
                Finding::new(FindingKind::OperationHalted, id, message).evidence(evidence)
            })
        };
        let findings = halted.map(finding).collect();
        let observation = Observation::of_the_daemon(FindingKind::OperationHalted, findings);
        self.sink(Uuid::nil(), None).emit("", EventKind::Observed(Box::new(observation)));
    }

    pub(super) fn operations(&self) -> MutexGuard<'_, Operations> {
        self.operations.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Operation {
    /// Refuses to go on with another text of what the operation has applied already: some databases
    /// would have the one and some the other, and the first would be told as drift ever after.
    fn refuse_diverging(
        &self,
        members: &BTreeMap<String, Arc<Member>>,
        then: &Catalogs,
        now: &Catalogs,
    ) -> Result<(), Failure> {
        let text = |catalogs, member: &Member, version: &Version| {
            let catalog = catalog_of(catalogs, member)?.as_ref().ok()?;
            Some(catalog.get(version)?.up.checksums.raw)
        };
        let mut edited: BTreeMap<Version, Vec<String>> = BTreeMap::new();
        self.look(|record| {
            for (name, database) in &record.databases {
                let Some(member) = members.get(name) else { continue };
                let applied = database.applied().into_iter();
                // What another daemon has read is not known here: the rows' checksums tell of it then.
                let is_known = catalog_of(then, member).is_some();
                let moved = applied
                    .filter(|version| is_known && text(then, member, version) != text(now, member, version));
                moved.for_each(|version| edited.entry(version).or_default().push(name.clone()));
            }
        });
        let Some(first) = edited.keys().next() else { return Ok(()) };
        let message = format!("Migration {first} was edited, and the operation has applied it already");
        let detail = |(version, names): (&Version, &Vec<String>)| {
            let shown = names.iter().take(MOST_NAMES).map(String::as_str).collect::<Vec<_>>().join(", ");
            let more = names.len().saturating_sub(MOST_NAMES);
            let more = if more == 0 { String::new() } else { format!(" and {more} more") };
            format!("{version} is in place on {shown}{more}")
        };
        let failure = Failure::new(Code::CatalogMoved, message).details(edited.iter().map(detail).collect());
        Err(failure.hint(
            "put the file back and the change into a new migration; or roll those databases back and start a new apply",
        ))
    }

    /// Refuses databases whose directory is another one by now, where that holds other migrations.
    pub(super) fn refuse_elsewhere<'a>(
        &self,
        members: impl Iterator<Item = &'a Arc<Member>>,
        catalogs: &Catalogs,
    ) -> Result<(), Failure> {
        let mut details = Vec::new();
        for member in members {
            let catalog = catalog_of(catalogs, member).cloned().unwrap_or_else(|| Ok(Arc::default()))?;
            let then = self.look(|record| record.databases.get(member.name()).map(|it| it.digest.clone()));
            if then.is_some_and(|then| !then.is_empty() && then != catalog.digest()) {
                let path = member.migrations.display();
                details.push(format!("{}: its migrations are those of {path} now", member.name()));
            }
        }
        moved(details)
    }

    /// Notes which catalog each database that is still to be begun is compared with.
    pub(super) fn note_digests(&self) {
        let work = self.to_work_with();
        self.update(|record| {
            for (name, database) in &mut record.databases {
                let catalog = work.members.get(name).and_then(|member| work.catalog(member));
                if let (false, Some(Ok(catalog))) = (database.state.is_well(), catalog) {
                    catalog.digest().clone_into(&mut database.digest);
                }
            }
        });
    }
}

/// What the directories of an operation hold now.
async fn now_in(catalogs: &Catalogs) -> Catalogs {
    let mut now = Vec::with_capacity(catalogs.len());
    for (directory, _) in catalogs {
        now.push((directory.clone(), directory.load().await));
    }
    now
}

/// Refuses where a directory is not what it was, saying what was added, edited and removed.
fn refuse_moved(then: &Catalogs, now: &Catalogs) -> Result<(), Failure> {
    let mut details = Vec::new();
    for ((directory, then), (_, now)) in then.iter().zip(now) {
        let path = directory.path().display();
        match (then, now) {
            (Ok(then), Ok(now)) if then.digest() != now.digest() => {
                let change = CatalogChange::between(path.to_string(), then, now);
                let changes =
                    [("added", change.added), ("edited", change.edited), ("removed", change.removed)];
                for (what, versions) in changes {
                    details.extend(versions.iter().map(|version| format!("{path}: {version} was {what}")));
                }
            }
            (_, Err(failure)) => return Err(failure.clone()),
            // What could not be read then has not been used.
            _ => {}
        }
    }
    moved(details)
}

fn moved(mut details: Vec<String>) -> Result<(), Failure> {
    if details.is_empty() {
        return Ok(());
    }
    let more = details.len().saturating_sub(MOST_DETAILS);
    details.truncate(MOST_DETAILS);
    details.extend((more > 0).then(|| format!("and {more} more")));
    let message = "The migrations have changed since the operation began";
    Err(Failure::new(Code::CatalogMoved, message).details(details))
}

/// Reads each directory of an operation once, so that every database of it sees the same.
pub(super) async fn read_catalogs<'a>(members: impl Iterator<Item = &'a Arc<Member>>) -> Catalogs {
    let mut catalogs: Vec<(_, CatalogResult)> = Vec::new();
    for member in members {
        if !catalogs.iter().any(|(directory, _)| Arc::ptr_eq(directory, &member.directory)) {
            catalogs.push((member.directory.clone(), member.catalog().await));
        }
    }
    catalogs
}
