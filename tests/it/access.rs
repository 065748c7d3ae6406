//! Who may do what: every RPC by every role, and what tokens and grants mean to the commands.

use std::{collections::BTreeMap, fmt::Write as _, fs, os::unix::fs::PermissionsExt as _, path::Path};

use nexus::{
    access::{Role, rule},
    rpc::proto::DESCRIPTORS,
};
use prost::Message as _;
use prost_types::FileDescriptorSet;
use serde_json::Value;
use tonic::{Code, Request, client::Grpc, codegen::http::uri::PathAndQuery, transport::Channel};
use tonic_prost::ProstCodec;

use crate::{
    people::{guarded, token},
    servers::http_get,
    support::{Database, Ended, Running, await_that, private, read_log, wait},
};

/// What a role takes beyond the one before it: written down here once more, so that a change of the table
/// is one that somebody means.
const OPERATOR: &[&str] = &[
    "AcknowledgeAlert",
    "Apply",
    "ApproveOperation",
    "CancelOperation",
    "PauseOperation",
    "Recover",
    "RejectOperation",
    "ResumeOperation",
    "RetryOperation",
    "Rollback",
];
const ADMIN: &[&str] = &["ReloadInventory", "Repair"];

/// Every RPC that the daemon serves: its path, and whether it answers with a stream.
pub(crate) fn rpcs() -> Vec<(String, bool)> {
    let mut rpcs = Vec::new();
    let reflection = tonic_reflection::pb::v1::FILE_DESCRIPTOR_SET;
    for set in [DESCRIPTORS, tonic_health::pb::FILE_DESCRIPTOR_SET, reflection] {
        let set = FileDescriptorSet::decode(set).expect("a descriptor set");
        for file in set.file {
            for service in &file.service {
                for method in &service.method {
                    let path = format!("/{}.{}/{}", file.package(), service.name(), method.name());
                    rpcs.push((path, method.server_streaming()));
                }
            }
        }
    }
    rpcs
}

/// The code of an empty request. A stream that begins is well.
pub(crate) async fn call(channel: &Channel, path: &str, is_stream: bool, token: Option<&str>) -> Code {
    let mut client = Grpc::new(channel.clone());
    client.ready().await.expect("the daemon answers");
    let path: PathAndQuery = path.parse().expect("a path");
    let codec = ProstCodec::<(), ()>::default();
    let authorized = |message| {
        let mut request = Request::new(message);
        if let Some(token) = token {
            let header = format!("Bearer {token}").parse().expect("a header");
            request.metadata_mut().insert("authorization", header);
        }
        request
    };
    if is_stream {
        let request = authorized(()).map(tokio_stream::once);
        client.streaming(request, path, codec).await.err().map_or(Code::Ok, |status| status.code())
    } else {
        client.unary(authorized(()), path, codec).await.err().map_or(Code::Ok, |status| status.code())
    }
}

#[test]
fn every_rpc_has_a_rule_and_every_rule_an_rpc() {
    let rpcs = rpcs();
    let without: Vec<_> = rpcs.iter().filter(|(path, _)| rule::of(path).is_none()).collect();
    assert!(without.is_empty(), "nobody may call these, as src/access/rule.rs does not say who: {without:?}");
    let served = |rule: &&rule::Rule| rpcs.iter().any(|(path, _)| path == rule.path);
    let gone: Vec<_> = rule::RULES.iter().filter(|rule| !served(rule)).collect();
    assert!(gone.is_empty(), "there are no such RPCs: {gone:?}");
    for rule in rule::RULES {
        let method = rule.path.rsplit('/').next().unwrap_or_default();
        let expected = match rule.least {
            _ if ADMIN.contains(&method) => Some(Role::Admin),
            _ if OPERATOR.contains(&method) => Some(Role::Operator),
            None => None,
            Some(_) => Some(Role::Viewer),
        };
        assert_eq!(rule.least, expected, "{}", rule.path);
        assert_eq!(rule.least.is_none(), rule.path.starts_with("/grpc.health."), "{}", rule.path);
    }
}

