//! The databases that the daemon knows.

use std::{
    collections::{BTreeMap, HashMap},
    path::PathBuf,
    sync::Arc,
    time::Duration,
};

use tokio::sync::{Mutex, MutexGuard, Semaphore, SemaphorePermit};
use uuid::Uuid;

use crate::{
    engine::{self, Database, Depth, Run},
    fleet::selector::{Need, Selection},
    migration::{Catalog, Code, EventKind, Failure, Observation, catalog::CatalogResult},
    source::Directory,
};

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
    server_looks: Arc<Semaphore>,
    /// Held by whoever works on it in this process: a session may take its own advisory lock again,
    /// and waiting here costs the server nothing. Holds the operation.
    busy: Mutex<Option<Uuid>>,
}

/// All databases, by name.
#[derive(Default)]
pub struct Inventory {
    members: BTreeMap<String, Arc<Member>>,
    labels: BTreeMap<String, BTreeMap<String, String>>,
    servers: HashMap<String, Places>,
}

/// How many databases of one server may be worked on, and looked at, at once.
struct Places {
    work: Arc<Semaphore>,
    looks: Arc<Semaphore>,
}

impl Places {
    fn new(count: usize) -> Self {
        let places = || Arc::new(Semaphore::new(count.max(1)));
        Self { work: places(), looks: places() }
    }
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
        let places = self.servers.entry(server.clone()).or_insert_with(|| Places::new(per_server));
        let (server_places, server_looks) = (places.work.clone(), places.looks.clone());
        let name = database.name.clone();
        self.labels.insert(name.clone(), labels.clone());
        let member = Member {
            database: Arc::new(database),
            directory,
            migrations,
            labels,
            server,
            server_places,
            server_looks,
            busy: Mutex::default(),
        };
        self.members.insert(name, Arc::new(member));
    }

    /// All of them, in the order of their names.
    pub fn members(&self) -> impl Iterator<Item = &Arc<Member>> {
        self.members.values()
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
        let directory = self.directory.clone();
        let read: Result<Result<Arc<Catalog>, Failure>, _> =
            tokio::task::spawn_blocking(move || directory.snapshot()).await;
        read.map_err(|_| Failure::new(Code::Internal, "Reading the directory ended unexpectedly"))?
    }

    /// Looks at it once. Those who look wait for each other, and never for those who work.
    pub(super) async fn observe(
        &self,
        catalog: &CatalogResult,
        pending_limit: Duration,
        depth: Depth,
    ) -> Observation {
        // The semaphore is never closed; without a place, a look would still only be a look.
        let _place = self.server_looks.acquire().await;
        engine::observe(&self.database, catalog, pending_limit, depth).await
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
        tokio::select! {
            guard = self.busy.lock() => Ok(Busy::new(guard, run)),
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
