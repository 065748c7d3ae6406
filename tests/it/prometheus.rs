//! A real Prometheus and a real Alertmanager over a real daemon: every expression of `deploy/` returns
//! data, and a dirty row is told of from end to end.

use std::{
    collections::BTreeSet,
    fmt::Write as _,
    fs,
    io::Write as _,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Instant,
};

use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::Value;
use wiremock::{Mock, MockServer, ResponseTemplate, matchers::any};

use crate::{
    servers::{Server, free_port, http_get},
    support::{Ended, Running, World, await_that, wait},
};

fn deploy(file: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy").join(file)
}

fn text(path: &Path) -> String {
    fs::read_to_string(path).expect("a file of the package is read")
}

/// Keeps what was seen below `target/`, for whoever wants to look at it.
fn keep(name: &str, text: &str) {
    fs::write(Path::new(env!("CARGO_TARGET_TMPDIR")).join(name), text).expect("it is written");
}

/// A Prometheus that runs on the files of `deploy/`, only faster.
struct Prometheus {
    address: String,
    _server: Server,
}

impl Prometheus {
    /// Scrapes `nexusd`, and tells the Alertmanager at `alertmanager`.
    fn start(home: &Path, nexusd: &str, alertmanager: &str) -> Self {
        let configuration = text(&deploy("prometheus/prometheus.yml"))
            .replace("localhost:7422", nexusd)
            .replace("localhost:9093", alertmanager)
            .replace("15s", "500ms");
        let rules = text(&deploy("prometheus/nexus.rules.yml"));
        // What is waited for in a test is that it fires, not that it waits.
        let rules: Vec<_> = rules.lines().filter(|line| !line.trim_start().starts_with("for: ")).collect();
        fs::write(home.join("prometheus.yml"), configuration).expect("the configuration is written");
        fs::write(home.join("nexus.rules.yml"), rules.join("\n") + "\n").expect("the rules are written");
        let address = format!("127.0.0.1:{}", free_port());
        let server = Command::new("prometheus")
            .arg(format!("--config.file={}", home.join("prometheus.yml").display()))
            .arg(format!("--storage.tsdb.path={}", home.join("prometheus").display()))
            .arg(format!("--web.listen-address={address}"))
            .args(["--log.level=error", "--rules.alert.resend-delay=500ms"])
            .stdin(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("prometheus is installed: see make test");
        let prometheus = Self { address, _server: Server(server) };
        await_that("prometheus is ready", || {
            http_get(&prometheus.address, "/-/ready").is_some_and(|(status, _)| status == 200)
        });
        prometheus
    }

    /// What a page of the HTTP API says.
    fn api(&self, path: &str) -> Value {
        let (_, body) = http_get(&self.address, &format!("/api/v1/{path}")).expect("prometheus answers");
        let answer: Value = serde_json::from_str(&body).expect("it answers with JSON");
        assert_eq!(answer["status"], "success", "{path}: {answer}");
        answer["data"].clone()
    }

    /// The samples of an expression, each as its labels and its value.
    fn query(&self, expression: &str) -> Vec<String> {
        let encoded = utf8_percent_encode(expression, NON_ALPHANUMERIC);
        let data = self.api(&format!("query?query={encoded}"));
        let samples = data["result"].as_array().expect("a vector").iter();
        samples
            .map(|sample| {
                let labels = sample["metric"].as_object().expect("labels").iter();
                // Those are the same everywhere, and no news.
                let labels = labels.filter(|(name, _)| !matches!(name.as_str(), "instance" | "job"));
                let labels: Vec<_> = labels.map(|(name, value)| format!("{name}={value}")).collect();
                let value = sample["value"][1].as_str().expect("a value");
                format!("{{{}}} {value}", labels.join(","))
            })
            .collect()
    }

    /// The state of an alert: `inactive`, `pending` or `firing`.
    fn state(&self, alert: &str) -> String {
        let rules = self.rules();
        let rule = rules.iter().find(|rule| rule["name"] == alert).expect("the rule is there");
        rule["state"].as_str().unwrap_or_default().to_owned()
    }

    fn rules(&self) -> Vec<Value> {
        let groups = self.api("rules");
        let groups = groups["groups"].as_array().expect("groups").iter();
        groups.flat_map(|group| group["rules"].as_array().expect("rules").clone()).collect()
    }
}

/// Runs a checking tool on files of `deploy/`, or on its input; returns what it says.
fn check(program: &str, arguments: &[&str], input: &str) -> Ended {
    let mut child = Command::new(program)
        .args(arguments)
        .current_dir(deploy(""))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("prometheus and prometheus-alertmanager are installed: see make test");
    let mut stdin = child.stdin.take().expect("stdin is piped");
    stdin.write_all(input.as_bytes()).expect("it reads its input");
    drop(stdin);
    Ended::of(&child.wait_with_output().expect("it ends"))
}

/// A daemon that looks at its database every second, with something to tell in every panel: what is
/// pending is so for too long at once, and the sink does not take the alert.
fn world() -> Running {
    let watch = "[watch]\npoll = \"1s\"\npending_limit = \"1s\"\n";
    let sink = "[[alerts.webhook]]\nname = \"down\"\nurl = \"http://127.0.0.1:1/\"\n";
    let world = World::new().alerts("hold = \"0s\"").more(&format!("{watch}{sink}")).start();
    world.tables(1, 3);
    world.ctl(&["apply"]).expect(0);
    world.ctl(&["rollback", "--steps", "1"]).expect(0);
    world.ctl(&["audit", "run"]).expect(0);
    world
}

#[test]
fn the_files_of_deploy_and_the_scrape_are_clean() {
    let world = world();
    await_that("the database was looked at", || {
        world.daemon.page("/metrics").1.contains("nexus_database_up{")
    });
    let scrape = world.daemon.page("/metrics").1;
    assert_eq!(check("promtool", &["check", "metrics"], &scrape).expect(0), "");
    check("promtool", &["check", "metrics"], "nexus_things_count 1\n").expect(3);
    check("promtool", &["check", "config", "prometheus/prometheus.yml"], "").expect(0);
    check("promtool", &["test", "rules", "prometheus/nexus.rules.test.yml"], "").expect(0);
    check("amtool", &["check-config", "alertmanager/alertmanager.yml"], "").expect(0);
}

/// Every value of the keys `expr` in a JSON document.
fn expressions(json: &Value, found: &mut BTreeSet<String>) {
    match json {
        Value::Object(fields) => {
            for (name, value) in fields {
                match value.as_str().filter(|_| name == "expr") {
                    Some(expression) => drop(found.insert(expression.to_owned())),
                    None => expressions(value, found),
                }
            }
        }
        Value::Array(values) => values.iter().for_each(|value| expressions(value, found)),
        _ => {}
    }
}

/// A rule's expression without the comparison with its threshold at the end: what it looks at, also
/// while all is well.
fn without_threshold(expression: &str) -> &str {
    let comparison = [" > ", " < ", " == "].iter().filter_map(|operator| expression.rfind(operator)).max();
    let is_number = |text: &str| text.chars().all(|each| " <>=*".contains(each) || each.is_ascii_digit());
    match comparison {
        Some(at) if is_number(&expression[at..]) => &expression[..at],
        _ => expression,
    }
}

#[test]
fn every_panel_and_every_rule_has_data() {
    let world = world();
    let prometheus = Prometheus::start(world.home.path(), &world.daemon.http, "127.0.0.1:1");
    let mut wanted = BTreeSet::new();
    let dashboard: Value =
        serde_json::from_str(&text(&deploy("grafana/dashboards/nexus.json"))).expect("the dashboard is JSON");
    expressions(&dashboard, &mut wanted);
    assert!(wanted.len() > 40, "the dashboard's panels are found");
    let grafana = text(&deploy("grafana/provisioning/alerting/nexus.yml"));
    wanted.extend(grafana.lines().filter_map(|line| line.trim().strip_prefix("expr: ").map(str::to_owned)));
    let rules = prometheus.rules();
    let file = text(&deploy("prometheus/nexus.rules.yml"));
    assert_eq!(rules.len(), file.matches("- alert: ").count());
    let queries = rules.iter().map(|rule| rule["query"].as_str().expect("a query"));
    wanted.extend(queries.map(|query| without_threshold(query).to_owned()));
    // What looks for a gap is empty where there is none: then each of its sides has data.
    let wanted: BTreeSet<_> =
        wanted.iter().flat_map(|expression| expression.split(" unless ")).map(str::to_owned).collect();

    let mut table = String::new();
    for expression in wanted {
        let filled = expression
            .replace("$database", "main")
            .replace("$__rate_interval", "5s")
            .replace("$__range", "1m");
        let mut samples = Vec::new();
        await_that(&filled, || {
            samples = prometheus.query(&filled);
            !samples.is_empty()
        });
        writeln!(table, "{expression}").expect("a text takes text");
        for sample in samples {
            writeln!(table, "    {sample}").expect("a text takes text");
        }
    }
    keep("panels.txt", &table);
}

/// What Alertmanager has told the receiver of an alert: `firing` and `resolved`, in order.
fn told(receiver: &MockServer, alert: &str) -> Vec<String> {
    let requests = wait(receiver.received_requests()).expect("requests are recorded");
    let bodies =
        requests.iter().map(|request| request.body_json::<Value>().expect("Alertmanager sends JSON"));
    let alerts = bodies.flat_map(|body| body["alerts"].as_array().expect("alerts").clone());
    let of_it = alerts.filter(|each| each["labels"]["alertname"] == alert);
    of_it.map(|each| format!("{} {}", each["labels"]["database"], each["status"]).replace('"', "")).collect()
}

#[test]
fn a_dirty_row_reaches_the_receiver_and_is_resolved() {
    let receiver = wait(async {
        let receiver = MockServer::start().await;
        Mock::given(any()).respond_with(ResponseTemplate::new(200)).mount(&receiver).await;
        receiver
    });
    let world = world();
    let configuration = text(&deploy("alertmanager/alertmanager.yml"))
        .replace("http://localhost:9095", &receiver.uri())
        .replace("group_wait: 10s", "group_wait: 100ms")
        .replace("group_interval: 1m", "group_interval: 500ms");
    let path = world.path("alertmanager.yml");
    fs::write(&path, configuration).expect("the configuration is written");
    let address = format!("127.0.0.1:{}", free_port());
    let _alertmanager = Server(
        Command::new("prometheus-alertmanager")
            .arg(format!("--config.file={}", path.display()))
            .arg(format!("--storage.path={}", world.path("alertmanager").display()))
            .arg(format!("--web.listen-address={address}"))
            .args(["--cluster.listen-address=", "--log.level=error"])
            .stdin(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("prometheus-alertmanager is installed: see make test"),
    );
    let prometheus = Prometheus::start(world.home.path(), &world.daemon.http, &address);
    await_that("the clean row is seen", || !prometheus.query("nexus_dirty_migrations == 0").is_empty());
    assert_eq!(prometheus.state("NexusDirtyMigration"), "inactive");

    world.database.sql("update schema_migrations set dirty = true where version = '0001_t1'");
    let marked = Instant::now();
    await_that("the receiver is told", || told(&receiver, "NexusDirtyMigration") == ["main firing"]);
    let firing = marked.elapsed();
    let cleared = Instant::now();
    world.database.sql("update schema_migrations set dirty = false");
    await_that("the receiver is told that it is over", || {
        told(&receiver, "NexusDirtyMigration").last().is_some_and(|last| last == "main resolved")
    });
    assert_eq!(prometheus.state("NexusDirtyMigration"), "inactive");
    let resolved = cleared.elapsed();
    keep(
        "dirty-row.txt",
        &format!("the receiver was told after {firing:.1?}, of the end after {resolved:.1?}\n"),
    );
}

#[test]
fn every_alert_leads_to_a_page() {
    let docs = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs");
    for file in ["prometheus/nexus.rules.yml", "grafana/provisioning/alerting/nexus.yml"] {
        let rules = text(&deploy(file));
        let links: Vec<_> =
            rules.lines().filter_map(|line| line.trim().strip_prefix("runbook_url: ")).collect();
        let is_rule = |line: &&str| line.contains("- alert: ") || line.contains("title: ");
        assert_eq!(links.len(), rules.lines().filter(is_rule).count(), "each rule of {file} has one");
        for link in links {
            let page = link.strip_prefix("https://nexus.example.com/docs/").unwrap_or(link);
            let (page, anchor) = page.split_once('#').unwrap_or((page, ""));
            let is_meant = |line: &str| {
                line.strip_prefix("## ").is_some_and(|it| it.to_lowercase().replace(' ', "-") == anchor)
            };
            assert!(anchor.is_empty() || text(&docs.join(page)).lines().any(is_meant), "{link}");
        }
    }
}
