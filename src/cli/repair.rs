//! `nexusctl repair`: the runbook's manual options, each with a reason that the journal keeps.

use clap::Subcommand;

use crate::{
    cli::{
        Exit, confirm, explain, operation,
        render::{self, text::clean},
        session::Session,
    },
    rpc::{
        client::{Client, ClientError},
        proto::{self, MigrationState, MigrationStatus, RepairAction},
    },
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
    fn version(&self) -> &str {
        match self {
            Self::ClearDirty(row)
            | Self::Forget(row)
            | Self::AcceptChecksum(row)
            | Self::MarkApplied(row) => &row.version,
            Self::Rename { version, .. } => version,
        }
    }

    fn request(&self, session: &Session) -> proto::RepairRequest {
        let (action, new_version, reason) = match self {
            Self::ClearDirty(row) => (RepairAction::ClearDirty, "", &row.reason),
            Self::Forget(row) => (RepairAction::Forget, "", &row.reason),
            Self::AcceptChecksum(row) => (RepairAction::AcceptChecksum, "", &row.reason),
            Self::MarkApplied(row) => (RepairAction::MarkApplied, "", &row.reason),
            Self::Rename { new_version, reason, .. } => (RepairAction::Rename, new_version.as_str(), reason),
        };
        proto::RepairRequest {
            selection: session.selection(),
            context: session.context(),
            action: action.into(),
            version: self.version().to_owned(),
            new_version: new_version.to_owned(),
            reason: reason.clone(),
        }
    }

    /// What is asked about a row, which is told with its state.
    fn question(&self, row: &str, database: &str) -> String {
        let (row, database) = (clean(row), clean(database));
        match self {
            Self::ClearDirty(_) => format!("Clear the dirty mark of {row} in {database}?"),
            Self::Forget(_) => format!("Delete the row of {row} in {database}?"),
            Self::AcceptChecksum(_) => format!("Accept the file of {row} as it is now in {database}?"),
            Self::Rename { new_version, .. } => format!("Rename {row} to {new_version} in {database}?"),
            Self::MarkApplied(_) => format!("Record {row} as applied, without running it, in {database}?"),
        }
    }
}

/// Repairs one row of one database.
pub async fn run(action: &Action, session: &mut Session) -> anyhow::Result<Exit> {
    let client = session.connect().await?;
    let mut request = action.request(session);
    if confirm::is_wanted(session)
        && let Some(database) = only_database(&client, session).await?
    {
        // Where there is not exactly one, the daemon refuses and says what there is.
        let found = find(&client, &database, action.version()).await?;
        let row = found.as_ref().map_or_else(|| action.version().to_owned(), described);
        confirm::ask(&mut session.console, &action.question(&row, &database)).await?;
        // What was asked about is what is repaired.
        if let Some(found) = found {
            request.version = found.version;
        }
    }
    let done = match client.answer(client.migrations().repair(request).await) {
        Ok(done) => done,
        Err(error) => return Ok(refused(&client, session, error).await),
    };
    let id = done.operation_id.clone();
    let waits = done.awaiting_approval && !session.console.is_json();
    if session.console.is_json() {
        session.console.json(&render::json::Repaired::from(done))?;
    } else {
        session.console.data(&format!("{}: {}\n", done.database, render::text::sentence(&done.message)))?;
    }
    if waits {
        session.console.note(&format!("it is not done yet: nexusctl operation approve {}\n", clean(&id)));
    }
    Ok(Exit::Done)
}

/// Shows why it was not done, and where, if that can be had.
async fn refused(client: &Client, session: &mut Session, error: ClientError) -> Exit {
    let database = match &error {
        ClientError::Refused(_) => only_database(client, session).await.ok().flatten(),
        _ => None,
    };
    let error = error.into();
    let (failure, exit) = explain(&error);
    let failure = operation::unheard(failure, &error, session.request_id);
    session.console.refused(database.as_deref(), &failure);
    exit
}

/// The database, where exactly one is meant.
async fn only_database(client: &Client, session: &Session) -> Result<Option<String>, ClientError> {
    let request = proto::ListDatabasesRequest { selection: session.selection() };
    let databases = client.answer(client.fleet().list_databases(request).await)?.databases;
    Ok(<[_; 1]>::try_from(databases).ok().map(|[database]| database.name))
}

/// How the migration stands that is meant by a version or a number.
async fn find(client: &Client, database: &str, wanted: &str) -> Result<Option<MigrationStatus>, ClientError> {
    let selection = proto::Selection { databases: vec![database.to_owned()], ..Default::default() };
    let request = proto::StatusRequest { selection: Some(selection), ..Default::default() };
    let databases = client.answer(client.migrations().status(request).await)?.databases;
    let migrations = databases.into_iter().flat_map(|status| status.migrations).collect();
    Ok(meant(migrations, wanted))
}

/// The migration that is meant; none where there are several of one number, or none.
fn meant(migrations: Vec<MigrationStatus>, wanted: &str) -> Option<MigrationStatus> {
    let number = |version: &str| {
        let digits = version.split('_').next().unwrap_or_default().trim_start_matches('0').to_owned();
        digits.bytes().all(|byte| byte.is_ascii_digit()).then_some(digits)
    };
    let is_number = wanted.bytes().all(|byte| byte.is_ascii_digit());
    let is_meant =
        |it: &MigrationStatus| it.version == wanted || (is_number && number(&it.version) == number(wanted));
    let found: Vec<_> = migrations.into_iter().filter(is_meant).collect();
    <[_; 1]>::try_from(found).ok().map(|[found]| found)
}

/// A migration with its state.
fn described(migration: &MigrationStatus) -> String {
    let state = match migration.state() {
        MigrationState::Applied => "applied",
        MigrationState::Pending => "pending",
        MigrationState::Dirty => "dirty",
        MigrationState::Running => "running now",
        MigrationState::Unspecified => "in an unknown state",
    };
    let since = match &migration.applied_at {
        Some(at) => format!(" since {}", render::text::time(Some(at))),
        None => String::new(),
    };
    format!("{} ({state}{since})", migration.version)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_is_told_with_its_version_and_state() {
        let migration = |version: &str, state: MigrationState| MigrationStatus {
            version: version.into(),
            state: state.into(),
            applied_at: (state != MigrationState::Pending)
                .then_some(prost_types::Timestamp { seconds: 1_761_819_330, nanos: 0 }),
            ..Default::default()
        };
        let migrations = [
            migration("0001_create_users", MigrationState::Dirty),
            migration("0010_add_products", MigrationState::Pending),
            migration("0011_a", MigrationState::Applied),
            migration("0011_b", MigrationState::Pending),
        ];
        let check = |wanted: &str, expected: Option<&str>| {
            let row = meant(migrations.to_vec(), wanted).as_ref().map(described);
            assert_eq!(row.as_deref(), expected, "{wanted}");
        };
        let users = "0001_create_users (dirty since 2025-10-30 10:15:30Z)";
        check("1", Some(users));
        check("0001", Some(users));
        check("10", Some("0010_add_products (pending)"));
        check("0011_b", Some("0011_b (pending)"));
        check("11", None);
        check("2", None);
        check("add", None);
        let action = Action::Forget(Row { version: "1".into(), reason: "x".into() });
        assert_eq!(action.question(users, "shop"), format!("Delete the row of {users} in shop?"));
    }
}
