//! One database of an operation: its turn, its places, its run, its report.

use std::sync::Arc;

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::Instrument as _;

use crate::{
    engine::{self, Before, Run, Verb},
    fleet::{
        Fleet,
        inventory::Member,
        operation::{DatabaseRecord, Operation, Turn, Work},
        run::refused,
    },
    migration::{
        Basis, Code, EventKind, EventSink, Failure, StepAction, Version,
        event::{DatabaseOutcome, DatabaseReport},
    },
    runtime::faults,
};

/// Runs the operation's verb on one database when its turn has come; `None` where it has not come
/// before `closed`, or before the attempt's end.
pub(super) async fn run(
    fleet: Arc<Fleet>,
    operation: Arc<Operation>,
    name: String,
    closed: CancellationToken,
) -> Option<DatabaseReport> {
    let verb = operation.verb();
    one(&fleet, operation, &name, verb, closed, None).await
}

/// Takes back on one database what the operation has done there.
pub(super) async fn take_back(
    fleet: &Arc<Fleet>,
    operation: Arc<Operation>,
    name: &str,
    verb: Verb,
) -> Option<DatabaseReport> {
    one(fleet, operation, name, verb, CancellationToken::new(), Some(DatabaseOutcome::RolledBack)).await
}

/// `means` is what success is called, where it is not success.
async fn one(
    fleet: &Arc<Fleet>,
    operation: Arc<Operation>,
    name: &str,
    verb: Verb,
    closed: CancellationToken,
    means: Option<DatabaseOutcome>,
) -> Option<DatabaseReport> {
    let work = operation.to_work_with();
    let sink: Arc<dyn EventSink> = match means {
        None => work.sink.clone(),
        Some(outcome) => {
            Arc::new(Meaning { sink: work.sink.clone(), mean: move |report| mean(report, outcome) })
        }
    };
    let Some(member) = work.members.get(name).cloned() else {
        let report = tell(&*sink, refused(name, gone()));
        operation.ended(&report);
        return Some(report);
    };
    let span = engine::trace::database(&member.database, operation.id(), &verb);
    let task = {
        let (fleet, member, operation, sink) =
            (fleet.clone(), member.clone(), operation.clone(), sink.clone());
        let work = async move { begin_and_run(&fleet, &member, &operation, &verb, &closed, sink).await };
        work.instrument(span.clone())
    };
    let ended = fleet.tasks.spawn("database", task).await;
    let report = match ended {
        Ok(None) => return None,
        Ok(Some(Ok(report))) => match means {
            None => report,
            Some(outcome) => mean(report, outcome),
        },
        Ok(Some(Err(failure))) => tell(&*sink, refused(name, failure)),
        Err(_) => tell(&*sink, refused(name, internal())),
    };
    operation.ended(&report);
    faults::reached("database", "ended");
    member.nudge(Instant::now());
    if let Err(failure) = &report.result {
        engine::trace::failed(&span, failure);
    }
    Some(report)
}

/// Waits for the turn, for the database and for a place on its server; the operation may be paused
/// or halted meanwhile: then both are given back.
async fn begin_and_run(
    fleet: &Arc<Fleet>,
    member: &Arc<Member>,
    operation: &Operation,
    verb: &Verb,
    closed: &CancellationToken,
    sink: Arc<dyn EventSink>,
) -> Option<Result<DatabaseReport, Failure>> {
    loop {
        if operation.turn(closed).await == Turn::Never {
            return None;
        }
        if fleet.inventory().get(member.name()).is_none() {
            return Some(Err(gone()));
        }
        let run = match prepare(fleet, member, operation, verb, sink.clone()) {
            Ok(run) => run,
            Err(failure) => return Some(Err(failure)),
        };
        let places = async {
            let busy = member.busy(&run).await?;
            let place = member.place(&run).await?;
            Ok::<_, Failure>((busy, place))
        };
        // A wait for the lock is over when the operation is held up: it fails nobody meanwhile.
        let places = tokio::select! {
            biased;
            () = operation.held_up(closed) => {
                operation.update_database(member.name(), |database| database.waits_for.clear());
                continue;
            }
            places = places => places,
        };
        let places = match places {
            Ok(places) => places,
            Err(failure) => return Some(Err(failure)),
        };
        if operation.may_begin(member.name(), closed) {
            // Whoever would go on with it has to know that it was begun.
            if !operation.is_kept().await {
                operation.update_database(member.name(), DatabaseRecord::hold_back);
                return None;
            }
            let before = match learn(operation, &run).await {
                Ok(learned) => learned,
                Err(failure) => return Some(Err(failure)),
            };
            // What the attempts before have done there is known only now: the rows are not those of the plan then.
            let run = Run { basis: held_to(operation, member.name(), verb), ..run };
            let is_undo = is_undo(operation, verb);
            // An undo is told as what it takes back.
            let before = if is_undo { Vec::new() } else { before };
            let go_on = move |report| go_on(report, &before);
            let run = Run { events: Arc::new(Meaning { sink: run.events, mean: go_on.clone() }), ..run };
            let report = match (rest_of(operation, member.name(), verb), fleet.approved(operation, member)) {
                (None, _) => nothing_left(&run, verb),
                (_, Err(failure)) => tell(&*run.events, refused(member.name(), failure)),
                (Some(verb), Ok(only)) => {
                    // An undo takes back what an attempt before did, too, which was approved then.
                    let run = Run { only: only.filter(|_| !is_undo), ..run };
                    faults::reached("database", "begun");
                    engine::run(&run, &verb).await
                }
            };
            drop(places);
            return Some(Ok(go_on(report)));
        }
    }
}

