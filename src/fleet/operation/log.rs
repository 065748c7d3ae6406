//! What happened in one operation, for those who watch it: from the beginning, and as it goes on.
//!
//! Every watcher reads the same log at a pace of its own: it is a place in the log and has no queue,
//! so that a slow one costs nothing, whatever it misses. The log does not grow with the time that a
//! database takes: when one is done, its result takes the place of everything that was told of it,
//! and a step that goes on tells only how far it is.

use std::{
    collections::{BTreeMap, HashMap},
    ops::Bound,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio::sync::watch;

use crate::{
    control::operations::KeptEvent,
    migration::{Event, EventKind},
};

/// An event of the log.
#[derive(Debug, Clone)]
pub enum Told {
    /// It happened in this daemon.
    Here(Arc<Event>),
    /// It happened in another one, which has kept it as it is sent to whoever watches.
    Elsewhere(Arc<KeptEvent>),
}

/// Where a reader of the log is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Place {
    /// The number of the last event that was read.
    number: u64,
    /// How many events had been told by then.
    count: u64,
}

impl Place {
    /// How many events lie between two places.
    pub(super) fn distance(self, behind: Self) -> u64 {
        self.count.saturating_sub(behind.count)
    }

    /// The later one of two.
    pub(super) fn later(self, other: Self) -> Self {
        if self.count < other.count { other } else { self }
    }
}

/// What has become of an event that the log took.
#[derive(Debug)]
pub(super) struct Taken {
    /// Its number.
    pub(super) number: u64,
    /// The event, as it is kept.
    pub(super) event: Arc<Event>,
    /// The numbers of the events whose place it took.
    pub(super) gone: Vec<u64>,
}

/// What an event takes the place of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Class {
    /// Of nothing.
    Plain,
    /// Of its database's last progress.
    Progress,
    /// Of everything that was told of its database.
    Result,
    /// Of the end of the attempt before.
    End,
}

impl Class {
    const ALL: [Self; 4] = [Self::Plain, Self::Progress, Self::Result, Self::End];

    pub(super) fn of(kind: &EventKind) -> Self {
        match kind {
            EventKind::DatabaseFinished(_) => Self::Result,
            EventKind::StepProgress { .. } => Self::Progress,
            // What was halted may be cancelled: only the last end is one.
            EventKind::OperationFinished { .. } => Self::End,
            _ => Self::Plain,
        }
    }

    /// As it is kept.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Plain => "",
            Self::Progress => "progress",
            Self::Result => "result",
            Self::End => "end",
        }
    }

    fn from_name(name: &str) -> Self {
        Self::ALL.into_iter().find(|class| class.name() == name).unwrap_or(Self::Plain)
    }
}

/// The log.
#[derive(Debug)]
pub(super) struct Log {
    kept: Mutex<Kept>,
    /// How many events were told.
    told: watch::Sender<u64>,
}

#[derive(Debug)]
struct Entry {
    told: Told,
    class: Class,
    /// Which of all that were told it is, from 1.
    count: u64,
}

#[derive(Debug, Default)]
struct Kept {
    /// The events by number.
    events: BTreeMap<u64, Entry>,
    newest: u64,
    told: u64,
    /// The numbers of what is kept of each database.
    of_database: HashMap<String, Vec<u64>>,
    /// The number of the event that says that nobody is at work any more.
    finished: Option<u64>,
}

impl Default for Log {
    fn default() -> Self {
        Self { kept: Mutex::default(), told: watch::Sender::new(0) }
    }
}

impl Log {
    /// Takes the next event.
    pub(super) fn push(&self, mut event: Event) -> Taken {
        let mut kept = self.kept();
        let class = Class::of(&event.kind);
        if let EventKind::DatabaseFinished(report) = &mut event.kind
            // The plan is told where nothing of it was done.
            && let (Some(plan), false) = (&mut report.plan, report.done.is_empty())
        {
            plan.steps = Vec::new();
        }
        let (number, event) = (kept.newest + 1, Arc::new(event));
        let gone = kept.take(number, &event.database, class, Told::Here(event.clone()));
        self.told.send_replace(kept.told);
        Taken { number, event, gone }
    }

