//! Alerts end to end: a real daemon, a real Alertmanager, a webhook, and restarts.

use std::{
    fs,
    io::{BufRead as _, BufReader},
    process::{Command, Stdio},
};

use serde_json::{Value, json};
use tempfile::TempDir;
use wiremock::{Mock, MockServer, ResponseTemplate, matchers::method};

use crate::{
    servers::{Server, free_port, http_get},
    support::{World, await_that, wait},
};

/// An Alertmanager that runs, and tells nobody.
struct Alertmanager {
    _server: Server,
    address: String,
    _home: TempDir,
}

impl Alertmanager {
    fn start() -> Self {
        let home = TempDir::new().expect("a directory is made");
        let config = home.path().join("alertmanager.yml");
        fs::write(&config, "route: {receiver: nobody}\nreceivers: [{name: nobody}]\n")
            .expect("it is written");
        let address = format!("127.0.0.1:{}", free_port());
        let child = Command::new("prometheus-alertmanager")
            .arg(format!("--config.file={}", config.display()))
            .arg(format!("--storage.path={}", home.path().display()))
            .arg(format!("--web.listen-address={address}"))
            .arg("--cluster.listen-address=")
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("prometheus-alertmanager is installed: see make test");
        let alertmanager = Self { _server: Server(child), address, _home: home };
        await_that("Alertmanager is ready", || {
            http_get(&alertmanager.address, "/-/ready").is_some_and(|(status, _)| status == 200)
        });
        alertmanager
    }

    /// The alerts that are active.
    fn alerts(&self) -> Vec<Value> {
        let (_, body) = http_get(&self.address, "/api/v2/alerts").expect("Alertmanager answers");
        serde_json::from_str(&body).expect("a list of alerts")
    }
}

/// A webhook that takes everything.
pub(crate) struct Receiver(pub(crate) MockServer);

impl Receiver {
    pub(crate) fn start() -> Self {
        Self(wait(async {
            let server = MockServer::start().await;
            Mock::given(method("POST")).respond_with(ResponseTemplate::new(200)).mount(&server).await;
            server
        }))
    }

    /// `kind state` of everything that it was told.
    pub(crate) fn told(&self) -> Vec<String> {
        let requests = wait(self.0.received_requests()).expect("requests are recorded");
        let alerts = requests.iter().map(|request| {
            let body: Value = serde_json::from_slice(&request.body).expect("it is JSON");
            let word = |key: &str| body["alert"][key].as_str().unwrap_or_default().to_owned();
            format!("{} {}", word("kind"), word("state"))
        });
        alerts.collect()
    }
}

/// A state file with one alert of the daemon's own, which no look at a database touches.
fn seed(world: &World) -> &'static str {
    const ID: &str = "01a2057a-e634-703b-b949-7edbe9f5581c";
    let state = json!({
        "version": 1,
        "alerts": [{
            "id": ID, "database": "", "kind": "directory_unreadable", "subject": "/srv/migrations",
            "message": "The directory cannot be read", "evidence": [], "state": "firing",
            "started": "2025-10-30T10:15:30Z", "fired": "2025-10-30T10:15:40Z", "resolved": null,
            "acknowledged": null, "flaps": 0, "gone": null, "revision": 1, "delivered": {},
        }],
    });
    fs::write(world.path("alerts.json"), state.to_string()).expect("the state is written");
    ID
}