/// Asks the journal what the operation has done, where only that knows; returns the steps that it was asked for.
pub(super) async fn learn(operation: &Operation, run: &Run) -> Result<Vec<(Version, StepAction)>, Failure> {
    let name = &run.database.name;
    if !operation.look(|record| record.databases.get(name).is_some_and(|it| it.is_unknown)) {
        return Ok(Vec::new());
    }
    let done = engine::done(run).await?;
    let steps = done.steps.clone();
    operation.update_database(name, |database| database.learn(done));
    Ok(steps)
}

/// The same of a database whose turn is not meant; says whether it is known now. What is all taken back
/// already is told so.
pub(super) async fn learn_of(fleet: &Arc<Fleet>, operation: &Operation, name: &str) -> bool {
    let work = operation.to_work_with();
    let Some(member) = work.members.get(name).cloned() else { return false };
    let learned = async {
        let run = prepare(fleet, &member, operation, &operation.verb(), work.sink)?;
        let _busy = member.busy(&run).await?;
        let _place = member.place(&run).await?;
        learn(operation, &run).await
    };
    match learned.await {
        Ok(_) => {
            operation.update_database(name, DatabaseRecord::note_taken_back);
            true
        }
        Err(failure) => {
            operation.update_database(name, |database| database.failure = Some(failure));
            false
        }
    }
}

/// Whether a verb takes back what the operation did: it is another one than was asked for.
fn is_undo(operation: &Operation, verb: &Verb) -> bool {
    *verb != operation.verb()
}

/// What is left to be done of the verb; `None` where that is nothing.
fn rest_of(operation: &Operation, name: &str, verb: &Verb) -> Option<Verb> {
    // It says itself what it takes back.
    if is_undo(operation, verb) {
        return Some(verb.clone());
    }
    operation.look(|record| record.databases.get(name)?.rest_of(verb))
}

/// The report on a database on which everything was done by an attempt before.
fn nothing_left(run: &Run, verb: &Verb) -> DatabaseReport {
    let is_repair = matches!(verb, Verb::Repair(_));
    let result = Ok(if is_repair { DatabaseOutcome::Succeeded } else { DatabaseOutcome::UpToDate });
    let report = DatabaseReport { result, ..refused(&run.database.name, internal()) };
    tell(&*run.events, report)
}

fn prepare(
    fleet: &Arc<Fleet>,
    member: &Arc<Member>,
    operation: &Operation,
    verb: &Verb,
    events: Arc<dyn EventSink>,
) -> Result<Run, Failure> {
    let work: Work = operation.to_work_with();
    let catalog = work.catalog(member).cloned().unwrap_or_else(|| Err(internal()))?;
    let basis = held_to(operation, member.name(), verb);
    let attempt = operation.look(|record| record.attempt);
    let run = fleet.run(member, catalog, work.author);
    // A second attempt of the same operation is meant, and so is taking back what it did.
    let before = if attempt == 1 && !is_undo(operation, verb) { run.before } else { Before::Nowhere };
    Ok(Run { events, stop: work.stop, before, basis, takes_over: work.takes_over, ..run })
}

/// What is to be found on a database for a verb to be run there.
fn held_to(operation: &Operation, name: &str, verb: &Verb) -> Option<Basis> {
    // What was there before the operation says nothing of what it did.
    if is_undo(operation, verb) {
        return None;
    }
    operation.look(|record| record.databases.get(name)?.held_to())
}

fn gone() -> Failure {
    Failure::new(Code::TargetGone, "The database is no longer one of the fleet's")
}

fn internal() -> Failure {
    Failure::new(Code::Internal, "The work on the database ended unexpectedly")
}

fn tell(sink: &dyn EventSink, report: DatabaseReport) -> DatabaseReport {
    sink.emit(&report.database, EventKind::DatabaseFinished(Box::new(report.clone())));
    report
}

fn mean(report: DatabaseReport, outcome: DatabaseOutcome) -> DatabaseReport {
    DatabaseReport { result: report.result.map(|_| outcome), ..report }
}

/// The report of who has gone on with what was begun before: a database on which all was done by then has
/// succeeded.
fn go_on(report: DatabaseReport, before: &[(Version, StepAction)]) -> DatabaseReport {
    let has_succeeded = !before.is_empty() && matches!(report.result, Ok(DatabaseOutcome::UpToDate));
    let report = DatabaseReport { done_before: before.to_vec(), ..report };
    if has_succeeded { mean(report, DatabaseOutcome::Succeeded) } else { report }
}

/// A sink in which a report has another meaning.
struct Meaning<F> {
    sink: Arc<dyn EventSink>,
    mean: F,
}

impl<F: Fn(DatabaseReport) -> DatabaseReport + Send + Sync> EventSink for Meaning<F> {
    fn emit(&self, database: &str, kind: EventKind) {
        let kind = match kind {
            EventKind::DatabaseFinished(report) => {
                EventKind::DatabaseFinished(Box::new((self.mean)(*report)))
            }
            kind => kind,
        };
        self.sink.emit(database, kind);
    }
}
