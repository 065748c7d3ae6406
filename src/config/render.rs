//! Prints the effective configuration.

use crate::{
    config::{Config, DatabaseConfig, UrlSource, audit, setting::quoted},
    redact::{ExposeSecret as _, mask_url},
};

/// The effective configuration as TOML, secrets masked.
pub(super) fn masked_toml(config: &Config) -> String {
    let mut lines =
        vec!["# The effective configuration: file, environment and flags; secrets are masked".into()];
    if let Some(file) = &config.file {
        lines.push(format!("# Read from {:?}", file.display().to_string()));
    }
    let groups = [
        ("server", config.server.literals()),
        ("log", config.log.literals()),
        ("limits", config.limits.literals()),
        ("watch", config.watch.literals()),
    ];
    for (name, literals) in groups {
        lines.extend([String::new(), format!("[{name}]")]);
        lines.extend(assignments(literals));
    }
    for database in &config.databases {
        lines.extend([String::new(), "[[database]]".into()]);
        lines.extend(database_lines(database));
    }
    for audit in &config.audits {
        lines.extend([String::new(), "[[audit]]".into()]);
        lines.extend(audit::lines(audit));
    }
    lines.join("\n") + "\n"
}

fn database_lines(database: &DatabaseConfig) -> Vec<String> {
    let source = match &database.url_source {
        UrlSource::Inline => String::new(),
        UrlSource::Variable(name) => format!(" # from url_env = {}", quoted(name)),
        UrlSource::File(path) => format!(" # from url_file = {}", quoted(&path.to_string_lossy())),
    };
    let label = |(key, value): (&String, &String)| format!("{} = {}", quoted(key), quoted(value));
    let labels: Vec<_> = database.labels.iter().map(label).collect();
    let labels = if labels.is_empty() { "{}".into() } else { format!("{{ {} }}", labels.join(", ")) };
    let mut lines = vec![
        format!("name = {}", quoted(&database.name)),
        format!("url = {}{source}", quoted(&mask_url(database.url.expose_secret()))),
        format!("labels = {labels}"),
    ];
    lines.extend(assignments(database.settings.literals()));
    lines
}

fn assignments(literals: Vec<(&'static str, String)>) -> impl Iterator<Item = String> {
    literals.into_iter().map(|(key, value)| format!("{key} = {value}"))
}
