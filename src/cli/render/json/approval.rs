//! Approvals as documents.

use serde::Serialize;

use crate::{
    cli::render::{
        json::{given, word},
        text::rfc3339,
    },
    rpc::proto,
};

/// The approval of a second person that an operation takes.
#[derive(Debug, Serialize)]
pub(super) struct Approval {
    asked_by: String,
    asked_at: Option<String>,
    expires_at: Option<String>,
    plan_digest: String,
    role: String,
    protected: Vec<String>,
    decision: Option<String>,
    decided_by: Option<String>,
    decided_at: Option<String>,
    reason: Option<String>,
}

impl From<&proto::OperationApproval> for Approval {
    fn from(approval: &proto::OperationApproval) -> Self {
        let decision = approval.decision();
        Self {
            asked_by: approval.asked_by.clone(),
            asked_at: rfc3339(approval.asked_at.as_ref()),
            expires_at: rfc3339(approval.expires_at.as_ref()),
            plan_digest: approval.plan_digest.clone(),
            role: approval.role.clone(),
            protected: approval.protected.clone(),
            decision: (decision != proto::ApprovalDecision::Unspecified)
                .then(|| word(decision.as_str_name(), "APPROVAL_DECISION_")),
            decided_by: given(&approval.decided_by),
            decided_at: rfc3339(approval.decided_at.as_ref()),
            reason: given(&approval.reason),
        }
    }
}
