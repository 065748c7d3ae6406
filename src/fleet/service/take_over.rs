//! Taking over: going on with an operation whose owner is one no more, from each database's truth.

use std::{collections::BTreeMap, sync::Arc, time::Instant};

use crate::{
    engine::{self, Done},
    fleet::{Fleet, Shared, inventory::Member, operation::Operation, run, steer::read_catalogs},
    migration::{Code, DatabaseState, Failure, OperationState},
};

impl Fleet {
    /// Takes over every operation that somebody has to be at work on and nobody is.
    pub(super) async fn take_over_all(self: &Arc<Self>, shared: &Shared) -> Result<(), Failure> {
        loop {
            // An attempt of this daemon's own may still be about to end.
            let operations = self.list_operations();
            let ending = operations.iter().filter(|operation| operation.is_under_way());
            let mut but: Vec<_> = ending.map(|operation| operation.id()).collect();
            but.extend(shared.unreadable().iter());
            let asked = Instant::now();
            let Some((id, fence)) = shared.control.take_over(&but).await? else { return Ok(()) };
            let Some(operation) = self.mirror(shared, id).await? else {
                shared.control.hand_over(id, fence).await?;
                continue;
            };
            self.own(shared, &operation, fence, asked);
            tracing::info!(operation = %id, fence, "the operation is taken over: nobody was at work on it");
            let fleet = self.clone();
            drop(self.tasks.spawn("take-over", async move { fleet.go_on_with(operation).await }));
        }
    }

    /// Takes an operation that is at rest, where nobody owns it.
    pub(super) async fn take(
        self: &Arc<Self>,
        shared: &Shared,
        operation: &Arc<Operation>,
    ) -> Result<(), Failure> {
        let asked = Instant::now();
        if let Some(fence) = shared.control.take(operation.id()).await? {
            self.mirror(shared, operation.id()).await?;
            self.own(shared, operation, fence, asked);
        }
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
    async fn go_on_with(self: Arc<Self>, operation: Arc<Operation>) {
        let members = self.members_of(&operation);
        let catalogs = read_catalogs(members.values()).await;
        operation.with_work(|work| {
            work.members = Arc::new(members.clone());
            work.take_catalogs(catalogs);
            work.takes_over = true;
        });
        let known = self.known_of(&operation, &members).await;
        let moved = operation.refuse_moved_since(&members);
        operation.take_over(known);
        if let Err(failure) = moved {
            let why = format!(
                "the nexusd that was at work on it is gone, and the migrations are not those that it began with: {}",
                failure.details.first().unwrap_or(&failure.message)
            );
            operation.finish(OperationState::Halted, &why);
            return;
        }
        self.work_on(&operation);
    }

    /// What the journals say of the databases that were being worked on.
    async fn known_of(
        self: &Arc<Self>,
        operation: &Arc<Operation>,
        members: &BTreeMap<String, Arc<Member>>,
    ) -> BTreeMap<String, Result<Done, Failure>> {
        let was_running = |name: &str| {
            operation.look(|record| {
                record.databases.get(name).is_some_and(|it| it.state == DatabaseState::Running)
            })
        };
        let running: Vec<_> = members.values().filter(|member| was_running(member.name())).cloned().collect();
        let ask = |member: Arc<Member>| async move {
            let work = operation.to_work_with();
            let catalog = work.catalog(&member).and_then(|catalog| catalog.clone().ok()).unwrap_or_default();
            let run =
                engine::Run { stop: work.stop, takes_over: true, ..self.run(&member, catalog, work.author) };
            let known = async {
                let _place = member.place(&run).await?;
                engine::done(&run).await
            };
            (member.name().to_owned(), known.await.map_err(|failure| unknown(&failure)))
        };
        run::bounded(self.max_parallel(), running, ask).await.into_iter().collect()
    }
}

fn unknown(why: &Failure) -> Failure {
    let message = format!("What the operation has done here before its nexusd ended is not known: {why}");
    Failure::new(Code::DoneUnknown, message)
}

impl Operation {
    /// What nobody is at work on any more waits for its turn, with what is known to be done.
    fn take_over(&self, mut known: BTreeMap<String, Result<Done, Failure>>) {
        self.update(|record| {
            self.begin_again(record);
            for (name, database) in &mut record.databases {
                database.take_over(known.remove(name));
            }
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
