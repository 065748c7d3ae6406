//! Alerts: findings with a life, remembered over restarts, told to Alertmanager and to webhooks.
//!
//! [`life`] decides, without a clock or a network; this file gives it both, keeps its state in a
//! file or in the control database ([`keeping`]), and hands what has changed to the daemon's events and
//! to whoever watches. There are no queues: each sink looks up what it has not been told yet, so that
//! one that is down costs nothing, whatever happens, and gets the newest state of each alert when it is
//! back. Of several daemons with one control database, the one that leads looks after the alerts; the
//! others show what it keeps.

mod errand;
mod keeping;
mod life;
#[cfg(test)]
mod life_tests;
mod sinks;
mod store;

use std::{
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use jiff::Timestamp;
use tokio::sync::{RwLock, broadcast, mpsc, watch};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::{
    alert::{
        keeping::Place,
        life::{Audience, Lives, Outcome, Rules, Telling},
        sinks::Sink,
    },
    control::Control,
    migration::{Alert, Event, EventKind},
    runtime::Tasks,
};

pub use sinks::{SinkError, SinkKind, SinkSettings};

/// Why alerts cannot be looked after.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// A sink cannot be used.
    #[error(transparent)]
    Sink(#[from] SinkError),
    /// Two daemons with one file would take each other's acknowledgements away.
    #[error("the alerts' state file {} is another running nexusd's: give each its own, [alerts] state_file", .path.display())]
    InUse {
        /// The file.
        path: PathBuf,
    },
}

/// How often time is looked at.
const TICK: Duration = Duration::from_millis(500);

/// The state is not written more often than this.
const SAVE_PAUSE: Duration = Duration::from_millis(200);

/// How long it is waited after a failure before the state is written again.
const SAVE_RETRY: Duration = Duration::from_secs(1);

/// How many changes somebody who watches may be behind.
const WATCHED: usize = 1_024;

/// How long everything may take to end.
pub const SHUTDOWN: Duration = Duration::from_secs(5);

/// How alerts live, and who is told.
pub struct Settings {
    /// How long a finding has to stand before its alert fires.
    pub hold: Duration,
    /// Within what time an alert that comes back is the same one.
    pub flap_window: Duration,
    /// Where the state is kept.
    pub keeping: Keeping,
    /// What the address of a finding's page begins with.
    pub runbook_base: String,
    /// Who is told.
    pub sinks: Vec<SinkSettings>,
}

/// Where alerts are kept over restarts.
pub enum Keeping {
    /// In a file of this daemon's own, which always looks after them.
    File(PathBuf),
    /// In the control database, by the daemon that leads: see [`Alerts::lead`].
    Control(Arc<Control>),
}

/// The alerts of one daemon, or of one service. Clones share them.
#[derive(Clone)]
pub struct Alerts(Arc<Shared>);

struct Shared {
    lives: Mutex<Lives>,
    place: Place,
    /// Whether they are looked after here.
    leads: watch::Sender<bool>,
    /// Held in common by those who tell sinks, and alone by whoever waits for their end.
    telling: RwLock<()>,
    events: mpsc::UnboundedSender<Event>,
    watchers: broadcast::Sender<Alert>,
    /// Something has changed that sinks may have to be told.
    changed: watch::Sender<()>,
    /// Something has changed that is not kept yet.
    unsaved: watch::Sender<()>,
    tasks: Tasks,
    stop: CancellationToken,
}

impl Alerts {
    /// Goes on with what the state file knows and begins to tell the sinks, in `tasks` of its own; with a
    /// control database, all that waits for [`Alerts::lead`]. What changes is sent to `events`.
    pub fn start(
        settings: Settings,
        tasks: Tasks,
        events: mpsc::UnboundedSender<Event>,
    ) -> Result<Self, StartError> {
        let rules = Rules { hold: settings.hold, flap_window: settings.flap_window };
        let sinks = settings.sinks.into_iter().map(|sink| Sink::new(sink, &settings.runbook_base));
        let sinks = sinks.collect::<Result<Vec<_>, _>>()?;
        let audiences = sinks.iter().map(|sink| sink.audience.clone()).collect();
        let (place, kept) = Place::open(settings.keeping)?;
        let shared = Arc::new(Shared {
            lives: Mutex::new(Lives::new(rules, audiences, kept)),
            leads: watch::Sender::new(matches!(place, Place::File { .. })),
            place,
            telling: RwLock::default(),
            events,
            watchers: broadcast::Sender::new(WATCHED),
            changed: watch::Sender::new(()),
            unsaved: watch::Sender::new(()),
            tasks,
            stop: CancellationToken::new(),
        });
        for sink in sinks {
            let run = sinks::run(sink, shared.clone(), shared.changed.subscribe());
            shared.tasks.spawn_vital("sink", run);
        }
        shared.tasks.spawn_vital("alert-store", keep(shared.clone(), shared.unsaved.subscribe()));
        shared.tasks.spawn_vital("alert-clock", tick(shared.clone()));
        Ok(Self(shared))
    }

    /// Takes what happened: of observations, alerts are made; those of databases that are gone are over.
    pub fn observe(&self, event: &Event) {
        if !self.0.leads() {
            return;
        }
        let mut lives = self.0.lives();
        let outcome = match &event.kind {
            EventKind::Observed(observation) => lives.observe(observation),
            EventKind::InventoryLoaded(change) => {
                Outcome { changed: lives.leave(change, event.time), ..Outcome::default() }
            }
            _ => return,
        };
        self.0.tell(outcome);
    }

    /// All alerts that are remembered, the gravest first and then the newest.
    pub fn list(&self) -> Vec<Alert> {
        self.0.lives().list()
    }

    /// All alerts, and each again whenever it is in another state. Who falls far behind is told so
    /// by the receiver, and has to ask again.
    pub fn watch(&self) -> (Vec<Alert>, broadcast::Receiver<Alert>) {
        let lives = self.0.lives();
        (lives.list(), self.0.watchers.subscribe())
    }

    /// Is over when the daemon's end is near.
    pub fn ending(&self) -> impl Future<Output = ()> + Send + use<> {
        self.0.stop.clone().cancelled_owned()
    }

    /// Tells the sinks what there is to tell, and ends; within a few seconds.
    pub async fn shutdown(&self) {
        self.0.stop.cancel();
        if !self.0.tasks.join(SHUTDOWN).await {
            tracing::warn!("some sinks of alerts did not end in time: they are told after the next start");
        }
    }

    /// Writes the state, when nobody changes it any more.
    pub async fn keep(&self) {
        if self.0.leads() {
            self.0.save_or_warn(&mut false).await;
        }
    }
}

impl Shared {
    fn lives(&self) -> MutexGuard<'_, Lives> {
        self.lives.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Hands on what has changed. It is called while the lives are locked, so that nobody hears of
    /// two changes in the wrong order; nothing here waits.
    fn tell(&self, outcome: Outcome) {
        if outcome.refused > 0 {
            tracing::warn!(findings = outcome.refused, "there are too many alerts: these findings have none");
        }
        for sink in outcome.dropped {
            self.emit("", EventKind::AlertSent { sink, outcome: "dropped" });
        }
        if outcome.changed.is_empty() {
            return;
        }
        for alert in outcome.changed {
            // Nobody need be watching.
            let _ = self.watchers.send(alert.clone());
            let database = alert.database.clone();
            self.emit(&database, EventKind::AlertChanged(Box::new(alert)));
        }
        self.changed.send_replace(());
        self.unsaved.send_replace(());
    }

    fn emit(&self, database: &str, kind: EventKind) {
        let (operation, time, database) = (Uuid::nil(), Timestamp::now(), database.to_owned());
        let event = Event { operation, trace: None, time, database, kind };
        // The receiver outlives every task; after it, nobody is left to be told.
        let _ = self.events.send(event);
    }

    /// Whether the alerts are looked after here, at this very moment.
    fn leads(&self) -> bool {
        *self.leads.borrow() && self.place.is_ours()
    }

    /// A sink has been told, or has refused to be.
    fn delivered(&self, audience: &Audience, told: &Telling) {
        self.lives().delivered(audience, told);
        self.unsaved.send_replace(());
    }

    /// Writes the state. `failing` says whether the last time failed: that is told once.
    async fn save_or_warn(&self, failing: &mut bool) {
        let failed = self.save().await.err();
        if let Some(failure) = failed.as_ref().filter(|_| !*failing) {
            let place = self.place.to_string();
            tracing::warn!(place, error = %failure, "the alerts cannot be kept: a restart would forget acknowledgements and tell sinks again");
        }
        *failing = failed.is_some();
    }
}

/// Writes the state whenever it has changed.
async fn keep(shared: Arc<Shared>, mut unsaved: watch::Receiver<()>) {
    let mut failing = false;
    loop {
        tokio::select! {
            _ = unsaved.changed() => {}
            () = tokio::time::sleep(SAVE_RETRY), if failing => {}
            () = shared.stop.cancelled() => return,
        }
        if shared.leads() {
            shared.save_or_warn(&mut failing).await;
        } else {
            failing = false;
        }
        tokio::select! {
            () = tokio::time::sleep(SAVE_PAUSE) => {}
            () = shared.stop.cancelled() => return,
        }
    }
}

/// Tells the lives what time it is.
async fn tick(shared: Arc<Shared>) {
    let mut ticks = tokio::time::interval(TICK);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = ticks.tick() => {
                if !shared.leads() {
                    continue;
                }
                let mut lives = shared.lives();
                let outcome = lives.tick(Timestamp::now());
                shared.tell(outcome);
            }
            () = shared.stop.cancelled() => return,
        }
    }
}
