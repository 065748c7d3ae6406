//! The databases that the daemon knows: a snapshot that never changes, and is replaced as a whole.
//!
//! What goes on over a replacement is handed on: a member whose settings are the same is the very same
//! one, with its connections; the places of a server stay those of the server; and whoever works on a
//! database keeps others of this process from it, also where its settings are others now.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    path::PathBuf,
    sync::{Arc, Mutex},
};

use tokio::{
    sync::{Semaphore, watch},
    time::Instant,
};

use crate::{
    access::Permit,
    engine::Database,
    fleet::{
        monitor::Counters,
        selector::{Need, Selection},
    },
    migration::{Failure, event::InventoryChange},
    postgres::Pool,
    selector::Facts,
    source::Directory,
};

mod load;
mod member;

use load::Load;
pub use member::{Member, Rows, Seen};

/// All databases, by name.
#[derive(Default)]
pub struct Inventory {
    members: BTreeMap<String, Entry>,
    servers: HashMap<String, Server>,
}

struct Entry {
    member: Arc<Member>,
    origin: Origin,
}

/// Where it is said that a database belongs to the fleet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// In a file of the configuration: `nexus.toml:12`.
    File(String),
    /// It was found by the discovery of this id.
    Discovery(String),
}

/// The places of those who look at one server's databases. Looking waits for nobody who works.
pub(super) struct Looks {
    /// How many databases are looked at at once.
    pub(super) places: Semaphore,
    /// How many of them may be such that did not answer the last time: a database that is silent
    /// keeps its place for seconds, and the others need theirs.
    pub(super) doubtful: Semaphore,
    /// What the server says of all its databases at once.
    pub(super) counters: Counters,
    /// Who is at work there, whom looks let go first.
    pub(super) load: Load,
}

/// The places of one server.
#[derive(Clone)]
struct Server {
    work: Arc<Semaphore>,
    looks: Arc<Looks>,
}

impl Server {
    fn new(per_server: usize) -> Self {
        let places = |count: usize| Semaphore::new(count.max(1));
        let looks = Looks {
            places: places(per_server / 2),
            doubtful: places(per_server / 4),
            counters: Counters::default(),
            load: Load::default(),
        };
        Self { work: Arc::new(places(per_server)), looks: Arc::new(looks) }
    }
}

/// The connections to one server.
#[derive(Debug, Clone, Copy, Default)]
pub struct Connections {
    /// Warm, and nobody uses them.
    pub idle: usize,
    /// In use: for reading, for looking, or for a run.
    pub in_use: usize,
}

/// An inventory that is being made, to come after another one.
pub struct Successor<'a> {
    previous: &'a Inventory,
    next: Inventory,
    per_server: usize,
}

impl<'a> Successor<'a> {
    /// An empty one; at most `per_server` databases of one server are worked on at once.
    pub fn of(previous: &'a Inventory, per_server: usize) -> Self {
        Self { previous, next: Inventory::default(), per_server }
    }

    /// Takes over a member as it is; says whether there was one of this name.
    pub fn keep(&mut self, name: &str, origin: Origin) -> bool {
        let Some(Entry { member, .. }) = self.previous.members.get(name) else { return false };
        drop(self.server(&member.server));
        self.next.members.insert(name.to_owned(), Entry { member: member.clone(), origin });
        true
    }

    /// Adds a database, or one whose settings have changed.
    pub fn add(
        &mut self,
        database: Database,
        directory: Arc<Directory>,
        migrations: PathBuf,
        labels: BTreeMap<String, String>,
        server: String,
        origin: Origin,
    ) {
        let places = self.server(&server);
        let predecessor = self.previous.get(&database.name);
        let is_same_place = |old: &&Arc<Member>| {
            let Database { dbname, names, .. } = &*old.database;
            old.server == server && *dbname == database.dbname && *names == database.names
        };
        let name = database.name.clone();
        let member = Member {
            directory,
            migrations,
            labels,
            server_places: places.work,
            looks: places.looks,
            nudged: watch::Sender::new(Instant::now()),
            hold: predecessor.map_or_else(Arc::default, |old| old.hold.clone()),
            seen: Mutex::new(predecessor.filter(is_same_place).map(|old| old.seen()).unwrap_or_default()),
            sight: tokio::sync::Mutex::default(),
            database: Arc::new(database),
            server,
        };
        self.next.members.insert(name, Entry { member: Arc::new(member), origin });
    }

