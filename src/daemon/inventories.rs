//! Where the inventory comes from: the configuration's files and the discoveries. Each is read when it
//! changes, on its period, or on request; what is wrong keeps what was good last, and is told.

use std::{
    collections::BTreeMap,
    sync::{Arc, Weak},
    time::Duration,
};

use futures_util::{StreamExt as _, stream::FuturesUnordered};
use tokio::{
    sync::Mutex,
    time::{Instant, timeout_at},
};
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::{
    config::{Config, ConfigError, DiscoverConfig, Problem},
    daemon::wire::{self, Wanted, Wiring},
    fleet::{Fleet, InventoryFault, Reload, Reloaded, discovery::Found},
    migration::{Code, Failure, event::InventoryChange},
    postgres::Target,
    runtime::Tasks,
    source::watch::FileWatch,
};

/// Reads the configuration anew, as it was read at the start.
pub(super) type Reread = Arc<dyn Fn() -> Result<Config, ConfigError> + Send + Sync>;

/// How long the start waits for what the discoveries find: what they find later comes later.
const FIRST_LOOK: Duration = Duration::from_secs(10);

/// How long those discoveries that have ended wait for the others, to be taken over together, in the order of
/// the configuration.
const TOGETHER: Duration = Duration::from_secs(5);

/// How many names a line of the daemon's own log has; the migration log has them all.
const MOST_NAMES: usize = 20;

/// The sources of the inventory.
pub(super) struct Inventories {
    fleet: Arc<Fleet>,
    tasks: Tasks,
    stop: CancellationToken,
    /// `None` where the configuration is in no file.
    reread: Option<Reread>,
    /// Held from the reading of the files until it is taken over: what was read later is not overwritten
    /// by what was read before.
    turn: Mutex<()>,
    state: Mutex<State>,
}

struct State {
    /// What the daemon was started with: the sections that are read only then.
    running: Arc<Config>,
    /// The last configuration that was good.
    current: Config,
    /// What is wrong with the one that is there now.
    fault: Option<Failure>,
    /// The sections of which it was said last that they need a restart.
    restart: Vec<&'static str>,
    wiring: Wiring,
    discoveries: BTreeMap<String, Looked>,
    /// How many looks of discoveries have begun.
    looks: u64,
}

/// One discovery.
struct Looked {
    config: DiscoverConfig,
    /// What it found when it last found something that could be taken over.
    last: Option<Vec<Wanted>>,
    fault: Option<Failure>,
    /// The number of the look that was taken over last: one that began before it, and ended after it, tells
    /// nothing new.
    look: u64,
    /// Ends its period.
    _stop: DropGuard,
}

impl State {
    /// The number of a look that begins.
    fn begin_look(&mut self) -> u64 {
        self.looks += 1;
        self.looks
    }
}

impl Inventories {
    /// The sources that a configuration names, which is well-formed as [`wire::check`] says. Nothing is
    /// read yet.
    pub(super) fn new(
        fleet: Arc<Fleet>,
        tasks: Tasks,
        stop: CancellationToken,
        config: Arc<Config>,
        reread: Option<Reread>,
    ) -> Arc<Self> {
        let state = State {
            current: (*config).clone(),
            fault: None,
            restart: Vec::new(),
            wiring: Wiring::new(&config),
            discoveries: BTreeMap::new(),
            looks: 0,
            running: config,
        };
        Arc::new(Self { fleet, tasks, stop, reread, turn: Mutex::default(), state: Mutex::new(state) })
    }

    /// Makes the first inventory: the databases of the files, and what the discoveries find within their
    /// time. From then on each discovery keeps its period, and the files are watched.
    pub(super) async fn start(self: &Arc<Self>) {
        let config = (*self.state.lock().await.running).clone();
        drop(self.take_over(config).await);
        let (inventories, stop) = (self.clone(), self.stop.clone());
        let looks = self.tasks.spawn("first-discoveries", async move {
            tokio::select! {
                () = inventories.refresh_all() => {}
                () = stop.cancelled() => {}
            }
        });
        if tokio::time::timeout(FIRST_LOOK, looks).await.is_err() {
            tracing::warn!("the discoveries take long: the daemon serves without what they will find");
        }
        if self.reread.is_some() {
            let watch = watch_files(Arc::downgrade(self), self.stop.clone());
            self.tasks.spawn_vital("watch-configuration", watch);
        }
    }

