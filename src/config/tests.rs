//! Tests of the configuration: layers, every refusal with its message, the documented example.

use std::{fs, os::unix::fs::PermissionsExt as _, path::Path, time::Duration};

use super::*;
use crate::redact::ExposeSecret as _;

mod fleet;
mod tables;

const EXAMPLE: &str = include_str!("../../deploy/nexus.toml");
const ORDERS: &str = "[[database]]\nname = \"orders\"\nurl = \"postgres://u:hunter2@h/orders\"\n";

fn variables_of(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
    pairs.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect()
}

fn parse(text: &str) -> Result<Config, ConfigError> {
    Config::parse(text, Some(Path::new("etc/nexus.toml")), [], &Overrides::default())
}

fn refusal(text: &str) -> String {
    parse(text).expect_err("it is refused").to_string()
}

#[test]
fn defaults_are_complete() {
    let config = Config::load(None, [], &Overrides::default()).expect("nothing is a configuration");
    assert_eq!(config.server.grpc.to_string(), "127.0.0.1:7421");
    assert_eq!(config.server.socket, None);
    assert_eq!(config.log.file, Path::new("logs/migrations.jsonl"));
    assert_eq!(config.log.level, tracing::Level::INFO);
    assert_eq!(config.limits.max_parallel, 8);
    let settings = DatabaseSettings::default();
    assert_eq!(settings.max_file_size, 64 << 20);
    assert_eq!(settings.statement_timeout, Duration::ZERO);
    assert_eq!(settings.lock_wait, Duration::from_mins(1));
}

#[test]
fn flags_win_over_environment_over_file_over_default() {
    let text = "[server]\ngrpc = \"127.0.0.1:1\"\nhttp = \"127.0.0.1:2\"\n[log]\nlevel = \"warn\"\n";
    let environment =
        [("NEXUS_SERVER_GRPC", "127.0.0.1:3"), ("NEXUS_LOG_LEVEL", "debug"), ("NEXUS_LOG_FILE", "")];
    let overrides = Overrides { grpc: Some("[::1]:4".into()), ..Overrides::default() };
    let config =
        Config::parse(text, None, variables_of(&environment), &overrides).expect("it is well-formed");
    assert_eq!(config.server.grpc.to_string(), "[::1]:4");
    assert_eq!(config.server.http.to_string(), "127.0.0.1:2");
    assert_eq!(config.log.level, tracing::Level::DEBUG);
    assert_eq!(config.log.file, Path::new("logs/migrations.jsonl"));
}

#[test]
fn a_database_wins_over_the_environment_over_defaults() {
    let text = format!(
        "[defaults]\nlock_timeout = \"1s\"\nlock_wait = \"2s\"\nschema = \"app\"\n\
         [defaults.labels]\nenv = \"prod\"\nteam = \"core\"\n\
         {ORDERS}labels = {{ env = \"staging\" }}\nschema = \"sales\"\nmigrations = \"sql\"\n\
         [[database]]\nname = \"billing\"\nurl_env = \"BILLING\"\nmigrations = \"/srv/billing\"\n"
    );
    let environment = [("NEXUS_DEFAULTS_LOCK_TIMEOUT", "3s"), ("BILLING", " host=db dbname=billing \n")];
    let file = Some(Path::new("etc/nexus.toml"));
    let config = Config::parse(&text, file, variables_of(&environment), &Overrides::default());
    let config = config.expect("it is well-formed");
    let [orders, billing] = config.databases.as_slice() else { return assert_eq!(config.databases.len(), 2) };
    assert_eq!(orders.settings.lock_timeout, Duration::from_secs(3));
    assert_eq!(orders.settings.lock_wait, Duration::from_secs(2));
    assert_eq!((orders.settings.schema.as_str(), billing.settings.schema.as_str()), ("sales", "app"));
    assert_eq!(orders.settings.migrations, Path::new("etc/sql"));
    assert_eq!(billing.settings.migrations, Path::new("/srv/billing"));
    assert_eq!(
        orders.labels,
        [("env", "staging"), ("team", "core")].map(|(a, b)| (a.into(), b.into())).into()
    );
    assert_eq!(billing.labels["env"], "prod");
    assert_eq!(billing.url.expose_secret(), "host=db dbname=billing");
    assert_eq!(billing.url_source, UrlSource::Variable("BILLING".into()));
    assert_eq!(config.warnings, Vec::<String>::new());
}

