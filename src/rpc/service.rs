//! The services: each RPC converts, calls the fleet, converts back.

use std::{pin::Pin, sync::Arc, time::Instant};

use futures_util::{Stream, StreamExt as _};
use tonic::{Request, Response, Status};

use crate::{
    engine::Verb,
    fleet::{self, Fleet, Reload, operation::Operation},
    migration::{Code, Event, EventKind, Failure, TraceContext, event::DatabaseReport},
    rpc::{
        convert, inventory,
        proto::{self, fleet_service_server::FleetService, migration_service_server::MigrationService},
        status::of_failure,
    },
};

/// How many attempts `History` tells where the request does not say.
const DEFAULT_HISTORY: u32 = 50;

/// Both services over one fleet.
#[derive(Clone)]
pub struct Service {
    fleet: Arc<Fleet>,
    reload: Reload,
    started: Instant,
}

type Events<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

impl Service {
    /// Services over a fleet, whose inventory `reload` reads anew.
    pub fn new(fleet: Arc<Fleet>, reload: Reload) -> Self {
        Self { fleet, reload, started: Instant::now() }
    }

    /// Starts a verb, or plans it where it is a dry run, and tells its events.
    async fn run<T: Send + 'static>(
        &self,
        request: fleet::Request,
        verb: Verb,
        dry_run: bool,
        wrap: fn(proto::Event) -> T,
    ) -> Result<Response<Events<T>>, Status> {
        let events: Pin<Box<dyn Stream<Item = proto::Event> + Send>> = if dry_run {
            let reports = self.fleet.plan(&request, &verb).await.map_err(|failure| of_failure(&failure))?;
            Box::pin(futures_util::stream::iter(planned(&request, &verb, reports)))
        } else {
            let operation = self.fleet.start(&request, verb).map_err(|failure| of_failure(&failure))?;
            Box::pin(follow(operation))
        };
        Ok(Response::new(Box::pin(events.map(move |event| Ok(wrap(event))))))
    }
}

/// A request's message, and its place in a trace, which the layer around the services has read.
fn traced<T>(request: Request<T>) -> (Option<TraceContext>, T) {
    (request.extensions().get().copied(), request.into_inner())
}

/// The events of an operation, from the first to the last.
fn follow(operation: Arc<Operation>) -> impl Stream<Item = proto::Event> + Send {
    futures_util::stream::unfold(Some((operation, 0)), |state| async move {
        let (operation, number) = state?;
        let event = operation.event(number).await?;
        let ended = matches!(event.kind, EventKind::OperationFinished { .. });
        let next = (!ended).then(|| (operation, number + 1));
        Some((convert::event(&event), next))
    })
    .filter_map(futures_util::future::ready)
}

