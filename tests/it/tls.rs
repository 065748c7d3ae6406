//! TLS: who is let in by a certificate, what the daemon does not start with, and certificates that change
//! under load.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::{Duration, Instant, SystemTime},
};

use nexus::rpc::{
    client::{Address, Client, Credentials},
    proto,
};
use rustls::{
    ClientConfig, RootCertStore,
    pki_types::{CertificateDer, ServerName, pem::PemObject as _},
};
use tempfile::TempDir;
use tokio_rustls::TlsConnector;

use crate::{
    certificates::Authority,
    support::{Ended, PATIENCE, Running, World, private, read_log, wait},
};

/// An authority of daemons and one of clients, and the files that they make.
struct Keys {
    home: TempDir,
    daemons: Authority,
    clients: Authority,
}

impl Keys {
    fn new() -> Self {
        let home = TempDir::new().expect("a directory is made");
        let keys = Self { home, daemons: Authority::new(), clients: Authority::new() };
        keys.daemons.write(&keys.path("ca.pem"));
        keys.clients.write(&keys.path("clients.pem"));
        drop(keys.rotate());
        keys
    }

    fn path(&self, name: &str) -> PathBuf {
        self.home.path().join(name)
    }

    fn rotate(&self) -> rcgen::Certificate {
        self.daemons.sign("localhost", &self.path("cert.pem"), &self.path("key.pem"))
    }

    /// A client's certificate and key.
    fn client(&self, authority: &Authority, name: &str) -> (PathBuf, PathBuf) {
        let (certificate, key) = (self.path("client.pem"), self.path("client.key"));
        authority.sign(name, &certificate, &key);
        (certificate, key)
    }

    /// `[server]` with TLS, on every address of the machine.
    fn server(&self) -> String {
        let shown = |name| self.path(name).display().to_string();
        format!(
            "[server]\ntls_cert = {:?}\ntls_key = {:?}\ntls_client_ca = {:?}\n",
            shown("cert.pem"),
            shown("key.pem"),
            shown("clients.pem")
        )
    }

    /// A daemon that other machines reach, with these entries of those who are let in.
    fn start(&self, entries: &str) -> Running {
        let world = World::new();
        private(&self.path("access.toml"), entries);
        let text = world.configuration().replace("127.0.0.1:0", "0.0.0.0:0");
        let text = text.replace("[server]\n", &self.server());
        let text = format!("{text}[access]\nfile = {:?}\n", self.path("access.toml").display().to_string());
        Running { daemon: world.daemon("nexus.toml", &text), world }
    }
}

fn port(address: &str) -> u16 {
    address.rsplit(':').next().and_then(|port| port.parse().ok()).expect("it has a port")
}

fn remote(world: &Running) -> String {
    format!("https://localhost:{}", port(&world.daemon.grpc))
}

const CI: &str = "[[certificate]]\nsan = \"uri:spiffe://example.com/ci\"\nname = \"ci\"\nrole = \"operator\"\ndatabases = [\"*\"]\n";

