//! Polling many databases of one server by its counters: only those are opened where something was
//! written since they were seen last. A database whose connection is kept open is asked itself.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex as Lock, PoisonError},
    time::Duration,
};

use tokio::{
    sync::Mutex,
    time::{Instant, timeout},
};

use crate::{
    engine::{Compared, Memory},
    fleet::inventory::Member,
    migration::Observation,
    postgres::{
        Pool, counters,
        pool::{self, Pooled},
    },
};

/// How long reading them may take, connecting included.
const LIMIT: Duration = Duration::from_secs(3);

/// A database is opened on every so many polls, whatever the counters say: they do not tell of one
/// that cannot be reached any more, and may be lost.
const SWEEP: u32 = 10;

/// The counters of one server, read for all of its databases at once.
#[derive(Default)]
pub(in crate::fleet) struct Counters {
    /// Those of the server whose connections are kept open; any of them can tell of all.
    pools: Lock<Vec<Pool>>,
    /// The last reading, and when it began; without what it told where it failed.
    last: Mutex<Option<(Instant, Option<Written>)>>,
}

/// What was written in each database, by its name.
type Written = Arc<HashMap<String, String>>;

impl Counters {
    /// These can be asked from now on, and nobody else.
    pub(in crate::fleet) fn ask(&self, pools: Vec<Pool>) {
        *self.pools.lock().unwrap_or_else(PoisonError::into_inner) = pools;
    }

    /// What was written in a database, as of `since` or later; `None` where nobody tells.
    async fn of(&self, dbname: &str, since: Instant) -> Option<String> {
        let mut last = self.last.lock().await;
        if last.as_ref().is_none_or(|(at, _)| *at < since) {
            let at = Instant::now();
            *last = Some((at, self.ask_one().await));
        }
        last.as_ref()?.1.as_ref()?.get(dbname).cloned()
    }

    async fn ask_one(&self) -> Option<Written> {
        let pool = self.pools.lock().unwrap_or_else(PoisonError::into_inner).first().cloned()?;
        let written = read(&pool).await;
        if written.is_none() {
            // Another one is asked the next time.
            let mut pools = self.pools.lock().unwrap_or_else(PoisonError::into_inner);
            if !pools.is_empty() {
                pools.rotate_left(1);
            }
        }
        written.map(Arc::new)
    }
}

/// A connection that did not answer is closed: it would stand in the way of the next reading.
async fn read(pool: &Pool) -> Option<HashMap<String, String>> {
    let connection = Box::pin(pool.get(LIMIT)).await.ok()?;
    let written = timeout(LIMIT, counters::read(&connection)).await;
    if let Ok(Ok(written)) = written {
        pool::give_back(connection);
        return Some(written);
    }
    drop(Pooled::take(connection));
    None
}

/// What the counters said when a database was opened last.
pub(super) struct Quiet {
    written: Option<String>,
    polls: u32,
}

impl Quiet {
    /// Nothing yet; where many begin at once, their sweeps spread.
    pub(super) fn new() -> Self {
        Self { written: None, polls: fastrand::u32(..SWEEP) }
    }

    /// What was seen last, where nothing can have changed since. `nudged` says that something has.
    pub(super) async fn still(
        &mut self,
        member: &Member,
        since: Instant,
        nudged: bool,
        compared: &Compared,
        memory: &mut Memory,
    ) -> Option<Observation> {
        if member.database.keeps_looks {
            return None;
        }
        // Read before the database is opened: what is written in between counts as new.
        let written = member.looks.counters.of(&member.database.dbname, since).await;
        let is_quiet = !nudged && written.is_some() && written == self.written && self.polls + 1 < SWEEP;
        if is_quiet && let Some(observation) = memory.unchanged(compared) {
            self.polls += 1;
            return Some(observation);
        }
        // The first look is everybody's: from it on, the sweeps spread.
        let polls = if self.written.is_none() { self.polls } else { 0 };
        *self = Self { written, polls };
        None
    }
}
