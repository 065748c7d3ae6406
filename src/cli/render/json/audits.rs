//! The documents of `audit run`, `audit show` and `audit list`.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::{
    cli::render::{
        audit::took,
        json::{given, word},
        text::rfc3339,
    },
    rpc::proto,
};

/// What `audit run` and `audit show` say.
#[derive(Debug, Serialize)]
pub struct Audited {
    #[serde(flatten)]
    audit: Audit,
    databases: Vec<DatabaseAudit>,
}

/// What `audit list` says.
#[derive(Debug, Serialize)]
pub struct Audits {
    audits: Vec<Audit>,
    schedules: Vec<AuditSchedule>,
}

#[derive(Debug, Serialize)]
struct Audit {
    id: String,
    name: String,
    started_at: Option<String>,
    ended_at: Option<String>,
    duration_ms: u64,
    checked: u32,
    critical: u32,
    warning: u32,
    info: u32,
}

#[derive(Debug, Serialize)]
struct DatabaseAudit {
    database: String,
    checked_at: Option<String>,
    applied: Option<u32>,
    pending: Option<u32>,
    findings: Vec<Finding>,
    unchecked: Vec<String>,
    files: BTreeMap<String, String>,
}

#[derive(Debug, Serialize)]
struct Finding {
    kind: String,
    severity: String,
    subject: Option<String>,
    message: String,
    evidence: Vec<String>,
    remedy: String,
}

#[derive(Debug, Serialize)]
struct AuditSchedule {
    name: String,
    schedule: String,
    time_zone: String,
    next_at: Option<String>,
}

impl From<&proto::Audit> for Audited {
    fn from(audit: &proto::Audit) -> Self {
        Self { audit: audit.into(), databases: audit.databases.iter().map(Into::into).collect() }
    }
}

impl From<&proto::ListAuditsResponse> for Audits {
    fn from(listed: &proto::ListAuditsResponse) -> Self {
        let schedule = |schedule: &proto::AuditSchedule| AuditSchedule {
            name: schedule.name.clone(),
            schedule: schedule.schedule.clone(),
            time_zone: schedule.time_zone.clone(),
            next_at: rfc3339(schedule.next_at.as_ref()),
        };
        Self {
            audits: listed.audits.iter().map(Into::into).collect(),
            schedules: listed.schedules.iter().map(schedule).collect(),
        }
    }
}

impl From<&proto::Audit> for Audit {
    fn from(audit: &proto::Audit) -> Self {
        Self {
            id: audit.id.clone(),
            name: audit.name.clone(),
            started_at: rfc3339(audit.started_at.as_ref()),
            ended_at: rfc3339(audit.ended_at.as_ref()),
            duration_ms: u64::try_from(took(audit).as_millis()).unwrap_or(u64::MAX),
            checked: audit.checked,
            critical: audit.critical,
            warning: audit.warning,
            info: audit.info,
        }
    }
}

impl From<&proto::AuditedDatabase> for DatabaseAudit {
    fn from(database: &proto::AuditedDatabase) -> Self {
        let number = |number: u32| (!database.unreadable).then_some(number);
        Self {
            database: database.database.clone(),
            checked_at: rfc3339(database.checked_at.as_ref()),
            applied: number(database.applied),
            pending: number(database.pending),
            findings: database.findings.iter().map(Into::into).collect(),
            unchecked: database.unchecked().map(|kind| word(kind.as_str_name(), "FINDING_KIND_")).collect(),
            files: database.files.clone().into_iter().collect(),
        }
    }
}

impl From<&proto::Finding> for Finding {
    fn from(finding: &proto::Finding) -> Self {
        Self {
            kind: word(finding.kind().as_str_name(), "FINDING_KIND_"),
            severity: word(finding.severity().as_str_name(), "SEVERITY_"),
            subject: given(&finding.subject),
            message: finding.message.clone(),
            evidence: finding.evidence.clone(),
            remedy: finding.remedy.clone(),
        }
    }
}
