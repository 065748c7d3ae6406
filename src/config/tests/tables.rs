//! Tests of the arrays of tables: sinks and audits.

use super::*;

#[test]
fn sinks_of_alerts() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let file = directory.path().join("nexus.toml");
    for (name, text) in
        [("url", "https://hooks.example.com/T0/hunter2\n"), ("key", "hunter3\n"), ("empty", "")]
    {
        let path = directory.path().join(name);
        fs::write(&path, text).expect("the secret is written");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).expect("the mode is set");
    }
    let parse = |text: &str| Config::parse(text, Some(&file), [], &Overrides::default());
    let text = "[alerts]\nhold = \"0s\"\n[[alerts.webhook]]\nurl_file = \"url\"\nsecret_file = \"key\"\n\
                [[alerts.webhook]]\nname = \"pager\"\nurl = \"http://u:hunter2@h:1/?t=hunter2\"\n\
                timeout = \"3s\"\nmin_severity = \"critical\"\n[[alerts.alertmanager]]\nurl = \"http://am:9093\"\n";
    let config = parse(text).expect("it is well-formed");
    assert_eq!(config.alerts.hold, Duration::ZERO);
    let names: Vec<_> = config.sinks.iter().map(|sink| sink.name.as_str()).collect();
    assert_eq!(names, ["webhook-1", "pager", "alertmanager-1"]);
    assert_eq!(config.sinks[0].secret.as_ref().map(SecretString::expose_secret), Some("hunter3"));
    assert_eq!(config.sinks[1].min_severity, MinSeverity::Critical);
    let printed = config.to_masked_toml();
    assert!(!printed.contains("hunter") && !format!("{config:?}").contains("hunter"), "{printed}");
    assert!(printed.contains("url = \"https://hooks.example.com/***\" # from url_file = "), "{printed}");
    assert!(printed.contains("url = \"http://h:1/***\"\ntimeout = \"3s\""), "{printed}");
    assert!(printed.contains("[[alerts.alertmanager]]\nname = \"alertmanager-1\"\nurl = \"http://am:9093\""));

    let check = |text: &str, expected: &str| {
        let message = parse(text).expect_err("it is refused").to_string();
        assert!(message.lines().next().unwrap_or_default().contains(expected), "{text}: {message}");
        assert!(!message.contains("hunter2"), "{message}");
    };
    let url = "expected a URL such as https://HOST/PATH or http://HOST:PORT";
    for wrong in ["ftp://hunter2", "http://", "hunter2", "http://h:hunter2/", "http:// hunter2"] {
        let text = format!("[[alerts.webhook]]\nurl = \"{wrong}\"\n");
        check(&text, &format!("nexus.toml:2:7: sink \"webhook-1\": url: {url}"));
    }
    check("[[alerts.webhook]]\n", "1:1: sink \"webhook-1\": url is missing");
    check("[[alerts.webhook]]\nurl = \"http://h\"\nurl_file = \"url\"\n", "url and url_file are both given");
    check("[[alerts.webhook]]\nurl_file = \"key\"\n", url);
    check("[[alerts.webhook]]\nurl = \"http://h\"\nsecret_file = \"empty\"\n", "empty is empty");
    check("[[alerts.webhook]]\nurl = \"http://h\"\nsecret_file = \"none\"\n", "cannot read ");
    check(
        "[[alerts.alertmanager]]\nurl = \"http://h\"\nsecret_file = \"key\"\n",
        "unknown key `secret_file`",
    );
    check("[alerts.webhook]\nurl = \"http://h\"\n", "each is a table of its own");
    check(
        "[[alerts.webhook]]\nurl = \"http://h\"\nmin_severity = \"info\"\n",
        "expected \"warning\" or \"critical\"",
    );
    let twice = "[[alerts.webhook]]\nname = \"a\"\nurl = \"http://h\"\n";
    check(&format!("{twice}{twice}"), "4:1: sink \"a\": another sink has this name");
}

#[test]
fn audits() {
    let nightly = "[[audit]]\nname = \"nightly\"\nschedule = \"30 3 * * *\"\n";
    let more = "selector = \"env=prod, tier!=gold\"\ndatabases = [\"orders-*\", \"users\"]\ntime_zone = \"Asia/Tokyo\"\n";
    let weekly = nightly.replace("nightly", "weekly");
    let config = parse(&format!("{ORDERS}{nightly}{more}{weekly}")).expect("it is well-formed");
    let expected = AuditConfig {
        name: "nightly".into(),
        schedule: "30 3 * * *".into(),
        time_zone: "Asia/Tokyo".into(),
        databases: vec!["orders-*".into(), "users".into()],
        selector: Some("env=prod, tier!=gold".into()),
    };
    assert_eq!(config.audits[0], expected);
    let AuditConfig { time_zone, databases, selector, .. } = &config.audits[1];
    assert_eq!((time_zone.as_str(), databases.len(), selector.clone()), ("UTC", 0, None));
    let again = Config::parse(&config.to_masked_toml(), None, [], &Overrides::default());
    assert_eq!(again.expect("it is a configuration itself").audits, config.audits);

    let check = |lines: &str, expected: &str| {
        let message = refusal(&format!("{ORDERS}{lines}"));
        let first = message.lines().next().unwrap_or_default();
        assert!(first.ends_with(expected), "{lines}: {first}");
    };
    check("[[audit]]\nschedule = \"@daily\"", "audit #1: name is missing");
    check("[[audit]]\nname = \"a\"", "audit \"a\": schedule is missing: give a cron expression");
    check(&format!("{nightly}{nightly}"), "audit \"nightly\": #1 has this name already; names are unique");
    check(
        &format!("{nightly}zone = \"UTC\""),
        "audit \"nightly\": unknown key `zone`; known are name, schedule, time_zone, databases, selector",
    );
    check(&format!("{nightly}timezone = \"UTC\""), "unknown key `timezone`; did you mean `time_zone`?");
    check(
        &format!("{nightly}selector = \"\""),
        "selector: expected an expression such as env=prod or name~orders-*, found nothing",
    );
    // The place is that of the sign, inside the text.
    let pointed = refusal(&format!("{ORDERS}{nightly}selector = \"env==\""));
    assert!(
        pointed.starts_with("etc/nexus.toml:7:17: audit \"nightly\": selector: `==` is no operator: "),
        "{pointed}"
    );
    check(
        &format!("{nightly}databases = \"orders\""),
        "databases: expected a list such as [\"orders-*\"], found a string",
    );
    check(
        &format!("{nightly}databases = [7]"),
        "databases: expected a text of one line, found an integer (7)",
    );
    check(
        "[audit]\nname = \"a\"",
        "[[audit]] each audit is a table of its own, written as `[[audit]]`; found a table",
    );
}

