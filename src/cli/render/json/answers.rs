//! The documents of `history`, `databases`, `repair`, `version`, `new` and `checksum`.

use std::{collections::BTreeMap, path::Path};

use serde::Serialize;

use crate::{
    cli::render::{
        json::{Failure, given},
        text::rfc3339,
    },
    migration::Checksum,
    rpc::{client::ClientError, proto},
};

/// What `history` says.
#[derive(Debug, Serialize)]
pub struct History {
    attempts: Vec<Attempt>,
    failures: Vec<DatabaseFailure>,
}

#[derive(Debug, Serialize)]
struct DatabaseFailure {
    database: String,
    failure: Option<Failure>,
}

#[derive(Debug, Serialize)]
struct Attempt {
    database: String,
    id: i64,
    operation_id: Option<String>,
    version: String,
    direction: String,
    mode: Option<String>,
    outcome: String,
    statements_done: i32,
    statements_total: i32,
    started_at: Option<String>,
    finished_at: Option<String>,
    duration_ms: Option<i64>,
    sqlstate: Option<String>,
    message: Option<String>,
    requested_by: String,
    instance: String,
    checksum: String,
    trace_id: Option<String>,
}

/// What `databases` says.
#[derive(Debug, Serialize)]
pub struct Databases {
    databases: Vec<Database>,
}

#[derive(Debug, Serialize)]
struct Database {
    name: String,
    labels: BTreeMap<String, String>,
    server: String,
    dbname: String,
    schema: String,
    table: String,
    migrations: String,
    protected: bool,
    origin: Option<Origin>,
    observation: Option<Observation>,
}

/// A file of the configuration with its line, or the id of a discovery.
#[derive(Debug, Serialize)]
struct Origin {
    kind: &'static str,
    name: String,
}

#[derive(Debug, Serialize)]
struct Observation {
    observed_at: Option<String>,
    reachable: bool,
    unreachable_reason: Option<String>,
    compared_at: Option<String>,
    version: Option<String>,
    applied: Option<u32>,
    pending: Option<u32>,
    dirty: Option<u32>,
}

/// What `reload` changed.
#[derive(Debug, Serialize)]
pub struct Reloaded {
    added: Vec<String>,
    changed: Vec<String>,
    removed: Vec<String>,
    databases: u32,
    failures: Vec<DiscoveryFailure>,
    restart: Vec<String>,
}

#[derive(Debug, Serialize)]
struct DiscoveryFailure {
    discovery: String,
    failure: Option<Failure>,
}

/// What `repair` did.
#[derive(Debug, Serialize)]
pub struct Repaired {
    operation_id: String,
    database: String,
    message: String,
    awaiting_approval: bool,
}

/// What `health` says of a daemon that serves.
#[derive(Debug, Serialize)]
pub struct Health {
    /// Where it was asked.
    pub address: String,
    /// Whether it takes requests.
    pub serving: bool,
}

/// What `version` says.
#[derive(Debug, Serialize)]
pub struct Versions {
    client: &'static str,
    address: String,
    server: Option<Server>,
    error: Option<Failure>,
}

#[derive(Debug, Serialize)]
struct Server {
    version: String,
    instance: String,
    uptime_seconds: u64,
    store: Option<&'static str>,
    leader: Option<String>,
    control_failure: Option<String>,
}

/// What `new` wrote.
#[derive(Debug, Serialize)]
pub struct Created {
    version: String,
    up: String,
    down: String,
}

/// What `checksum` says.
#[derive(Debug, Serialize)]
pub struct Checksums {
    files: Vec<FileChecksum>,
}

#[derive(Debug, Serialize)]
struct FileChecksum {
    file: String,
    sha256: String,
}

impl From<&proto::HistoryResponse> for History {
    fn from(history: &proto::HistoryResponse) -> Self {
        let failure = |result: &proto::DatabaseResult| DatabaseFailure {
            database: result.database.clone(),
            failure: result.failure.as_ref().map(Into::into),
        };
        Self {
            attempts: history.attempts.iter().map(Into::into).collect(),
            failures: history.failures.iter().map(failure).collect(),
        }
    }
}

