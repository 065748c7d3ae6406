//! The service that tells of operations and steers them.

use std::{collections::BTreeMap, pin::Pin, sync::Arc};

use futures_util::{Stream, StreamExt as _};
use prost::Message as _;
use tonic::{Request, Response, Status};

use crate::{
    access::Permit,
    auditlog::AuditLog,
    fleet::{
        Fleet, Order, Sight,
        operation::{DatabaseRecord, Encode, Operation, Record, Told},
    },
    migration::{DatabaseState, EventKind, Failure, GateOutcome, OperationState, event::WaveOf},
    redact::plain,
    rpc::{
        access, approval, auditlog, convert,
        proto::{self, operation_service_server::OperationService},
        status::of_failure,
    },
};

/// How many operations are listed where the request does not say.
const DEFAULT_LIMIT: usize = 50;

type Events<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

/// The service over the operations of one fleet.
pub struct OperationRpc {
    fleet: Arc<Fleet>,
    audit_log: AuditLog,
}

/// What is said with an order.
#[derive(Default)]
struct Spoken {
    accept_new_catalog: bool,
    reason: String,
    plan: String,
}

impl OperationRpc {
    /// A service over the fleet's operations.
    pub fn new(fleet: Arc<Fleet>, audit_log: AuditLog) -> Self {
        Self { fleet, audit_log }
    }

    /// An order that somebody gives.
    fn order(&self, id: String, by: &str, permit: Permit, spoken: Spoken) -> Order {
        let Spoken { accept_new_catalog, reason, plan } = spoken;
        let asked = auditlog::order(&id, by, accept_new_catalog, &reason, &plan);
        let call = self.audit_log.call(&permit, &asked);
        let (by, reason) = (convert::requested_by(&permit, by), plain(&reason, convert::LONGEST_REASON));
        Order { id, by, permit, call, accept_new_catalog, reason, plan: None }
    }

    fn find(&self, id: &str, permit: &Permit) -> Result<Arc<Operation>, Status> {
        self.fleet.operation(id, permit).map_err(|failure| of_failure(&failure))
    }
}

/// The events of an operation that may be seen, from the first to the last.
pub(super) fn follow(operation: &Arc<Operation>, sight: Sight) -> Events<proto::Event> {
    let waves = operation
        .look(|record| sight.of(record).waves.iter().map(|it| it.wave.name.clone()).collect::<Vec<_>>());
    let follower = (operation.watch(), Shown { sight, waves });
    let events = futures_util::stream::unfold(follower, |(mut watcher, shown)| async move {
        let event = match watcher.next().await? {
            Ok(Told::Here(event)) => convert::event(&event).and_then(|event| shown.of(event)).map(Ok),
            Ok(Told::Elsewhere(event)) => read_event(&event.body).map(|event| shown.of(event)).transpose(),
            Err(failure) => Some(Err(of_failure(&failure))),
        };
        Some((event, (watcher, shown)))
    });
    Box::pin(events.filter_map(futures_util::future::ready))
}

/// What is shown of an operation to one caller.
struct Shown {
    sight: Sight,
    /// The names of its waves, as far as they may be known.
    waves: Vec<String>,
}

/// Encodes events for other daemons, as they are sent to whoever watches.
pub fn encode() -> Encode {
    Arc::new(|event| convert::event(event).map(|event| event.encode_to_vec()))
}

impl Shown {
    /// What a caller may know of something that happened in the operation.
    fn of(&self, mut event: proto::Event) -> Option<proto::Event> {
        use proto::event::Kind;
        let sight = &self.sight;
        if sight.sees_everything() {
            return Some(event);
        }
        if !event.database.is_empty() && !sight.sees(&event.database) {
            return None;
        }
        match &mut event.kind {
            Some(Kind::OperationStarted(it)) => it.databases.retain(|name| sight.sees(name)),
            Some(Kind::OperationFinished(it)) => {
                it.not_begun.retain(|name| sight.sees(name));
                it.why.clear();
            }
            Some(Kind::OperationChanged(it)) => it.why.clear(),
            Some(Kind::WaveStarted(it)) => self.rename(it.wave.as_mut()),
            Some(Kind::WaveFinished(it)) => self.rename(it.wave.as_mut()),
            Some(Kind::GateChecked(it)) => {
                it.reason.clear();
                self.rename(it.wave.as_mut());
            }
            _ => {}
        }
        Some(event)
    }

    /// A wave may be called after a label of databases that are hidden.
    fn rename(&self, wave: Option<&mut proto::WaveOf>) {
        if let Some(wave) = wave {
            let known = (wave.number as usize).checked_sub(1).and_then(|index| self.waves.get(index));
            wave.name = known.cloned().unwrap_or_else(|| format!("wave {}", wave.number));
        }
    }
}