/// One token for each role, and one that has expired.
fn of_each_role(home: &Path) -> String {
    let mut entries = String::new();
    for role in Role::ALL {
        entries += &token(home, role.as_str(), &["--role", role.as_str(), "--all"]);
        let expired = format!("{role}-expired");
        let entry = token(home, &expired, &["--role", role.as_str(), "--all"]);
        let over = entry.lines().filter(|line| !line.starts_with("expires"));
        let over: Vec<_> = over.chain(["expires = \"2026-01-01T00:00:00Z\"\n"]).collect();
        entries += &over.join("\n");
    }
    entries
}

/// What a caller shows.
const CREDENTIALS: [&str; 4] = ["none", "wrong", "expired", "right"];

/// A line of the table.
fn line(path: &str, takes: &str, role: &str, codes: impl Iterator<Item = String>) -> String {
    let codes: Vec<_> = codes.map(|code| format!("{code:<16}")).collect();
    format!("{path:<58} {takes:<8} {role:<8} {}\n", codes.join(" ").trim_end())
}

#[test]
fn every_rpc_by_every_role_with_every_credential() {
    let home = tempfile::tempdir().expect("a directory is made");
    let world = guarded(&of_each_role(home.path())).start();
    let secret = |name: &str| {
        let text = fs::read_to_string(home.path().join(format!("{name}.token"))).expect("it is there");
        text.trim().to_owned()
    };
    let mut table = line("RPC", "takes", "role", CREDENTIALS.iter().map(ToString::to_string));
    let mut counted = BTreeMap::<(&str, String), usize>::new();
    wait(async {
        let endpoint = Channel::from_shared(format!("http://{}", world.daemon.grpc)).expect("an address");
        let channel = endpoint.connect().await.expect("the daemon answers");
        for (path, is_stream) in rpcs() {
            let least = rule::of(&path).expect("it has a rule").least;
            for role in Role::ALL {
                let [right, expired] =
                    [role.to_string(), format!("{role}-expired")].map(|name| secret(&name));
                let wrong = format!("{right}0");
                let mut codes = Vec::new();
                for credential in [None, Some(&wrong), Some(&expired), Some(&right)] {
                    codes.push(call(&channel, &path, is_stream, credential.map(String::as_str)).await);
                }
                let is_refused = |code: Code| {
                    matches!(code, Code::Unauthenticated | Code::PermissionDenied | Code::Unimplemented)
                };
                let [none, wrong, expired, right] = codes[..] else { unreachable!("there are four") };
                match least {
                    None => assert!(!codes.iter().copied().any(is_refused), "{path} {role}: {codes:?}"),
                    Some(least) => {
                        let unknown = [none, wrong, expired];
                        assert_eq!(unknown, [Code::Unauthenticated; 3], "{path} {role}");
                        if role < least {
                            assert_eq!(right, Code::PermissionDenied, "{path} {role}");
                        } else {
                            assert!(!is_refused(right), "{path} {role}: {right:?}");
                        }
                    }
                }
                let takes = least.map_or("anybody", Role::as_str);
                table += &line(&path, takes, role.as_str(), codes.iter().map(|code| format!("{code:?}")));
                for (credential, code) in CREDENTIALS.iter().zip(&codes) {
                    *counted.entry((*credential, format!("{code:?}"))).or_default() += 1;
                }
            }
        }
        // What no rule is about is refused, whoever asks.
        for token in [None, Some(secret("admin"))] {
            let code = call(&channel, "/nexus.v1.FleetService/Drop", false, token.as_deref()).await;
            assert_eq!(code, Code::Unimplemented);
        }
    });
    for ((credential, code), count) in counted {
        writeln!(table, "{credential:<8} {code:<18} {count:>4}").expect("it is written");
    }
    fs::write(Path::new(env!("CARGO_TARGET_TMPDIR")).join("access.txt"), table).expect("it is written");
}

