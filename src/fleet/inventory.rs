//! The databases that the daemon knows.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    path::PathBuf,
    sync::Arc,
    time::Duration,
};

use tokio::{
    sync::{Mutex, MutexGuard, Semaphore, SemaphorePermit, watch},
    time::Instant,
};
use uuid::Uuid;

use crate::{
    engine::{Compared, Database, Run},
    fleet::{
        monitor::Counters,
        selector::{Need, Selection},
    },
    migration::{Catalog, Code, EventKind, Failure, catalog::CatalogResult},
    source::Directory,
};

/// How long a look waits for the directory: a file system may hang.
const DIRECTORY_LIMIT: Duration = Duration::from_secs(10);

/// One database of the fleet.
pub struct Member {
    /// The database, as the engine knows it.
    pub database: Arc<Database>,
    /// Its migration directory, shared by all that use the same one.
    pub directory: Arc<Directory>,
    /// Where that is.
    pub migrations: PathBuf,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// Its server, for people: host and port, or the socket's directory.
    pub server: String,
    /// Bounds how many databases of the same server are worked on at once.
    server_places: Arc<Semaphore>,
    /// Bounds how many databases of the same server are looked at at once.
    pub(super) looks: Arc<Looks>,
    /// When the monitor was last asked to look at it.
    pub(super) nudged: watch::Sender<Instant>,
    /// Held by whoever works on it in this process: a session may take its own advisory lock again,
    /// and waiting here costs the server nothing. Holds the operation.
    busy: Mutex<Option<Uuid>>,
}

/// All databases, by name.
#[derive(Default)]
pub struct Inventory {
    members: BTreeMap<String, Arc<Member>>,
    labels: BTreeMap<String, BTreeMap<String, String>>,
    servers: HashMap<String, Server>,
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
}

/// The places of one server.
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

impl Inventory {
    /// Adds a database; at most `per_server` databases of one server are worked on at once.
    pub fn add(
        &mut self,
        database: Database,
        directory: Arc<Directory>,
        migrations: PathBuf,
        labels: BTreeMap<String, String>,
        server: String,
        per_server: usize,
    ) {
        let places = self.servers.entry(server.clone()).or_insert_with(|| Server::new(per_server));
        let (server_places, looks) = (places.work.clone(), places.looks.clone());
        if database.keeps_looks {
            looks.counters.offer(database.looks.clone());
        }
        let name = database.name.clone();
        self.labels.insert(name.clone(), labels.clone());
        let member = Member {
            database: Arc::new(database),
            directory,
            migrations,
            labels,
            server,
            server_places,
            looks,
            nudged: watch::Sender::new(Instant::now()),
            busy: Mutex::default(),
        };
        self.members.insert(name, Arc::new(member));
    }

    /// All of them, in the order of their names.
    pub fn members(&self) -> impl Iterator<Item = &Arc<Member>> {
        self.members.values()
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

    /// Those that a request means, in the order of their names.
    pub fn select(&self, selection: &Selection, need: Need) -> Result<Vec<Arc<Member>>, Failure> {
        let names = selection.resolve(&self.labels, need)?;
        Ok(names.into_iter().filter_map(|name| self.members.get(name).cloned()).collect())
    }
}

impl Member {
    /// Its name.
    pub fn name(&self) -> &str {
        &self.database.name
    }

    /// The directory as it is now: what has not changed is not read again.
    pub async fn catalog(&self) -> CatalogResult {
        self.directory.load().await
    }

    /// The catalog to compare the database with: the directory's as it is now or, while that cannot
    /// be read, the last good one and why. For looking only: what changes a database needs
    /// [`Self::catalog`].
    pub async fn compared_with(&self) -> Compared {
        let read = tokio::time::timeout(DIRECTORY_LIMIT, self.catalog());
        match read.await.unwrap_or_else(|_| Err(self.silent_directory())) {
            Ok(catalog) => Ok((catalog, None)),
            Err(failure) => match self.last_good() {
                Some(catalog) => Ok((catalog, Some(failure))),
                None => Err(failure),
            },
        }
    }

    fn silent_directory(&self) -> Failure {
        let (path, seconds) = (self.migrations.display(), DIRECTORY_LIMIT.as_secs());
        Failure::new(Code::DirectoryUnreadable, format!("{path} could not be read in {seconds} s"))
    }

    /// The last catalog of its directory that could be read.
    pub fn last_good(&self) -> Option<Arc<Catalog>> {
        self.directory.last_good()
    }

    /// Has the monitor look at it now: something may have changed.
    pub(super) fn nudge(&self, at: Instant) {
        self.nudged.send_replace(at);
    }

    /// Waits for a place among those who work on the same server.
    pub(super) async fn place(&self, run: &Run) -> Result<SemaphorePermit<'_>, Failure> {
        if let Ok(place) = self.server_places.try_acquire() {
            return Ok(place);
        }
        let message = "waits until other databases of the same server are done".to_owned();
        run.events.emit(self.name(), EventKind::Notice { version: None, message });
        tokio::select! {
            place = self.server_places.acquire() => {
                place.map_err(|_| Failure::new(Code::Internal, "The server's places were closed"))
            }
            () = run.stop.drain.cancelled() => Err(Failure::new(Code::Cancelled, "The operation was cancelled")),
        }
    }

    /// Waits until nobody else in this process works on it, as long as a run waits for its lock.
    pub(super) async fn busy(&self, run: &Run) -> Result<Busy<'_>, Failure> {
        let held = || {
            let holder = self.busy.try_lock().ok().and_then(|holder| *holder);
            holder
                .map_or_else(|| "another operation of this daemon".to_owned(), |id| format!("operation {id}"))
        };
        if let Ok(guard) = self.busy.try_lock() {
            return Ok(Busy::new(guard, run));
        }
        run.events.emit(self.name(), EventKind::LockWaiting { holder: held() });
        let started = Instant::now();
        tokio::select! {
            guard = self.busy.lock() => {
                run.events.emit(self.name(), EventKind::LockTaken { waited: started.elapsed() });
                Ok(Busy::new(guard, run))
            }
            () = tokio::time::sleep(run.database.lock_wait) => {
                Err(Failure::new(Code::LockHeld, "Another run holds the database's lock").details(vec![format!("held by {}", held())]))
            }
            () = run.stop.drain.cancelled() => Err(Failure::new(Code::Cancelled, "The operation was cancelled")),
        }
    }
}

/// Held by the one who works on a database.
pub(super) struct Busy<'a> {
    _guard: MutexGuard<'a, Option<Uuid>>,
}

impl<'a> Busy<'a> {
    fn new(mut guard: MutexGuard<'a, Option<Uuid>>, run: &Run) -> Self {
        *guard = Some(run.author.operation);
        Self { _guard: guard }
    }
}
