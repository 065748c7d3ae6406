//! What is another in a configuration than in the one before: what is taken over while the daemon runs,
//! and what is not.

use crate::{
    config::{Config, DatabaseConfig, DiscoverConfig, SinkConfig},
    redact::ExposeSecret as _,
};

impl Config {
    /// The sections that are others than in `running` and are read at the start only.
    pub fn needing_a_restart(&self, running: &Self) -> Vec<&'static str> {
        let sinks = |config: &Self| config.sinks.iter().map(of_a_sink).collect::<Vec<_>>();
        let sections = [
            ("[server]", self.server != running.server),
            ("[access]", self.access != running.access),
            ("[log]", self.log != running.log),
            ("[limits]", self.limits != running.limits),
            ("[watch]", self.watch != running.watch),
            ("[alerts]", self.alerts != running.alerts || sinks(self) != sinks(running)),
            ("[telemetry]", self.telemetry != running.telemetry),
            ("[control]", self.control != running.control),
            ("[[audit]]", self.audits != running.audits),
            ("[[strategy]]", self.strategies != running.strategies),
        ];
        sections.into_iter().filter_map(|(name, is_another)| is_another.then_some(name)).collect()
    }

    /// Whether the same databases are meant, and looked for in the same way, in the same files.
    pub fn has_the_same_fleet(&self, other: &Self) -> bool {
        let is_same = |a: &DatabaseConfig, b: &DatabaseConfig| a.is_same(b) && a.place == b.place;
        self.sources == other.sources
            && self.databases.len() == other.databases.len()
            && self.discoveries.len() == other.discoveries.len()
            && self.databases.iter().zip(&other.databases).all(|(a, b)| is_same(a, b))
            && self.discoveries.iter().zip(&other.discoveries).all(|(a, b)| a.is_same(b))
    }
}

impl DatabaseConfig {
    /// Whether it means the same; it may be written elsewhere.
    pub fn is_same(&self, other: &Self) -> bool {
        self.name == other.name
            && self.url.expose_secret() == other.url.expose_secret()
            && self.labels == other.labels
            && self.settings == other.settings
    }
}

impl DiscoverConfig {
    /// Whether it means the same; it may be written elsewhere.
    pub fn is_same(&self, other: &Self) -> bool {
        let parts = |it: &Self| {
            let Self {
                id, find, exclude, name, labels, every, limit, allow_empty, timeout, settings, ..
            } = it.clone();
            (id, find, exclude, name, labels, (every, limit, allow_empty, timeout), settings)
        };
        self.url.expose_secret() == other.url.expose_secret() && parts(self) == parts(other)
    }
}

fn of_a_sink(sink: &SinkConfig) -> impl PartialEq + use<> {
    let SinkConfig { kind, name, url, secret, timeout, min_severity, .. } = sink.clone();
    let secret = secret.map(|secret| secret.expose_secret().to_owned());
    (kind, name, url.expose_secret().to_owned(), secret, timeout, min_severity)
}
