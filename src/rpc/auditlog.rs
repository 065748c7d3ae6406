//! What requests ask for, as the audit log tells it; and the service that tells of the log itself.

use tonic::{Request, Response, Status};

use crate::{
    auditlog::{Asked, AuditLog},
    redact::plain,
    rpc::{
        convert::{self, LONGEST_NAME},
        proto::{self, audit_log_service_server::AuditLogService},
    },
};

/// The service that tells of the audit log.
pub struct AuditLogRpc {
    audit_log: AuditLog,
}

impl AuditLogRpc {
    /// A service over the daemon's audit log.
    pub fn new(audit_log: AuditLog) -> Self {
        Self { audit_log }
    }
}

#[tonic::async_trait]
impl AuditLogService for AuditLogRpc {
    async fn get_audit_log_head(
        &self,
        _: Request<proto::GetAuditLogHeadRequest>,
    ) -> Result<Response<proto::GetAuditLogHeadResponse>, Status> {
        let head = *self.audit_log.heads().borrow();
        Ok(Response::new(proto::GetAuditLogHeadResponse {
            chain: head.chain.to_string(),
            sequence: head.sequence,
            hash: head.hash.hex(),
            told_at: Some(convert::timestamp(jiff::Timestamp::now())),
            unwritable: self.audit_log.is_writable().err().map(|failure| convert::failure(&failure)),
        }))
    }
}

/// What every request that begins an operation says of itself.
fn asked(selection: Option<&proto::Selection>, context: Option<&proto::RequestContext>) -> Asked {
    let (selection, context) = (selection.cloned().unwrap_or_default(), context.cloned().unwrap_or_default());
    Asked {
        claimed: plain(&context.requested_by, LONGEST_NAME),
        request_id: context.request_id,
        databases: selection.databases,
        selectors: selection.labels,
        all: selection.all,
        reason: context.reason,
        ..Asked::default()
    }
}

/// A strategy that is named, or that is given with the request.
fn strategy(name: &str, given: Option<&proto::Strategy>) -> String {
    if given.is_some() { format!("{name} (of the request)").trim_start().to_owned() } else { name.to_owned() }
}

/// A flag, where it is set.
fn flag(is_set: bool) -> &'static str {
    if is_set { "true" } else { "" }
}

/// A number, where there is one.
fn number(number: u32) -> String {
    if number == 0 { String::new() } else { number.to_string() }
}

/// What an apply asks for.
pub(super) fn apply(message: &proto::ApplyRequest) -> Asked {
    let asked = asked(message.selection.as_ref(), message.context.as_ref());
    Asked { plan: message.plan_digest.clone(), dry_run: message.dry_run, ..asked }
        .with("to", &message.to)
        .with("limit", number(message.limit))
        .with("no_auto_recover", flag(message.no_auto_recover))
        .with("resume", flag(message.resume))
        .with("strategy", strategy(&message.strategy_name, message.strategy.as_ref()))
}

/// What a rollback asks for.
pub(super) fn rollback(message: &proto::RollbackRequest) -> Asked {
    let asked = asked(message.selection.as_ref(), message.context.as_ref());
    Asked { plan: message.plan_digest.clone(), dry_run: message.dry_run, ..asked }
        .with("to", &message.to)
        .with("steps", message.steps.map(|steps| steps.to_string()).unwrap_or_default())
        .with("no_auto_recover", flag(message.no_auto_recover))
        .with("strategy", strategy(&message.strategy_name, message.strategy.as_ref()))
}

/// What a recovery asks for.
pub(super) fn recover(message: &proto::RecoverRequest) -> Asked {
    let asked = asked(message.selection.as_ref(), message.context.as_ref());
    Asked { plan: message.plan_digest.clone(), dry_run: message.dry_run, ..asked }
        .with("resume", flag(message.resume))
        .with("strategy", strategy(&message.strategy_name, message.strategy.as_ref()))
}

/// What a repair asks for.
pub(super) fn repair(message: &proto::RepairRequest) -> Asked {
    let action = message.action().as_str_name().trim_start_matches("REPAIR_ACTION_").to_ascii_lowercase();
    Asked { reason: message.reason.clone(), ..asked(message.selection.as_ref(), message.context.as_ref()) }
        .with("action", action)
        .with("version", &message.version)
        .with("new_version", &message.new_version)
}

/// What an order to an operation asks for.
pub(super) fn order(id: &str, by: &str, accept_new_catalog: bool, reason: &str, plan: &str) -> Asked {
    let (claimed, reason, plan) = (plain(by, LONGEST_NAME), reason.to_owned(), plan.to_owned());
    let asked = Asked { claimed, reason, plan, ..Asked::default() };
    asked.with("operation", id).with("accept_new_catalog", flag(accept_new_catalog))
}

/// What somebody says who takes note of an alert.
pub(super) fn acknowledge(message: &proto::AcknowledgeAlertRequest) -> Asked {
    let until = message.until.and_then(|until| jiff::Timestamp::new(until.seconds, until.nanos).ok());
    Asked {
        claimed: plain(&message.requested_by, LONGEST_NAME),
        reason: message.reason.clone(),
        ..Asked::default()
    }
    .with("alert", &message.id)
    .with("until", until.map(|until| until.to_string()).unwrap_or_default())
}
