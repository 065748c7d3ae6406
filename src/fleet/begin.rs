//! Starting operations.

use std::{collections::BTreeSet, sync::Arc};

use jiff::Timestamp;
use tracing::Instrument as _;
use uuid::Uuid;

use crate::{
    auditlog::{Allowed, Call},
    engine::Verb,
    fleet::{
        Fleet, Overlap, Request, Shared,
        approve::{self, Asked, Asking},
        inventory::Member,
        operation::{DatabaseRecord, Operation, Operations, Record, WaveRecord, Work},
        plan,
        selector::Need,
        sight::refuse_further,
        strategy::{OnFailure, Wave},
    },
    migration::{Code, Failure, OperationState},
    postgres::executor::Author,
};

impl Fleet {
    /// Starts a verb on the selected databases, or returns the operation that the same request id
    /// started before.
    pub async fn start(self: &Arc<Self>, request: &Request, verb: Verb) -> Result<Arc<Operation>, Failure> {
        let id = request.id.unwrap_or_else(Uuid::now_v7);
        let known = of_request(&self.operations(), id, &verb, request)?;
        if let Some(known) = known {
            return self.permitted(known, &request.permit);
        }
        self.admit()?;
        if request.strategy.on_failure == OnFailure::RollBack && !matches!(verb, Verb::Apply(_)) {
            let message = format!("What a {} did is not rolled back: --on-failure stop", verb.name());
            return Err(Failure::new(Code::BadStrategy, message));
        }
        let members = self.inventory().select(&request.selection, Need::Named, &request.permit)?;
        refuse_further(request, &members, &verb)?;
        let waves = plan::waves(&request.strategy, &members)?;
        let held = request.plan.as_ref().map(|held| held.bases(&members)).transpose()?;
        let author = self.author(id, request);
        let asked = self.ask_first(request, &author, &verb, &waves, &members).await?;
        let now = Timestamp::now();
        let waiting = |member: &Arc<Member>| {
            let basis = held.and_then(|held| held.get(member.name())).cloned();
            (member.name().to_owned(), DatabaseRecord { basis, ..DatabaseRecord::waiting() })
        };
        let mut record = Record {
            id,
            verb,
            requested_by: request.requested_by.clone(),
            reason: request.reason.clone(),
            selection: request.selection.clone(),
            strategy: request.strategy.clone(),
            plan: request.plan.as_ref().map(|held| held.digest().clone()),
            approval: None,
            state: OperationState::Pending,
            why: String::new(),
            attempt: 1,
            pauses_until: None,
            undoing: None,
            waves: waves.into_iter().map(|wave| WaveRecord { wave, is_settled: false }).collect(),
            databases: members.iter().map(waiting).collect(),
            created: now,
            changed: now,
            ended: None,
        };
        if let Some(asked) = asked {
            asked.put(&mut record);
            record.wait_for_approval();
        }
        let work = Work {
            sink: self.sink(id, Some(author.trace)),
            author,
            stop: self.stop_of_an_attempt(None),
            members: Arc::new(members.into_iter().map(|it| (it.name().to_owned(), it)).collect()),
            catalogs: Arc::default(),
            takes_over: false,
        };
        let asked_plan = record.plan.clone();
        let keeping = self.shared().map(Shared::keeping);
        let operation = Arc::new(Operation::new(record, work, keeping, asked_plan));
        if let Some(known) = self.add(&operation, request)? {
            return self.permitted(known, &request.permit);
        }
        // Whoever asked may go away meanwhile.
        let (fleet, kept, call) = (self.clone(), operation.clone(), request.call.clone());
        // The operation's span belongs under the request's.
        let begin = async move { fleet.create_and_begin(kept, &call).await }.in_current_span();
        let created = self.tasks.spawn("create", begin).await;
        match created
            .unwrap_or_else(|_| Err(Failure::new(Code::Internal, "The operation could not be begun")))
        {
            Ok(true) => Ok(operation),
            Ok(false) => {
                let known = self.of_another_daemon(id, &operation.verb(), request).await?;
                self.permitted(known, &request.permit)
            }
            Err(failure) if failure.code == Code::AuditLogUnwritable => Err(failure),
            Err(failure) => {
                let hint = format!("whether it was begun shows then: nexusctl operation show {id}");
                Err(failure.hint(hint))
            }
        }
    }

