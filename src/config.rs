//! Configuration: file < environment (`NEXUS_SECTION_KEY`) < flags, checked as a whole before
//! anything starts. `deploy/nexus.toml` explains every key.

mod alerts;
mod audit;
mod changes;
mod control;
mod database;
mod discover;
mod exposure;
mod identities;
mod include;
mod overrides;
mod problem;
mod reader;
mod render;
mod secret_file;
mod setting;
mod settings;
mod strategy;
#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
};

use toml::de::DeTable;

pub use crate::config::{
    alerts::{SinkConfig, SinkType},
    audit::AuditConfig,
    control::ControlConfig,
    database::UrlSource,
    discover::{DiscoverConfig, Find},
    identities::{IdentityConfig, ShownBy, read_identities},
    overrides::Overrides,
    problem::{ConfigError, Place, Problem},
    setting::{Durability, MinSeverity, MissingDown, Naming, Overlap, Policy, Recovery, Watch},
    settings::{
        AccessConfig, AlertsConfig, ControlSettings, DatabaseSettings, Limits, LogConfig, ServerConfig,
        TelemetryConfig, WatchConfig,
    },
    strategy::{Amount, CanaryConfig, PauseConfig, StrategyConfig, WaveConfig},
};
use crate::{
    config::{
        database::{Defaults, Fleet, Found},
        reader::{Layer, Reader, Section, unknown_variables, variable},
    },
    redact::SecretString,
};

/// The whole configuration: what was not written has its default.
#[derive(Debug, Clone, Default)]
pub struct Config {
    /// The file it was read from.
    pub file: Option<PathBuf>,
    /// Where the daemon listens.
    pub server: ServerConfig,
    /// Who may do what.
    pub access: AccessConfig,
    /// What it writes.
    pub log: LogConfig,
    /// What it may use.
    pub limits: Limits,
    /// How the databases are watched.
    pub watch: WatchConfig,
    /// How alerts live.
    pub alerts: AlertsConfig,
    /// Who is told of them.
    pub sinks: Vec<SinkConfig>,
    /// Where its traces go.
    pub telemetry: TelemetryConfig,
    /// What it shares with other daemons, where it does.
    pub control: Option<ControlConfig>,
    /// The databases, in the order of the files.
    pub databases: Vec<DatabaseConfig>,
    /// Where more of them are looked for, in the order of the files.
    pub discoveries: Vec<DiscoverConfig>,
    /// The included files.
    pub included: Vec<PathBuf>,
    /// Where something may change that databases come from: files, and directories of included ones.
    pub sources: BTreeSet<PathBuf>,
    /// The scheduled audits, in the file's order.
    pub audits: Vec<AuditConfig>,
    /// The named strategies, in the file's order.
    pub strategies: Vec<StrategyConfig>,
    /// What is allowed, but probably not meant.
    pub warnings: Vec<String>,
}

/// One database of the fleet.
#[derive(Debug, Clone)]
pub struct DatabaseConfig {
    /// Its name, unique in the fleet, of `[a-zA-Z0-9_.-]`.
    pub name: String,
    /// How to connect: a URL, or libpq's `key=value` pairs.
    pub url: SecretString,
    /// Where the URL was found.
    pub url_source: UrlSource,
    /// What it is selected by, those of `[defaults.labels]` included.
    pub labels: BTreeMap<String, String>,
    /// How its migrations are run, those of `[defaults]` included; `migrations` is resolved.
    pub settings: DatabaseSettings,
    /// Where it is written.
    pub place: Place,
}

/// What may stand at the top of the file.
const ROOT: [&str; 14] = [
    "include",
    "server",
    "access",
    "log",
    "limits",
    "watch",
    "alerts",
    "telemetry",
    "control",
    "defaults",
    "database",
    "discover",
    "audit",
    "strategy",
];

