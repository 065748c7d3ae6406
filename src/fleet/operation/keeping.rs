//! Keeping an operation where other daemons find it: what has changed since it was kept last, and by
//! what right it may be changed at all.

use std::{
    collections::BTreeMap,
    ops::{Deref, DerefMut},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use jiff::Timestamp;
use tokio::sync::watch;

use crate::{
    control::operations::{Change, Kept, KeptEvent},
    engine::Lease,
    fleet::operation::{
        DatabaseRecord, Operation, Record,
        kept::{self, Beside},
        log::{Class, Taken},
    },
    migration::{Event, EventKind, OperationState},
    postgres::executor::Author,
};

/// Encodes an event as it is sent to whoever watches; `None` where it is not sent.
pub type Encode = Arc<dyn Fn(&Event) -> Option<Vec<u8>> + Send + Sync>;

/// By what right a daemon changes an operation.
#[derive(Debug, Clone)]
pub(in crate::fleet) struct Owned {
    /// The fence, which the control database compares.
    pub(in crate::fleet) fence: i64,
    /// Until when.
    pub(in crate::fleet) lease: Lease,
}

/// What is kept of one operation, and what is not yet.
pub(in crate::fleet) struct Keeping {
    encode: Encode,
    /// Rings when something is to be kept.
    bell: watch::Sender<()>,
    /// How many changes are kept.
    kept: watch::Sender<u64>,
    unkept: Mutex<Unkept>,
    /// Whoever gives an order holds it, so that the operation is not released meanwhile.
    orders: tokio::sync::Mutex<()>,
}

#[derive(Default)]
struct Unkept {
    owned: Option<Owned>,
    /// The revision that was kept or read last.
    revision: i64,
    /// The revision that was tried last: one that did not answer may still come to be kept.
    tried: i64,
    /// Counts how often it was disowned.
    epoch: u64,
    /// Counts the changes, and how many of them are kept.
    changes: u64,
    kept: u64,
    /// The databases as they were kept.
    databases: BTreeMap<String, DatabaseRecord>,
    events: Vec<KeptEvent>,
    gone: Vec<i64>,
}

impl Keeping {
    pub(in crate::fleet) fn new(encode: Encode, bell: watch::Sender<()>) -> Self {
        Self {
            encode,
            bell,
            kept: watch::Sender::new(0),
            unkept: Mutex::default(),
            orders: tokio::sync::Mutex::default(),
        }
    }

    /// From now on this daemon may change the operation.
    pub(in crate::fleet) fn own(&self, owned: Owned, record: &Record, revision: i64) {
        let mut unkept = self.unkept();
        let (databases, changes, epoch) = (record.databases.clone(), unkept.changes, unkept.epoch);
        let (owned, tried, kept) = (Some(owned), revision, changes);
        *unkept = Unkept { owned, revision, tried, epoch, changes, kept, databases, ..Unkept::default() };
    }

    /// By what right this daemon changes the operation; `None`: another one does, or nobody.
    pub(in crate::fleet) fn owned(&self) -> Option<Owned> {
        self.unkept().owned.clone()
    }

    /// From now on another one may. Everything that was not kept by then is forgotten.
    pub(in crate::fleet) fn disown(&self) {
        let mut unkept = self.unkept();
        // What comes to be read is read as a whole: its revision is 0.
        let (changes, kept, epoch) = (unkept.changes, unkept.kept, unkept.epoch + 1);
        *unkept = Unkept { epoch, changes, kept, ..Unkept::default() };
    }

    /// Everything is kept, and nobody has to own it.
    pub(in crate::fleet) fn release(&self) {
        let mut unkept = self.unkept();
        unkept.owned = None;
        unkept.databases = BTreeMap::new();
    }

    /// Up to which revision it is known here.
    pub(in crate::fleet) fn revision(&self) -> i64 {
        self.unkept().revision
    }

    /// It was read up to here.
    pub(in crate::fleet) fn read(&self, revision: i64) {
        self.unkept().revision = revision;
    }

    /// Something has changed that is to be kept.
    pub(super) fn changed(&self) {
        let mut unkept = self.unkept();
        if unkept.owned.is_some() {
            unkept.changes += 1;
            self.bell.send_replace(());
        }
    }

    /// An event was told.
    pub(super) fn told(&self, taken: Taken) {
        let mut unkept = self.unkept();
        if unkept.owned.is_none() {
            return;
        }
        for number in taken.gone {
            unkept.forget(number);
        }
        let class = Class::of(&taken.event.kind).name().to_owned();
        if let Some(body) = (self.encode)(&without_what_scripts_raised(&taken.event)) {
            let database = taken.event.database.clone();
            let number = i64::try_from(taken.number).unwrap_or(i64::MAX);
            unkept.events.push(KeptEvent { number, database, class, body });
        }
        unkept.changes += 1;
        self.bell.send_replace(());
    }

    /// An event that was told is no more.
    pub(super) fn gone(&self, number: u64) {
        let mut unkept = self.unkept();
        if unkept.owned.is_some() {
            unkept.forget(number);
        }
    }

    /// Waits until what has changed by now is kept; false where this daemon may not change it any more.
    pub(in crate::fleet) async fn is_kept(&self) -> bool {
        let (wanted, epoch) = {
            let unkept = self.unkept();
            (unkept.changes, unkept.epoch)
        };
        let mut kept = self.kept.subscribe();
        loop {
            {
                let unkept = self.unkept();
                if unkept.epoch != epoch {
                    return false;
                }
                // Also where it is released by now.
                if unkept.kept >= wanted {
                    return true;
                }
                if unkept.owned.as_ref().is_none_or(|owned| !owned.lease.is_held()) {
                    return false;
                }
            }
            let _ = tokio::time::timeout(LOOK, kept.wait_for(|kept| *kept >= wanted)).await;
        }
    }

    /// Keeps the operation from being released as long as an order is given.
    pub(in crate::fleet) async fn order(&self) -> tokio::sync::MutexGuard<'_, ()> {
        self.orders.lock().await
    }

    /// The same for whoever releases it; `None` while an order is given.
    pub(in crate::fleet) fn no_order(&self) -> Option<tokio::sync::MutexGuard<'_, ()>> {
        self.orders.try_lock().ok()
    }

    fn unkept(&self) -> MutexGuard<'_, Unkept> {
        self.unkept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// How often whoever waits looks whether it is still worth it.
