//! The command line of `nexusd`.

use std::path::PathBuf;

use clap::{Parser, Subcommand};

use crate::config::Overrides;

/// Applies, rolls back, recovers and audits SQL migrations on fleets of PostgreSQL databases.
#[derive(Debug, Parser)]
#[command(name = "nexusd", version, about, max_term_width = 100)]
pub struct Args {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Serve: answer nexusctl over gRPC until SIGTERM
    Serve(Serve),
    /// Read the configuration and print what is in effect, with secrets masked
    CheckConfig(CheckConfig),
    /// Try Nexus out: a PostgreSQL of its own with three databases, and the sample migrations
    Demo(Demo),
}

/// Flags of `serve`; they win over the environment, which wins over the file.
#[derive(Debug, clap::Args)]
pub struct Serve {
    /// The configuration file; deploy/nexus.toml explains every key
    #[arg(long, short, value_name = "FILE", env = "NEXUS_CONFIG", default_value = "nexus.toml")]
    pub config: PathBuf,
    /// Where to listen for gRPC [default: 127.0.0.1:7421]
    #[arg(long, value_name = "ADDRESS")]
    pub grpc: Option<String>,
    /// A Unix socket to listen on for gRPC as well
    #[arg(long, value_name = "PATH")]
    pub socket: Option<String>,
    /// Where to listen for HTTP: metrics and health [default: 127.0.0.1:7422]
    #[arg(long, value_name = "ADDRESS")]
    pub http: Option<String>,
    /// The migration log [default: logs/migrations.jsonl]
    #[arg(long, value_name = "FILE")]
    pub log_file: Option<String>,
    /// How much to say on stderr: error, warn, info, debug or trace [default: info]
    #[arg(long, value_name = "LEVEL")]
    pub log_level: Option<String>,
}

impl Serve {
    /// What was given, to be put over the configuration.
    pub fn overrides(&self) -> Overrides {
        Overrides {
            grpc: self.grpc.clone(),
            socket: self.socket.clone(),
            http: self.http.clone(),
            log_file: self.log_file.clone(),
            log_level: self.log_level.clone(),
        }
    }
}

/// Flags of `check-config`.
#[derive(Debug, clap::Args)]
pub struct CheckConfig {
    /// The configuration file
    #[arg(long, short, value_name = "FILE", env = "NEXUS_CONFIG", default_value = "nexus.toml")]
    pub config: PathBuf,
}

/// Flags of `demo`.
#[derive(Debug, clap::Args)]
pub struct Demo {
    /// End after the tour instead of serving on
    #[arg(long)]
    pub exit: bool,
    /// The migrations to apply
    #[arg(long, value_name = "DIRECTORY", default_value = "migrations")]
    pub migrations: PathBuf,
}
