//! One run on one database: lock, read, plan, inspect, then the steps.

use std::time::Instant;

use tokio_util::sync::CancellationToken;

use crate::{
    engine::{
        Before, Repair, Run, Verb,
        failure::of_session,
        repair,
        scripts::{self, Prepared},
        steps::Steps,
        witness::Used,
    },
    migration::{
        Basis, Catalog, Code, EventKind, Failure, Plan, Tracked,
        event::{DatabaseOutcome, DatabaseReport, StepDone},
        plan::{Extent, Policy, RollbackRequest, plan_apply, plan_recover, plan_rollback},
    },
    postgres::{
        journal,
        session::{Session, SessionError},
        tracking::{self, Kept, Shape},
    },
    runtime::faults,
};

/// Plans a verb against the rows.
fn decide(verb: &Verb, catalog: &Catalog, tracked: &Tracked, policy: Policy) -> Result<Plan, Failure> {
    match verb {
        Verb::Repair(_) => Ok(Plan { steps: Vec::new(), notices: Vec::new() }),
        Verb::Apply(request) => plan_apply(catalog, tracked, request, policy),
        Verb::Rollback(request) => plan_rollback(catalog, tracked, request, policy),
        Verb::Recover { resume } => plan_recover(catalog, tracked, policy, *resume),
    }
}

/// An apply needs the kept down scripts of dirty rows only; who put the rows in place is asked only
/// where what a single operation has done is taken back.
fn kept(verb: &Verb) -> Kept {
    match verb {
        Verb::Apply(_) | Verb::Recover { .. } => Kept::Dirty,
        Verb::Rollback(RollbackRequest { extent: Extent::Exactly { .. }, .. }) => Kept::AllWithAuthors,
        Verb::Rollback(_) | Verb::Repair(_) => Kept::All,
    }
}

/// Shows what [`run`] would do now, and what that was decided over where it would not be refused.
/// Takes no lock and changes nothing.
pub async fn plan(run: &Run, verb: &Verb) -> (DatabaseReport, Option<Basis>) {
    let started = Instant::now();
    let mut planned = None;
    let result = look(run, verb, &mut planned).await;
    let (result, basis) = match result {
        Ok(basis) => (Ok(DatabaseOutcome::Planned), Some(basis)),
        Err(failure) => (Err(failure), None),
    };
    (report(run, started, planned, Vec::new(), result), basis)
}

async fn look(run: &Run, verb: &Verb, planned: &mut Option<Plan>) -> Result<Basis, Failure> {
    let doing = "reading the applied migrations";
    let mut session = run.database.session(&run.author.operation.to_string()).await?;
    let (shape, _) = session.look().await.map_err(|error| of_session(error, doing))?;
    let tracked =
        tracking::read(&session, shape, kept(verb)).await.map_err(|error| of_session(error, doing))?;
    let plan = planned.insert(decide(verb, &run.catalog, &tracked, run.database.policy)?);
    let basis = match verb {
        Verb::Repair(repair) => repair::basis(run, repair, &tracked)?,
        _ => Basis::of(&run.catalog, &tracked, plan),
    };
    scripts::prepare(run, plan, &session, shape).await?;
    session.give_back();
    Ok(basis)
}

/// Does a verb on one database. What was done, durably, is in the report also when it failed.
pub async fn run(run: &Run, verb: &Verb) -> DatabaseReport {
    let started = Instant::now();
    let (mut planned, mut done) = (None, Vec::new());
    let result = match verb {
        Verb::Repair(wanted) => repaired(run, wanted).await,
        _ => attempt(run, verb, &mut planned, &mut done).await,
    };
    let report = report(run, started, planned, done, result);
    faults::reached(verb.name(), "done");
    run.emit(EventKind::DatabaseFinished(Box::new(report.clone())));
    report
}

fn report(
    run: &Run,
    started: Instant,
    plan: Option<Plan>,
    done: Vec<StepDone>,
    result: Result<DatabaseOutcome, Failure>,
) -> DatabaseReport {
    DatabaseReport {
        database: run.database.name.clone(),
        plan,
        done,
        done_before: Vec::new(),
        result: result.map_err(Box::new),
        duration_ms: u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX),
    }
}

async fn repaired(run: &Run, repair: &Repair) -> Result<DatabaseOutcome, Failure> {
    let message = repair::repair(run, repair).await?;
    let message = format!("{message}; reason: {}", repair.reason);
    run.emit(EventKind::Notice { version: None, message });
    Ok(DatabaseOutcome::Succeeded)
}

