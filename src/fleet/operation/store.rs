//! The operations that the daemon remembers: those that are not over, and the last ones that are.
//! A daemon that starts again begins with none, or with those that the control database keeps.

use std::{collections::VecDeque, sync::Arc};

use uuid::Uuid;

use crate::{
    fleet::operation::Operation,
    migration::{Code, Failure},
};

/// How many events are kept in all; the oldest operations that are over go first.
const MOST_EVENTS: usize = 30_000;

/// How many operations are.
const MOST_OPERATIONS: usize = 1_000;

/// The operations, the oldest first.
#[derive(Default)]
pub(in crate::fleet) struct Operations {
    kept: VecDeque<Arc<Operation>>,
    /// When the newest of the ids that were forgotten was made, in milliseconds since 1970; an id that
    /// bears no time is as old as can be.
    forgotten: Option<u64>,
}

/// When an id was made, in milliseconds since 1970, where it bears its time.
pub(in crate::fleet) fn made(id: Uuid) -> Option<u64> {
    let (seconds, nanos) = id.get_timestamp()?.to_unix();
    Some(seconds * 1_000 + u64::from(nanos) / 1_000_000)
}

impl Operations {
    /// The operation with this id.
    pub(in crate::fleet) fn get(&self, id: Uuid) -> Option<Arc<Operation>> {
        self.kept.iter().rev().find(|operation| operation.id() == id).cloned()
    }

    /// Whether an operation with this id may have been here, and is forgotten.
    pub(in crate::fleet) fn may_have_forgotten(&self, id: Uuid) -> bool {
        self.forgotten.is_some_and(|newest| made(id).is_none_or(|made| made <= newest))
    }

    /// Forgets an operation that was not begun after all.
    pub(in crate::fleet) fn take_back(&mut self, taken: &Arc<Operation>) {
        self.kept.retain(|operation| !Arc::ptr_eq(operation, taken));
    }

    /// The one operation whose id begins so, of those that are there for whoever asks.
    pub(in crate::fleet) fn find(
        &self,
        id: &str,
        is_there: impl Fn(&Operation) -> bool,
    ) -> Result<Arc<Operation>, Failure> {
        let id = id.trim().to_ascii_lowercase();
        let is_meant = |operation: &&Arc<Operation>| {
            !id.is_empty() && operation.id().to_string().starts_with(&id) && is_there(operation)
        };
        let mut found = self.kept.iter().rev().filter(is_meant);
        match (found.next(), found.next()) {
            (None, _) => {
                Err(Failure::new(Code::UnknownOperation, format!("No operation {id:?} is remembered")))
            }
            (Some(operation), None) => Ok(operation.clone()),
            (Some(_), Some(_)) => {
                let meant = self.kept.iter().rev().filter(is_meant).take(20);
                let lines = meant.map(|operation| operation.line()).collect();
                let message = format!("Several operations begin with {id:?}");
                Err(Failure::new(Code::BadRequest, message).details(lines))
            }
        }
    }

    /// All of them, the newest first.
    pub(in crate::fleet) fn newest(&self) -> impl Iterator<Item = &Arc<Operation>> {
        self.kept.iter().rev()
    }

    /// Remembers one more, and forgets what there is no room for.
    pub(in crate::fleet) fn add(&mut self, operation: Arc<Operation>) {
        let mut events: usize = self.kept.iter().map(|operation| operation.events() + 1).sum();
        let mut count = self.kept.len() + 1;
        let forgotten = &mut self.forgotten;
        self.kept.retain(|operation| {
            let goes = (events > MOST_EVENTS || count > MOST_OPERATIONS) && operation.state().is_over();
            if goes {
                events -= operation.events() + 1;
                count -= 1;
                *forgotten = (*forgotten).max(Some(made(operation.id()).unwrap_or_default()));
            }
            !goes
        });
        self.kept.push_back(operation);
    }
}

#[cfg(test)]
mod tests {
    use uuid::{NoContext, Timestamp};

    use super::*;
    use crate::{fleet::operation::watcher::tests::with_id, migration::OperationState};

    fn id(second: u64) -> Uuid {
        Uuid::new_v7(Timestamp::from_unix(NoContext, second, 0))
    }

    #[test]
    fn what_was_forgotten_may_come_again() {
        let mut operations = Operations::default();
        let (first, second) = (id(1), id(2));
        for id in [first, second] {
            let operation = with_id(id);
            operation.finish(OperationState::Succeeded, "");
            operations.add(operation);
        }
        assert!(!operations.may_have_forgotten(first));
        while operations.get(first).is_some() {
            operations.add(with_id(id(3)));
        }
        assert_eq!(operations.kept.len(), MOST_OPERATIONS);
        assert!(operations.may_have_forgotten(first));
        assert!(operations.may_have_forgotten(Uuid::from_u128(7)), "it bears no time");
        assert!(!operations.may_have_forgotten(id(9)));
    }
}