fn read_event(body: &[u8]) -> Result<proto::Event, Status> {
    proto::Event::decode(body)
        .map_err(|error| Status::internal(format!("a kept event cannot be read: {error}")))
}

#[tonic::async_trait]
impl OperationService for OperationRpc {
    type WatchOperationStream = Events<proto::WatchOperationResponse>;

    async fn list_operations(
        &self,
        request: Request<proto::ListOperationsRequest>,
    ) -> Result<Response<proto::ListOperationsResponse>, Status> {
        let sight = self.fleet.sight(&access::permit(&request)?);
        self.fleet.what_is_kept_is_known().map_err(|failure| of_failure(&failure))?;
        let asked = request.into_inner();
        let limit = if asked.limit == 0 { DEFAULT_LIMIT } else { asked.limit as usize };
        let is_meant = |record: &Record| {
            let state = self::state(record.state);
            let is_about = |name: &String| record.databases.contains_key(name);
            !record.databases.is_empty()
                && (asked.states.is_empty() || asked.states().any(|meant| meant == state))
                && (asked.databases.is_empty() || asked.databases.iter().any(is_about))
        };
        let operations = self.fleet.list_operations();
        let summaries = operations.iter().filter_map(|operation| {
            operation.look(|record| Some(sight.of(record)).filter(|it| is_meant(it)).map(|it| summary(&it)))
        });
        Ok(Response::new(proto::ListOperationsResponse { operations: summaries.take(limit).collect() }))
    }

    async fn get_operation(
        &self,
        request: Request<proto::GetOperationRequest>,
    ) -> Result<Response<proto::GetOperationResponse>, Status> {
        let permit = access::permit(&request)?;
        let sight = self.fleet.sight(&permit);
        let operation = self.find(&request.into_inner().id, &permit)?;
        let operation = operation.look(|record| whole(&sight.of(record)));
        Ok(Response::new(proto::GetOperationResponse { operation: Some(operation) }))
    }

    async fn watch_operation(
        &self,
        request: Request<proto::WatchOperationRequest>,
    ) -> Result<Response<Self::WatchOperationStream>, Status> {
        let permit = access::permit(&request)?;
        let sight = self.fleet.sight(&permit);
        let operation = self.find(&request.into_inner().id, &permit)?;
        let wrap = |event| proto::WatchOperationResponse { event: Some(event) };
        Ok(Response::new(Box::pin(follow(&operation, sight).map(move |event| event.map(wrap)))))
    }

    async fn pause_operation(
        &self,
        request: Request<proto::PauseOperationRequest>,
    ) -> Result<Response<proto::PauseOperationResponse>, Status> {
        let permit = access::permit(&request)?;
        let asked = request.into_inner();
        let order = self.order(asked.id, &asked.requested_by, permit, Spoken::default());
        let operation = obeyed(&order, self.fleet.pause(&order).await)?;
        Ok(Response::new(proto::PauseOperationResponse { operation }))
    }

    async fn resume_operation(
        &self,
        request: Request<proto::ResumeOperationRequest>,
    ) -> Result<Response<proto::ResumeOperationResponse>, Status> {
        let permit = access::permit(&request)?;
        let asked = request.into_inner();
        let spoken = Spoken { accept_new_catalog: asked.accept_new_catalog, ..Spoken::default() };
        let order = self.order(asked.id, &asked.requested_by, permit, spoken);
        let operation = obeyed(&order, self.fleet.resume(&order).await)?;
        Ok(Response::new(proto::ResumeOperationResponse { operation }))
    }

    async fn cancel_operation(
        &self,
        request: Request<proto::CancelOperationRequest>,
    ) -> Result<Response<proto::CancelOperationResponse>, Status> {
        let permit = access::permit(&request)?;
        let asked = request.into_inner();
        let order = self.order(asked.id, &asked.requested_by, permit, Spoken::default());
        let operation = obeyed(&order, self.fleet.cancel(&order).await)?;
        Ok(Response::new(proto::CancelOperationResponse { operation }))
    }

    async fn retry_operation(
        &self,
        request: Request<proto::RetryOperationRequest>,
    ) -> Result<Response<proto::RetryOperationResponse>, Status> {
        let permit = access::permit(&request)?;
        let asked = request.into_inner();
        let spoken = Spoken { accept_new_catalog: asked.accept_new_catalog, ..Spoken::default() };
        let order = self.order(asked.id, &asked.requested_by, permit, spoken);
        let operation = obeyed(&order, self.fleet.retry(&order).await)?;
        Ok(Response::new(proto::RetryOperationResponse { operation }))
    }

