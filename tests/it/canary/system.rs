//! A whole system with a secret in each place that takes one: a daemon with TLS, tokens, a control database,
//! sinks, a collector, and databases that are reached in every way.

use std::{
    fmt::Write as _,
    fs::{self, File},
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::atomic::{AtomicU32, Ordering},
};

use nexus::rpc::client::{Address, Client, Credentials};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use tempfile::TempDir;
use wiremock::{Mock, MockServer, ResponseTemplate, matchers::method};

use super::{
    left::{bodies, children, files, rows},
    scan::Scan,
};
use crate::{
    certificates::Authority,
    otlp::{Collector, Manner},
    servers::free_port,
    support::{Begun, Database, Ended, PATIENCE, await_that, fail, private, server, wait},
};

/// What makes a password need an encoding, in URLs and in JSON.
const AWKWARD: &str = "\"/+é%\\";

/// What is told of a request that a test makes.
pub(super) const ANSWERS: &str = "answers of nexusctl";
pub(super) const CHECKS: &str = "answers of nexusd";
pub(super) const RAW: &str = "gRPC, as it is sent";
pub(super) const FILES: &str = "files of nexusd";
pub(super) const STDERR: &str = "stderr of nexusd, at trace";
pub(super) const PROCESSES: &str = "processes";
pub(super) const METRICS: &str = "metrics and health";
pub(super) const TRACES: &str = "traces";
pub(super) const ALERTS: &str = "alerts, as they are sent";
pub(super) const TABLES: &str = "tables";