#[test]
fn a_certificate_says_who_asks() {
    let keys = Keys::new();
    let world = keys.start(CI);
    world.tables(1, 1);
    let run = |files: Option<(PathBuf, PathBuf)>, arguments: &[&str]| {
        let mut command = world.daemon.ctl_command(arguments);
        command.env("NEXUS_SERVER", remote(&world)).env("NEXUS_CA", keys.path("ca.pem"));
        if let Some((certificate, key)) = files {
            command.env("NEXUS_CERT", certificate).env("NEXUS_KEY", key);
        }
        Ended::of(&command.output().expect("nexusctl runs"))
    };
    let refused = run(None, &["apply"]).expect(4);
    assert!(refused.contains("NX0085"), "{refused}");
    run(None, &["health"]).expect(0);
    // Of another authority: the handshake fails.
    let stranger = run(Some(keys.client(&Authority::new(), "uri:spiffe://example.com/ci")), &["apply"]);
    assert_eq!(stranger.code, Some(4), "{}{}", stranger.stdout, stranger.stderr);
    let unknown = run(Some(keys.client(&keys.clients, "email:eve@example.com")), &["apply"]).expect(1);
    assert!(unknown.contains("eve@example.com may not Apply") && unknown.contains("NX0088"), "{unknown}");
    let known = keys.client(&keys.clients, "uri:spiffe://example.com/ci");
    run(Some(known.clone()), &["apply"]).expect(0);
    let history = run(Some(known), &["history", "-o", "json"]).json();
    assert_eq!(history["attempts"][0]["requested_by"], "ci");
    let calls = read_log(&world.path("audit.jsonl")).into_iter().filter(|record| record["event"] == "call");
    let told: Vec<_> = calls.map(|it| format!("{} {} {}", it["who"], it["proof"], it["decision"])).collect();
    let eve = "\"eve@example.com\" \"certificate email:eve@example.com\" \"refused\"";
    let ci = "\"ci\" \"certificate uri:spiffe://example.com/ci\" \"allowed\"";
    assert_eq!(told[1..], [eve, ci], "the first one showed nothing: {told:?}");
    // Whoever does not trust the authority does not go on, and nobody speaks without TLS.
    let mut command = world.daemon.ctl_command(&["status"]);
    let told = Ended::of(&command.env("NEXUS_SERVER", remote(&world)).output().expect("nexusctl runs"));
    assert!(told.code == Some(4) && told.stderr.contains("--ca"), "{}", told.stderr);
    let mut command = world.daemon.ctl_command(&["status"]);
    let plain = format!("http://localhost:{}", port(&world.daemon.grpc));
    let told = Ended::of(&command.env("NEXUS_SERVER", plain).output().expect("nexusctl runs"));
    assert!(told.code == Some(4) && told.stderr.contains("https://"), "{}", told.stderr);
}

/// What a nexusd says that does not start.
fn refused(world: &World, toml: &str) -> String {
    let path = world.path("refused.toml");
    fs::write(&path, toml).expect("the configuration is written");
    let mut command = Command::new(env!("CARGO_BIN_EXE_nexusd"));
    command.args(["serve", "--config"]).arg(&path).stdin(Stdio::null());
    let ended = Ended::of(&command.output().expect("nexusd runs"));
    assert_eq!(ended.code, Some(1), "{}", ended.stderr);
    ended.stderr
}

#[test]
fn what_it_does_not_start_with() {
    let (keys, world) = (Keys::new(), World::new());
    let all = world.configuration().replace("127.0.0.1:0", "0.0.0.0:0");
    let check = |toml: &str, parts: &[&str]| {
        let said = refused(&world, toml);
        assert!(parts.iter().all(|part| said.contains(part)), "{parts:?}: {said}");
    };
    check(
        &all,
        &[
            "refused.toml:2:8",
            "0.0.0.0:0 is refused",
            "tls_cert and tls_key",
            "`file` in [access]",
            "refused.toml:3:8",
        ],
    );
    let secure = all.replace("[server]\n", &keys.server());
    let tls_only =
        secure.lines().filter(|line| !line.starts_with("tls_client_ca")).map(|line| format!("{line}\n"));
    check(&tls_only.collect::<String>(), &["to know who asks: give `file` in [access]"]);
    let file = keys.path("access.toml");
    let with_access = format!("{secure}[access]\nfile = {:?}\n", file.display().to_string());
    private(&file, "[[unix]]\nuser = 0\nrole = \"admin\"\ndatabases = [\"*\"]\n");
    check(&with_access, &["access.toml: nobody could come in by [server] grpc = \"0.0.0.0:0\""]);
    fs::write(&file, CI).expect("it is written");
    set_mode(&file, 0o644);
    check(&with_access, &["chmod 600"]);
    set_mode(&file, 0o600);
    set_mode(&keys.path("key.pem"), 0o644);
    check(&with_access, &["[server] tls_key", "chmod 600"]);
    set_mode(&keys.path("key.pem"), 0o600);
    fs::copy(keys.path("ca.pem"), keys.path("cert.pem")).expect("it is copied");
    check(&with_access, &["tls_cert and tls_key do not go together"]);
    fs::remove_file(keys.path("cert.pem")).expect("it is removed");
    check(&with_access, &["[server] tls_cert: cannot use", "No such file"]);
}