const LOOK: Duration = Duration::from_millis(100);

impl Unkept {
    fn forget(&mut self, number: u64) {
        let number = i64::try_from(number).unwrap_or(i64::MAX);
        self.events.retain(|event| event.number != number);
        // Also one that is only on its way.
        self.gone.push(number);
    }
}

/// A change that is to be kept, with what it is compared with next.
pub(in crate::fleet) struct Unsaved {
    pub(in crate::fleet) change: Change,
    changes: u64,
    databases: BTreeMap<String, DatabaseRecord>,
}

impl Operation {
    /// What is to be kept, where there is something. One that is at rest may be let go with it.
    pub(in crate::fleet) fn unsaved(&self, may_release: bool) -> Option<Unsaved> {
        let keeping = self.keeping()?;
        let beside = self.beside();
        let record = self.record();
        let mut unkept = keeping.unkept();
        let is_at_rest = record.state.is_at_rest() && self.log.is_finished();
        let is_released = is_at_rest && may_release;
        let fence = unkept.owned.as_ref()?.fence;
        if unkept.changes == unkept.kept && !is_released {
            return None;
        }
        unkept.tried += 1;
        let is_another =
            |(name, database): &(&String, &DatabaseRecord)| unkept.databases.get(*name) != Some(*database);
        let databases = record.databases.iter().filter(is_another);
        let databases: BTreeMap<_, _> =
            databases.map(|(name, database)| (name.clone(), database.clone())).collect();
        let change = Change {
            id: self.id(),
            fence,
            revision: unkept.tried,
            // Somebody has to tell its end, too.
            is_active: !is_at_rest,
            is_released,
            ended: record.ended.map(Timestamp::as_microsecond),
            document: kept::operation(&record, &beside),
            databases: databases.iter().map(|(name, it)| (name.clone(), kept::database(it))).collect(),
            events: unkept.events.clone(),
            gone: unkept.gone.clone(),
        };
        Some(Unsaved { change, changes: unkept.changes, databases })
    }

    /// All of it, as it is kept first.
    pub(in crate::fleet) fn first_change(&self) -> Change {
        let beside = self.beside();
        let record = self.record();
        let databases = record.databases.iter().map(|(name, it)| (name.clone(), kept::database(it)));
        Change {
            id: self.id(),
            fence: 1,
            revision: 1,
            is_active: true,
            document: kept::operation(&record, &beside),
            databases: databases.collect(),
            ..Change::default()
        }
    }

    /// Takes in what another daemon has made of it.
    pub(in crate::fleet) fn take_in(&self, kept: Kept) -> Result<(), String> {
        let (mut new, beside) = kept::read_operation(self.id(), &kept.document)?;
        let changed =
            kept.databases.iter().map(|(name, text)| Ok((name.clone(), kept::read_database(text)?)));
        let changed = changed.collect::<Result<Vec<_>, String>>()?;
        self.with_work(|work| work.author.requested_by = beside.by);
        let mut record = self.record();
        // It was taken, or read by somebody else, while it was read here.
        if let Some(keeping) = &self.keeping
            && (keeping.owned().is_some() || kept.revision < keeping.revision())
        {
            return Ok(());
        }
        new.databases = std::mem::take(&mut record.databases);
        new.databases.extend(changed);
        if new.attempt > record.attempt {
            self.log.reopen();
        }
        for event in kept.events {
            self.log.push_kept(event);
        }
        let has_moved = new.state != record.state;
        *record = new;
        if has_moved {
            self.moves_to(record.state);
        }
        if let Some(keeping) = &self.keeping {
            keeping.read(kept.revision);
        }
        Ok(())
    }

