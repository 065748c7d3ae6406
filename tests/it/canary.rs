//! The canary scan: a secret of its own in every place that takes one, a whole system at work with them, and
//! everything that it tells searched for each of them.

mod cases;
mod left;
mod scan;
mod system;

use std::{
    fmt::Write as _,
    fs,
    os::unix::{fs::MetadataExt as _, process::CommandExt as _},
    path::Path,
    process::{Command, Stdio},
    sync::OnceLock,
};

use base64::{
    Engine as _,
    engine::general_purpose::{STANDARD_NO_PAD, URL_SAFE},
};
use nexus::{
    config::{Config, Overrides},
    postgres::Target,
    redact::SecretString,
    rpc::proto,
};
use nix::sys::signal::Signal;

use self::{
    cases::{Rows, bad_configurations, by_rows, by_text},
    scan::{ENCODINGS, Found, Scan},
    system::{ALERTS, ANSWERS, CHECKS, FILES, METRICS, PROCESSES, RAW, STDERR, System, TABLES, TRACES},
};
use crate::support::{Ended, await_that, wait};

/// What is planted where it may be told: the scan has to find it in every kind of place.
const CONTROL: &str = "a database's name";

/// The text of a down file, which the journal keeps, so that it can be run when the file is gone.
const DOWN: &str = "a password in a down file";

/// Which secret is told to whom, as docs/security.md says.
const MEANT: [(&str, &str); 3] = [(cases::RAISED, ANSWERS), (cases::RAISED, RAW), (DOWN, TABLES)];

/// One run of the whole system, which all tests look at.
fn run() -> &'static Scan {
    static RUN: OnceLock<Scan> = OnceLock::new();
    RUN.get_or_init(|| {
        let mut scan = Scan::default();
        let rows = Rows::plant(&mut scan);
        let texts = by_text(&mut scan);
        let refused = bad_configurations(&mut scan);
        let mut system = System::start(scan);
        system.main.sql(&rows.table());
        let (marker, main) = (system.marker.clone(), system.marker.clone());
        let main = main.as_str();
        for arguments in READING {
            system.ctl(arguments);
        }
        system.check_config(&refused);
        for failing in by_rows().into_iter().chain(texts) {
            system.write("9000_failing", &failing.up, "select 1;\n");
            let told = system.ctl(&["apply", "-d", main]);
            assert!(told.contains(failing.told), "{}: {told}", failing.what);
            system.ctl(&["apply", "-d", main, "-o", "json", "--reason", failing.what]);
        }
        system.raw(main);
        system.ctl(&["recover", "-d", main, "-y"]);
        system.good_and_back(&marker);
        system.watched(&["alerts", "--watch"]);
        system.strangers();
        system.reloads(&refused);
        for arguments in READING {
            system.ctl(arguments);
            system.ctl(&[arguments, &["-o", "json"]].concat());
        }
        system.operations();
        system.processes();
        for (path, token) in [
            ("/metrics", Some("right.token")),
            ("/metrics", None),
            ("/metrics", Some("wrong.token")),
            ("/-/healthy", None),
            ("/-/ready", None),
        ] {
            system.page(path, token);
        }
        system.end()
    })
}

/// What shows everything that is known.
const READING: [&[&str]; 16] = [
    &["health"],
    &["version"],
    &["databases"],
    &["status", "--all"],
    &["status", "--all", "--cached"],
    &["plan", "--all"],
    &["plan", "rollback", "--steps", "1", "--all"],
    &["history", "--all"],
    &["alerts"],
    &["alerts", "--resolved"],
    &["audit", "run", "--all"],
    &["audit", "run", "--all", "--format", "sarif"],
    &["audit", "show", "--format", "junit"],
    &["audit", "list"],
    &["operation", "list"],
    &["context", "list"],
];

impl System {
    fn write(&self, version: &str, up: &str, down: &str) {
        fs::write(self.given("cases").join(format!("{version}.up.sql")), up).expect("it is written");
        fs::write(self.given("cases").join(format!("{version}.down.sql")), down).expect("it is written");
    }

