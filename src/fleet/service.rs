//! Several daemons, one service: operations are kept in the control database, where every daemon reads
//! them, and one that nobody is at work on is taken over.
//!
//! An operation is owned by the daemon that works on it. The others mirror it, so that each answers
//! every question from its own memory; what is asked of an operation that another one owns is handed
//! to that one. PostgreSQL's clock and its row locks decide who owns what.

use std::{
    collections::HashSet,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use tokio::sync::watch;
use uuid::Uuid;

use crate::{
    access::Permit,
    control::{Control, errands::Errand, listen::Ear},
    engine::Lease,
    fleet::{
        Fleet,
        operation::{self, Command, Encode, Keeping, Operation, Owned, kept},
        steer::Order,
    },
    migration::{Code, Failure},
    runtime::faults,
};

mod mirror;
mod take_over;

/// How often other daemons' changes are looked for, also where nobody was heard to make any.
const SWEEP: Duration = Duration::from_secs(1);

/// They are not looked for more often than this, whatever is heard: this daemon hears itself, too.
const LEAST_SWEEP: Duration = Duration::from_millis(50);

/// The pause after the control database could not be used.
const PAUSE: Duration = Duration::from_millis(250);

/// How long a change may take to be kept before whoever made it is answered all the same.
const KEPT: Duration = Duration::from_secs(2);

/// How long it may take to hand everything over at the end.
const HAND_OVER: Duration = Duration::from_secs(2);

/// What a fleet shares with those of other daemons.
pub struct Shared {
    pub(super) control: Arc<Control>,
    encode: Encode,
    /// Rings when something of an operation is to be kept.
    bell: watch::Sender<()>,
    /// The operations that a newer nexusd has kept in a form that this one cannot read.
    unreadable: Mutex<HashSet<Uuid>>,
}

impl Shared {
    /// What is shared through a control database; events are kept as `encode` makes them.
    pub fn new(control: Arc<Control>, encode: Encode) -> Self {
        Self { control, encode, bell: watch::Sender::new(()), unreadable: Mutex::default() }
    }

    fn unreadable(&self) -> MutexGuard<'_, HashSet<Uuid>> {
        self.unreadable.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn keeping(&self) -> Keeping {
        Keeping::new(self.encode.clone(), self.bell.clone())
    }

    /// The right that was got by a statement sent at this moment.
    fn owned(&self, fence: i64, asked: Instant) -> Owned {
        Owned { fence, lease: Lease::until(self.until(asked)) }
    }

    /// Until when a right is believed in that was got by a statement sent at this moment. The control
    /// database counts from when it got the statement, which is later, and longer by a tenth.
    fn until(&self, asked: Instant) -> Instant {
        asked + self.control.lease().mul_f64(0.9)
    }
}

impl Fleet {
    pub(super) fn shared(&self) -> Option<&Shared> {
        self.settings.shared.as_ref()
    }

    /// Begins to share operations with other daemons, where there is a control database. Comes back when
    /// those are known that are kept, or when it is clear that they cannot be for now.
    pub async fn share(self: &Arc<Self>, patience: Duration) {
        let Some(shared) = self.shared() else { return };
        self.tasks.spawn_vital("service", self.clone().serve());
        self.tasks.spawn_vital("leases", self.clone().hold_leases());
        if tokio::time::timeout(patience, shared.control.opened()).await.is_err() {
            tracing::warn!(
                "the control database cannot be used yet: new operations are refused until it can"
            );
        }
    }

    /// Keeps, mirrors, takes over and obeys, until the fleet is shut down.
    async fn serve(self: Arc<Self>) {
        let Some(shared) = self.shared() else { return };
        tokio::select! {
            () = shared.control.opened() => {}
            () = self.stop.drain.cancelled() => return,
        }
        let (mut bell, mut ear) = (shared.bell.subscribe(), None);
        let mut due = Instant::now();
        loop {
            bell.mark_unchanged();
            let is_due = Instant::now() >= due;
            let done = async {
                self.keep_operations(shared).await?;
                if is_due {
                    if ear.is_none() {
                        ear = Some(shared.control.listen().await?);
                    }
                    self.mirror_all(shared).await?;
                    self.take_over_all(shared).await?;
                    self.do_errands(shared).await?;
                }
                Ok::<_, Failure>(())
            };
            let failed = done.await.is_err();
            if is_due && !failed {
                due = Instant::now() + SWEEP.min(shared.control.lease() / 4);
            }
            let pause = if failed { PAUSE } else { due.saturating_duration_since(Instant::now()) };
            tokio::select! {
                _ = bell.changed(), if !failed => {}
                heard = hear(&mut ear), if !failed => {
                    if !heard {
                        ear = None;
                    }
                    due = due.min(Instant::now() + LEAST_SWEEP);
                }
                () = tokio::time::sleep(pause) => {}
                () = self.stop.drain.cancelled() => break,
            }
        }
        // The attempts that are under way end now; what becomes of them is still to be kept.
        while self.is_at_work() {
            let _ = self.keep_operations(shared).await;
            tokio::time::sleep(PAUSE / 10).await;
        }
    }

    /// Keeps the leases, whatever else takes its time, until nothing is under way any more.
    async fn hold_leases(self: Arc<Self>) {
        let Some(shared) = self.shared() else { return };
        while !self.stop.drain.is_cancelled() || self.is_at_work() {
            let _ = self.renew(shared).await;
            self.leave_what_is_not_held();
            let pause = tokio::time::sleep(shared.control.lease() / 4);
            tokio::select! {
                () = pause => {}
                () = self.stop.drain.cancelled() => tokio::time::sleep(PAUSE).await,
            }
        }
    }

    /// Whether an attempt of any operation is under way in this daemon.
    fn is_at_work(&self) -> bool {
        self.list_operations().iter().any(|operation| operation.is_under_way())
    }

    /// Keeps what has changed of the operations that this daemon owns: all of it that can be.
    async fn keep_operations(&self, shared: &Shared) -> Result<(), Failure> {
        let mut kept = Ok(());
        for operation in self.owned_operations() {
            let no_order = operation.keeping().and_then(Keeping::no_order);
            let Some(unsaved) = operation.unsaved(no_order.is_some()) else { continue };
            let asked = Instant::now();
            faults::reached("operation", "changed");
            let saved = shared.control.save(&unsaved.change).await;
            faults::reached("operation", "kept");
            match saved {
                Ok(true) => operation.saved(unsaved, shared.until(asked)),
                Ok(false) => lost(&operation),
                Err(failure) => {
                    tracing::debug!(operation = %operation.id(), %failure, "the operation is not kept yet");
                    kept = Err(failure);
                }
            }
        }
        kept
    }

    /// Keeps the leases.
    async fn renew(&self, shared: &Shared) -> Result<(), Failure> {
        let owned = self.owned_operations();
        let held: Vec<_> = owned
            .iter()
            .filter_map(|operation| Some((operation.id(), operation.keeping()?.owned()?.fence)))
            .collect();
        if held.is_empty() {
            return Ok(());
        }
        let asked = Instant::now();
        faults::reached("lease", "due");
        let still = shared.control.renew(&held).await?;
        faults::reached("lease", "renewed");
        for operation in owned {
            match operation.keeping().and_then(Keeping::owned) {
                Some(owned) if still.contains(&operation.id()) => owned.lease.renew(shared.until(asked)),
                Some(_) => lost(&operation),
                None => {}
            }
        }
        Ok(())
    }

    /// Lets go of the operations whose lease has run out meanwhile: another daemon may have taken it.
    fn leave_what_is_not_held(&self) {
        for operation in self.owned_operations() {
            if operation.keeping().and_then(Keeping::owned).is_some_and(|owned| !owned.lease.is_held()) {
                lost(&operation);
            }
        }
    }

    fn owned_operations(&self) -> Vec<Arc<Operation>> {
        let is_owned = |operation: &&Arc<Operation>| {
            operation.keeping().is_some_and(|keeping| keeping.owned().is_some())
        };
        self.operations().newest().filter(is_owned).cloned().collect()
    }

    /// Keeps a new operation; false where its id is another one's already.
    pub(super) async fn create(&self, operation: &Operation) -> Result<bool, Failure> {
        let (Some(shared), Some(keeping)) = (self.shared(), operation.keeping()) else { return Ok(true) };
        let (asked, change) = (Instant::now(), operation.first_change());
        let created = shared.control.create(&change).await?;
        faults::reached("operation", "created");
        if created {
            let owned = shared.owned(change.fence, asked);
            operation.with_work(|work| work.stop.lease = Some(owned.lease.clone()));
            operation.look(|record| keeping.own(owned, record, change.revision));
        }
        Ok(created)
    }

    /// Gives an order about an operation that others know too: here where this daemon owns it or nobody
    /// does, else through its owner.
    pub(super) async fn order_shared(
        self: &Arc<Self>,
        shared: &Shared,
        operation: &Arc<Operation>,
        order: &Order,
        command: Command,
    ) -> Result<(), Failure> {
        // As long as it is held, what is owned is not let go.
        let ordering = match operation.keeping() {
            Some(keeping) => Some(keeping.order().await),
            None => None,
        };
        if !operation.is_owned() && operation.state().is_at_rest() {
            // What would be refused, or is so already, takes nobody's lease.
            if operation::state::obey(operation.state(), command)?.is_none() {
                return Ok(());
            }
            self.take(shared, operation).await?;
        }
        if operation.is_owned() {
            self.obey_and_keep(operation, order, command).await?;
        } else {
            drop(ordering);
            let document = kept::order(command, order);
            let answer = shared.control.ask(Some(operation.id()), &document).await?;
            kept::read_answer(&answer)?;
            self.mirror(shared, operation.id()).await?;
        }
        Ok(())
    }

    /// Obeys, and makes sure that whoever would go on with the operation knows of it.
    async fn obey_and_keep(
        self: &Arc<Self>,
        operation: &Arc<Operation>,
        order: &Order,
        command: Command,
    ) -> Result<(), Failure> {
        self.obey(operation, order, command).await?;
        if tokio::time::timeout(KEPT, operation.is_kept()).await == Ok(true) {
            return Ok(());
        }
        let message = format!(
            "The operation is {} here, but that could not be kept: another nexusd may go on with it as it was",
            command.done()
        );
        let hint = "look at it when the control database is back: nexusctl operation show";
        Err(Failure::new(Code::ControlUnavailable, message).hint(hint))
    }

    /// Does what other daemons ask of the operations that this one owns.
    async fn do_errands(self: &Arc<Self>, shared: &Shared) -> Result<(), Failure> {
        loop {
            let owned: Vec<_> = self.owned_operations().iter().map(|operation| operation.id()).collect();
            if owned.is_empty() {
                return Ok(());
            }
            let Some(errand) = shared.control.take_errand(&owned, false).await? else { return Ok(()) };
            let fleet = self.clone();
            drop(self.tasks.spawn("errand", async move { fleet.do_errand(errand).await }));
        }
    }

    async fn do_errand(self: Arc<Self>, errand: Errand) {
        let Some(shared) = self.shared() else { return };
        let answer = kept::answer(&self.obey_errand(&errand).await);
        if let Err(failure) = shared.control.answer_errand(errand.id, &answer).await {
            tracing::warn!(%failure, "an order of another daemon was obeyed, and that could not be answered");
        }
    }

    async fn obey_errand(self: &Arc<Self>, errand: &Errand) -> Result<(), Failure> {
        let id = errand.operation.unwrap_or_default().to_string();
        // Whoever asks was asked what they may do by the daemon that they asked.
        let permit = Permit::of_the_daemon();
        let (command, order) = kept::read_order(&errand.document, id, permit).map_err(unreadable)?;
        let operation = self.operations().find(&order.id, |_| true)?;
        let _ordering = match operation.keeping() {
            Some(keeping) => Some(keeping.order().await),
            None => None,
        };
        if !operation.is_owned() {
            let message = "The nexusd that was asked does not own the operation any more";
            return Err(Failure::new(Code::OwnerSilent, message));
        }
        self.obey_and_keep(&operation, &order, command).await
    }

    /// Hands the operations that are not over to other daemons, so that nobody waits for a lease.
    pub(super) async fn hand_over(&self) {
        let Some(shared) = self.shared() else { return };
        faults::reached("operation", "to be handed over");
        let hand_over = async {
            let _ = self.keep_operations(shared).await;
            for operation in self.owned_operations() {
                if let Some(owned) = operation.keeping().and_then(Keeping::owned) {
                    let _ = shared.control.hand_over(operation.id(), owned.fence).await;
                }
            }
        };
        if tokio::time::timeout(HAND_OVER, hand_over).await.is_err() {
            tracing::warn!(
                "operations could not be handed over: another daemon takes them over after their lease"
            );
        }
    }
}

async fn hear(ear: &mut Option<Ear>) -> bool {
    match ear {
        Some(ear) => ear.hear().await,
        None => std::future::pending().await,
    }
}

/// Another daemon may own the operation by now.
fn lost(operation: &Operation) {
    tracing::warn!(operation = %operation.id(), "the lease on the operation is lost: it is left to another daemon");
    if let Some(keeping) = operation.keeping() {
        keeping.disown();
    }
    operation.suspend();
}

fn unreadable(error: String) -> Failure {
    Failure::new(Code::Internal, error)
}
