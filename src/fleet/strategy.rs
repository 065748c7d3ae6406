//! PURE: how an operation goes through its databases: in which waves, how many at once, what stops
//! it and what is asked between two waves.
//!
//! The strategy is decided before anything runs. [`waves`] lays the targets out, the same targets
//! always in the same waves; whoever runs them asks [`Strategy::halts_within`] after each database
//! that failed and [`Strategy::halts_after`] at the end of each wave, and decides nothing itself.

use std::{collections::BTreeMap, num::NonZeroUsize, time::Duration};

use crate::migration::{Code, Failure};

mod named;
#[cfg(test)]
mod tests;
mod words;

pub use named::Strategies;

/// How an operation goes through its databases. The default is what a single database needs: one
/// wave, in which one failing database never stops the others.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Strategy {
    /// The name that the configuration gives it, where it comes from there.
    pub name: Option<String>,
    /// The databases that go first, in a wave of their own. One failure among them always halts.
    pub canary: Option<Canary>,
    /// How the others are divided.
    pub wave: WaveSize,
    /// How many databases are worked on at once; the daemon's and each server's own limits hold
    /// whatever is said here.
    pub parallel: Option<NonZeroUsize>,
    /// What lies between two waves.
    pub pause: Pause,
    /// How many failures are borne.
    pub max_failures: FailureLimit,
    /// What follows when they are not.
    pub on_failure: OnFailure,
    /// What has to hold after each wave before the next one begins.
    pub gate: Option<Gate>,
}

/// The databases that go first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Canary {
    /// The first so many, in the order of their names.
    Count(usize),
    /// These, which must be among the targets.
    Names(Vec<String>),
}

/// How the databases are divided into waves.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum WaveSize {
    /// Not at all: one wave.
    #[default]
    All,
    /// So many percent of all targets in each, rounded up; from 1 to 100.
    Percent(u8),
    /// So many in each.
    Count(usize),
    /// One for each value of this label, in the order of the values; those that lack it come last,
    /// in a wave of their own.
    ByLabel(String),
}

/// What lies between two waves.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Pause {
    /// Nothing.
    #[default]
    None,
    /// So much time.
    For(Duration),
    /// The operation is paused until somebody resumes it.
    Manual,
}

/// How many databases may fail before no further one is begun. Those that are under way are always
/// finished.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum FailureLimit {
    /// The wave in which one fails is finished, and is the last.
    #[default]
    Wave,
    /// So many in the whole operation; one more halts it at once.
    Count(usize),
    /// So many percent of all targets, from 0 to 100; more than that halts it at once.
    Percent(u8),
}

/// What follows when more databases failed than are borne, or when the gate did not hold.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum OnFailure {
    /// The operation is halted, and everything stays as it is.
    #[default]
    Stop,
    /// Exactly what this operation applied is rolled back, database by database, the newest first.
    RollBack,
}

/// What has to hold on each database of a wave before the next wave begins.
///
/// It is asked `wait` after the wave's end, and again until it holds or `limit` is over. What fails
/// then halts the operation; what cannot be decided pauses it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Gate {
    /// A statement that returns one row with one boolean.
    pub sql: Option<String>,
    /// No alert may be open on the database.
    pub no_alerts: bool,
    /// How long after the end of the wave it is first asked.
    pub wait: Duration,
    /// How long it may take to hold, from then on.
    pub limit: Duration,
}

impl Gate {
    /// How long a gate may take to hold, unless said otherwise.
    pub const LIMIT: Duration = Duration::from_mins(1);
}

/// A database that an operation is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// Its name.
    pub name: String,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
}

/// Databases that may be worked on at the same time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wave {
    /// Its name, for people: `canary`, `wave 2`, `region=eu`, `without region`.
    pub name: String,
    /// Whether these are the ones that go first.
    pub is_canary: bool,
    /// Its databases, in the order in which they are begun.
    pub databases: Vec<String>,
}

/// How many databases of an operation failed so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Failures {
    /// Of the wave that is under way.
    pub in_wave: usize,
    /// In all waves.
    pub in_all: usize,
    /// How many databases the operation is about.
    pub targets: usize,
}

