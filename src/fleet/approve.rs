//! Approvals: what changes a protected database waits until a second person has said yes to the very plan
//! that was asked for.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use jiff::Timestamp;

use crate::{
    access::{Permit, Role},
    engine::Verb,
    fleet::{
        Fleet, Order,
        inventory::Member,
        operation::{
            Approval, Command, DatabaseRecord, Operation, Planned, Record, approval::Decision, state,
        },
        plan::FleetPlan,
        strategy::{Strategy, Wave},
    },
    migration::{
        Basis, Code, DatabaseState, Failure, OperationState, Version, event::DatabaseReport, failure::Kind,
    },
    postgres::executor::Author,
};

/// How many details a refusal lists.
const MOST_DETAILS: usize = 50;

/// How often the clock is looked at: it may be set while an approval is waited for.
const LOOK: Duration = Duration::from_secs(30);

/// What an approval is asked for.
pub(super) struct Asking<'a> {
    /// Who asks, and for which operation.
    pub(super) author: Author,
    /// The role that it takes.
    pub(super) role: Role,
    /// What is done.
    pub(super) verb: &'a Verb,
    /// How.
    pub(super) strategy: &'a Strategy,
    /// In which waves.
    pub(super) waves: Vec<Wave>,
    /// On which databases; what is left to be done there of the verb.
    pub(super) members: Vec<(Arc<Member>, Verb)>,
}

/// What asking came to.
pub(super) struct Asked {
    /// The approval that it takes; `None` where nothing of what is protected would be changed.
    pub(super) approval: Option<Approval>,
    /// What the runs are held to: those of all databases, or of the protected ones, where nothing is to be
    /// done.
    pub(super) held: BTreeMap<String, (Basis, Planned)>,
}

impl Asked {
    /// Has a record wait for it.
    pub(super) fn put(self, record: &mut Record) {
        record.forget_undecided();
        if self.approval.is_some() {
            // Of what is no longer one of the fleet's, nothing is approved.
            let waits = |it: &&mut DatabaseRecord| it.state == DatabaseState::Waiting;
            record.databases.values_mut().filter(waits).for_each(DatabaseRecord::hold_to_no_plan);
        }
        record.approval = self.approval.or(record.approval.take());
        for (name, (basis, planned)) in self.held {
            if let Some(database) = record.databases.get_mut(&name) {
                (database.basis, database.planned) = (Some(basis), Some(planned));
                database.has_moved = false;
            }
        }
    }
}

impl Fleet {
    /// Begins an operation that waits for it. Refused to whoever asked for the operation, and where what
    /// would be done is not what was asked for any more: then it is over.
    pub async fn approve(self: &Arc<Self>, order: &Order) -> Result<Arc<Operation>, Failure> {
        self.command(order, Command::Approve).await
    }

    /// Ends an operation that waits for an approval.
    pub async fn reject(self: &Arc<Self>, order: &Order) -> Result<Arc<Operation>, Failure> {
        self.command(order, Command::Reject).await
    }

    /// Plans what would change protected databases, so that somebody can approve it; `None` where none is
    /// protected.
    pub(super) async fn ask_for_approval(&self, asking: Asking<'_>) -> Result<Option<Asked>, Failure> {
        let places: BTreeMap<_, _> = asking
            .members
            .iter()
            .map(|(member, _)| (member.name().to_owned(), member.place_name()))
            .collect();
        let protected = asking.members.iter().filter(|(member, _)| member.database.is_protected);
        let protected: BTreeSet<_> = protected.map(|(member, _)| member.name().to_owned()).collect();
        if protected.is_empty() {
            return Ok(None);
        }
        let Asking { author, role, verb, strategy, waves, members } = asking;
        let plan = self.plan_each(members, &author, (verb, strategy, waves)).await;
        let is_touched = |report: &&DatabaseReport| {
            let does_something = has_steps(report) || matches!(verb, Verb::Repair(_));
            protected.contains(&report.database) && (report.result.is_err() || does_something)
        };
        let touched: Vec<_> =
            plan.databases.iter().filter(is_touched).map(|report| report.database.clone()).collect();
        if touched.is_empty() {
            let held = held(plan, &places, |name| protected.contains(name));
            return Ok(Some(Asked { approval: None, held }));
        }
        let Some(digest) = plan.digest.clone() else { return Err(no_plan(&plan)) };
        let asked = Timestamp::now();
        let approval = Approval {
            asked_by: author.requested_by,
            asked,
            until: asked.saturating_add(self.settings.approval_limit).unwrap_or(Timestamp::MAX),
            plan: digest,
            role,
            protected: touched,
            decision: None,
        };
        Ok(Some(Asked { approval: Some(approval), held: held(plan, &places, |_| true) }))
    }

