//! PURE: a second person's approval: what it is about, and who may give it until when.
//!
//! It is asked for together with the operation and is bound to a plan: to its digest, and to the place of
//! each database. Whoever approves has read that very plan; where anything of it has moved, there is
//! nothing to be approved any more.

use std::collections::BTreeSet;

use jiff::Timestamp;

use crate::{
    access::Role,
    engine::Verb,
    fleet::{
        operation::{Command, DatabaseRecord, Record},
        strategy::Wave,
    },
    migration::{
        Code, DatabaseState, Failure, Mode, OperationState, PlanDigest, Step, StepAction, Version,
        plan::Source,
    },
};

/// An approval that an operation takes, or took, before its attempt begins.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Approval {
    /// Who asked for what is to be approved: nobody approves what they asked for.
    pub asked_by: String,
    /// When.
    pub asked: Timestamp,
    /// Until when it can be given.
    pub until: Timestamp,
    /// The digest of the plan that it is about.
    pub plan: PlanDigest,
    /// The role that it takes on every database of the operation: that of the operation itself.
    pub role: Role,
    /// The protected databases that would be changed.
    pub protected: Vec<String>,
    /// What was decided; `None` as long as nothing is.
    pub decision: Option<Decision>,
}

/// What a second person decided.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Decision {
    /// Whether it may begin.
    pub is_approved: bool,
    /// Who.
    pub by: String,
    /// When.
    pub at: Timestamp,
    /// Why, in their words; may be empty.
    pub reason: String,
}

/// What was planned for a database when it was last planned as a whole with its operation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Planned {
    /// Which database of which server that was: a name may come to mean another one.
    pub place: String,
    /// What would be done, in order.
    pub steps: Vec<PlannedStep>,
}

/// One step, as it is shown to whoever approves it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlannedStep {
    /// The migration.
    pub version: Version,
    /// What would be done.
    pub action: StepAction,
    /// Whether in one transaction.
    pub mode: Mode,
    /// Where the SQL comes from; `None` where none is run.
    pub source: Option<Source>,
    /// Why it is done, where that has to be said.
    pub reason: String,
    /// What the file's header says: a description, the impact, that of a rollback, and what is lost.
    pub header: [String; 4],
    /// How large the file is, in bytes.
    pub size: u64,
}

impl From<&Step> for PlannedStep {
    fn from(step: &Step) -> Self {
        let header = &step.header;
        Self {
            version: step.version.clone(),
            action: step.action,
            mode: step.mode,
            source: step.source,
            reason: step.reason.clone(),
            header: [&header.description, &header.impact, &header.rollback_impact, &header.data_loss]
                .map(Clone::clone),
            size: step.size,
        }
    }
}

impl Approval {
    /// Whether it was given.
    pub fn is_granted(&self) -> bool {
        self.decision.as_ref().is_some_and(|decision| decision.is_approved)
    }

    /// What is waited for, in a sentence without a full stop.
    pub fn waits_for(&self) -> String {
        let who = if self.asked_by.is_empty() { "whoever asked" } else { &self.asked_by };
        format!("waits for the approval of somebody other than {who}, until {:.0}", self.until)
    }

    /// Refuses a decision of whoever asked. Names are compared without their case: two that differ in nothing
    /// else are one person's.
    pub fn refuse_own(&self, by: &str) -> Result<(), Failure> {
        if by.is_empty() || self.asked_by.is_empty() || by.to_lowercase() == self.asked_by.to_lowercase() {
            let message =
                format!("{} asked for the operation: somebody else has to decide about it", self.asked_by);
            return Err(Failure::new(Code::OwnApproval, message));
        }
        Ok(())
    }

    /// Refuses an approval by `by` of the plan that they have seen.
    pub fn refuse(&self, by: &str, plan: Option<&PlanDigest>, now: Timestamp) -> Result<(), Failure> {
        self.refuse_own(by)?;
        if now >= self.until {
            let message = format!("The approval comes too late: it could be given until {:.0}", self.until);
            return Err(Failure::new(Code::ApprovalTooLate, message));
        }
        match plan {
            Some(plan) if *plan != self.plan => {
                let message = "What waits for an approval is not the plan that was seen";
                let details = vec![format!("seen: {plan}"), format!("waits: {}", self.plan)];
                let hint = "look at it again: nexusctl operation show; then approve what is there";
                Err(Failure::new(Code::ApprovalStale, message).details(details).hint(hint))
            }
            _ => Ok(()),
        }
    }
}

