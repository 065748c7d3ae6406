//! The monitor: looks at every database again and again, and tells what it saw.
//!
//! One task for each database looks on a poll, and at once when it is nudged: after an operation's
//! end, and when the directory has changed. Time is the monotonic clock's: one that is set anew
//! changes nothing. A look waits for a place among those of its server, and then for one of the
//! process's; a database that did not answer waits among its like, so that a silent one delays
//! nobody else.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex as Lock, PoisonError},
    time::Duration,
};

use tokio::{
    sync::{Mutex, Semaphore, SemaphorePermit},
    time::Instant,
};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::{
    access::Permit,
    engine::{self, Compared, Depth},
    fleet::{
        Fleet,
        inventory::{Looks, Member},
        run,
        selector::{Need, Selection},
    },
    migration::{EventKind, EventSink as _, Failure, Finding, FindingKind, Observation},
};

mod counters;
pub(super) mod listen;
mod rhythm;
mod sight;

pub(super) use counters::Counters;
use counters::Reading;
use rhythm::Rhythm;
pub(super) use sight::Sight;

/// How old a catalog may be that a poll compares with: the databases of one directory share a
/// reading of it.
const FRESH: Duration = Duration::from_secs(1);

/// The least pause between two looks at one database: a run of a thousand migrations makes a
/// thousand nudges.
const LEAST_PAUSE: Duration = Duration::from_millis(250);

/// How long looks let those go first who are at work on their server; not longer than a poll.
const LONGEST_DELAY: Duration = Duration::from_secs(10);

/// How many databases that did not answer are tried at once, in the whole process.
const DOUBTFUL: usize = 16;

/// The places of the process.
pub(super) struct Places {
    healthy: Semaphore,
    doubtful: Semaphore,
}

impl Fleet {
    /// Has the monitor look at every database of a directory.
    pub(super) fn nudge_directory(&self, directory: &str) {
        let now = Instant::now();
        for member in self.inventory().members() {
            if member.directory.path().display().to_string() == directory {
                member.nudge(now);
            }
        }
    }

    /// Looks at the selected databases, tells what it saw of each, and returns it in the order of
    /// their names.
    pub async fn observe(
        &self,
        selection: &Selection,
        depth: Depth,
        permit: &Permit,
    ) -> Result<Vec<Observation>, Failure> {
        let members = self.inventory().select(selection, Need::Any, permit)?;
        let look = |member: Arc<Member>| async move {
            let compared = member.compared_with().await;
            let place = member.looks.places.acquire().await;
            let observation =
                engine::observe(&member.database, &compared, self.settings.pending_limit, depth).await;
            drop(place);
            self.tell(&observation);
            observation
        };
        Ok(run::bounded(self.max_parallel(), members, look).await)
    }

    /// Tells whether the log can be written.
    pub(super) fn tell_log(&self) {
        self.tell(&of_the_log((self.settings.gate)().err().as_ref()));
    }

    pub(super) fn tell(&self, observation: &Observation) {
        let kind = EventKind::Observed(Box::new(observation.clone()));
        self.sink(Uuid::nil(), None).emit(&observation.database, kind);
    }
}