    /// The order of somebody who may approve the operation, or reject it, with the plan that it is about.
    /// Of who they are the daemon is sure that they have asked; the operation's owner makes sure of the
    /// rest once more.
    pub(super) fn as_approver(
        &self,
        operation: &Operation,
        order: &Order,
        command: Command,
    ) -> Result<Order, Failure> {
        state::obey(operation.state(), command)?;
        refuse_unproven(&order.permit)?;
        let Some(approval) = operation.look(|record| record.approval.clone()) else {
            return Err(none_is_taken());
        };
        let sight = self.sight(&order.permit.clone().at_least(approval.role));
        operation.look(|record| sight.require(record.databases.keys()))?;
        match command {
            Command::Approve => approval.refuse(&order.by, order.plan.as_ref(), Timestamp::now())?,
            _ => approval.refuse_own(&order.by)?,
        }
        Ok(Order { plan: Some(approval.plan), ..order.clone() })
    }

    /// Refuses to go on with what changes protected databases to whoever does not prove who they are.
    pub(super) fn refuse_unproven_on(&self, operation: &Operation, permit: &Permit) -> Result<(), Failure> {
        let inventory = self.inventory();
        let is_protected = |name: &String| inventory.get(name).is_some_and(|it| it.database.is_protected);
        let has_protected = operation.look(|record| record.databases.keys().any(is_protected));
        if has_protected { refuse_unproven(permit) } else { Ok(()) }
    }

    /// Refuses to go on with what took a higher role to ask for: a repair of a protected database, or a gate of
    /// one's own on it.
    pub(super) fn refuse_lesser(&self, operation: &Operation, permit: &Permit) -> Result<(), Failure> {
        let role = operation.look(|record| record.approval.as_ref().map(|approval| approval.role));
        let Some(role) = role else { return Ok(()) };
        let sight = self.sight(&permit.clone().at_least(role));
        operation.look(|record| sight.require(record.databases.keys()))
    }

    /// Decides about an operation that this daemon owns.
    pub(super) async fn decide(
        self: &Arc<Self>,
        operation: &Arc<Operation>,
        order: &Order,
        command: Command,
    ) -> Result<(), Failure> {
        state::obey(operation.state(), command)?;
        let Some(approval) = operation.look(|record| record.approval.clone()) else {
            return Err(none_is_taken());
        };
        let is_approved = command == Command::Approve;
        let mut members = None;
        if is_approved {
            approval.refuse(&order.by, order.plan.as_ref(), Timestamp::now())?;
            self.admit()?;
            members = Some(self.as_it_was_asked(operation, &approval).await?);
        }
        let (by, reason) = (order.by.clone(), order.reason.clone());
        let decision = Decision { is_approved, by, at: Timestamp::now(), reason };
        let obeyed = operation.obey(command, &order.by, |record, _| {
            record.decide(decision, &approval.plan)?;
            // The inventory may have been read anew since.
            if let Some(members) = members {
                operation.with_work(|work| work.members = Arc::new(members));
            }
            Ok(())
        });
        obeyed.map(drop)
    }

