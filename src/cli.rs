//! `nexusctl`: arguments, one file per command, rendering. A thin client: it asks `nexusd` and shows the answer.
//!
//! A command is a function from its arguments and the [`Session`] to an [`Exit`]. Data goes to stdout,
//! everything else to stderr; both through the [`console`], which alone knows of colours and closed pipes.
//! What a daemon sends is turned into text or JSON in [`render`], by pure functions.

use std::process::ExitCode;

use clap::{Parser, Subcommand};

pub mod alerts;
pub mod apply;
pub mod args;
pub mod audit;
pub mod auditlog;
pub mod checksum;
pub mod completions;
pub mod confirm;
pub mod console;
pub mod context;
mod credentials;
pub mod databases;
pub mod health;
pub mod history;
pub mod new;
pub mod operation;
pub mod plan;
pub mod progress;
pub mod recover;
pub mod reload;
pub mod render;
pub mod repair;
pub mod report;
pub mod rollback;
pub mod session;
pub mod status;
pub mod strategy;
pub mod token;
pub mod version;

use crate::{
    cli::session::Session,
    redact::mask_text,
    rpc::{client::ClientError, proto},
    telemetry::traces::ClientTrace,
};

const EXIT_CODES: &str = "Exit codes: 0 done, or begun, or waiting for an approval (`--detach`, `repair`); \
1 failed or refused; 2 wrong usage; 3 found by `--check`; 4 daemon unreachable, lost or not authenticated; \
130 interrupted (the daemon goes on)";

/// Applies, rolls back, recovers and shows SQL migrations, by asking nexusd
#[derive(Debug, Parser)]
#[command(name = "nexusctl", version, max_term_width = 100, after_help = EXIT_CODES)]
#[command(subcommand_required = true, arg_required_else_help = true)]
pub struct Cli {
    #[command(flatten)]
    global: args::Global,
    #[command(subcommand)]
    command: Command,
}

/// The commands, in the order of a working day.
#[derive(Debug, Subcommand)]
enum Command {
    /// Apply pending migrations, oldest first
    #[command(visible_alias = "up")]
    Apply(apply::Args),
    /// Roll migrations back, newest first
    #[command(visible_alias = "down")]
    Rollback(rollback::Args),
    /// Settle dirty rows, by the journal's evidence first
    Recover(recover::Args),
    /// Change one tracking row by hand; the journal keeps the reason
    #[command(subcommand)]
    Repair(repair::Action),
    /// Show what apply or rollback would do now
    #[command(defer(args::of_reading))]
    Plan(plan::Args),
    /// Show how databases stand against their migration directories
    #[command(defer(args::of_reading))]
    Status(status::Args),
    /// Check databases read-only, on request or on the daemon's schedules, and show what was found
    #[command(subcommand, defer(args::of_reading))]
    Audit(audit::Action),
    /// Verify and read the audit log: who asked for what, what was decided, what came of it
    #[command(name = "auditlog", subcommand, defer(args::of_no_database))]
    AuditLog(auditlog::Action),
    /// Show, follow and steer operations: every apply, rollback and recovery is one
    #[command(subcommand, visible_alias = "op", defer(args::of_reading))]
    Operation(operation::Action),
    /// Show the attempts that the journal keeps, newest first
    #[command(defer(args::of_reading))]
    History(history::Args),
    /// Show what is wrong now; `alerts ack` takes note of it
    #[command(defer(args::of_reading))]
    Alerts(alerts::Args),
    /// List the databases that the daemon knows, as it saw them last
    #[command(defer(args::of_reading))]
    Databases,
    /// Have the daemon read its configuration's databases and who is let in, and look for new databases, now
    #[command(defer(args::of_no_database))]
    Reload,
    /// Write the next pair of migration files from a template (needs no daemon)
    #[command(defer(args::of_no_daemon))]
    New(new::Args),
    /// Print checksums, in the words of sha256sum (needs no daemon)
    #[command(defer(args::of_no_daemon))]
    Checksum(checksum::Args),
    /// Note daemons, and what each is shown, and choose between them (needs no daemon)
    #[command(subcommand, defer(args::of_no_database))]
    Context(context::Action),
    /// Make tokens that say who asks (needs no daemon)
    #[command(subcommand, defer(args::of_no_daemon_but_databases))]
    Token(token::Action),
    /// Ask whether the daemon takes requests, for probes; the exit code says so too
    #[command(defer(args::of_no_database))]
    Health,
    /// Show the versions of this client and of the daemon
    #[command(defer(args::of_no_database))]
    Version,
    /// Print a shell's completion script (needs no daemon)
    #[command(defer(args::of_one_form))]
    Completions(completions::Args),
}

