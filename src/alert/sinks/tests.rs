//! Sinks that fail, hang, answer with garbage, and come back.

use std::{
    net::TcpListener,
    path::Path,
    time::{Duration, Instant},
};

use jiff::Timestamp;
use serde_json::Value;
use tokio::sync::mpsc;
use uuid::Uuid;
use wiremock::{
    Mock, MockServer, Request, ResponseTemplate,
    matchers::{method, path},
};

use crate::{
    alert::{Alerts, Keeping, Settings, SinkKind, SinkSettings, sinks::webhook},
    migration::{Acknowledgement, Event, EventKind, Finding, FindingKind, Observation, Severity},
    runtime::Tasks,
};

const PAGE: &str = include_str!("../../../docs/alerts.md");
const PATIENCE: Duration = Duration::from_secs(30);

/// Alerts with one sink, and what they tell the daemon.
struct World {
    alerts: Alerts,
    events: mpsc::UnboundedReceiver<Event>,
}

fn settings(directory: &Path, url: &str, kind: SinkKind) -> Settings {
    let sink = SinkSettings {
        name: "sink".into(),
        url: url.into(),
        timeout: Duration::from_millis(300),
        least: Severity::Warning,
        kind,
    };
    Settings {
        hold: Duration::ZERO,
        flap_window: Duration::ZERO,
        keeping: Keeping::File(directory.join("alerts.json")),
        runbook_base: "https://wiki/nexus/".into(),
        sinks: vec![sink],
    }
}

fn webhook() -> SinkKind {
    SinkKind::Webhook { secret: Some("hunter2".into()) }
}

impl World {
    fn start(directory: &Path, url: &str, kind: SinkKind) -> Self {
        let (sender, events) = mpsc::unbounded_channel();
        let alerts =
            Alerts::start(settings(directory, url, kind), Tasks::default(), sender).expect("it starts");
        Self { alerts, events }
    }

    fn see(&self, versions: &[&str]) {
        let finding = |version: &&str| Finding::new(FindingKind::Dirty, *version, "The row is dirty");
        let observation = Observation {
            database: "orders".into(),
            time: Timestamp::now(),
            counts: None,
            newest: None,
            findings: versions.iter().map(finding).collect(),
            unknown: Vec::new(),
        };
        let kind = EventKind::Observed(Box::new(observation));
        let (operation, time, database) = (Uuid::nil(), Timestamp::now(), "orders".to_owned());
        self.alerts.observe(&Event { operation, trace: None, time, database, kind });
    }

    /// The outcomes of the next sends.
    async fn outcomes(&mut self, count: usize) -> Vec<&'static str> {
        let mut outcomes = Vec::new();
        while outcomes.len() < count {
            let event = tokio::time::timeout(PATIENCE, self.events.recv()).await.expect("in time");
            if let Some(Event { kind: EventKind::AlertSent { sink, outcome }, .. }) = event {
                assert_eq!(sink, "sink");
                outcomes.push(outcome);
            }
        }
        outcomes
    }
}

async fn answering(template: ResponseTemplate) -> MockServer {
    let server = MockServer::start().await;
    Mock::given(method("POST")).respond_with(template).mount(&server).await;
    server
}

async fn requests(server: &MockServer) -> Vec<Request> {
    server.received_requests().await.expect("requests are recorded")
}

fn body(request: &Request) -> Value {
    serde_json::from_slice(&request.body).expect("it is JSON")
}

