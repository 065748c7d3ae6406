//! `nexusctl operation pause`, `resume`, `cancel` and `retry`.

use crate::{
    cli::{
        Exit,
        operation::{Attention, watch},
        render,
        session::{Session, requested_by},
    },
    rpc::{client::Client, proto},
};

/// Names an operation.
#[derive(Debug, clap::Args)]
pub struct Named {
    /// Its id, or the beginning of it where that is enough
    #[arg(value_name = "ID")]
    pub(super) id: String,
}

/// The arguments of `operation resume` and `operation retry`.
#[derive(Debug, clap::Args)]
pub struct GoOn {
    #[command(flatten)]
    named: Named,
    /// Go on with the migrations as they are now, though they have changed since the operation began
    #[arg(long)]
    accept_new_catalog: bool,
    /// Do not wait for its end
    #[arg(long)]
    detach: bool,
}

/// Pauses.
pub(super) async fn pause(named: &Named, client: &Client, session: &mut Session) -> anyhow::Result<Exit> {
    let request = proto::PauseOperationRequest { id: named.id.clone(), requested_by: requested_by() };
    let answer = client.answer(client.operations().pause_operation(request).await)?;
    shown(&answer.operation.unwrap_or_default(), session)
}

/// Cancels.
pub(super) async fn cancel(named: &Named, client: &Client, session: &mut Session) -> anyhow::Result<Exit> {
    let request = proto::CancelOperationRequest { id: named.id.clone(), requested_by: requested_by() };
    let answer = client.answer(client.operations().cancel_operation(request).await)?;
    shown(&answer.operation.unwrap_or_default(), session)
}

/// Resumes, and follows it to its end.
pub(super) async fn resume(args: &GoOn, client: &Client, session: &mut Session) -> anyhow::Result<Exit> {
    let request = proto::ResumeOperationRequest {
        id: args.named.id.clone(),
        requested_by: requested_by(),
        accept_new_catalog: args.accept_new_catalog,
    };
    let answer = client.answer(client.operations().resume_operation(request).await)?;
    followed(&answer.operation.unwrap_or_default(), args.detach, client, session).await
}

/// Tries again, and follows it to its end.
pub(super) async fn retry(args: &GoOn, client: &Client, session: &mut Session) -> anyhow::Result<Exit> {
    let request = proto::RetryOperationRequest {
        id: args.named.id.clone(),
        requested_by: requested_by(),
        accept_new_catalog: args.accept_new_catalog,
    };
    let answer = client.answer(client.operations().retry_operation(request).await)?;
    followed(&answer.operation.unwrap_or_default(), args.detach, client, session).await
}

async fn followed(
    operation: &proto::Operation,
    detach: bool,
    client: &Client,
    session: &mut Session,
) -> anyhow::Result<Exit> {
    if detach {
        return shown(operation, session);
    }
    // What happened before is known to whoever goes on with it.
    let attention = Attention::From(operation.changed_at.unwrap_or_default());
    watch::attach(operation, attention, client, session).await
}

/// Shows an operation in a line.
pub(super) fn shown(operation: &proto::Operation, session: &mut Session) -> anyhow::Result<Exit> {
    let console = &mut session.console;
    if console.is_json() {
        console.json(&render::json::OneOperation::from(operation))?;
    } else {
        console.data(&render::operation::line(operation))?;
    }
    Ok(Exit::Done)
}
