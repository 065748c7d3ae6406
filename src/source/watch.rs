//! Watching migration directories: each change is told as soon as the files are quiet.
//!
//! inotify only says that something has happened; a snapshot says what. So nothing depends on its
//! events being complete: a directory is also looked at from time to time without any.

mod files;
mod places;

pub use files::FileWatch;

use std::{
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use notify_debouncer_full::{
    DebounceEventResult, DebouncedEvent, Debouncer, RecommendedCache, new_debouncer,
    notify::{self, ErrorKind, RecommendedWatcher, RecursiveMode},
};
use tokio::{sync::Notify, time::timeout};
use tokio_util::sync::CancellationToken;

use crate::{
    migration::{Catalog, EventKind, EventSink, Failure, catalog::CatalogResult, event::CatalogChange},
    source::{Directory, watch::places::Places},
};

/// How long inotify's events are gathered, and how often they are looked through.
const GATHER: Duration = Duration::from_millis(100);
const TICK: Duration = Duration::from_millis(50);

/// How long nothing more may happen before a directory is looked at: whoever copies a set of files
/// is done then.
const QUIET: Duration = Duration::from_millis(250);

/// How long it may take to become quiet: somebody who writes without pause must not hide all.
const LONGEST: Duration = Duration::from_secs(2);

/// One inotify instance for all directories, of which a user may have only a few.
#[derive(Clone)]
pub struct Watcher {
    inotify: Arc<Mutex<Inotify>>,
    bells: Arc<Mutex<Vec<Arc<Bell>>>>,
}

/// Rings when something has happened in certain places.
#[derive(Default)]
struct Bell {
    places: Mutex<Places>,
    rung: Notify,
}

struct Inotify {
    /// `None` where the system gives none.
    debouncer: Option<Debouncer<RecommendedWatcher, RecommendedCache>>,
    has_warned: bool,
}

impl Watcher {
    /// A watcher of nothing yet. Without inotify it only polls.
    #[allow(clippy::new_without_default, reason = "it takes hold of system resources")]
    pub fn new() -> Self {
        let bells: Arc<Mutex<Vec<Arc<Bell>>>> = Arc::default();
        let handler = {
            let bells = bells.clone();
            move |happened: DebounceEventResult| ring(&lock(&bells), &happened)
        };
        let mut inotify = Inotify { debouncer: None, has_warned: false };
        match new_debouncer(GATHER, Some(TICK), handler) {
            Ok(debouncer) => inotify.debouncer = Some(debouncer),
            Err(error) => inotify.warn(&error),
        }
        Self { inotify: Arc::new(Mutex::new(inotify)), bells }
    }

    /// Watches a directory until `stop`, and tells what changes in it, or why it cannot be read. It
    /// is looked at when inotify says so, and every `poll`.
    pub async fn watch(
        self,
        directory: Arc<Directory>,
        poll: Duration,
        events: Arc<dyn EventSink>,
        stop: CancellationToken,
    ) {
        let bell = Arc::new(Bell::default());
        lock(&self.bells).push(bell.clone());
        let mut told = Told::default();
        while !stop.is_cancelled() {
            // First the watch, then the look: what happens in between rings the bell.
            let arm = {
                let (watcher, directory, bell) = (self.clone(), directory.clone(), bell.clone());
                tokio::task::spawn_blocking(move || watcher.arm(&directory, &bell))
            };
            let look = async {
                // If it cannot be armed, this look and the poll are what remains.
                let _ = arm.await;
                directory.load().await
            };
            tokio::select! {
                read = look => {
                    let name = directory.path().display().to_string();
                    if let Some(kind) = told.take(name, read) {
                        events.emit("", kind);
                    }
                }
                () = stop.cancelled() => break,
            }
            tokio::select! {
                () = bell.rung_out() => {}
                () = tokio::time::sleep(poll) => {}
                () = stop.cancelled() => break,
            }
        }
        // The daemon may end before it is done: then the watches end with it.
        let _ = tokio::task::spawn_blocking(move || self.leave(&bell)).await;
    }

    /// Has inotify watch what the directory's path depends on now. A place that it watches already
    /// may be another directory of the same path: it is asked for again.
    fn arm(&self, directory: &Directory, bell: &Bell) {
        self.arm_places(&Places::of(directory.path()), directory.options().recursive, bell);
    }

    fn arm_places(&self, places: &Places, is_recursive: bool, bell: &Bell) {
        let now = places.watched();
        let before = std::mem::replace(&mut *lock(&bell.places), places.clone()).watched();
        let mut inotify = lock(&self.inotify);
        for place in before.difference(&now).filter(|place| !self.is_needed(place)) {
            inotify.unwatch(place);
        }
        for place in &now {
            inotify.watch(place, is_recursive && places.is_inside(place));
        }
    }

    fn is_needed(&self, place: &PathBuf) -> bool {
        lock(&self.bells).iter().any(|bell| lock(&bell.places).watched().contains(place))
    }

    /// Ends to watch for a bell.
    fn leave(&self, bell: &Arc<Bell>) {
        lock(&self.bells).retain(|other| !Arc::ptr_eq(other, bell));
        let places = lock(&bell.places).watched();
        let mut inotify = lock(&self.inotify);
        for place in places.iter().filter(|place| !self.is_needed(place)) {
            inotify.unwatch(place);
        }
    }
}

impl Bell {
    /// Waits until something has happened, and for a while nothing more.
    async fn rung_out(&self) {
        self.rung.notified().await;
        let more = async { while timeout(QUIET, self.rung.notified()).await.is_ok() {} };
        // Quiet or not, it is time to look.
        let _ = timeout(LONGEST, more).await;
    }
}

impl Inotify {
    fn watch(&mut self, place: &PathBuf, is_recursive: bool) {
        let mode = if is_recursive { RecursiveMode::Recursive } else { RecursiveMode::NonRecursive };
        let Some(debouncer) = &mut self.debouncer else { return };
        match debouncer.watch(place, mode) {
            Err(error) if !is_gone(&error) => self.warn(&error),
            // What is gone left a trace in the directory above it, which is watched too.
            Ok(()) | Err(_) => {}
        }
    }

    fn unwatch(&mut self, place: &PathBuf) {
        if let Some(debouncer) = &mut self.debouncer {
            // inotify gives up what is deleted by itself.
            let _ = debouncer.unwatch(place);
        }
    }

    fn warn(&mut self, error: &notify::Error) {
        if !std::mem::replace(&mut self.has_warned, true) {
            tracing::warn!(%error, "not every migration directory can be watched; they are polled");
        }
    }
}

fn is_gone(error: &notify::Error) -> bool {
    match &error.kind {
        ErrorKind::PathNotFound => true,
        ErrorKind::Io(error) => error.kind() == std::io::ErrorKind::NotFound,
        _ => false,
    }
}

/// Rings the bells of those whom it concerns; where it is not known whom, all of them.
fn ring(bells: &[Arc<Bell>], happened: &DebounceEventResult) {
    let concerns = |event: &DebouncedEvent, places: &Places| {
        // That a file was opened or read is no change: the looks do that themselves.
        event.need_rescan()
            || (!event.kind.is_access() && event.paths.iter().any(|path| places.concern(path)))
    };
    for bell in bells {
        let is_meant = match happened {
            Ok(events) => events.iter().any(|event| concerns(event, &lock(&bell.places))),
            Err(_) => true,
        };
        if is_meant {
            bell.rung.notify_one();
        }
    }
}

/// What was told of a directory last.
#[derive(Default)]
struct Told {
    catalog: Option<Arc<Catalog>>,
    failure: Option<Failure>,
}

impl Told {
    /// What is new in what was read. The first catalog is none: nothing was there to change.
    fn take(&mut self, directory: String, read: CatalogResult) -> Option<EventKind> {
        match read {
            Ok(catalog) => {
                let had_failed = self.failure.take().is_some();
                let old = match self.catalog.replace(catalog.clone()) {
                    Some(old) => old,
                    None if had_failed => Arc::default(),
                    None => return None,
                };
                let change = CatalogChange::between(directory, &old, &catalog);
                (had_failed || !change.is_empty()).then_some(EventKind::CatalogChanged(change))
            }
            Err(failure) if self.failure.as_ref() == Some(&failure) => None,
            Err(failure) => {
                self.failure = Some(failure.clone());
                Some(EventKind::CatalogFailed { directory, failure: Box::new(failure) })
            }
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
