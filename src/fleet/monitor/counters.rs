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
    engine::{Compared, Database, Memory},
    fleet::inventory::Member,
    migration::Observation,
    postgres::{
        Pool,
        counters::{self, Counted},
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

/// What the server says of each database, by its name.
type Written = Arc<HashMap<String, Counted>>;

impl Counters {
    /// These can be asked from now on, and nobody else.
    pub(in crate::fleet) fn ask(&self, pools: Vec<Pool>) {
        *self.pools.lock().unwrap_or_else(PoisonError::into_inner) = pools;
    }

    /// What the server says of a database, as of `since` or later; `None` where nobody tells.
    async fn of(&self, dbname: &str, since: Instant) -> Option<Counted> {
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
async fn read(pool: &Pool) -> Option<HashMap<String, Counted>> {
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

/// What the counters say before a database is opened.
#[derive(Default)]
pub(super) struct Reading(Option<String>);

impl Reading {
    /// Where the database is opened whatever they say, and asked itself the next time, it is none.
    pub(super) async fn of(member: &Member, since: Instant) -> Self {
        let Database { dbname, keeps_looks, .. } = &*member.database;
        if *keeps_looks {
            return Self::default();
        }
        Self(member.looks.counters.of(dbname, since).await.map(|counted| counted.written))
    }
}

impl Quiet {
    /// Nothing yet; where many begin at once, their sweeps spread.
    pub(super) fn new() -> Self {
        Self { written: None, polls: fastrand::u32(..SWEEP) }
    }

    /// What was seen last, where nothing that is counted has changed since: so many times in turn.
    pub(super) fn still(
        &mut self,
        reading: &Reading,
        compared: &Compared,
        memory: &mut Memory,
    ) -> Option<Observation> {
        let is_quiet = reading.0.is_some() && reading.0 == self.written && self.polls + 1 < SWEEP;
        let observation = if is_quiet { memory.unchanged(compared) } else { None };
        self.polls += u32::from(observation.is_some());
        observation
    }

    /// A database was opened after this reading: what is written in between counts as new.
    pub(super) fn opened(&mut self, Reading(written): Reading) {
        // The first look is everybody's: from it on, the sweeps spread.
        let polls = if self.written.is_none() { self.polls } else { 0 };
        *self = Self { written, polls };
    }

    /// Whether nothing was written since it was opened last, at `since` at the latest, not even by
    /// somebody whose writing may not be counted yet; and nobody holds its lock.
    pub(super) async fn is_certain(&self, member: &Member, since: Instant) -> bool {
        let Database { dbname, names, .. } = &*member.database;
        // Of several hosts, another one may tell than the one where the database was opened.
        if self.written.is_none() || member.server.contains(',') {
            return false;
        }
        let counted = member.looks.counters.of(dbname, since).await;
        let key = names.lock_key(dbname);
        counted.is_some_and(|it| Some(&it.written) == self.written.as_ref() && it.is_settled(key))
    }
}
