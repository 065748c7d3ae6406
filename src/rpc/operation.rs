//! The service that tells of operations and steers them.

use std::{collections::BTreeMap, pin::Pin, sync::Arc};

use futures_util::{Stream, StreamExt as _};
use prost::Message as _;
use tonic::{Request, Response, Status};

use crate::{
    access::Permit,
    fleet::{
        Fleet, Order, Sight,
        operation::{DatabaseRecord, Encode, Operation, Record, Told, Watcher},
    },
    migration::{DatabaseState, EventKind, GateOutcome, OperationState, event::WaveOf},
    rpc::{
        access, approval, convert,
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
}

impl OperationRpc {
    /// A service over the fleet's operations.
    pub fn new(fleet: Arc<Fleet>) -> Self {
        Self { fleet }
    }

    fn find(&self, id: &str, permit: &Permit) -> Result<Arc<Operation>, Status> {
        self.fleet.operation(id, permit).map_err(|failure| of_failure(&failure))
    }
}

/// The events of an operation that may be seen, from the first to the last.
pub(super) fn follow(watcher: Watcher, sight: Sight) -> Events<proto::Event> {
    let events = futures_util::stream::unfold((watcher, sight), |(mut watcher, sight)| async move {
        let event = match watcher.next().await? {
            Ok(Told::Here(event)) => convert::event(&event).and_then(|event| seen(event, &sight)).map(Ok),
            Ok(Told::Elsewhere(event)) => {
                read_event(&event.body).map(|event| seen(event, &sight)).transpose()
            }
            Err(failure) => Some(Err(of_failure(&failure))),
        };
        Some((event, (watcher, sight)))
    });
    Box::pin(events.filter_map(futures_util::future::ready))
}

/// Encodes events for other daemons, as they are sent to whoever watches.
pub fn encode() -> Encode {
    Arc::new(|event| convert::event(event).map(|event| event.encode_to_vec()))
}

/// What a caller may know of something that happened in an operation.
fn seen(mut event: proto::Event, sight: &Sight) -> Option<proto::Event> {
    use proto::event::Kind;
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
        Some(Kind::GateChecked(it)) => it.reason.clear(),
        _ => {}
    }
    Some(event)
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
        self.fleet.operations_are_known().map_err(|failure| of_failure(&failure))?;
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
        let watcher = self.find(&request.into_inner().id, &permit)?.watch();
        let wrap = |event| proto::WatchOperationResponse { event: Some(event) };
        Ok(Response::new(Box::pin(follow(watcher, sight).map(move |event| event.map(wrap)))))
    }

    async fn pause_operation(
        &self,
        request: Request<proto::PauseOperationRequest>,
    ) -> Result<Response<proto::PauseOperationResponse>, Status> {
        let permit = access::permit(&request)?;
        let asked = request.into_inner();
        let operation = self.fleet.pause(&order(asked.id, &asked.requested_by, permit)).await;
        let operation = operation.map_err(|failure| of_failure(&failure))?.look(summary);
        Ok(Response::new(proto::PauseOperationResponse { operation: Some(operation) }))
    }

    async fn resume_operation(
        &self,
        request: Request<proto::ResumeOperationRequest>,
    ) -> Result<Response<proto::ResumeOperationResponse>, Status> {
        let permit = access::permit(&request)?;
        let asked = request.into_inner();
        let order = order(asked.id, &asked.requested_by, permit);
        let order = Order { accept_new_catalog: asked.accept_new_catalog, ..order };
        let operation = self.fleet.resume(&order).await.map_err(|failure| of_failure(&failure))?;
        Ok(Response::new(proto::ResumeOperationResponse { operation: Some(operation.look(summary)) }))
    }

    async fn cancel_operation(
        &self,
        request: Request<proto::CancelOperationRequest>,
    ) -> Result<Response<proto::CancelOperationResponse>, Status> {
        let permit = access::permit(&request)?;
        let asked = request.into_inner();
        let operation = self.fleet.cancel(&order(asked.id, &asked.requested_by, permit)).await;
        let operation = operation.map_err(|failure| of_failure(&failure))?.look(summary);
        Ok(Response::new(proto::CancelOperationResponse { operation: Some(operation) }))
    }

    async fn retry_operation(
        &self,
        request: Request<proto::RetryOperationRequest>,
    ) -> Result<Response<proto::RetryOperationResponse>, Status> {
        let permit = access::permit(&request)?;
        let asked = request.into_inner();
        let order = order(asked.id, &asked.requested_by, permit);
        let order = Order { accept_new_catalog: asked.accept_new_catalog, ..order };
        let operation = self.fleet.retry(&order).await.map_err(|failure| of_failure(&failure))?;
        Ok(Response::new(proto::RetryOperationResponse { operation: Some(operation.look(summary)) }))
    }

    async fn approve_operation(
        &self,
        request: Request<proto::ApproveOperationRequest>,
    ) -> Result<Response<proto::ApproveOperationResponse>, Status> {
        let permit = access::permit(&request)?;
        let asked = request.into_inner();
        let approve = async {
            let order = order(asked.id, &asked.requested_by, permit);
            let reason = convert::plain(&asked.reason, convert::LONGEST_REASON);
            let plan = Some(asked.plan_digest).filter(|digest| !digest.is_empty());
            let plan = plan.map(|digest| digest.parse()).transpose()?;
            self.fleet.approve(&Order { reason, plan, ..order }).await
        };
        let operation = approve.await.map_err(|failure| of_failure(&failure))?.look(summary);
        Ok(Response::new(proto::ApproveOperationResponse { operation: Some(operation) }))
    }

    async fn reject_operation(
        &self,
        request: Request<proto::RejectOperationRequest>,
    ) -> Result<Response<proto::RejectOperationResponse>, Status> {
        let permit = access::permit(&request)?;
        let asked = request.into_inner();
        let reason = convert::plain(&asked.reason, convert::LONGEST_REASON);
        let order = Order { reason, ..order(asked.id, &asked.requested_by, permit) };
        let operation = self.fleet.reject(&order).await.map_err(|failure| of_failure(&failure))?;
        Ok(Response::new(proto::RejectOperationResponse { operation: Some(operation.look(summary)) }))
    }
}

fn order(id: String, by: &str, permit: Permit) -> Order {
    let (by, reason) = (convert::requested_by(&permit, by), String::new());
    Order { id, by, permit, accept_new_catalog: false, reason, plan: None }
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