impl Record {
    /// What is waited for before it may begin; `None` where that is nothing.
    pub(super) fn waits_for_approval(&self) -> Option<String> {
        let approval = self.approval.as_ref().filter(|approval| approval.decision.is_none())?;
        Some(approval.waits_for())
    }

    /// A new one waits for its approval, where it takes one.
    pub(in crate::fleet) fn wait_for_approval(&mut self) {
        if let Some(why) = self.waits_for_approval() {
            (self.state, self.why) = (OperationState::AwaitingApproval, why);
        }
    }

    /// Waits no longer for what nobody has decided. What was approved stays so: it may have to be taken back.
    pub(in crate::fleet) fn forget_undecided(&mut self) {
        self.approval = self.approval.take().filter(Approval::is_granted);
    }

    /// Notes what was decided about the approval of this plan, unless it is another one by now.
    pub(in crate::fleet) fn decide(&mut self, decision: Decision, plan: &PlanDigest) -> Result<(), Failure> {
        let Some(approval) = &mut self.approval else {
            return Err(Failure::new(Code::OperationState, "The operation takes no approval"));
        };
        if decision.is_approved {
            approval.refuse(&decision.by, Some(plan), decision.at)?;
        }
        approval.decision = Some(decision);
        Ok(())
    }

    /// Its waves, with these of their databases.
    pub(in crate::fleet) fn waves_of(&self, names: &BTreeSet<&str>) -> Vec<Wave> {
        let mut waves: Vec<_> = self.waves.iter().map(|wave| wave.wave.clone()).collect();
        for wave in &mut waves {
            wave.databases.retain(|name| names.contains(name.as_str()));
        }
        waves.retain(|wave| !wave.databases.is_empty());
        waves
    }

    /// Whether a protected database at this place may be changed: as it is approved, or where its run is held
    /// to a plan in which nothing is done.
    pub(in crate::fleet) fn may_change(&self, database: &str, place: &str) -> bool {
        let Some(database) = self.databases.get(database) else { return false };
        let Some(planned) = &database.planned else { return false };
        let is_granted = self.approval.as_ref().is_some_and(Approval::is_granted);
        let does_nothing = planned.steps.is_empty() && !matches!(self.verb, Verb::Repair(_));
        planned.place == place && (is_granted || (does_nothing && database.held_to().is_some()))
    }
}

impl DatabaseRecord {
    /// Whether a command to go on is about it: what waits, or all that is not well.
    pub(in crate::fleet) fn is_left(&self, command: Command) -> bool {
        match command {
            Command::Retry => !self.state.is_well(),
            _ => self.state == DatabaseState::Waiting,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn digest(first: char) -> PlanDigest {
        format!("{}-{}", first.to_string().repeat(32), "b".repeat(16)).parse().expect("a digest")
    }

    #[test]
    fn who_may_approve_what_and_when() {
        let at = |second| Timestamp::from_second(second).expect("a time");
        let approval = Approval {
            asked_by: "ana".to_owned(),
            asked: at(0),
            until: at(3_600),
            plan: digest('a'),
            role: Role::Operator,
            protected: vec!["shop".to_owned()],
            decision: None,
        };
        let check = |by: &str, plan: Option<PlanDigest>, now, expected: Result<(), Code>| {
            let refused = approval.refuse(by, plan.as_ref(), at(now)).map_err(|failure| failure.code);
            assert_eq!(refused, expected, "{by} {plan:?} {now}");
        };
        check("bo", None, 3_599, Ok(()));
        check("bo", Some(digest('a')), 1, Ok(()));
        check("ana", None, 1, Err(Code::OwnApproval));
        check("Ana", Some(digest('a')), 1, Err(Code::OwnApproval));
        check("", None, 1, Err(Code::OwnApproval));
        check("bo", None, 3_600, Err(Code::ApprovalTooLate));
        check("bo", Some(digest('c')), 1, Err(Code::ApprovalStale));
        let of_nobody = Approval { asked_by: String::new(), ..approval.clone() };
        assert_eq!(of_nobody.refuse("bo", None, at(1)).map_err(|it| it.code), Err(Code::OwnApproval));
        let expected = "waits for the approval of somebody other than ana, until 1970-01-01T01:00:00Z";
        assert_eq!(approval.waits_for(), expected);
    }
}