impl Command {
    /// Its name, for its span.
    fn name(&self) -> &'static str {
        match self {
            Self::Apply(_) => "apply",
            Self::Rollback(_) => "rollback",
            Self::Recover(_) => "recover",
            Self::Repair(_) => "repair",
            Self::Plan(_) => "plan",
            Self::Status(_) => "status",
            Self::History(_) => "history",
            Self::New(_) => "new",
            Self::Checksum(_) => "checksum",
            Self::Alerts(_) => "alerts",
            Self::Audit(_) => "audit",
            Self::AuditLog(_) => "auditlog",
            Self::Operation(_) => "operation",
            Self::Databases => "databases",
            Self::Health => "health",
            Self::Reload => "reload",
            Self::Version => "version",
            Self::Completions(_) => "completions",
            Self::Context(_) => "context",
            Self::Token(_) => "token",
        }
    }
}

/// How the process ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Exit {
    /// What was asked for is done.
    Done = 0,
    /// It failed or was refused.
    Failed = 1,
    /// `--check` found something.
    Found = 3,
    /// The daemon cannot be reached, was lost, or does not know who asks.
    Unreachable = 4,
    /// Ctrl-C, by the shells' convention for SIGINT.
    Interrupted = 130,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

/// A failure of the client's own, with what to do about it.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct Refusal {
    message: String,
    hint: String,
    exit: Exit,
}

impl Refusal {
    /// What went wrong, and what to do.
    pub fn new(message: impl Into<String>, hint: impl Into<String>) -> Self {
        Self { message: message.into(), hint: hint.into(), exit: Exit::Failed }
    }

    /// The same, with another exit code.
    #[must_use]
    pub fn exit(mut self, exit: Exit) -> Self {
        self.exit = exit;
        self
    }
}

/// Reads the command line; the exit code where there is nothing to be run, as it asks for help or is wrong.
///
/// What is wrong is quoted without the credentials in it: it is often sent to somebody else, or logged.
pub fn parse() -> Result<Cli, ExitCode> {
    use std::io::Write as _;
    Cli::try_parse().map_err(|error| {
        // That it cannot be written is no reason for another exit code.
        let _ = if error.use_stderr() {
            write!(anstream::stderr(), "{}", mask_text(&error.render().ansi().to_string()))
        } else {
            error.print()
        };
        ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(1))
    })
}

/// Runs one command and shows its failure, if it has one.
pub fn run(cli: Cli) -> ExitCode {
    let mut session = Session::new(cli.global);
    let exit = dispatch(cli.command, &mut session).unwrap_or_else(|error| {
        let (failure, exit) = explain(&error);
        session.console.refused(None, &failure);
        exit
    });
    exit.into()
}

