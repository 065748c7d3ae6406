//! Somebody who watches an operation: what happened, from the beginning, and then what happens.

use std::sync::Arc;

use crate::{
    fleet::operation::Operation,
    migration::{Code, Event, EventKind, Failure},
};

/// How many events somebody who has caught up may fall behind.
const MOST_BEHIND: u64 = 10_000;

/// A reader of one operation's log.
pub struct Watcher {
    operation: Arc<Operation>,
    /// The last event that was read.
    place: u64,
    /// Until there, everything had happened before the watcher came.
    caught_up: u64,
    has_ended: bool,
}

impl Watcher {
    pub(super) fn new(operation: Arc<Operation>) -> Self {
        let caught_up = operation.log.newest();
        Self { operation, place: 0, caught_up, has_ended: false }
    }

    /// The next event, as soon as there is one; `None` when nobody is at work on the operation any
    /// more. Whoever is far too slow is refused, once: the work waits for nobody.
    pub async fn next(&mut self) -> Option<Result<Arc<Event>, Failure>> {
        if self.has_ended {
            return None;
        }
        let behind = self.operation.log.newest().saturating_sub(self.place.max(self.caught_up));
        if behind > MOST_BEHIND {
            self.has_ended = true;
            return Some(Err(self.too_slow()));
        }
        let (number, event) = self.operation.log.next(self.place).await?;
        self.place = number;
        self.has_ended = matches!(event.kind, EventKind::OperationFinished { .. });
        Some(Ok(event))
    }

    fn too_slow(&self) -> Failure {
        let message = format!("Too slow to watch: {MOST_BEHIND} events behind; the operation goes on");
        let hint = format!("nexusctl operation watch {} attaches again", self.operation.id);
        Failure::new(Code::TooSlow, message).hint(hint)
    }
}