    /// What reads everything anew on request.
    pub(super) fn reload_on_request(self: &Arc<Self>) -> Reload {
        let inventories = self.clone();
        Arc::new(move || {
            let inventories = inventories.clone();
            Box::pin(async move { inventories.reload().await })
        })
    }

    /// Reads the configuration and looks for databases, now.
    pub(super) async fn reload(self: &Arc<Self>) -> Result<Reloaded, Failure> {
        let turn = self.turn.lock().await;
        let before = self.fleet.inventory();
        let Some(read) = self.read().await else {
            let message = "The daemon was started without a configuration file: there is nothing to read";
            return Err(
                Failure::new(Code::InventoryInvalid, message).hint("restart it to change its databases")
            );
        };
        match read {
            Ok(config) => {
                let restart = self.take_over(config).await;
                drop(turn);
                self.refresh_all().await;
                let change = self.fleet.inventory().change_from(&before);
                Ok(Reloaded { change, faults: faults(&*self.state.lock().await), restart })
            }
            Err(failure) => {
                self.refuse(failure.clone()).await;
                Err(failure)
            }
        }
    }

    /// Reads the configuration, and takes it over where something is new in it.
    async fn reload_if_changed(self: &Arc<Self>) {
        let turn = self.turn.lock().await;
        let Some(read) = self.read().await else { return };
        let is_known = {
            let state = self.state.lock().await;
            match &read {
                Ok(config) => {
                    state.fault.is_none()
                        && config.has_the_same_fleet(&state.current)
                        && config.needing_a_restart(&state.running) == state.restart
                }
                Err(failure) => state.fault.as_ref() == Some(failure),
            }
        };
        match read {
            _ if is_known => {}
            Ok(config) => {
                drop(self.take_over(config).await);
                drop(turn);
                self.refresh_all().await;
            }
            Err(failure) => self.refuse(failure).await,
        }
    }

    /// Reads the configuration; `None` where there is no file.
    async fn read(&self) -> Option<Result<Config, Failure>> {
        let reread = self.reread.clone()?;
        let read = tokio::task::spawn_blocking(move || {
            let config = reread()?;
            wire::check(&config)?;
            Ok(config)
        });
        Some(match read.await {
            Ok(read) => read.map_err(|error: ConfigError| of_config(&error)),
            Err(_) => Err(Failure::new(Code::Internal, "Reading the files ended unexpectedly")),
        })
    }

    /// Keeps the last good inventory.
    async fn refuse(&self, failure: Failure) {
        tracing::error!(%failure, "the configuration is wrong: the last good inventory stays");
        let mut state = self.state.lock().await;
        state.fault = Some(failure);
        let inventory = self.fleet.inventory();
        self.tell(&state, inventory.change_from(&inventory));
    }

