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
    let plan = ask(&client, request).await?;
    if session.console.is_json() {
        session.console.json(&render::json::Plans::from(&plan))?;
    }
    for database in &plan.databases {
        if let Some(failure) = &database.failure {
            session.console.note(&render::failure::block(Some(&database.database), failure));
        }
    }
    if !session.console.is_json() {
        let width = session.console.width();
        session.console.data(&render::plan::fleet(&plan, width))?;
    }
    for database in &plan.databases {
        for notice in &database.notices {
            session.console.note(&render::event::warning(&database.database, "", notice));
        }
    }
    let is_whole = plan.databases.iter().all(|database| database.failure.is_none());
    Ok(if is_whole { Exit::Done } else { Exit::Failed })
}

/// Asks the daemon for plans. A plan is no run: the session's request id stays with the run that may follow.
pub async fn ask(client: &Client, mut request: Request) -> Result<proto::PlanResponse, ClientError> {
    match &mut request {
        Request::Apply(request) => request.context = None,
        Request::Rollback(request) => request.context = None,
        Request::Recover(request) => request.context = None,
    }
    let request = proto::PlanRequest { request: Some(request) };
    client.answer(client.migrations().plan(request).await)
}