#[tokio::test]
async fn a_webhook_is_told_once_of_the_beginning_and_of_the_end() {
    let directory = tempfile::tempdir().expect("a directory");
    let server = answering(ResponseTemplate::new(204)).await;
    let url = format!("{}/hook?token=s3cret", server.uri());
    let mut world = World::start(directory.path(), &url, webhook());
    world.see(&["0001_a"]);
    assert_eq!(world.outcomes(1).await, ["sent"]);
    world.see(&["0001_a"]);
    world.see(&[]);
    assert_eq!(world.outcomes(1).await, ["sent"]);
    world.alerts.shutdown().await;
    world.alerts.keep().await;

    let received = requests(&server).await;
    let [fired, resolved] = received.as_slice() else { return assert_eq!(received.len(), 2) };
    let header = |request: &Request, name: &str| {
        request.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default().to_owned()
    };
    for request in [fired, resolved] {
        let time = header(request, "X-Nexus-Timestamp");
        let expected = webhook::signature(&"hunter2".into(), &time, &request.body);
        assert_eq!(header(request, "X-Nexus-Signature"), expected);
        assert_eq!(body(request)["delivery"], header(request, "X-Nexus-Delivery"));
        assert_eq!(request.url.query(), Some("token=s3cret"));
    }
    let (first, last) = (body(fired), body(resolved));
    assert_ne!(first["delivery"], last["delivery"]);
    assert_eq!((&first["schema"], &first["alert"]["state"]), (&1.into(), &"firing".into()));
    assert_eq!((&last["alert"]["id"], &last["alert"]["state"]), (&first["alert"]["id"], &"resolved".into()));
    assert_eq!(first["alert"]["runbook_url"], "https://wiki/nexus/dirty.md");
    assert_eq!(first["alert"]["resolved_at"], Value::Null);

    let example =
        PAGE.split("```json\n").nth(1).and_then(|rest| rest.split("```").next()).unwrap_or_default();
    let example: Value = serde_json::from_str(example).expect("the example is JSON");
    let keys = |value: &Value| value.as_object().expect("an object").keys().cloned().collect::<Vec<_>>();
    assert_eq!(keys(&first), keys(&example));
    assert_eq!(keys(&first["alert"]), keys(&example["alert"]), "docs/alerts.md tells of each key");
}

#[tokio::test]
async fn a_restart_tells_only_what_was_not_told() {
    let directory = tempfile::tempdir().expect("a directory");
    let server = answering(ResponseTemplate::new(200)).await;
    let mut world = World::start(directory.path(), &server.uri(), webhook());
    world.see(&["0001_a"]);
    assert_eq!(world.outcomes(1).await, ["sent"]);
    world.alerts.shutdown().await;
    world.alerts.keep().await;
    drop(world);
    let mut world = World::start(directory.path(), &server.uri(), webhook());
    world.see(&["0001_a", "0002_b"]);
    assert_eq!(world.outcomes(1).await, ["sent"]);
    world.alerts.shutdown().await;
    world.alerts.keep().await;
    let subjects: Vec<_> =
        requests(&server).await.iter().map(|request| body(request)["alert"]["subject"].clone()).collect();
    assert_eq!(subjects, ["0001_a", "0002_b"]);
}

#[tokio::test]
async fn a_sink_that_was_down_gets_the_newest_state() {
    let directory = tempfile::tempdir().expect("a directory");
    let server = MockServer::start().await;
    Mock::given(method("POST"))
        .respond_with(ResponseTemplate::new(500))
        .up_to_n_times(1)
        .expect(1)
        .mount(&server)
        .await;
    let mut world = World::start(directory.path(), &server.uri(), webhook());
    world.see(&["0001_a"]);
    assert_eq!(world.outcomes(1).await, ["failed"]);
    world.see(&[]);
    server.reset().await;
    Mock::given(method("POST")).respond_with(ResponseTemplate::new(200)).mount(&server).await;
    assert_eq!(world.outcomes(1).await, ["sent"]);
    let received = requests(&server).await;
    assert_eq!(received.len(), 1, "not the beginning, which is past");
    assert_eq!(body(&received[0])["alert"]["state"], "resolved");
    world.alerts.shutdown().await;
    world.alerts.keep().await;
}

#[tokio::test]
async fn what_is_refused_for_good_is_dropped() {
    let directory = tempfile::tempdir().expect("a directory");
    for (status, expected) in [
        (400, "dropped"),
        (422, "dropped"),
        (404, "failed"),
        (302, "failed"),
        (408, "failed"),
        (429, "failed"),
        (503, "failed"),
    ] {
        let template = ResponseTemplate::new(status).insert_header("Location", "http://127.0.0.1:1/");
        let server = answering(template).await;
        let state = directory.path().join(status.to_string());
        let mut world = World::start(&state, &server.uri(), webhook());
        world.see(&["0001_a"]);
        assert_eq!(world.outcomes(1).await, [expected], "{status}");
        world.alerts.shutdown().await;
        world.alerts.keep().await;
        let attempts = requests(&server).await.len();
        // What failed is tried once more before the end.
        assert_eq!(attempts, if expected == "failed" { 2 } else { 1 }, "{status}");
    }
}

