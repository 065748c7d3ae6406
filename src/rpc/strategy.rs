//! Strategies at the edge: what a request says is put over the strategy that it names.

use std::{num::NonZeroUsize, time::Duration};

use crate::{
    access::{Permit, Role},
    fleet::{
        plan::Held,
        strategy::{Canary, FailureLimit, Gate, OnFailure, Pause, Strategies, Strategy, Wave, WaveSize},
    },
    migration::{Code, Failure},
    rpc::proto,
};

/// Reads how a request wants to go through its databases. Whether it fits them is for
/// [`crate::fleet::strategy::waves`] to say.
pub fn strategy(
    named: &Strategies,
    name: &str,
    given: Option<proto::Strategy>,
    is_apply: bool,
) -> Result<Strategy, Failure> {
    let mut strategy = named.get(name)?;
    if let Some(given) = given {
        put(&mut strategy, given)?;
    }
    if strategy.on_failure == OnFailure::RollBack && !is_apply {
        return Err(bad("Only what an apply did can be rolled back by on-failure"));
    }
    strategy.check()?;
    Ok(strategy)
}

/// Reads the digest of the plan that a request is held to.
pub fn held(digest: &str) -> Result<Option<Held>, Failure> {
    Ok(if digest.is_empty() { None } else { Some(Held::to(digest.parse()?)) })
}

fn bad(message: &str) -> Failure {
    Failure::new(Code::BadStrategy, message)
}

fn put(strategy: &mut Strategy, given: proto::Strategy) -> Result<(), Failure> {
    use proto::strategy::{Canary as C, MaxFailures as M, Pause as P, Wave as W};
    let percent = |percent: u32| u8::try_from(percent).unwrap_or(u8::MAX);
    let on_failure = given.on_failure();
    match given.canary {
        None => {}
        Some(C::CanaryCount(count)) => strategy.canary = Some(Canary::Count(count as usize)),
        Some(C::CanaryDatabases(databases)) => strategy.canary = Some(Canary::Names(databases.names)),
    }
    match given.wave {
        None => {}
        Some(W::WavePercent(part)) => strategy.wave = WaveSize::Percent(percent(part)),
        Some(W::WaveCount(count)) => strategy.wave = WaveSize::Count(count as usize),
        Some(W::WaveLabel(key)) => strategy.wave = WaveSize::ByLabel(key),
    }
    if let Some(parallel) = given.parallel {
        let parallel = NonZeroUsize::new(parallel as usize);
        strategy.parallel = Some(parallel.ok_or_else(|| bad("Nothing is done on 0 databases at once"))?);
    }
    match given.pause {
        None => {}
        Some(P::PauseMs(0) | P::PauseManual(false)) => strategy.pause = Pause::None,
        Some(P::PauseMs(millis)) => strategy.pause = Pause::For(Duration::from_millis(millis)),
        Some(P::PauseManual(true)) => strategy.pause = Pause::Manual,
    }
    match given.max_failures {
        None => {}
        Some(M::MaxFailuresCount(count)) => strategy.max_failures = FailureLimit::Count(count as usize),
        Some(M::MaxFailuresPercent(part)) => strategy.max_failures = FailureLimit::Percent(percent(part)),
    }
    match on_failure {
        proto::OnFailure::Unspecified => {}
        proto::OnFailure::Stop => strategy.on_failure = OnFailure::Stop,
        proto::OnFailure::RollBack => strategy.on_failure = OnFailure::RollBack,
    }
    put_gate(strategy, given.gate_sql, given.gate_no_alerts, (given.gate_wait_ms, given.gate_limit_ms))
}

/// What the request may do, where it brings a gate of its own: that is SQL which runs as nexusd's own
/// role, beyond what an operator is granted. One of the configuration's is its author's.
pub(super) fn permit(permit: Permit, given: Option<&proto::Strategy>) -> Permit {
    let brings_sql = given.is_some_and(|given| given.gate_sql.is_some());
    if brings_sql && !permit.is_for_reading() { permit.at_least(Role::Admin) } else { permit }
}

