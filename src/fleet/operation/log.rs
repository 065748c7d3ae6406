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

use crate::migration::{Event, EventKind};

/// The log.
#[derive(Debug)]
pub(super) struct Log {
    kept: Mutex<Kept>,
    /// The number of the newest event; 0 where there is none.
    newest: watch::Sender<u64>,
}

#[derive(Debug, Default)]
struct Kept {
    /// The events by number, from 1.
    events: BTreeMap<u64, Arc<Event>>,
    newest: u64,
    /// The numbers of what is kept of each database.
    of_database: HashMap<String, Vec<u64>>,
    /// The number of the event that says that nobody is at work any more.
    finished: Option<u64>,
}

impl Default for Log {
    fn default() -> Self {
        Self { kept: Mutex::default(), newest: watch::Sender::new(0) }
    }
}

impl Log {
    /// Takes the next event.
    pub(super) fn push(&self, mut event: Event) {
        let mut kept = self.kept();
        let number = kept.newest + 1;
        match &mut event.kind {
            EventKind::DatabaseFinished(report) => {
                // The plan is told where nothing of it was done.
                if let (Some(plan), false) = (&mut report.plan, report.done.is_empty()) {
                    plan.steps = Vec::new();
                }
                kept.forget(&event.database, |_| true);
            }
            EventKind::StepProgress { .. } => {
                kept.forget(&event.database, |kind| matches!(kind, EventKind::StepProgress { .. }));
            }
            // What was halted may be cancelled: only the last end is one.
            EventKind::OperationFinished { .. } => {
                if let Some(old) = kept.finished.replace(number) {
                    kept.events.remove(&old);
                }
            }
            _ => {}
        }
        kept.newest = number;
        if !event.database.is_empty() {
            kept.of_database.entry(event.database.clone()).or_default().push(number);
        }
        kept.events.insert(number, Arc::new(event));
        self.newest.send_replace(number);
    }

    /// The operation is begun again: what it ended with before is no end any more.
    pub(super) fn reopen(&self) {
        let mut kept = self.kept();
        if let Some(number) = kept.finished.take() {
            kept.events.remove(&number);
        }
    }

    /// The first event behind a place, as soon as there is one, with its number.
    pub(super) async fn next(&self, place: u64) -> Option<(u64, Arc<Event>)> {
        let mut newest = self.newest.subscribe();
        loop {
            let seen = *newest.borrow_and_update();
            if let Some(next) = self.kept().behind(place) {
                return Some(next);
            }
            newest.wait_for(|newest| *newest > seen).await.ok()?;
        }
    }

    /// The number of the newest event.
    pub(super) fn newest(&self) -> u64 {
        *self.newest.borrow()
    }

    /// How many events are kept.
    pub(super) fn len(&self) -> usize {
        self.kept().events.len()
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Kept {
    fn behind(&self, place: u64) -> Option<(u64, Arc<Event>)> {
        let mut behind = self.events.range((Bound::Excluded(place), Bound::Unbounded));
        behind.next().map(|(number, event)| (*number, event.clone()))
    }

    /// Forgets what is kept of a database.
    fn forget(&mut self, database: &str, is_meant: impl Fn(&EventKind) -> bool) {
        let Some(numbers) = self.of_database.get_mut(database) else { return };
        let events = &mut self.events;
        numbers.retain(|number| {
            let goes = events.get(number).is_none_or(|event| is_meant(&event.kind));
            if goes {
                events.remove(number);
            }
            !goes
        });
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
            result,
            duration_ms: 1,
        }))
    }

    fn ended() -> EventKind {
        let (why, not_begun) = (String::new(), Vec::new());
        EventKind::OperationFinished { state: OperationState::Failed, why, not_begun, attempt: 1 }
    }

    /// What somebody reads who begins behind a place, in short.
    fn read(log: &Log, mut place: u64) -> String {
        let mut told = Vec::new();
        while let Some((number, event)) = log.kept().behind(place) {
            place = number;
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
        assert_eq!((log.len(), log.newest()), (2, 8));
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

    #[tokio::test]
    async fn who_has_read_everything_waits_for_more() {
        let log = Arc::new(Log::default());
        log.push(event("a", progress(1)));
        let (number, _) = log.next(0).await.expect("there is one");
        let next = async { log.next(number).await.map(|(number, _)| number) };
        let push = async {
            tokio::task::yield_now().await;
            log.push(event("a", finished("a")));
        };
        assert_eq!(tokio::join!(next, push).0, Some(2));
    }
}
