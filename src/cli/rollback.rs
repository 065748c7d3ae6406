//! `nexusctl rollback`: shows the plan and asks, on a terminal, before it undoes anything.

use crate::{
    cli::{Exit, confirm, operation, plan, report::Verb, session::Session, strategy},
    rpc::proto,
};
use clap::ValueEnum;

/// Which down script is used.
#[derive(Debug, Clone, Copy, ValueEnum)]
enum From {
    /// The file only
    File,
    /// Only the text that the journal kept when the migration was applied
    Journal,
}

/// Which migrations a rollback is about.
#[derive(Debug, clap::Args)]
pub struct Targets {
    /// How many migrations, newest first [default: 1]
    // Signed, so that 0 and negative numbers reach the daemon, which says how many are applied.
    #[arg(long, value_name = "N", allow_negative_numbers = true, conflicts_with = "to")]
    steps: Option<i64>,
    /// Roll back everything newer than this version or number; 0 rolls back all
    #[arg(long, value_name = "VERSION", value_parser = clap::builder::NonEmptyStringValueParser::new())]
    to: Option<String>,
    /// Which down script is used [default: the file, or the journal's where the file is gone or differs]
    #[arg(long, value_enum, value_name = "SOURCE")]
    from: Option<From>,
    /// Refuse dirty rows instead of settling them
    #[arg(long)]
    no_auto_recover: bool,
    #[command(flatten)]
    strategy: strategy::Flags,
}

/// The arguments of `rollback`.
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
    pub fn request(&self, session: &Session, dry_run: bool) -> proto::RollbackRequest {
        let source = match self.from {
            None => proto::DownSource::Unspecified,
            Some(From::File) => proto::DownSource::File,
            Some(From::Journal) => proto::DownSource::Journal,
        };
        proto::RollbackRequest {
            selection: session.selection(),
            context: session.context(),
            steps: self.steps,
            to: self.to.clone().unwrap_or_default(),
            dry_run,
            no_auto_recover: self.no_auto_recover,
            down_source: source.into(),
            strategy: self.strategy.given(),
            strategy_name: self.strategy.name(),
            plan_digest: String::new(),
        }
    }
}

/// Rolls back.
pub async fn run(args: &Args, session: &mut Session) -> anyhow::Result<Exit> {
    args.asked.tell(session);
    let client = session.connect().await?;
    if !args.dry_run && confirm::is_wanted(session) {
        let request = proto::plan_request::Request::Rollback(args.targets.request(session, true));
        let plan = plan::ask(&client, request).await?;
        confirm::plans(session, plan).await?;
    }
    let mut request = args.targets.request(session, args.dry_run);
    request.plan_digest = args.plan.digest();
    let events = async {
        let stream = client.answer(client.migrations().rollback(request).await)?;
        Ok(client.events(stream, |response| response.event))
    };
    let attention = args.asked.attention(args.dry_run);
    operation::follow(session, &client, Verb::Rollback, attention, events).await
}
