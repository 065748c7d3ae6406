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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        engine::{Repair, RepairAction, Verb},
        fleet::operation::{
            DatabaseRecord,
            kept::{self, Beside},
            watcher::tests::with_id,
        },
        migration::TraceContext,
    };

    #[test]
    fn what_waits_for_an_approval_is_read_as_it_was_kept() {
        let operation = with_id(uuid::Uuid::from_u128(7));
        let mut record = operation.look(Clone::clone);
        let at = Timestamp::from_second(1_761_819_330).expect("a time");
        let plan: PlanDigest = format!("{}-{}", "a".repeat(32), "b".repeat(16)).parse().expect("a digest");
        let decision = Decision { is_approved: false, by: "bo".into(), at, reason: "no".into() };
        let approval = Approval {
            asked_by: "ana".into(),
            asked: at,
            until: at,
            plan,
            role: Role::Admin,
            protected: vec!["shop".into()],
            decision: None,
        };
        let repair = |action| Repair { action, version: "0003".into(), reason: "CHG-2".into() };
        record.verb = Verb::Repair(repair(RepairAction::Rename("0004_b".into())));
        record.wait_for_approval();
        assert_eq!(record.state, crate::migration::OperationState::Pending, "it takes none");
        let trace = TraceContext { trace: 1, span: 1, sampled: false };
        let beside = Beside { asked_plan: None, by: "ana".into(), trace };
        for decision in [None, Some(decision)] {
            record.approval = Some(Approval { decision, ..approval.clone() });
            let read = kept::read_operation(record.id, &kept::operation(&record, &beside));
            assert_eq!(read.map(|(read, _)| read), Ok(record.clone()));
        }
        record.approval = Some(approval);
        record.wait_for_approval();
        let document = kept::operation(&record, &beside);
        assert!(document.contains("\"awaiting_approval\""), "an older nexusd cannot read it, and leaves it");
        let step = PlannedStep {
            version: Version::from_row("0003_c"),
            action: StepAction::Resume { done: 2 },
            mode: Mode::NonTransactional,
            source: Some(Source::Journal),
            reason: "so".into(),
            header: ["a", "b", "c", "d"].map(str::to_owned),
            size: 9,
        };
        let planned = Planned { place: "h:1/d public.t".into(), steps: vec![step] };
        let database = DatabaseRecord {
            planned: Some(planned),
            has_moved: true,
            is_repaired: true,
            ..DatabaseRecord::waiting()
        };
        assert_eq!(kept::read_database(&kept::database(&database)), Ok(database.clone()));
        // As a nexusd kept it that knew of no approvals.
        for (done, has_moved) in [("[]", false), ("[{\"version\":\"0001_a\",\"action\":\"apply\"}]", true)] {
            let old = format!(
                "{{\"state\":\"waiting\",\"digest\":\"\",\"done\":{done},\"taken_back\":0,\
                 \"is_unknown\":false,\"waits_for\":\"\"}}"
            );
            assert_eq!(
                kept::read_database(&old).map(|read| (read.has_moved, read.planned)),
                Ok((has_moved, None))
            );
        }
    }
}