/// Watches one database until `stop`: the fleet shuts down, or the database is not in it any more.
pub(super) async fn watch(
    fleet: Arc<Fleet>,
    member: Arc<Member>,
    places: Arc<Places>,
    recent: Arc<Recent>,
    poll: Duration,
    stop: CancellationToken,
) {
    let mut rhythm = Rhythm::new(poll);
    let mut nudged = member.nudged.subscribe();
    let mut is_nudged = true;
    let mut is_doubtful = false;
    // One may be there from when the setting was another one.
    let mut may_have_trigger = !member.database.notifies;
    // What is compared with is not older than the nudge, or than a moment.
    let mut since = Instant::now();
    loop {
        // On the heap only while it lasts: there may be thousands of databases that wait for theirs.
        let look = Box::pin(async {
            let until = Instant::now() + LONGEST_DELAY.min(poll);
            let left = || until.saturating_duration_since(Instant::now());
            let load = &member.looks.load;
            load.calm(left()).await;
            // What was told of meanwhile is seen by the same look.
            if nudged.has_changed().unwrap_or(false) {
                since = *nudged.borrow_and_update();
                is_nudged = true;
            }
            let compared = recent.get(&member, since).await;
            let reading = Reading::of(&member, since).await;
            if !is_nudged {
                let mut sight = member.sight.lock().await;
                if let Some(observation) = sight.still(&reading, &compared) {
                    fleet.saw(&member, &sight, &observation);
                    return observation;
                }
            }
            let _places = loop {
                let taken = places.take(&member.looks, is_doubtful).await;
                if load.is_calm() || left().is_zero() {
                    break taken;
                }
                drop(taken);
                load.calm(left()).await;
            };
            let mut sight = member.sight.lock().await;
            // Somebody who asked may have looked by now.
            let observation = if let Some(observation) = sight.since(since) {
                observation
            } else {
                let observation =
                    sight.look(&member, since, (&compared, fleet.settings.pending_limit), reading).await;
                fleet.saw(&member, &sight, &observation);
                observation
            };
            drop(sight);
            if may_have_trigger && !has(&observation, FindingKind::DatabaseUnreachable) {
                may_have_trigger = !listen::remove(&member).await;
            }
            observation
        });
        let observation = tokio::select! {
            // First: what a look at a database saw that is gone by now is not told.
            biased;
            () = stop.cancelled() => return,
            observation = look => observation,
        };
        is_doubtful = has(&observation, FindingKind::DatabaseUnreachable);
        let is_busy = !is_doubtful && observation.unknown.contains(&FindingKind::Dirty);
        tokio::select! {
            () = tokio::time::sleep(LEAST_PAUSE) => {}
            () = stop.cancelled() => return,
        }
        tokio::select! {
            () = tokio::time::sleep(rhythm.pause(is_doubtful, is_busy)) => {
                since = Instant::now().checked_sub(FRESH).unwrap_or(since);
                is_nudged = false;
            }
            _ = nudged.changed() => {
                since = *nudged.borrow_and_update();
                is_nudged = true;
            }
            () = stop.cancelled() => return,
        }
    }
}

fn has(observation: &Observation, kind: FindingKind) -> bool {
    observation.findings.iter().any(|finding| finding.kind == kind)
}

impl Places {
    /// Those of so many connections.
    pub(super) fn of(max_connections: usize) -> Self {
        let doubtful = DOUBTFUL.min(max_connections / 4).max(1);
        let healthy = (max_connections / 2).saturating_sub(doubtful).max(1);
        Self { healthy: Semaphore::new(healthy), doubtful: Semaphore::new(doubtful) }
    }

    /// A place of the server's and one of the process's, in this order: whoever waits for his
    /// server keeps no place of the process's.
    async fn take<'a>(&'a self, server: &'a Looks, is_doubtful: bool) -> [Option<SemaphorePermit<'a>>; 3] {
        // The semaphores are never closed; without a place, a look would still only be a look.
        let doubtful = if is_doubtful { server.doubtful.acquire().await.ok() } else { None };
        let of_server = server.places.acquire().await.ok();
        let of_process = if is_doubtful { &self.doubtful } else { &self.healthy };
        [doubtful, of_server, of_process.acquire().await.ok()]
    }
}

/// The directories that a request compares with, each of them read once.
#[derive(Default)]
pub(super) struct Directories(Lock<HashMap<usize, Arc<Recent>>>);

impl Directories {
    /// What a database's directory was at `since` or later.
    pub(super) async fn compared_with(&self, member: &Member, since: Instant) -> Compared {
        let directory = Arc::as_ptr(&member.directory).addr();
        let recent =
            self.0.lock().unwrap_or_else(PoisonError::into_inner).entry(directory).or_default().clone();
        recent.get(member, since).await
    }
}

/// The last reading of one directory.
#[derive(Default)]
pub(super) struct Recent(Mutex<Option<(Instant, Compared)>>);

impl Recent {
    /// What the directory was at `since` or later.
    async fn get(&self, member: &Member, since: Instant) -> Compared {
        let mut last = self.0.lock().await;
        if let Some((at, compared)) = &*last
            && *at >= since
        {
            return compared.clone();
        }
        let at = Instant::now();
        let compared = member.compared_with().await;
        last.insert((at, compared)).1.clone()
    }
}

/// Tells when the log cannot be written any more, and when it can again.
pub(super) async fn watch_log(fleet: Arc<Fleet>, poll: Duration) {
    let mut ticks = tokio::time::interval(poll);
    let mut last = None;
    loop {
        tokio::select! {
            _ = ticks.tick() => {}
            () = fleet.stop.drain.cancelled() => return,
        }
        let failure = (fleet.settings.gate)().err();
        if last.as_ref() != Some(&failure) {
            fleet.tell(&of_the_log(failure.as_ref()));
            last = Some(failure);
        }
    }
}

/// What is known of the log is an observation of no database.
fn of_the_log(failure: Option<&Failure>) -> Observation {
    let finding =
        failure.map(|failure| Finding::new(FindingKind::LogUnwritable, "", failure.message.clone()));
    Observation::of_the_daemon(FindingKind::LogUnwritable, finding.into_iter().collect())
}
