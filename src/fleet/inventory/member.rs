//! One database of the fleet: its directory, its places, and what was seen of it last.

use std::{
    collections::BTreeMap,
    path::PathBuf,
    sync::{Arc, Mutex as StdMutex, MutexGuard, PoisonError},
    time::Duration,
};

use jiff::Timestamp;
use tokio::{
    sync::{Mutex, OwnedMutexGuard, Semaphore, SemaphorePermit, watch},
    time::Instant,
};
use uuid::Uuid;

use crate::{
    engine::{Compared, Database, Glance, Run},
    fleet::{
        inventory::{Looks, load::Loaded},
        monitor::Sight,
    },
    migration::{Catalog, Code, Counts, EventKind, Failure, Observation, Version, catalog::CatalogResult},
    selector::Facts,
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
    pub(super) server_places: Arc<Semaphore>,
    /// Bounds how many databases of the same server are looked at at once.
    pub(in crate::fleet) looks: Arc<Looks>,
    /// When the monitor was last asked to look at it.
    pub(in crate::fleet) nudged: watch::Sender<Instant>,
    /// Held by whoever works on it in this process: a session may take its own advisory lock again,
    /// and waiting here costs the server nothing. It outlives the member where its settings change.
    pub(super) hold: Arc<Hold>,
    /// What the monitor saw of it last.
    pub(super) seen: StdMutex<Arc<Seen>>,
    /// What is known of it from one look to the next.
    pub(in crate::fleet) sight: Mutex<Sight>,
}

/// What was last seen of a database.
#[derive(Debug, Clone, Default)]
pub struct Seen {
    /// The last look that could tell at least whether the database answers; `None` before the first.
    pub last: Option<Observation>,
    /// The versions that it saw; `None` where it could not read them.
    pub glance: Option<Arc<Glance>>,
    /// What its rows said when they could last be compared with its directory.
    pub rows: Option<Rows>,
}

/// What the rows of a database said.
#[derive(Debug, Clone)]
pub struct Rows {
    /// When.
    pub at: Timestamp,
    /// How many of each kind.
    pub counts: Counts,
    /// The newest that is applied.
    pub newest: Option<Version>,
}

/// Whose turn it is to work on a database.
#[derive(Debug, Default)]
pub(super) struct Hold {
    turn: Arc<Mutex<()>>,
    /// The operation whose turn it is: whoever waits is told.
    holder: StdMutex<Option<Uuid>>,
}

impl Hold {
    fn holder(&self) -> MutexGuard<'_, Option<Uuid>> {
        self.holder.lock().unwrap_or_else(PoisonError::into_inner)
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

    /// What a selector may ask of it.
    pub fn facts(&self) -> Facts<'_> {
        let Database { name, dbname, names, .. } = &*self.database;
        Facts { name, server: &self.server, schema: &names.schema, dbname, labels: &self.labels }
    }

    /// Which database of which server it is, with its schema and its table: its name may come to mean
    /// another one.
    pub fn place_name(&self) -> String {
        let Database { dbname, names, .. } = &*self.database;
        format!("{}/{dbname} {}.{}", self.server, names.schema, names.table)
    }

    /// What was seen of it last.
    pub fn seen(&self) -> Arc<Seen> {
        self.last_seen().clone()
    }

    /// Remembers a look of the monitor's.
    pub(in crate::fleet) fn saw(&self, observation: &Observation, glance: Option<Arc<Glance>>) {
        let Observation { time: at, counts, ref newest, .. } = *observation;
        let rows = counts.map(|counts| Rows { at, counts, newest: newest.clone() });
        let mut seen = self.last_seen();
        let rows = rows.or_else(|| seen.rows.clone());
        *seen = Arc::new(Seen { last: Some(observation.clone()), glance, rows });
    }

    /// Shows what another daemon's monitor saw of it last.
    pub(in crate::fleet) fn show(&self, seen: &Arc<Seen>) {
        self.last_seen().clone_from(seen);
    }

    fn last_seen(&self) -> MutexGuard<'_, Arc<Seen>> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Has the monitor look at it now: something may have changed.
    pub(in crate::fleet) fn nudge(&self, at: Instant) {
        self.nudged.send_replace(at);
    }

    /// Waits for a place among those who work on the same server.
    pub(in crate::fleet) async fn place(&self, run: &Run) -> Result<Place<'_>, Failure> {
        let loaded = self.looks.load.enter();
        if let Ok(place) = self.server_places.try_acquire() {
            return Ok(Place { _place: place, _loaded: loaded });
        }
        let message = "waits until other databases of the same server are done".to_owned();
        run.events.emit(self.name(), EventKind::Notice { version: None, message });
        tokio::select! {
            place = self.server_places.acquire() => {
                let place = place.map_err(|_| Failure::new(Code::Internal, "The server's places were closed"))?;
                Ok(Place { _place: place, _loaded: loaded })
            }
            () = run.stop.drain.cancelled() => Err(Failure::new(Code::Cancelled, "The operation was cancelled")),
        }
    }

    /// A place among those who look at the same server, to read its rows for a request: whoever works
    /// there, maybe for hours, does not keep a reader waiting.
    pub(in crate::fleet) async fn reading_place(&self) -> Option<Place<'_>> {
        let loaded = self.looks.load.enter();
        // They are never closed; without a place, reading would still only be reading.
        let place = self.looks.places.acquire().await.ok()?;
        Some(Place { _place: place, _loaded: loaded })
    }

    /// A place among those who work on the same server, to ask a gate: its limit holds for them too.
    pub(in crate::fleet) async fn gate_place(&self) -> Option<SemaphorePermit<'_>> {
        // They are never closed; without a place, a question would still only be a question.
        self.server_places.acquire().await.ok()
    }

    /// Waits until nobody else in this process works on it, as long as a run waits for its lock.
    pub(in crate::fleet) async fn busy(&self, run: &Run) -> Result<Busy, Failure> {
        let held = || {
            let holder = *self.hold.holder();
            holder
                .map_or_else(|| "another operation of this daemon".to_owned(), |id| format!("operation {id}"))
        };
        if let Ok(turn) = self.hold.turn.clone().try_lock_owned() {
            return Ok(Busy::new(&self.hold, turn, run));
        }
        run.events.emit(self.name(), EventKind::LockWaiting { holder: held() });
        let started = Instant::now();
        tokio::select! {
            turn = self.hold.turn.clone().lock_owned() => {
                run.events.emit(self.name(), EventKind::LockTaken { waited: started.elapsed() });
                Ok(Busy::new(&self.hold, turn, run))
            }
            () = tokio::time::sleep(run.database.lock_wait) => {
                Err(Failure::new(Code::LockHeld, "Another run holds the database's lock").details(vec![format!("held by {}", held())]))
            }
            () = run.stop.drain.cancelled() => Err(Failure::new(Code::Cancelled, "The operation was cancelled")),
        }
    }
}

/// A place on a server; as long as somebody has one, or waits for it, the monitor's looks wait.
pub(in crate::fleet) struct Place<'a> {
    _place: SemaphorePermit<'a>,
    _loaded: Loaded<'a>,
}

/// Held by the one who works on a database.
pub(in crate::fleet) struct Busy {
    hold: Arc<Hold>,
    _turn: OwnedMutexGuard<()>,
}

impl Busy {
    fn new(hold: &Arc<Hold>, turn: OwnedMutexGuard<()>, run: &Run) -> Self {
        *hold.holder() = Some(run.author.operation);
        Self { hold: hold.clone(), _turn: turn }
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        *self.hold.holder() = None;
    }
}
