//! Where the inventory comes from: the configuration's files and the discoveries. Each is read when it
//! changes, on its period, or on request; what is wrong keeps what was good last, and is told.
//!
//! Of several daemons with one control database, each reads its own files; the one that leads looks for
//! databases, and the others take over what it keeps of them ([`elsewhere`]).

mod discoveries;
mod elsewhere;
mod kept;

use std::{
    collections::BTreeMap,
    sync::{Arc, Weak},
    time::Duration,
};

use discoveries::{Looked, keep, look, take};
use elsewhere::Elsewhere;
use futures_util::{StreamExt as _, stream::FuturesUnordered};
use jiff::Timestamp;
use tokio::{
    sync::{Mutex, watch},
    time::{Instant, timeout_at},
};
use tokio_util::sync::CancellationToken;

use crate::{
    config::{Config, ConfigError, DiscoverConfig, Problem},
    control::Control,
    daemon::{
        access::Doors,
        wire::{self, Wanted, Wiring},
    },
    fleet::{Fleet, Reload, ReloadFault, Reloaded},
    migration::{Code, Failure, event::InventoryChange},
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
    /// Something may be known that was not.
    rebuilt: watch::Sender<()>,
    /// `None` where there is no other daemon.
    elsewhere: Option<Elsewhere>,
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
        control: Option<Arc<Control>>,
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
        Arc::new(Self {
            fleet,
            tasks,
            stop,
            reread,
            turn: Mutex::default(),
            state: Mutex::new(state),
            rebuilt: watch::Sender::new(()),
            elsewhere: control.map(Elsewhere::new),
        })
    }

    /// Makes the first inventory: the databases of the files, and what the discoveries find within their
    /// time, here or where it is led. From then on each discovery keeps its period, and the files are watched.
    pub(super) async fn start(self: &Arc<Self>) {
        let config = (*self.state.lock().await.running).clone();
        drop(self.take_over(config).await);
        let (inventories, stop) = (self.clone(), self.stop.clone());
        let looks = self.tasks.spawn("first-discoveries", async move {
            tokio::select! {
                () = inventories.first_look() => {}
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

    /// What reads everything anew on request, also who is let in.
    pub(super) fn reload_on_request(self: &Arc<Self>, doors: Arc<Doors>) -> Reload {
        let inventories = self.clone();
        Arc::new(move || {
            let (inventories, doors) = (inventories.clone(), doors.clone());
            Box::pin(async move {
                let shut = doors.reload_now().await;
                match inventories.reload().await {
                    Ok(mut reloaded) => {
                        reloaded.faults.extend(shut);
                        Ok(reloaded)
                    }
                    Err(mut failure) => {
                        let told =
                            |fault: ReloadFault| format!("{}: {}", fault.subject, fault.failure.message);
                        failure.details.extend(shut.into_iter().map(told));
                        Err(failure)
                    }
                }
            })
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
                let fault = self.look_where_it_is_led().await.err();
                let change = self.fleet.inventory().change_from(&before);
                let mut faults = faults(&*self.state.lock().await);
                faults.extend(fault);
                Ok(Reloaded { change, faults, restart })
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
                if self.leads() {
                    self.refresh_all(None).await;
                }
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
            Ok(read) => read.map_err(|error: ConfigError| of_config(Code::InventoryInvalid, &error)),
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
        if let Some(elsewhere) = self.elsewhere.as_ref().filter(|it| !it.leads()) {
            elsewhere.show(&mut state);
        }
        state.current = config;
        self.rebuild(&mut state);
        restart
    }

    /// Looks for the databases of all discoveries, and takes over what is found. Says when it was asked to
    /// where another daemon waits for it.
    async fn refresh_all(&self, asked: Option<Timestamp>) {
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
                    take(&mut state, number, &entry, found, asked);
                }
                self.rebuild(&mut state);
                drop(state);
                self.keep_found().await;
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
                let (last, found) = known.map(|known| (known.last, known.found)).unwrap_or_default();
                let config = entry.clone();
                Looked { config, last, found, asked: None, fault: None, look: 0, _stop: stop.drop_guard() }
            }
        };
        state.discoveries.insert(entry.id.clone(), looked);
    }

    /// Looks for the databases of one discovery.
    async fn refresh(&self, entry: &DiscoverConfig) {
        let number = self.state.lock().await.begin_look();
        let found = look(entry).await;
        let mut state = self.state.lock().await;
        take(&mut state, number, entry, found, None);
        self.rebuild(&mut state);
        drop(state);
        self.keep_found().await;
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
        self.rebuilt.send_replace(());
    }

    fn tell(&self, state: &State, change: InventoryChange) {
        let faults = faults(state);
        let is_complete = state.discoveries.values().all(|looked| looked.last.is_some());
        let change = InventoryChange { is_complete, is_valid: faults.is_empty(), ..change };
        self.fleet.tell_inventory(change, &faults);
    }
}

/// Everything that is wrong now.
fn faults(state: &State) -> Vec<ReloadFault> {
    let file = state.running.file.as_ref().map(|file| file.display().to_string()).unwrap_or_default();
    let of_file = state.fault.iter().map(|failure| (&file, failure));
    let of_discoveries =
        state.discoveries.iter().filter_map(|(id, looked)| Some((id, looked.fault.as_ref()?)));
    let fault = |(subject, failure): (&String, &Failure)| ReloadFault {
        subject: subject.clone(),
        failure: failure.clone(),
    };
    of_file.chain(of_discoveries).map(fault).collect()
}

/// The databases of the files. Their URLs were looked at before.
fn named(config: &Config) -> Vec<Wanted> {
    config.databases.iter().filter_map(|database| Wanted::named(database).ok()).collect()
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
pub(super) fn of_config(code: Code, error: &ConfigError) -> Failure {
    match error {
        ConfigError::Unreadable { source, .. } => Failure::new(code, format!("{error}: {source}")),
        ConfigError::Invalid(problems) => {
            let lines: Vec<_> = problems.iter().map(Problem::line).collect();
            let first = lines.first().cloned().unwrap_or_default();
            let failure = Failure::new(code, first);
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
