//! How far an operation over many databases is, how fast it goes, and when it may be over. Time is
//! the events', so that whoever comes later sees the same.

use std::{collections::HashSet, time::Duration};

use jiff::Timestamp;

use crate::{
    cli::render::text::{clean, count, duration, timestamp},
    rpc::proto::{self, DatabaseOutcome, OperationState, event::Kind},
};

/// From how many databases that are done on the end is estimated.
const ENOUGH: usize = 5;

/// How far an operation is.
#[derive(Debug, Default)]
pub(super) struct Pace {
    targets: HashSet<String>,
    /// The wave that is under way: its name, its number, of how many.
    wave: Option<(String, u32, u32)>,
    done: usize,
    failed: usize,
    steps: usize,
    is_paused: bool,
    /// How long was worked before the last pause.
    worked: Duration,
    /// Since when it works; `None` while it is paused, and before it began.
    since: Option<Timestamp>,
}

impl Pace {
    /// Takes one event.
    pub(super) fn take(&mut self, event: &proto::Event) {
        let time = timestamp(event.time.as_ref()).unwrap_or_default();
        match &event.kind {
            Some(Kind::OperationStarted(begun)) => {
                let targets = begun.databases.iter().cloned().collect();
                *self = Self { targets, since: Some(time), ..Self::default() };
            }
            Some(Kind::OperationChanged(changed)) => {
                self.is_paused = changed.to() == OperationState::Paused;
                match (changed.to() == OperationState::Running, self.since) {
                    (true, None) => self.since = Some(time),
                    (false, Some(since)) if self.is_paused => {
                        self.worked += elapsed(since, time);
                        self.since = None;
                    }
                    _ => {}
                }
            }
            Some(Kind::WaveStarted(begun)) => {
                let wave = begun.wave.clone().unwrap_or_default();
                self.wave = Some((wave.name, wave.number, wave.total));
            }
            Some(Kind::StepFinished(_)) => self.steps += 1,
            Some(Kind::DatabaseFinished(result)) => {
                self.done += 1;
                self.failed += usize::from(result.outcome() == DatabaseOutcome::Failed);
            }
            _ => {}
        }
    }

    /// How many databases it is about.
    pub(super) fn targets(&self) -> usize {
        self.targets.len()
    }

    /// How many of them are done.
    pub(super) fn done(&self) -> usize {
        self.done.min(self.targets())
    }

    /// How far it is at this time, in a line.
    pub(super) fn text(&self, now: Timestamp) -> String {
        let worked = self.worked + self.since.map_or(Duration::ZERO, |since| elapsed(since, now));
        let mut parts = Vec::new();
        if let Some((name, number, total)) = &self.wave {
            parts.push(format!("wave {number} of {total} ({})", clean(name)));
        }
        parts.push(format!("{} of {}", self.done(), count(self.targets(), "database")));
        if self.failed > 0 {
            parts.push(format!("{} failed", self.failed));
        }
        parts.push(count(self.steps, "step"));
        let seconds = worked.as_secs_f64();
        if self.done > 0 && seconds > 0.0 {
            #[allow(clippy::cast_precision_loss, reason = "it is rounded for people")]
            let rate = self.done as f64 / seconds;
            parts.push(if rate < 1.0 {
                format!("{:.1} a minute", rate * 60.0)
            } else {
                format!("{rate:.1} a second")
            });
        }
        let left = self.targets().saturating_sub(self.done);
        if self.is_paused {
            parts.push("paused".to_owned());
        } else if self.done >= ENOUGH && left > 0 {
            let each = worked / u32::try_from(self.done).unwrap_or(u32::MAX);
            let rest = each.saturating_mul(u32::try_from(left).unwrap_or(u32::MAX));
            // To the second, or it would tremble.
            let rest = Duration::from_secs(rest.as_secs().max(1));
            parts.push(format!("about {} left", duration(rest).replace(".0 s", " s")));
        }
        parts.join(", ")
    }
}

fn elapsed(since: Timestamp, until: Timestamp) -> Duration {
    Duration::try_from(until.duration_since(since)).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).expect("a time")
    }

    fn event(second: i64, kind: Kind) -> proto::Event {
        let time = Some(prost_types::Timestamp { seconds: second, nanos: 0 });
        proto::Event { time, kind: Some(kind), ..proto::Event::default() }
    }

    fn started(databases: usize) -> Kind {
        let databases = (0..databases).map(|number| format!("db-{number}")).collect();
        Kind::OperationStarted(proto::OperationStarted { databases, ..Default::default() })
    }

    fn finished(outcome: DatabaseOutcome) -> Kind {
        Kind::DatabaseFinished(proto::DatabaseResult { outcome: outcome.into(), ..Default::default() })
    }

    fn changed(to: OperationState) -> Kind {
        Kind::OperationChanged(proto::OperationChanged { to: to.into(), ..Default::default() })
    }

    #[test]
    fn rates_and_ends_are_of_the_time_that_was_worked() {
        let mut pace = Pace::default();
        let mut tell = |second, kind| pace.take(&event(second, kind));
        tell(0, changed(OperationState::Running));
        tell(0, started(20));
        let wave = proto::WaveOf { name: "canary".into(), number: 1, total: 3 };
        tell(0, Kind::WaveStarted(proto::WaveStarted { wave: Some(wave), databases: 1 }));
        tell(1, Kind::StepFinished(proto::StepFinished::default()));
        tell(2, finished(DatabaseOutcome::Succeeded));
        assert_eq!(pace.text(at(2)), "wave 1 of 3 (canary), 1 of 20 databases, 1 step, 30.0 a minute");
        let mut tell = |second, kind| pace.take(&event(second, kind));
        tell(2, changed(OperationState::Paused));
        assert_eq!(
            pace.text(at(1_000)),
            "wave 1 of 3 (canary), 1 of 20 databases, 1 step, 30.0 a minute, paused"
        );
        let mut tell = |second, kind| pace.take(&event(second, kind));
        tell(1_000, changed(OperationState::Running));
        for _ in 0..3 {
            tell(1_001, finished(DatabaseOutcome::Succeeded));
        }
        tell(1_002, finished(DatabaseOutcome::Failed));
        // Four seconds of work for five databases; fifteen are left.
        assert_eq!(
            pace.text(at(1_002)),
            "wave 1 of 3 (canary), 5 of 20 databases, 1 failed, 1 step, 1.2 a second, about 12 s left"
        );
        // A later attempt begins anew, with those that are tried again.
        pace.take(&event(2_000, started(1)));
        assert_eq!(pace.text(at(2_000)), "0 of 1 database, 0 steps");
    }
}
