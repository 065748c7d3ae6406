//! `nexusctl operation list`.

use clap::ValueEnum;

use crate::{
    cli::{Exit, render, session::Session},
    rpc::{client::Client, proto},
};

/// The arguments of `operation list`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Only those in this state; may be repeated
    #[arg(long, value_enum, value_name = "STATE")]
    state: Vec<State>,
    /// At most this many operations
    #[arg(long, value_name = "N", default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..))]
    limit: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum State {
    /// A second person has to approve it
    AwaitingApproval,
    /// Accepted
    Pending,
    /// Databases are being worked on
    Running,
    /// No database is begun until it is resumed
    Paused,
    /// It has stopped by itself with work left
    Halted,
    /// It is being cancelled
    Cancelling,
    /// Every database succeeded or had nothing to do
    Succeeded,
    /// Some databases failed
    Failed,
    /// It was cancelled
    Cancelled,
}

impl From<State> for proto::OperationState {
    fn from(state: State) -> Self {
        match state {
            State::AwaitingApproval => Self::AwaitingApproval,
            State::Pending => Self::Pending,
            State::Running => Self::Running,
            State::Paused => Self::Paused,
            State::Halted => Self::Halted,
            State::Cancelling => Self::Cancelling,
            State::Succeeded => Self::Succeeded,
            State::Failed => Self::Failed,
            State::Cancelled => Self::Cancelled,
        }
    }
}

/// Lists.
pub(super) async fn run(args: &Args, client: &Client, session: &mut Session) -> anyhow::Result<Exit> {
    let is_all = session.global.database.is_empty() && session.global.selector.is_empty();
    let databases = if is_all {
        Vec::new()
    } else {
        let request = proto::ListDatabasesRequest { selection: session.selection() };
        let known = client.answer(client.fleet().list_databases(request).await)?.databases;
        known.into_iter().map(|database| database.name).collect()
    };
    let states = args.state.iter().map(|state| proto::OperationState::from(*state).into()).collect();
    let request = proto::ListOperationsRequest { states, databases, limit: args.limit };
    let operations = client.answer(client.operations().list_operations(request).await)?.operations;
    let console = &mut session.console;
    if console.is_json() {
        console.json(&render::json::Operations::from(operations.as_slice()))?;
    } else {
        let width = console.width();
        console.data(&render::operation::list(&operations, width))?;
    }
    Ok(Exit::Done)
}
