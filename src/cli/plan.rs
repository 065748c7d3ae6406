//! `nexusctl plan`: what apply, rollback or recover would do now.

use clap::Subcommand;

use crate::{
    cli::{Exit, apply, recover, render, rollback, session::Session},
    rpc::{
        client::{Client, ClientError},
        proto::{self, plan_request::Request},
    },
};

/// The arguments of `plan`; without a verb it is the plan of an apply.
#[derive(Debug, clap::Args)]
#[command(args_conflicts_with_subcommands = true)]
pub struct Args {
    #[command(subcommand)]
    verb: Option<Planned>,
    #[command(flatten)]
    apply: apply::Targets,
}

#[derive(Debug, Subcommand)]
enum Planned {
    /// Show what apply would do now
    #[command(visible_alias = "up")]
    Apply(apply::Targets),
    /// Show what rollback would do now
    #[command(visible_alias = "down")]
    Rollback(rollback::Targets),
    /// Show what recover would do now
    Recover(recover::Targets),
}

/// Shows the plans; fails if one could not be made.
pub async fn run(args: &Args, session: &mut Session) -> anyhow::Result<Exit> {
    let request = match &args.verb {
        None => Request::Apply(args.apply.request(session, true)),
        Some(Planned::Apply(targets)) => Request::Apply(targets.request(session, true)),
        Some(Planned::Rollback(targets)) => Request::Rollback(targets.request(session, true)),
        Some(Planned::Recover(targets)) => Request::Recover(targets.request(session, true)),
    };
    let client = session.connect().await?;
    let plans = ask(&client, request).await?;
    if session.console.is_json() {
        session.console.json(&render::json::Plans::from(plans.as_slice()))?;
    }
    let width = session.console.width();
    for plan in &plans {
        if let Some(failure) = &plan.failure {
            session.console.note(&render::failure::block(Some(&plan.database), failure));
        }
        if !session.console.is_json() {
            session.console.data(&render::plan::text(plan, width))?;
        }
        for notice in &plan.notices {
            session.console.note(&render::event::warning(&plan.database, "", notice));
        }
    }
    Ok(if plans.iter().any(|plan| plan.failure.is_some()) { Exit::Failed } else { Exit::Done })
}

/// Asks the daemon for plans. A plan is no run: the session's request id stays with the run that may follow.
pub async fn ask(client: &Client, mut request: Request) -> Result<Vec<proto::DatabaseResult>, ClientError> {
    match &mut request {
        Request::Apply(request) => request.context = None,
        Request::Rollback(request) => request.context = None,
        Request::Recover(request) => request.context = None,
    }
    let request = proto::PlanRequest { request: Some(request) };
    Ok(client.answer(client.migrations().plan(request).await)?.databases)
}
