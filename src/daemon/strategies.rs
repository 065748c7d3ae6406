//! From the configuration's strategies to the fleet's.

use std::num::NonZeroUsize;

use anyhow::Context as _;

use crate::{
    config::{Amount, CanaryConfig, Config, PauseConfig, StrategyConfig, WaveConfig},
    fleet::strategy::{Canary, FailureLimit, Gate, OnFailure, Pause, Strategies, Strategy, WaveSize},
};

/// Reads the named strategies.
pub(super) fn named(config: &Config) -> anyhow::Result<Strategies> {
    for named in &config.strategies {
        strategy(named).check().with_context(|| format!("[[strategy]] {}", named.name))?;
    }
    Ok(Strategies::new(config.strategies.iter().map(strategy))?)
}

fn strategy(config: &StrategyConfig) -> Strategy {
    let gate = Gate {
        sql: config.gate.clone(),
        no_alerts: config.gate_no_alerts,
        wait: config.gate_wait.unwrap_or_default(),
        limit: config.gate_limit.unwrap_or(Gate::LIMIT),
    };
    Strategy {
        name: Some(config.name.clone()),
        canary: config.canary.clone().map(|canary| match canary {
            CanaryConfig::Count(count) => Canary::Count(count as usize),
            CanaryConfig::Names(names) => Canary::Names(names),
        }),
        wave: match config.wave.clone() {
            None => WaveSize::All,
            Some(WaveConfig::Amount(Amount::Count(count))) => WaveSize::Count(count as usize),
            Some(WaveConfig::Amount(Amount::Percent(percent))) => WaveSize::Percent(percent),
            Some(WaveConfig::ByLabel(key)) => WaveSize::ByLabel(key),
        },
        parallel: config.parallel.and_then(|parallel| NonZeroUsize::new(parallel as usize)),
        pause: match config.pause {
            None => Pause::None,
            Some(PauseConfig::For(duration)) if duration.is_zero() => Pause::None,
            Some(PauseConfig::For(duration)) => Pause::For(duration),
            Some(PauseConfig::Manual) => Pause::Manual,
        },
        max_failures: match config.max_failures {
            None => FailureLimit::Wave,
            Some(Amount::Count(count)) => FailureLimit::Count(count as usize),
            Some(Amount::Percent(percent)) => FailureLimit::Percent(percent),
        },
        on_failure: if config.rolls_back { OnFailure::RollBack } else { OnFailure::Stop },
        gate: (gate.sql.is_some() || gate.no_alerts).then_some(gate),
    }
}