impl Strategy {
    /// Refuses what cannot be meant, whatever the targets are.
    pub fn check(&self) -> Result<(), Failure> {
        let bad = |message: &str| Err(Failure::new(Code::BadStrategy, message));
        match &self.canary {
            Some(Canary::Count(0)) => return bad("A canary of 0 databases is none: leave it out"),
            Some(Canary::Names(names)) if names.is_empty() => return bad("The canary names no database"),
            _ => {}
        }
        match &self.wave {
            WaveSize::Count(0) | WaveSize::Percent(0) => return bad("A wave of 0 databases never ends"),
            WaveSize::Percent(101..) => return bad("A wave cannot be more than 100% of the databases"),
            WaveSize::ByLabel(key) if key.is_empty() => {
                return bad("The waves are by a label without a name");
            }
            _ => {}
        }
        if let FailureLimit::Percent(101..) = self.max_failures {
            return bad("No more than 100% of the databases can fail");
        }
        if self.pause != Pause::None && self.canary.is_none() && self.wave == WaveSize::All {
            return bad(
                "There is nothing to pause between: without canary and waves all databases are one wave",
            );
        }
        match &self.gate {
            Some(Gate { sql: None, no_alerts: false, .. }) => bad("The gate asks nothing"),
            Some(Gate { sql: Some(sql), .. }) if sql.trim().is_empty() => bad("The gate's SQL is empty"),
            Some(Gate { limit, .. }) if limit.is_zero() => bad("A gate with a limit of 0 can never hold"),
            _ => Ok(()),
        }
    }

    /// Whether, after a failure, no further database is begun.
    pub fn halts_within(&self, wave: &Wave, failures: Failures) -> bool {
        let is_exceeded = match self.max_failures {
            FailureLimit::Wave => false,
            FailureLimit::Count(limit) => failures.in_all > limit,
            FailureLimit::Percent(limit) => failures.in_all * 100 > failures.targets * usize::from(limit),
        };
        is_exceeded || wave.is_canary && failures.in_wave > 0
    }

    /// Whether, at the end of a wave, no further wave is begun.
    pub fn halts_after(&self, wave: &Wave, failures: Failures) -> bool {
        self.halts_within(wave, failures) || self.max_failures == FailureLimit::Wave && failures.in_wave > 0
    }
}

/// Lays the targets out: each of them in exactly one wave, the canary first, in the order of their
/// names within a wave. No wave is empty.
pub fn waves(strategy: &Strategy, targets: &[Target]) -> Result<Vec<Wave>, Failure> {
    strategy.check()?;
    let mut targets: Vec<&Target> = targets.iter().collect();
    targets.sort_by(|a, b| a.name.cmp(&b.name));
    let all = targets.len();
    let (canary, others) = match &strategy.canary {
        None => (Vec::new(), targets),
        Some(Canary::Count(count)) => {
            let others = targets.split_off(targets.len().min(*count));
            (targets, others)
        }
        Some(Canary::Names(names)) => {
            if let Some(name) = names.iter().find(|name| targets.iter().all(|target| target.name != **name)) {
                let message = format!("The canary {name} is not among the {all} databases that are meant");
                return Err(Failure::new(Code::BadStrategy, message));
            }
            targets.into_iter().partition(|target| names.contains(&target.name))
        }
    };
    let mut waves = Vec::new();
    if !canary.is_empty() {
        waves.push(wave("canary".to_owned(), true, &canary));
    }
    match &strategy.wave {
        WaveSize::All => waves.extend(sized(&others, others.len())),
        WaveSize::Count(count) => waves.extend(sized(&others, *count)),
        WaveSize::Percent(percent) => {
            waves.extend(sized(&others, (all * usize::from(*percent)).div_ceil(100)));
        }
        WaveSize::ByLabel(key) => waves.extend(labelled(&others, key)?),
    }
    Ok(waves)
}

fn wave(name: String, is_canary: bool, targets: &[&Target]) -> Wave {
    Wave { name, is_canary, databases: targets.iter().map(|target| target.name.clone()).collect() }
}

fn sized(targets: &[&Target], size: usize) -> Vec<Wave> {
    let chunks = targets.chunks(size.max(1)).zip(1..);
    chunks.map(|(chunk, number)| wave(format!("wave {number}"), false, chunk)).collect()
}

/// A misspelt label would make one wave of everything, so that some of them must have it.
fn labelled(targets: &[&Target], key: &str) -> Result<Vec<Wave>, Failure> {
    let mut by_value = BTreeMap::<&str, Vec<&Target>>::new();
    let mut without = Vec::new();
    for target in targets {
        match target.labels.get(key) {
            Some(value) => by_value.entry(value).or_default().push(target),
            None => without.push(*target),
        }
    }
    if by_value.is_empty() && !without.is_empty() {
        let message = format!("None of the databases that are meant has the label {key}");
        let mut keys: Vec<_> = without.iter().flat_map(|target| target.labels.keys().cloned()).collect();
        keys.sort();
        keys.dedup();
        return Err(Failure::new(Code::BadStrategy, message).details(keys));
    }
    let mut waves: Vec<_> =
        by_value.iter().map(|(value, targets)| wave(format!("{key}={value}"), false, targets)).collect();
    if !without.is_empty() {
        waves.push(wave(format!("without {key}"), false, &without));
    }
    Ok(waves)
}
