//! Operations: what happened in each, kept for those who watch it and for requests made again.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, PoisonError},
};

use tokio::sync::watch;
use uuid::Uuid;

use crate::{
    engine::Verb,
    fleet::selector::Selection,
    migration::{Event, EventKind},
};

/// How many events are kept in all; the oldest operations that have ended go first.
const MAX_EVENTS: usize = 8_000;

/// One operation.
pub struct Operation {
    id: Uuid,
    verb: Verb,
    selection: Selection,
    events: Mutex<Vec<Arc<Event>>>,
    /// How many events there are.
    count: watch::Sender<usize>,
}

impl Operation {
    fn new(id: Uuid, verb: Verb, selection: Selection) -> Self {
        Self { id, verb, selection, events: Mutex::default(), count: watch::Sender::new(0) }
    }

    /// Its id.
    pub fn id(&self) -> Uuid {
        self.id
    }

    /// What it does.
    pub fn verb(&self) -> &Verb {
        &self.verb
    }

    /// Whether it was asked for by these very words.
    pub fn is_of(&self, verb: &Verb, selection: &Selection) -> bool {
        self.verb == *verb && self.selection == *selection
    }

    /// The event with this number, from 0, as soon as it has happened.
    pub async fn event(&self, number: usize) -> Option<Arc<Event>> {
        let mut count = self.count.subscribe();
        count.wait_for(|count| *count > number).await.ok()?;
        self.events.lock().unwrap_or_else(PoisonError::into_inner).get(number).cloned()
    }

    fn push(&self, event: Event) {
        let mut events = self.events.lock().unwrap_or_else(PoisonError::into_inner);
        events.push(Arc::new(event));
        self.count.send_replace(events.len());
    }

    fn len(&self) -> usize {
        *self.count.borrow()
    }

    fn has_ended(&self) -> bool {
        let events = self.events.lock().unwrap_or_else(PoisonError::into_inner);
        matches!(events.last().map(|event| &event.kind), Some(EventKind::OperationFinished { .. }))
    }
}

/// The operations that are under way, and the last ones that ended.
#[derive(Default)]
pub(super) struct Operations {
    kept: VecDeque<Arc<Operation>>,
}

impl Operations {
    pub(super) fn get(&self, id: Uuid) -> Option<Arc<Operation>> {
        self.kept.iter().find(|operation| operation.id == id).cloned()
    }

    pub(super) fn begin(&mut self, id: Uuid, verb: Verb, selection: Selection) -> Arc<Operation> {
        self.make_room();
        let operation = Arc::new(Operation::new(id, verb, selection));
        self.kept.push_back(operation.clone());
        operation
    }

    pub(super) fn publish(&self, event: Event) {
        if let Some(operation) = self.get(event.operation) {
            operation.push(event);
        }
    }

    fn make_room(&mut self) {
        let mut events: usize = self.kept.iter().map(|operation| operation.len() + 1).sum();
        self.kept.retain(|operation| {
            let goes = events > MAX_EVENTS && operation.has_ended();
            if goes {
                events -= operation.len() + 1;
            }
            !goes
        });
    }
}