    /// What is to be approved before a new operation begins; `None` where nothing is protected.
    async fn ask_first(
        &self,
        request: &Request,
        author: &Author,
        verb: &Verb,
        waves: &[Wave],
        members: &[Arc<Member>],
    ) -> Result<Option<Asked>, Failure> {
        if !members.iter().any(|member| member.database.is_protected) {
            return Ok(None);
        }
        approve::refuse_unproven(&request.permit)?;
        let asking = Asking {
            author: author.clone(),
            role: request.permit.least(),
            verb,
            strategy: &request.strategy,
            waves: waves.to_vec(),
            members: members.iter().map(|member| (member.clone(), verb.clone())).collect(),
        };
        let asked = self.ask_for_approval(asking).await?;
        let approval = asked.as_ref().and_then(|asked| asked.approval.as_ref());
        if let (Some(held), Some(approval)) = (&request.plan, approval) {
            held.digest().hold(&approval.plan)?;
        }
        Ok(asked)
    }

    /// Records that a new operation is begun, keeps it where others find it, and runs it; false where its
    /// id is another one's already.
    async fn create_and_begin(
        self: Arc<Self>,
        operation: Arc<Operation>,
        call: &Call,
    ) -> Result<bool, Failure> {
        let databases = operation.look(|record| record.databases.keys().cloned().collect());
        let allowed = Allowed { operation: Some(operation.id()), databases };
        let created = match call.allow(&allowed).await {
            Ok(()) => self.create(&operation).await,
            Err(failure) => Err(failure),
        };
        if !matches!(created, Ok(true)) {
            self.operations().take_back(&operation);
            return created;
        }
        operation.tell_begun();
        self.work_on(&operation);
        created
    }

    /// Puts an operation among those that are known; returns the one that the same request started before.
    fn add(&self, operation: &Arc<Operation>, request: &Request) -> Result<Option<Arc<Operation>>, Failure> {
        let mut operations = self.operations();
        let (id, verb) = (operation.id(), operation.verb());
        if let Some(known) = of_request(&operations, id, &verb, request)? {
            return Ok(Some(known));
        }
        self.refuse_overlap(&operations, id, &operation.look(Record::names))?;
        operations.add(operation.clone());
        Ok(None)
    }

    /// The operation that the same request started on another daemon.
    async fn of_another_daemon(
        self: &Arc<Self>,
        id: Uuid,
        verb: &Verb,
        request: &Request,
    ) -> Result<Arc<Operation>, Failure> {
        if let Some(shared) = self.shared() {
            self.mirror(shared, id).await?;
        }
        let known = of_request(&self.operations(), id, verb, request)?;
        known.ok_or_else(|| Failure::new(Code::Internal, format!("The operation {id} was kept, and is gone")))
    }

    /// Refuses to begin an operation about databases that an unfinished one is about, where that is the
    /// policy. Where it is not, a database waits for its lock until the other one is done with it.
    pub(super) fn refuse_overlap(
        &self,
        operations: &Operations,
        id: Uuid,
        databases: &BTreeSet<String>,
    ) -> Result<(), Failure> {
        if self.settings.overlap == Overlap::Queue {
            return Ok(());
        }
        let mut details = Vec::new();
        let is_in_the_way =
            |operation: &&Arc<Operation>| operation.id() != id && !operation.state().is_at_rest();
        for operation in operations.newest().filter(is_in_the_way) {
            let mut shared: BTreeSet<String> = operation.look(|record| {
                let shared = record.databases.keys().filter(|name| databases.contains(*name));
                shared.cloned().collect()
            });
            if let Some(first) = shared.pop_first() {
                let more =
                    if shared.is_empty() { String::new() } else { format!(" and {} more", shared.len()) };
                details.push(format!("{first}{more}: operation {}", operation.line()));
            }
        }
        if details.is_empty() {
            return Ok(());
        }
        Err(Failure::new(Code::Overlap, "Another operation is about the same database").details(details))
    }
}

/// The operation that a request id started before.
fn of_request(
    operations: &Operations,
    id: Uuid,
    verb: &Verb,
    request: &Request,
) -> Result<Option<Arc<Operation>>, Failure> {
    match operations.get(id) {
        Some(known) if !known.is_of(verb, request) => {
            let message =
                format!("The request id {id} was used for another request: {}", known.verb().name());
            Err(Failure::new(Code::BadRequest, message))
        }
        known => Ok(known),
    }
}