    /// What goes well, is rolled back, fails on its way back, is repaired; with reasons that hold a URL.
    fn good_and_back(&mut self, main: &str) {
        let reason = self.scan.plant("a URL's password in a reason");
        let reason = format!("see https://ana:{reason}@tickets.example.com/7?token={reason}");
        let password = self.scan.plant(DOWN);
        self.write(
            "9000_failing",
            "select 1;\n",
            &format!("alter role canary_nobody password '{password}';\n"),
        );
        self.write(&format!("0001_{main}"), "select 1;\n", "select 1;\n");
        self.ctl(&["apply", "--all", "--reason", &reason, "-o", "json"]);
        // Whether it holds cannot be decided: the operation is paused.
        let gate = ["--gate", "select number::bool from people", "--gate-limit", "1s", "--detach"];
        self.ctl(&[&["apply", "-d", main, "--wave", "1"], &gate[..]].concat());
        let id = self.newest();
        await_that("it is paused", || self.ctl(&["operation", "show", &id]).contains("22P02"));
        self.ctl(&["operation", "cancel", &id]);
        let told = self.ctl(&["rollback", "-d", main, "--steps", "1", "-y", "--reason", &reason]);
        assert!(told.contains("42704"), "{told}");
        self.ctl(&["rollback", "-d", main, "--steps", "1", "--from", "journal", "-y", "-o", "json"]);
        self.ctl(&["repair", "forget", "9000_failing", "-d", main, "-y", "--reason", &reason]);
        self.ctl(&["repair", "mark-applied", "9000_failing", "-d", main, "-y", "--reason", &reason]);
        // An applied file that is edited is an alert.
        fs::write(self.given("cases").join("9000_failing.up.sql"), "select 2;\n").expect("it is written");
        for sink in ["hook", "refusing", "failing", "manager"] {
            await_that("the sinks are told", || self.was_told(sink));
        }
        let listed = self.json(&["alerts"]);
        let id = listed["alerts"][0]["id"].as_str().expect("there is an alert");
        self.ctl(&["alerts", "ack", id, "--reason", &reason]);
    }

    /// What is sent, before a client has made something of it.
    fn raw(&mut self, main: &str) {
        let raises = by_rows().into_iter().find(|it| it.told == "P0001").expect("there is one");
        self.write("9000_failing", &raises.up, "select 1;\n");
        let selection = || Some(proto::Selection { databases: vec![main.to_owned()], ..Default::default() });
        let told = wait(async {
            let client = self.client("right.token").await;
            let mut told = String::new();
            let request = proto::ApplyRequest { selection: selection(), ..Default::default() };
            let mut events = client.migrations().apply(request).await.expect("it begins").into_inner();
            loop {
                match events.message().await {
                    Ok(Some(event)) => writeln!(told, "{event:?}").expect("it is written"),
                    Ok(None) => break,
                    Err(status) => {
                        writeln!(told, "{status:?} {:?}", status.details()).expect("it is written");
                        break;
                    }
                }
            }
            let request = proto::ListOperationsRequest::default();
            let listed =
                client.operations().list_operations(request).await.expect("it is answered").into_inner();
            writeln!(told, "{listed:?}").expect("it is written");
            let request = proto::StatusRequest { selection: selection(), ..Default::default() };
            told + &format!("{:?}\n", client.migrations().status(request).await)
        });
        self.scan.told(RAW, "an apply that fails, the operations, a status", told);
        let told = wait(async {
            let client = self.client("wrong.token").await;
            let refused = client.fleet().list_databases(proto::ListDatabasesRequest::default()).await;
            let status = refused.expect_err("nobody knows it");
            format!("{status:?} {:?} {:?}", status.details(), status.metadata())
        });
        self.scan.told(RAW, "a token that nobody knows", told);
    }

    fn strangers(&mut self) {
        for token in ["wrong.token", "expired.token", "key.pem", "access.toml"] {
            self.ctl_as(Some(token), &["status", "--all"]);
        }
        self.ctl_as(None, &["status", "--all"]);
        let password = self.scan.plant("a password in --server");
        let server = format!("https://ana:{password}@localhost:7421");
        self.ctl(&["--server", &server, "health"]);
        self.ctl(&["context", "add", "there", "--server", &server]);
        self.ctl(&["context", "add", "there", "--server", "https://localhost:7421"]);
    }

    /// What a command says in JSON, which is not noted.
    fn json(&self, arguments: &[&str]) -> serde_json::Value {
        let mut command = self.ctl_command(Some("right.token"), &[arguments, &["-o", "json"]].concat());
        Ended::of(&command.output().expect("nexusctl runs")).json()
    }

    /// The ids of the operations, the newest first.
    fn ids(&self) -> Vec<String> {
        let listed = self.json(&["operation", "list", "--limit", "1000"]);
        let operations = listed["operations"].as_array().expect("a list").iter();
        operations.map(|it| it["id"].as_str().expect("an id").to_owned()).collect()
    }

    fn newest(&self) -> String {
        self.ids().swap_remove(0)
    }