impl From<&proto::Attempt> for Attempt {
    fn from(attempt: &proto::Attempt) -> Self {
        Self {
            database: attempt.database.clone(),
            id: attempt.id,
            operation_id: given(&attempt.operation_id),
            version: attempt.version.clone(),
            direction: attempt.direction.clone(),
            mode: given(&attempt.mode),
            outcome: attempt.outcome.clone(),
            statements_done: attempt.statements_done,
            statements_total: attempt.statements_total,
            started_at: rfc3339(attempt.started_at.as_ref()),
            finished_at: rfc3339(attempt.finished_at.as_ref()),
            duration_ms: attempt.finished_at.is_some().then_some(attempt.duration_ms),
            sqlstate: given(&attempt.sqlstate),
            message: given(&attempt.message),
            requested_by: attempt.requested_by.clone(),
            instance: attempt.instance.clone(),
            checksum: attempt.checksum.clone(),
            trace_id: given(&attempt.trace_id),
        }
    }
}

impl From<Vec<proto::Database>> for Databases {
    fn from(databases: Vec<proto::Database>) -> Self {
        let entry = |database: proto::Database| Database {
            name: database.name,
            labels: database.labels.into_iter().collect(),
            server: database.server,
            dbname: database.dbname,
            schema: database.schema,
            table: database.table,
            migrations: database.migrations,
            protected: database.protected,
            origin: database.origin.map(|origin| match origin {
                proto::database::Origin::File(name) => Origin { kind: "file", name },
                proto::database::Origin::Discovery(name) => Origin { kind: "discovery", name },
            }),
            observation: database.observation.as_ref().map(Into::into),
        };
        Self { databases: databases.into_iter().map(entry).collect() }
    }
}

impl From<&proto::DatabaseObservation> for Observation {
    fn from(seen: &proto::DatabaseObservation) -> Self {
        let compared = |count: u32| seen.compared_at.is_some().then_some(count);
        Self {
            observed_at: rfc3339(seen.observed_at.as_ref()),
            reachable: seen.reachable,
            unreachable_reason: given(&seen.unreachable_reason),
            compared_at: rfc3339(seen.compared_at.as_ref()),
            version: given(&seen.version),
            applied: compared(seen.applied),
            pending: compared(seen.pending),
            dirty: compared(seen.dirty),
        }
    }
}

impl From<proto::ReloadInventoryResponse> for Reloaded {
    fn from(answer: proto::ReloadInventoryResponse) -> Self {
        let failure = |failed: &proto::DiscoveryFailure| DiscoveryFailure {
            discovery: failed.discovery.clone(),
            failure: failed.failure.as_ref().map(Into::into),
        };
        Self {
            failures: answer.failures.iter().map(failure).collect(),
            added: answer.added,
            changed: answer.changed,
            removed: answer.removed,
            databases: answer.databases,
            restart: answer.restart,
        }
    }
}

impl From<proto::RepairResponse> for Repaired {
    fn from(done: proto::RepairResponse) -> Self {
        let proto::RepairResponse { database, message, operation_id, awaiting_approval } = done;
        Self { operation_id, database, message, awaiting_approval }
    }
}

impl Versions {
    /// This client's version, and what the daemon said.
    pub fn new(address: String, server: Result<&proto::GetVersionResponse, &ClientError>) -> Self {
        Self {
            client: env!("CARGO_PKG_VERSION"),
            address,
            error: server.err().map(|error| (&error.failure()).into()),
            server: server.ok().map(|server| Server {
                version: server.version.clone(),
                instance: server.instance.clone(),
                uptime_seconds: server.uptime_seconds,
                store: super::store(server.store()),
                leader: given(&server.leader),
                control_failure: given(&server.control_failure),
            }),
        }
    }
}

impl Created {
    /// The pair of files.
    pub fn new(version: &str, up: &Path, down: &Path) -> Self {
        let path = |path: &Path| path.to_string_lossy().into_owned();
        Self { version: version.to_owned(), up: path(up), down: path(down) }
    }
}

impl From<&[(&Path, Checksum)]> for Checksums {
    fn from(sums: &[(&Path, Checksum)]) -> Self {
        let entry = |(file, sum): &(&Path, Checksum)| FileChecksum {
            file: file.to_string_lossy().into_owned(),
            sha256: sum.hex(),
        };
        Self { files: sums.iter().map(entry).collect() }
    }
}
