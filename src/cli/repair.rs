//! `nexusctl repair`: the runbook's manual options, each with a reason that the journal keeps.

use clap::Subcommand;

use crate::{
    cli::{Exit, confirm, render, session::Session},
    rpc::proto::{self, RepairAction},
};

/// The row, and why.
#[derive(Debug, clap::Args)]
pub struct Row {
    /// The version, such as `0010_add_products`
    version: String,
    /// Why; the journal keeps it
    #[arg(long, value_name = "TEXT", value_parser = clap::builder::NonEmptyStringValueParser::new())]
    reason: String,
}

/// What a repair does.
#[derive(Debug, Subcommand)]
pub enum Action {
    /// Clear the dirty mark: the migration is in place
    ClearDirty(Row),
    /// Delete the row: the migration is not in place
    Forget(Row),
    /// Store the checksum of the file as it is now
    AcceptChecksum(Row),
    /// Give the row another version, after its file was renamed
    Rename {
        /// The version of the row
        version: String,
        /// The version of the renamed file
        new_version: String,
        /// Why; the journal keeps it
        #[arg(long, value_name = "TEXT", value_parser = clap::builder::NonEmptyStringValueParser::new())]
        reason: String,
    },
    /// Record a version as applied without running it
    MarkApplied(Row),
}

impl Action {
    fn request(&self, session: &Session) -> proto::RepairRequest {
        let (action, version, new_version, reason) = match self {
            Self::ClearDirty(row) => (RepairAction::ClearDirty, &row.version, "", &row.reason),
            Self::Forget(row) => (RepairAction::Forget, &row.version, "", &row.reason),
            Self::AcceptChecksum(row) => (RepairAction::AcceptChecksum, &row.version, "", &row.reason),
            Self::MarkApplied(row) => (RepairAction::MarkApplied, &row.version, "", &row.reason),
            Self::Rename { version, new_version, reason } => {
                (RepairAction::Rename, version, new_version.as_str(), reason)
            }
        };
        proto::RepairRequest {
            selection: session.selection(),
            context: session.context(),
            action: action.into(),
            version: version.clone(),
            new_version: new_version.to_owned(),
            reason: reason.clone(),
        }
    }

    fn question(&self, database: &str) -> String {
        match self {
            Self::ClearDirty(row) => format!("Clear the dirty mark of {} in {database}?", row.version),
            Self::Forget(row) => format!("Delete the row of {} in {database}?", row.version),
            Self::AcceptChecksum(row) => {
                format!("Accept the file of {} as it is now in {database}?", row.version)
            }
            Self::Rename { version, new_version, .. } => {
                format!("Rename {version} to {new_version} in {database}?")
            }
            Self::MarkApplied(row) => {
                format!("Record {} as applied, without running it, in {database}?", row.version)
            }
        }
    }
}

/// Repairs one row of one database.
pub async fn run(action: &Action, session: &mut Session) -> anyhow::Result<Exit> {
    let client = session.connect().await?;
    if confirm::is_wanted(session) {
        let request = proto::ListDatabasesRequest { selection: session.selection() };
        let databases = client.answer(client.fleet().list_databases(request).await)?.databases;
        // Where it is not exactly one, the daemon refuses and says what there is.
        if let [database] = databases.as_slice() {
            confirm::ask(&mut session.console, &action.question(&database.name)).await?;
        }
    }
    let request = action.request(session);
    let done = client.answer(client.migrations().repair(request).await)?;
    if session.console.is_json() {
        session.console.json(&render::json::Repaired::from(done))?;
    } else {
        session.console.data(&format!("{}: {}\n", done.database, render::text::sentence(&done.message)))?;
    }
    Ok(Exit::Done)
}