    /// Makes sure that what would be done now is what the approval was asked for; where it is not, the
    /// operation is over. Returns its databases, as they are now.
    async fn as_it_was_asked(
        &self,
        operation: &Arc<Operation>,
        approval: &Approval,
    ) -> Result<BTreeMap<String, Arc<Member>>, Failure> {
        let count = operation.moved();
        let members = self.members_of(operation);
        let asked = operation.look(Record::clone);
        let mut moved = Vec::new();
        let mut to_plan = Vec::new();
        let waiting = asked.databases.iter().filter(|(_, it)| it.state == DatabaseState::Waiting);
        for (name, database) in waiting {
            let Some(planned) = &database.planned else { continue };
            match (members.get(name), database.rest_of(&asked.verb)) {
                (None, _) => moved.push(format!("{name}: it is no longer one of the fleet's")),
                (Some(member), _) if member.place_name() != planned.place => {
                    moved.push(format!(
                        "{name}: it is {} now, and was {}",
                        member.place_name(),
                        planned.place
                    ));
                }
                (Some(member), Some(rest)) => to_plan.push((member.clone(), rest)),
                (Some(_), None) => {}
            }
        }
        let author = operation.to_work_with().author;
        let names = to_plan.iter().map(|(member, _)| member.name()).collect();
        let whole = (&asked.verb, &asked.strategy, asked.waves_of(&names));
        let now = self.plan_each(to_plan, &author, whole).await;
        for report in &now.databases {
            let name = &report.database;
            let then = asked.databases.get(name).and_then(|database| database.basis.as_ref());
            match (now.bases.get(name), then) {
                (Some(now), Some(then)) => {
                    moved
                        .extend(then.hold(now).err().map(|failure| format!("{name}: {}", in_full(&failure))));
                }
                // What does not answer has not moved: it may be tried again.
                _ if report
                    .result
                    .as_ref()
                    .is_err_and(|failure| failure.code.kind() == Kind::Unavailable) =>
                {
                    return Err(no_plan(&now));
                }
                _ => moved.push(format!("{name}: {}", why_none(report))),
            }
        }
        if moved.is_empty()
            && let Some(digest) = &now.digest
            && approval.plan.hold(digest).is_ok()
        {
            return Ok(members);
        }
        let why = format!("what was to be approved has moved: {}", first(&moved));
        operation.go_unmoved(count, OperationState::Cancelling, &why);
        moved.truncate(MOST_DETAILS);
        let message = "The plan has moved since the approval was asked for: the operation is over";
        Err(Failure::new(Code::ApprovalStale, message).details(moved))
    }

    /// What it takes to go on with an operation: the approval of what is left of it, where that changes
    /// protected databases and was not approved, or is tried again, or with other files.
    pub(super) async fn ask_to_go_on(
        &self,
        operation: &Arc<Operation>,
        order: &Order,
        command: Command,
        members: &BTreeMap<String, Arc<Member>>,
    ) -> Result<Option<Asked>, Failure> {
        let record = operation.look(Record::clone);
        let left: Vec<_> = record
            .databases
            .iter()
            .filter(|(_, database)| database.is_left(command))
            .filter_map(|(name, database)| {
                Some((members.get(name)?.clone(), database.rest_of(&record.verb)?))
            })
            .collect();
        let mut protected = left.iter().filter(|(member, _)| member.database.is_protected);
        let is_approved = protected.all(|(member, _)| record.may_change(member.name(), &member.place_name()));
        if is_approved && command == Command::Resume && !order.accept_new_catalog {
            return Ok(None);
        }
        if !left.iter().any(|(member, _)| member.database.is_protected) {
            return Ok(None);
        }
        if !record.state.is_at_rest() {
            let message = "What the operation would go on with has not been approved";
            let hint = "cancel it; then nexusctl operation retry asks for an approval of what is left";
            return Err(Failure::new(Code::NotApproved, message).hint(hint));
        }
        let mut author = operation.to_work_with().author;
        author.requested_by.clone_from(&order.by);
        let role = record.approval.as_ref().map_or(Role::Operator, |approval| approval.role);
        let waves = record.waves_of(&left.iter().map(|(member, _)| member.name()).collect());
        let (verb, strategy) = (&record.verb, &record.strategy);
        self.ask_for_approval(Asking { author, role, verb, strategy, waves, members: left }).await
    }

