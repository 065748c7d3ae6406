//! Follows an operation to its end: progress while it runs, then its report and the exit code.

use std::{future::Future, pin::pin, time::Instant};

use futures_util::{Stream, StreamExt as _};
use jiff::Timestamp;
use uuid::Uuid;

use crate::{
    cli::{
        Exit, Refusal, explain,
        operation::show,
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

/// How an operation is followed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Attention {
    /// Nothing is really done.
    DryRun,
    /// To its end.
    ToTheEnd,
    /// To its end; what happened before this moment is known.
    From(prost_types::Timestamp),
    /// Until it has begun.
    Detached,
}

/// Starts an operation by awaiting `events` and follows it. Ctrl-C ends the client only: the
/// operation belongs to the daemon.
pub async fn follow<E>(
    session: &mut Session,
    client: &Client,
    verb: Verb,
    attention: Attention,
    events: impl Future<Output = Result<E, ClientError>>,
) -> anyhow::Result<Exit>
where
    E: Stream<Item = Result<Option<proto::Event>, ClientError>>,
{
    let started = Instant::now();
    let dry_run = attention == Attention::DryRun;
    let mut report = Report::new(verb, dry_run);
    let mut progress = Progress::new(&session.console);
    let outcome = {
        let following = pin!(drain(session, client, &mut report, &mut progress, attention, events));
        tokio::select! {
            outcome = following => outcome,
            () = interrupt() => Err(interrupted()),
        }
    };
    progress.clear();
    if attention == Attention::Detached && outcome.is_ok() && !report.is_finished {
        return let_go(report, client, session).await;
    }
    let request_id = session.request_id;
    let failed = outcome.err().map(|error| {
        let (failure, exit) = explain(&error);
        let failure = if dry_run { failure } else { unheard(failure, &error, request_id) };
        (attached(failure, &error, &report), exit)
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
        None => {
            if let Some(note) = render::operation::end(&report) {
                console.note(&note);
            }
            Exit::Failed
        }
    })
}

/// The operation has begun, or waits for its approval, and that is all that somebody wants to know.
async fn let_go(mut report: Report, client: &Client, session: &mut Session) -> anyhow::Result<Exit> {
    let id = report.operation_id.clone();
    if session.console.is_json() && report.targets.is_none() {
        let databases = show::get(client, &id).await?.databases;
        report.targets = Some(databases.into_iter().map(|database| database.name).collect());
    }
    let console = &mut session.console;
    if console.is_json() {
        console.json(&render::json::Begun::from(&report))?;
    } else {
        console.data(&format!("{id}\n"))?;
    }
    if !console.is_json() && !report.awaits_approval() {
        console.note(&format!("the operation has begun: nexusctl operation watch {id} follows it\n"));
    }
    Ok(Exit::Done)
}

async fn drain<E>(
    session: &mut Session,
    client: &Client,
    report: &mut Report,
    progress: &mut Progress,
    attention: Attention,
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
        if !is_known(&event, attention) {
            progress.show(&event, report, &mut session.console)?;
        }
        report.take(&event);
        let has_begun = report.targets.is_some() || report.awaits_approval();
        if report.is_finished || (attention == Attention::Detached && has_begun) {
            return Ok(());
        }
    }
    Err(client.ended_early().into())
}

/// Whether an event happened before somebody began to follow.
fn is_known(event: &proto::Event, attention: Attention) -> bool {
    let Attention::From(since) = attention else { return false };
    event.time.is_some_and(|time| (time.seconds, time.nanos) < (since.seconds, since.nanos))
}

/// A failure to hear the end of an operation that has begun, with how to follow it again.
fn attached(mut failure: proto::Failure, error: &anyhow::Error, report: &Report) -> proto::Failure {
    let is_interrupted = error.downcast_ref().is_some_and(|it: &Refusal| it.exit == Exit::Interrupted);
    let is_lost = matches!(error.downcast_ref(), Some(ClientError::Lost { .. }));
    let is_there = report.targets.is_some() || report.awaits_approval();
    if is_there && !report.dry_run && (is_interrupted || is_lost) {
        failure.hint = format!("nexusctl operation watch {} follows it again", report.operation_id);
    }
    failure
}

/// A failure of a request that changes something, with what to do where its end was not heard.
pub fn unheard(mut failure: proto::Failure, error: &anyhow::Error, request_id: Uuid) -> proto::Failure {
    let is_interrupted = error.downcast_ref().is_some_and(|it: &Refusal| it.exit == Exit::Interrupted);
    let is_lost = matches!(error.downcast_ref(), Some(ClientError::Lost { .. }));
    if is_lost {
        "what was begun goes on while the daemon lives: see nexusctl status".clone_into(&mut failure.hint);
    }
    if is_lost || is_interrupted || matches!(error.downcast_ref(), Some(ClientError::Unreachable { .. })) {
        let told = format!(
            "the same command with --request-id {request_id} tells how it ended, where nexusd has not been \
             started anew since: then nexusctl status and history do"
        );
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