#[test]
fn what_is_known_outlives_the_daemon() {
    let receiver = Receiver::start();
    let world = World::new().more(&format!("[[alerts.webhook]]\nurl = \"{}/s3cret\"\n", receiver.0.uri()));
    let id = seed(&world);
    let mut world = world.start();
    await_that("the webhook is told", || receiver.told() == ["directory_unreadable firing"]);

    let shown = world.ctl(&["alerts", "--check"]).expect(3);
    assert!(shown.contains("critical  firing") && shown.contains(id), "{shown}");
    let listed = world.ctl(&["alerts", "--output", "json"]).json();
    assert_eq!(listed["alerts"][0]["subject"], "/srv/migrations");
    assert_eq!(world.ctl(&["alerts", "-d", "main"]).expect(0), "no alerts\n");
    assert!(world.ctl(&["alerts", "-d", "nothing"]).expect(1).contains("NX0050"));
    assert!(world.ctl(&["alerts", "ack", "ff", "--reason", "x"]).expect(1).contains("NX0065"));

    let mut watching = world.daemon.ctl_command(&["alerts", "--watch"]);
    let mut watching = watching.stdout(Stdio::piped()).spawn().expect("nexusctl starts");
    let mut watched = BufReader::new(watching.stdout.take().expect("stdout is piped")).lines();
    let mut watched = || watched.next().expect("there is a line").expect("it is text");
    let line = watched();
    assert!(line.contains(" firing critical - directory_unreadable: "), "{line}");
    let noted = world.ctl(&["alerts", "ack", &id[..8], "--reason", "disk is full", "--for", "2h"]).expect(0);
    assert!(noted.contains(" acknowledged critical - directory_unreadable: "), "{noted}");
    let logged = world.logged("Alert acknowledged");
    assert_eq!((&logged[0]["id"], &logged[0]["reason"]), (&json!(id), &json!("disk is full")));
    assert!(watched().contains(" acknowledged critical - directory_unreadable: "));
    world.ctl(&["alerts", "--check"]).expect(0);
    world.daemon.signal(nix::sys::signal::Signal::SIGTERM);
    assert_eq!(world.daemon.wait(), Some(0));
    assert_eq!(watching.wait().expect("nexusctl ends").code(), Some(4), "the daemon is gone");

    world.daemon.restart();
    let listed = world.ctl(&["alerts", "--output", "json"]).json();
    assert_eq!(listed["alerts"][0]["acknowledged"]["reason"], "disk is full");
    // Killed, too, it has kept what it knew.
    world.daemon.restart();
    let shown = world.ctl(&["alerts"]).expect(0);
    assert!(shown.contains("noted by ") && shown.contains(": disk is full"), "{shown}");
    assert_eq!(receiver.told(), ["directory_unreadable firing"], "nothing is told twice");
}

#[test]
fn a_state_that_cannot_be_kept_is_no_reason_to_stop() {
    let world = World::new();
    fs::create_dir(world.path("alerts.json")).expect("a directory in its place");
    fs::write(world.path("alerts.json/file"), "x").expect("it is not empty");
    let world = world.start();
    assert_eq!(world.ctl(&["alerts"]).expect(0), "no alerts\n");
    world.tables(1, 1);
    world.ctl(&["apply"]).expect(0);
}

#[test]
fn an_edited_file_is_an_alert_until_it_is_put_back() {
    let (alertmanager, receiver) = (Alertmanager::start(), Receiver::start());
    let sinks = format!(
        "[watch]\npoll = \"200ms\"\n\
         [[alerts.webhook]]\nurl = \"{}\"\n[[alerts.alertmanager]]\nurl = \"http://{}\"\n",
        receiver.0.uri(),
        alertmanager.address
    );
    let world = World::new().alerts("hold = \"500ms\"").more(&sinks).start();
    world.tables(1, 1);
    world.ctl(&["apply"]).expect(0);

    world.write("0001_t1.up.sql", "create table t1 (id bigint primary key);\n");
    await_that("Alertmanager has the alert", || !alertmanager.alerts().is_empty());
    let alert = &alertmanager.alerts()[0];
    let labels = json!({
        "alertname": "NexusChecksumDrift", "database": "main", "kind": "checksum_drift",
        "severity": "critical", "version": "0001_t1",
    });
    assert_eq!(alert["labels"], labels);
    assert!(
        alert["annotations"]["runbook_url"].as_str().is_some_and(|url| url.ends_with("checksum_drift.md"))
    );
    await_that("the webhook is told", || receiver.told() == ["checksum_drift firing"]);
    let fired = world.logged("Alert is firing");
    assert_eq!((&fired[0]["version"], &fired[0]["database"]), (&json!("0001_t1"), &json!("main")));

    world.write("0001_t1.up.sql", "create table t1 (id int primary key);\n");
    await_that("Alertmanager has it resolved", || alertmanager.alerts().is_empty());
    await_that("the webhook is told of the end", || {
        receiver.told() == ["checksum_drift firing", "checksum_drift resolved"]
    });
    assert_eq!(world.logged("Alert resolved")[0]["id"], fired[0]["id"]);
    let listed = world.ctl(&["alerts", "--resolved", "--output", "json"]).json();
    assert_eq!(listed["alerts"][0]["state"], "resolved");
    assert_eq!(world.ctl(&["alerts"]).expect(0), "no alerts\n");
}