/// Where a key belongs that stands in the wrong table.
fn home(key: &str) -> Option<&'static str> {
    [
        (ServerConfig::KEYS, "[server]"),
        (AccessConfig::KEYS, "[access]"),
        (LogConfig::KEYS, "[log]"),
        (Limits::KEYS, "[limits]"),
        (WatchConfig::KEYS, "[watch]"),
        (AlertsConfig::KEYS, "[alerts]"),
        (TelemetryConfig::KEYS, "[telemetry]"),
        (ControlSettings::KEYS, "[control]"),
        (DatabaseSettings::KEYS, "[defaults] or [[database]]"),
        (database::OWN_KEYS, "[[database]]"),
        (audit::KEYS, "[[audit]]"),
        (discover::KEYS, "[[discover]]"),
        (&["include"], "the top of the file, before the first table"),
        (strategy::KEYS, "[[strategy]]"),
    ]
    .into_iter()
    .find_map(|(keys, place)| keys.contains(&key).then_some(place))
}

impl Config {
    /// Reads `path` (nothing but the defaults where it is `None`) and puts the environment and the
    /// flags over it.
    pub fn load(
        path: Option<&Path>,
        environment: impl IntoIterator<Item = (String, String)>,
        overrides: &Overrides,
    ) -> Result<Self, ConfigError> {
        let read = |path: &Path| {
            fs::read_to_string(path)
                .map_err(|source| ConfigError::Unreadable { path: path.to_owned(), source })
        };
        let text = path.map(read).transpose()?.unwrap_or_default();
        let mut config = Self::parse(&text, path, environment, overrides)?;
        if path.is_some() {
            config.warn_of_readers();
        }
        Ok(config)
    }

    /// Reads a file's text; paths in it are relative to `file`'s directory.
    pub fn parse(
        text: &str,
        file: Option<&Path>,
        environment: impl IntoIterator<Item = (String, String)>,
        overrides: &Overrides,
    ) -> Result<Self, ConfigError> {
        let table = DeTable::parse(text).map_err(|error| {
            let place = Place::new(file, text, &error.span().unwrap_or(0..0));
            ConfigError::Invalid(vec![Problem { place: Some(place), message: error.message().to_owned() }])
        })?;
        let environment = environment.into_iter().collect();
        let mut reader = Reader::new(file, text, &environment, overrides);
        let root = Section::new(String::new(), Some((table.span(), table.get_ref())));
        reader.only(&root, &ROOT, home);

        let server: ServerConfig =
            group(&mut reader, &root, "server", ServerConfig::KEYS, ServerConfig::read);
        let access = group(&mut reader, &root, "access", AccessConfig::KEYS, AccessConfig::read);
        exposure::check(&mut reader, &root, &server, &access);
        let log = group(&mut reader, &root, "log", LogConfig::KEYS, LogConfig::read);
        let limits = group(&mut reader, &root, "limits", Limits::KEYS, Limits::read);
        let watch = group(&mut reader, &root, "watch", WatchConfig::KEYS, WatchConfig::read);
        let telemetry = group(&mut reader, &root, "telemetry", TelemetryConfig::KEYS, TelemetryConfig::read);
        if server.grpc == server.http && server.grpc.port() != 0 {
            let span = root.get("server").map_or(0..0, toml::Spanned::span);
            reader.complain(&span, format!("[server] grpc and http are both {}", server.grpc));
        }
        let base = file.and_then(Path::parent).unwrap_or(Path::new(""));
        let (alerts, sinks) = alerts::read(&mut reader, &root, base);
        let included = include::read(&mut reader, &root, file, base);
        let mut found = Found { warnings: included.warnings, ..Found::default() };
        let mut fleet = Fleet::new(&mut reader, &environment, base, &mut found);
        let control = control::read(&mut fleet, &root);
        let defaults = fleet.read(&root, &Defaults::of(base));
        let audits = audit::read(&mut reader, &root);
        let strategies = strategy::read(&mut reader, &root);

        let mut problems = reader.finish();
        for (path, text) in &included.files {
            problems.extend(include::databases(path, text, &environment, &defaults, &mut found));
        }
        problems.extend(exposure::unproven(&access, &found));
        if !problems.is_empty() {
            return Err(ConfigError::Invalid(problems));
        }
        let Found { databases, discoveries, mut warnings, .. } = found;
        let of_databases = databases.iter().map(|database| &database.url_source);
        let of_discoveries = discoveries.iter().map(|discovery| &discovery.url_source);
        let of_control = control.iter().map(|control| &control.url_source);
        let url_sources: Vec<_> = of_databases.chain(of_discoveries).chain(of_control).collect();
        let used: Vec<_> = url_sources.iter().filter_map(|source| source.variable()).collect();
        warnings.extend(unknown_variables(&environment, &variables(), &used));
        let files: Vec<PathBuf> = included.files.into_iter().map(|(path, _)| path).collect();
        let sources = url_sources
            .iter()
            .filter_map(|source| source.file())
            .chain(file.map(Path::to_owned))
            .chain(files.iter().cloned())
            .chain(included.directories);
        let sources = sources.collect();
        Ok(Self {
            file: file.map(Path::to_owned),
            server,
            access,
            log,
            limits,
            watch,
            alerts,
            sinks,
            telemetry,
            control,
            databases,
            discoveries,
            included: files,
            sources,
            audits,
            strategies,
            warnings,
        })
    }