fn put_gate(
    strategy: &mut Strategy,
    sql: Option<String>,
    no_alerts: Option<bool>,
    (wait, limit): (Option<u64>, Option<u64>),
) -> Result<(), Failure> {
    if sql.is_none() && no_alerts.is_none() && wait.is_none() && limit.is_none() {
        return Ok(());
    }
    let mut gate = strategy.gate.take().unwrap_or(Gate {
        sql: None,
        no_alerts: false,
        wait: Duration::ZERO,
        limit: Gate::LIMIT,
    });
    gate.sql = sql.or(gate.sql);
    gate.no_alerts = no_alerts.unwrap_or(gate.no_alerts);
    gate.wait = wait.map_or(gate.wait, Duration::from_millis);
    gate.limit = limit.map_or(gate.limit, Duration::from_millis);
    if gate.sql.is_some() || gate.no_alerts {
        strategy.gate = Some(gate);
    } else if wait.is_some() || limit.is_some() {
        return Err(bad("There is no gate to wait for: give its SQL, or ask for no alerts"));
    }
    Ok(())
}

/// Tells a strategy.
pub fn told(strategy: &Strategy) -> proto::Strategy {
    use proto::strategy::{Canary as C, MaxFailures as M, Pause as P, Wave as W};
    let small = |count: usize| u32::try_from(count).unwrap_or(u32::MAX);
    let millis = |duration: Duration| u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
    let gate = strategy.gate.as_ref();
    proto::Strategy {
        canary: strategy.canary.as_ref().map(|canary| match canary {
            Canary::Count(count) => C::CanaryCount(small(*count)),
            Canary::Names(names) => C::CanaryDatabases(proto::DatabaseNames { names: names.clone() }),
        }),
        wave: match &strategy.wave {
            WaveSize::All => None,
            WaveSize::Percent(part) => Some(W::WavePercent(u32::from(*part))),
            WaveSize::Count(count) => Some(W::WaveCount(small(*count))),
            WaveSize::ByLabel(key) => Some(W::WaveLabel(key.clone())),
        },
        parallel: strategy.parallel.map(|parallel| small(parallel.get())),
        pause: match strategy.pause {
            Pause::None => None,
            Pause::For(duration) => Some(P::PauseMs(millis(duration))),
            Pause::Manual => Some(P::PauseManual(true)),
        },
        max_failures: match strategy.max_failures {
            FailureLimit::Wave => None,
            FailureLimit::Count(count) => Some(M::MaxFailuresCount(small(count))),
            FailureLimit::Percent(part) => Some(M::MaxFailuresPercent(u32::from(part))),
        },
        on_failure: match strategy.on_failure {
            OnFailure::Stop => proto::OnFailure::Stop,
            OnFailure::RollBack => proto::OnFailure::RollBack,
        }
        .into(),
        gate_sql: gate.and_then(|gate| gate.sql.clone()),
        gate_no_alerts: gate.map(|gate| gate.no_alerts),
        gate_wait_ms: gate.map(|gate| millis(gate.wait)),
        gate_limit_ms: gate.map(|gate| millis(gate.limit)),
    }
}

