//! The groups of settings: each key with its form, its default, and what it means.

use std::{net::SocketAddr, path::PathBuf, time::Duration};

use crate::config::{
    reader::{Layer, Reader},
    setting::{
        Count, Durability, Flag, Form, Identifier, LONGEST_TABLE, ListenAddress, Location, MissingDown,
        Naming, OptionalEndpoint, OptionalLocation, Overlap, PageBase, Policy, Recovery, Share, Size, Span,
        Watch,
    },
};

/// Declares a group of settings: its keys, their forms and their defaults stand in one place, from
/// which the file and the environment are read and the effective configuration is printed.
macro_rules! settings {
    ($($(#[$doc:meta])* $group:ident {
        $($(#[$key_doc:meta])* $key:ident: $type:ty as $form:ty = $default:literal,)*
    })*) => {$(
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq)]
        pub struct $group { $($(#[$key_doc])* pub $key: $type,)* }

        impl $group {
            /// The keys, in the order in which they are documented and printed.
            pub(super) const KEYS: &'static [&'static str] = &[$(stringify!($key)),*];

            /// Reads each key from the strongest layer that has it, else takes the `fallback`'s.
            pub(super) fn read(reader: &mut Reader<'_>, layers: &[Layer<'_>], fallback: &Self) -> Self {
                Self {
                    $($key: reader.setting::<$form>(layers, stringify!($key))
                        .unwrap_or_else(|| fallback.$key.clone()),)*
                }
            }

            /// Each key with its value as TOML.
            pub(super) fn literals(&self) -> Vec<(&'static str, String)> {
                vec![$((stringify!($key), <$form>::literal(&self.$key))),*]
            }
        }

        impl Default for $group {
            fn default() -> Self {
                Self { $($key: <$form>::parse($default).expect("a default is well-formed"),)* }
            }
        }
    )*};
}

settings! {
    /// Where the daemon listens.
    ServerConfig {
        /// The gRPC control plane.
        grpc: SocketAddr as ListenAddress = "127.0.0.1:7421",
        /// The same on a Unix socket.
        socket: Option<PathBuf> as OptionalLocation = "",
        /// Metrics and health.
        http: SocketAddr as ListenAddress = "127.0.0.1:7422",
        /// The certificate that both ports show; without one they speak no TLS.
        tls_cert: Option<PathBuf> as OptionalLocation = "",
        /// Its key.
        tls_key: Option<PathBuf> as OptionalLocation = "",
        /// The authorities whose certificates say who a client is.
        tls_client_ca: Option<PathBuf> as OptionalLocation = "",
        /// How long a running step may go on after SIGTERM.
        shutdown_timeout: Duration as Span<0> = "30s",
    }

    /// Who may do what.
    AccessConfig {
        /// The file of those who are let in; none lets in whoever reaches loopback.
        file: Option<PathBuf> as OptionalLocation = "",
        /// How many migrations of a database an operator rolls back at once.
        max_rollback_steps: u32 as Count<1> = "1",
        /// How long an operation waits for a second person's approval.
        approval_limit: Duration as Span<1> = "1h",
        /// Whether `/metrics` answers anybody.
        open_metrics: bool as Flag = "false",
    }

    /// What the daemon writes.
    LogConfig {
        /// The record of migrations, one JSON object a line.
        file: PathBuf as Location = "logs/migrations.jsonl",
        /// The audit log: who asked for what, what was decided, and what came of it.
        audit_file: PathBuf as Location = "logs/audit.jsonl",
        /// How much the daemon's own log on stderr says.
        level: tracing::Level as tracing::Level = "info",
    }

    /// What the daemon may use.
    Limits {
        /// How many connections one PostgreSQL server gets.
        max_connections_per_server: u32 as Count<1> = "8",
        /// On how many databases one operation works at once.
        max_parallel: u32 as Count<1> = "8",
        /// What becomes of an operation about a database that an unfinished one is about.
        overlap: Overlap as Overlap = "queue",
        /// How long a connection that nobody uses is kept.
        idle_connection: Duration as Span<0> = "60s",
        /// How many clients each of the two ports and the socket serves at once.
        max_clients: u32 as Count<1> = "512",
        /// How many of them from one address, or of one user on the socket.
        max_clients_per_address: u32 as Count<1> = "128",
        /// How long a client may take to say anything that makes sense.
        handshake_timeout: Duration as Span<1> = "10s",
        /// How long a client's connection lives before it has to make another one.
        max_connection_age: Duration as Span<1> = "12h",
        /// How long a request may take until its answer begins.
        request_timeout: Duration as Span<1> = "10m",
        /// How many requests that change something one caller makes in a minute.
        max_changes_per_minute: u32 as Count<1> = "600",
    }

    /// How the databases are watched.
    WatchConfig {
        /// How often each database is looked at.
        poll: Duration as Span<1> = "30s",
        /// How many connections are kept or opened for looking, in the whole process.
        max_connections: u32 as Count<1> = "64",
        /// For how long a migration may be pending; 0 is without a limit.
        pending_limit: Duration as Span<0> = "1day",
    }

    /// How alerts live.
    AlertsConfig {
        /// How long something has to be wrong before its alert fires.
        hold: Duration as Span<0> = "10s",
        /// Within what time an alert that comes back is the same one.
        flap_window: Duration as Span<0> = "5m",
        /// Where alerts are kept over restarts.
        state_file: PathBuf as Location = "logs/alerts.json",
        /// What the address of a finding's page begins with.
        runbook_base_url: String as PageBase = "docs/findings",
    }

    /// How the control database is used.
    ControlSettings {
        /// The schema that everything is kept in; it is made where it is missing.
        schema: String as Identifier = "nexus",
        /// How long a daemon that is silent stays the owner of an operation, and the leader.
        lease: Duration as Span<1> = "15s",
        /// For how many days operations and audits are kept that are over.
        keep_days: u32 as Count<1> = "90",
    }

    /// Where traces go.
    TelemetryConfig {
        /// The collector's URL, for OTLP over gRPC; none exports nothing.
        endpoint: Option<String> as OptionalEndpoint = "",
        /// Of how many traces the spans are recorded.
        sample_ratio: f64 as Share = "1.0",
        /// Whether spans have the text of statements.
        sql_text: bool as Flag = "false",
    }

    /// How one database's migrations are read and run.
    DatabaseSettings {
        /// The schema that the migrations run in and the tables are kept in.
        schema: String as Identifier = "public",
        /// The tracking table.
        table: String as Identifier<LONGEST_TABLE> = "schema_migrations",
        /// The directory of the migration files.
        migrations: PathBuf as Location = "migrations",
        /// How strictly file names are read.
        naming: Naming as Naming = "strict",
        /// Whether sub-directories are read too.
        recursive: bool as Flag = "false",
        /// What a migration without a down file is.
        missing_down: MissingDown as MissingDown = "warn",
        /// The largest file that is read, in bytes.
        max_file_size: u64 as Size = "64MiB",
        /// What is done about a pending migration that is older than an applied one.
        out_of_order: Policy as Policy = "deny",
        /// What is done about an applied migration whose file is gone.
        missing_file: Policy as Policy = "deny",
        /// How dirty rows are settled.
        recovery: Recovery as Recovery = "evidence",
        /// How often a run waits for the disk.
        durability: Durability as Durability = "run",
        /// How long a statement waits for a lock.
        lock_timeout: Duration as Span<1> = "5s",
        /// How often a step that met a lock or a deadlock is tried again.
        lock_retries: u32 as Count<0> = "10",
        /// How long a statement may run; 0 is without a limit.
        statement_timeout: Duration as Span<0> = "0s",
        /// How long to wait for another run on the database; 0 asks once.
        lock_wait: Duration as Span<0> = "60s",
        /// How long connecting may take.
        connect_timeout: Duration as Span<1> = "10s",
        /// After how long the server ends a session that fell silent in a transaction.
        idle_in_transaction_timeout: Duration as Span<1> = "60s",
        /// How a change of the rows is noticed.
        watch: Watch as Watch = "poll",
        /// Whether what changes it takes a second person's approval.
        protected: bool as Flag = "false",
    }
}
