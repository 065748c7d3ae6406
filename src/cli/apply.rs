//! `nexusctl apply`: one streaming call, and nothing before it.

use crate::{
    cli::{Exit, operation, report::Verb, session::Session, strategy},
    rpc::proto,
};

/// Which migrations an apply is about.
#[derive(Debug, clap::Args)]
pub struct Targets {
    /// Stop after this version or number
    #[arg(long, value_name = "VERSION", value_parser = clap::builder::NonEmptyStringValueParser::new())]
    to: Option<String>,
    /// At most this many migrations
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    limit: Option<u32>,
    /// Refuse dirty rows instead of recovering them
    #[arg(long)]
    no_auto_recover: bool,
    /// Go on with a partly applied non-transactional migration after its last finished statement
    #[arg(long)]
    resume: bool,
    #[command(flatten)]
    strategy: strategy::Flags,
}

/// The arguments of `apply`.
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
    pub fn request(&self, session: &Session, dry_run: bool) -> proto::ApplyRequest {
        proto::ApplyRequest {
            selection: session.selection(),
            context: session.context(),
            to: self.to.clone().unwrap_or_default(),
            limit: self.limit.unwrap_or(0),
            dry_run,
            no_auto_recover: self.no_auto_recover,
            resume: self.resume,
            strategy: self.strategy.given(),
            strategy_name: self.strategy.name(),
            plan_digest: String::new(),
        }
    }
}

/// Applies.
pub async fn run(args: &Args, session: &mut Session) -> anyhow::Result<Exit> {
    args.asked.tell(session);
    let mut request = args.targets.request(session, args.dry_run);
    request.plan_digest = args.plan.digest();
    let client = session.connect().await?;
    let events = async {
        let stream = client.answer(client.migrations().apply(request).await)?;
        Ok(client.events(stream, |response| response.event))
    };
    let attention = args.asked.attention(args.dry_run);
    operation::follow(session, &client, Verb::Apply, attention, events).await
}