    async fn approve_operation(
        &self,
        request: Request<proto::ApproveOperationRequest>,
    ) -> Result<Response<proto::ApproveOperationResponse>, Status> {
        let permit = access::permit(&request)?;
        let asked = request.into_inner();
        let plan = asked.plan_digest;
        let spoken = Spoken { reason: asked.reason, plan: plan.clone(), ..Spoken::default() };
        let order = self.order(asked.id, &asked.requested_by, permit, spoken);
        let approve = async {
            let plan = if plan.is_empty() { None } else { Some(plan.parse()?) };
            self.fleet.approve(&Order { plan, ..order.clone() }).await
        };
        let operation = obeyed(&order, approve.await)?;
        Ok(Response::new(proto::ApproveOperationResponse { operation }))
    }

    async fn reject_operation(
        &self,
        request: Request<proto::RejectOperationRequest>,
    ) -> Result<Response<proto::RejectOperationResponse>, Status> {
        let permit = access::permit(&request)?;
        let asked = request.into_inner();
        let spoken = Spoken { reason: asked.reason, ..Spoken::default() };
        let order = self.order(asked.id, &asked.requested_by, permit, spoken);
        let operation = obeyed(&order, self.fleet.reject(&order).await)?;
        Ok(Response::new(proto::RejectOperationResponse { operation }))
    }
}

/// Has the audit log know what came of an order, and answers it.
fn obeyed(
    order: &Order,
    result: Result<Arc<Operation>, Failure>,
) -> Result<Option<proto::Operation>, Status> {
    order.call.answered(result.as_ref().map(|_| ()));
    result.map(|operation| Some(operation.look(summary))).map_err(|failure| of_failure(&failure))
}

/// Tells an operation without its databases.
fn summary(record: &Record) -> proto::Operation {
    let selection = proto::Selection {
        databases: record.selection.databases.clone(),
        labels: record.selection.labels.clone(),
        all: record.selection.all,
    };
    let waves = record.waves.iter().map(|wave| {
        let databases = wave.wave.databases.iter().filter_map(|name| record.databases.get(name));
        proto::OperationWave {
            name: wave.wave.name.clone(),
            is_canary: wave.wave.is_canary,
            is_settled: wave.is_settled,
            counts: counts(databases),
        }
    });
    proto::Operation {
        id: record.id.to_string(),
        verb: record.verb.name().to_owned(),
        requested_by: record.requested_by.clone(),
        reason: record.reason.clone(),
        selection: Some(selection),
        state: state(record.state).into(),
        why: record.why.clone(),
        attempt: record.attempt,
        waves: waves.collect(),
        counts: counts(record.databases.values()),
        databases: Vec::new(),
        created_at: Some(convert::timestamp(record.created)),
        changed_at: Some(convert::timestamp(record.changed)),
        ended_at: record.ended.map(convert::timestamp),
        approval: record.approval.as_ref().map(approval::told),
        strategy: record.strategy.to_string(),
        repair: record.verb.repair(),
    }
}

/// Tells an operation with its databases.
fn whole(record: &Record) -> proto::Operation {
    let waves: BTreeMap<_, _> = record
        .waves
        .iter()
        .flat_map(|wave| wave.wave.databases.iter().map(|name| (name.as_str(), wave.wave.name.as_str())))
        .collect();
    let databases = record.databases.iter().map(|(name, database)| {
        let wave = waves.get(name.as_str()).copied().unwrap_or_default();
        self::database(name, wave, database)
    });
    proto::Operation { databases: databases.collect(), ..summary(record) }
}

fn database(name: &str, wave: &str, record: &DatabaseRecord) -> proto::OperationDatabase {
    let done = record.done.iter().map(|(version, action)| proto::OperationStep {
        version: version.to_string(),
        action: convert::step_action(*action).into(),
    });
    proto::OperationDatabase {
        name: name.to_owned(),
        wave: wave.to_owned(),
        state: database_state(record.state).into(),
        catalog_digest: record.digest.clone(),
        done: done.collect(),
        applied: record.applied().iter().map(ToString::to_string).collect(),
        failure: record.failure.as_ref().map(convert::failure),
        waits_for: record.waits_for.clone(),
        gate: record
            .gate
            .as_ref()
            .map_or(proto::GateOutcome::Unspecified, |(outcome, _)| gate_outcome(*outcome))
            .into(),
        gate_reason: record.gate.as_ref().map(|(_, reason)| reason.clone()).unwrap_or_default(),
        started_at: record.started.map(convert::timestamp),
        ended_at: record.ended.map(convert::timestamp),
        planned: record.planned.iter().flat_map(|planned| &planned.steps).map(approval::step).collect(),
    }
}

