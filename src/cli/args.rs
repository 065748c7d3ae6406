//! The arguments that every command takes.

use std::{path::PathBuf, time::Duration};

use clap::{Args, Command, ValueEnum};
use uuid::Uuid;

use crate::{
    rpc::{client::Address, proto},
    selector::{Selector, SelectorError},
};

/// The form of the answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// Tables and lines, for people
    Table,
    /// One document, for programs; docs/json-output.md describes it
    Json,
}

/// Options before or after any command.
#[derive(Debug, Args)]
#[command(next_help_heading = "Global options")]
pub struct Global {
    /// Where nexusd is
    #[arg(
        long,
        help = "Where nexusd is: host:port, https://host:port, http://host:port or unix:/path; else where the context says [default: http://127.0.0.1:7421]",
        global = true,
        env = "NEXUS_SERVER",
        hide_env_values = true,
        value_name = "ADDRESS"
    )]
    pub server: Option<Address>,
    /// A daemon that `nexusctl context add` has noted, and what it is shown
    #[arg(long, global = true, env = "NEXUS_CONTEXT", value_name = "NAME")]
    pub context: Option<String>,
    /// The authorities of the daemon's certificate, in PEM; without one, those that the system trusts
    #[arg(long, global = true, hide_short_help = true, env = "NEXUS_CA", value_name = "FILE")]
    pub ca: Option<PathBuf>,
    /// The file of the token that says who asks, of mode 0600
    #[arg(long, global = true, hide_short_help = true, env = "NEXUS_TOKEN_FILE", value_name = "FILE")]
    pub token_file: Option<PathBuf>,
    /// The certificate that says who asks, in PEM
    #[arg(long, global = true, hide_short_help = true, env = "NEXUS_CERT", value_name = "FILE")]
    pub cert: Option<PathBuf>,
    /// Its key, in PEM, of mode 0600
    #[arg(long, global = true, hide_short_help = true, env = "NEXUS_KEY", value_name = "FILE")]
    pub key: Option<PathBuf>,
    /// A database, by name or glob ("orders-*"); may be repeated
    #[arg(short, long, global = true, value_name = "NAME", value_parser = clap::builder::NonEmptyStringValueParser::new())]
    pub database: Vec<String>,
    /// Databases by label, or by name, server, schema or dbname: env=prod,region!=eu,name~orders-*; may
    /// be repeated, all must hold
    #[arg(short = 'l', long, global = true, value_name = "SELECTOR", value_parser = selector)]
    pub selector: Vec<String>,
    /// Every database
    #[arg(long, global = true, conflicts_with_all = ["database", "selector"])]
    pub all: bool,
    /// The form of the answer
    #[arg(short, long, global = true, value_enum, value_name = "FORMAT", default_value_t = Format::Table)]
    pub output: Format,
    /// Do not ask before a rollback, a recovery, a repair or an approval
    #[arg(short, long, global = true)]
    pub yes: bool,
    /// The request's UUID: the same one never runs twice; its first outcome is told again, or, after
    /// a restart of the daemon, it is refused
    #[arg(long, global = true, value_name = "UUID")]
    pub request_id: Option<Uuid>,
    /// How long to try to connect, and how long a silent daemon is waited for
    #[arg(long, global = true, value_name = "DURATION", default_value = "5s", value_parser = duration)]
    pub timeout: Duration,
}

impl Global {
    /// The databases that the request is about.
    pub fn selection(&self) -> proto::Selection {
        proto::Selection { databases: self.database.clone(), labels: self.selector.clone(), all: self.all }
    }
}

const DATABASES: [&str; 3] = ["database", "selector", "all"];
const REQUEST: [&str; 2] = ["yes", "request_id"];
const DAEMON: [&str; 7] = ["server", "timeout", "context", "ca", "token_file", "cert", "key"];

/// Shows no options that mean nothing to a command that changes nothing.
pub fn of_reading(command: Command) -> Command {
    hide(command, &REQUEST)
}

/// The same for a command that is about no database.
pub fn of_no_database(command: Command) -> Command {
    hide(of_reading(command), &DATABASES)
}

/// The same for a command that needs no daemon.
pub fn of_no_daemon(command: Command) -> Command {
    hide(of_no_database(command), &DAEMON)
}

/// The same for one that is about databases.
pub fn of_no_daemon_but_databases(command: Command) -> Command {
    hide(of_reading(command), &DAEMON)
}

/// The same for a command whose answer has one form.
pub fn of_one_form(command: Command) -> Command {
    hide(of_no_daemon(command), &["output"])
}

/// They are hidden, not refused: an alias that sets some of them serves every command.
fn hide(command: Command, ids: &[&str]) -> Command {
    command.mut_args(|arg| if ids.contains(&arg.get_id().as_str()) { arg.hide(true) } else { arg })
}

/// A selector, by the daemon's rule.
fn selector(text: &str) -> Result<String, SelectorError> {
    Selector::parse(text).map(|_| text.to_owned())
}

/// A length of time longer than none.
pub fn duration(text: &str) -> Result<Duration, String> {
    let duration = humantime::parse_duration(text).ok().filter(|duration| !duration.is_zero());
    duration.ok_or_else(|| "expected a time longer than 0, such as 500ms, 5s or 2min".to_owned())
}
