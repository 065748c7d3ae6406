//! Discoveries of several daemons: the one that leads looks and keeps what it finds, the others take
//! that over.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, Mutex as StdMutex, MutexGuard, PoisonError},
    time::Duration,
};

use jiff::Timestamp;
use tokio::{
    sync::Mutex,
    time::{Instant, sleep},
};

use crate::{
    control::{Control, documents::Mirror},
    daemon::{
        inventories::{
            Inventories, State,
            discoveries::Looked,
            kept::{self, Discovered},
        },
        wire::Wanted,
    },
    fleet::ReloadFault,
    migration::{Code, Failure},
    postgres::Target,
};

/// What the documents of discoveries are called.
const KIND: &str = "discovered";

/// How often it is seen whether the daemon that leads has looked.
const LOOK: Duration = Duration::from_millis(100);

/// How much longer than a discovery may take it is waited for what it finds.
const MARGIN: Duration = Duration::from_secs(10);

/// The control database, as far as it is about discoveries.
pub(super) struct Elsewhere {
    control: Arc<Control>,
    mirror: Mutex<Mirror>,
    /// What was kept of each discovery.
    known: StdMutex<BTreeMap<String, Discovered>>,
    /// What this daemon has written, as the one that leads.
    written: Mutex<HashMap<String, String>>,
}

impl Elsewhere {
    pub(super) fn new(control: Arc<Control>) -> Self {
        Self {
            control,
            mirror: Mutex::new(Mirror::new(KIND)),
            known: StdMutex::default(),
            written: Mutex::default(),
        }
    }

    /// Whether this daemon leads at this very moment.
    pub(super) fn leads(&self) -> bool {
        self.control.leads()
    }

    fn known(&self) -> MutexGuard<'_, BTreeMap<String, Discovered>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Puts what was kept in the place of what this daemon has found.
    pub(super) fn show(&self, state: &mut State) {
        let known = self.known();
        for (id, looked) in &mut state.discoveries {
            let Some(Discovered { found, fault, asked }) = known.get(id) else { continue };
            // Its URL was looked at when the configuration was.
            let Ok(target) = Target::parse(&looked.config.url) else { continue };
            if let Some(found) = found {
                let wanted = found.iter().map(|found| Wanted::found(&looked.config, &target, found.clone()));
                (looked.last, looked.found) = (Some(wanted.collect()), Some(found.clone()));
            }
            (looked.fault, looked.asked) = (fault.clone(), *asked);
        }
    }

    /// Reads what has changed; says whether anything has.
    async fn refresh(&self) -> Result<bool, Failure> {
        let changes = self.mirror.lock().await.refresh(&self.control).await?;
        let mut known = self.known();
        let has_changed = !changes.written.is_empty() || !changes.gone.is_empty();
        for document in changes.written {
            if let Some(discovered) = kept::revive(&document.body) {
                known.insert(document.key, discovered);
            }
        }
        known.retain(|id, _| !changes.gone.contains(id));
        Ok(has_changed)
    }
}

impl Inventories {
    /// Whether this daemon looks for databases.
    pub(super) fn leads(&self) -> bool {
        self.elsewhere.as_ref().is_none_or(Elsewhere::leads)
    }

    /// Looks for databases from now on, beginning with what was found before.
    pub(in crate::daemon) async fn lead(self: &Arc<Self>) -> Result<(), Failure> {
        self.follow().await?;
        let mut state = self.state.lock().await;
        // Whoever hears of it leads by now, and may not have heard before.
        self.rebuild(&mut state);
        drop(state);
        self.look_aside(None);
        Ok(())
    }

    /// Takes over what the daemon that leads has found.
    pub(in crate::daemon) async fn follow(&self) -> Result<(), Failure> {
        let Some(elsewhere) = &self.elsewhere else { return Ok(()) };
        if elsewhere.refresh().await? {
            let mut state = self.state.lock().await;
            elsewhere.show(&mut state);
            self.rebuild(&mut state);
        }
        Ok(())
    }