#[test]
fn an_error_shows_its_line_and_a_caret() {
    let expected = "etc/nexus.toml:2:1: [defaults] unknown key `lock_timout`; did you mean `lock_timeout`?\n   |\n \
                    2 | lock_timout = \"5s\"\n   | ^^^^^^^^^^^";
    assert_eq!(refusal("[defaults]\nlock_timout = \"5s\"\n"), expected);
}

#[test]
fn the_value_of_a_key_that_nobody_knows_is_not_shown() {
    for key in ["pasword", "pass", "sha25", "ur", "secret"] {
        let said =
            refusal(&format!("[[database]]\nname = \"a\"\nurl = \"postgres://h/d\"\n{key} = \"hunter2\"\n"));
        assert!(said.contains(&format!("unknown key `{key}`")) && !said.contains("hunter2"), "{said}");
    }
}

#[test]
fn refusals() {
    let check = |text: &str, expected: &str| {
        let message = refusal(text);
        let first = message.lines().next().unwrap_or_default();
        assert_eq!(first.strip_prefix("etc/nexus.toml:"), Some(expected), "{text}");
    };
    check("[sever]\n", "1:2: unknown key `sever`; did you mean `server`?");
    check(
        "[tls]\ncert = \"a\"\n",
        "1:2: unknown key `tls`; known are include, server, access, log, limits, watch, alerts, telemetry, control, defaults, database, discover, audit, strategy",
    );
    check("grpc = \"127.0.0.1:1\"\n", "1:1: unknown key `grpc`; it belongs in [server]");
    check(
        "[log]\nlock_wait = \"1s\"\n",
        "2:1: [log] unknown key `lock_wait`; it belongs in [defaults] or [[database]]",
    );
    check("[defaults]\nurl = \"x\"\n", "2:1: [defaults] unknown key `url`; it belongs in [[database]]");
    check("log = 1\n", "1:7: [log] must be a table, written as `[log]`; found an integer");
    check(
        "[database]\n",
        "1:1: [[database]] each database is a table of its own, written as `[[database]]`; found a table",
    );
    check("[log\n", "1:5: unclosed table, expected `]`");
    check("[log]\n[log]\n", "2:2: duplicate key");

    let url = "expected a URL without TLS such as \"http://127.0.0.1:4317\", or \"\" for none, found";
    for endpoint in ["https://collector:4317", "http://", "http://h:1/v1/traces", "http://u:p@h:1"] {
        let text = format!("[telemetry]\nendpoint = {endpoint:?}");
        check(&text, &format!("2:12: [telemetry] endpoint: {url} something that may hold a secret"));
    }
    check(
        "[telemetry]\nendpoint = \"localhost:4317\"",
        &format!("2:12: [telemetry] endpoint: {url} \"localhost:4317\""),
    );
    let share = "2:16: [telemetry] sample_ratio: expected a number from 0.0 to 1.0, found";
    check("[telemetry]\nsample_ratio = 1.5", &format!("{share} \"1.5\""));
    check("[telemetry]\nsample_ratio = nan", &format!("{share} \"nan\""));
    check("[telemetry]\nsample_ratio = true", &format!("{share} a boolean (true)"));
    let address = "expected an address with a port such as \"127.0.0.1:7421\" or \"[::1]:7421\"";
    check(
        "[server]\ngrpc = \"db.example:1\"",
        &format!("2:8: [server] grpc: {address}, found \"db.example:1\""),
    );
    check("[server]\ngrpc = \"127.0.0.1\"", &format!("2:8: [server] grpc: {address}, found \"127.0.0.1\""));
    check("[server]\ngrpc = 7421", &format!("2:8: [server] grpc: {address}, found an integer (7421)"));
    check("[server]\nhttp = \"127.0.0.1:7421\"", "1:1: [server] grpc and http are both 127.0.0.1:7421");
    check(
        "[server]\nsocket = 1",
        "2:10: [server] socket: expected a path, or \"\" for none, found an integer (1)",
    );
    check("[log]\nfile = \"\"", "2:8: [log] file: expected a path, found \"\"");
    let level = "expected \"error\", \"warn\", \"info\", \"debug\" or \"trace\"";
    check("[log]\nlevel = \"loud\"", &format!("2:9: [log] level: {level}, found \"loud\""));
    check("[log]\nlevel = \"3\"", &format!("2:9: [log] level: {level}, found \"3\""));
    let count = "expected a whole number from 1 to 10000";
    check("[limits]\nmax_parallel = 0", &format!("2:16: [limits] max_parallel: {count}, found \"0\""));
    check(
        "[limits]\nmax_parallel = 0x20000",
        &format!("2:16: [limits] max_parallel: {count}, found \"131072\""),
    );
    check("[limits]\nmax_parallel = \"8\"", &format!("2:16: [limits] max_parallel: {count}, found a string"));
    check(
        "[limits]\nmax_parallel = [8]",
        &format!("2:16: [limits] max_parallel: {count}, found an array ([8])"),
    );
}