    fn operations(&mut self) {
        // As many as there are kinds: the newest are all different.
        for id in self.ids().into_iter().take(10) {
            self.ctl(&["operation", "show", &id, "--every"]);
            self.ctl(&["operation", "show", &id, "-o", "json"]);
            self.ctl(&["operation", "watch", &id]);
        }
    }

    fn check_config(&mut self, refused: &[(&'static str, String)]) {
        let good = fs::read_to_string(self.config()).expect("it is read");
        let run = |system: &mut Self, what: &str, path: &Path, verb: &str| {
            let mut command = system.nexusd();
            command.args([verb, "--config"]).arg(path).stdin(Stdio::null());
            let ended = Ended::of(&command.output().expect("nexusd runs"));
            let code = ended.code;
            let told = system.ended(CHECKS, &format!("nexusd {verb} with {what}"), &ended);
            (code, told)
        };
        let path = self.config();
        let (code, told) = run(self, "what it runs with", &path, "check-config");
        assert_eq!(code, Some(0), "{told}");
        for (what, toml) in refused {
            let path = self.given("refused.toml");
            // As long as something is there to be served.
            fs::write(&path, format!("{toml}\n[[database]]\nname = \"z\"\nurl = \"postgres://u@h/z\"\n"))
                .expect("it is written");
            let (code, told) = run(self, what, &path, "check-config");
            assert_eq!(code, Some(1), "{what}: {told}");
        }
        let (code, told) = run(self, "another's ports", &self.given("refused.toml"), "serve");
        assert_eq!(code, Some(1), "{told}");
        assert!(!good.is_empty());
    }

    /// Reads its configuration anew: what is wrong with it is told in the log, in an answer, and as an alert.
    fn reloads(&mut self, refused: &[(&'static str, String)]) {
        let good = fs::read_to_string(self.config()).expect("it is read");
        for (what, toml) in refused.iter().filter(|(_, toml)| toml.starts_with("[[database]]")) {
            fs::write(self.config(), format!("{good}\n{toml}")).expect("it is written");
            let told = self.ctl(&["reload"]);
            assert!(told.contains("NX0070"), "{what}: {told}");
            self.signal(Signal::SIGHUP);
        }
        self.ctl(&["alerts", "-o", "json"]);
        let wrong = fs::read_to_string(self.given("access.toml")).expect("it is read");
        let token = self.scan.plant("a token in the place of its digest");
        fs::write(
            self.given("access.toml"),
            format!("{wrong}[[token]]\nname = \"x\"\ntoken = \"{token}\"\nsha256 = \"{token}\"\n"),
        )
        .expect("it is written");
        self.signal(Signal::SIGHUP);
        fs::write(self.config(), &good).expect("it is written");
        self.ctl(&["reload"]);
        fs::write(self.given("access.toml"), wrong).expect("it is written");
        self.signal(Signal::SIGHUP);
        self.ctl(&["reload", "-o", "json"]);
    }
}

#[test]
fn no_secret_is_told() {
    let scan = run();
    let report = scan.report(CONTROL, &MEANT);
    fs::write(Path::new(env!("CARGO_TARGET_TMPDIR")).join("canary.txt"), &report).expect("it is written");
    assert!(scan.empty().is_empty(), "nothing was looked at in {:?}", scan.empty());
    assert!(report.contains("\nResult: 0 leaks"), "{report}");
    for (what, kind) in MEANT {
        assert!(scan.found().iter().any(|it| (it.what, it.kind) == (what, kind)), "{what} is not in {kind}");
    }
}

#[test]
fn what_is_told_is_found() {
    let found = run().found();
    for kind in [ANSWERS, CHECKS, RAW, FILES, STDERR, PROCESSES, METRICS, TRACES, ALERTS, TABLES] {
        assert!(found.iter().any(|it| it.what == CONTROL && it.kind == kind), "the scan is blind for {kind}");
    }
}

#[test]
fn a_planted_leak_is_reported_with_its_place() {
    let check = |told: &dyn Fn(&str) -> String, encoding: &'static str| {
        let mut scan = Scan::default();
        let secret = scan.plant("a password");
        scan.plant("another one");
        scan.told(FILES, "logs/migrations.jsonl", told(&secret));
        scan.told(FILES, "logs/other.jsonl", "{}");
        let (kind, place) = (FILES, "logs/migrations.jsonl".to_owned());
        assert_eq!(scan.found(), [Found { what: "a password", kind, place, encodings: vec![encoding] }]);
        assert!(scan.report(CONTROL, &[]).contains("LEAK: a password"));
    };
    let hex = |bytes: &[u8], before: &str| {
        bytes.iter().fold(String::new(), |text, byte| format!("{text}{before}{byte:02X}"))
    };
    check(&|it| format!("{{\"error\":\"no {it}\"}}"), ENCODINGS[0]);
    check(&|it| it.to_uppercase(), ENCODINGS[0]);
    check(&|it| hex(it.as_bytes(), ""), ENCODINGS[3]);
    check(&|it| hex(it.as_bytes(), "%"), ENCODINGS[4]);
    check(&|it| hex(it.as_bytes(), "\\u00"), ENCODINGS[5]);
    check(&|it| format!("{:?}", it.as_bytes()), ENCODINGS[6]);
    for user in ["u", "us", "use", "user"] {
        let is_found = |told: String| {
            let mut scan = Scan::default();
            scan.plant_own("a password", "hunter2hunter2??>>");
            scan.told(FILES, "x", told);
            scan.found().len() == 1
        };
        let pair = format!("{user}:hunter2hunter2??>>:more");
        assert!(is_found(STANDARD_NO_PAD.encode(&pair)) && is_found(URL_SAFE.encode(&pair)), "{user}");
        assert!(!is_found(STANDARD_NO_PAD.encode(format!("{user}:hunter3hunter3??>>"))));
    }
    let mut nothing = Scan::default();
    nothing.told(FILES, "an empty file", "");
    assert_eq!(nothing.empty(), ["an empty file"]);
}

/// What a panic says.
fn panic_of(broken: impl FnOnce() + std::panic::UnwindSafe) -> String {
    let payload = std::panic::catch_unwind(broken).expect_err("it panics");
    payload.downcast_ref::<String>().cloned().unwrap_or_default()
}

#[test]
fn what_holds_a_secret_does_not_show_it() {
    let mut scan = Scan::default();
    let url = format!("postgres://u:{}@h/db", scan.plant("a password"));
    let toml = format!(
        "[control]\nurl = {url:?}\n[[database]]\nname = \"a\"\nurl = {url:?}\n\
         [[discover]]\nurl = {url:?}\nquery = \"select 1\"\n\
         [[alerts.webhook]]\nurl = \"https://u:{}@h/{}\"\n",
        scan.plant("userinfo"),
        scan.plant("a path")
    );
    let config = || Config::parse(&toml, None, [], &Overrides::default()).expect("it is sound");
    let target = || Target::parse(&SecretString::from(url.clone()));
    scan.told(FILES, "Debug of Config", format!("{:?} {:#?}", config(), config()));
    scan.told(FILES, "Debug of Target", format!("{:?} {:#?}", target(), target()));
    let secret = || SecretString::from(url.clone());
    scan.told(FILES, "a panic with a secret", panic_of(|| assert!(url.is_empty(), "{:?}", secret())));
    scan.told(FILES, "an expectation that is not met", panic_of(|| drop(target().expect_err("it is none"))));
    scan.told(
        FILES,
        "another one",
        panic_of(|| drop(Config::parse(&toml, None, [], &Overrides::default()).expect_err("it is sound"))),
    );
    assert!(scan.empty().is_empty(), "{:?}", scan.empty());
    assert_eq!(scan.found(), []);
}

#[test]
fn nothing_of_the_memory_is_written_to_disk() {
    let world = crate::support::World::new().start();
    let limits = fs::read_to_string(format!("/proc/{}/limits", world.daemon.child.id())).expect("it runs");
    let cores =
        limits.lines().find(|line| line.starts_with("Max core file size")).expect("there is such a limit");
    assert_eq!(cores.split_whitespace().skip(4).take(2).collect::<Vec<_>>(), ["0", "0"], "{limits}");
    // What may not be dumped belongs to root, whoever runs it: the limit does not hold where cores are piped.
    let mut command = Command::new(env!("CARGO_BIN_EXE_nexusctl"));
    command.args(["alerts", "--watch"]).env("NEXUS_SERVER", format!("http://{}", world.daemon.grpc));
    command.stdin(Stdio::null()).stdout(Stdio::null());
    let own = nix::unistd::geteuid();
    if own.is_root() {
        command.uid(65_533);
    }
    let mut client = command.spawn().expect("nexusctl starts");
    await_that("its memory is its own", || {
        fs::metadata(format!("/proc/{}/status", client.id())).expect("it runs").uid() == 0
    });
    client.kill().expect("it is ended");
    client.wait().expect("it is waited for");
}
