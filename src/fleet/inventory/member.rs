//! One database of the fleet: its directory, its places, and what was seen of it last.

use std::{
    collections::BTreeMap,
    path::PathBuf,
    sync::{Arc, Mutex as StdMutex, PoisonError},
    time::Duration,
};

use jiff::Timestamp;
use tokio::{
    sync::{Mutex, OwnedMutexGuard, Semaphore, SemaphorePermit, watch},
    time::Instant,
};
use uuid::Uuid;

use crate::{
    engine::{Compared, Database, Run},
    fleet::inventory::Looks,
    migration::{
        Catalog, Code, Counts, EventKind, Failure, FindingKind, Observation, Version, catalog::CatalogResult,
    },
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
    /// and waiting here costs the server nothing. Holds the operation. It outlives the member where
    /// its settings change.
    pub(super) busy: Arc<Mutex<Option<Uuid>>>,
    /// What the monitor and audits saw of it last.
    pub(super) last_look: StdMutex<LastLook>,
}

/// What was last seen of a database.
#[derive(Debug, Clone, Default)]
pub struct LastLook {
    /// When it was looked at; `None` where it was not yet.
    pub at: Option<Timestamp>,
    /// Why it did not answer then.
    pub unreachable: Option<String>,
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

    /// What was seen of it last.
    pub fn last_look(&self) -> LastLook {
        self.last_look.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Remembers a look. What it could not tell stays as it was.
    pub(in crate::fleet) fn note_look(&self, observation: &Observation) {
        if observation.unknown.contains(&FindingKind::DatabaseUnreachable) {
            return;
        }
        let mut seen = self.last_look.lock().unwrap_or_else(PoisonError::into_inner);
        seen.at = Some(observation.time);
        let mut findings = observation.findings.iter();
        let unreachable = findings.find(|finding| finding.kind == FindingKind::DatabaseUnreachable);
        seen.unreachable = unreachable.map(|finding| finding.message.clone());
        if let Some(counts) = observation.counts {
            seen.rows = Some(Rows { at: observation.time, counts, newest: observation.newest.clone() });
        }
    }

    /// Has the monitor look at it now: something may have changed.
    pub(in crate::fleet) fn nudge(&self, at: Instant) {
        self.nudged.send_replace(at);
    }

    /// Waits for a place among those who work on the same server.
    pub(in crate::fleet) async fn place(&self, run: &Run) -> Result<SemaphorePermit<'_>, Failure> {
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
    pub(in crate::fleet) async fn busy(&self, run: &Run) -> Result<Busy, Failure> {
        let held = || {
            let holder = self.busy.try_lock().ok().and_then(|holder| *holder);
            holder
                .map_or_else(|| "another operation of this daemon".to_owned(), |id| format!("operation {id}"))
        };
        if let Ok(guard) = self.busy.clone().try_lock_owned() {
            return Ok(Busy::new(guard, run));
        }
        run.events.emit(self.name(), EventKind::LockWaiting { holder: held() });
        let started = Instant::now();
        tokio::select! {
            guard = self.busy.clone().lock_owned() => {
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
pub(in crate::fleet) struct Busy {
    _guard: OwnedMutexGuard<Option<Uuid>>,
}

impl Busy {
    fn new(mut guard: OwnedMutexGuard<Option<Uuid>>, run: &Run) -> Self {
        *guard = Some(run.author.operation);
        Self { _guard: guard }
    }
}