/// The running system.
pub(super) struct System {
    pub(super) scan: Scan,
    /// What may be told: the name of a database, of a version and of the configuration's file.
    pub(super) marker: String,
    /// What the user has written: secrets stand here.
    given: TempDir,
    /// Where the daemon works and writes.
    own: TempDir,
    pub(super) main: Database,
    others: Vec<Database>,
    control: Database,
    sinks: Vec<(&'static str, MockServer)>,
    collector: Collector,
    daemon: Option<Child>,
    grpc: String,
    pub(super) http: String,
    environment: Vec<(&'static str, String)>,
}

/// A role with a password of its own, and the URL by which it reaches a database.
fn role(scan: &mut Scan, what: &'static str, url: &str) -> (String, String, String) {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let name = format!("canary_role_{}", COUNT.fetch_add(1, Ordering::Relaxed));
    let password = format!("{}{AWKWARD}", scan.plant(what));
    Database { url: url.to_owned() }
        .sql(&format!("create role {name} login superuser password '{password}'"));
    let encoded = utf8_percent_encode(&password, NON_ALPHANUMERIC).to_string();
    let (_, rest) = url.split_once('@').expect("the URL has a user");
    (format!("postgres://{name}:{encoded}@{rest}"), name, password)
}

fn quoted(path: &Path) -> String {
    format!("{:?}", path.display().to_string())
}

impl System {
    /// Plants the secrets and starts the daemon.
    pub(super) fn start(mut scan: Scan) -> Self {
        let marker = scan.plant(super::CONTROL);
        let (given, own) = (TempDir::new().expect("a directory"), TempDir::new().expect("a directory"));
        let path = |name: &str| given.path().join(name);
        for directory in ["cases", "migrations"] {
            fs::create_dir(path(directory)).expect("a directory is made");
        }
        let (main, control) = (Database::new(), Database::new());
        let others: Vec<_> = (0..4).map(|_| Database::new()).collect();
        let mut toml = server_part(&mut scan, &given, &own);
        let sinks = sinks(&mut scan, &given, &mut toml);
        let collector = Collector::start(Manner::Take);
        write!(toml, "[telemetry]\nendpoint = {:?}\nsql_text = true\n", collector.endpoint)
            .expect("it is written");
        let (control_url, ..) = role(&mut scan, "password of the control database's URL", &control.url);
        write!(toml, "[control]\nurl = {control_url:?}\nlease = \"2s\"\n[watch]\npoll = \"200ms\"\n")
            .expect("it is written");
        write!(toml, "[defaults]\nmigrations = {}\nconnect_timeout = \"5s\"\n", quoted(&path("migrations")))
            .expect("it is written");
        let environment = databases(&mut scan, &given, &mut toml, &main, &others, &marker);
        fs::write(path(&format!("nexus-{marker}.toml")), toml).expect("the configuration is written");
        let otlp = scan.plant("an OTLP header in the environment");
        let environment = [
            environment,
            vec![
                ("OTEL_EXPORTER_OTLP_HEADERS", format!("authorization=Bearer%20{otlp}")),
                ("RUST_LOG", "trace".to_owned()),
            ],
        ]
        .concat();
        let (grpc, http) = (String::new(), String::new());
        let mut system = Self {
            scan,
            marker,
            given,
            own,
            main,
            others,
            control,
            sinks,
            collector,
            daemon: None,
            grpc,
            http,
            environment,
        };
        system.serve();
        system
    }

    pub(super) fn given(&self, name: &str) -> PathBuf {
        self.given.path().join(name)
    }

    /// The configuration's file, whose name may be told.
    pub(super) fn config(&self) -> PathBuf {
        self.given(&format!("nexus-{}.toml", self.marker))
    }

    pub(super) fn nexusd(&self) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_nexusd"));
        command.current_dir(self.own.path()).envs(self.environment.iter().cloned()).stdin(Stdio::null());
        command
    }

    fn serve(&mut self) {
        let log = self.own.path().join("stderr");
        let mut command = self.nexusd();
        command.args(["serve", "--log-level", "trace", "--config"]).arg(self.config());
        command.stdout(File::create(self.own.path().join("stdout")).expect("it is made"));
        command.stderr(File::create(&log).expect("it is made"));
        self.daemon = Some(command.spawn().expect("nexusd starts"));
        let mut serving = String::new();
        await_that("nexusd serves", || {
            let text = fs::read_to_string(&log).expect("it is read");
            text.lines().find(|line| line.contains("serving")).unwrap_or_default().clone_into(&mut serving);
            if text.contains("error: ") && serving.is_empty() {
                fail(&text);
            }
            !serving.is_empty()
        });
        let address = |field: &str| {
            let value = serving.split(field).nth(1).expect("it says where");
            let address: SocketAddr =
                value.split(' ').next().and_then(|it| it.parse().ok()).expect("an address");
            format!("https://localhost:{}", address.port())
        };
        (self.grpc, self.http) = (address("grpc="), address("http="));
    }

    pub(super) fn pid(&self) -> u32 {
        self.daemon.as_ref().expect("it runs").id()
    }

    pub(super) fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.pid().cast_signed()), signal).expect("the daemon is signalled");
    }

    pub(super) fn ctl_command(&self, token: Option<&str>, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_nexusctl"));
        command
            .args(arguments)
            .current_dir(self.own.path())
            .envs(self.environment.iter().filter(|(name, _)| name.starts_with("OTEL_")).cloned())
            .env("OTEL_EXPORTER_OTLP_ENDPOINT", &self.collector.endpoint)
            .env("NEXUS_SERVER", &self.grpc)
            .env("NEXUS_CA", self.given("ca.pem"))
            .env("NO_COLOR", "1")
            .env("XDG_CONFIG_HOME", self.own.path())
            .stdin(Stdio::null());
        if let Some(token) = token {
            command.env("NEXUS_TOKEN_FILE", self.given(token));
        }
        command
    }

    /// Runs `nexusctl` and notes what it says.
    pub(super) fn ctl(&mut self, arguments: &[&str]) -> String {
        self.ctl_as(Some("right.token"), arguments)
    }

    pub(super) fn ctl_as(&mut self, token: Option<&str>, arguments: &[&str]) -> String {
        let output = self.ctl_command(token, arguments).output().expect("nexusctl runs");
        self.ended(ANSWERS, &format!("nexusctl {}", arguments.join(" ")), &Ended::of(&output))
    }

    /// Notes what a program has said.
    pub(super) fn ended(&mut self, kind: &'static str, name: &str, ended: &Ended) -> String {
        let told = format!("{}{}", ended.stdout, ended.stderr);
        self.scan.told(kind, name, told.clone());
        told
    }

    /// A `nexusctl` that runs: what other users see of it.
    pub(super) fn watched(&mut self, arguments: &[&str]) {
        let begun = Begun::of(self.ctl_command(Some("right.token"), arguments));
        let mut cmdline = Vec::new();
        // It is a copy of the test, without arguments, until it has become the program.
        await_that("it is nexusctl", || {
            cmdline = fs::read(format!("/proc/{}/cmdline", begun.0.id())).expect("it runs");
            !cmdline.is_empty()
        });
        self.scan.told(PROCESSES, "/proc/PID/cmdline of nexusctl", cmdline);
        begun.kill();
    }

    /// What nexusd shows to other users, and what it has started.
    pub(super) fn processes(&mut self) {
        let cmdline = fs::read(format!("/proc/{}/cmdline", self.pid())).expect("it runs");
        self.scan.told(PROCESSES, "/proc/PID/cmdline of nexusd", cmdline);
        for (pid, name) in children(self.pid()) {
            for file in ["cmdline", "environ"] {
                let bytes = fs::read(format!("/proc/{pid}/{file}")).unwrap_or_default();
                self.scan.told(PROCESSES, format!("/proc/PID/{file} of {name}, which nexusd started"), bytes);
            }
        }
        let server = server();
        let password = server.url("x").split([':', '@']).nth(2).expect("it has one").to_owned();
        self.scan.plant_own("the password of an embedded PostgreSQL", &password);
        let pid = server.pid().expect("it runs");
        for file in ["cmdline", "environ"] {
            let bytes = fs::read(format!("/proc/{pid}/{file}")).expect("it runs");
            self.scan.told(PROCESSES, format!("/proc/PID/{file} of the embedded PostgreSQL"), bytes);
        }
        self.scan.told(PROCESSES, "Debug of the embedded PostgreSQL", format!("{server:?}"));
    }

    /// A client of the daemon's, whose answers are looked at as they come.
    pub(super) async fn client(&self, token: &str) -> Client {
        let address: Address = self.grpc.parse().expect("an address");
        let token = fs::read_to_string(self.given(token)).expect("it is read").trim().to_owned();
        let authorities = Some(fs::read(self.given("ca.pem")).expect("it is read"));
        let credentials = Credentials { authorities, certificate: None, token: Some(token.into()) };
        Client::connect(&address, &credentials, PATIENCE).await.expect("the daemon answers")
    }

    /// A page of the HTTP server, with a token or without.
    pub(super) fn page(&mut self, path: &str, token: Option<&str>) {
        // Whoever comes first installs it.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let authority = fs::read(self.given("ca.pem")).expect("it is read");
        let url = format!("{}{path}", self.http);
        let token = token.map(|name| fs::read_to_string(self.given(name)).expect("it is read"));
        let told = wait(async {
            let authority = reqwest::Certificate::from_pem(&authority).expect("a certificate");
            let client = reqwest::Client::builder().tls_certs_only([authority]).build().expect("a client");
            let mut request = client.get(url);
            if let Some(token) = &token {
                request = request.bearer_auth(token.trim());
            }
            let answer = request.send().await.expect("HTTP answers");
            let head = format!("{} {:?}\n", answer.status(), answer.headers());
            head + &answer.text().await.expect("it is text")
        });
        self.scan.told(
            METRICS,
            format!("GET {path}{}", if token.is_some() { ", a token" } else { "" }),
            told,
        );
    }

    /// Whether a sink has been told.
    pub(super) fn was_told(&self, sink: &str) -> bool {
        self.sinks.iter().any(|(name, server)| *name == sink && !bodies(server).is_empty())
    }

    /// Ends the daemon and notes everything that it has left anywhere.
    pub(super) fn end(mut self) -> Scan {
        self.signal(Signal::SIGTERM);
        let mut daemon = self.daemon.take().expect("it runs");
        await_that("the daemon ends", || daemon.try_wait().expect("it is waited for").is_some());
        for (name, server) in &self.sinks {
            self.scan.told(ALERTS, format!("what {name} was sent"), bodies(server));
        }
        self.scan.told(TRACES, "what the collector was sent", self.collector.received());
        for (name, database) in std::iter::once(("the control database", &self.control))
            .chain(std::iter::once(("the main database", &self.main)))
            .chain(self.others.iter().map(|it| ("another database", it)))
        {
            for (table, rows) in rows(database) {
                self.scan.told(TABLES, format!("{table} of {name}"), rows);
            }
        }
        for file in files(self.own.path()) {
            let name = file.strip_prefix(self.own.path()).expect("it is in it").display().to_string();
            let kind = if name == "stderr" { STDERR } else { FILES };
            let bytes = fs::read(&file).expect("it is read");
            // Nobody writes to it: there is nothing that could be in it.
            if name != "stdout" || !bytes.is_empty() {
                self.scan.told(kind, name, bytes);
            }
        }
        std::mem::take(&mut self.scan)
    }
}

