//! What is told at the end.

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    io::Write as _,
    time::{Duration, Instant},
};

use crate::Args;

/// How often things happened, by name.
pub(crate) type Tally = BTreeMap<String, usize>;

/// Counts one.
pub(crate) fn count(tally: &mut Tally, what: impl Into<String>) {
    *tally.entry(what.into()).or_default() += 1;
}

/// The report of one soak.
pub(crate) struct Report {
    head: String,
    began: Instant,
    happened: Tally,
    facts: Vec<(String, String)>,
    /// What must not be.
    pub(crate) violations: Vec<String>,
}

impl Report {
    pub(crate) fn new(args: &Args, seed: u64) -> Self {
        let daemons = if args.alone { "one daemon, alone" } else { "three daemons, one control database" };
        let head = format!(
            "Soak of {} minutes: {} databases, {daemons}, {} clients, seed {seed}",
            args.minutes,
            args.databases,
            crate::CLIENTS
        );
        Self {
            head,
            began: Instant::now(),
            happened: Tally::new(),
            facts: Vec::new(),
            violations: Vec::new(),
        }
    }

    pub(crate) fn add(&mut self, tally: &Tally) {
        for (what, times) in tally {
            if let Some(violation) = what.strip_prefix("VIOLATION ") {
                self.violations.push(format!("{violation} ({times} times)"));
                continue;
            }
            *self.happened.entry(what.clone()).or_default() += times;
        }
    }

    /// Something that was measured.
    pub(crate) fn fact(&mut self, what: &str, value: impl Into<String>) {
        self.facts.push((what.to_owned(), value.into()));
    }

    /// Something that was measured, and what it has to be.
    pub(crate) fn must_be(&mut self, what: &str, value: usize, expected: usize) {
        self.fact(what, format!("{value} (must be {expected})"));
        if value != expected {
            self.violations.push(format!("{what}: {value} instead of {expected}"));
        }
    }

    pub(crate) fn violation(&mut self, what: impl Into<String>) {
        self.violations.push(what.into());
    }

    pub(crate) fn text(&self) -> String {
        let whole = Duration::from_secs(self.began.elapsed().as_secs());
        let mut text =
            format!("{}\nbrought to rest and counted after {whole:?} in all\n\nwhat happened\n", self.head);
        for (what, times) in &self.happened {
            let _ = writeln!(text, "  {times:>7}  {what}");
        }
        text += "\nwhat was counted\n";
        for (what, value) in &self.facts {
            let _ = writeln!(text, "  {what}: {value}");
        }
        let _ = writeln!(text, "\nviolations: {}", self.violations.len());
        for violation in &self.violations {
            let _ = writeln!(text, "  {violation}");
        }
        text
    }
}

pub(crate) fn say(line: &str) -> anyhow::Result<()> {
    Ok(writeln!(std::io::stdout(), "{line}")?)
}