fn dispatch(command: Command, session: &mut Session) -> anyhow::Result<Exit> {
    match command {
        Command::New(args) => return new::run(&args, session),
        Command::Checksum(args) => return checksum::run(&args, session),
        Command::Completions(args) => return completions::run(&args, session),
        Command::Context(action) => return context::run(&action, session),
        Command::Token(action) => return token::run(&action, session),
        _ => {}
    }
    // One thread: the client waits for one daemon, and starts in a few milliseconds.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let exit = runtime.block_on(async {
        let trace = ClientTrace::begin(command.name());
        session.trace = Some(trace.context());
        let exit = match command {
            Command::Apply(args) => apply::run(&args, session).await,
            Command::Rollback(args) => rollback::run(&args, session).await,
            Command::Recover(args) => recover::run(&args, session).await,
            Command::Repair(action) => repair::run(&action, session).await,
            Command::Plan(args) => plan::run(&args, session).await,
            Command::Status(args) => status::run(&args, session).await,
            Command::Audit(action) => audit::run(&action, session).await,
            Command::AuditLog(action) => auditlog::run(&action, session).await,
            Command::Operation(action) => operation::run(&action, session).await,
            Command::History(args) => history::run(&args, session).await,
            Command::Alerts(args) => alerts::run(&args, session).await,
            Command::Databases => databases::run(session).await,
            Command::Health => health::run(session).await,
            Command::Reload => reload::run(session).await,
            Command::Version => version::run(session).await,
            Command::New(_)
            | Command::Checksum(_)
            | Command::Completions(_)
            | Command::Context(_)
            | Command::Token(_) => Ok(Exit::Done),
        };
        trace.end(matches!(exit, Ok(Exit::Done | Exit::Found))).await;
        exit
    });
    runtime.shutdown_background();
    exit
}