/// Tells a wave.
pub fn wave(wave: &Wave) -> proto::Wave {
    proto::Wave { name: wave.name.clone(), is_canary: wave.is_canary, databases: wave.databases.clone() }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use proto::strategy::{Canary as C, MaxFailures as M, Pause as P, Wave as W};

    use super::*;
    use crate::access::{self, Caller, Grant};

    fn careful() -> Strategy {
        Strategy {
            name: Some("careful".into()),
            canary: Some(Canary::Count(1)),
            wave: WaveSize::Percent(10),
            pause: Pause::Manual,
            max_failures: FailureLimit::Count(0),
            ..Strategy::default()
        }
    }

    #[test]
    fn a_gate_of_ones_own_takes_an_admin() {
        let rule = access::rule::of("/nexus.v1.MigrationService/Apply").expect("it has a rule");
        let is_allowed = |role, gate_sql: Option<&str>, gate_no_alerts| {
            let granted = Permit::new(Caller::daemon(), Arc::new([Grant::everywhere(role)]), rule);
            let gate_sql = gate_sql.map(str::to_owned);
            let given = proto::Strategy { gate_sql, gate_no_alerts, ..proto::Strategy::default() };
            permit(granted.expect("it is enough to apply"), Some(&given)).is_everywhere()
        };
        assert!(!is_allowed(Role::Operator, Some("select true"), None));
        assert!(is_allowed(Role::Admin, Some("select true"), None));
        assert!(is_allowed(Role::Operator, None, Some(true)), "no alerts is no SQL");
    }

    #[test]
    fn what_is_given_is_put_over_what_is_named() {
        let named = Strategies::new([careful()]).expect("it is sound");
        let check =
            |name: &str, given: proto::Strategy, is_apply, expected: Result<Strategy, (Code, &str)>| {
                let read = strategy(&named, name, Some(given), is_apply);
                let read = read.map_err(|failure| (failure.code, failure.message));
                assert_eq!(read, expected.map_err(|(code, message)| (code, message.to_owned())));
            };
        let nothing = proto::Strategy::default;
        check("", nothing(), false, Ok(Strategy::default()));
        check("careful", nothing(), false, Ok(careful()));
        check("carefull", nothing(), true, Err((Code::UnknownStrategy, "No strategy carefull")));
        let given = proto::Strategy {
            wave: Some(W::WaveLabel("region".into())),
            pause: Some(P::PauseMs(0)),
            parallel: Some(2),
            on_failure: proto::OnFailure::RollBack.into(),
            gate_no_alerts: Some(true),
            ..nothing()
        };
        let gate = Gate { sql: None, no_alerts: true, wait: Duration::ZERO, limit: Gate::LIMIT };
        let expected = Strategy {
            wave: WaveSize::ByLabel("region".into()),
            pause: Pause::None,
            parallel: NonZeroUsize::new(2),
            on_failure: OnFailure::RollBack,
            gate: Some(gate),
            ..careful()
        };
        check("careful", given.clone(), true, Ok(expected));
        let only_apply = "Only what an apply did can be rolled back by on-failure";
        check("careful", given, false, Err((Code::BadStrategy, only_apply)));
        let wrong =
            |given: proto::Strategy, message: &str| check("", given, true, Err((Code::BadStrategy, message)));
        wrong(
            proto::Strategy { canary: Some(C::CanaryCount(0)), ..nothing() },
            "A canary of 0 databases is none: leave it out",
        );
        wrong(
            proto::Strategy { wave: Some(W::WavePercent(300)), ..nothing() },
            "A wave cannot be more than 100% of the databases",
        );
        wrong(
            proto::Strategy { max_failures: Some(M::MaxFailuresPercent(200)), ..nothing() },
            "No more than 100% of the databases can fail",
        );
        wrong(proto::Strategy { parallel: Some(0), ..nothing() }, "Nothing is done on 0 databases at once");
        wrong(
            proto::Strategy { gate_wait_ms: Some(1), ..nothing() },
            "There is no gate to wait for: give its SQL, or ask for no alerts",
        );
        wrong(proto::Strategy { gate_sql: Some(String::new()), ..nothing() }, "The gate's SQL is empty");
    }

    #[test]
    fn what_is_told_is_read_as_the_same() {
        let gate = Gate {
            sql: Some("select true".into()),
            no_alerts: true,
            wait: Duration::from_secs(3),
            limit: Duration::from_secs(9),
        };
        let whole = Strategy { gate: Some(gate), on_failure: OnFailure::RollBack, ..careful() };
        let names = Strategy {
            canary: Some(Canary::Names(vec!["a".into()])),
            wave: WaveSize::Count(3),
            pause: Pause::For(Duration::from_mins(5)),
            max_failures: FailureLimit::Percent(5),
            parallel: NonZeroUsize::new(4),
            ..Strategy::default()
        };
        for known in [Strategy::default(), whole, names] {
            let read = strategy(&Strategies::default(), "", Some(told(&known)), true);
            assert_eq!(read, Ok(Strategy { name: None, ..known }));
        }
    }
}
