//! Refused calls are recorded, and nobody fills the disk with them: of calls that are alike the first one is
//! recorded as a whole, and the others are counted for a minute. How many may differ in that time is bounded
//! too, apart for those who are known and those who are not: whoever tries wrong tokens does not hide what
//! somebody with a right one was refused.

use std::{collections::HashMap, time::Duration};

use jiff::Timestamp;

use crate::auditlog::Entry;

/// For how long calls that are alike are counted.
pub(super) const WINDOW: Duration = Duration::from_mins(1);

/// How many different ones are recorded in that time, of each kind.
const MOST: usize = 64;

/// What was refused since the first call of the window.
#[derive(Debug, Default)]
pub(super) struct Refusals {
    since: Option<Timestamp>,
    known: Counted,
    unknown: Counted,
}

#[derive(Debug, Default)]
struct Counted {
    alike: HashMap<String, (Entry, u64)>,
    others: u64,
}

impl Refusals {
    /// Takes a refused call; returns it where it is to be recorded now. `likeness` is what calls that are
    /// alike have in common.
    pub(super) fn take(&mut self, entry: Entry, likeness: String, is_known: bool) -> Option<Entry> {
        self.since.get_or_insert(entry.time);
        let counted = if is_known { &mut self.known } else { &mut self.unknown };
        if let Some((_, more)) = counted.alike.get_mut(&likeness) {
            *more += 1;
            return None;
        }
        if counted.alike.len() >= MOST {
            counted.others += 1;
            return None;
        }
        counted.alike.insert(likeness, (entry.clone(), 0));
        Some(entry)
    }

    /// Whether anything was refused in this window.
    pub(super) fn is_open(&self) -> bool {
        self.since.is_some()
    }

    /// What was counted, where the window is over, or is to be over.
    pub(super) fn lapse(&mut self, now: Timestamp, at_once: bool) -> Vec<Entry> {
        let is_over = |since: Timestamp| {
            // A clock that was set back ends it too.
            at_once || Duration::try_from(now.duration_since(since)).map_or(true, |age| age >= WINDOW)
        };
        let Some(since) = self.since.filter(|since| is_over(*since)) else { return Vec::new() };
        let ended = std::mem::take(self);
        let since = format!("{since:.6}");
        let mut entries = Vec::new();
        for (counted, who) in [(ended.known, "known"), (ended.unknown, "unknown")] {
            let mut alike: Vec<_> = counted.alike.into_values().filter(|(_, more)| *more > 0).collect();
            alike.sort_by_key(|(first, _)| first.time);
            entries.extend(alike.into_iter().map(|(first, more)| {
                Entry::new("refused_again")
                    .with_all(&first.redacted())
                    .with("count", more)
                    .with("since", since.as_str())
            }));
            if counted.others > 0 {
                let entry = Entry::new("refused_again").with("others", who).with("count", counted.others);
                entries.push(entry.with("since", since.as_str()));
            }
        }
        entries
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_of_refused_calls_is_a_bounded_number_of_records() {
        let mut refusals = Refusals::default();
        let mut take = |likeness: &str, is_known| {
            let entry = Entry::new("call").with("rpc", likeness);
            refusals.take(entry, likeness.to_owned(), is_known).is_some()
        };
        let recorded =
            (0..10_000).filter(|number| take(&format!("unknown {}", number % 1_000), false)).count();
        assert_eq!(recorded, MOST);
        assert!(take("known", true), "who is known is recorded all the same");
        assert!(!take("known", true));
        let now = Timestamp::now();
        assert!(refusals.lapse(now, false).is_empty() && refusals.is_open());
        let told = refusals.lapse(now + WINDOW, false);
        assert_eq!(told.len(), 1 + MOST + 1);
        let counts = told.iter().filter_map(|entry| entry.redacted().get("count")?.as_u64());
        assert_eq!(counts.sum::<u64>(), 1 + 10_000 - MOST as u64);
        assert!(!refusals.is_open() && refusals.lapse(now + WINDOW, true).is_empty());
    }
}