impl Drop for System {
    fn drop(&mut self) {
        if let Some(daemon) = &mut self.daemon {
            // It may have ended; then there is nothing to do.
            let _ = daemon.kill();
            let _ = daemon.wait();
        }
    }
}

/// `[server]` with TLS and `[access]`, `[log]` and `[alerts]`.
fn server_part(scan: &mut Scan, given: &TempDir, own: &TempDir) -> String {
    let path = |name: &str| given.path().join(name);
    let authority = Authority::new();
    authority.write(&path("ca.pem"));
    authority.sign("localhost", &path("cert.pem"), &path("key.pem"));
    let key = fs::read_to_string(path("key.pem")).expect("it is read");
    scan.plant_own("a line of the key of TLS", key.lines().nth(1).expect("it has one"));
    let mut grants = String::new();
    for name in ["right", "expired"] {
        let out = path(&format!("{name}.token"));
        let mut command = Command::new(env!("CARGO_BIN_EXE_nexusctl"));
        command.args(["token", "create", "--name", name, "--role", "admin", "--all", "--out"]).arg(&out);
        let made = Ended::of(&command.output().expect("nexusctl runs"));
        assert_eq!(made.code, Some(0), "{}", made.stderr);
        let what = if name == "right" { "a token" } else { "a token that has expired" };
        let token = fs::read_to_string(out).expect("it is read");
        scan.plant_own(what, token.trim().trim_start_matches("nexus_"));
        scan.told(
            ANSWERS,
            format!("nexusctl token create ({name})"),
            format!("{}{}", made.stdout, made.stderr),
        );
        let entry = made.stdout.lines().filter(|line| name == "right" || !line.starts_with("expires"));
        grants.extend(entry.map(|line| format!("{line}\n")));
        if name == "expired" {
            grants += "expires = \"2026-01-01T00:00:00Z\"\n";
        }
    }
    private(&path("wrong.token"), &format!("nexus_{}", scan.plant("a token that nobody knows")));
    private(&path("access.toml"), &grants);
    format!(
        "[server]\ngrpc = \"127.0.0.1:0\"\nhttp = \"127.0.0.1:0\"\nsocket = {}\ntls_cert = {}\ntls_key = {}\n\
         [access]\nfile = {}\n[log]\nfile = {}\n[alerts]\nstate_file = {}\nhold = \"0s\"\nflap_window = \"0s\"\n",
        quoted(&own.path().join("nexusd.sock")),
        quoted(&path("cert.pem")),
        quoted(&path("key.pem")),
        quoted(&path("access.toml")),
        quoted(&own.path().join("logs/migrations.jsonl")),
        quoted(&own.path().join("logs/alerts.json")),
    )
}