fn set_mode(path: &Path, mode: u32) {
    use std::os::unix::fs::PermissionsExt as _;
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).expect("its mode is set");
}

/// The certificate that the daemon shows to whoever connects now.
async fn shown(port: u16, authority: &Path) -> CertificateDer<'static> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(authority).expect("a certificate")).expect("an authority");
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_root_certificates(roots)
        .with_no_client_auth();
    let stream = tokio::net::TcpStream::connect(("127.0.0.1", port)).await.expect("the daemon answers");
    let name = ServerName::try_from("localhost").expect("a name");
    let stream =
        TlsConnector::from(Arc::new(config)).connect(name, stream).await.expect("it agrees on a key");
    let certificates = stream.get_ref().1.peer_certificates().expect("it shows one");
    certificates[0].clone().into_owned()
}

#[test]
fn a_certificate_is_rotated_under_load_without_a_failed_call() {
    let keys = Keys::new();
    let world = keys.start(CI);
    let (certificate, key) = keys.client(&keys.clients, "uri:spiffe://example.com/ci");
    let address: Address = remote(&world).parse().expect("an address");
    let credentials = Arc::new(Credentials {
        authorities: Some(fs::read(keys.path("ca.pem")).expect("it is read")),
        certificate: Some((
            fs::read(certificate).expect("it is read"),
            fs::read_to_string(key).expect("it is read").into(),
        )),
        token: None,
    });
    let (calls, connections) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let stop = Arc::new(AtomicBool::new(false));
    wait(async {
        let connect = {
            let (address, credentials) = (address.clone(), credentials.clone());
            async move || Client::connect(&address, &credentials, PATIENCE).await.expect("it connects")
        };
        let ask = async |client: &Client| {
            let answer = client.fleet().list_databases(proto::ListDatabasesRequest::default()).await;
            assert_eq!(client.answer(answer).expect("no call fails").databases.len(), 1);
        };
        let mut load = Vec::new();
        for worker in 0..8 {
            let (connect, calls, connections) = (connect.clone(), calls.clone(), connections.clone());
            let stop = stop.clone();
            // Half of them stay connected, half connect for each call.
            load.push(nexus::runtime::spawn_owned(async move {
                let mut client = connect().await;
                while !stop.load(Ordering::Relaxed) {
                    if worker % 2 == 0 {
                        client = connect().await;
                        connections.fetch_add(1, Ordering::Relaxed);
                    }
                    ask(&client).await;
                    calls.fetch_add(1, Ordering::Relaxed);
                }
            }));
        }
        let port = port(&world.daemon.grpc);
        for _ in 0..3 {
            let next = keys.rotate();
            let until = Instant::now() + PATIENCE;
            while shown(port, &keys.path("ca.pem")).await != *next.der() {
                assert!(Instant::now() < until, "the new certificate is never shown");
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            let (before, most) = (calls.load(Ordering::Relaxed), Instant::now() + PATIENCE);
            while calls.load(Ordering::Relaxed) < before + 50 && Instant::now() < most {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        }
        stop.store(true, Ordering::Relaxed);
        for worker in load {
            worker.await.expect("no call failed");
        }
    });
    let (calls, connections) = (calls.load(Ordering::Relaxed), connections.load(Ordering::Relaxed));
    assert!(calls >= 150 && connections >= 10, "{calls} calls, {connections} connections");
    let told =
        format!("3 rotations, {calls} calls over {connections} new connections and 4 old ones, 0 failed\n");
    fs::write(Path::new(env!("CARGO_TARGET_TMPDIR")).join("rotation.txt"), told).expect("it is written");
}

#[test]
fn a_connection_does_not_outlive_its_certificate() {
    let keys = Keys::new();
    let world = keys.start(CI);
    let (certificate, key) = (keys.path("short.pem"), keys.path("short.key"));
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).expect("it is after 1970");
    let ends = Duration::from_secs(now.as_secs() + 4);
    keys.clients.sign_until(Some(ends), "uri:spiffe://example.com/ci", &certificate, &key);
    let credentials = Credentials {
        authorities: Some(fs::read(keys.path("ca.pem")).expect("it is read")),
        certificate: Some((
            fs::read(certificate).expect("it is read"),
            fs::read_to_string(key).expect("it is read").into(),
        )),
        token: None,
    };
    let address: Address = remote(&world).parse().expect("an address");
    wait(async {
        let client = Client::connect(&address, &credentials, PATIENCE).await.expect("it connects");
        let ask =
            async || client.answer(client.fleet().get_version(proto::GetVersionRequest::default()).await);
        ask().await.expect("the certificate is good");
        let watch = client.alerts().watch_alerts(proto::WatchAlertsRequest::default()).await;
        let mut alerts = watch.expect("the certificate is good").into_inner();
        let ended = tokio::time::timeout(Duration::from_secs(20), async {
            while let Ok(Some(_)) = alerts.message().await {}
        });
        ended.await.expect("the stream ends with the certificate");
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).expect("it is after 1970");
        assert!(now >= ends, "it ended {:?} too early", ends.saturating_sub(now));
        ask().await.expect_err("the certificate has ended");
    });
}