    /// Takes an event that another daemon has kept.
    pub(super) fn push_kept(&self, event: KeptEvent) {
        let mut kept = self.kept();
        let number = event.number.unsigned_abs();
        if number > kept.newest {
            let (class, event) = (Class::from_name(&event.class), Arc::new(event));
            kept.take(number, &event.database, class, Told::Elsewhere(event.clone()));
            self.told.send_replace(kept.told);
        }
    }

    /// The next event has a number above this one: those of an owner come after those of the one before,
    /// whatever that one has told without its being kept.
    pub(super) fn begin_above(&self, number: u64) {
        let mut kept = self.kept();
        kept.newest = kept.newest.max(number);
    }

    /// The operation is begun again: what it ended with before is no end any more. Returns its number.
    pub(super) fn reopen(&self) -> Option<u64> {
        let mut kept = self.kept();
        let number = kept.finished.take()?;
        kept.events.remove(&number);
        Some(number)
    }

    /// The first event behind a place, as soon as there is one, with the place behind it.
    pub(super) async fn next(&self, place: Place) -> Option<(Place, Told)> {
        let mut told = self.told.subscribe();
        loop {
            let seen = *told.borrow_and_update();
            if let Some(next) = self.kept().behind(place) {
                return Some(next);
            }
            told.wait_for(|told| *told > seen).await.ok()?;
        }
    }

    /// The place behind the newest event.
    pub(super) fn newest(&self) -> Place {
        let kept = self.kept();
        Place { number: kept.newest, count: kept.told }
    }

    /// The number of the newest event.
    pub(super) fn newest_number(&self) -> u64 {
        self.kept().newest
    }

    /// Whether it has an end.
    pub(super) fn is_finished(&self) -> bool {
        self.kept().finished.is_some()
    }

