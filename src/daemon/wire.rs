//! From the configuration to the fleet.

use std::{collections::HashMap, path::PathBuf, sync::Arc};

use anyhow::Context as _;

use crate::{
    config::{self, AuditConfig, Config, DatabaseConfig, DatabaseSettings},
    engine::{Database, Durability},
    fleet::{
        Overlap,
        audit::Scheduled,
        inventory::Inventory,
        schedule::Schedule,
        selector::{Need, Selection},
    },
    migration::{failure::Kind, plan, version},
    postgres::{
        Target, look,
        names::Names,
        pool::Pool,
        session::{Limits, startup_settings},
    },
    redact::ExposeSecret as _,
    source::{Directory, MissingDown, Options},
    telemetry::traces,
};

/// The most connections that one database's runs need: the run's own, one that looks at it from
/// beside, and a few for reading.
const CONNECTIONS_PER_DATABASE: usize = 4;

/// What the configuration says of traces.
pub(super) fn traces(config: &config::TelemetryConfig) -> traces::Settings {
    let config::TelemetryConfig { endpoint, sample_ratio, sql_text } = config.clone();
    traces::Settings { endpoint, sample_ratio, sql_text }
}

/// What becomes of operations about the same database.
pub(super) fn overlap(config: &Config) -> Overlap {
    match config.limits.overlap {
        config::Overlap::Queue => Overlap::Queue,
        config::Overlap::Refuse => Overlap::Refuse,
    }
}

/// Makes the fleet that a configuration describes. Nothing is connected to.
pub(super) fn inventory(config: &Config) -> anyhow::Result<Inventory> {
    anyhow::ensure!(
        !config.databases.is_empty(),
        "the configuration has no [[database]]: there is nothing to serve; deploy/nexus.toml shows one"
    );
    let mut inventory = Inventory::default();
    let mut looks = Looks::new(config);
    let mut directories: HashMap<(PathBuf, String), Arc<Directory>> = HashMap::new();
    for database in &config.databases {
        let settings = &database.settings;
        let options = options(settings);
        let directory = directories
            .entry((settings.migrations.clone(), format!("{options:?}")))
            .or_insert_with(|| Arc::new(Directory::new(settings.migrations.clone(), options)))
            .clone();
        let target = Target::parse(&database.url)
            .with_context(|| format!("[[database]] {}: the URL is wrong", database.name))?;
        let server = target.server();
        let per_server = config.limits.max_connections_per_server as usize;
        inventory.add(
            self::database(database, target, &mut looks),
            directory,
            settings.migrations.clone(),
            database.labels.clone(),
            server,
            per_server,
        );
    }
    Ok(inventory)
}

/// Reads the scheduled audits. One that would look at no database is worth a warning: its databases
/// may yet come.
pub(super) fn audits(config: &Config, inventory: &Inventory) -> anyhow::Result<Vec<Scheduled>> {
    let scheduled = |audit: &AuditConfig| {
        let name = audit.name.clone();
        let schedule = Schedule::parse(&audit.schedule, &audit.time_zone)
            .with_context(|| format!("[[audit]] {name}"))?;
        let (databases, labels) = (audit.databases.clone(), audit.selector.clone());
        let selection = Selection { databases, labels, all: false };
        match inventory.select(&selection, Need::Any) {
            Err(failure) if failure.code.kind() == Kind::NotFound => {
                tracing::warn!(audit = name, %failure, "the audit will not be made");
            }
            selected => {
                selected.with_context(|| format!("[[audit]] {name}: the selection is wrong"))?;
            }
        }
        Ok(Scheduled { name, schedule, selection })
    };
    config.audits.iter().map(scheduled).collect()
}

/// The connections of those who look: one pool for each URL, of which only so many keep theirs open.
struct Looks<'a> {
    pools: HashMap<&'a str, (Pool, bool)>,
    /// How many more may be kept open, in all and of each server.
    left: usize,
    of_servers: HashMap<String, usize>,
    per_server: usize,
}

impl<'a> Looks<'a> {
    /// One half of what is allowed is kept open; the other is for those that are opened for a look.
    fn new(config: &'a Config) -> Self {
        Self {
            pools: HashMap::new(),
            left: config.watch.max_connections as usize / 2,
            of_servers: HashMap::new(),
            per_server: config.limits.max_connections_per_server as usize / 2,
        }
    }

    fn pool(&mut self, url: &'a str, target: &Target) -> (Pool, bool) {
        let (pools, of_servers) = (&mut self.pools, &mut self.of_servers);
        let (left, per_server) = (&mut self.left, self.per_server);
        let made = pools.entry(url).or_insert_with(|| {
            let of_server = of_servers.entry(target.server()).or_insert(per_server);
            let is_kept = *left > 0 && *of_server > 0;
            *left -= usize::from(is_kept);
            *of_server -= usize::from(is_kept);
            // As many as look at one server's databases at once: nobody waits for a connection.
            (Pool::new(target.clone(), look::startup_settings(), per_server.max(1)), is_kept)
        });
        made.clone()
    }
}

fn database<'a>(config: &'a DatabaseConfig, target: Target, looks: &mut Looks<'a>) -> Database {
    let settings = &config.settings;
    let names = Names::new(&settings.schema, &settings.table);
    let limits = Limits {
        lock_timeout: settings.lock_timeout,
        statement_timeout: settings.statement_timeout,
        idle_in_transaction_timeout: settings.idle_in_transaction_timeout,
        connect_timeout: settings.connect_timeout,
    };
    let dbname = target.dbname().to_owned();
    let (looks, keeps_looks) = looks.pool(config.url.expose_secret(), &target);
    let pool = Pool::new(target, startup_settings(&limits, &names), CONNECTIONS_PER_DATABASE);
    Database {
        name: config.name.clone(),
        dbname,
        names,
        pool,
        looks,
        keeps_looks,
        notifies: settings.watch == config::Watch::Notify,
        policy: policy(settings),
        limits,
        lock_wait: settings.lock_wait,
        lock_retries: settings.lock_retries as usize,
        durability: match settings.durability {
            config::Durability::Run => Durability::Run,
            config::Durability::Each => Durability::Each,
        },
    }
}

fn policy(settings: &DatabaseSettings) -> plan::Policy {
    let tolerance = |policy| match policy {
        config::Policy::Deny => plan::Tolerance::Deny,
        config::Policy::Warn => plan::Tolerance::Warn,
        config::Policy::Allow => plan::Tolerance::Allow,
    };
    plan::Policy {
        out_of_order: tolerance(settings.out_of_order),
        missing_file: tolerance(settings.missing_file),
        recovery: match settings.recovery {
            config::Recovery::Evidence => plan::Recovery::Evidence,
            config::Recovery::Down => plan::Recovery::Down,
            config::Recovery::Off => plan::Recovery::Off,
        },
    }
}

fn options(settings: &DatabaseSettings) -> Options {
    Options {
        naming: match settings.naming {
            config::Naming::Strict => version::Naming::Strict,
            config::Naming::Relaxed => version::Naming::Relaxed,
        },
        recursive: settings.recursive,
        missing_down: match settings.missing_down {
            config::MissingDown::Warn => MissingDown::Warn,
            config::MissingDown::Error => MissingDown::Error,
        },
        max_file_size: settings.max_file_size,
    }
}
