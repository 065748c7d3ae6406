//! The tasks that watch: one for each database of the inventory and one for each migration directory,
//! however many databases share it. They come and go with the inventory.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::{Arc, Mutex, PoisonError, atomic::Ordering},
    time::Duration,
};

use tokio::time::Instant;
use tokio_util::sync::DropGuard;
use uuid::Uuid;

use crate::{
    fleet::{
        Fleet,
        inventory::{Inventory, Member},
        monitor::{self, Places, Recent, listen},
    },
    migration::{
        EventKind, EventSink as _, Failure, Finding, FindingKind, Observation, event::InventoryChange,
    },
    source::{Directory, watch::Watcher},
};

/// How many details of what is wrong with the inventory are told.
const MOST_EVIDENCE: usize = 20;

/// What is watched now; nothing before the watching begins.
#[derive(Default)]
pub(super) struct Watching(Mutex<Watched>);

#[derive(Default)]
struct Watched {
    means: Option<Means>,
    /// Another daemon watches.
    is_idle: bool,
    members: BTreeMap<String, WatchedMember>,
    /// By the address of the directory, which is held and so is nobody else's.
    directories: HashMap<usize, WatchedDirectory>,
}

/// What the tasks share.
struct Means {
    poll: Duration,
    watcher: Watcher,
    places: Arc<Places>,
}

/// A database that is watched until this is dropped.
struct WatchedMember {
    member: Arc<Member>,
    _stop: DropGuard,
}

/// A directory that is watched until this is dropped, and the last reading of it.
struct WatchedDirectory {
    _directory: Arc<Directory>,
    recent: Arc<Recent>,
    _stop: DropGuard,
}

/// What is wrong with a part of what is read anew: the configuration, one discovery, or the files of those who
/// are let in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReloadFault {
    /// The file's name, the discovery's id, or the key that names the file.
    pub subject: String,
    /// What is wrong.
    pub failure: Failure,
}

impl Watched {
    /// Ends to watch what is not in an inventory.
    fn leave(&mut self, inventory: &Inventory) {
        let is_there = |name: &str, old: &Arc<Member>| {
            inventory.get(name).is_some_and(|member| Arc::ptr_eq(member, old))
        };
        self.members.retain(|name, old| is_there(name, &old.member));
        let used: BTreeSet<usize> = inventory.members().map(|member| address(&member.directory)).collect();
        self.directories.retain(|address, _| used.contains(address));
    }
}

impl Fleet {
    /// Watches every database and every migration directory of the inventory, as it is and as it will
    /// be, until the fleet shuts down; each on a `poll`, with at most `max_connections` for all
    /// databases. Also watches whether the log can be written.
    pub fn watch(self: &Arc<Self>, poll: Duration, max_connections: usize) {
        let mut watched = self.watching.0.lock().unwrap_or_else(PoisonError::into_inner);
        let places = Arc::new(Places::of(max_connections));
        watched.means = Some(Means { poll, watcher: Watcher::new(), places });
        self.follow(&mut watched, &self.inventory());
        self.tasks.spawn_vital("watch-log", monitor::watch_log(self.clone(), poll));
    }

    /// Watches from now on, or leaves it to another daemon. Whoever begins to also tells what is known of
    /// the daemon itself: those who are told may have heard of another one's only.
    pub fn lead(self: &Arc<Self>, leads: bool) {
        let mut watched = self.watching.0.lock().unwrap_or_else(PoisonError::into_inner);
        watched.is_idle = !leads;
        if leads {
            self.follow(&mut watched, &self.inventory());
            self.tell_log();
            self.tell_halted();
        } else {
            watched.members.clear();
            watched.directories.clear();
        }
    }

    /// Whether operations are kept in a control database, and not in memory.
    pub fn is_shared(&self) -> bool {
        self.settings.shared.is_some()
    }

    /// The instance of the daemon that leads; `None` where none does.
    pub async fn leader(&self) -> Result<Option<String>, Failure> {
        match &self.settings.shared {
            Some(shared) => {
                // Nobody waits for what is known not to answer.
                shared.control.admit()?;
                shared.control.leader().await
            }
            None => Ok(Some(self.instance().to_owned())),
        }
    }

