//! `nexusctl version`: this client's, and the daemon's where one answers.

use crate::{
    cli::{Exit, render, session::Session},
    rpc::{
        client::{Address, ClientError, Credentials},
        proto,
    },
};

/// Shows the versions. That no daemon answers is told, and is no failure.
pub async fn run(session: &mut Session) -> anyhow::Result<Exit> {
    let (address, credentials) = session.target()?;
    let server = server(session, &address, &credentials).await;
    let address = address.to_string();
    let console = &mut session.console;
    if console.is_json() {
        console.json(&render::json::Versions::new(address, server.as_ref()))?;
        return Ok(Exit::Done);
    }
    console.data(&format!("nexusctl {}\n", env!("CARGO_PKG_VERSION")))?;
    match server {
        Ok(server) => {
            let uptime = std::time::Duration::from_secs(server.uptime_seconds);
            console.data(&format!(
                "nexusd   {} at {address}, instance {}, up {}\n",
                server.version,
                server.instance,
                humantime::format_duration(uptime)
            ))?;
            if server.store() == proto::Store::ControlDatabase {
                console.data(&leader(&server))?;
            }
        }
        Err(error) => console.note(&format!("nexusd   {}\n", render::text::sentence(&error.to_string()))),
    }
    Ok(Exit::Done)
}

/// Which of several daemons leads.
fn leader(server: &proto::GetVersionResponse) -> String {
    match (server.leader.as_str(), server.control_failure.as_str()) {
        ("", "") => "leader   none\n".to_owned(),
        ("", why) => format!("leader   none: {}\n", render::text::clean(why)),
        (leader, _) if leader == server.instance => "leader   this nexusd\n".to_owned(),
        (leader, _) => format!("leader   instance {}\n", render::text::clean(leader)),
    }
}

async fn server(
    session: &Session,
    address: &Address,
    credentials: &Credentials,
) -> Result<proto::GetVersionResponse, ClientError> {
    let client = session.connect_to(address, credentials).await?;
    client.answer(client.fleet().get_version(proto::GetVersionRequest {}).await)
}