    /// How many events are kept.
    pub(super) fn len(&self) -> usize {
        self.kept().events.len()
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Told {
    /// Whether nobody is at work on the operation any more.
    pub(super) fn is_end(&self) -> bool {
        match self {
            Self::Here(event) => Class::of(&event.kind) == Class::End,
            Self::Elsewhere(event) => Class::from_name(&event.class) == Class::End,
        }
    }
}

impl Kept {
    /// Puts an event in its place; returns the numbers of those whose place it takes.
    fn take(&mut self, number: u64, database: &str, class: Class, told: Told) -> Vec<u64> {
        let gone = match class {
            Class::Plain => Vec::new(),
            Class::Result => self.forget(database, |_| true),
            Class::Progress => self.forget(database, |class| class == Class::Progress),
            Class::End => {
                let old = self.finished.replace(number);
                old.inspect(|old| drop(self.events.remove(old))).into_iter().collect()
            }
        };
        self.newest = number;
        self.told += 1;
        if !database.is_empty() {
            self.of_database.entry(database.to_owned()).or_default().push(number);
        }
        self.events.insert(number, Entry { told, class, count: self.told });
        gone
    }

    fn behind(&self, place: Place) -> Option<(Place, Told)> {
        let mut behind = self.events.range((Bound::Excluded(place.number), Bound::Unbounded));
        let (number, entry) = behind.next()?;
        Some((Place { number: *number, count: entry.count }, entry.told.clone()))
    }

    /// Forgets what is kept of a database; returns the numbers.
    fn forget(&mut self, database: &str, is_meant: impl Fn(Class) -> bool) -> Vec<u64> {
        let Some(numbers) = self.of_database.get_mut(database) else { return Vec::new() };
        let (events, mut gone) = (&mut self.events, Vec::new());
        numbers.retain(|number| {
            let goes = events.get(number).is_none_or(|entry| is_meant(entry.class));
            if goes {
                events.remove(number);
                gone.push(*number);
            }
            !goes
        });
        gone
    }
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;
    use uuid::Uuid;

    use super::*;
    use crate::migration::{
        OperationState, Version,
        event::{DatabaseOutcome, DatabaseReport},
    };

    fn event(database: &str, kind: EventKind) -> Event {
        let time = Timestamp::UNIX_EPOCH;
        Event { operation: Uuid::nil(), trace: None, time, database: database.to_owned(), kind }
    }

    fn notice(message: &str) -> EventKind {
        EventKind::Notice { version: None, message: message.to_owned() }
    }

    fn progress(done: u64) -> EventKind {
        EventKind::StepProgress { version: Version::from_row("0001_a"), done, total: 9 }
    }

    fn finished(database: &str) -> EventKind {
        let result = Ok(DatabaseOutcome::UpToDate);
        let (database, done) = (database.to_owned(), Vec::new());
        EventKind::DatabaseFinished(Box::new(DatabaseReport {
            database,
            plan: None,
            done,
            done_before: Vec::new(),
            result,
            duration_ms: 1,
        }))
    }

    fn ended() -> EventKind {
        let (why, not_begun) = (String::new(), Vec::new());
        EventKind::OperationFinished { state: OperationState::Failed, why, not_begun, attempt: 1 }
    }

    /// What somebody reads who begins behind a place, in short.
    fn read(log: &Log, number: u64) -> String {
        let (mut told, mut place) = (Vec::new(), Place { number, count: 0 });
        while let Some((next, event)) = log.kept().behind(place) {
            place = next;
            let number = place.number;
            let event = match event {
                Told::Here(event) => event,
                Told::Elsewhere(event) => {
                    told.push(format!("{number} {} from elsewhere", event.database));
                    continue;
                }
            };
            let what = match &event.kind {
                EventKind::Notice { message, .. } => message.clone(),
                EventKind::StepProgress { done, .. } => format!("progress {done}"),
                EventKind::DatabaseFinished(_) => "finished".to_owned(),
                EventKind::OperationFinished { .. } => "end".to_owned(),
                _ => String::new(),
            };
            told.push(format!("{number} {} {what}", event.database));
        }
        told.join(", ")
    }

    #[test]
    fn a_result_takes_the_place_of_what_led_to_it() {
        let log = Log::default();
        for (database, kind) in [
            ("a", notice("one")),
            ("a", progress(1)),
            ("b", notice("two")),
            ("a", progress(2)),
            ("a", progress(3)),
        ] {
            log.push(event(database, kind));
        }
        assert_eq!(read(&log, 0), "1 a one, 3 b two, 5 a progress 3");
        log.push(event("a", finished("a")));
        assert_eq!(read(&log, 0), "3 b two, 6 a finished");
        assert_eq!(read(&log, 4), "6 a finished", "who was behind hears the result all the same");
        log.push(event("", ended()));
        // The second attempt.
        log.reopen();
        log.push(event("a", finished("a")));
        assert_eq!(read(&log, 0), "3 b two, 8 a finished");
        assert_eq!((log.len(), log.newest_number()), (2, 8));
    }

    #[test]
    fn what_is_halted_and_then_cancelled_has_one_end() {
        let log = Log::default();
        log.push(event("a", finished("a")));
        log.push(event("", ended()));
        log.push(event("", notice("cancelled")));
        log.push(event("", ended()));
        assert_eq!(read(&log, 0), "1 a finished, 3  cancelled, 4  end");
        log.reopen();
        log.push(event("", notice("again")));
        assert_eq!(read(&log, 0), "1 a finished, 3  cancelled, 5  again");
    }

    #[test]
    fn what_another_daemon_has_kept_takes_the_same_places() {
        let log = Log::default();
        let kept = |number, class: Class| KeptEvent {
            number,
            database: "a".to_owned(),
            class: class.name().to_owned(),
            body: Vec::new(),
        };
        log.push_kept(kept(1, Class::Plain));
        log.push_kept(kept(3, Class::Progress));
        log.push_kept(kept(3, Class::Progress));
        assert_eq!(read(&log, 0), "1 a from elsewhere, 3 a from elsewhere", "what is known comes once");
        // This daemon goes on with it.
        log.begin_above(1 << 32);
        let taken = log.push(event("a", finished("a")));
        assert_eq!((taken.number, taken.gone), ((1 << 32) + 1, vec![1, 3]));
        assert_eq!(log.newest().distance(Place { number: 3, count: 2 }), 1, "numbers may leap");
    }

    #[tokio::test]
    async fn who_has_read_everything_waits_for_more() {
        let log = Arc::new(Log::default());
        log.push(event("a", progress(1)));
        let (place, _) = log.next(Place::default()).await.expect("there is one");
        let next = async { log.next(place).await.map(|(place, _)| place.number) };
        let push = async {
            tokio::task::yield_now().await;
            log.push(event("a", finished("a")));
        };
        assert_eq!(tokio::join!(next, push).0, Some(2));
    }
}