    /// Takes over a configuration that is good, with what its discoveries found last. Says which sections
    /// need a restart.
    async fn take_over(self: &Arc<Self>, config: Config) -> Vec<&'static str> {
        let mut state = self.state.lock().await;
        let restart = config.needing_a_restart(&state.running);
        if restart != state.restart && !restart.is_empty() {
            let sections = restart.join(", ");
            tracing::warn!(sections, "these sections have changed, which takes effect with a restart");
        }
        for warning in config.warnings.iter().filter(|warning| !state.current.warnings.contains(warning)) {
            tracing::warn!("{warning}");
        }
        state.restart.clone_from(&restart);
        state.fault = None;
        state.discoveries.retain(|id, _| config.discoveries.iter().any(|entry| entry.id == *id));
        for entry in &config.discoveries {
            self.expect(&mut state, entry);
        }
        state.current = config;
        self.rebuild(&mut state);
        restart
    }

    /// Looks for the databases of all discoveries, and takes over what is found.
    async fn refresh_all(&self) {
        let (entries, number) = {
            let mut state = self.state.lock().await;
            (state.current.discoveries.clone(), state.begin_look())
        };
        let looks = entries.into_iter().enumerate().map(|(index, entry)| async move {
            let found = look(&entry).await;
            (index, entry, found)
        });
        let mut looks: FuturesUnordered<_> = looks.collect();
        let together = Instant::now() + TOGETHER;
        let mut looked = Vec::new();
        while let Ok(Some(one)) = timeout_at(together, looks.next()).await {
            looked.push(one);
        }
        looked.sort_by_key(|(index, ..)| *index);
        // A slow one keeps nobody waiting but those who ask for all.
        loop {
            if !looked.is_empty() {
                let mut state = self.state.lock().await;
                for (_, entry, found) in looked.drain(..) {
                    take(&mut state, number, &entry, found);
                }
                self.rebuild(&mut state);
            }
            let Some(one) = looks.next().await else { return };
            looked.push(one);
        }
    }

    /// Knows of a discovery. What one of the same id found last stays until this one has found something.
    fn expect(self: &Arc<Self>, state: &mut State, entry: &DiscoverConfig) {
        let looked = match state.discoveries.remove(&entry.id) {
            Some(known) if known.config.is_same(entry) => Looked { config: entry.clone(), ..known },
            known => {
                let stop = self.stop.child_token();
                let keep = keep(Arc::downgrade(self), entry.clone(), stop.clone());
                self.tasks.spawn_vital("discover", keep);
                let last = known.and_then(|known| known.last);
                Looked { config: entry.clone(), last, fault: None, look: 0, _stop: stop.drop_guard() }
            }
        };
        state.discoveries.insert(entry.id.clone(), looked);
    }

    /// Looks for the databases of one discovery.
    async fn refresh(&self, entry: &DiscoverConfig) {
        let number = self.state.lock().await.begin_look();
        let found = look(entry).await;
        let mut state = self.state.lock().await;
        take(&mut state, number, entry, found);
        self.rebuild(&mut state);
    }

    /// Puts the inventory of what is known now in the place of the last one, and tells of it.
    fn rebuild(&self, state: &mut State) {
        let mut wanted = named(&state.current);
        for entry in &state.current.discoveries {
            let last = state.discoveries.get(&entry.id).and_then(|looked| looked.last.as_ref());
            wanted.extend(last.into_iter().flatten().cloned());
        }
        let inventory = state.wiring.next(&self.fleet.inventory(), &wanted);
        let change = self.fleet.adopt(inventory);
        if !change.is_empty() {
            tracing::info!(
                databases = change.databases.len(),
                added = for_a_person(&change.added),
                changed = for_a_person(&change.changed),
                removed = for_a_person(&change.removed),
                "the inventory has changed"
            );
        }
        self.tell(state, change);
    }

    fn tell(&self, state: &State, change: InventoryChange) {
        let faults = faults(state);
        let is_complete = state.discoveries.values().all(|looked| looked.last.is_some());
        let change = InventoryChange { is_complete, is_valid: faults.is_empty(), ..change };
        self.fleet.tell_inventory(change, &faults);
    }
}

/// Everything that is wrong now.
fn faults(state: &State) -> Vec<InventoryFault> {
    let file = state.running.file.as_ref().map(|file| file.display().to_string()).unwrap_or_default();
    let of_file = state.fault.iter().map(|failure| (&file, failure));
    let of_discoveries =
        state.discoveries.iter().filter_map(|(id, looked)| Some((id, looked.fault.as_ref()?)));
    let fault = |(subject, failure): (&String, &Failure)| InventoryFault {
        subject: subject.clone(),
        failure: failure.clone(),
    };
    of_file.chain(of_discoveries).map(fault).collect()
}

/// The databases of the files. Their URLs were looked at before.
fn named(config: &Config) -> Vec<Wanted> {
    config.databases.iter().filter_map(|database| Wanted::named(database).ok()).collect()
}

/// Looks once for the databases of an entry.
async fn look(entry: &DiscoverConfig) -> Result<Vec<Found>, Failure> {
    let wrong = |error: anyhow::Error| Failure::new(Code::DiscoveryRefused, format!("{error:#}"));
    let discovery = wire::discovery(entry).map_err(wrong)?;
    // On the heap only while it lasts.
    Box::pin(discovery.look()).await
}

/// Takes over what an entry has found, unless a name of it is another one's: then, as after a failure,
/// what it found before stays. An entry that has changed in the meantime is not meant any more, nor is a
/// look that a later one has overtaken.
fn take(state: &mut State, number: u64, entry: &DiscoverConfig, found: Result<Vec<Found>, Failure>) {
    let taken = found.and_then(|found| wanted(state, entry, found));
    let known = state.discoveries.get_mut(&entry.id);
    let Some(looked) = known.filter(|looked| looked.config.is_same(entry) && looked.look < number) else {
        return;
    };
    looked.look = number;
    match taken {
        Ok(wanted) => {
            looked.fault = None;
            looked.last = Some(wanted);
        }
        Err(mut failure) => {
            // Where it is written now: lines move.
            let place = &looked.config.place;
            failure.message = format!("{place}: discover {:?}: {}", entry.id, failure.message);
            if looked.fault.as_ref() != Some(&failure) {
                tracing::error!(%failure, "a discovery failed: what it found last stays");
            }
            looked.fault = Some(failure);
        }
    }
}

