//! Taking over: going on with an operation whose owner is one no more, from each database's truth.

use std::{collections::BTreeMap, sync::Arc, time::Instant};

use uuid::Uuid;

use crate::{
    fleet::{
        Fleet, Shared,
        inventory::Member,
        operation::{DatabaseRecord, Operation},
        steer::read_catalogs,
    },
    migration::{Failure, OperationState},
    runtime::faults,
};

impl Fleet {
    /// Takes over every operation that somebody has to be at work on and nobody is.
    pub(super) async fn take_over_all(self: &Arc<Self>, shared: &Shared) -> Result<(), Failure> {
        loop {
            let asked = Instant::now();
            let Some((id, fence)) = shared.control.take_over(&self.left_to_others(shared)).await? else {
                return Ok(());
            };
            let Some(operation) = self.mirror(shared, id).await? else {
                shared.control.hand_over(id, fence).await?;
                continue;
            };
            faults::reached("operation", "claimed");
            self.own(shared, &operation, fence, asked);
            // From here on it is under way, and not taken again.
            let members = self.members_of(&operation);
            operation.with_work(|work| work.members = Arc::new(members.clone()));
            tracing::info!(operation = %id, fence, "the operation is taken over: nobody was at work on it");
            let (fleet, taken) = (self.clone(), operation.clone());
            let work = self.tasks.spawn("take-over", async move { fleet.go_on_with(taken, members).await });
            drop(self.tasks.spawn("take-over's end", async move {
                if work.await.is_err() {
                    operation.abandon();
                }
            }));
        }
    }

    /// The operations that this daemon does not take over now: those whose attempt of its own is about
    /// to end, those that it cannot read, and those about databases that it does not know, as long as
    /// some may still be found.
    fn left_to_others(&self, shared: &Shared) -> Vec<Uuid> {
        let (inventory, is_complete) = (self.inventory(), self.is_inventory_complete());
        let is_known = |operation: &Operation| {
            is_complete || operation.look(|it| it.databases.keys().all(|name| inventory.get(name).is_some()))
        };
        let operations = self.list_operations();
        let left = operations.iter().filter(|operation| operation.is_under_way() || !is_known(operation));
        let mut left: Vec<_> = left.map(|operation| operation.id()).collect();
        left.extend(shared.unreadable().iter());
        left
    }

    /// Takes an operation that is at rest, where nobody owns it.
    pub(super) async fn take(
        self: &Arc<Self>,
        shared: &Shared,
        operation: &Arc<Operation>,
    ) -> Result<(), Failure> {
        let asked = Instant::now();
        let Some(fence) = shared.control.take(operation.id()).await? else { return Ok(()) };
        // It may be another nexusd's form by now, which this one cannot read.
        if self.mirror(shared, operation.id()).await?.is_none() || !operation.state().is_at_rest() {
            return shared.control.hand_over(operation.id(), fence).await;
        }
        self.own(shared, operation, fence, asked);
        Ok(())
    }

    fn own(&self, shared: &Shared, operation: &Operation, fence: i64, asked: Instant) {
        let Some(keeping) = operation.keeping() else { return };
        let owned = shared.owned(fence, asked);
        operation.with_work(|work| work.stop = self.stop_of_an_attempt(Some(owned.lease.clone())));
        let revision = keeping.revision();
        operation.look(|record| keeping.own(owned, record, revision));
        operation.number_from(fence);
    }

    /// Runs the next attempt of an operation that was taken over.
    async fn go_on_with(self: Arc<Self>, operation: Arc<Operation>, members: BTreeMap<String, Arc<Member>>) {
        if operation.state().is_at_rest() {
            operation.leave();
            operation.tell_end();
            return;
        }
        let stop = operation.to_work_with().stop;
        let catalogs = tokio::select! {
            catalogs = read_catalogs(members.values()) => catalogs,
            // The file system may hang.
            () = stop.drain.cancelled() => Vec::new(),
        };
        if operation.is_suspended() || !operation.is_owned() {
            operation.leave();
            return;
        }
        operation.with_work(|work| {
            work.take_catalogs(catalogs);
            work.takes_over = true;
        });
        // Whoever approves is told what has moved since it was asked for.
        let is_to_be_approved = operation.state() == OperationState::AwaitingApproval;
        let moved = if is_to_be_approved { Ok(()) } else { operation.refuse_moved_since(&members) };
        operation.take_over();
        if let Err(failure) = moved {
            let why = format!(
                "the nexusd that was at work on it is gone, and the migrations are not those that it began with: {}",
                failure.details.first().unwrap_or(&failure.message)
            );
            operation.finish(OperationState::Halted, &why);
            return;
        }
        faults::reached("operation", "taken over");
        self.work_on(&operation);
    }
}

impl Operation {
    /// What nobody is at work on any more waits for its turn.
    fn take_over(&self) {
        self.update(|record| {
            // What waits for its approval has not begun.
            if record.state != OperationState::AwaitingApproval {
                self.begin_again(record);
            }
            record.databases.values_mut().for_each(DatabaseRecord::take_over);
        });
    }

    /// Refuses where the migrations of what is still to be done are not those that it began with.
    fn refuse_moved_since(&self, members: &BTreeMap<String, Arc<Member>>) -> Result<(), Failure> {
        let is_open =
            |name: &str| self.look(|record| record.databases.get(name).is_some_and(|it| !it.state.is_well()));
        let open = members.values().filter(|member| is_open(member.name()));
        self.refuse_elsewhere(open, &self.to_work_with().catalogs)
    }
}
