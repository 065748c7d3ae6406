//! The control plane as other clients see it: health, reflection, statuses with their codes.

use nexus::rpc::proto::{self, migration_service_client::MigrationServiceClient};
use nix::sys::signal::Signal;
use tokio_stream::StreamExt as _;
use tonic::{Code, transport::Channel};
use tonic_health::pb::{
    HealthCheckRequest, health_check_response::ServingStatus, health_client::HealthClient,
};
use tonic_reflection::pb::v1::{
    ServerReflectionRequest, server_reflection_client::ServerReflectionClient,
    server_reflection_request::MessageRequest, server_reflection_response::MessageResponse,
};
use tonic_types::StatusExt as _;

use crate::support::{World, wait};

async fn connect(address: &str) -> Channel {
    let endpoint = Channel::from_shared(format!("http://{address}")).expect("an address");
    endpoint.connect().await.expect("the daemon answers")
}

#[test]
fn health_tells_the_truth() {
    let mut world = World::new().start();
    world.migration("0001_slow", "create table slow (id int);\nselect pg_sleep(1.5);\n", "drop table slow;");
    let address = world.daemon.grpc.clone();
    let client = world.daemon.ctl_begin(&["apply"]);
    world.database.await_row("select 1 from pg_stat_activity where query like '%pg_sleep(1.5)%' and application_name like 'nexusd %' and datname = current_database()");
    wait(async {
        let mut health = HealthClient::new(connect(&address).await);
        let request = HealthCheckRequest { service: "nexus.v1.MigrationService".to_owned() };
        let mut watch = health.watch(request).await.expect("health is told").into_inner();
        let mut next = async || watch.next().await.and_then(Result::ok).map(|told| told.status());
        assert_eq!(next().await, Some(ServingStatus::Serving));
        world.daemon.signal(Signal::SIGTERM);
        assert_eq!(next().await, Some(ServingStatus::NotServing));
    });
    client.end().expect(0);
    assert_eq!(world.daemon.wait(), Some(0));
}

#[test]
fn reflection_lists_the_services() {
    let world = World::new().start();
    let names = wait(async {
        let mut reflection = ServerReflectionClient::new(connect(&world.daemon.grpc).await);
        let request = ServerReflectionRequest {
            host: String::new(),
            message_request: Some(MessageRequest::ListServices(String::new())),
        };
        let answers = reflection.server_reflection_info(tokio_stream::once(request)).await;
        let answer = answers.expect("reflection answers").into_inner().next().await;
        match answer.and_then(Result::ok).and_then(|answer| answer.message_response) {
            Some(MessageResponse::ListServicesResponse(list)) => list.service,
            _ => Vec::new(),
        }
    });
    let names: Vec<_> = names.into_iter().map(|service| service.name).collect();
    let ours = ["nexus.v1.MigrationService", "nexus.v1.FleetService", "nexus.v1.AuditService"];
    for service in ours {
        let told = wait(async {
            let mut health = HealthClient::new(connect(&world.daemon.grpc).await);
            let request = HealthCheckRequest { service: service.to_owned() };
            health.check(request).await.map(|told| told.into_inner().status())
        });
        assert_eq!(told.expect("health is told"), ServingStatus::Serving, "{service}");
    }
    for service in ours.into_iter().chain(["grpc.health.v1.Health"]) {
        assert!(names.iter().any(|name| name == service), "{service} in {names:?}");
    }
}

#[test]
fn bad_requests_have_their_statuses() {
    let world = World::new().start();
    wait(async {
        let mut client = MigrationServiceClient::new(connect(&world.daemon.grpc).await);
        let expect = |status: tonic::Status, code: Code, reason: &str| {
            let info = status.get_details_error_info().expect("an error tells its code");
            assert_eq!((status.code(), info.reason.as_str(), info.domain.as_str()), (code, reason, "nexus"));
            assert!(!info.metadata["hint"].is_empty());
        };
        let context =
            |id: &str| Some(proto::RequestContext { request_id: id.to_owned(), ..Default::default() });
        let request = proto::ApplyRequest { context: context("not-a-uuid"), ..Default::default() };
        expect(client.apply(request).await.expect_err("refused"), Code::InvalidArgument, "NX0052");
        let selection = proto::Selection { databases: vec!["nothing".to_owned()], ..Default::default() };
        let request = proto::ApplyRequest { selection: Some(selection.clone()), ..Default::default() };
        expect(client.apply(request).await.expect_err("refused"), Code::NotFound, "NX0050");
        let both = proto::Selection { all: true, ..selection };
        let request = proto::StatusRequest { selection: Some(both), ..Default::default() };
        expect(client.status(request).await.expect_err("refused"), Code::InvalidArgument, "NX0052");
        let request = proto::RollbackRequest { steps: Some(1), to: "1".to_owned(), ..Default::default() };
        expect(client.rollback(request).await.expect_err("refused"), Code::InvalidArgument, "NX0052");
        let request = proto::RepairRequest { version: "1".to_owned(), ..Default::default() };
        expect(client.repair(request).await.expect_err("refused"), Code::InvalidArgument, "NX0052");
        expect(
            client.plan(proto::PlanRequest { request: None }).await.expect_err("refused"),
            Code::InvalidArgument,
            "NX0052",
        );
    });
}