#[test]
fn refusals_of_database_settings() {
    let check = |setting: &str, expected: &str| {
        let message = refusal(&format!("{ORDERS}{setting}"));
        let first = message.lines().next().unwrap_or_default();
        let key = setting.split(' ').next().unwrap_or_default();
        let prefix = format!("etc/nexus.toml:4:{}: database \"orders\": {key}: ", key.len() + 4);
        assert_eq!(first.strip_prefix(&prefix), Some(expected), "{setting}: {first}");
    };
    let duration = "expected a duration such as \"5s\", \"500ms\" or \"10min\"";
    check("lock_timeout = \"5 parsecs\"", &format!("{duration}, found \"5 parsecs\""));
    check("lock_timeout = 5", &format!("{duration}, found an integer (5)"));
    check("lock_timeout = \"5\"", &format!("{duration}, found \"5\""));
    check("lock_timeout = \"-5s\"", &format!("{duration}, found \"-5s\""));
    check("lock_timeout = \"0s\"", "\"0s\" would wait without a limit; it must be at least 1ms");
    check("connect_timeout = \"0s\"", "\"0s\" would wait without a limit; it must be at least 1ms");
    check("statement_timeout = \"10us\"", "\"10us\" is not a whole number of milliseconds");
    check("lock_wait = \"30d\"", "\"30d\" is longer than PostgreSQL can count, which is about 24 days");
    let size = "expected a number of bytes above 0 such as 1048576 or \"64MiB\"";
    check("max_file_size = \"lots\"", &format!("{size}, found \"lots\""));
    check("max_file_size = 0", &format!("{size}, found \"0\""));
    check("max_file_size = -1", &format!("{size}, found \"-1\""));
    check("max_file_size = 1.5", &format!("{size}, found a float (1.5)"));
    check("max_file_size = \"99999999999GiB\"", &format!("{size}, found \"99999999999GiB\""));
    check("recursive = \"yes\"", "expected true or false, found a string");
    check("naming = \"loose\"", "expected \"strict\" or \"relaxed\", found \"loose\"");
    check("missing_down = \"deny\"", "expected \"warn\" or \"error\", found \"deny\"");
    check("out_of_order = \"error\"", "expected \"deny\", \"warn\" or \"allow\", found \"error\"");
    check("missing_file = true", "expected \"deny\", \"warn\" or \"allow\", found a boolean (true)");
    check("recovery = \"auto\"", "expected \"evidence\", \"down\" or \"off\", found \"auto\"");
    check("durability = \"all\"", "expected \"run\" or \"each\", found \"all\"");
    check("lock_retries = -1", "expected a whole number from 0 to 10000, found \"-1\"");
    check("schema = \"\"", "expected a PostgreSQL name of 1 to 63 bytes, found \"\"");
    // With it goes TABLE_nexus_journal.
    let long = "a".repeat(50);
    check(
        &format!("table = \"{long}\""),
        &format!("expected a PostgreSQL name of 1 to 49 bytes, found \"{long}\""),
    );
    check("labels = [\"a\"]", "expected a table such as { env = \"prod\" }, found an array");
}

