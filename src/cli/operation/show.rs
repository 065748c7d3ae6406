//! `nexusctl operation show`.

use crate::{
    cli::{Exit, render, session::Session},
    rpc::{
        client::{Client, ClientError},
        proto,
    },
};

/// The arguments of `operation show`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Its id, or the beginning of it where that is enough
    #[arg(value_name = "ID")]
    id: String,
    /// List every database, also where there are many of which there is nothing to say
    #[arg(long)]
    every: bool,
}

/// Shows.
pub(super) async fn run(args: &Args, client: &Client, session: &mut Session) -> anyhow::Result<Exit> {
    let operation = get(client, &args.id).await?;
    let console = &mut session.console;
    if console.is_json() {
        console.json(&render::json::OneOperation::from(&operation))?;
    } else {
        let width = console.width();
        console.data(&render::operation::text(&operation, args.every, width))?;
    }
    Ok(Exit::Done)
}

/// Asks for an operation.
pub(super) async fn get(client: &Client, id: &str) -> Result<proto::Operation, ClientError> {
    let request = proto::GetOperationRequest { id: id.to_owned() };
    let answer = client.answer(client.operations().get_operation(request).await)?;
    Ok(answer.operation.unwrap_or_default())
}
