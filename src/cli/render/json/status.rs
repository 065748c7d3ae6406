//! The document of `status`.

use std::{collections::BTreeMap, fmt::Write as _};

use serde::Serialize;

use crate::{
    cli::render::{
        fleet::{self, Skew},
        json::{Failure, given, word},
        status::{self, Finding},
        text::rfc3339,
    },
    rpc::proto,
};

/// What `status` says.
#[derive(Debug, Serialize)]
pub struct Status {
    ok: bool,
    store: Option<&'static str>,
    versions: Vec<VersionEntry>,
    databases: Vec<DatabaseStatus>,
    findings: Vec<FindingEntry>,
}

#[derive(Debug, Serialize)]
struct VersionEntry {
    version: Option<String>,
    databases: usize,
    pending: u32,
    oldest_pending: Option<String>,
    dirty: usize,
}

#[derive(Debug, Serialize)]
struct FindingEntry {
    database: String,
    version: Option<String>,
    kind: &'static str,
    message: String,
}

#[derive(Debug, Serialize)]
struct DatabaseStatus {
    database: String,
    labels: BTreeMap<String, String>,
    current_version: Option<String>,
    applied: u32,
    pending: u32,
    running: u32,
    dirty: u32,
    drift: u32,
    missing: u32,
    out_of_order: u32,
    lock_holder: Option<String>,
    observed_at: Option<String>,
    failure: Option<Failure>,
    catalog_failure: Option<Failure>,
    notices: Vec<String>,
    migrations: Vec<MigrationStatus>,
}

#[derive(Debug, Serialize)]
struct MigrationStatus {
    version: String,
    state: String,
    applied_at: Option<String>,
    checksum: Option<String>,
    findings: Vec<String>,
    explanation: Option<String>,
}

impl Status {
    /// How databases stand; `ok` is what `--check` asks.
    pub fn new(answer: &proto::StatusResponse, findings: &[Finding]) -> Self {
        let databases = answer.databases.as_slice();
        let entry = |finding: &Finding| FindingEntry {
            database: finding.database.clone(),
            version: given(&finding.version),
            kind: finding.kind,
            message: finding.message.clone(),
        };
        let version = |(version, skew): (&str, Skew<'_>)| VersionEntry {
            version: given(version),
            databases: skew.databases.len(),
            pending: skew.pending,
            oldest_pending: given(skew.oldest_pending),
            dirty: skew.dirty,
        };
        Self {
            ok: !findings.iter().any(Finding::fails_check),
            store: super::store(answer.store()),
            versions: fleet::skew(databases).into_iter().map(version).collect(),
            databases: databases.iter().map(Into::into).collect(),
            findings: findings.iter().map(entry).collect(),
        }
    }

    /// How everything stands, without when it was looked at: what is equal is no change.
    pub fn state(&self) -> String {
        let mut text = String::new();
        for database in &self.databases {
            let DatabaseStatus {
                database,
                current_version,
                applied,
                pending,
                running,
                dirty,
                drift,
                missing,
                ..
            } = database;
            let _ = writeln!(
                text,
                "{database} {current_version:?} {applied} {pending} {running} {dirty} {drift} {missing}"
            );
        }
        for finding in &self.findings {
            let _ = writeln!(text, "{} {:?} {}", finding.database, finding.version, finding.message);
        }
        text
    }
}

impl From<&proto::DatabaseStatus> for DatabaseStatus {
    fn from(status: &proto::DatabaseStatus) -> Self {
        Self {
            database: status.database.clone(),
            labels: status.labels.clone().into_iter().collect(),
            current_version: given(&status.current_version),
            applied: status.applied,
            pending: status.pending,
            running: status::running(status),
            dirty: status::dirty(status),
            drift: status.drift,
            missing: status.missing,
            out_of_order: status.out_of_order,
            lock_holder: given(&status.lock_holder),
            observed_at: rfc3339(status.observed_at.as_ref()),
            failure: status.failure.as_ref().map(Into::into),
            catalog_failure: status.catalog_failure.as_ref().map(Into::into),
            notices: status.notices.clone(),
            migrations: status.migrations.iter().map(Into::into).collect(),
        }
    }
}

impl From<&proto::MigrationStatus> for MigrationStatus {
    fn from(migration: &proto::MigrationStatus) -> Self {
        Self {
            version: migration.version.clone(),
            state: word(migration.state().as_str_name(), "MIGRATION_STATE_"),
            applied_at: rfc3339(migration.applied_at.as_ref()),
            checksum: given(&migration.checksum),
            findings: migration.findings().map(|kind| word(kind.as_str_name(), "FINDING_KIND_")).collect(),
            explanation: given(&migration.explanation),
        }
    }
}
