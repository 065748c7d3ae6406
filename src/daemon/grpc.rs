//! The gRPC server: its services, health and reflection, on a port and on a socket.

use std::{sync::Arc, time::Duration};

use anyhow::Context as _;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::transport::server::{Router, Server};
use tonic_health::{ServingStatus, server::HealthReporter};
use tower::layer::util::{Identity, Stack};

use crate::{
    access::Authenticate,
    alert::Alerts,
    auditlog::AuditLog,
    daemon::connection::Connection,
    fleet::{Fleet, Reload, audit::Audits, strategy::Strategies},
    rpc::{
        access::{AccessLayer, Bounds},
        alert::AlertRpc,
        audit,
        auditlog::AuditLogRpc,
        operation::OperationRpc,
        proto::{
            DESCRIPTORS, alert_service_server::AlertServiceServer,
            audit_log_service_server::AuditLogServiceServer, audit_service_server::AuditServiceServer,
            fleet_service_server::FleetServiceServer, migration_service_server::MigrationServiceServer,
            operation_service_server::OperationServiceServer,
        },
        service::Service,
    },
    runtime::Tasks,
    telemetry::{Metrics, rpc::RpcLayer},
};

/// A request is small: versions, names, a reason.
const MAX_REQUEST: usize = 1 << 20;

/// The headers of a request: a path, a token, a trace.
const MAX_HEADERS: u32 = 16 << 10;

/// How often a client that says nothing is asked whether it is still there, and how long it may take to
/// answer.
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(30);
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(20);

/// How many streams one client may have open.
const MAX_STREAMS: u32 = 256;

/// How many streams a client may take back before they were looked at, and how many it may be told are
/// wrong: more is an attack on the processor.
const MAX_RESETS: usize = 64;

/// The services that are served, and whose RPCs are counted.
const SERVICES: [&str; 7] = [
    "nexus.v1.MigrationService",
    "nexus.v1.FleetService",
    "nexus.v1.AlertService",
    "nexus.v1.AuditService",
    "nexus.v1.AuditLogService",
    "nexus.v1.OperationService",
    "grpc.health.v1.Health",
];

/// What the services stand on.
pub(super) struct Services {
    pub(super) fleet: Arc<Fleet>,
    pub(super) alerts: Alerts,
    pub(super) audits: Arc<Audits>,
    pub(super) reload: Reload,
    pub(super) strategies: Arc<Strategies>,
    /// Says who asks.
    pub(super) authenticate: Authenticate,
    /// Takes what they ask.
    pub(super) audit_log: AuditLog,
    /// How much they may ask for.
    pub(super) bounds: Bounds,
    /// How long a connection lives before its client is told to make another one.
    pub(super) max_age: Duration,
}

/// The connections of the port and of the socket.
pub(super) struct Incoming {
    pub(super) tcp: Connections,
    pub(super) unix: Option<Connections>,
}

/// Connections, as they come in.
pub(super) type Connections = ReceiverStream<std::io::Result<Connection>>;

/// How the server ends.
#[derive(Clone)]
pub(super) struct Ends {
    /// Closes it, after the answers that are under way.
    pub(super) close: CancellationToken,
    /// Is fired where it fails by itself.
    pub(super) failed: CancellationToken,
}

/// The server's health, as it is told to whoever asks.
pub(super) struct Health(HealthReporter);

impl Health {
    /// Tells it for each service and for the server as a whole.
    pub(super) async fn tell(&self, status: ServingStatus) {
        let ours = SERVICES.into_iter().filter(|service| service.starts_with("nexus."));
        for service in ours.chain([""]) {
            self.0.set_service_status(service, status).await;
        }
    }
}

/// Begins to serve, with the health `NOT_SERVING`. A server that fails stops the daemon.
pub(super) async fn start(
    tasks: &Tasks,
    services: Services,
    incoming: Incoming,
    metrics: Metrics,
    ends: &Ends,
) -> anyhow::Result<Health> {
    let (reporter, health_service) = tonic_health::server::health_reporter();
    let health = Health(reporter);
    health.tell(ServingStatus::NotServing).await;
    let reflection = tonic_reflection::server::Builder::configure()
        .register_encoded_file_descriptor_set(DESCRIPTORS)
        .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
        .build_v1()
        .context("the descriptors of proto/ are not fit for reflection")?;
    let Services { fleet, alerts, audits, reload, strategies, authenticate, audit_log, bounds, max_age } =
        services;
    let alerts = AlertRpc::new(alerts, fleet.clone(), audit_log.clone());
    let operations = OperationRpc::new(fleet.clone(), audit_log.clone());
    let service = Service::new(fleet, reload, strategies, audit_log.clone());
    let router = Server::builder()
        .http2_keepalive_interval(Some(KEEPALIVE_INTERVAL))
        .http2_keepalive_timeout(Some(KEEPALIVE_TIMEOUT))
        .http2_max_header_list_size(MAX_HEADERS)
        .http2_max_pending_accept_reset_streams(Some(MAX_RESETS))
        .http2_max_local_error_reset_streams(Some(MAX_RESETS))
        .max_concurrent_streams(MAX_STREAMS)
        // It is told so, and what runs on it may end; a grace is not tonic's to give: with one it would
        // not be told.
        .max_connection_age(max_age)
        .layer(RpcLayer::new(metrics, SERVICES))
        .layer(AccessLayer::new(authenticate, audit_log.clone(), bounds))
        .add_service(MigrationServiceServer::new(service.clone()).max_decoding_message_size(MAX_REQUEST))
        .add_service(FleetServiceServer::new(service).max_decoding_message_size(MAX_REQUEST))
        .add_service(AlertServiceServer::new(alerts).max_decoding_message_size(MAX_REQUEST))
        .add_service(
            AuditServiceServer::new(audit::Service::new(audits)).max_decoding_message_size(MAX_REQUEST),
        )
        .add_service(
            AuditLogServiceServer::new(AuditLogRpc::new(audit_log)).max_decoding_message_size(MAX_REQUEST),
        )
        .add_service(OperationServiceServer::new(operations).max_decoding_message_size(MAX_REQUEST))
        .add_service(health_service)
        .add_service(reflection);
    if let Some(socket) = incoming.unix {
        tasks.spawn_vital("grpc-socket", serve(router.clone(), socket, ends.clone()));
    }
    tasks.spawn_vital("grpc", serve(router, incoming.tcp, ends.clone()));
    Ok(health)
}

/// The layers around the services, the outermost last.
type Layers = Stack<AccessLayer, Stack<RpcLayer, Identity>>;

async fn serve(router: Router<Layers>, incoming: Connections, ends: Ends) {
    let served = router.serve_with_incoming_shutdown(incoming, ends.close.cancelled_owned()).await;
    if let Err(error) = served {
        tracing::error!(%error, "the gRPC server failed");
        ends.failed.cancel();
    }
}
