//! `nexusctl` against a daemon that says exactly what a test wants: what a real one says seldom.

use std::{
    path::Path,
    pin::Pin,
    process::{Command as Process, Stdio},
    sync::{Arc, Mutex},
    time::Duration,
};

use assert_cmd::Command;
use futures_util::{Stream, StreamExt as _, stream};
use nexus::rpc::proto::{
    self, DatabaseOutcome, ScriptSource, StepAction,
    event::Kind,
    fleet_service_server::{FleetService, FleetServiceServer},
    migration_service_server::{MigrationService, MigrationServiceServer},
};
use serde_json::Value;
use tokio::{
    net::{TcpListener, UnixListener},
    runtime::{Builder, Runtime},
};
use tokio_stream::wrappers::{TcpListenerStream, UnixListenerStream};
use tonic::{
    Request, Response, Status,
    transport::{Server, server::Router},
};

type Answer<T> = Result<Response<T>, Status>;
type Events<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

/// What the daemon does with every streaming request.
#[derive(Clone)]
enum Script {
    /// These events, and the end of the stream.
    Tell(Vec<(&'static str, Kind)>),
    /// These events, and silence.
    Hang(Vec<(&'static str, Kind)>),
    /// A refusal.
    Refuse(tonic::Code),
}

#[derive(Clone)]
struct Stub {
    script: Script,
    asked: Arc<Mutex<Vec<String>>>,
}

impl Stub {
    fn router(script: Script) -> (Router, Arc<Mutex<Vec<String>>>) {
        let stub = Self { script, asked: Arc::default() };
        let asked = Arc::clone(&stub.asked);
        let services = Server::builder().add_service(MigrationServiceServer::new(stub.clone()));
        (services.add_service(FleetServiceServer::new(stub)), asked)
    }

    fn stream<T: Send + 'static>(
        &self,
        name: &str,
        response: fn(Option<proto::Event>) -> T,
    ) -> Answer<Events<T>> {
        self.asked.lock().expect("no test panics with it").push(name.to_owned());
        let event = move |(database, kind): (&str, Kind)| {
            let event = proto::Event {
                operation_id: "op-1".to_owned(),
                time: Some(LONG_AGO),
                database: database.to_owned(),
                kind: Some(kind),
            };
            Ok(response(Some(event)))
        };
        match self.script.clone() {
            Script::Tell(events) => Ok(Response::new(Box::pin(stream::iter(events).map(event)))),
            Script::Hang(events) => {
                Ok(Response::new(Box::pin(stream::iter(events).map(event).chain(stream::pending()))))
            }
            Script::Refuse(code) => Err(refusal(code)),
        }
    }
}

/// When every operation of the stub took place.
const LONG_AGO: prost_types::Timestamp = prost_types::Timestamp { seconds: 1_761_819_330, nanos: 0 };

fn refusal(code: tonic::Code) -> Status {
    use tonic_types::{ErrorDetails, StatusExt as _};
    if code == tonic::Code::Unauthenticated {
        return Status::new(code, "no token");
    }
    let metadata = [("hint", "name them: --all"), ("details", "orders\nusers")];
    let metadata = metadata.map(|(key, value)| (key.to_owned(), value.to_owned()));
    let details = ErrorDetails::with_error_info("NX0051", "nexus", std::collections::HashMap::from(metadata));
    Status::with_error_details(code, "There are several databases", details)
}

#[tonic::async_trait]
impl MigrationService for Stub {
    type ApplyStream = Events<proto::ApplyResponse>;
    type RollbackStream = Events<proto::RollbackResponse>;
    type RecoverStream = Events<proto::RecoverResponse>;

    async fn apply(&self, _: Request<proto::ApplyRequest>) -> Answer<Self::ApplyStream> {
        self.stream("apply", |event| proto::ApplyResponse { event })
    }

    async fn rollback(&self, request: Request<proto::RollbackRequest>) -> Answer<Self::RollbackStream> {
        let name = format!("rollback {:?}", request.into_inner().steps);
        self.stream(&name, |event| proto::RollbackResponse { event })
    }

    async fn recover(&self, _: Request<proto::RecoverRequest>) -> Answer<Self::RecoverStream> {
        self.stream("recover", |event| proto::RecoverResponse { event })
    }

    async fn repair(&self, _: Request<proto::RepairRequest>) -> Answer<proto::RepairResponse> {
        Err(refusal(tonic::Code::InvalidArgument))
    }

    async fn plan(&self, _: Request<proto::PlanRequest>) -> Answer<proto::PlanResponse> {
        let failure = match &self.script {
            Script::Refuse(_) => Some(proto::Failure { message: "It is dirty".into(), ..Default::default() }),
            _ => None,
        };
        let step = proto::Step {
            version: "0010_add_products".into(),
            action: StepAction::Apply.into(),
            transactional: true,
            source: ScriptSource::File.into(),
            size_bytes: 412,
            ..Default::default()
        };
        let orders = proto::DatabaseResult {
            database: "orders".into(),
            outcome: if failure.is_some() { DatabaseOutcome::Failed } else { DatabaseOutcome::Planned }
                .into(),
            failure,
            plan: vec![step],
            ..Default::default()
        };
        Ok(Response::new(proto::PlanResponse { databases: vec![orders], ..Default::default() }))
    }

    async fn status(&self, _: Request<proto::StatusRequest>) -> Answer<proto::StatusResponse> {
        if let Script::Refuse(_) = self.script {
            let failure = Some(proto::Failure { message: "No route to host".into(), ..Default::default() });
            let stock = proto::DatabaseStatus { database: "stock".into(), failure, ..Default::default() };
            return Ok(Response::new(proto::StatusResponse { databases: vec![stock], ..Default::default() }));
        }
        let pending = proto::MigrationStatus {
            version: "0010_add_products".into(),
            state: proto::MigrationState::Pending.into(),
            checksum: "a1b2c3d4e5f60718aa".into(),
            ..Default::default()
        };
        let orders = proto::DatabaseStatus {
            database: "orders".into(),
            migrations: vec![pending],
            pending: 1,
            ..Default::default()
        };
        Ok(Response::new(proto::StatusResponse { databases: vec![orders], ..Default::default() }))
    }

    async fn history(&self, _: Request<proto::HistoryRequest>) -> Answer<proto::HistoryResponse> {
        Ok(Response::new(proto::HistoryResponse::default()))
    }
}

#[tonic::async_trait]
impl FleetService for Stub {
    async fn list_databases(
        &self,
        request: Request<proto::ListDatabasesRequest>,
    ) -> Answer<proto::ListDatabasesResponse> {
        let wanted = request.into_inner().selection.unwrap_or_default().databases;
        let databases = ["orders", "users"]
            .into_iter()
            .filter(|name| wanted.is_empty() || wanted.iter().any(|it| it == name))
            .map(|name| proto::Database { name: name.into(), ..Default::default() });
        Ok(Response::new(proto::ListDatabasesResponse { databases: databases.collect() }))
    }

    async fn reload_inventory(
        &self,
        _: Request<proto::ReloadInventoryRequest>,
    ) -> Answer<proto::ReloadInventoryResponse> {
        Ok(Response::new(proto::ReloadInventoryResponse::default()))
    }

    async fn get_version(&self, _: Request<proto::GetVersionRequest>) -> Answer<proto::GetVersionResponse> {
        Ok(Response::new(proto::GetVersionResponse::default()))
    }
}

fn runtime() -> Runtime {
    Builder::new_multi_thread().worker_threads(1).enable_all().build().expect("threads can be had")
}

/// A stub daemon, until it is dropped.
struct Daemon {
    address: String,
    asked: Arc<Mutex<Vec<String>>>,
    runtime: Option<Runtime>,
}

impl Daemon {
    fn start(script: Script) -> Self {
        let runtime = runtime();
        let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0")).expect("a free port");
        let address = listener.local_addr().expect("it is bound").to_string();
        let (router, asked) = Stub::router(script);
        let incoming = TcpListenerStream::new(listener);
        runtime.spawn(router.serve_with_incoming(incoming));
        Self { address, asked, runtime: Some(runtime) }
    }

    fn start_on_socket(script: Script, path: &Path) -> Self {
        let runtime = runtime();
        let listener = runtime.block_on(async { UnixListener::bind(path) }).expect("a new socket");
        let (router, asked) = Stub::router(script);
        let incoming = UnixListenerStream::new(listener);
        runtime.spawn(router.serve_with_incoming(incoming));
        Self { address: format!("unix:{}", path.display()), asked, runtime: Some(runtime) }
    }

    fn run(&self, line: &str) -> (i32, String, String) {
        let mut command = Command::new(env!("CARGO_BIN_EXE_nexusctl"));
        let output = command.args(["--server", &self.address]).args(line.split_whitespace()).output();
        let output = output.expect("nexusctl starts");
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("UTF-8");
        (output.status.code().expect("no signal"), text(output.stdout), text(output.stderr))
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

fn step(action: StepAction) -> proto::Step {
    let source = ScriptSource::File.into();
    proto::Step { version: "0010_add_products".into(), action: action.into(), source, ..Default::default() }
}

fn done(action: StepAction) -> Kind {
    Kind::StepFinished(proto::StepFinished { step: Some(step(action)), duration_ms: 12 })
}

fn finished(database: &str, outcome: DatabaseOutcome, failure: Option<proto::Failure>) -> Kind {
    Kind::DatabaseFinished(proto::DatabaseResult {
        database: database.into(),
        outcome: outcome.into(),
        failure,
        ..Default::default()
    })
}

fn end(succeeded: bool) -> (&'static str, Kind) {
    ("", Kind::OperationFinished(proto::OperationFinished { succeeded, ..Default::default() }))
}

#[test]
fn an_apply_with_one_failed_database() {
    let failure = proto::Failure {
        code: "NX0030".into(),
        message: "Migration failed and was rolled back".into(),
        hint: "correct the SQL".into(),
        version: "0011_x".into(),
        ..Default::default()
    };
    let result = proto::DatabaseResult {
        database: "orders".into(),
        outcome: DatabaseOutcome::Failed.into(),
        done: vec![proto::StepResult { step: Some(step(StepAction::Apply)), duration_ms: 12 }],
        failure: Some(failure),
        ..Default::default()
    };
    let daemon = Daemon::start(Script::Tell(vec![
        ("orders", done(StepAction::Apply)),
        ("users", finished("users", DatabaseOutcome::UpToDate, None)),
        ("orders", Kind::DatabaseFinished(result)),
        end(false),
    ]));
    let (code, stdout, stderr) = daemon.run("apply --all");
    assert_eq!(code, 1);
    let lines: Vec<_> = stdout.lines().collect();
    assert_eq!(lines[..2], ["orders: applied 0010_add_products (12 ms)", "users: up to date"]);
    assert!(lines[2].starts_with("applied 1 migration on 1 database in "), "{stdout}");
    assert!(lines[2].ends_with("; 1 up to date; 1 failed"), "{stdout}");
    let expected =
        "error: orders: Migration failed and was rolled back: 0011_x\n  hint: correct the SQL\n  [NX0030]\n";
    assert_eq!(stderr, expected);
    let (code, stdout, _) = daemon.run("apply --all -o json");
    let document: Value = serde_json::from_str(&stdout).expect("one document");
    assert_eq!((code, &document["succeeded"]), (1, &Value::Bool(false)));
    assert_eq!(document["databases"][0]["outcome"], "failed");
    assert_eq!(document["databases"][0]["done"][0]["duration_ms"], 12);
    assert_eq!(document["databases"][1]["outcome"], "up_to_date");
}

#[test]
fn one_call_and_no_question_off_a_terminal() {
    let outcome = finished("orders", DatabaseOutcome::UpToDate, None);
    let daemon = Daemon::start(Script::Tell(vec![("orders", outcome), end(true)]));
    assert_eq!(daemon.run("apply"), (0, "orders: up to date\n".to_owned(), String::new()));
    for line in ["down --steps=-1", "rollback --steps 0", "rollback", "recover"] {
        assert_eq!(daemon.run(line).0, 0, "{line}");
    }
    let asked = daemon.asked.lock().expect("nobody panicked").clone();
    assert_eq!(asked, ["apply", "rollback Some(-1)", "rollback Some(0)", "rollback None", "recover"]);
}

#[test]
fn a_unix_socket_serves_as_well() {
    let directory = tempfile::TempDir::new().expect("a temporary directory");
    let outcome = finished("orders", DatabaseOutcome::UpToDate, None);
    let script = Script::Tell(vec![("orders", outcome), end(true)]);
    let daemon = Daemon::start_on_socket(script, &directory.path().join("nexus.sock"));
    assert_eq!(daemon.run("apply"), (0, "orders: up to date\n".to_owned(), String::new()));
}

#[test]
fn a_refusal_lists_what_there_is() {
    let daemon = Daemon::start(Script::Refuse(tonic::Code::InvalidArgument));
    let expected =
        "error: There are several databases\n  - orders\n  - users\n  hint: name them: --all\n  [NX0051]\n";
    for line in ["apply", "rollback", "repair forget 0010_x --reason x"] {
        assert_eq!(daemon.run(line), (1, String::new(), expected.to_owned()), "{line}");
    }
    let (code, _, stderr) = daemon.run("repair forget 0010_x --reason x -d orders");
    assert_eq!(code, 1);
    assert!(stderr.starts_with("error: orders: There are several databases\n"), "{stderr}");
    let (code, _, stderr) = Daemon::start(Script::Refuse(tonic::Code::Unauthenticated)).run("apply");
    assert_eq!(code, 4, "{stderr}");
    assert!(!stderr.contains("--request-id"), "nothing was begun: {stderr}");
}

#[test]
fn a_stream_that_ends_early_is_a_lost_daemon() {
    let daemon = Daemon::start(Script::Tell(vec![("orders", done(StepAction::Apply))]));
    let (code, stdout, stderr) = daemon.run("apply --request-id 018f3c5e-7a2b-7c3d-8e4f-0123456789ab");
    assert_eq!((code, stdout.as_str()), (4, "orders: applied 0010_add_products (12 ms)\n"));
    assert!(stderr.contains("was lost"), "{stderr}");
    assert!(stderr.contains("--request-id 018f3c5e-7a2b-7c3d-8e4f-0123456789ab tells"), "{stderr}");
    assert!(stderr.contains("hint: what was begun goes on while the daemon lives"), "{stderr}");
    let (_, _, stderr) = daemon.run("apply --dry-run");
    assert!(stderr.contains("was lost") && !stderr.contains("--request-id"), "{stderr}");
    let (_, stdout, _) = daemon.run("apply -o json");
    let document: Value = serde_json::from_str(&stdout).expect("one document");
    assert_eq!(document["databases"][0]["outcome"], "unknown");
    assert!(document["error"]["message"].is_string(), "{document}");
}

#[test]
fn ctrl_c_leaves_the_work_to_the_daemon() {
    let daemon = Daemon::start(Script::Hang(vec![("orders", done(StepAction::Apply))]));
    let child = Process::new(env!("CARGO_BIN_EXE_nexusctl"))
        .args(["--server", &daemon.address, "apply"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn();
    let mut child = child.expect("nexusctl starts");
    // Its first line says that the events are being followed.
    let mut first = String::new();
    let mut stdout = std::io::BufReader::new(child.stdout.take().expect("it is piped"));
    std::io::BufRead::read_line(&mut stdout, &mut first).expect("a line");
    assert_eq!(first, "orders: applied 0010_add_products (12 ms)\n");
    let pid = nix::unistd::Pid::from_raw(child.id().try_into().expect("a process id"));
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGINT).expect("it lives");
    let output = child.wait_with_output().expect("it ends");
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(130), "{stderr}");
    assert!(stderr.starts_with("error: Interrupted: nexusd goes on with the work\n"), "{stderr}");
}

#[test]
fn the_check_finds_what_is_pending() {
    let daemon = Daemon::start(Script::Tell(vec![]));
    let (code, stdout, _) = daemon.run("status");
    assert_eq!(code, 0);
    assert!(stdout.contains("0010_add_products  -           · Pending  a1b2c3d4e5f60718..."), "{stdout}");
    assert!(stdout.ends_with("\n\norders: 0 applied, 1 pending\n"), "{stdout}");
    let (code, stdout, _) = daemon.run("status --check");
    assert_eq!(code, 3);
    assert!(stdout.contains("\norders: 0010_add_products is pending\n"), "{stdout}");
    let (code, stdout, _) = daemon.run("status --check -o json");
    let document: Value = serde_json::from_str(&stdout).expect("one document");
    assert_eq!((code, &document["ok"]), (3, &Value::Bool(false)));
}

#[test]
fn a_plan_is_shown() {
    let daemon = Daemon::start(Script::Tell(vec![]));
    let (code, stdout, _) = daemon.run("plan");
    assert_eq!(code, 0);
    assert_eq!(stdout, "orders: 1 step\n  1. apply 0010_add_products (up file, 412 B)\n");
}

#[test]
fn a_plan_that_would_be_refused_says_so_first() {
    let daemon = Daemon::start(Script::Refuse(tonic::Code::FailedPrecondition));
    let (code, stdout, stderr) = daemon.run("plan");
    assert_eq!((code, stderr.as_str()), (1, "error: orders: It is dirty\n"));
    assert!(stdout.starts_with("orders: 1 step, but the plan would be refused\n"), "{stdout}");
}

#[test]
fn a_database_that_cannot_be_read_is_told_once() {
    let daemon = Daemon::start(Script::Refuse(tonic::Code::FailedPrecondition));
    let error = "error: stock: No route to host\n".to_owned();
    assert_eq!(daemon.run("status"), (1, String::new(), error.clone()));
    assert_eq!(daemon.run("status --check"), (3, String::new(), error));
}

#[test]
fn an_outcome_that_is_told_again_says_so() {
    let result = proto::DatabaseResult {
        database: "orders".into(),
        outcome: DatabaseOutcome::Succeeded.into(),
        done: vec![proto::StepResult { step: Some(step(StepAction::Apply)), duration_ms: 12 }],
        ..Default::default()
    };
    let databases = vec!["orders".into()];
    let started = Kind::OperationStarted(proto::OperationStarted { databases, ..Default::default() });
    let events = vec![("", started), ("orders", Kind::DatabaseFinished(result)), end(true)];
    let daemon = Daemon::start(Script::Tell(events));
    let (code, stdout, stderr) = daemon.run("apply --request-id 018f3c5e-7a2b-7c3d-8e4f-0123456789ab");
    let told = "this request had run before, at 2025-10-30 10:15:30Z: its outcome is told again\n";
    assert_eq!((code, stderr.as_str()), (0, told));
    assert!(stdout.ends_with("\napplied 1 migration on 1 database\n"), "{stdout}");
    let (_, stdout, stderr) = daemon.run("apply");
    assert_eq!(stderr, "", "a new id cannot have run before");
    assert!(stdout.contains("applied 1 migration on 1 database in "), "{stdout}");
}

#[test]
fn a_rollback_that_only_forgot_a_row_says_so() {
    let result = proto::DatabaseResult {
        database: "orders".into(),
        outcome: DatabaseOutcome::Succeeded.into(),
        done: vec![proto::StepResult { step: Some(step(StepAction::ForgetAttempt)), duration_ms: 1 }],
        ..Default::default()
    };
    let events = vec![("orders", Kind::DatabaseFinished(result)), end(true)];
    let (code, stdout, _) = Daemon::start(Script::Tell(events)).run("rollback");
    assert_eq!(code, 0);
    let last = stdout.lines().last().unwrap_or_default();
    assert!(last.starts_with("recovered 1 migration on 1 database in "), "{stdout}");
    assert!(last.ends_with("; rolled back nothing"), "{stdout}");
}

#[test]
fn an_apply_with_nothing_to_do_is_quick() {
    let outcome = finished("orders", DatabaseOutcome::UpToDate, None);
    let daemon = Daemon::start(Script::Tell(vec![("orders", outcome), end(true)]));
    let quickest = (0..5).map(|_| {
        let started = std::time::Instant::now();
        assert_eq!(daemon.run("apply").0, 0);
        started.elapsed()
    });
    let quickest = quickest.min().expect("there were runs");
    assert!(quickest < Duration::from_millis(200), "the client alone took {quickest:?}");
}
