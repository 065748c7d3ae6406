//! Follows an operation to its end: progress while it runs, then its report and the exit code.

use std::{future::Future, pin::pin, time::Instant};

use futures_util::{Stream, StreamExt as _};
use jiff::Timestamp;
use uuid::Uuid;

use crate::{
    cli::{
        Exit, Refusal, explain,
        progress::Progress,
        render,
        report::{Report, Verb},
        session::Session,
    },
    rpc::{
        client::{Client, ClientError},
        proto,
    },
};

/// Starts an operation by awaiting `events` and follows it. Ctrl-C ends the client only: the
/// operation belongs to the daemon.
pub async fn follow<E>(
    session: &mut Session,
    client: &Client,
    verb: Verb,
    dry_run: bool,
    events: impl Future<Output = Result<E, ClientError>>,
) -> anyhow::Result<Exit>
where
    E: Stream<Item = Result<Option<proto::Event>, ClientError>>,
{
    let started = Instant::now();
    let mut report = Report::new(verb, dry_run);
    let mut progress = Progress::new(&session.console);
    let outcome = {
        let following = pin!(drain(session, client, &mut report, &mut progress, events));
        tokio::select! {
            outcome = following => outcome,
            () = interrupt() => Err(interrupted()),
        }
    };
    progress.clear();
    let request_id = session.request_id;
    let failed = outcome.err().map(|error| {
        let (failure, exit) = explain(&error);
        (if dry_run { failure } else { unheard(failure, &error, request_id) }, exit)
    });
    let console = &mut session.console;
    if console.is_json() {
        let error = failed.as_ref().map(|(failure, _)| failure);
        console.json(&render::json::Operation::new(&report, request_id, error))?;
    } else if failed.is_none() {
        console.data(&render::event::summary(&report, started.elapsed()))?;
    }
    Ok(match failed {
        Some((failure, exit)) => {
            console.note(&render::failure::block(None, &failure));
            exit
        }
        None if report.succeeded => Exit::Done,
        None => Exit::Failed,
    })
}

async fn drain<E>(
    session: &mut Session,
    client: &Client,
    report: &mut Report,
    progress: &mut Progress,
    events: impl Future<Output = Result<E, ClientError>>,
) -> anyhow::Result<()>
where
    E: Stream<Item = Result<Option<proto::Event>, ClientError>>,
{
    let sent = Timestamp::now();
    let mut events = pin!(events.await?);
    while let Some(event) = events.next().await {
        let Some(event) = event? else { continue };
        // An id that was made a moment ago has no earlier run, whatever the daemon's clock says.
        let earlier = session.global.request_id.and_then(|_| render::event::told_again(&event, sent));
        if let Some(note) = earlier {
            report.earlier = event.time;
            session.console.note(&note);
        }
        progress.show(&event, report, &mut session.console)?;
        report.take(&event);
        if report.is_finished {
            return Ok(());
        }
    }
    Err(client.ended_early().into())
}

/// A failure of a request that changes something, with what to do where its end was not heard.
pub fn unheard(mut failure: proto::Failure, error: &anyhow::Error, request_id: Uuid) -> proto::Failure {
    let is_interrupted = error.downcast_ref().is_some_and(|it: &Refusal| it.exit == Exit::Interrupted);
    let is_lost = matches!(error.downcast_ref(), Some(ClientError::Lost { .. }));
    if is_lost {
        "what was begun goes on while the daemon lives: see nexusctl status".clone_into(&mut failure.hint);
    }
    if is_lost || is_interrupted || matches!(error.downcast_ref(), Some(ClientError::Unreachable { .. })) {
        let told = format!("the same command with --request-id {request_id} tells how it ended");
        failure.details.push(told);
    }
    failure
}

/// Waits for Ctrl-C; for ever where the signal cannot be had, so that its default ends the process.
async fn interrupt() {
    if tokio::signal::ctrl_c().await.is_err() {
        std::future::pending::<()>().await;
    }
}

fn interrupted() -> anyhow::Error {
    Refusal::new("Interrupted: nexusd goes on with the work", "nexusctl status shows how far it is")
        .exit(Exit::Interrupted)
        .into()
}
