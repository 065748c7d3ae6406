//! A strategy in words: for people, and for the digest of a plan, so that all of it is said.

use std::fmt;

use crate::fleet::strategy::{Canary, FailureLimit, Gate, OnFailure, Pause, Strategy, WaveSize};

impl fmt::Display for Strategy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.canary {
            None => {}
            Some(Canary::Count(count)) => write!(f, "a canary of {count}, then ")?,
            Some(Canary::Names(names)) => write!(f, "the canary {}, then ", names.join(", "))?,
        }
        match &self.wave {
            WaveSize::All => f.write_str("one wave")?,
            WaveSize::Percent(percent) => write!(f, "waves of {percent}%")?,
            WaveSize::Count(count) => write!(f, "waves of {count}")?,
            WaveSize::ByLabel(key) => write!(f, "a wave for each {key}")?,
        }
        if let Some(parallel) = self.parallel {
            write!(f, "; {parallel} at once")?;
        }
        match self.pause {
            Pause::None => {}
            Pause::For(duration) => write!(f, "; {} between waves", humantime::format_duration(duration))?,
            Pause::Manual => f.write_str("; after each wave it is paused until it is resumed")?,
        }
        match self.max_failures {
            FailureLimit::Wave => {}
            FailureLimit::Count(count) => write!(f, "; at most {count} may fail")?,
            FailureLimit::Percent(percent) => write!(f, "; at most {percent}% may fail")?,
        }
        if self.on_failure == OnFailure::RollBack {
            f.write_str("; on failure what was applied is rolled back")?;
        }
        let Some(Gate { sql, no_alerts, wait, limit }) = &self.gate else { return Ok(()) };
        f.write_str("; gate: ")?;
        if let Some(sql) = sql {
            f.write_str(sql.trim())?;
        }
        if *no_alerts {
            f.write_str(if sql.is_some() { ", and no open alerts" } else { "no open alerts" })?;
        }
        let (wait, limit) = (humantime::format_duration(*wait), humantime::format_duration(*limit));
        write!(f, " (asked after {wait}, for {limit} at most)")
    }
}