#[test]
fn refusals_of_names_labels_and_urls() {
    let check = |text: &str, expected: &str| {
        let message = refusal(&format!("[[database]]\n{text}"));
        let first = message.lines().next().unwrap_or_default();
        assert_eq!(first.strip_prefix("etc/nexus.toml:"), Some(expected), "{text}");
        assert!(!message.contains("hunter2"), "{message}");
    };
    let url = "url = \"postgres://u:hunter2@h/d\"";
    let charset = "expected a name of letters, digits, `_`, `.` and `-`";
    check(url, "1:1: database #1: name is missing");
    check(&format!("name = \"a b\"\n{url}"), &format!("2:8: database #1: name: {charset}, found \"a b\""));
    check(&format!("name = \"\"\n{url}"), &format!("2:8: database #1: name: {charset}, found \"\""));
    check(&format!("name = 1\n{url}"), &format!("2:8: database #1: name: {charset}, found an integer (1)"));
    let again = format!("name = \"a\"\n{url}\n[[database]]\nname = \"a\"\n{url}");
    check(&again, "5:8: database \"a\": #1 has this name already; names are unique");
    check(
        &format!("name = \"a\"\n{url}\nlabels = {{ \"e v\" = \"x\" }}"),
        &format!("4:12: database \"a\": labels: {charset}, found \"e v\""),
    );
    check(
        &format!("name = \"a\"\n{url}\nlabels.env = 3"),
        "4:14: database \"a\": labels.env: expected a text without commas and control characters, found an integer (3)",
    );
    check("name = \"a\"", "1:1: database \"a\": url is missing: give url, url_env or url_file");
    check(
        &format!("name = \"a\"\n{url}\nurl_env = \"X\""),
        "4:11: database \"a\": url and url_env are both given; keep one",
    );
    check(
        "name = \"a\"\nurl_env = \"NOT_SET\"",
        "3:11: database \"a\": url_env: the environment variable NOT_SET is not set or empty",
    );
    check(
        "name = \"a\"\nurl_file = \"/nowhere\"",
        "3:12: database \"a\": url_file: cannot read /nowhere: No such file or directory (os error 2)",
    );
    let form = "expected postgres://USER@HOST:PORT/DATABASE, or key=value pairs as libpq reads them";
    check("name = \"a\"\nurl = \"mysql://u:hunter2@h/d\"", &format!("3:7: database \"a\": url: {form}"));
    check("name = \"a\"\nurl = \"hunter2\"", &format!("3:7: database \"a\": url: {form}"));
    for key in ["url_env", "url_file", "migrations", "schema", "name"] {
        let message =
            refusal(&format!("[[database]]\n{key} = \"postgres://u:hunter2@{}\"\n", "h".repeat(64)));
        assert!(!message.contains("hunter2") && message.contains(key), "{message}");
    }
    check(
        "name = \"a\"\nurl = postgres://u:hunter2@h/d",
        "3:7: string values must be quoted, expected literal string",
    );
    check(
        &format!("name = \"a\"\n{url}\npasswort = \"hunter2\""),
        "4:1: database \"a\": unknown key `passwort`; known are name, url, url_env, url_file, labels, schema, table, migrations, naming, recursive, missing_down, max_file_size, out_of_order, missing_file, recovery, durability, lock_timeout, lock_retries, statement_timeout, lock_wait, connect_timeout, idle_in_transaction_timeout, watch, protected",
    );
}