    /// Has a database looked at soon, where this daemon watches: it may be another one than before.
    pub fn nudge(&self, database: &str) {
        if let Some(member) = self.inventory().get(database) {
            member.nudge(Instant::now());
        }
    }

    /// Puts another inventory in the place of the present one, as a whole. What runs goes on: it holds
    /// the members that it began with. Who watches databases and directories that are gone ends; what is
    /// new is watched from [`Fleet::tell_inventory`] on.
    pub fn adopt(self: &Arc<Self>, inventory: Inventory) -> InventoryChange {
        let mut watched = self.watching.0.lock().unwrap_or_else(PoisonError::into_inner);
        let inventory = Arc::new(inventory);
        watched.leave(&inventory);
        let before = {
            let mut current = self.inventory.write().unwrap_or_else(PoisonError::into_inner);
            std::mem::replace(&mut *current, inventory.clone())
        };
        inventory.change_from(&before)
    }

    /// Tells how the inventory has changed, or that nothing has, and all that is wrong with it; then begins
    /// to watch what is new: nobody would take a first look for a database's of which he has not heard.
    pub fn tell_inventory(self: &Arc<Self>, change: InventoryChange, faults: &[ReloadFault]) {
        self.inventory_is_complete.store(change.is_complete, Ordering::Relaxed);
        self.sink(Uuid::nil(), None).emit("", EventKind::InventoryLoaded(Box::new(change)));
        self.tell_faults(FindingKind::InventoryInvalid, faults);
        let mut watched = self.watching.0.lock().unwrap_or_else(PoisonError::into_inner);
        self.follow(&mut watched, &self.inventory());
    }

    /// Tells all that is wrong with the files of those who are let in.
    pub fn tell_access(&self, faults: &[ReloadFault]) {
        self.tell_faults(FindingKind::AccessUnreadable, faults);
    }

    fn tell_faults(&self, kind: FindingKind, faults: &[ReloadFault]) {
        let finding = |ReloadFault { subject, failure }: &ReloadFault| {
            Finding::new(kind, subject.as_str(), failure.message.clone())
                .evidence([failure.code.to_string()])
                .evidence(failure.details.iter().take(MOST_EVIDENCE).cloned())
        };
        self.tell(&Observation::of_the_daemon(kind, faults.iter().map(finding).collect()));
    }

    /// Begins to watch what is new in an inventory.
    fn follow(self: &Arc<Self>, watched: &mut Watched, inventory: &Inventory) {
        let Watched { means: Some(means), is_idle: false, members, directories } = watched else { return };
        for member in inventory.members() {
            if members.contains_key(member.name()) {
                continue;
            }
            let directory = directories
                .entry(address(&member.directory))
                .or_insert_with(|| self.watch_directory(means, member.directory.clone()));
            let stop = self.stop.drain.child_token();
            let watch = monitor::watch(
                self.clone(),
                member.clone(),
                means.places.clone(),
                directory.recent.clone(),
                means.poll,
                stop.clone(),
            );
            self.tasks.spawn_vital("watch", watch);
            if member.database.notifies {
                let listen = listen::listen(member.clone(), means.poll, stop.clone());
                self.tasks.spawn_vital("listen", listen);
            }
            let watch = WatchedMember { member: member.clone(), _stop: stop.drop_guard() };
            members.insert(member.name().to_owned(), watch);
        }
    }

    fn watch_directory(&self, means: &Means, directory: Arc<Directory>) -> WatchedDirectory {
        let (stop, sink) = (self.stop.drain.child_token(), self.sink(Uuid::nil(), None));
        let watch = means.watcher.clone().watch(directory.clone(), means.poll, sink, stop.clone());
        self.tasks.spawn_vital("watch-directory", watch);
        WatchedDirectory { _directory: directory, recent: Arc::default(), _stop: stop.drop_guard() }
    }
}

fn address(directory: &Arc<Directory>) -> usize {
    Arc::as_ptr(directory).addr()
}