/// Sinks that take what they are told, that refuse it, and that are not there.
fn sinks(scan: &mut Scan, given: &TempDir, toml: &mut String) -> Vec<(&'static str, MockServer)> {
    let secret = given.path().join("hook.secret");
    private(&secret, &scan.plant("a webhook's secret"));
    let start = |status: u16| {
        wait(async {
            let server = MockServer::start().await;
            let answer = ResponseTemplate::new(status).set_body_string("no");
            Mock::given(method("POST")).respond_with(answer).mount(&server).await;
            server
        })
    };
    let sinks = vec![
        ("hook", start(200)),
        ("refusing", start(400)),
        ("failing", start(500)),
        ("manager", start(200)),
    ];
    for (name, server) in &sinks {
        let what: [&'static str; 3] = match *name {
            "hook" => ["a webhook's userinfo", "a webhook's path", "a webhook's query"],
            "refusing" => ["a refusing webhook's userinfo", "its path", "its query"],
            "failing" => ["a failing webhook's userinfo", "its path", "its query"],
            _ => ["an Alertmanager's userinfo", "its path", "its query"],
        };
        let [user, path, query] = what.map(|what| scan.plant(what));
        let host = server.address();
        let kind = if *name == "manager" { "alertmanager" } else { "webhook" };
        write!(
            toml,
            "[[alerts.{kind}]]\nname = {name:?}\nurl = \"http://u:{user}@{host}/{path}?token={query}\"\n"
        )
        .expect("it is written");
        if *name == "hook" {
            writeln!(toml, "secret_file = {}", quoted(&secret)).expect("it is written");
        }
    }
    let gone = given.path().join("gone.url");
    let user = scan.plant("a webhook's url_file");
    private(&gone, &format!("http://u:{user}@127.0.0.1:{}/{user}", free_port()));
    write!(toml, "[[alerts.webhook]]\nname = \"gone\"\nurl_file = {}\n", quoted(&gone))
        .expect("it is written");
    sinks
}

