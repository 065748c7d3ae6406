//! PURE: what a command does to an operation, by the state that it is in.

use crate::migration::{Code, Failure, OperationState};

/// What somebody wants of an operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Command {
    /// Begin no further database.
    Pause,
    /// Go on.
    Resume,
    /// Stop what is under way, and begin nothing more.
    Cancel,
    /// Try again what failed, was cancelled or was not begun.
    Retry,
    /// Begin, as a second person says so too.
    Approve,
    /// Do not begin.
    Reject,
}

impl Command {
    /// What is done, as in `cannot be …`.
    pub fn done(self) -> &'static str {
        match self {
            Self::Pause => "paused",
            Self::Resume => "resumed",
            Self::Cancel => "cancelled",
            Self::Retry => "retried",
            Self::Approve => "approved",
            Self::Reject => "rejected",
        }
    }
}

/// The state that a command leads to; `None` where it changes nothing, as what it asks for is so
/// already. What is at rest and takes an approval waits for that first.
pub fn obey(state: OperationState, command: Command) -> Result<Option<OperationState>, Failure> {
    use OperationState::{
        AwaitingApproval, Cancelled, Cancelling, Failed, Halted, Paused, Pending, Running, Succeeded,
    };
    match (command, state) {
        (Command::Approve, AwaitingApproval) => Ok(Some(Pending)),
        // Paused again, it no longer goes on by itself when a pause of the strategy's is over.
        (Command::Pause, Pending | Running | Paused) => Ok(Some(Paused)),
        (Command::Resume, Paused | Halted) | (Command::Retry, Halted | Failed | Cancelled) => {
            Ok(Some(Running))
        }
        (Command::Resume, Pending | Running) | (Command::Cancel, Cancelling | Cancelled) => Ok(None),
        (Command::Cancel, AwaitingApproval | Pending | Running | Paused)
        | (Command::Reject, AwaitingApproval) => Ok(Some(Cancelling)),
        (Command::Cancel, Halted) => Ok(Some(Cancelled)),
        (Command::Pause, AwaitingApproval | Halted | Cancelling | Succeeded | Failed | Cancelled)
        | (Command::Resume, AwaitingApproval | Cancelling | Succeeded | Failed | Cancelled)
        | (Command::Cancel, Succeeded | Failed)
        | (Command::Retry, AwaitingApproval | Pending | Running | Paused | Cancelling | Succeeded)
        | (
            Command::Approve | Command::Reject,
            Pending | Running | Paused | Halted | Cancelling | Succeeded | Failed | Cancelled,
        ) => Err(refusal(state, command)),
    }
}

fn refusal(state: OperationState, command: Command) -> Failure {
    use OperationState::{AwaitingApproval, Cancelled, Failed, Halted, Paused, Pending, Running};
    let message = format!("The operation is {state}: it cannot be {}", command.done());
    let failure = Failure::new(Code::OperationState, message);
    match (command, state) {
        (_, AwaitingApproval) => failure.hint("a second person approves or rejects it: nexusctl operation approve, reject; anybody who may cancels it"),
        (Command::Pause, Halted) => failure.hint("it does nothing by itself: resume, retry or cancel it"),
        (Command::Resume, Failed | Cancelled) => {
            failure.hint("nexusctl operation retry runs what failed, was cancelled or was not begun")
        }
        (Command::Retry, Paused) => failure.hint("nexusctl operation resume goes on with it"),
        (Command::Retry, Pending | Running) => failure.hint("nexusctl operation watch follows it to its end"),
        _ => failure,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_each_command_does_in_each_state() {
        // For each state: what pause, resume, cancel, retry, approve and reject lead to; `-` changes nothing,
        // `!` is refused.
        let table = [
            ("awaiting_approval", "! ! cancelling ! pending cancelling"),
            ("pending", "paused - cancelling ! ! !"),
            ("running", "paused - cancelling ! ! !"),
            ("paused", "paused running cancelling ! ! !"),
            ("halted", "! running cancelled running ! !"),
            ("cancelling", "! ! - ! ! !"),
            ("succeeded", "! ! ! ! ! !"),
            ("failed", "! ! ! running ! !"),
            ("cancelled", "! ! - running ! !"),
        ];
        assert_eq!(table.map(|(state, _)| state), OperationState::ALL.map(OperationState::name));
        for (state, (_, expected)) in OperationState::ALL.into_iter().zip(table) {
            let commands = [
                Command::Pause,
                Command::Resume,
                Command::Cancel,
                Command::Retry,
                Command::Approve,
                Command::Reject,
            ];
            let answers = commands.map(|command| match obey(state, command) {
                Ok(Some(next)) => next.name(),
                Ok(None) => "-",
                Err(failure) => {
                    assert_eq!(failure.code, Code::OperationState);
                    assert!(failure.message.contains(&state.to_string()), "{failure}");
                    "!"
                }
            });
            assert_eq!(answers.join(" "), expected, "{state}");
        }
    }
}
