//! The operations that the daemon remembers: those that are not over, and the last ones that are.
//! They are kept in memory: a daemon that starts again begins with none.

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
}

impl Operations {
    /// The operation with this id.
    pub(in crate::fleet) fn get(&self, id: Uuid) -> Option<Arc<Operation>> {
        self.kept.iter().rev().find(|operation| operation.id() == id).cloned()
    }

    /// The one operation whose id begins so.
    pub(in crate::fleet) fn find(&self, id: &str) -> Result<Arc<Operation>, Failure> {
        let id = id.trim().to_ascii_lowercase();
        let is_meant =
            |operation: &&Arc<Operation>| !id.is_empty() && operation.id().to_string().starts_with(&id);
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
        self.kept.retain(|operation| {
            let goes = (events > MOST_EVENTS || count > MOST_OPERATIONS) && operation.state().is_over();
            if goes {
                events -= operation.events() + 1;
                count -= 1;
            }
            !goes
        });
        self.kept.push_back(operation);
    }
}