/// Databases that are reached in every way, and some that are not; what the daemon's environment has to hold.
fn databases(
    scan: &mut Scan,
    given: &TempDir,
    toml: &mut String,
    main: &Database,
    others: &[Database],
    marker: &str,
) -> Vec<(&'static str, String)> {
    let path = |name: &str| given.path().join(name);
    let mut add = |name: &str, lines: &str| {
        writeln!(toml, "[[database]]\nname = {name:?}\n{lines}").expect("it is written");
    };
    let (url, ..) = role(scan, "password in url", &main.url);
    add(marker, &format!("url = {url:?}\nmigrations = {}", quoted(&path("cases"))));
    let (in_variable, ..) = role(scan, "password in url_env", &others[0].url);
    add("by-env", "url_env = \"CANARY_URL\"");
    let (url, ..) = role(scan, "password in url_file", &others[1].url);
    private(&path("url"), &url);
    add("by-file", &format!("url_file = {}", quoted(&path("url"))));
    let pairs = |name: &str, url: &str| {
        let port = server().port();
        format!(
            "host=127.0.0.1 port={port} user={name} dbname={}",
            url.rsplit('/').next().unwrap_or_default()
        )
    };
    let (_, name, password) = role(scan, "password in a password file", &others[2].url);
    let escaped = password.replace('\\', "\\\\");
    private(&path("passfile"), &format!("*:*:*:{name}:{escaped}\n"));
    let dsn = format!("{} passfile='{}'", pairs(&name, &others[2].url), path("passfile").display());
    add("by-passfile", &format!("url = {dsn:?}"));
    let (_, name, password) = role(scan, "password in a list of pairs", &others[3].url);
    let dsn = format!("{} password='{}'", pairs(&name, &others[3].url), password.replace('\\', "\\\\"));
    add("by-pairs", &format!("url = {dsn:?}"));
    let wrong = scan.plant("a wrong password");
    let (_, rest) = others[0].url.split_once('@').expect("the URL has a user");
    add("wrong", &format!("url = \"postgres://postgres:{wrong}@{rest}\""));
    let unreachable = scan.plant("a password of an unreachable server");
    add("gone", &format!("url = \"postgres://postgres:{unreachable}@127.0.0.1:{}/x\"", free_port()));
    let (url, ..) = role(scan, "password of a discovery", &main.url);
    // It finds nothing: a row's value is in the way.
    write!(toml, "[[discover]]\nid = \"tenants\"\nurl = {url:?}\nquery = \"select number::int::text as name from people\"\nevery = \"1s\"\n").expect("it is written");
    vec![("CANARY_URL", in_variable)]
}