#[test]
fn all_errors_are_told_at_once() {
    let text = format!(
        "{ORDERS}lock_wait = 1\n[[database]]\nname = \"b\"\nrecovery = \"x\"\n[log]\nlevel = \"x\"\n"
    );
    let environment = variables_of(&[("NEXUS_DEFAULTS_NAMING", "x")]);
    let overrides = Overrides { http: Some("0.0.0.0:1".into()), ..Overrides::default() };
    let error = Config::parse(&text, None, environment, &overrides).expect_err("it is full of errors");
    let ConfigError::Invalid(problems) = &error else { return assert_eq!(error.to_string(), "") };
    let messages: Vec<_> = problems.iter().map(|problem| problem.message.split(": ").next()).collect();
    let expected = [
        "database \"orders\"",
        "database \"b\"",
        "database \"b\"",
        "[log] level",
        "--http",
        "NEXUS_DEFAULTS_NAMING",
    ];
    assert_eq!(messages, expected.map(Some));
    assert!(error.to_string().starts_with("the configuration has 6 errors\n\nconfiguration:4:13: database"));
}

#[test]
fn files_and_their_readers() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let file = directory.path().join("nexus.toml");
    let secret = directory.path().join("secret");
    let load = || Config::load(Some(&file), [], &Overrides::default());
    let error = load().expect_err("there is no file");
    assert_eq!(error.to_string(), format!("cannot read the configuration file {}", file.display()));

    let text = format!("{ORDERS}[[database]]\nname = \"billing\"\nurl_file = \"secret\"\n");
    fs::write(&file, text).expect("the configuration is written");
    fs::write(&secret, "postgres://u:p@h/billing\n").expect("the secret is written");
    let mode = |path: &Path, mode| fs::set_permissions(path, fs::Permissions::from_mode(mode));
    for (file_mode, expected) in [(0o640, 0), (0o644, 1)] {
        mode(&file, file_mode).and_then(|()| mode(&secret, 0o600)).expect("the modes are set");
        let config = load().expect("it is well-formed");
        assert_eq!(config.warnings.len(), expected, "{file_mode:o}: {:?}", config.warnings);
        assert_eq!(config.databases[1].url.expose_secret(), "postgres://u:p@h/billing");
        assert!(!format!("{config:?}").contains("hunter2"));
    }
    mode(&secret, 0o604).expect("the mode is set");
    let refusal = load().expect_err("everybody may read the secret").to_string();
    assert!(refusal.contains("url_file: ") && refusal.contains("chmod 600"), "{refusal}");
}

#[test]
fn strange_variables_are_warned_of() {
    let environment = [
        ("NEXUS_DEFAULTS_LOCK_TIMOUT", "1s"),
        ("NEXUS_SERVER_PORT", "tcp://10.0.0.1"),
        ("NEXUS_SERVER", "x"),
    ];
    let config =
        Config::load(None, variables_of(&environment), &Overrides::default()).expect("they do no harm");
    let expected = [
        "the environment variable NEXUS_DEFAULTS_LOCK_TIMOUT means nothing here; did you mean NEXUS_DEFAULTS_LOCK_TIMEOUT?",
        "the environment variable NEXUS_SERVER_PORT means nothing here",
    ];
    assert_eq!(config.warnings[0], expected[0]);
    assert!(config.warnings[1].starts_with(expected[1]));
}

#[test]
fn the_effective_configuration_is_whole_and_masked() {
    let config = parse(&format!("{ORDERS}labels = {{ env = \"a\\\"b\" }}\nmax_file_size = 1000\n"))
        .expect("it is well-formed");
    let printed = config.to_masked_toml();
    assert!(!printed.contains("hunter2"), "{printed}");
    let groups =
        [ServerConfig::KEYS, LogConfig::KEYS, Limits::KEYS, AlertsConfig::KEYS, DatabaseSettings::KEYS];
    for key in groups.concat() {
        assert!(printed.contains(&format!("\n{key} = ")), "{key} is not in\n{printed}");
    }
    for line in [
        "max_file_size = 1000",
        "lock_wait = \"1m\"",
        "labels = { \"env\" = 'a\"b' }",
        "migrations = \"etc/migrations\"",
    ] {
        assert!(printed.contains(line), "{line} is not in\n{printed}");
    }
    let again =
        Config::parse(&printed, None, [], &Overrides::default()).expect("it is a configuration itself");
    assert_eq!(again.databases[0].settings, config.databases[0].settings);
    assert_eq!(
        (again.server, again.log, again.limits, again.watch),
        (config.server, config.log, config.limits, config.watch)
    );
}

