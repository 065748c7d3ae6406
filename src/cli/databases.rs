//! `nexusctl databases`: what the daemon knows and saw last, without connecting to any of it.

use jiff::Timestamp;

use crate::{
    cli::{Exit, render, session::Session},
    rpc::proto,
};

/// Lists the databases.
pub async fn run(session: &mut Session) -> anyhow::Result<Exit> {
    let client = session.connect().await?;
    let request = proto::ListDatabasesRequest { selection: session.selection() };
    let databases = client.answer(client.fleet().list_databases(request).await)?.databases;
    let console = &mut session.console;
    if console.is_json() {
        console.json(&render::json::Databases::from(databases))?;
    } else {
        let width = console.width();
        console.data(&render::databases::text(&databases, Timestamp::now(), width))?;
    }
    Ok(Exit::Done)
}
