//! How approvals are told.

use crate::{
    fleet::operation::approval::{Approval, PlannedStep},
    migration::Mode,
    rpc::{convert, proto},
};

/// Tells an approval.
pub(super) fn told(approval: &Approval) -> proto::OperationApproval {
    let decision = approval.decision.as_ref();
    let decided = match decision {
        None => proto::ApprovalDecision::Unspecified,
        Some(decision) if decision.is_approved => proto::ApprovalDecision::Approved,
        Some(_) => proto::ApprovalDecision::Rejected,
    };
    proto::OperationApproval {
        asked_by: approval.asked_by.clone(),
        asked_at: Some(convert::timestamp(approval.asked)),
        expires_at: Some(convert::timestamp(approval.until)),
        plan_digest: approval.plan.to_string(),
        role: approval.role.as_str().to_owned(),
        protected: approval.protected.clone(),
        decision: decided.into(),
        decided_by: decision.map(|it| it.by.clone()).unwrap_or_default(),
        decided_at: decision.map(|it| convert::timestamp(it.at)),
        reason: decision.map(|it| it.reason.clone()).unwrap_or_default(),
    }
}

/// Tells a step that is to be approved.
pub(super) fn step(step: &PlannedStep) -> proto::Step {
    let [description, impact, rollback_impact, data_loss] = step.header.clone();
    proto::Step {
        version: step.version.to_string(),
        action: convert::step_action(step.action).into(),
        transactional: step.mode == Mode::Transactional,
        source: convert::script_source(step.source).into(),
        reason: step.reason.clone(),
        description,
        impact,
        rollback_impact,
        data_loss,
        size_bytes: step.size,
    }
}
