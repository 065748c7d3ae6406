//! `nexusctl health`: whether the daemon takes requests, for probes and scripts that wait for it.

use crate::cli::{Exit, Refusal, render, session::Session};

/// Asks the daemon. One that does not serve, as it starts or stops, is a failure.
pub async fn run(session: &mut Session) -> anyhow::Result<Exit> {
    let client = session.connect().await?;
    let address = client.address().to_string();
    if !client.is_serving().await? {
        let message = format!("nexusd at {address} takes no requests: it is starting or stopping");
        return Err(Refusal::new(message, "ask again in a moment").into());
    }
    let console = &mut session.console;
    if console.is_json() {
        console.json(&render::json::Health { address, serving: true })?;
    } else {
        console.data(&format!("nexusd at {address} takes requests\n"))?;
    }
    Ok(Exit::Done)
}