/// What an error is shown as, and how the process ends with it.
fn explain(error: &anyhow::Error) -> (proto::Failure, Exit) {
    if let Some(error) = error.downcast_ref::<ClientError>() {
        let exit = if matches!(error, ClientError::Refused(_)) { Exit::Failed } else { Exit::Unreachable };
        return (error.failure(), exit);
    }
    if let Some(Refusal { message, hint, exit }) = error.downcast_ref() {
        let failure =
            proto::Failure { message: message.clone(), hint: hint.clone(), ..proto::Failure::default() };
        return (failure, *exit);
    }
    (proto::Failure { message: format!("{error:#}"), ..proto::Failure::default() }, Exit::Failed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_arguments_are_sound() {
        use clap::CommandFactory as _;
        Cli::command().debug_assert();
    }

    #[test]
    fn command_lines() {
        let parses = |line: &str| Cli::try_parse_from(line.split(' ')).is_ok();
        for line in [
            "nexusctl apply",
            "nexusctl up --to 0010 --limit 3 --dry-run --no-auto-recover --resume",
            "nexusctl -d orders-* -d users status --check",
            "nexusctl apply -l env=prod,tier!=gold -l team=a -o json -y",
            "nexusctl apply -l env=prod,name~orders-*,region!~eu-{a,b}",
            "nexusctl down --steps=-1",
            "nexusctl rollback --steps -1",
            "nexusctl rollback --steps 0 --from journal",
            "nexusctl alerts",
            "nexusctl alerts --resolved -d orders -o json",
            "nexusctl alerts --watch",
            "nexusctl reload -o json",
            "nexusctl alerts ack 01a2 --reason known --for 2h",
            "nexusctl audit run --check --fail-on critical -l env=prod",
            "nexusctl audit run --format sarif",
            "nexusctl audit list --limit 5 -o json",
            "nexusctl audit show 01a2057a --format junit",
            "nexusctl audit show -o json",
            "nexusctl auditlog verify",
            "nexusctl auditlog verify a.jsonl.1 a.jsonl --daemon -o json",
            "nexusctl auditlog list --since 2h --refused --operation 01a2 -",
            "nexusctl apply --reason CHG-123 --detach",
            "nexusctl operation list --state halted --state paused -d orders",
            "nexusctl operation show 01a2 --every -o json",
            "nexusctl op watch 01a2",
            "nexusctl operation resume 01a2 --accept-new-catalog --detach",
            "nexusctl plan",
            "nexusctl plan --to 0010",
            "nexusctl plan rollback --steps 2",
            "nexusctl repair rename 0012_feature 0013_feature --reason renumbered",
            "nexusctl --server unix:/run/nexus.sock databases",
            "nexusctl --server https://nexus databases",
            "nexusctl context add prod --server https://nexus --ca ca.pem --token-file t --use",
            "nexusctl --context prod status",
            "nexusctl token create --name ci --role operator -l env=prod --expires 30d --out t",
            "nexusctl token create --name ci --role viewer --all --expires never",
            "nexusctl apply --request-id 018f3c5e-7a2b-7c3d-8e4f-0123456789ab --timeout 500ms",
        ] {
            assert!(parses(line), "{line}");
        }
        for line in [
            "nexusctl",
            "nexusctl rollback --steps x",
            "nexusctl audit",
            "nexusctl operation",
            "nexusctl operation show",
            "nexusctl operation list --state over",
            "nexusctl apply --detach --dry-run",
            "nexusctl audit run --format xml",
            "nexusctl audit list --limit 0",
            "nexusctl auditlog verify --expect 12ab",
            "nexusctl auditlog list --since soon",
            "nexusctl audit show --fail-on never",
            "nexusctl rollback --steps 1 --to 0003",
            "nexusctl apply --all -d orders",
            "nexusctl apply -l prod",
            "nexusctl apply -l env=",
            "nexusctl apply -l env==",
            "nexusctl apply -l name~a[",
            "nexusctl apply -l =prod",
            "nexusctl apply -l env!=",
            "nexusctl apply -l !=prod",
            "nexusctl apply -l env=prod,",
            "nexusctl apply --request-id 7",
            "nexusctl alerts --watch --resolved",
            "nexusctl alerts ack 01a2",
            "nexusctl alerts --watch ack 01a2 --reason x",
            "nexusctl repair clear-dirty 0010_x",
            "nexusctl repair rename 0012_feature --reason x",
            "nexusctl --timeout soon databases",
            "nexusctl token create --name ci --all",
            "nexusctl token create --name ci --role root --all",
            "nexusctl token create --name ci --role admin --all --expires soon",
            "nexusctl context add",
            "nexusctl --timeout 0s databases",
        ] {
            assert!(!parses(line), "{line}");
        }
    }

    #[test]
    fn help_shows_the_options_that_mean_something() {
        use clap::CommandFactory as _;
        let check = |line: &str, shown: &[&str]| {
            let help = Cli::command().try_get_matches_from(line.split(' ')).expect_err("help").to_string();
            for option in [
                "--server",
                "--timeout",
                "--output",
                "--database",
                "--selector",
                "--all",
                "--yes",
                "--request-id",
            ] {
                assert_eq!(help.contains(option), shown.contains(&option), "{line}: {option}: {help}");
            }
        };
        let reading = ["--server", "--timeout", "--output", "--database", "--selector", "--all"];
        for line in
            ["plan", "plan rollback", "status", "history", "alerts", "databases", "audit", "audit run"]
        {
            check(&format!("nexusctl {line} --help"), &reading);
        }
        let mutating = [reading.as_slice(), &["--yes", "--request-id"]].concat();
        for line in ["apply", "rollback", "recover", "repair forget"] {
            check(&format!("nexusctl {line} --help"), &mutating);
        }
        check("nexusctl new --help", &["--output"]);
        check("nexusctl checksum --help", &["--output"]);
        check("nexusctl alerts ack --help", &["--server", "--timeout", "--output"]);
        check("nexusctl audit show --help", &["--server", "--timeout", "--output"]);
        check("nexusctl operation list --help", &reading);
        check("nexusctl operation retry --help", &["--server", "--timeout", "--output"]);
        check("nexusctl version --help", &["--server", "--timeout", "--output"]);
        check("nexusctl completions --help", &[]);
    }
}
