//! The services: each RPC converts, calls the fleet, converts back.

use std::{pin::Pin, sync::Arc, time::Instant};

use futures_util::{Stream, StreamExt as _};
use tonic::{Request, Response, Status};

use crate::{
    access::Permit,
    auditlog::{Allowed, Asked, AuditLog, Call},
    engine::Verb,
    fleet::{
        self, Fleet, Reload,
        plan::FleetPlan,
        strategy::{OnFailure, Strategies},
    },
    migration::{Code, Event, EventKind, Failure, OperationState, TraceContext},
    rpc::{
        access, auditlog,
        convert::{self, Given},
        inventory, operation,
        overview::{self, Scope},
        proto::{self, fleet_service_server::FleetService, migration_service_server::MigrationService},
        status::of_failure,
        strategy,
    },
};

/// How many attempts `History` tells where the request does not say.
const DEFAULT_HISTORY: u32 = 50;

/// Both services over one fleet.
#[derive(Clone)]
pub struct Service {
    fleet: Arc<Fleet>,
    reload: Reload,
    strategies: Arc<Strategies>,
    audit_log: AuditLog,
    started: Instant,
}

type Events<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

impl Service {
    /// Services over a fleet, whose inventory `reload` reads anew.
    pub fn new(fleet: Arc<Fleet>, reload: Reload, strategies: Arc<Strategies>, audit_log: AuditLog) -> Self {
        Self { fleet, reload, strategies, audit_log, started: Instant::now() }
    }

    /// What is known of a request that changes something, and its message.
    fn asked<T>(&self, request: Request<T>, asked: impl Fn(&T) -> Asked) -> Result<(Given, T), Status> {
        let ((trace, permit), message) = opened(request)?;
        let call = self.audit_log.call(&permit, &asked(&message));
        Ok(((trace, permit, call), message))
    }

    fn store(&self) -> proto::Store {
        if self.fleet.is_shared() { proto::Store::ControlDatabase } else { proto::Store::Memory }
    }

    /// Starts a verb, or plans it where it is a dry run, and tells its events.
    async fn run<T: Send + 'static>(
        &self,
        mut request: fleet::Request,
        verb: Verb,
        dry_run: bool,
        wrap: fn(proto::Event) -> T,
    ) -> Result<Response<Events<T>>, Failure> {
        let events: Events<proto::Event> = if dry_run {
            let plan = self.fleet.plan(&request, &verb).await?;
            Box::pin(futures_util::stream::iter(planned(&request, &verb, plan).into_iter().map(Ok)))
        } else {
            self.fleet.hold(&mut request, &verb).await?;
            let operation = self.fleet.start(&request, verb).await?;
            let sight = self.fleet.sight(&request.permit);
            Box::pin(operation::follow(&operation, sight))
        };
        Ok(Response::new(Box::pin(events.map(move |event| event.map(wrap)))))
    }
}

// What is asked is read once; bad input stops here.
impl Service {
    fn apply_asked(
        &self,
        mut message: proto::ApplyRequest,
        given: Given,
    ) -> Result<(fleet::Request, Verb), Failure> {
        let mut request = convert::request(message.selection.take(), message.context.take(), given)?;
        let given = message.strategy.take();
        request.permit = strategy::permit(request.permit, given.as_ref());
        request.strategy = strategy::strategy(&self.strategies, &message.strategy_name, given, true)?;
        request.plan = strategy::held(&message.plan_digest)?;
        let reversible = request.strategy.on_failure == OnFailure::RollBack;
        Ok((request, convert::apply(&message, reversible)))
    }

    fn rollback_asked(
        &self,
        mut message: proto::RollbackRequest,
        given: Given,
    ) -> Result<(fleet::Request, Verb), Failure> {
        let mut request = convert::request(message.selection.take(), message.context.take(), given)?;
        let given = message.strategy.take();
        request.permit = strategy::permit(request.permit, given.as_ref());
        request.strategy = strategy::strategy(&self.strategies, &message.strategy_name, given, false)?;
        request.plan = strategy::held(&message.plan_digest)?;
        let verb = self.fleet.within_limits(&request, convert::rollback(&message)?)?;
        Ok((request, verb))
    }

    fn recover_asked(
        &self,
        message: proto::RecoverRequest,
        given: Given,
    ) -> Result<(fleet::Request, Verb), Failure> {
        let mut request = convert::request(message.selection, message.context, given)?;
        let (name, given) = (&message.strategy_name, message.strategy);
        request.permit = strategy::permit(request.permit, given.as_ref());
        request.strategy = strategy::strategy(&self.strategies, name, given, false)?;
        request.plan = strategy::held(&message.plan_digest)?;
        Ok((request, Verb::Recover { resume: message.resume }))
    }
}

