//! The audits over gRPC.

use std::{collections::HashMap, sync::Arc};

use jiff::Timestamp;
use tonic::{Request, Response, Status};

use crate::{
    fleet::audit::{Audits, Scheduled},
    migration::{AuditReport, Observation, Severity},
    rpc::{
        access, convert,
        proto::{self, audit_service_server::AuditService},
        status::of_failure,
    },
};

/// How many audits `ListAudits` tells where the request does not say.
const DEFAULT_LIMIT: usize = 20;

/// The service over the audits of one fleet.
pub struct Service {
    audits: Arc<Audits>,
}

impl Service {
    /// A service over audits.
    pub fn new(audits: Arc<Audits>) -> Self {
        Self { audits }
    }

    /// An audit with its databases.
    async fn whole(&self, report: &AuditReport) -> proto::Audit {
        let files = self.audits.files(report).await.into_iter();
        let files =
            files.map(|files| files.into_iter().map(|(version, path)| (version, path.display().to_string())));
        let databases = report.databases.iter().zip(files).map(|(observation, files)| {
            proto::AuditedDatabase { files: files.collect(), ..database(observation) }
        });
        proto::Audit { databases: databases.collect(), ..audit(report) }
    }
}

#[tonic::async_trait]
impl AuditService for Service {
    async fn run_audit(
        &self,
        request: Request<proto::RunAuditRequest>,
    ) -> Result<Response<proto::RunAuditResponse>, Status> {
        let permit = access::permit(&request)?;
        let selection = convert::selection(request.into_inner().selection);
        let report = self.audits.request(selection, permit).await.map_err(|failure| of_failure(&failure))?;
        Ok(Response::new(proto::RunAuditResponse { audit: Some(self.whole(&report).await) }))
    }

    async fn list_audits(
        &self,
        request: Request<proto::ListAuditsRequest>,
    ) -> Result<Response<proto::ListAuditsResponse>, Status> {
        let permit = access::permit(&request)?;
        let limit = match request.into_inner().limit {
            0 => DEFAULT_LIMIT,
            limit => limit as usize,
        };
        let audits = self.audits.list(limit, &permit).await.map_err(|failure| of_failure(&failure))?;
        let now = Timestamp::now();
        Ok(Response::new(proto::ListAuditsResponse {
            audits: audits.iter().map(|report| audit(report)).collect(),
            schedules: self.audits.scheduled().iter().map(|scheduled| schedule(scheduled, now)).collect(),
        }))
    }

    async fn get_audit(
        &self,
        request: Request<proto::GetAuditRequest>,
    ) -> Result<Response<proto::GetAuditResponse>, Status> {
        let permit = access::permit(&request)?;
        let report = self.audits.find(&request.into_inner().id, &permit).await;
        let report = report.map_err(|failure| of_failure(&failure))?;
        Ok(Response::new(proto::GetAuditResponse { audit: Some(self.whole(&report).await) }))
    }
}

/// An audit as in lists.
fn audit(report: &AuditReport) -> proto::Audit {
    let [info, warning, critical] = Severity::ALL.map(|severity| report.count(severity));
    proto::Audit {
        id: report.id.to_string(),
        name: report.name.clone(),
        started_at: Some(convert::timestamp(report.started)),
        ended_at: Some(convert::timestamp(report.ended)),
        databases: Vec::new(),
        checked: u32::try_from(report.databases.len()).unwrap_or(u32::MAX),
        info,
        warning,
        critical,
    }
}

fn database(observation: &Observation) -> proto::AuditedDatabase {
    let findings = observation.findings.iter();
    let unchecked = observation.unknown.iter().map(|&kind| convert::finding_kind(kind).into());
    let counts = observation.counts.unwrap_or_default();
    proto::AuditedDatabase {
        database: observation.database.clone(),
        findings: findings.map(|finding| convert::finding(&observation.database, finding)).collect(),
        checked_at: Some(convert::timestamp(observation.time)),
        applied: counts.applied,
        pending: counts.pending,
        unreadable: observation.counts.is_none(),
        files: HashMap::new(),
        unchecked: unchecked.collect(),
    }
}

fn schedule(scheduled: &Scheduled, now: Timestamp) -> proto::AuditSchedule {
    let Scheduled { name, schedule, .. } = scheduled;
    proto::AuditSchedule {
        name: name.clone(),
        schedule: schedule.expression().to_owned(),
        time_zone: schedule.time_zone().to_owned(),
        next_at: schedule.next(now).map(convert::timestamp),
    }
}
