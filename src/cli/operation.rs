//! `nexusctl operation`: what the daemon does and did, and how somebody steers it.

use clap::Subcommand;

use crate::{
    cli::{Exit, args, report::Verb, session::Session},
    rpc::proto,
};

mod decide;
mod follow;
mod list;
mod show;
mod steer;
mod watch;

pub use follow::{Attention, follow, unheard};

/// What to do with operations. An id may be shortened to a beginning that only one operation has.
#[derive(Debug, Subcommand)]
pub enum Action {
    /// List the operations that the daemon remembers, newest first
    #[command(defer(args::of_reading))]
    List(list::Args),
    /// Show one operation: its state and why, its waves, its databases
    #[command(defer(args::of_no_database))]
    Show(show::Args),
    /// Follow an operation: what happened from its beginning, and then what happens
    #[command(defer(args::of_no_database))]
    Watch(watch::Args),
    /// Begin no further database; those under way are finished
    #[command(defer(args::of_no_database))]
    Pause(steer::Named),
    /// Go on with an operation that is paused or halted, with what was not begun
    #[command(defer(args::of_no_database))]
    Resume(steer::GoOn),
    /// Cancel what is under way, on the servers, and begin nothing more
    #[command(defer(args::of_no_database))]
    Cancel(steer::Named),
    /// Try again what failed, was cancelled, was rolled back or was not begun, in the same waves
    #[command(defer(args::of_no_database))]
    Retry(steer::GoOn),
    /// Approve an operation that waits for a second person: shows its plan, asks, and has it begin
    #[command(defer(args::of_no_database))]
    Approve(decide::Approve),
    /// Reject an operation that waits for a second person: nothing of it is done
    #[command(defer(args::of_no_database))]
    Reject(decide::Decided),
}

/// What a request that begins an operation says of itself.
#[derive(Debug, clap::Args)]
pub struct Asked {
    /// Why, for the log and for whoever looks at the operation
    #[arg(long, value_name = "TEXT", default_value = "", hide_default_value = true)]
    reason: String,
    /// Begin it, print its id, and do not wait
    #[arg(long, conflicts_with = "dry_run")]
    detach: bool,
}

impl Asked {
    /// Has the session's requests say why.
    pub fn tell(&self, session: &mut Session) {
        session.reason.clone_from(&self.reason);
    }

    /// How the operation is followed.
    pub fn attention(&self, dry_run: bool) -> Attention {
        match (dry_run, self.detach) {
            (true, _) => Attention::DryRun,
            (false, true) => Attention::Detached,
            (false, false) => Attention::ToTheEnd,
        }
    }
}

/// Does it.
pub async fn run(action: &Action, session: &mut Session) -> anyhow::Result<Exit> {
    let client = session.connect().await?;
    match action {
        Action::List(args) => list::run(args, &client, session).await,
        Action::Show(args) => show::run(args, &client, session).await,
        Action::Watch(args) => watch::run(args, &client, session).await,
        Action::Pause(named) => steer::pause(named, &client, session).await,
        Action::Cancel(named) => steer::cancel(named, &client, session).await,
        Action::Resume(args) => steer::resume(args, &client, session).await,
        Action::Retry(args) => steer::retry(args, &client, session).await,
        Action::Approve(args) => decide::approve(args, &client, session).await,
        Action::Reject(args) => decide::reject(args, &client, session).await,
    }
}

/// What an operation does, by its name.
fn verb(operation: &proto::Operation) -> Verb {
    match operation.verb.as_str() {
        "rollback" => Verb::Rollback,
        "recover" => Verb::Recover,
        "repair" => Verb::Repair,
        _ => Verb::Apply,
    }
}
