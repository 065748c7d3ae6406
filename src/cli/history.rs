//! `nexusctl history`: what the journal keeps.

use crate::{
    cli::{Exit, render, session::Session},
    rpc::proto,
};

/// The arguments of `history`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Only this version
    #[arg(long, value_name = "VERSION", value_parser = clap::builder::NonEmptyStringValueParser::new())]
    version: Option<String>,
    /// At most this many attempts per database
    #[arg(long, value_name = "N", default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..))]
    limit: u32,
}

/// Shows the history.
pub async fn run(args: &Args, session: &mut Session) -> anyhow::Result<Exit> {
    let client = session.connect().await?;
    let request = proto::HistoryRequest {
        selection: session.selection(),
        version: args.version.clone().unwrap_or_default(),
        limit: args.limit,
    };
    let history = client.answer(client.migrations().history(request).await)?;
    let console = &mut session.console;
    if console.is_json() {
        console.json(&render::json::History::from(&history))?;
    } else {
        let width = console.width();
        console.data(&render::history::text(&history.attempts, width))?;
    }
    for result in &history.failures {
        if let Some(failure) = &result.failure {
            console.note(&render::failure::block(Some(&result.database), failure));
        }
    }
    Ok(if history.failures.is_empty() { Exit::Done } else { Exit::Failed })
}
