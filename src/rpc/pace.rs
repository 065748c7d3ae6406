//! How often one caller may ask for a change: a program that runs wild is held up, and nobody else.

use std::{num::NonZeroU32, time::Duration};

use governor::{
    Quota, RateLimiter,
    clock::{Clock as _, DefaultClock},
    state::keyed::HashMapStateStore,
};

use crate::{
    access::{Caller, Role, Rule},
    migration::{Code, Failure},
};

/// Of how many callers the pace is remembered at least: those who have been quiet for a while are
/// forgotten when there are more.
const REMEMBERED: usize = 256;

/// The pace of each caller.
pub(super) struct Pace {
    callers: RateLimiter<String, HashMapStateStore<String>, DefaultClock>,
    clock: DefaultClock,
    per_minute: NonZeroU32,
}

impl Pace {
    /// So many changes in a minute for each caller, all at once or one after the other.
    pub(super) fn new(per_minute: NonZeroU32) -> Self {
        let clock = DefaultClock::default();
        let callers =
            RateLimiter::new(Quota::per_minute(per_minute), HashMapStateStore::default(), clock.clone());
        Self { callers, clock, per_minute }
    }

    /// Counts a request that is let in under a rule. Refused where it is one too many for now, with how
    /// long to wait.
    pub(super) fn keep(&self, rule: &Rule, caller: &Caller) -> Result<(), (Failure, Duration)> {
        // Reading is bounded by connections and streams.
        if rule.least.is_none_or(|role| role < Role::Operator) {
            return Ok(());
        }
        if self.callers.len() >= REMEMBERED {
            self.callers.retain_recent();
        }
        self.callers.check_key(&caller.identity()).map_err(|early| {
            let wait = early.wait_time_from(self.clock.now());
            (self.refusal(caller, wait), wait)
        })
    }

    fn refusal(&self, caller: &Caller, wait: Duration) -> Failure {
        let name = if caller.name.is_empty() { "Somebody" } else { &caller.name };
        let seconds = wait.as_millis().div_ceil(1000).max(1);
        let message = format!("{name} asks for more than {} changes a minute", self.per_minute);
        let hint = format!("ask again in {seconds}s; one request may be about many databases");
        Failure::new(Code::TooManyRequests, message).hint(hint)
    }
}

#[cfg(test)]
mod tests {
    use tonic_types::StatusExt as _;

    use super::*;
    use crate::{
        access::{Origin, Proof, rule},
        rpc::status::of_failure_for,
    };

    fn caller(name: &str) -> Caller {
        let proof = Proof::Token { id: "1a2b3c4d".to_owned() };
        Caller { name: name.to_owned(), proof, from: Origin::Unix(None) }
    }

    #[test]
    fn each_caller_has_a_pace_of_their_own_and_reading_has_none() {
        let pace = Pace::new(NonZeroU32::new(2).expect("it is not zero"));
        let of = |method: &str| rule::of(&format!("/nexus.v1.{method}")).expect("there is a rule");
        let (apply, status) = (of("MigrationService/Apply"), of("MigrationService/Status"));
        assert!(pace.keep(apply, &caller("ci")).is_ok());
        assert!(pace.keep(of("MigrationService/Repair"), &caller("ci")).is_ok());
        let refusal = pace.keep(apply, &caller("ci")).expect_err("it is the third");
        let refusal = of_failure_for(&refusal.0, refusal.1);
        assert_eq!(refusal.code(), tonic::Code::ResourceExhausted);
        assert_eq!(refusal.message(), "ci asks for more than 2 changes a minute");
        let wait = refusal.get_details_retry_info().and_then(|info| info.retry_delay).expect("it says when");
        assert!((1..=30).contains(&wait.as_secs()), "{wait:?}");
        assert_eq!(refusal.get_details_error_info().map(|info| info.reason).as_deref(), Some("NX0115"));
        assert!(pace.keep(status, &caller("ci")).is_ok());
        assert!(pace.keep(apply, &caller("ana")).is_ok());
    }

    #[test]
    fn callers_who_have_gone_are_forgotten() {
        let pace = Pace::new(NonZeroU32::new(60_000).expect("it is not zero"));
        let apply = rule::of("/nexus.v1.MigrationService/Apply").expect("there is a rule");
        for number in 0..REMEMBERED {
            assert!(pace.keep(apply, &caller(&number.to_string())).is_ok());
        }
        std::thread::sleep(Duration::from_millis(20));
        assert!(pace.keep(apply, &caller("one more")).is_ok());
        assert!(pace.callers.len() < 10, "{}", pace.callers.len());
    }
}
