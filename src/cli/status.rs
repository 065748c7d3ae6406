//! `nexusctl status`: how databases stand; with `--check`, an exit code for scripts.

use crate::{
    cli::{
        Exit,
        render::{self, status::Finding},
        session::Session,
    },
    rpc::proto,
};

/// The arguments of `status`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Exit with 3 if anything is dirty, drifted, pending, missing, out of order or unreadable
    #[arg(long)]
    check: bool,
    /// Show every migration of a database, not only the newest clean ones
    #[arg(long)]
    full: bool,
}

/// Shows the status.
pub async fn run(args: &Args, session: &mut Session) -> anyhow::Result<Exit> {
    let client = session.connect().await?;
    let request = proto::StatusRequest { selection: session.selection() };
    let databases = client.answer(client.migrations().status(request).await)?.databases;
    let findings = render::status::findings(&databases);
    let console = &mut session.console;
    if console.is_json() {
        console.json(&render::json::Status::new(&databases, &findings))?;
    } else {
        let width = console.width();
        let view = render::status::View { full: args.full, pending: args.check, width };
        console.data(&render::status::text(&databases, &findings, view))?;
    }
    for database in &databases {
        for notice in render::status::notices(database) {
            console.note(&render::event::warning(&database.database, "", notice));
        }
        for failure in database.failure.iter().chain(&database.catalog_failure) {
            console.note(&render::failure::block(Some(&database.database), failure));
        }
    }
    let unreadable =
        databases.iter().any(|database| database.failure.is_some() || database.catalog_failure.is_some());
    Ok(match (args.check, unreadable) {
        (true, _) if findings.iter().any(Finding::fails_check) => Exit::Found,
        (false, true) => Exit::Failed,
        _ => Exit::Done,
    })
}
