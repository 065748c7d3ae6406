//! The flags that say how an operation goes through its databases.

use std::time::Duration;

use clap::ValueEnum;

use crate::{
    migration::PlanDigest,
    rpc::proto::{
        self, DatabaseNames,
        strategy::{Canary, MaxFailures, Pause, Wave},
    },
};

/// What follows when more databases failed than are borne.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum OnFailure {
    /// Stop, and leave everything as it is
    Stop,
    /// Roll back what this operation applied, the newest first
    Rollback,
}

/// The strategy of one operation; docs/strategies.md explains it.
#[derive(Debug, Default, Clone, clap::Args)]
#[command(next_help_heading = "Strategy")]
pub struct Flags {
    /// A strategy of the daemon's configuration; the other flags are put over it
    #[arg(long, value_name = "NAME", default_value = "", hide_default_value = true)]
    strategy: String,
    /// Databases that go first, in a wave of their own: how many, or their names, comma-separated;
    /// one failure among them halts the operation
    #[arg(long, value_name = "N|NAMES", value_parser = canary)]
    canary: Option<Canary>,
    /// The waves that the others go in: a part of all, a number, or one for each value of a label
    #[arg(long, value_name = "N%|N|by-label=KEY", value_parser = wave)]
    wave: Option<Wave>,
    /// How many databases are worked on at once
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    parallel: Option<u32>,
    /// What lies between two waves: a time, or "manual" to wait for nexusctl operation resume
    #[arg(long, value_name = "DURATION|manual", value_parser = pause)]
    pause: Option<Pause>,
    /// How many databases may fail before the operation halts [default: the wave in which one fails
    /// is the last]
    #[arg(long, value_name = "N|N%", value_parser = max_failures)]
    max_failures: Option<MaxFailures>,
    /// What follows then [default: stop]
    #[arg(long, value_enum, value_name = "ACTION")]
    on_failure: Option<OnFailure>,
    /// SQL that returns one boolean; it must be true on each database of a wave before the next begins
    #[arg(long, value_name = "SQL")]
    gate: Option<String>,
    /// No alert may be open on any database of a wave before the next begins
    #[arg(long)]
    gate_no_alerts: bool,
    /// How long after a wave the gate is first asked
    #[arg(long, value_name = "DURATION", value_parser = span)]
    gate_wait: Option<Duration>,
    /// How long the gate may take to hold [default: 1min]
    #[arg(long, value_name = "DURATION", value_parser = crate::cli::args::duration)]
    gate_limit: Option<Duration>,
}

/// The plan that a run is held to.
#[derive(Debug, Default, Clone, clap::Args)]
pub struct PlanFlag {
    /// The digest of a plan: refuse what is not exactly as nexusctl plan showed it, with the same flags
    #[arg(long, value_name = "DIGEST", value_parser = digest, conflicts_with = "dry_run")]
    plan: Option<String>,
}

impl PlanFlag {
    /// The digest; empty where none is given.
    pub fn digest(&self) -> String {
        self.plan.clone().unwrap_or_default()
    }
}

impl Flags {
    /// The name of the strategy; empty where none is given.
    pub fn name(&self) -> String {
        self.strategy.clone()
    }

    /// What the flags say; `None` where they say nothing.
    pub fn given(&self) -> Option<proto::Strategy> {
        let millis = |duration: Duration| u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
        let on_failure = match self.on_failure {
            None => proto::OnFailure::Unspecified,
            Some(OnFailure::Stop) => proto::OnFailure::Stop,
            Some(OnFailure::Rollback) => proto::OnFailure::RollBack,
        };
        let strategy = proto::Strategy {
            canary: self.canary.clone(),
            wave: self.wave.clone(),
            parallel: self.parallel,
            pause: self.pause,
            max_failures: self.max_failures,
            on_failure: on_failure.into(),
            gate_sql: self.gate.clone(),
            gate_no_alerts: self.gate_no_alerts.then_some(true),
            gate_wait_ms: self.gate_wait.map(millis),
            gate_limit_ms: self.gate_limit.map(millis),
        };
        (strategy != proto::Strategy::default()).then_some(strategy)
    }
}

pub(super) fn digest(text: &str) -> Result<String, String> {
    let digest: Result<PlanDigest, _> = text.trim().parse();
    digest.map(|digest| digest.to_string()).map_err(|_| {
        "expected what nexusctl plan prints: 32 hexadecimal digits, a hyphen, and 16 more".to_owned()
    })
}

fn canary(text: &str) -> Result<Canary, String> {
    let unlike = || "expected a number of databases of at least 1, or names such as orders-eu,orders-us";
    if text.bytes().all(|byte| byte.is_ascii_digit() || byte == b'-') {
        let count = text.parse().ok().filter(|count| *count > 0);
        return count.map(Canary::CanaryCount).ok_or_else(|| unlike().to_owned());
    }
    let names: Vec<_> = text.split(',').map(|name| name.trim().to_owned()).collect();
    if names.iter().any(String::is_empty) {
        return Err(unlike().to_owned());
    }
    Ok(Canary::CanaryDatabases(DatabaseNames { names }))
}