    /// The places of a server: those that it had already.
    fn server(&mut self, server: &str) -> Server {
        let (known, per_server) = (self.previous.servers.get(server), self.per_server);
        let places = || known.cloned().unwrap_or_else(|| Server::new(per_server));
        self.next.servers.entry(server.to_owned()).or_insert_with(places).clone()
    }

    /// The inventory. From now on the counters of each server are read over its connections, and over
    /// nobody's that is gone: where none is kept open for looks, over one that is opened for it.
    pub fn done(self) -> Inventory {
        let mut kept: HashMap<&str, Vec<Pool>> = HashMap::new();
        let mut others: HashMap<&str, Pool> = HashMap::new();
        let mut seen = HashSet::new();
        for member in self.next.members() {
            let looks = &member.database.looks;
            if !member.database.keeps_looks {
                others.entry(&member.server).or_insert_with(|| looks.clone());
            } else if seen.insert(looks.identity()) {
                kept.entry(&member.server).or_default().push(looks.clone());
            }
        }
        for (server, places) in &self.next.servers {
            let other = || others.get(server.as_str()).cloned().into_iter().collect();
            places.looks.counters.ask(kept.remove(server.as_str()).unwrap_or_else(other));
        }
        self.next
    }
}

impl Inventory {
    /// All of them, in the order of their names.
    pub fn members(&self) -> impl Iterator<Item = &Arc<Member>> {
        self.members.values().map(|entry| &entry.member)
    }

    /// The database of a name.
    pub fn get(&self, name: &str) -> Option<&Arc<Member>> {
        self.members.get(name).map(|entry| &entry.member)
    }

    /// Where it is said that a database belongs to the fleet.
    pub fn origin(&self, name: &str) -> Option<&Origin> {
        self.members.get(name).map(|entry| &entry.origin)
    }

    /// How many connections each server has: those that nobody uses, and those in use.
    pub fn connections(&self) -> BTreeMap<&str, Connections> {
        let mut servers = BTreeMap::<&str, Connections>::new();
        // Databases that differ in their schema only share the connections of those who look.
        let mut counted = HashSet::new();
        for member in self.members() {
            let server = servers.entry(&member.server).or_default();
            for pool in [&member.database.pool, &member.database.looks] {
                if counted.insert(pool.identity()) {
                    let status = pool.status();
                    server.idle += status.available;
                    server.in_use += status.size.saturating_sub(status.available);
                }
            }
        }
        servers
    }

    /// Those that a request means, in the order of their names. What its caller may not see is not there;
    /// what they may see, and not do this to, is refused.
    pub fn select(
        &self,
        selection: &Selection,
        need: Need,
        permit: &Permit,
    ) -> Result<Vec<Arc<Member>>, Failure> {
        let seen = self.members().map(|member| member.facts()).filter(|facts| permit.sees(facts));
        let facts: Vec<Facts<'_>> = seen.collect();
        let names = selection.resolve(&facts, need)?;
        let members: Vec<_> = names.into_iter().filter_map(|name| self.get(name).cloned()).collect();
        permit.require(members.iter().map(|member| member.facts()))?;
        Ok(members)
    }

    /// What is another in this one than in the one before. Whether it is all that there should be is for
    /// those to say who made it.
    pub fn change_from(&self, before: &Self) -> InventoryChange {
        let names = |is_meant: &dyn Fn(&str, &Arc<Member>) -> bool| {
            let meant = self.members().filter(|member| is_meant(member.name(), member));
            meant.map(|member| member.name().to_owned()).collect()
        };
        let is_gone = |name: &&String| !self.members.contains_key(*name);
        InventoryChange {
            added: names(&|name, _| before.get(name).is_none()),
            changed: names(&|name, member| before.get(name).is_some_and(|old| !Arc::ptr_eq(old, member))),
            removed: before.members.keys().filter(is_gone).cloned().collect(),
            databases: self.members.keys().cloned().collect(),
            is_complete: false,
            is_valid: false,
        }
    }
}