    /// The effective configuration as TOML, every value in it, secrets masked, in a stable order.
    pub fn to_masked_toml(&self) -> String {
        render::masked_toml(self)
    }

    /// Warns of each file that holds a password and that others can read.
    fn warn_of_readers(&mut self) {
        let mut holders: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
        let databases = self.databases.iter().map(|it| (&it.place.file, &it.name, &it.url_source, &it.url));
        let discoveries = self.discoveries.iter().map(|it| (&it.place.file, &it.id, &it.url_source, &it.url));
        for (file, name, source, url) in databases.chain(discoveries) {
            if *source == UrlSource::Inline && database::has_password(url) {
                holders.entry(file).or_default().push(name);
            }
        }
        let is_open =
            |file: &str| fs::metadata(file).is_ok_and(|file| file.permissions().mode() & 0o004 != 0);
        let warning = |(file, names): (&str, Vec<&str>)| {
            let names = names.join(", ");
            format!(
                "{file} holds the password of {names} and every user of this machine can read it: \
                 chmod 600 {file}, or use url_env or url_file"
            )
        };
        let warnings: Vec<_> = holders.into_iter().filter(|(file, _)| is_open(file)).map(warning).collect();
        self.warnings.extend(warnings);
    }
}

/// The process's environment, without what is not UTF-8.
pub fn process_environment() -> impl Iterator<Item = (String, String)> {
    std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
}

/// Reads a section of the file, with the flags and the environment over it.
fn group<'a, G: Default>(
    reader: &mut Reader<'a>,
    root: &Section<'a>,
    name: &'static str,
    keys: &[&str],
    read: impl Fn(&mut Reader<'_>, &[Layer<'_>], &G) -> G,
) -> G {
    let section = reader.section(root, name);
    reader.only(&section, keys, home);
    read(reader, &[Layer::Flags(name), Layer::Environment(name), Layer::File(&section)], &G::default())
}

/// Every setting's name in the environment.
fn variables() -> Vec<String> {
    let groups = [
        ("server", ServerConfig::KEYS),
        ("access", AccessConfig::KEYS),
        ("log", LogConfig::KEYS),
        ("limits", Limits::KEYS),
        ("watch", WatchConfig::KEYS),
        ("alerts", AlertsConfig::KEYS),
        ("telemetry", TelemetryConfig::KEYS),
        ("control", ControlSettings::KEYS),
        ("defaults", DatabaseSettings::KEYS),
    ];
    groups
        .into_iter()
        .flat_map(|(section, keys)| keys.iter().map(move |key| variable(section, key)))
        .collect()
}