/// Runs `nexusctl` over TCP with a token.
pub(crate) fn ctl(world: &Running, home: &Path, name: &str, arguments: &[&str]) -> Ended {
    let mut command = world.daemon.ctl_command(arguments);
    command
        .env("NEXUS_SERVER", format!("http://{}", world.daemon.grpc))
        .env("NEXUS_TOKEN_FILE", home.join(format!("{name}.token")));
    Ended::of(&command.output().expect("nexusctl runs"))
}

/// A fleet of two databases, `main` with `env=dev` and `shop` with `env=prod`, and three tokens: `ci` is
/// operator on the one and viewer on the other, `dev` knows of the one only, `boss` is admin of it.
fn two(home: &Path) -> (Running, Database) {
    let shop = Database::new();
    let mut entries =
        token(home, "ci", &["--role", "operator", "-l", "env=dev", "--max-rollback-steps", "2"]);
    let sha256 = entries.lines().find(|line| line.starts_with("sha256")).expect("it has one").to_owned();
    write!(entries, "[[token]]\nname = \"ci\"\n{sha256}\nrole = \"viewer\"\ndatabases = [\"*\"]\n")
        .expect("it is written");
    entries += &token(home, "dev", &["--role", "operator", "-d", "ma*"]);
    entries += &token(home, "boss", &["--role", "admin", "-l", "env=dev"]);
    let world = guarded(&entries).set("labels = { env = \"dev\" }");
    let migrations = world.path("migrations").display().to_string();
    let more = format!(
        "[[database]]\nname = \"shop\"\nurl = {:?}\nmigrations = {migrations:?}\nlabels = {{ env = \"prod\" }}\n",
        shop.url
    );
    let world = world.more(&more);
    world.tables(1, 3);
    (world.start(), shop)
}

#[test]
fn grants_are_on_databases() {
    let home = tempfile::tempdir().expect("a directory is made");
    let (world, shop) = two(home.path());
    let run = |name: &str, arguments: &[&str]| ctl(&world, home.path(), name, arguments);
    // What one may not see is not there.
    assert_eq!(
        run("dev", &["databases", "-o", "json"]).json()["databases"].as_array().map(Vec::len),
        Some(1)
    );
    assert!(run("dev", &["status", "-d", "shop"]).expect(1).contains("NX0050"));
    assert_eq!(run("ci", &["databases", "-o", "json"]).json()["databases"].as_array().map(Vec::len), Some(2));
    // What one may see, and not change, is refused, and nothing of the rest is begun.
    let refused = run("ci", &["apply", "--all"]).expect(1);
    assert!(refused.contains("ci is not operator on shop") && refused.contains("NX0089"), "{refused}");
    assert!(world.database.rows().is_empty() && shop.rows().is_empty());
    run("ci", &["apply", "-d", "main"]).expect(0);
    // --all is all that there is for them.
    run("dev", &["apply", "--all"]).expect(0);
    assert!(shop.rows().is_empty());
    let history = run("ci", &["history", "-d", "main", "-o", "json"]).json();
    assert_eq!(history["attempts"][0]["requested_by"], "ci");
    // Operations are seen as far as their databases are, and steered where all of them are granted.
    world.ctl(&["apply", "--all", "--request-id", "018f3c5e-7a2b-7c3d-8e4f-000000000001"]).expect(0);
    let shown = run("dev", &["operation", "show", "018f3c5e", "-o", "json"]).json();
    let names: Vec<_> = shown["databases"].as_array().expect("a list").iter().map(|it| &it["name"]).collect();
    assert_eq!(names, ["main"]);
    assert!(run("ci", &["operation", "cancel", "018f3c5e"]).expect(1).contains("NX0089"));
    assert!(run("dev", &["operation", "cancel", "018f3c5e"]).expect(1).contains("NX0089"));
    let same = ["apply", "--all", "--request-id", "018f3c5e-7a2b-7c3d-8e4f-000000000001"];
    assert!(run("dev", &same).expect(1).contains("NX0089"), "what another one began is not told");
    world.ctl(&["apply", "-d", "shop", "--request-id", "018f3c5f-7a2b-7c3d-8e4f-000000000002"]).expect(0);
    assert!(run("dev", &["operation", "show", "018f3c5f"]).expect(1).contains("NX0075"));
    let listed = run("dev", &["operation", "list", "-o", "json"]).json().to_string();
    assert!(listed.contains("018f3c5e") && !listed.contains("018f3c5f"), "{listed}");
    // That another operation's id begins alike is not told, nor what hidden databases are labelled.
    world.ctl(&["apply", "-d", "shop", "--request-id", "018f3c5e-7a2b-7c3d-8e4f-000000000003"]).expect(0);
    assert!(run("ci", &["operation", "show", "018f3c5e"]).expect(1).contains("Several operations"));
    run("dev", &["operation", "show", "018f3c5e"]).expect(0);
    let waves = "018f3c60-7a2b-7c3d-8e4f-000000000004";
    world.ctl(&["apply", "--all", "--wave", "by-label=env", "--request-id", waves]).expect(0);
    assert!(run("ci", &["operation", "watch", waves]).expect(0).contains("env=prod"));
    for verb in ["show", "watch"] {
        let shown = run("dev", &["operation", verb, waves]).expect(0);
        assert!(shown.contains("env=dev") && !shown.contains("env=prod"), "{verb}: {shown}");
    }
    // Audits, too.
    world.ctl(&["audit", "run", "--all"]).expect(0);
    let audit = run("dev", &["audit", "show", "-o", "json"]).json().to_string();
    assert!(audit.contains("main") && !audit.contains("shop"), "{audit}");
    // Roles: an operator repairs nothing, an admin of a part does not reload the whole.
    let repair = ["repair", "forget", "0003_t3", "--reason", "x", "-y", "-d", "main"];
    assert!(run("ci", &repair).expect(1).contains("NX0088"));
    assert!(run("boss", &["reload"]).expect(1).contains("NX0088"));
    run("boss", &repair).expect(0);
}