/// What the layers around the services have read of a request, its place in a trace and what it may do, and
/// its message.
fn opened<T>(request: Request<T>) -> Result<((Option<TraceContext>, Permit), T), Status> {
    let given = (request.extensions().get().copied(), access::permit(&request)?);
    Ok((given, request.into_inner()))
}

/// Has the audit log know that an operation has begun, or why not.
fn begun<T>(call: &Call, result: Result<T, Failure>) -> Result<T, Status> {
    match result {
        Ok(begun) => {
            call.begun();
            Ok(begun)
        }
        Err(failure) => {
            call.answered(Err(&failure));
            Err(of_failure(&failure))
        }
    }
}

/// The events that tell a plan.
fn planned(request: &fleet::Request, verb: &Verb, plan: FleetPlan) -> Vec<proto::Event> {
    let FleetPlan { databases: reports, waves, .. } = plan;
    let operation = request.id.unwrap_or_else(uuid::Uuid::now_v7);
    let databases = reports.iter().map(|report| report.database.clone()).collect();
    let succeeded = reports.iter().all(|report| report.result.is_ok());
    let trace = request.trace;
    let kind = EventKind::OperationStarted {
        verb: verb.name(),
        databases,
        requested_by: request.requested_by.clone(),
        reason: request.reason.clone(),
        waves: u32::try_from(waves.len()).unwrap_or(u32::MAX),
        attempt: 1,
    };
    let started = (String::new(), kind);
    let finished = reports
        .into_iter()
        .map(|report| (report.database.clone(), EventKind::DatabaseFinished(Box::new(report))));
    let state = if succeeded { OperationState::Succeeded } else { OperationState::Failed };
    let (why, not_begun) = (String::new(), Vec::new());
    let ended = (String::new(), EventKind::OperationFinished { state, why, not_begun, attempt: 1 });
    std::iter::once(started)
        .chain(finished)
        .chain([ended])
        .filter_map(|(database, kind)| {
            convert::event(&Event { operation, trace, time: jiff::Timestamp::now(), database, kind })
        })
        .collect()
}

#[tonic::async_trait]
impl MigrationService for Service {
    type ApplyStream = Events<proto::ApplyResponse>;
    type RollbackStream = Events<proto::RollbackResponse>;
    type RecoverStream = Events<proto::RecoverResponse>;

    async fn apply(
        &self,
        request: Request<proto::ApplyRequest>,
    ) -> Result<Response<Self::ApplyStream>, Status> {
        let (given, message) = self.asked(request, auditlog::apply)?;
        let (call, dry_run) = (given.2.clone(), message.dry_run);
        let run = async {
            let (request, verb) = self.apply_asked(message, given)?;
            self.run(request, verb, dry_run, |event| proto::ApplyResponse { event: Some(event) }).await
        };
        begun(&call, run.await)
    }

    async fn rollback(
        &self,
        request: Request<proto::RollbackRequest>,
    ) -> Result<Response<Self::RollbackStream>, Status> {
        let (given, message) = self.asked(request, auditlog::rollback)?;
        let (call, dry_run) = (given.2.clone(), message.dry_run);
        let run = async {
            let (request, verb) = self.rollback_asked(message, given)?;
            self.run(request, verb, dry_run, |event| proto::RollbackResponse { event: Some(event) }).await
        };
        begun(&call, run.await)
    }

    async fn recover(
        &self,
        request: Request<proto::RecoverRequest>,
    ) -> Result<Response<Self::RecoverStream>, Status> {
        let (given, message) = self.asked(request, auditlog::recover)?;
        let (call, dry_run) = (given.2.clone(), message.dry_run);
        let run = async {
            let (request, verb) = self.recover_asked(message, given)?;
            self.run(request, verb, dry_run, |event| proto::RecoverResponse { event: Some(event) }).await
        };
        begun(&call, run.await)
    }

    async fn repair(
        &self,
        request: Request<proto::RepairRequest>,
    ) -> Result<Response<proto::RepairResponse>, Status> {
        let (given, mut message) = self.asked(request, auditlog::repair)?;
        let call = given.2.clone();
        let repair = async {
            let request = convert::request(message.selection.take(), message.context.take(), given)?;
            let repair = convert::repair(message)?;
            // The operation, where it is one, is told with the same reason.
            let request = fleet::Request { reason: repair.reason.clone(), ..request };
            self.fleet.repair(&request, repair).await
        };
        let done = begun(&call, repair.await)?;
        Ok(Response::new(proto::RepairResponse {
            database: done.database,
            message: done.message,
            operation_id: done.operation.to_string(),
            awaiting_approval: done.waits,
        }))
    }

