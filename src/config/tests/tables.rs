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
