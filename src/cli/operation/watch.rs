//! `nexusctl operation watch`: what happened from the beginning, and then what happens.

use crate::{
    cli::{
        Exit,
        operation::{Attention, follow, show, verb},
        session::Session,
    },
    rpc::{client::Client, proto},
};

/// The arguments of `operation watch`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Its id, or the beginning of it where that is enough
    #[arg(value_name = "ID")]
    id: String,
}

/// Watches. The exit code is the operation's.
pub(super) async fn run(args: &Args, client: &Client, session: &mut Session) -> anyhow::Result<Exit> {
    let operation = show::get(client, &args.id).await?;
    attach(&operation, Attention::ToTheEnd, client, session).await
}

/// Follows an operation that is there.
pub(super) async fn attach(
    operation: &proto::Operation,
    attention: Attention,
    client: &Client,
    session: &mut Session,
) -> anyhow::Result<Exit> {
    // The operation was some request's: what is asked for again is asked for by its id.
    session.request_id = operation.id.parse()?;
    let request = proto::WatchOperationRequest { id: operation.id.clone() };
    let events = async {
        let stream = client.answer(client.operations().watch_operation(request).await)?;
        Ok(client.events(stream, |response| response.event))
    };
    follow(session, client, verb(operation), attention, events).await
}