fn wave(text: &str) -> Result<Wave, String> {
    let wave = match (text.strip_prefix("by-label="), text.strip_suffix('%')) {
        (Some(key), _) => Some(key).filter(|key| !key.is_empty()).map(|key| Wave::WaveLabel(key.to_owned())),
        (None, Some(part)) => {
            part.parse().ok().filter(|part| (1..=100).contains(part)).map(Wave::WavePercent)
        }
        (None, None) => text.parse().ok().filter(|count| *count > 0).map(Wave::WaveCount),
    };
    wave.ok_or_else(|| {
        "expected a part from 1% to 100%, a number of databases of at least 1, or by-label=KEY".to_owned()
    })
}

fn pause(text: &str) -> Result<Pause, String> {
    if text == "manual" {
        return Ok(Pause::PauseManual(true));
    }
    let duration = humantime::parse_duration(text).ok().and_then(|it| u64::try_from(it.as_millis()).ok());
    duration.map(Pause::PauseMs).ok_or_else(|| "expected a time such as 5m, or manual".to_owned())
}

fn max_failures(text: &str) -> Result<MaxFailures, String> {
    let limit = match text.strip_suffix('%') {
        Some(part) => part.parse().ok().filter(|part| *part <= 100).map(MaxFailures::MaxFailuresPercent),
        None => text.parse().ok().map(MaxFailures::MaxFailuresCount),
    };
    limit.ok_or_else(|| "expected a number of databases, or a part from 0% to 100%".to_owned())
}

fn span(text: &str) -> Result<Duration, String> {
    humantime::parse_duration(text).map_err(|_| "expected a time such as 30s or 5min".to_owned())
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;

    #[derive(clap::Parser)]
    struct Line {
        #[command(flatten)]
        flags: Flags,
    }

    #[test]
    fn flags_become_a_strategy() {
        let check = |line: &str, expected: Option<proto::Strategy>| {
            let words = std::iter::once("nexusctl").chain(line.split_whitespace());
            let given = Line::try_parse_from(words).ok().map(|line| line.flags.given().unwrap_or_default());
            assert_eq!(given, expected, "{line}");
        };
        let nothing = proto::Strategy::default;
        check("", Some(nothing()));
        check("--strategy careful", Some(nothing()));
        let canary = |canary| Some(proto::Strategy { canary: Some(canary), ..nothing() });
        let names = DatabaseNames { names: vec!["eu".to_owned(), "us-1".to_owned()] };
        check("--canary 2", canary(Canary::CanaryCount(2)));
        check("--canary eu,us-1", canary(Canary::CanaryDatabases(names)));
        let wave = |wave| Some(proto::Strategy { wave: Some(wave), ..nothing() });
        check("--wave 10%", wave(Wave::WavePercent(10)));
        check("--wave 50", wave(Wave::WaveCount(50)));
        check("--wave by-label=region", wave(Wave::WaveLabel("region".to_owned())));
        let pause = |pause| Some(proto::Strategy { pause: Some(pause), ..nothing() });
        check("--pause 5m", pause(Pause::PauseMs(300_000)));
        check("--pause manual", pause(Pause::PauseManual(true)));
        check("--pause 0s", pause(Pause::PauseMs(0)));
        let failures = |limit| Some(proto::Strategy { max_failures: Some(limit), ..nothing() });
        check("--max-failures 0", failures(MaxFailures::MaxFailuresCount(0)));
        check("--max-failures 5%", failures(MaxFailures::MaxFailuresPercent(5)));
        let rolls_back = proto::Strategy {
            on_failure: proto::OnFailure::RollBack.into(),
            parallel: Some(4),
            gate_sql: Some("true".to_owned()),
            gate_no_alerts: Some(true),
            gate_wait_ms: Some(0),
            gate_limit_ms: Some(90_000),
            ..nothing()
        };
        check(
            "--on-failure rollback --parallel 4 --gate true --gate-no-alerts --gate-wait 0s --gate-limit 90s",
            Some(rolls_back),
        );
        for line in [
            "--canary 0",
            "--canary -1",
            "--canary a,,b",
            "--wave 0",
            "--wave 0%",
            "--wave 101%",
            "--wave 10,5%",
            "--wave by-label=",
            "--wave half",
            "--parallel 0",
            "--pause later",
            "--max-failures 200%",
            "--max-failures -1",
            "--on-failure explode",
            "--gate-limit 0s",
            "--wave 10% --wave 20%",
        ] {
            check(line, None);
        }
    }
}
