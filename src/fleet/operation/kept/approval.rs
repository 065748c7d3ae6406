//! Approvals as they are kept.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::{
    access::Role,
    fleet::operation::{
        approval::{Approval, Decision, Planned, PlannedStep},
        kept::forms::StepActionForm,
    },
    migration::{Mode, PlanDigest, StepAction, Version, plan::Source},
};

#[derive(Serialize, Deserialize)]
pub(super) struct KeptApproval {
    asked_by: String,
    asked: Timestamp,
    until: Timestamp,
    plan: String,
    role: String,
    protected: Vec<String>,
    decision: Option<KeptDecision>,
}

#[derive(Serialize, Deserialize)]
struct KeptDecision {
    is_approved: bool,
    by: String,
    at: Timestamp,
    reason: String,
}

/// What was planned for a database.
#[derive(Serialize, Deserialize)]
pub(super) struct KeptPlan {
    place: String,
    steps: Vec<KeptPlannedStep>,
}

#[derive(Serialize, Deserialize)]
struct KeptPlannedStep {
    version: String,
    #[serde(with = "StepActionForm")]
    action: StepAction,
    is_transactional: bool,
    from_journal: Option<bool>,
    reason: String,
    header: [String; 4],
    size: u64,
}

impl From<&Approval> for KeptApproval {
    fn from(of: &Approval) -> Self {
        let decision = |it: Decision| KeptDecision {
            is_approved: it.is_approved,
            by: it.by,
            at: it.at,
            reason: it.reason,
        };
        Self {
            asked_by: of.asked_by.clone(),
            asked: of.asked,
            until: of.until,
            plan: of.plan.to_string(),
            role: of.role.as_str().to_owned(),
            protected: of.protected.clone(),
            decision: of.decision.clone().map(decision),
        }
    }
}

impl KeptApproval {
    pub(super) fn revive(self) -> Result<Approval, String> {
        let Self { asked_by, asked, until, plan, role, protected, decision } = self;
        let known = Role::ALL.into_iter().find(|known| known.as_str() == role);
        let revived = |it: KeptDecision| Decision {
            is_approved: it.is_approved,
            by: it.by,
            at: it.at,
            reason: it.reason,
        };
        Ok(Approval {
            asked_by,
            asked,
            until,
            plan: plan.parse::<PlanDigest>().map_err(|failure| failure.to_string())?,
            role: known.ok_or_else(|| format!("the role {role:?} is not known"))?,
            protected,
            decision: decision.map(revived),
        })
    }
}

impl From<&Planned> for KeptPlan {
    fn from(of: &Planned) -> Self {
        let step = |step: &PlannedStep| KeptPlannedStep {
            version: step.version.to_string(),
            action: step.action,
            is_transactional: step.mode == Mode::Transactional,
            from_journal: step.source.map(|source| source == Source::Journal),
            reason: step.reason.clone(),
            header: step.header.clone(),
            size: step.size,
        };
        Self { place: of.place.clone(), steps: of.steps.iter().map(step).collect() }
    }
}

impl From<KeptPlan> for Planned {
    fn from(kept: KeptPlan) -> Self {
        let source = |journal| if journal { Source::Journal } else { Source::File };
        let step = |step: KeptPlannedStep| PlannedStep {
            version: Version::from_row(&step.version),
            action: step.action,
            mode: if step.is_transactional { Mode::Transactional } else { Mode::NonTransactional },
            source: step.from_journal.map(source),
            reason: step.reason,
            header: step.header,
            size: step.size,
        };
        Self { place: kept.place, steps: kept.steps.into_iter().map(step).collect() }
    }
}