    async fn plan(
        &self,
        request: Request<proto::PlanRequest>,
    ) -> Result<Response<proto::PlanResponse>, Status> {
        use proto::plan_request::Request as Asked;
        let ((trace, permit), message) = opened(request)?;
        // It shows what would be done, and that is all.
        let given = (trace, permit, Call::unrecorded());
        let plan = async {
            let (request, verb) = match message.request {
                Some(Asked::Apply(message)) => self.apply_asked(message, given)?,
                Some(Asked::Rollback(message)) => self.rollback_asked(message, given)?,
                Some(Asked::Recover(message)) => self.recover_asked(message, given)?,
                None => {
                    let message = "A plan is of an apply, a rollback or a recovery";
                    return Err(Failure::new(Code::BadRequest, message));
                }
            };
            Ok((request.strategy.to_string(), self.fleet.plan(&request, &verb).await?))
        };
        let (strategy, plan) = plan.await.map_err(|failure| of_failure(&failure))?;
        Ok(Response::new(proto::PlanResponse {
            databases: plan.databases.iter().map(convert::report).collect(),
            waves: plan.waves.iter().map(strategy::wave).collect(),
            digest: plan.digest.map(|digest| digest.to_string()).unwrap_or_default(),
            strategy,
        }))
    }

    async fn status(
        &self,
        request: Request<proto::StatusRequest>,
    ) -> Result<Response<proto::StatusResponse>, Status> {
        let ((_, permit), message) = opened(request)?;
        let selection = convert::selection(message.selection);
        let scope = Scope { is_brief: message.brief, missing: &message.missing };
        let told = if message.cached {
            let members = self.fleet.inventory().select(&selection, fleet::selector::Need::Any, &permit);
            members.and_then(|members| overview::cached(&members, &scope))
        } else {
            let read = self.fleet.status(&selection, message.brief, &permit).await;
            read.and_then(|read| overview::live(&read, &scope))
        };
        let databases = told.map_err(|failure| of_failure(&failure))?;
        Ok(Response::new(proto::StatusResponse { databases, store: self.store().into() }))
    }

    async fn history(
        &self,
        request: Request<proto::HistoryRequest>,
    ) -> Result<Response<proto::HistoryResponse>, Status> {
        let ((_, permit), message) = opened(request)?;
        let selection = convert::selection(message.selection);
        let version = Some(message.version.as_str()).filter(|version| !version.is_empty());
        let limit = if message.limit == 0 { DEFAULT_HISTORY } else { message.limit };
        let read = self.fleet.history(&selection, version, limit, &permit).await;
        let mut response = proto::HistoryResponse::default();
        for (member, attempts) in read.map_err(|failure| of_failure(&failure))? {
            match attempts {
                Ok(attempts) => {
                    let told = attempts.iter().map(|attempt| convert::attempt(member.name(), attempt));
                    response.attempts.extend(told);
                }
                Err(failed) => response.failures.push(proto::DatabaseResult {
                    database: member.name().to_owned(),
                    outcome: proto::DatabaseOutcome::Failed.into(),
                    failure: Some(convert::failure(&failed)),
                    ..Default::default()
                }),
            }
        }
        Ok(Response::new(response))
    }
}

#[tonic::async_trait]
impl FleetService for Service {
    async fn list_databases(
        &self,
        request: Request<proto::ListDatabasesRequest>,
    ) -> Result<Response<proto::ListDatabasesResponse>, Status> {
        let ((_, permit), message) = opened(request)?;
        let selection = convert::selection(message.selection);
        let known = self.fleet.inventory();
        let members = known.select(&selection, fleet::selector::Need::Any, &permit);
        let members = members.map_err(|failure| of_failure(&failure))?;
        let databases = members.iter().map(|member| inventory::database(&known, member)).collect();
        Ok(Response::new(proto::ListDatabasesResponse { databases }))
    }

    async fn reload_inventory(
        &self,
        request: Request<proto::ReloadInventoryRequest>,
    ) -> Result<Response<proto::ReloadInventoryResponse>, Status> {
        let ((.., call), _) = self.asked(request, |_| Asked::default())?;
        let reload = async {
            call.allow(&Allowed::default()).await?;
            (self.reload)().await
        };
        let reloaded = reload.await;
        // What could not be read anew is a failure, though the rest was taken over.
        let fault = reloaded.as_ref().map(|reloaded| reloaded.faults.first().map(|fault| &fault.failure));
        call.answered(fault.and_then(|fault| fault.map_or(Ok(()), Err)));
        let reloaded = reloaded.map_err(|failure| of_failure(&failure))?;
        Ok(Response::new(inventory::reloaded(reloaded)))
    }

    async fn get_version(
        &self,
        _: Request<proto::GetVersionRequest>,
    ) -> Result<Response<proto::GetVersionResponse>, Status> {
        let (leader, control_failure) = match self.fleet.leader().await {
            Ok(leader) => (leader.unwrap_or_default(), String::new()),
            Err(failure) => (String::new(), failure.message),
        };
        Ok(Response::new(proto::GetVersionResponse {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            instance: self.fleet.instance().to_owned(),
            uptime_seconds: self.started.elapsed().as_secs(),
            store: self.store().into(),
            leader,
            control_failure,
        }))
    }
}