    /// The number of the newest event that is known here.
    pub(in crate::fleet) fn last_number(&self) -> i64 {
        i64::try_from(self.log.newest_number()).unwrap_or(i64::MAX)
    }

    /// Events are numbered by the fence first: an owner's come after all of the one before.
    pub(in crate::fleet) fn number_from(&self, fence: i64) {
        self.log.begin_above(fence.unsigned_abs() << 32);
    }

    /// Whether this daemon may say what becomes of it.
    pub(in crate::fleet) fn is_owned(&self) -> bool {
        self.keeping.as_ref().is_none_or(|keeping| keeping.owned().is_some())
    }

    /// It was kept, with a lease until then.
    pub(in crate::fleet) fn saved(&self, unsaved: Unsaved, until: Instant) {
        let Some(keeping) = self.keeping() else { return };
        let Unsaved { change, changes, databases } = unsaved;
        let mut unkept = keeping.unkept();
        let Some(owned) = &unkept.owned else { return };
        owned.lease.renew(until);
        unkept.revision = change.revision;
        unkept.kept = changes;
        unkept.databases.extend(databases);
        // What was told meanwhile is still to be kept.
        let last = change.events.last().map(|event| event.number);
        unkept.events.retain(|event| Some(event.number) > last);
        unkept.gone.retain(|number| !change.gone.contains(number));
        drop(unkept);
        keeping.kept.send_replace(changes);
        // The lease is given up with it: what is told from now on is told by whoever takes it next.
        if change.is_released {
            keeping.release();
        }
    }

    /// What was begun by then is known to whoever would go on with it; false where that may be another
    /// one already.
    pub(in crate::fleet) async fn is_kept(&self) -> bool {
        match &self.keeping {
            Some(keeping) => keeping.is_kept().await,
            None => true,
        }
    }

    /// This daemon may go on with it no more, or does not want to: it begins nothing, and what is under
    /// way ends after its step.
    pub(in crate::fleet) fn suspend(&self) {
        self.work().stop.drain.cancel();
    }

    /// Whether another daemon is to go on with it.
    pub(in crate::fleet) fn is_suspended(&self) -> bool {
        let is_to_end = self.state() == OperationState::Cancelling;
        self.keeping.is_some() && !is_to_end && self.work().stop.is_draining()
    }

    /// Nobody is at work on it here any more, and it has not ended: what is known of it is read anew.
    pub(in crate::fleet) fn leave(&self) {
        self.with_work(|work| work.members = Arc::default());
        if let Some(keeping) = self.keeping.as_ref().filter(|keeping| keeping.owned().is_none()) {
            keeping.read(0);
        }
    }

    /// Whether an attempt of it is under way in this daemon, by right or not.
    pub(in crate::fleet) fn is_under_way(&self) -> bool {
        !self.to_work_with().members.is_empty()
    }

    /// How it is kept, where it is.
    pub(in crate::fleet) fn keeping(&self) -> Option<&Keeping> {
        self.keeping.as_ref()
    }

    fn beside(&self) -> Beside {
        let work = self.to_work_with();
        let Author { requested_by, trace, .. } = work.author;
        Beside { asked_plan: self.asked_plan.clone(), by: requested_by, trace }
    }
}

/// The record while it is changed: at the end, that is to be kept.
pub(super) struct Edit<'a> {
    pub(super) record: MutexGuard<'a, Record>,
    pub(super) keeping: Option<&'a Keeping>,
}

impl Deref for Edit<'_> {
    type Target = Record;

    fn deref(&self) -> &Record {
        &self.record
    }
}

impl DerefMut for Edit<'_> {
    fn deref_mut(&mut self) -> &mut Record {
        &mut self.record
    }
}

impl Drop for Edit<'_> {
    fn drop(&mut self) {
        if let Some(keeping) = self.keeping {
            keeping.changed();
        }
    }
}

/// What scripts have raised themselves is not kept: see [`kept`].
fn without_what_scripts_raised(event: &Event) -> Event {
    let mut event = event.clone();
    match &mut event.kind {
        EventKind::StepFailed { failure, .. } => failure.operator_message = None,
        EventKind::DatabaseFinished(report) => {
            if let Err(failure) = &mut report.result {
                failure.operator_message = None;
            }
        }
        _ => {}
    }
    event
}