#[test]
fn an_operator_rolls_back_a_few_steps_only() {
    let home = tempfile::tempdir().expect("a directory is made");
    let (world, _shop) = two(home.path());
    let run = |name: &str, arguments: &[&str]| ctl(&world, home.path(), name, arguments);
    world.ctl(&["apply", "--all"]).expect(0);
    let too_far = run("ci", &["rollback", "--steps", "3", "-y", "-d", "main"]).expect(1);
    assert!(too_far.contains("ci may roll back 2 migrations at once, and 3 are asked for"), "{too_far}");
    assert!(run("dev", &["rollback", "--steps", "2", "-y", "-d", "main"]).expect(1).contains("NX0090"));
    // To be shown a plan is to read.
    run("ci", &["plan", "rollback", "--steps", "3", "-d", "main"]).expect(0);
    let too_far = run("ci", &["rollback", "--to", "0", "-y", "-d", "main"]).expect(1);
    assert!(too_far.contains("NX0090") && too_far.contains("these are 3"), "{too_far}");
    assert_eq!(world.database.rows().len(), 3);
    run("dev", &["rollback", "-y", "-d", "main"]).expect(0);
    run("ci", &["rollback", "--to", "0", "-y", "-d", "main"]).expect(0);
    assert!(world.database.rows().is_empty());
    run("ci", &["apply", "-d", "main"]).expect(0);
    run("boss", &["rollback", "--steps", "3", "-y", "-d", "main"]).expect(0);
    assert!(world.database.rows().is_empty());
}

