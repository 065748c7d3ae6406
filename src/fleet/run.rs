//! Running one operation: every database in a task of its own, a bounded number at once, one
//! failing database never stopping the others.

use std::sync::Arc;

use futures_util::StreamExt as _;
use tokio::time::Instant;

use crate::{
    engine::{self, Verb},
    fleet::{Fleet, inventory::Member},
    migration::{Code, EventKind, EventSink as _, Failure, catalog::CatalogResult, event::DatabaseReport},
    postgres::executor::Author,
    source::Directory,
};

/// Does `work` for each member, at most `limit` at once, and keeps the order.
pub(super) async fn bounded<F, T>(
    limit: usize,
    members: Vec<Arc<Member>>,
    work: impl Fn(Arc<Member>) -> F,
) -> Vec<T>
where
    F: Future<Output = T>,
{
    futures_util::stream::iter(members.into_iter().map(work)).buffered(limit).collect().await
}

/// The report on a database that was not even begun.
pub(super) fn refused(member: &Member, failure: Failure) -> DatabaseReport {
    DatabaseReport {
        database: member.name().to_owned(),
        plan: None,
        done: Vec::new(),
        result: Err(Box::new(failure)),
        duration_ms: 0,
    }
}

/// Runs an operation to its end.
pub(super) async fn operation(fleet: Arc<Fleet>, author: Author, verb: Verb, members: Vec<Arc<Member>>) {
    let sink = fleet.sink(author.operation);
    let databases = members.iter().map(|member| member.name().to_owned()).collect();
    let (name, requested_by) = (verb.name(), author.requested_by.clone());
    sink.emit("", EventKind::OperationStarted { verb: name, databases, requested_by });
    // Each directory is read once, so that every database of the operation sees the same.
    let mut catalogs: Vec<(Arc<Directory>, CatalogResult)> = Vec::new();
    let find = |catalogs: &[(Arc<Directory>, CatalogResult)], member: &Member| {
        let of_member = catalogs.iter().find(|(directory, _)| Arc::ptr_eq(directory, &member.directory));
        of_member.map(|(_, catalog)| catalog.clone())
    };
    for member in &members {
        if find(&catalogs, member).is_none() {
            catalogs.push((member.directory.clone(), member.catalog().await));
        }
    }
    let limit = fleet.max_parallel;
    let reports = bounded(limit, members, |member| {
        let catalog = find(&catalogs, &member);
        database(fleet.clone(), author.clone(), verb.clone(), member, catalog)
    });
    let succeeded = reports.await.iter().all(|report| report.result.is_ok());
    sink.emit("", EventKind::OperationFinished { succeeded });
}

async fn database(
    fleet: Arc<Fleet>,
    author: Author,
    verb: Verb,
    member: Arc<Member>,
    catalog: Option<CatalogResult>,
) -> DatabaseReport {
    let sink = fleet.sink(author.operation);
    let internal = || Failure::new(Code::Internal, "The work on the database ended unexpectedly");
    let work = {
        let (fleet, member) = (fleet.clone(), member.clone());
        async move {
            let catalog = catalog.unwrap_or_else(|| Err(internal()))?;
            let run = fleet.run(&member, catalog, author);
            let _busy = member.busy(&run).await?;
            let _place = member.place(&run).await?;
            Ok(engine::run(&run, &verb).await)
        }
    };
    let ended: Result<Result<DatabaseReport, Failure>, _> = fleet.tasks.spawn("database", work).await;
    member.nudge(Instant::now());
    match ended {
        Ok(Ok(report)) => report,
        Ok(Err(failure)) => tell(&sink, refused(&member, failure)),
        Err(_) => tell(&sink, refused(&member, internal())),
    }
}

fn tell(sink: &super::Sink, report: DatabaseReport) -> DatabaseReport {
    sink.emit(&report.database, EventKind::DatabaseFinished(Box::new(report.clone())));
    report
}