#[test]
fn contexts_are_noted_and_used() {
    let keys = Keys::new();
    let world = keys.start(CI);
    keys.client(&keys.clients, "uri:spiffe://example.com/ci");
    let config = keys.path("config");
    let run = |arguments: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_nexusctl"));
        command
            .args(arguments)
            .env("XDG_CONFIG_HOME", &config)
            .env_remove("NEXUS_SERVER")
            .stdin(Stdio::null());
        Ended::of(&command.output().expect("nexusctl runs"))
    };
    let file = |name: &str| keys.path(name).display().to_string();
    let (ca, cert, key) = (file("ca.pem"), file("client.pem"), file("client.key"));
    let (near, far) = (remote(&world), "https://192.0.2.1:7421");
    run(&["context", "add", "far", "--server", far]).expect(0);
    let shown = ["--ca", &ca, "--cert", &cert, "--key", &key];
    run(&[&["context", "add", "near", "--server", &near], shown.as_slice()].concat()).expect(0);
    let listed = run(&["context", "list", "-o", "json"]).json();
    assert_eq!(
        (&listed["current"], &listed["contexts"][1]["server"]),
        (&"far".into(), &near.as_str().into())
    );
    run(&["--context", "near", "status"]).expect(0);
    assert!(run(&["--context", "nowhere", "status"]).expect(1).contains("there are far, near"));
    run(&["context", "use", "near"]).expect(0);
    run(&["status"]).expect(0);
    // --server wins, and what one daemon is shown is not shown to another.
    assert!(run(&["--server", &near, "status"]).expect(4).contains("--ca"));
    run(&["--server", &near, "--context", "near", "status"]).expect(0);
    set_mode(&config.join("nexus/contexts.toml"), 0o644);
    assert!(run(&["status"]).expect(1).contains("chmod 600"));
    set_mode(&config.join("nexus/contexts.toml"), 0o600);
    set_mode(&keys.path("client.key"), 0o644);
    assert!(run(&["status"]).expect(1).contains("chmod 600"));
    run(&["context", "remove", "near"]).expect(0);
    assert!(run(&["context", "use", "near"]).expect(1).contains("there are far"));
}
