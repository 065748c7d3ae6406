//! `nexusctl reload`: has the daemon read its inventory and who is let in anew, and shows what has changed.

use crate::{
    cli::{Exit, render, session::Session},
    rpc::proto,
};

/// Reads the inventory anew.
pub async fn run(session: &mut Session) -> anyhow::Result<Exit> {
    let client = session.connect().await?;
    let answer = client.answer(client.fleet().reload_inventory(proto::ReloadInventoryRequest {}).await)?;
    let has_failed = !answer.failures.is_empty();
    let console = &mut session.console;
    if console.is_json() {
        console.json(&render::json::Reloaded::from(answer))?;
    } else {
        console.data(&render::databases::reloaded(&answer))?;
        for proto::DiscoveryFailure { discovery, failure } in &answer.failures {
            console.refused(Some(discovery), &failure.clone().unwrap_or_default());
        }
    }
    Ok(if has_failed { Exit::Failed } else { Exit::Done })
}