    /// Refuses to change a protected database without an approval of just that one, whatever has led there:
    /// the inventory may be another one than the operation began with. Returns the migrations that were approved,
    /// where the database is protected.
    pub(super) fn approved(
        &self,
        operation: &Operation,
        member: &Member,
    ) -> Result<Option<BTreeSet<Version>>, Failure> {
        let (name, place) = (member.name(), member.place_name());
        let is_protected = |member: &Member| member.database.is_protected;
        let is_protected =
            is_protected(member) || self.inventory().get(name).is_some_and(|member| is_protected(member));
        if !is_protected {
            return Ok(None);
        }
        if operation.look(|record| record.may_change(name, &place)) {
            let versions =
                |planned: &Planned| planned.steps.iter().map(|step| step.version.clone()).collect();
            return Ok(operation.look(|it| it.databases.get(name)?.planned.as_ref().map(versions)));
        }
        Err(Failure::new(Code::NotApproved, "The database is protected, and nobody has approved this"))
    }
}

/// Waits until an operation is approved; says whether it is. When the time for that is over, so is it.
pub(super) async fn is_given(operation: &Operation) -> bool {
    let drain = operation.to_work_with().stop.drain;
    while operation.state() == OperationState::AwaitingApproval && !drain.is_cancelled() {
        let moved = operation.moved();
        let Some(approval) = operation.look(|record| record.approval.clone()) else { return false };
        let left = approval.until.duration_since(Timestamp::now());
        let Some(left) = Duration::try_from(left).ok().filter(|left| !left.is_zero()) else {
            let limit = Duration::try_from(approval.until.duration_since(approval.asked)).unwrap_or_default();
            let limit = humantime::format_duration(limit);
            operation.go_unmoved(
                moved,
                OperationState::Cancelling,
                &format!("nobody approved it within {limit}"),
            );
            return false;
        };
        tokio::select! {
            () = operation.moves_on(moved) => {}
            () = drain.cancelled() => {}
            () = tokio::time::sleep(left.min(LOOK)) => {}
        }
    }
    // Somebody may have paused it by now, which does not take the approval back.
    let is_granted = operation.look(|record| record.approval.as_ref().is_some_and(Approval::is_granted));
    is_granted && operation.state() != OperationState::Cancelling && !drain.is_cancelled()
}

/// Refuses whoever does not prove who they are: nobody could be sure that another one approves.
pub(super) fn refuse_unproven(permit: &Permit) -> Result<(), Failure> {
    if permit.caller().is_proven() {
        return Ok(());
    }
    let message = "A protected database is changed by two people who are known, and nothing says who asks";
    Err(Failure::new(Code::IdentityUnproven, message))
}

fn none_is_taken() -> Failure {
    Failure::new(Code::OperationState, "The operation takes no approval")
}

fn has_steps(report: &DatabaseReport) -> bool {
    report.plan.as_ref().is_some_and(|plan| !plan.steps.is_empty())
}

/// What the runs of these databases are held to.
fn held(
    plan: FleetPlan,
    places: &BTreeMap<String, String>,
    is_meant: impl Fn(&str) -> bool,
) -> BTreeMap<String, (Basis, Planned)> {
    let FleetPlan { databases, mut bases, .. } = plan;
    let meant = databases.into_iter().filter(|report| is_meant(&report.database));
    let held = meant.filter_map(|DatabaseReport { database, plan, .. }| {
        let place = places.get(&database).cloned().unwrap_or_default();
        let steps = plan.iter().flat_map(|plan| &plan.steps).map(Into::into).collect();
        let basis = bases.remove(&database)?;
        Some((database, (basis, Planned { place, steps })))
    });
    held.collect()
}

/// Why there is no plan that could be approved.
fn no_plan(plan: &FleetPlan) -> Failure {
    let without = plan.databases.iter().filter(|report| report.result.is_err());
    let mut details: Vec<_> =
        without.map(|report| format!("{}: {}", report.database, why_none(report))).collect();
    let message = format!("There is no plan that could be approved: {}", first(&details));
    details.truncate(MOST_DETAILS);
    Failure::new(Code::NoPlanToApprove, message).details(details)
}

fn why_none(report: &DatabaseReport) -> String {
    report
        .result
        .as_ref()
        .err()
        .map(|failure| format!("{} [{}]", in_full(failure), failure.code))
        .unwrap_or_default()
}

/// A failure with all that it is about, in a line.
fn in_full(failure: &Failure) -> String {
    if failure.details.is_empty() {
        return failure.message.clone();
    }
    format!("{}: {}", failure.message, failure.details.join("; "))
}

fn first(details: &[String]) -> &str {
    details.first().map_or("its digest is another one", String::as_str)
}
