//! `nexusctl operation approve` and `reject`: a second person's word.

use crate::{
    cli::{
        Exit, Refusal, confirm,
        operation::{show, steer},
        render::{self, text::count},
        session::{Session, requested_by},
        strategy,
    },
    rpc::{client::Client, proto},
};

/// The arguments of `operation approve`.
#[derive(Debug, clap::Args)]
pub struct Approve {
    #[command(flatten)]
    decided: Decided,
    /// The digest of the plan that is approved, as nexusctl plan and operation show print it: another one is
    /// refused, and nothing is asked
    #[arg(long, value_name = "DIGEST", value_parser = strategy::digest)]
    plan: Option<String>,
}

/// The arguments of `operation reject`.
#[derive(Debug, clap::Args)]
pub struct Decided {
    #[command(flatten)]
    named: steer::Named,
    /// Why; it is kept with the operation
    #[arg(long, value_name = "TEXT", default_value = "", hide_default_value = true)]
    reason: String,
}

/// Approves what is shown, or what the digest says.
pub(super) async fn approve(args: &Approve, client: &Client, session: &mut Session) -> anyhow::Result<Exit> {
    let plan_digest = match &args.plan {
        Some(digest) => digest.clone(),
        None => looked_at(&args.decided.named.id, client, session).await?,
    };
    let request = proto::ApproveOperationRequest {
        id: args.decided.named.id.clone(),
        requested_by: requested_by(),
        reason: args.decided.reason.clone(),
        plan_digest,
    };
    let answer = client.answer(client.operations().approve_operation(request).await)?;
    steer::shown(&answer.operation.unwrap_or_default(), session)
}

/// Shows what waits, and asks; returns the digest of what was shown. Where nothing waits the daemon says so.
async fn looked_at(id: &str, client: &Client, session: &mut Session) -> anyhow::Result<String> {
    let operation = show::get(client, id).await?;
    let digest = operation.approval.as_ref().map(|it| it.plan_digest.clone()).unwrap_or_default();
    if operation.state() != proto::OperationState::AwaitingApproval {
        return Ok(digest);
    }
    let has_to_ask = confirm::is_wanted(session);
    let console = &mut session.console;
    let width = console.width();
    console.note(&render::operation::text(&operation, false, width));
    if has_to_ask {
        let databases = count(operation.databases.len(), "database");
        let verb = render::text::clean(&operation.verb);
        confirm::ask(console, &format!("\nApprove this {verb} of {databases}?")).await?;
    } else if !session.global.yes {
        let message = "Nobody can be asked whether this is approved: there is no terminal";
        let hint = format!("--plan {digest} approves this plan, --yes whatever waits");
        return Err(Refusal::new(message, hint).into());
    }
    Ok(digest)
}

/// Rejects.
pub(super) async fn reject(args: &Decided, client: &Client, session: &mut Session) -> anyhow::Result<Exit> {
    let request = proto::RejectOperationRequest {
        id: args.named.id.clone(),
        requested_by: requested_by(),
        reason: args.reason.clone(),
    };
    let answer = client.answer(client.operations().reject_operation(request).await)?;
    steer::shown(&answer.operation.unwrap_or_default(), session)
}