fn counts<'a>(databases: impl Iterator<Item = &'a DatabaseRecord>) -> Vec<proto::OperationDatabaseCount> {
    let mut counts = BTreeMap::<DatabaseState, u32>::new();
    for database in databases {
        *counts.entry(database.state).or_default() += 1;
    }
    let count = |(state, count)| proto::OperationDatabaseCount { state: database_state(state).into(), count };
    counts.into_iter().map(count).collect()
}

/// Tells what happened to an operation as a whole; `None` of any other event.
pub(super) fn happened(kind: &EventKind) -> Option<proto::event::Kind> {
    use proto::event::Kind;
    Some(match kind {
        EventKind::OperationStarted { verb, databases, requested_by, reason, waves, attempt } => {
            Kind::OperationStarted(proto::OperationStarted {
                databases: databases.clone(),
                waves: *waves,
                attempt: *attempt,
                requested_by: requested_by.clone(),
                reason: reason.clone(),
                verb: (*verb).to_owned(),
            })
        }
        // The first event and the last one tell of these.
        EventKind::OperationChanged {
            from: None | Some(OperationState::Pending),
            to: OperationState::Pending | OperationState::Running,
            ..
        } => return None,
        EventKind::OperationChanged { to, .. } if to.is_at_rest() => return None,
        EventKind::OperationChanged { from, to, why, by } => {
            Kind::OperationChanged(proto::OperationChanged {
                from: from.map_or(proto::OperationState::Unspecified, state).into(),
                to: state(*to).into(),
                why: why.clone(),
                requested_by: by.clone(),
            })
        }
        EventKind::WaveStarted { wave, databases } => {
            Kind::WaveStarted(proto::WaveStarted { wave: Some(wave_of(wave)), databases: *databases })
        }
        EventKind::WaveFinished { wave, failed } => {
            Kind::WaveFinished(proto::WaveFinished { wave: Some(wave_of(wave)), failed: *failed })
        }
        EventKind::GateChecked { wave, outcome, reason } => Kind::GateChecked(proto::GateChecked {
            wave: Some(wave_of(wave)),
            outcome: gate_outcome(*outcome).into(),
            reason: reason.clone(),
        }),
        EventKind::OperationFinished { state, why, not_begun, .. } => {
            Kind::OperationFinished(proto::OperationFinished {
                succeeded: *state == OperationState::Succeeded,
                state: self::state(*state).into(),
                why: why.clone(),
                not_begun: not_begun.clone(),
            })
        }
        _ => return None,
    })
}

fn wave_of(wave: &WaveOf) -> proto::WaveOf {
    proto::WaveOf { name: wave.name.clone(), number: wave.number, total: wave.total }
}

fn state(state: OperationState) -> proto::OperationState {
    match state {
        OperationState::AwaitingApproval => proto::OperationState::AwaitingApproval,
        OperationState::Pending => proto::OperationState::Pending,
        OperationState::Running => proto::OperationState::Running,
        OperationState::Paused => proto::OperationState::Paused,
        OperationState::Halted => proto::OperationState::Halted,
        OperationState::Cancelling => proto::OperationState::Cancelling,
        OperationState::Succeeded => proto::OperationState::Succeeded,
        OperationState::Failed => proto::OperationState::Failed,
        OperationState::Cancelled => proto::OperationState::Cancelled,
    }
}

fn database_state(state: DatabaseState) -> proto::OperationDatabaseState {
    match state {
        DatabaseState::Waiting => proto::OperationDatabaseState::Waiting,
        DatabaseState::Running => proto::OperationDatabaseState::Running,
        DatabaseState::Succeeded => proto::OperationDatabaseState::Succeeded,
        DatabaseState::UpToDate => proto::OperationDatabaseState::UpToDate,
        DatabaseState::Failed => proto::OperationDatabaseState::Failed,
        DatabaseState::Cancelled => proto::OperationDatabaseState::Cancelled,
        DatabaseState::Skipped => proto::OperationDatabaseState::Skipped,
        DatabaseState::RolledBack => proto::OperationDatabaseState::RolledBack,
    }
}

fn gate_outcome(outcome: GateOutcome) -> proto::GateOutcome {
    match outcome {
        GateOutcome::Passed => proto::GateOutcome::Passed,
        GateOutcome::Failed => proto::GateOutcome::Failed,
        GateOutcome::Inconclusive => proto::GateOutcome::Inconclusive,
    }
}
