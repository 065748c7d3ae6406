//! From the configuration to the fleet.

use std::{collections::HashMap, num::NonZeroU32, path::PathBuf, sync::Arc};

use anyhow::Context as _;

use crate::{
    access::Permit,
    config::{
        self, AuditConfig, Config, ConfigError, DatabaseConfig, DatabaseSettings, DiscoverConfig, Problem,
    },
    control::Control,
    daemon::{accept::Terms, descriptors},
    engine::{Database, Durability, Witness},
    fleet::{
        self, Overlap,
        audit::Scheduled,
        discovery::{Discovery, Find, Found},
        inventory::{Inventory, Origin, Successor},
        schedule::Schedule,
        selector::{Need, Selection},
    },
    migration::{plan, version},
    postgres::{
        Target, look,
        names::Names,
        pool::{Pool, Warm},
        session::{Limits, startup_settings},
    },
    redact::ExposeSecret as _,
    rpc,
    selector::Pattern,
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

/// How the fleet works, by the configuration.
pub(super) fn fleet(
    config: &Config,
    gate: fleet::Gate,
    instance: String,
    control: Option<Arc<Control>>,
    witness: Witness,
) -> fleet::Settings {
    fleet::Settings {
        gate,
        witness,
        instance,
        max_parallel: config.limits.max_parallel as usize,
        pending_limit: config.watch.pending_limit,
        overlap: overlap(config),
        approval_limit: config.access.approval_limit,
        shared: control.map(|control| fleet::Shared::new(control, rpc::operation::encode())),
    }
}

/// What a listener's clients have.
pub(super) fn terms(limits: &config::Limits) -> Terms {
    Terms {
        most: descriptors::clients(limits.max_clients as usize, descriptors::raise()),
        most_of_one: limits.max_clients_per_address as usize,
        handshake: limits.handshake_timeout,
        max_age: limits.max_connection_age,
    }
}

/// How much is asked of the daemon at most.
pub(super) fn bounds(limits: &config::Limits) -> rpc::access::Bounds {
    rpc::access::Bounds {
        timeout: limits.request_timeout,
        // The configuration has none below 1.
        changes_per_minute: NonZeroU32::new(limits.max_changes_per_minute).unwrap_or(NonZeroU32::MIN),
    }
}

/// What becomes of operations about the same database.
fn overlap(config: &Config) -> Overlap {
    match config.limits.overlap {
        config::Overlap::Queue => Overlap::Queue,
        config::Overlap::Refuse => Overlap::Refuse,
    }
}

/// Makes sure of what the configuration itself does not know the meaning of.
pub(super) fn check(config: &Config) -> Result<(), ConfigError> {
    let mut problems = Vec::new();
    if config.databases.is_empty() && config.discoveries.is_empty() {
        let message = "the configuration has no [[database]] and no [[discover]]: there is nothing to serve; \
                       deploy/nexus.toml shows both";
        problems.push(Problem { place: None, message: message.to_owned() });
    }
    let databases = config.databases.iter().map(|it| (format!("database {:?}", it.name), &it.url, &it.place));
    let discoveries =
        config.discoveries.iter().map(|it| (format!("discover {:?}", it.id), &it.url, &it.place));
    for (what, url, place) in databases.chain(discoveries) {
        if let Err(error) = Target::parse(url) {
            let message = format!("{what}: the URL is wrong: {error}");
            problems.push(Problem { place: Some(place.clone()), message });
        }
    }
    if problems.is_empty() { Ok(()) } else { Err(ConfigError::Invalid(problems)) }
}

/// How databases are looked for.
pub(super) fn discovery(config: &DiscoverConfig) -> anyhow::Result<Discovery> {
    let patterns = |texts: &[String]| {
        let read = texts.iter().map(|text| Pattern::parse(text).map_err(anyhow::Error::msg));
        read.collect::<anyhow::Result<Vec<_>>>()
    };
    Ok(Discovery {
        id: config.id.clone(),
        target: Target::parse(&config.url)?,
        find: match &config.find {
            config::Find::Query(query) => Find::Query(query.clone()),
            config::Find::Databases(globs) => Find::Databases(patterns(globs)?),
            config::Find::Schemas(globs) => Find::Schemas(patterns(globs)?),
        },
        exclude: patterns(&config.exclude)?,
        name: config.name.clone(),
        schema: config.settings.schema.clone(),
        limit: config.limit as usize,
        timeout: config.timeout,
    })
}

/// Reads the scheduled audits.
pub(super) fn audits(config: &Config) -> anyhow::Result<Vec<Scheduled>> {
    let scheduled = |audit: &AuditConfig| {
        let name = audit.name.clone();
        let schedule = Schedule::parse(&audit.schedule, &audit.time_zone)
            .with_context(|| format!("[[audit]] {name}"))?;
        for glob in &audit.databases {
            let read = Pattern::parse(glob).map_err(anyhow::Error::msg);
            read.with_context(|| format!("[[audit]] {name}: {glob:?} is not a name or a glob"))?;
        }
        let (databases, labels) = (audit.databases.clone(), audit.selector.iter().cloned().collect());
        Ok(Scheduled { name, schedule, selection: Selection { databases, labels, all: false } })
    };
    config.audits.iter().map(scheduled).collect()
}

/// Warns of audits that would look at no database: its databases may yet come.
pub(super) fn warn_of_idle(audits: &[Scheduled], inventory: &Inventory) {
    for Scheduled { name, selection, .. } in audits {
        if let Err(failure) = inventory.select(selection, Need::Any, &Permit::of_the_daemon()) {
            tracing::warn!(audit = name, %failure, "the audit will not be made");
        }
    }
}

/// The inventory of the databases that the files name.
pub(super) fn named(config: &Config) -> anyhow::Result<Inventory> {
    let wanted = config.databases.iter().map(Wanted::named).collect::<anyhow::Result<Vec<_>>>()?;
    Ok(Wiring::new(config).next(&Inventory::default(), &wanted))
}

/// A database that is to be in the inventory.
#[derive(Clone)]
pub(super) struct Wanted {
    config: DatabaseConfig,
    target: Target,
    origin: Origin,
}

impl Wanted {
    /// One that a file names.
    pub(super) fn named(config: &DatabaseConfig) -> anyhow::Result<Self> {
        let place = &config.place;
        let origin = Origin::File(format!("{}:{}", place.file, place.line));
        Ok(Self { target: Target::parse(&config.url)?, config: config.clone(), origin })
    }

    /// One that was found.
    pub(super) fn found(entry: &DiscoverConfig, target: &Target, found: Found) -> Self {
        let Found { name, dbname, schema, labels: own } = found;
        let mut labels = entry.labels.clone();
        labels.extend(own);
        let config = DatabaseConfig {
            name,
            url: entry.url.clone(),
            url_source: entry.url_source.clone(),
            labels,
            settings: DatabaseSettings { schema, ..entry.settings.clone() },
            place: entry.place.clone(),
        };
        Self { config, target: target.with_dbname(dbname), origin: Origin::Discovery(entry.id.clone()) }
    }

    /// Its name in the fleet.
    pub(super) fn name(&self) -> &str {
        &self.config.name
    }

    /// Whether the same member is meant.
    fn is_same(&self, other: &Self) -> bool {
        self.config.is_same(&other.config) && self.target.dbname() == other.target.dbname()
    }

    /// What tells the connections of those who look apart.
    fn address(&self) -> String {
        format!("{}\0{}", self.config.url.expose_secret(), self.target.dbname())
    }
}

/// What one server keeps of the connections that nobody uses.
#[derive(Clone)]
struct Kept {
    /// Of those that operations and reads have used.
    runs: Warm,
    /// Of those that looks have used.
    looks: Warm,
}

impl Kept {
    fn of(per_server: usize) -> Self {
        Self { runs: Warm::of(per_server), looks: Warm::of((per_server / 2).max(1)) }
    }
}

/// Makes one inventory after another of what is wanted. Nothing is connected to.
pub(super) struct Wiring {
    per_server: usize,
    kept_looks: usize,
    wanted: HashMap<String, Wanted>,
    looks: HashMap<String, (Pool, bool)>,
    warm: HashMap<String, Kept>,
    directories: HashMap<(PathBuf, String), Arc<Directory>>,
}

impl Wiring {
    /// Nothing is wanted yet. The limits are those that the daemon was started with.
    pub(super) fn new(config: &Config) -> Self {
        Self {
            per_server: config.limits.max_connections_per_server as usize,
            // One half of what is allowed is kept open; the other is for those that are opened for a look.
            kept_looks: config.watch.max_connections as usize / 2,
            wanted: HashMap::new(),
            looks: HashMap::new(),
            warm: HashMap::new(),
            directories: HashMap::new(),
        }
    }

    /// The inventory of what is wanted, to come after another. Of several with one name, the first is
    /// taken.
    pub(super) fn next(&mut self, previous: &Inventory, wanted: &[Wanted]) -> Inventory {
        let mut next = Successor::of(previous, self.per_server);
        let before = std::mem::take(&mut self.wanted);
        let mut looks = self.looks_of(wanted);
        let (mut warm, mut directories) = (HashMap::new(), HashMap::new());
        for wanted in wanted {
            let name = wanted.name();
            if self.wanted.contains_key(name) {
                continue;
            }
            let settings = &wanted.config.settings;
            let options = options(settings);
            let key = (settings.migrations.clone(), format!("{options:?}"));
            let known = self.directories.get(&key).cloned();
            let directory = directories
                .entry(key)
                .or_insert_with(|| {
                    let new = || Arc::new(Directory::new(settings.migrations.clone(), options));
                    known.unwrap_or_else(new)
                })
                .clone();
            let server = wanted.target.server();
            let known = self.warm.get(&server).cloned();
            let warm = warm
                .entry(server.clone())
                .or_insert_with(|| known.unwrap_or_else(|| Kept::of(self.per_server)));
            let (pool, keeps) = looks.pool(wanted, warm);
            let is_same = before.get(name).is_some_and(|old| old.is_same(wanted));
            if !(is_same && next.keep(name, wanted.origin.clone())) {
                next.add(
                    database(wanted, &warm.runs, pool, keeps),
                    directory,
                    settings.migrations.clone(),
                    wanted.config.labels.clone(),
                    server,
                    wanted.origin.clone(),
                );
            }
            self.wanted.insert(name.to_owned(), wanted.clone());
        }
        (self.directories, self.looks, self.warm) = (directories, looks.pools, warm);
        next.done()
    }

    /// The pools of those who look: what is still wanted stays as it is, and counts.
    fn looks_of(&self, wanted: &[Wanted]) -> Looks {
        let per_server = self.per_server / 2;
        let mut looks =
            Looks { pools: HashMap::new(), left: self.kept_looks, of_servers: HashMap::new(), per_server };
        for wanted in wanted {
            let address = wanted.address();
            if let Some(known) = self.looks.get(&address)
                && looks.pools.insert(address, known.clone()).is_none()
                && known.1
            {
                looks.take_place(&wanted.target.server());
            }
        }
        looks
    }
}

/// The connections of those who look: one pool for each URL, of which only so many keep theirs open.
struct Looks {
    pools: HashMap<String, (Pool, bool)>,
    /// How many more may be kept open, in all and of each server.
    left: usize,
    of_servers: HashMap<String, usize>,
    per_server: usize,
}

impl Looks {
    fn pool(&mut self, wanted: &Wanted, warm: &Kept) -> (Pool, bool) {
        let address = wanted.address();
        if let Some(known) = self.pools.get(&address) {
            return known.clone();
        }
        let is_kept = self.take_place(&wanted.target.server());
        // As many as look at one server's databases at once: nobody waits for a connection.
        let (target, settings, most) =
            (wanted.target.clone(), look::startup_settings(), self.per_server.max(1));
        let pool = if is_kept {
            Pool::within(&warm.looks, target, settings, most)
        } else {
            Pool::new(target, settings, most)
        };
        self.pools.insert(address, (pool.clone(), is_kept));
        (pool, is_kept)
    }

    /// Takes one of the places that are left for connections that are kept open; says whether there was
    /// one.
    fn take_place(&mut self, server: &str) -> bool {
        let of_server = self.of_servers.entry(server.to_owned()).or_insert(self.per_server);
        let is_kept = self.left > 0 && *of_server > 0;
        self.left -= usize::from(is_kept);
        *of_server -= usize::from(is_kept);
        is_kept
    }
}

fn database(wanted: &Wanted, warm: &Warm, looks: Pool, keeps_looks: bool) -> Database {
    let Wanted { config, target, .. } = wanted;
    let settings = &config.settings;
    let names = Names::new(&settings.schema, &settings.table);
    let limits = Limits {
        lock_timeout: settings.lock_timeout,
        statement_timeout: settings.statement_timeout,
        idle_in_transaction_timeout: settings.idle_in_transaction_timeout,
        connect_timeout: settings.connect_timeout,
    };
    let dbname = target.dbname().to_owned();
    let settings_of_runs = startup_settings(&limits, &names);
    let pool = Pool::within(warm, target.clone(), settings_of_runs, CONNECTIONS_PER_DATABASE);
    Database {
        name: config.name.clone(),
        dbname,
        names,
        pool,
        looks,
        keeps_looks,
        notifies: settings.watch == config::Watch::Notify,
        is_protected: settings.protected,
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
        refuse_open: settings.protected,
    }
}