#[tokio::test]
async fn silence_garbage_and_nobody_are_failures_and_hold_up_nothing() {
    let directory = tempfile::tempdir().expect("a directory");
    let silent = TcpListener::bind("127.0.0.1:0").expect("a port");
    let garbage = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let nobody = {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        listener.local_addr().expect("it is bound")
    };
    let addresses =
        [silent.local_addr().expect("it is bound"), garbage.local_addr().expect("it is bound"), nobody];
    let babble = crate::runtime::spawn_owned(async move {
        use tokio::io::AsyncWriteExt as _;
        while let Ok((mut stream, _)) = garbage.accept().await {
            // Whether it is heard is the other's affair.
            let _ = stream.write_all(&[0xff; 4_096]).await;
        }
    });
    for address in addresses {
        let state = directory.path().join(address.port().to_string());
        let mut world = World::start(&state, &format!("http://{address}/"), webhook());
        let started = Instant::now();
        for _ in 0..100 {
            world.see(&["0001_a", "0002_b"]);
            world.see(&[]);
        }
        assert!(started.elapsed() < Duration::from_secs(1), "nobody waits for a sink");
        assert_eq!(world.outcomes(2).await, ["failed", "failed"], "{address}");
        let started = Instant::now();
        world.alerts.shutdown().await;
        world.alerts.keep().await;
        assert!(started.elapsed() < Duration::from_secs(5), "the end is bounded");
    }
    babble.abort();
}

#[tokio::test]
async fn alertmanager_hears_of_all_that_stands() {
    let directory = tempfile::tempdir().expect("a directory");
    let server = MockServer::start().await;
    Mock::given(method("POST"))
        .and(path("/prefix/api/v2/alerts"))
        .respond_with(ResponseTemplate::new(200))
        .mount(&server)
        .await;
    let url = format!("{}/prefix/", server.uri());
    let mut world = World::start(directory.path(), &url, SinkKind::Alertmanager);
    world.see(&["0001_a"]);
    assert_eq!(world.outcomes(1).await, ["sent"]);
    let id = world.alerts.list()[0].id.to_string();
    let note = Acknowledgement { by: "eve".into(), reason: "known".into(), until: None };
    world.alerts.acknowledge(&id, note).await.expect("it stands");
    world.alerts.shutdown().await;
    world.alerts.keep().await;
    drop(world);
    // After a restart everything that stands is told again, who took note of it too.
    let mut world = World::start(directory.path(), &url, SinkKind::Alertmanager);
    assert_eq!(world.outcomes(1).await, ["sent"]);
    world.see(&[]);
    assert_eq!(world.outcomes(1).await, ["sent"]);
    world.alerts.shutdown().await;
    world.alerts.keep().await;

    let bodies: Vec<_> = requests(&server).await.iter().map(body).collect();
    let [fired, acknowledged, resolved] = bodies.as_slice() else { return assert_eq!(bodies.len(), 3) };
    let labels = serde_json::json!({
        "alertname": "NexusDirty", "database": "orders", "kind": "dirty", "severity": "critical",
        "version": "0001_a",
    });
    for body in [fired, acknowledged, resolved] {
        assert_eq!(body[0]["labels"], labels, "the labels are the alert's identity");
    }
    let time = |body: &Value, key: &str| -> Timestamp {
        body[0][key].as_str().and_then(|text| text.parse().ok()).expect("a time")
    };
    assert!(time(fired, "endsAt") > Timestamp::now(), "it stands");
    assert!(time(resolved, "endsAt") <= Timestamp::now(), "it is over");
    assert_eq!(fired[0]["annotations"]["acknowledged_by"], Value::Null);
    assert_eq!(acknowledged[0]["annotations"]["acknowledged_by"], "eve");
}

#[tokio::test]
async fn a_url_that_is_none_is_refused_without_being_told() {
    let directory = tempfile::tempdir().expect("a directory");
    let (sender, _events) = mpsc::unbounded_channel();
    let settings = settings(directory.path(), "http://u:hunter2@h:99999/", webhook());
    let refused = Alerts::start(settings, Tasks::default(), sender);
    let error = refused.err().map(|error| error.to_string()).unwrap_or_default();
    assert_eq!(error, "the sink sink has a URL that cannot be used: invalid port number");
}

#[tokio::test]
async fn a_state_file_has_one_daemon_at_a_time() {
    let directory = tempfile::tempdir().expect("a directory");
    let start = || {
        let (sender, _events) = mpsc::unbounded_channel();
        Alerts::start(settings(directory.path(), "http://127.0.0.1:9/", webhook()), Tasks::default(), sender)
    };
    let first = start().expect("it starts");
    let refused = start().err().map(|error| error.to_string()).unwrap_or_default();
    assert!(refused.contains("alerts.json is another running nexusd's"), "{refused}");
    first.shutdown().await;
    drop(first);
    start().expect("it is free again");
}
