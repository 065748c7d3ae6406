//! Mirroring: what other daemons have done with their operations, in this one's memory.

use std::sync::Arc;

use uuid::Uuid;

use crate::{
    control::operations::Kept,
    engine::Stop,
    fleet::{
        Fleet, Shared,
        operation::{Keeping, Operation, Record, Work, kept},
    },
    migration::{DatabaseState, Failure, OperationState},
    postgres::executor::Author,
    runtime::faults,
};

/// How many operations are mirrored, the newest.
const MOST: i64 = 1_000;

impl Fleet {
    /// Reads every operation that has changed.
    pub(super) async fn mirror_all(self: &Arc<Self>, shared: &Shared) -> Result<(), Failure> {
        let mut places = shared.control.places(MOST).await?;
        // The oldest first: they are listed in the order in which they come.
        places.reverse();
        for place in places {
            let known = self.operations().get(place.id);
            let is_left =
                || self.operations().may_have_forgotten(place.id) || shared.unreadable().contains(&place.id);
            let is_unreadable = shared.unreadable().contains(&place.id);
            if known.is_none() && (is_unreadable || (!place.is_active && is_left())) {
                continue;
            }
            let is_news = known
                .as_ref()
                .and_then(|operation| operation.keeping())
                .is_none_or(|keeping| keeping.owned().is_none() && keeping.revision() < place.revision);
            if is_news && !known.is_some_and(|operation| operation.is_under_way()) {
                self.mirror(shared, place.id).await?;
            }
        }
        Ok(())
    }

    /// Reads one operation anew; `None` where it is kept no more, or cannot be read.
    pub(in crate::fleet) async fn mirror(
        self: &Arc<Self>,
        shared: &Shared,
        id: Uuid,
    ) -> Result<Option<Arc<Operation>>, Failure> {
        let known = self.operations().get(id);
        let (since, behind) = known.as_ref().map_or((0, 0), |operation| {
            (operation.keeping().map_or(0, Keeping::revision), operation.last_number())
        });
        let Some(kept) = shared.control.read(id, since, behind).await? else { return Ok(None) };
        faults::reached("operation", "read");
        match self.read(shared, id, known, kept) {
            Ok(operation) => Ok(Some(operation)),
            Err(error) => {
                if shared.unreadable().insert(id) {
                    tracing::warn!(operation = %id, error, "the operation is left to a nexusd that can read it");
                }
                Ok(None)
            }
        }
    }

    fn read(
        &self,
        shared: &Shared,
        id: Uuid,
        known: Option<Arc<Operation>>,
        kept: Kept,
    ) -> Result<Arc<Operation>, String> {
        let operation = match known {
            Some(operation) => operation,
            None => self.remember(shared, id, &kept)?,
        };
        // This daemon has taken it while it was read.
        if operation.keeping().is_some_and(|keeping| keeping.owned().is_some()) {
            return Ok(operation);
        }
        let before = operation.look(Before::of);
        operation.take_in(kept)?;
        let after = operation.look(Before::of);
        self.tell_of_mirrored(&operation, &before, &after);
        Ok(operation)
    }

    /// Puts an operation among those that are known, as it was when it was made.
    fn remember(&self, shared: &Shared, id: Uuid, kept: &Kept) -> Result<Arc<Operation>, String> {
        let (record, beside) = kept::read_operation(id, &kept.document)?;
        let author = Author {
            operation: id,
            requested_by: beside.by,
            instance: self.settings.instance.clone(),
            trace: beside.trace,
        };
        let work = Work {
            sink: self.sink(id, Some(author.trace)),
            author,
            stop: Stop::default(),
            members: Arc::default(),
            catalogs: Arc::default(),
            takes_over: false,
        };
        let operation = Operation::new(record, work, Some(shared.keeping()), beside.asked_plan);
        let operation = Arc::new(operation);
        let mut operations = self.operations();
        // A request may have asked for it while it was read.
        if let Some(known) = operations.get(id) {
            return Ok(known);
        }
        operations.add(operation.clone());
        Ok(operation)
    }

    /// What follows from what another daemon has done.
    fn tell_of_mirrored(&self, operation: &Operation, before: &Before, after: &Before) {
        if (before.state == OperationState::Halted) != (after.state == OperationState::Halted) {
            self.tell_halted();
        }
        if before.ended != after.ended {
            let inventory = self.inventory();
            operation.look(|record| {
                for (name, database) in &record.databases {
                    let is_news = database.ended.is_some() && database.ended > before.ended;
                    if let Some(member) = inventory.get(name).filter(|_| is_news) {
                        member.nudge(tokio::time::Instant::now());
                    }
                }
            });
        }
    }
}

/// What is compared of an operation before and after it was read.
struct Before {
    state: OperationState,
    /// When the last run on a database ended.
    ended: Option<jiff::Timestamp>,
}

impl Before {
    fn of(record: &Record) -> Self {
        let is_done =
            |state: DatabaseState| !matches!(state, DatabaseState::Waiting | DatabaseState::Running);
        let done = record.databases.values().filter(|database| is_done(database.state));
        Self { state: record.state, ended: done.filter_map(|database| database.ended).max() }
    }
}
