//! `nexusctl recover`: settles dirty rows; on a terminal it shows first what that will be.

use crate::{
    cli::{Exit, confirm, operation, plan, report::Verb, session::Session, strategy},
    rpc::proto,
};

/// What a recovery is asked to do.
#[derive(Debug, clap::Args)]
pub struct Targets {
    /// Go on with a partly applied non-transactional migration instead of undoing it
    #[arg(long)]
    resume: bool,
    #[command(flatten)]
    strategy: strategy::Flags,
}

/// The arguments of `recover`.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    targets: Targets,
    /// Show what would be done, and do nothing
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    plan: strategy::PlanFlag,
    #[command(flatten)]
    asked: operation::Asked,
}

impl Targets {
    /// The request.
    pub fn request(&self, session: &Session, dry_run: bool) -> proto::RecoverRequest {
        proto::RecoverRequest {
            selection: session.selection(),
            context: session.context(),
            dry_run,
            resume: self.resume,
            strategy: self.strategy.given(),
            strategy_name: self.strategy.name(),
            plan_digest: String::new(),
        }
    }
}

/// Recovers.
pub async fn run(args: &Args, session: &mut Session) -> anyhow::Result<Exit> {
    args.asked.tell(session);
    let client = session.connect().await?;
    if !args.dry_run && confirm::is_wanted(session) {
        let request = proto::plan_request::Request::Recover(args.targets.request(session, true));
        let plan = plan::ask(&client, request).await?;
        confirm::plans(session, plan).await?;
    }
    let mut request = args.targets.request(session, args.dry_run);
    request.plan_digest = args.plan.digest();
    let events = async {
        let stream = client.answer(client.migrations().recover(request).await)?;
        Ok(client.events(stream, |response| response.event))
    };
    let attention = args.asked.attention(args.dry_run);
    operation::follow(session, &client, Verb::Recover, attention, events).await
}