    /// Does what another daemon asks of the one that leads; `None` where that is not about discoveries.
    pub(in crate::daemon) fn answer(self: &Arc<Self>, asked: &str) -> Option<String> {
        let asked = kept::asked(asked)?;
        self.look_aside(Some(asked));
        Some("{}".to_owned())
    }

    /// The first look of all: here, or that of the daemon that leads.
    pub(super) async fn first_look(&self) {
        if self.elsewhere.is_none() {
            return self.refresh_all(None).await;
        }
        let mut rebuilt = self.rebuilt.subscribe();
        let is_known = |looked: &Looked| looked.last.is_some() || looked.fault.is_some();
        while !self.state.lock().await.discoveries.values().all(is_known) {
            // It cannot be closed: it is one's own.
            let _ = rebuilt.changed().await;
        }
    }

    /// Looks for databases now, or has the daemon that leads do so and waits for what it finds.
    pub(super) async fn look_where_it_is_led(&self) -> Result<(), ReloadFault> {
        let Some(elsewhere) = self.elsewhere.as_ref().filter(|it| !it.leads()) else {
            self.refresh_all(None).await;
            return Ok(());
        };
        let looked = self.have_looked(elsewhere).await;
        looked.map_err(|failure| ReloadFault { subject: "the leader".to_owned(), failure })
    }

    async fn have_looked(&self, elsewhere: &Elsewhere) -> Result<(), Failure> {
        let longest = {
            let state = self.state.lock().await;
            state.current.discoveries.iter().map(|entry| entry.timeout).max()
        };
        let Some(longest) = longest else { return Ok(()) };
        let now = Timestamp::now();
        elsewhere.control.ask(None, &kept::ask(now)).await?;
        let given_up = Instant::now() + longest + MARGIN;
        loop {
            self.follow().await?;
            let has_looked = |looked: &Looked| looked.asked.is_some_and(|asked| asked >= now);
            if self.state.lock().await.discoveries.values().all(has_looked) {
                return Ok(());
            }
            if Instant::now() > given_up {
                let message = "The nexusd that leads has not looked for the databases in time";
                return Err(Failure::new(Code::OwnerSilent, message));
            }
            sleep(LOOK).await;
        }
    }

    fn look_aside(self: &Arc<Self>, asked: Option<Timestamp>) {
        let (inventories, stop) = (self.clone(), self.stop.clone());
        drop(self.tasks.spawn("discover-now", async move {
            tokio::select! {
                () = inventories.refresh_all(asked) => {}
                () = stop.cancelled() => {}
            }
        }));
    }

    /// Keeps what this daemon has found, as the one that leads.
    pub(super) async fn keep_found(&self) {
        let Some(elsewhere) = self.elsewhere.as_ref().filter(|it| it.leads()) else { return };
        // Held until it is written: what was found later is not overwritten by what was found before.
        let mut written = elsewhere.written.lock().await;
        let (documents, gone) = {
            let state = self.state.lock().await;
            let document = |(id, looked): (&String, &Looked)| {
                let Looked { found, fault, asked, .. } = looked;
                let body = kept::discovered(Discovered {
                    found: found.clone(),
                    fault: fault.clone(),
                    asked: *asked,
                });
                (written.get(id) != Some(&body)).then(|| (id.clone(), body))
            };
            let documents: Vec<_> = state.discoveries.iter().filter_map(document).collect();
            let known = elsewhere.known();
            let there = known.keys().chain(written.keys());
            let gone = there.filter(|id| !state.discoveries.contains_key(*id)).cloned();
            (documents, gone.collect::<Vec<_>>())
        };
        if documents.is_empty() && gone.is_empty() {
            return;
        }
        match elsewhere.control.write(KIND, &documents, &gone).await {
            Ok(true) => {
                written.extend(documents);
                written.retain(|id, _| !gone.contains(id));
                elsewhere.known().retain(|id, _| !gone.contains(id));
            }
            Ok(false) => written.clear(),
            Err(failure) => {
                written.clear();
                tracing::warn!(%failure, "what was discovered cannot be kept: it is tried again with the next look");
            }
        }
    }
}