/// The events that tell a plan.
fn planned(request: &fleet::Request, verb: &Verb, reports: Vec<DatabaseReport>) -> Vec<proto::Event> {
    let operation = request.id.unwrap_or_else(uuid::Uuid::now_v7);
    let databases = reports.iter().map(|report| report.database.clone()).collect();
    let succeeded = reports.iter().all(|report| report.result.is_ok());
    let (requested_by, trace) = (request.requested_by.clone(), request.trace);
    let started = (String::new(), EventKind::OperationStarted { verb: verb.name(), databases, requested_by });
    let finished = reports
        .into_iter()
        .map(|report| (report.database.clone(), EventKind::DatabaseFinished(Box::new(report))));
    let ended = (String::new(), EventKind::OperationFinished { succeeded });
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
        let (trace, mut message) = traced(request);
        let request = convert::request(message.selection.take(), message.context.take(), trace);
        let request = request.map_err(|failure| of_failure(&failure))?;
        let wrap = |event| proto::ApplyResponse { event: Some(event) };
        self.run(request, convert::apply(&message), message.dry_run, wrap).await
    }

    async fn rollback(
        &self,
        request: Request<proto::RollbackRequest>,
    ) -> Result<Response<Self::RollbackStream>, Status> {
        let (trace, mut message) = traced(request);
        let request = convert::request(message.selection.take(), message.context.take(), trace);
        let request = request.map_err(|failure| of_failure(&failure))?;
        let verb = convert::rollback(&message).map_err(|failure| of_failure(&failure))?;
        let wrap = |event| proto::RollbackResponse { event: Some(event) };
        self.run(request, verb, message.dry_run, wrap).await
    }

    async fn recover(
        &self,
        request: Request<proto::RecoverRequest>,
    ) -> Result<Response<Self::RecoverStream>, Status> {
        let (trace, message) = traced(request);
        let request = convert::request(message.selection, message.context, trace);
        let request = request.map_err(|failure| of_failure(&failure))?;
        let wrap = |event| proto::RecoverResponse { event: Some(event) };
        self.run(request, Verb::Recover { resume: message.resume }, message.dry_run, wrap).await
    }

    async fn repair(
        &self,
        request: Request<proto::RepairRequest>,
    ) -> Result<Response<proto::RepairResponse>, Status> {
        let (trace, mut message) = traced(request);
        let repair = async {
            let request = convert::request(message.selection.take(), message.context.take(), trace)?;
            let action = convert::repair(&message)?;
            self.fleet.repair(&request, action, message.version, message.reason).await
        };
        let (database, message, operation) = repair.await.map_err(|failure| of_failure(&failure))?;
        let operation_id = operation.to_string();
        Ok(Response::new(proto::RepairResponse { database, message, operation_id }))
    }

    async fn plan(
        &self,
        request: Request<proto::PlanRequest>,
    ) -> Result<Response<proto::PlanResponse>, Status> {
        use proto::plan_request::Request as Asked;
        let (trace, message) = traced(request);
        let plan = async {
            let (request, verb) = match message.request {
                Some(Asked::Apply(mut message)) => {
                    let request = convert::request(message.selection.take(), message.context.take(), trace)?;
                    (request, convert::apply(&message))
                }
                Some(Asked::Rollback(mut message)) => {
                    let request = convert::request(message.selection.take(), message.context.take(), trace)?;
                    (request, convert::rollback(&message)?)
                }
                None => return Err(Failure::new(Code::BadRequest, "A plan is of an apply or of a rollback")),
            };
            self.fleet.plan(&request, &verb).await
        };
        let reports = plan.await.map_err(|failure| of_failure(&failure))?;
        Ok(Response::new(proto::PlanResponse { databases: reports.iter().map(convert::report).collect() }))
    }

    async fn status(
        &self,
        request: Request<proto::StatusRequest>,
    ) -> Result<Response<proto::StatusResponse>, Status> {
        let selection = convert::selection(request.into_inner().selection);
        let read = self.fleet.status(&selection).await.map_err(|failure| of_failure(&failure))?;
        Ok(Response::new(proto::StatusResponse { databases: read.iter().map(convert::status).collect() }))
    }

    async fn history(
        &self,
        request: Request<proto::HistoryRequest>,
    ) -> Result<Response<proto::HistoryResponse>, Status> {
        let message = request.into_inner();
        let selection = convert::selection(message.selection);
        let version = Some(message.version.as_str()).filter(|version| !version.is_empty());
        let limit = if message.limit == 0 { DEFAULT_HISTORY } else { message.limit };
        let read = self.fleet.history(&selection, version, limit).await;
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
        let selection = convert::selection(request.into_inner().selection);
        let known = self.fleet.inventory();
        let members = known.select(&selection, fleet::selector::Need::Any);
        let members = members.map_err(|failure| of_failure(&failure))?;
        let databases = members.iter().map(|member| inventory::database(&known, member)).collect();
        Ok(Response::new(proto::ListDatabasesResponse { databases }))
    }

    async fn reload_inventory(
        &self,
        _: Request<proto::ReloadInventoryRequest>,
    ) -> Result<Response<proto::ReloadInventoryResponse>, Status> {
        let reloaded = (self.reload)().await.map_err(|failure| of_failure(&failure))?;
        Ok(Response::new(inventory::reloaded(reloaded)))
    }

    async fn get_version(
        &self,
        _: Request<proto::GetVersionRequest>,
    ) -> Result<Response<proto::GetVersionResponse>, Status> {
        Ok(Response::new(proto::GetVersionResponse {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            instance: self.fleet.instance().to_owned(),
            uptime_seconds: self.started.elapsed().as_secs(),
        }))
    }
}
