//! `nexusctl recover`: settles dirty rows; on a terminal it shows first what that will be.

use futures_util::{Stream, StreamExt as _};

use crate::{
    cli::{
        Exit, confirm, operation,
        report::{Report, Verb},
        session::Session,
    },
    rpc::{
        client::{Client, ClientError},
        proto,
    },
};

/// The arguments of `recover`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Show what would be done, and do nothing
    #[arg(long)]
    dry_run: bool,
    /// Go on with a partly applied non-transactional migration instead of undoing it
    #[arg(long)]
    resume: bool,
    #[command(flatten)]
    asked: operation::Asked,
}

/// Recovers.
pub async fn run(args: &Args, session: &mut Session) -> anyhow::Result<Exit> {
    args.asked.tell(session);
    let client = session.connect().await?;
    let request = |session: &Session, dry_run| proto::RecoverRequest {
        selection: session.selection(),
        context: session.context(),
        dry_run,
        resume: args.resume,
    };
    if !args.dry_run && confirm::is_wanted(session) {
        // A question of its own, so with an id of its own: the session's belongs to the answer.
        let mut trial = request(session, true);
        trial.context = trial
            .context
            .map(|context| proto::RequestContext { request_id: uuid::Uuid::now_v7().to_string(), ..context });
        let mut report = Report::new(Verb::Recover, true);
        let mut events = std::pin::pin!(events(&client, trial).await?);
        while let Some(event) = events.next().await {
            if let Some(event) = event? {
                report.take(&event);
            }
        }
        confirm::plans(session, &report.databases).await?;
    }
    let request = request(session, args.dry_run);
    let attention = args.asked.attention(args.dry_run);
    operation::follow(session, &client, Verb::Recover, attention, events(&client, request)).await
}

async fn events(
    client: &Client,
    request: proto::RecoverRequest,
) -> Result<impl Stream<Item = Result<Option<proto::Event>, ClientError>>, ClientError> {
    let stream = client.answer(client.migrations().recover(request).await)?;
    Ok(client.events(stream, |response| response.event))
}