async fn attempt(
    run: &Run,
    verb: &Verb,
    planned: &mut Option<Plan>,
    done: &mut Vec<StepDone>,
) -> Result<DatabaseOutcome, Failure> {
    let (session, shape) = locked(run).await?;
    faults::reached(verb.name(), "locked");
    // From here to the first step nothing is written: the connection can be used again.
    let prepared = prepare(run, verb, &session, shape, planned).await;
    let (plan, prepared) = match (prepared, planned.as_ref()) {
        (Ok(prepared), Some(plan)) if !plan.steps.is_empty() => (plan, prepared),
        (prepared, _) => {
            let released = session.release().await;
            prepared?;
            released.map_err(|error| of_session(error, "giving the lock back"))?;
            return Ok(DatabaseOutcome::UpToDate);
        }
    };
    if let Err(failure) = run.witnessed(Used::of_plan(plan, &prepared)).await {
        // Nothing was written yet; what is wrong with the connection, whoever uses it next sees.
        drop(session.release().await);
        return Err(failure);
    }
    run.emit(EventKind::DatabaseStarted { steps: plan.steps.clone() });
    let doing = "making the tables schema_migrations and nexus_journal";
    tracking::create(&session, shape).await.map_err(|error| of_session(error, doing))?;
    faults::reached(verb.name(), "tables made");
    Steps::new(run, session, done).run(plan, prepared).await?;
    Ok(DatabaseOutcome::Succeeded)
}

/// A session that holds the lock. A warm connection may have died with its server: then a new one
/// is tried, once.
pub(super) async fn locked(run: &Run) -> Result<(Session, Shape), Failure> {
    let operation = run.author.operation.to_string();
    let mut session = run.database.session(&operation).await?;
    let shape = match lock(run, &mut session, &run.stop.drain).await {
        Err(failure) if failure.code == Code::ConnectionLost => {
            session = run.database.session(&operation).await?;
            lock(run, &mut session, &run.stop.drain).await?
        }
        locked => locked?,
    };
    Ok((session, shape))
}

/// Takes the lock and reads which tables exist.
pub(super) async fn lock(
    run: &Run,
    session: &mut Session,
    cancel: &CancellationToken,
) -> Result<Shape, Failure> {
    // One whose own lease has ended may not end the session of whoever has taken over from it.
    lock_from(run, session, cancel, || run.takes_over && !run.stop.is_draining()).await
}

/// Takes the lock, from a session of the same operation too where it `takes_over`.
pub(super) async fn lock_from(
    run: &Run,
    session: &mut Session,
    cancel: &CancellationToken,
    takes_over: impl Fn() -> bool,
) -> Result<Shape, Failure> {
    let started = tokio::time::Instant::now();
    let mut is_held = false;
    let waiting = |holder: &str| {
        is_held = true;
        run.emit(EventKind::LockWaiting { holder: holder.to_owned() });
    };
    let deadline = started + run.database.lock_wait;
    let locked = session.lock(deadline, cancel, takes_over, waiting).await;
    let shape = locked.map_err(|error| of_session(error, "taking the database's lock"))?.shape;
    if is_held {
        run.emit(EventKind::LockTaken { waited: started.elapsed() });
    }
    Ok(shape)
}

/// Refuses a request that was at work on the database before.
pub(super) async fn refuse_repeated(run: &Run, session: &Session, shape: Shape) -> Result<(), Failure> {
    if run.before == Before::Nowhere || !shape.journal {
        return Ok(());
    }
    let known = journal::knows(session, &run.author, run.before == Before::Anywhere).await;
    if known.map_err(|error| of_session(error, "looking the request up"))? {
        let message = "The request ID has already been at work on this database";
        return Err(Failure::new(Code::RepeatedRequest, message));
    }
    Ok(())
}

async fn prepare(
    run: &Run,
    verb: &Verb,
    session: &Session,
    shape: Shape,
    planned: &mut Option<Plan>,
) -> Result<Vec<Prepared>, Failure> {
    refuse_repeated(run, session, shape).await?;
    let read = tracking::read(session, shape, kept(verb)).await;
    let tracked = read.map_err(|error: SessionError| of_session(error, "reading the applied migrations"))?;
    let dirty: Vec<_> = tracked.dirty().map(|row| row.version.clone()).collect();
    if !dirty.is_empty() {
        run.emit(EventKind::FoundDirty { versions: dirty });
    }
    let plan = planned.insert(decide(verb, &run.catalog, &tracked, run.database.policy)?);
    if let Some(basis) = &run.basis {
        basis.hold(&Basis::of(&run.catalog, &tracked, plan))?;
    }
    if let Some(only) = &run.only
        && let Some(step) = plan.steps.iter().find(|step| !only.contains(&step.version))
    {
        let message = format!("Migration {} is not one of the plan that was approved", step.version);
        return Err(Failure::new(Code::PlanMoved, message).version(&step.version));
    }
    let prepared = scripts::prepare(run, plan, session, shape).await;
    for notice in &plan.notices {
        run.emit(EventKind::Notice { version: None, message: notice.clone() });
    }
    prepared
}
