//! Prints the effective configuration.

use std::collections::BTreeMap;

use crate::{
    config::{
        Config, DatabaseConfig, DiscoverConfig, MinSeverity, SinkConfig, UrlSource, audit, discover,
        setting::{Form as _, Span, quoted},
        strategy,
    },
    redact::{ExposeSecret as _, SecretString, mask_sink_url, mask_url},
};

/// The effective configuration as TOML, secrets masked.
pub(super) fn masked_toml(config: &Config) -> String {
    let mut lines =
        vec!["# The effective configuration: file, environment and flags; secrets are masked".into()];
    if let Some(file) = &config.file {
        lines.push(format!("# Read from {:?}", file.display().to_string()));
    }
    lines.extend(config.included.iter().map(|file| format!("# Included {:?}", file.display().to_string())));
    let groups = [
        ("server", config.server.literals()),
        ("access", config.access.literals()),
        ("log", config.log.literals()),
        ("limits", config.limits.literals()),
        ("watch", config.watch.literals()),
        ("alerts", config.alerts.literals()),
        ("telemetry", config.telemetry.literals()),
    ];
    for (name, literals) in groups {
        lines.extend([String::new(), format!("[{name}]")]);
        lines.extend(assignments(literals));
    }
    if let Some(control) = &config.control {
        lines.extend([String::new(), "[control]".into(), url_line(&control.url, &control.url_source)]);
        lines.extend(assignments(control.settings.literals()));
    }
    for sink in &config.sinks {
        lines.push(String::new());
        lines.extend(sink_lines(sink));
    }
    for database in &config.databases {
        lines.extend([String::new(), "[[database]]".into()]);
        lines.extend(database_lines(database));
    }
    for discovery in &config.discoveries {
        lines.extend([String::new(), "[[discover]]".into()]);
        lines.extend(discovery_lines(discovery));
    }
    for audit in &config.audits {
        lines.extend([String::new(), "[[audit]]".into()]);
        lines.extend(audit::lines(audit));
    }
    for strategy in &config.strategies {
        lines.extend([String::new(), "[[strategy]]".into()]);
        lines.extend(strategy::lines(strategy));
    }
    lines.join("\n") + "\n"
}

fn sink_lines(sink: &SinkConfig) -> Vec<String> {
    let source = match &sink.url_file {
        Some(path) => format!(" # from url_file = {}", quoted(&path.to_string_lossy())),
        None => String::new(),
    };
    let url = quoted(&mask_sink_url(sink.url.expose_secret()));
    let mut lines = vec![
        format!("[[alerts.{}]]", sink.kind.name()),
        format!("name = {}", quoted(&sink.name)),
        format!("url = {url}{source}"),
    ];
    lines.extend(
        sink.secret_file.as_ref().map(|path| format!("secret_file = {}", quoted(&path.to_string_lossy()))),
    );
    lines.push(format!("timeout = {}", Span::<1>::literal(&sink.timeout)));
    lines.push(format!("min_severity = {}", MinSeverity::literal(&sink.min_severity)));
    lines
}

fn database_lines(database: &DatabaseConfig) -> Vec<String> {
    let mut lines = vec![
        format!("name = {}", quoted(&database.name)),
        url_line(&database.url, &database.url_source),
        labels_line(&database.labels),
    ];
    lines.extend(assignments(database.settings.literals()));
    lines
}

fn discovery_lines(discovery: &DiscoverConfig) -> Vec<String> {
    let mut lines = discover::lines(discovery);
    lines.push(url_line(&discovery.url, &discovery.url_source));
    lines.push(labels_line(&discovery.labels));
    lines.extend(assignments(discovery.settings.literals()));
    lines
}

fn url_line(url: &SecretString, source: &UrlSource) -> String {
    let source = match source {
        UrlSource::Inline => String::new(),
        UrlSource::Variable(name) => format!(" # from url_env = {}", quoted(name)),
        UrlSource::File(path) => format!(" # from url_file = {}", quoted(&path.to_string_lossy())),
    };
    format!("url = {}{source}", quoted(&mask_url(url.expose_secret())))
}

fn labels_line(labels: &BTreeMap<String, String>) -> String {
    let label = |(key, value): (&String, &String)| format!("{} = {}", quoted(key), quoted(value));
    let labels: Vec<_> = labels.iter().map(label).collect();
    if labels.is_empty() { "labels = {}".into() } else { format!("labels = {{ {} }}", labels.join(", ")) }
}

fn assignments(literals: Vec<(&'static str, String)>) -> impl Iterator<Item = String> {
    literals.into_iter().map(|(key, value)| format!("{key} = {value}"))
}
