//! What is known of one database from one look to the next. The monitor and those who ask share it:
//! what the one has just looked at, the other need not look at again.

use std::{sync::Arc, time::Duration};

use tokio::time::Instant;

use crate::{
    engine::{self, Compared, Memory},
    fleet::{
        Fleet,
        inventory::{Member, Seen},
        monitor::counters::{Quiet, Reading},
    },
    migration::{FindingKind, Observation},
};

/// What is known of one database.
pub(in crate::fleet) struct Sight {
    memory: Memory,
    quiet: Quiet,
    /// The last look, and as of when it is at the least.
    last: Option<(Instant, Observation)>,
}

impl Default for Sight {
    fn default() -> Self {
        Self { memory: Memory::default(), quiet: Quiet::new(), last: None }
    }
}

impl Sight {
    /// What somebody has seen of it at `since` or later.
    pub(super) fn since(&self, since: Instant) -> Option<Observation> {
        self.last.as_ref().filter(|(as_of, _)| *as_of >= since).map(|(_, observation)| observation.clone())
    }

    /// For the poll: what was seen last, where nothing that is counted has changed since.
    pub(super) fn still(&mut self, reading: &Reading, compared: &Compared) -> Option<Observation> {
        self.quiet.still(reading, compared, &mut self.memory)
    }

    /// For requests: what was seen last, where it is certain that it is so at `since` or later.
    async fn certain(&mut self, member: &Member, since: Instant, compared: &Compared) -> Option<Observation> {
        let is_certain = self.quiet.is_certain(member, since).await;
        if is_certain { self.memory.unchanged(compared) } else { None }
    }

    /// Looks, after the counters were read; `since` is not later than what it is compared with.
    pub(super) async fn look(
        &mut self,
        member: &Member,
        since: Instant,
        (compared, pending_limit): (&Compared, Duration),
        reading: Reading,
    ) -> Observation {
        let observation =
            engine::observe_again(&member.database, compared, pending_limit, &mut self.memory).await;
        // Only now: until then, what is remembered goes with the reading before.
        self.quiet.opened(reading);
        self.last = Some((since, observation.clone()));
        observation
    }
}

impl Fleet {
    /// Remembers what was seen of a database, and tells it. A look that could not even tell whether the
    /// database answers is none: what was told before stands.
    pub(super) fn saw(&self, member: &Member, sight: &Sight, observation: &Observation) {
        if !observation.unknown.contains(&FindingKind::DatabaseUnreachable) {
            member.saw(observation, sight.memory.glance());
            self.tell(observation);
        }
    }

    /// How a database stands at `since` or later, where nothing is wrong with its rows: by what was seen
    /// last, where it is certain that nothing was written since; else by a look, which the monitor need
    /// not do then. `None` where it has to be read in whole.
    pub(in crate::fleet) async fn in_order(
        &self,
        member: &Arc<Member>,
        compared: &Compared,
        since: Instant,
    ) -> Option<engine::Status> {
        // What was not in order will not be so by itself.
        let was_in_order = |seen: &Seen| seen.last.as_ref().is_none_or(engine::Status::is_of);
        if !was_in_order(&member.seen()) {
            return None;
        }
        {
            let mut sight = member.sight.lock().await;
            let known = match sight.since(since) {
                Some(observation) => Some(observation),
                None => sight.certain(member, since, compared).await,
            };
            if let Some(observation) = known {
                return engine::Status::of(&observation, &*sight.memory.glance()?);
            }
        }
        // First the place: whoever looks waits for none.
        let _place = member.reading_place().await;
        let mut sight = member.sight.lock().await;
        if let Some(observation) = sight.since(since) {
            return engine::Status::of(&observation, &*sight.memory.glance()?);
        }
        let reading = Reading::of(member, since).await;
        let observation = sight.look(member, since, (compared, self.settings.pending_limit), reading).await;
        let is_member = self.inventory().get(member.name()).is_some_and(|it| Arc::ptr_eq(it, member));
        if is_member {
            self.saw(member, &sight, &observation);
        }
        engine::Status::of(&observation, &*sight.memory.glance()?)
    }
}