#[test]
fn strategies() {
    let careful = "[[strategy]]\nname = \"careful\"\ncanary = 1\nwave = \"10%\"\n";
    let whole = "[[strategy]]\nname = \"whole\"\ncanary = \"orders-eu, orders-us\"\nwave = \"by-label=region\"\n\
                 parallel = 4\npause = \"manual\"\nmax_failures = \"5%\"\non_failure = \"rollback\"\n\
                 gate = \"select count(*) = 0 from failed_jobs\"\ngate_no_alerts = true\ngate_wait = \"30s\"\n\
                 gate_limit = \"5m\"\n";
    let counted = "[[strategy]]\nname = \"counted\"\nwave = 50\nmax_failures = 3\npause = \"5m\"\n";
    let config = parse(&format!("{ORDERS}{careful}{whole}{counted}")).expect("it is well-formed");
    let expected = StrategyConfig {
        name: "whole".into(),
        canary: Some(CanaryConfig::Names(vec!["orders-eu".into(), "orders-us".into()])),
        wave: Some(WaveConfig::ByLabel("region".into())),
        parallel: Some(4),
        pause: Some(PauseConfig::Manual),
        max_failures: Some(Amount::Percent(5)),
        rolls_back: true,
        gate: Some("select count(*) = 0 from failed_jobs".into()),
        gate_no_alerts: true,
        gate_wait: Some(Duration::from_secs(30)),
        gate_limit: Some(Duration::from_mins(5)),
    };
    assert_eq!(config.strategies[1], expected);
    assert_eq!(config.strategies[0].canary, Some(CanaryConfig::Count(1)));
    assert_eq!(config.strategies[2].wave, Some(WaveConfig::Amount(Amount::Count(50))));
    let again = Config::parse(&config.to_masked_toml(), None, [], &Overrides::default());
    assert_eq!(again.expect("it is a configuration itself").strategies, config.strategies);

    let check = |lines: &str, expected: &str| {
        let message = refusal(&format!("{ORDERS}{lines}"));
        let first = message.lines().next().unwrap_or_default();
        assert!(first.ends_with(expected), "{lines}: {first}");
    };
    check("[[strategy]]\nwave = 1", "strategy #1: name is missing");
    check(&format!("{careful}{careful}"), "strategy \"careful\": #1 has this name already; names are unique");
    check(&format!("{careful}waves = 1"), "unknown key `waves`; did you mean `wave`?");
    let with = |line: &str, expected: &str| check(&format!("[[strategy]]\nname = \"a\"\n{line}"), expected);
    let wave =
        "expected a part such as \"10%\", a number of databases of at least 1, or \"by-label=KEY\", found";
    with("wave = 0", &format!("strategy \"a\": wave: {wave} \"0\""));
    with("wave = \"0%\"", &format!("{wave} \"0%\""));
    with("wave = \"101%\"", &format!("{wave} \"101%\""));
    with("wave = \"by-label=\"", &format!("{wave} \"by-label=\""));
    with("wave = true", "found a boolean (true)");
    with("canary = 0", "or their names such as \"orders-eu,orders-us\", found \"0\"");
    with("canary = \"a,,b\"", "found \"a,,b\"");
    with("parallel = 0", "expected a whole number from 1 to 10000, found \"0\"");
    with("wave = 1\npause = \"later\"", "expected a duration such as \"5m\", or \"manual\", found \"later\"");
    with("max_failures = \"200%\"", "or a part from \"0%\" to \"100%\", found \"200%\"");
    with("on_failure = \"panic\"", "expected \"stop\" or \"rollback\", found \"panic\"");
    with("gate = \" \"", "such as \"select true\", found \" \"");
    with("pause = \"5m\"", "strategy \"a\": pause: there is one wave only: give canary or wave too");
    with("gate_wait = \"5m\"", "gate_wait: there is no gate: give gate or gate_no_alerts");
    with("gate_no_alerts = true\ngate_limit = \"0s\"", "it must be at least 1ms");
}