fn wanted(state: &State, entry: &DiscoverConfig, found: Vec<Found>) -> Result<Vec<Wanted>, Failure> {
    // A table that is filled anew, or a right that was taken away, is no reason to forget a fleet.
    let last = state.discoveries.get(&entry.id).and_then(|looked| looked.last.as_ref());
    if let Some(last) = last.filter(|last| found.is_empty() && !last.is_empty() && !entry.allow_empty) {
        let message = format!(
            "nothing was found, where there were {}; if that is meant: allow_empty = true",
            last.len()
        );
        return Err(Failure::new(Code::DiscoveryRefused, message));
    }
    let others = names_of_others(state, &entry.id);
    let twice = found.iter().filter_map(|it| Some((&it.name, others.get(it.name.as_str())?)));
    let details: Vec<_> = twice
        .take(MOST_NAMES)
        .map(|(name, other)| format!("{name:?} is the name of a database of {other} already"))
        .collect();
    if let Some(first) = details.first() {
        let message = format!("what was found cannot be taken over: {first}; names are unique");
        return Err(Failure::new(Code::DiscoveryRefused, message).details(details));
    }
    let target = Target::parse(&entry.url).map_err(|error| Failure::from(&error))?;
    Ok(found.into_iter().map(|found| Wanted::found(entry, &target, found)).collect())
}

/// The names that an entry may not give, and whose they are.
fn names_of_others<'a>(state: &'a State, id: &str) -> BTreeMap<&'a str, String> {
    let named = state.current.databases.iter().map(|it| (it.name.as_str(), it.place.to_string()));
    let others = state.discoveries.iter().filter(|(other, _)| *other != id);
    let found = others.flat_map(|(id, looked)| {
        let databases = looked.last.iter().flatten();
        databases.map(move |database| (database.name(), format!("discover {id:?}")))
    });
    found.chain(named).collect()
}

/// Looks for the databases of one entry on its period, until it is another one or gone.
async fn keep(inventories: Weak<Inventories>, entry: DiscoverConfig, stop: CancellationToken) {
    loop {
        tokio::select! {
            () = tokio::time::sleep(entry.every) => {}
            () = stop.cancelled() => return,
        }
        let Some(inventories) = inventories.upgrade() else { return };
        tokio::select! {
            () = inventories.refresh(&entry) => {}
            () = stop.cancelled() => return,
        }
    }
}

/// Watches the files that the inventory comes from, and reads them when they change. Not every file
/// system tells of its changes: they are also read on the poll.
async fn watch_files(inventories: Weak<Inventories>, stop: CancellationToken) {
    let watch = FileWatch::new();
    loop {
        let poll = {
            let Some(inventories) = inventories.upgrade() else { return };
            let (sources, poll): (_, Duration) = {
                let state = inventories.state.lock().await;
                (state.current.sources.clone(), state.running.watch.poll)
            };
            // First the watch, then the look: what happens in between rings.
            watch.arm(sources).await;
            tokio::select! {
                () = inventories.reload_if_changed() => poll,
                () = stop.cancelled() => return,
            }
        };
        tokio::select! {
            () = watch.changed() => {}
            () = tokio::time::sleep(poll) => {}
            () = stop.cancelled() => return,
        }
    }
}

/// A configuration that is refused: the first thing that is wrong, with its place, and all of them.
fn of_config(error: &ConfigError) -> Failure {
    match error {
        ConfigError::Unreadable { source, .. } => {
            Failure::new(Code::InventoryInvalid, format!("{error}: {source}"))
        }
        ConfigError::Invalid(problems) => {
            let lines: Vec<_> = problems.iter().map(Problem::line).collect();
            let first = lines.first().cloned().unwrap_or_default();
            let failure = Failure::new(Code::InventoryInvalid, first);
            if lines.len() > 1 { failure.details(lines) } else { failure }
        }
    }
}

/// The first names of a list.
fn for_a_person(names: &[String]) -> String {
    let shown = names.iter().take(MOST_NAMES).map(String::as_str).collect::<Vec<_>>().join(", ");
    match names.len().saturating_sub(MOST_NAMES) {
        0 => shown,
        more => format!("{shown} and {more} more"),
    }
}