#[test]
fn the_example_loads_and_is_the_defaults() {
    let file = Some(Path::new("deploy/nexus.toml"));
    let config = Config::parse(EXAMPLE, file, [], &Overrides::default()).expect("the example is well-formed");
    assert_eq!((config.server, config.log, config.limits, config.watch, config.alerts), Default::default());
    assert!(config.sinks.is_empty());
    let settings =
        DatabaseSettings { migrations: "deploy/../migrations".into(), ..DatabaseSettings::default() };
    assert_eq!(config.databases[0].settings, settings);
}

/// A commented-out setting is `#key = value`, without a space; prose is `# text`.
#[test]
fn every_key_and_default_is_documented() {
    let section = |name: &str| {
        let start = EXAMPLE.find(&format!("\n[{name}]\n")).expect("the section is there");
        let rest = &EXAMPLE[start + 2..];
        let ends = ["\n[", "\n#[["].into_iter().filter_map(|next| rest.find(next));
        &rest[..ends.min().unwrap_or(rest.len())]
    };
    let check = |name: &str, keys: &[&str], defaults: &str| {
        let documented: Vec<_> = section(name)
            .lines()
            .filter_map(|line| {
                line.strip_prefix('#').filter(|line| line.starts_with(|c: char| c.is_ascii_lowercase()))
            })
            .filter(|line| *line != "team = \"platform\"")
            .collect();
        let named: Vec<_> = documented.iter().filter_map(|line| line.split(" = ").next()).collect();
        assert_eq!(named, keys, "[{name}] documents each key, in order");
        assert_eq!(documented.join("\n"), defaults, "[{name}] shows the defaults");
    };
    let lines = |literals: Vec<(&str, String)>| {
        let text: Vec<_> = literals.iter().map(|(key, value)| format!("{key} = {value}")).collect();
        text.join("\n").replace("\"1m\"", "\"60s\"")
    };
    check("server", ServerConfig::KEYS, &lines(ServerConfig::default().literals()));
    check("log", LogConfig::KEYS, &lines(LogConfig::default().literals()));
    check("limits", Limits::KEYS, &lines(Limits::default().literals()));
    check("watch", WatchConfig::KEYS, &lines(WatchConfig::default().literals()));
    check("alerts", AlertsConfig::KEYS, &lines(AlertsConfig::default().literals()));
    check("defaults", DatabaseSettings::KEYS, &lines(DatabaseSettings::default().literals()));
    for key in
        [database::OWN_KEYS, audit::KEYS, strategy::KEYS, alerts::WEBHOOK_KEYS, alerts::ALERTMANAGER_KEYS]
            .concat()
    {
        assert!(
            EXAMPLE.contains(&format!("\n{key} = ")) || EXAMPLE.contains(&format!("\n#{key} = ")),
            "{key}"
        );
    }

    let uncommented: Vec<_> = EXAMPLE
        .lines()
        .filter(|line| *line != "migrations = \"../migrations\"" && !line.contains("\"/run/secrets/"))
        .map(|line| {
            line.strip_prefix('#')
                .filter(|rest| rest.starts_with(|c: char| c == '[' || c.is_ascii_lowercase()))
                .unwrap_or(line)
        })
        .flat_map(|line| {
            [line, if line == "name = \"billing-prod\"" { "url_env = \"ORDERS_DATABASE_URL\"" } else { "" }]
        })
        .collect();
    let urls = ["ORDERS_DATABASE_URL", "CONTROL_DATABASE_URL"].map(|name| (name, "postgres://h/d"));
    let environment = variables_of(&urls);
    let config = Config::parse(&uncommented.join("\n"), None, environment, &Overrides::default());
    assert_eq!(config.expect("every commented line is well-formed").databases.len(), 3);
}