#[test]
fn the_file_is_read_anew() {
    let home = tempfile::tempdir().expect("a directory is made");
    let first = token(home.path(), "first", &["--role", "viewer", "--all"]);
    let world = guarded(&first).start();
    let run = |name: &str| ctl(&world, home.path(), name, &["status"]);
    run("first").expect(0);
    let second = token(home.path(), "second", &["--role", "viewer", "--all"]);
    let refused = run("second").expect(4);
    assert!(refused.contains("NX0086") && refused.contains("The token is not known"), "{refused}");
    let file = world.path("access.toml");
    private(&file, &second);
    await_that("the second token is known", || run("second").code == Some(0));
    assert!(run("first").expect(4).contains("NX0086"));
    // What is wrong with it changes nothing.
    fs::write(&file, "[[token]]\n").expect("it is written");
    world.daemon.signal(nix::sys::signal::Signal::SIGHUP);
    run("second").expect(0);
    // Without a credential, nobody comes in over loopback any more; a probe does.
    let without = |arguments: &[&str]| {
        let mut command = world.daemon.ctl_command(arguments);
        command.env("NEXUS_SERVER", format!("http://{}", world.daemon.grpc));
        Ended::of(&command.output().expect("nexusctl runs"))
    };
    assert!(without(&["status"]).expect(4).contains("NX0085"));
    without(&["health"]).expect(0);
    let (status, text) = http_get(&world.daemon.http, "/metrics").expect("HTTP answers");
    assert!(status == 401 && text.contains("NX0085"), "{status} {text}");
    assert_eq!(http_get(&world.daemon.http, "/-/ready").map(|(status, _)| status), Some(200));
}

#[test]
fn a_file_that_cannot_be_read_anew_is_told_as_long_as_it_is() {
    let home = tempfile::tempdir().expect("a directory is made");
    let entry = token(home.path(), "ci", &["--role", "viewer", "--all"]);
    let world = guarded(&entry).more("open_metrics = true\n").start();
    let is_told = |is_wrong: bool| {
        let fires = world.ctl(&["alerts"]).expect(0).contains("access_unreadable");
        let metric = format!("\nnexus_access_reload_successful {}\n", u8::from(!is_wrong));
        fires == is_wrong && world.daemon.page("/metrics").1.contains(&metric)
    };
    await_that("all is well", || is_told(false));
    // Who was to be taken away is let in: that has to be known.
    let file = world.path("access.toml");
    private(&file, "[[token]]\n");
    await_that("it is told", || is_told(true));
    ctl(&world, home.path(), "ci", &["status"]).expect(0);
    let refused = world.ctl(&["reload"]).expect(1);
    assert!(refused.contains("NX0091") && refused.contains("access.toml:1:1"), "{refused}");
    let recorded = |line: &Value| line["event"] == "result" && line["code"] == "NX0091";
    await_that("its failure is recorded", || read_log(&world.path("audit.jsonl")).iter().any(recorded));
    // Nothing of the file's text is told to those who may not read it, such as a token in the wrong place.
    let stray = format!("nexus_{}", "5".repeat(64));
    private(&file, &format!("{stray}\n"));
    await_that("it is told", || world.ctl(&["reload"]).code == Some(1) && is_told(true));
    let told = world.ctl(&["alerts", "-o", "json"]).expect(0) + &world.ctl(&["reload"]).expect(1);
    assert!(told.contains("access.toml:1:") && !told.contains("5555"), "{told}");
    assert!(!world.daemon.said().contains("5555"), "{}", world.daemon.said());
    private(&file, "");
    await_that("it is over", || is_told(false));
    ctl(&world, home.path(), "ci", &["status"]).expect(4);
    world.ctl(&["reload"]).expect(0);
}

#[test]
fn a_token_is_for_its_owner_and_not_sent_in_the_clear() {
    let home = tempfile::tempdir().expect("a directory is made");
    let world = guarded(&token(home.path(), "ci", &["--role", "viewer", "--all"])).start();
    let run = |server: &str| {
        let mut command = world.daemon.ctl_command(&["status"]);
        command.env("NEXUS_SERVER", server).env("NEXUS_TOKEN_FILE", home.path().join("ci.token"));
        Ended::of(&command.output().expect("nexusctl runs"))
    };
    let refused = run("http://192.0.2.1:7421").expect(4);
    assert!(refused.contains("A token is not sent to http://192.0.2.1:7421"), "{refused}");
    let near = format!("http://{}", world.daemon.grpc);
    run(&near).expect(0);
    let open = fs::Permissions::from_mode(0o644);
    fs::set_permissions(home.path().join("ci.token"), open).expect("its mode is set");
    let refused = run(&near).expect(1);
    assert!(refused.contains("chmod 600"), "{refused}");
}
