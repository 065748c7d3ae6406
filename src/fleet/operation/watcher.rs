//! Somebody who watches an operation: what happened, from the beginning, and then what happens.

use std::sync::Arc;

use crate::{
    fleet::operation::{
        Operation,
        log::{Place, Told},
    },
    migration::{Code, Failure},
};

/// How many events somebody who has caught up may fall behind.
const MOST_BEHIND: u64 = 10_000;

/// A reader of one operation's log.
pub struct Watcher {
    operation: Arc<Operation>,
    /// Behind the last event that was read.
    place: Place,
    /// Until there, everything had happened before the watcher came.
    caught_up: Place,
    has_ended: bool,
}

impl Watcher {
    pub(super) fn new(operation: Arc<Operation>) -> Self {
        let caught_up = operation.log.newest();
        Self { operation, place: Place::default(), caught_up, has_ended: false }
    }

    /// The next event, as soon as there is one; `None` when nobody is at work on the operation any
    /// more. Whoever is far too slow is refused, once: the work waits for nobody.
    pub async fn next(&mut self) -> Option<Result<Told, Failure>> {
        if self.has_ended {
            return None;
        }
        let newest = self.operation.log.newest();
        if is_too_slow(newest, self.place, self.caught_up) {
            self.has_ended = true;
            return Some(Err(self.too_slow()));
        }
        let (place, told) = self.operation.log.next(self.place).await?;
        self.place = place;
        self.has_ended = told.is_end();
        Some(Ok(told))
    }

    fn too_slow(&self) -> Failure {
        let message = format!("Too slow to watch: {MOST_BEHIND} events behind; the operation goes on");
        let hint = format!("nexusctl operation watch {} attaches again", self.operation.id);
        Failure::new(Code::TooSlow, message).hint(hint)
    }
}

/// Whether somebody at this place has fallen too far behind the newest event. What had happened
/// before he came may be read at any pace.
fn is_too_slow(newest: Place, place: Place, caught_up: Place) -> bool {
    newest.distance(place.later(caught_up)) > MOST_BEHIND
}

#[cfg(test)]
pub(super) mod tests {
    use std::collections::BTreeMap;

    use jiff::Timestamp;
    use tokio::sync::mpsc;
    use uuid::Uuid;

    use super::*;
    use crate::{
        engine::{Stop, Verb},
        fleet::{
            Sink,
            operation::{Record, Work},
            selector::Selection,
            strategy::Strategy,
        },
        migration::{Event, EventKind, OperationState, TraceContext},
        postgres::executor::Author,
    };

    fn operation() -> Arc<Operation> {
        with_id(Uuid::from_u128(7))
    }

    /// An operation without databases.
    pub(in crate::fleet::operation) fn with_id(id: Uuid) -> Arc<Operation> {
        let now = Timestamp::UNIX_EPOCH;
        let record = Record {
            id,
            verb: Verb::Recover { resume: false },
            requested_by: "eve".to_owned(),
            reason: String::new(),
            selection: Selection::default(),
            strategy: Strategy::default(),
            plan: None,
            approval: None,
            state: OperationState::Pending,
            why: String::new(),
            attempt: 1,
            pauses_until: None,
            undoing: None,
            waves: Vec::new(),
            databases: BTreeMap::new(),
            created: now,
            changed: now,
            ended: None,
        };
        let trace = TraceContext { trace: 1, span: 1, sampled: false };
        let (requested_by, instance) = ("eve".to_owned(), String::new());
        let author = Author { operation: id, requested_by, instance, trace };
        // Nobody hears what the operation itself tells: the test does it.
        let (events, _) = mpsc::unbounded_channel();
        let sink = Arc::new(Sink { operation: id, trace: None, events });
        let (members, catalogs) = (Arc::default(), Arc::default());
        let work = Work { author, stop: Stop::default(), sink, members, catalogs, takes_over: false };
        Arc::new(Operation::new(record, work, None, None))
    }

    fn tell(operation: &Operation, kind: EventKind) {
        let (time, database) = (Timestamp::UNIX_EPOCH, String::new());
        operation.publish(Event { operation: operation.id(), trace: None, time, database, kind });
    }

    fn notice() -> EventKind {
        EventKind::Notice { version: None, message: "so".to_owned() }
    }

    fn end(attempt: u32) -> EventKind {
        let (why, not_begun) = (String::new(), Vec::new());
        EventKind::OperationFinished { state: OperationState::Succeeded, why, not_begun, attempt }
    }

    async fn drain(watcher: &mut Watcher) -> (usize, Option<Failure>) {
        let mut count = 0;
        while let Some(next) = watcher.next().await {
            match next {
                Ok(_) => count += 1,
                Err(failure) => return (count, Some(failure)),
            }
        }
        (count, None)
    }

    #[test]
    fn what_is_done_by_itself_yields_to_whoever_steers_it() {
        use OperationState::{Failed, Paused, Pending, Running};
        let operation = operation();
        assert_eq!(operation.go(&[Running], Paused, "no"), None);
        assert!(operation.go(&[Pending], Running, "").is_some());
        let moved = operation.go(&[Running], Paused, "for a time").expect("it runs");
        // Paused by hand meanwhile, it stays so.
        operation
            .obey(crate::fleet::operation::Command::Pause, "eve", |_, _| Ok(()))
            .expect("it may be paused");
        operation.go_unmoved(moved, Running, "");
        assert_eq!(
            (operation.state(), operation.look(|it| it.why.clone())),
            (Paused, "paused by eve".to_owned())
        );
        operation.abandon();
        assert_eq!(operation.state(), Failed);
        assert!(operation.to_work_with().stop.cancel.is_cancelled(), "what is still under way is stopped");
    }

    #[tokio::test]
    async fn who_is_far_behind_is_dropped_and_may_come_again() {
        let operation = operation();
        for _ in 0..=MOST_BEHIND {
            tell(&operation, notice());
        }
        // The past may be as long as it likes.
        let (mut late, mut slow) = (operation.watch(), operation.watch());
        for _ in 0..=MOST_BEHIND {
            tell(&operation, notice());
        }
        let (count, failure) = drain(&mut slow).await;
        let failure = failure.expect("he is dropped");
        assert_eq!((count, failure.code), (0, Code::TooSlow));
        assert!(failure.remedy().contains(&format!("nexusctl operation watch {}", operation.id())));
        assert!(slow.next().await.is_none(), "it is said once");
        assert!(drain(&mut late).await.1.is_some());
        // An end of an attempt that is over is none of this one's.
        tell(&operation, end(0));
        tell(&operation, end(1));
        let (count, failure) = drain(&mut operation.watch()).await;
        assert_eq!((count as u64, failure), (2 * (MOST_BEHIND + 1) + 1, None));
    }
}
