//! When audits are due: cron expressions in a time zone, and a clock that may jump.

use std::time::Duration;

use croner::{
    Cron,
    parser::{CronParser, Year},
};
use jiff::{Timestamp, tz::TimeZone};

/// The longest that a schedule waits before it looks at the clock again: a machine that slept, or
/// whose clock was set forward, is seen to within this time.
const LONGEST_NAP: Duration = Duration::from_secs(30);

/// Why a schedule is none.
#[derive(Debug, thiserror::Error)]
pub enum ScheduleError {
    /// The expression is not cron's.
    #[error(
        "{expression:?} is not a cron expression: {reason}; hint: five fields, MINUTE HOUR DAY MONTH WEEKDAY, \
         such as \"30 3 * * *\" for half past three, or six with SECOND before them"
    )]
    Expression {
        /// What was written.
        expression: String,
        /// What is wrong with it.
        reason: String,
    },
    /// No day has ever been such.
    #[error("{expression:?} is never due; hint: see whether its month has such a day")]
    Never {
        /// What was written.
        expression: String,
    },
    /// The system knows no such time zone.
    #[error(
        "{time_zone:?} is not a time zone; hint: \"UTC\", or a name such as \"Europe/Berlin\" from the system's tzdata"
    )]
    TimeZone {
        /// What was written.
        time_zone: String,
    },
}

/// When something is due. Where the clocks go forward, a fixed time that is skipped is due right
/// after the gap; where they go back, it is due once, at its first coming. Intervals (`*`, `*/5`)
/// go by the hours that there are.
#[derive(Debug, Clone)]
pub struct Schedule {
    expression: String,
    time_zone: String,
    cron: Cron,
    zone: TimeZone,
}

impl Schedule {
    /// Reads a cron expression of five fields, or six with seconds, in an IANA time zone.
    pub fn parse(expression: &str, time_zone: &str) -> Result<Self, ScheduleError> {
        let unknown = |_| ScheduleError::TimeZone { time_zone: time_zone.to_owned() };
        let zone = TimeZone::get(time_zone).map_err(unknown)?;
        let wrong = |error: croner::errors::CronError| ScheduleError::Expression {
            expression: expression.to_owned(),
            reason: error.to_string().trim_end_matches('.').to_owned(),
        };
        let cron = CronParser::builder().year(Year::Disallowed).build().parse(expression).map_err(wrong)?;
        let (expression, time_zone) = (expression.to_owned(), time_zone.to_owned());
        let schedule = Self { expression, time_zone, cron, zone };
        match schedule.next(Timestamp::UNIX_EPOCH) {
            Some(_) => Ok(schedule),
            None => Err(ScheduleError::Never { expression: schedule.expression }),
        }
    }

    /// The expression, as it was written.
    pub fn expression(&self) -> &str {
        &self.expression
    }

    /// The time zone, as it was written.
    pub fn time_zone(&self) -> &str {
        &self.time_zone
    }

    /// When it is due for the first time after `time`.
    pub fn next(&self, time: Timestamp) -> Option<Timestamp> {
        let next = self.cron.find_next_occurrence(&time.to_zoned(self.zone.clone()), false);
        next.ok().map(|next| next.timestamp())
    }
}

/// The next run of a schedule, by looks at a clock that may jump. What was missed while nobody
/// looked is due once. A clock that is set back makes nothing due again: as long a wait as was left
/// comes before the next run, so that neither a small step back nor a large one disturbs the pace.
pub(super) struct Agenda<'a> {
    schedule: &'a Schedule,
    due: Option<Timestamp>,
    seen: Timestamp,
}

impl<'a> Agenda<'a> {
    /// Begins now; what was missed since it was last seen to is due once.
    pub(super) fn new(schedule: &'a Schedule, last: Timestamp, now: Timestamp) -> Self {
        Self { schedule, due: schedule.next(last), seen: now }
    }

    /// How long to wait before the next look; `None` where nothing will ever be due.
    pub(super) fn nap(&self) -> Option<Duration> {
        let left = self.due?.duration_since(self.seen);
        Some(left.try_into().map_or(Duration::ZERO, |left: Duration| left.min(LONGEST_NAP)))
    }

    /// Looks at the clock: whether it is time.
    pub(super) fn is_due(&mut self, now: Timestamp) -> bool {
        if let Some(due) = self.due.filter(|_| now < self.seen) {
            let earliest = now.checked_add(due.duration_since(self.seen)).unwrap_or(now);
            // `next` is after a time, and what is due at `earliest` itself counts.
            self.due = self.schedule.next(earliest.checked_sub(Duration::from_nanos(1)).unwrap_or(earliest));
        }
        self.seen = now;
        let is_due = self.due.is_some_and(|due| due <= now);
        if is_due {
            self.due = self.schedule.next(now);
        }
        is_due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> Timestamp {
        text.parse().expect("a time")
    }

    fn schedule(expression: &str, zone: &str) -> Schedule {
        Schedule::parse(expression, zone).expect("a schedule")
    }

    #[test]
    fn next_times() {
        let check = |expression: &str, zone: &str, after: &str, expected: &[&str]| {
            let schedule = schedule(expression, zone);
            let mut time = at(after);
            let mut found = Vec::new();
            for _ in expected {
                time = schedule.next(time).expect("there is a next time");
                found.push(time.to_string());
            }
            assert_eq!(found, expected, "{expression} in {zone} after {after}");
        };
        let noon = "2026-11-23T12:00:00Z";
        check("30 3 * * *", "UTC", noon, &["2026-11-24T03:30:00Z", "2026-11-25T03:30:00Z"]);
        check("30 3 * * *", "Europe/Berlin", noon, &["2026-11-24T02:30:00Z"]);
        check("30 3 * * *", "Asia/Kathmandu", noon, &["2026-11-23T21:45:00Z"]);
        check("0 6 * * MON-FRI", "UTC", "2026-11-27T07:00:00Z", &["2026-11-30T06:00:00Z"]);
        check("0 0 L * *", "UTC", noon, &["2026-11-30T00:00:00Z", "2026-12-31T00:00:00Z"]);
        check("0 0 29 2 *", "UTC", noon, &["2028-02-29T00:00:00Z"]);
        check("@hourly", "UTC", noon, &["2026-11-23T13:00:00Z"]);
        check(
            "* * * * * *",
            "UTC",
            "2026-11-23T12:00:00.4Z",
            &["2026-11-23T12:00:01Z", "2026-11-23T12:00:02Z"],
        );
        // A time is due after itself only.
        check("0 12 * * *", "UTC", noon, &["2026-11-24T12:00:00Z"]);
        // The clocks go forward: 02:30 does not come, and is due at 03:00.
        let march = "2026-03-28T12:00:00Z";
        check("30 2 * * *", "Europe/Berlin", march, &["2026-03-29T01:00:00Z", "2026-03-30T00:30:00Z"]);
        check("0 * * * *", "Europe/Berlin", "2026-03-29T00:30:00Z", &["2026-03-29T01:00:00Z"]);
        // The clocks go back: 02:30 comes twice, and is due once; an interval goes on.
        let october = "2026-10-24T12:00:00Z";
        check("30 2 * * *", "Europe/Berlin", october, &["2026-10-25T00:30:00Z", "2026-10-26T01:30:00Z"]);
        let twice =
            ["2026-10-25T00:00:00Z", "2026-10-25T00:30:00Z", "2026-10-25T01:00:00Z", "2026-10-25T01:30:00Z"];
        check("*/30 * * * *", "Europe/Berlin", "2026-10-24T23:30:00Z", &twice);
        // South of the equator the half-hour of Lord Howe.
        check("15 2 * * *", "Australia/Lord_Howe", "2026-10-03T12:00:00Z", &["2026-10-03T15:30:00Z"]);
    }

    #[test]
    fn what_is_no_schedule() {
        let check = |expression: &str, zone: &str, expected: &str| {
            let error = Schedule::parse(expression, zone).expect_err("it is no schedule").to_string();
            assert!(error.contains(expected) && error.contains("hint:"), "{expression} {zone}: {error}");
        };
        check("", "UTC", "\"\" is not a cron expression");
        check("at noon", "UTC", "\"at noon\" is not a cron expression");
        check("61 * * * *", "UTC", "61 * * * *");
        check("0 25 * * *", "UTC", "0 25 * * *");
        check("* * * *", "UTC", "5 or 6 fields");
        check("0 0 0 1 1 * 2027", "UTC", "5 or 6 fields");
        check("0 0 30 2 *", "UTC", "is never due");
        check("0 3 * * *", "Europe/Atlantis", "\"Europe/Atlantis\" is not a time zone");
        check("0 3 * * *", "", "\"\" is not a time zone");
    }

    #[test]
    fn a_clock_that_jumps() {
        // Each look: the time, and whether a run is due.
        let check = |expression: &str, looks: &[(&str, bool)]| {
            let schedule = schedule(expression, "UTC");
            let mut agenda = Agenda::new(&schedule, at(looks[0].0), at(looks[0].0));
            for (number, (time, expected)) in looks.iter().enumerate() {
                assert_eq!(agenda.is_due(at(time)), *expected, "{expression}: look {number} at {time}");
            }
        };
        let day = |time| format!("2026-11-23T{time}:00Z");
        let [t0250, t0300, t0310, t0230] = ["02:50", "03:00", "03:10", "02:30"].map(day);
        // Due, and then not again.
        check("0 3 * * *", &[(&t0250, false), (&t0300, true), (&t0300, false), (&t0310, false)]);
        // Set forward, or asleep, over several runs: once.
        check(
            "0 * * * *",
            &[(&t0250, false), ("2026-11-23T09:20:00Z", true), ("2026-11-23T09:21:00Z", false)],
        );
        check(
            "0 * * * *",
            &[(&t0250, false), ("2026-11-23T09:20:00Z", true), ("2026-11-23T10:00:00Z", true)],
        );
        // Set back behind a run that was: not again; the next day's comes.
        let back = [(t0250.as_str(), false), (&t0310, true), (&t0230, false), (&t0300, false)];
        check(
            "0 3 * * *",
            &[&back[..], &[("2026-11-24T02:59:00Z", false), ("2026-11-24T03:00:00Z", true)]].concat(),
        );
        // Set back by hours: every five minutes goes on, after the two minutes that were left.
        let hours =
            [("2026-11-23T12:01:00Z", false), ("2026-11-23T12:03:00Z", false), (t0300.as_str(), false)];
        check(
            "*/5 * * * *",
            &[&hours[..], &[("2026-11-23T03:04:00Z", false), ("2026-11-23T03:05:00Z", true)]].concat(),
        );
        // Set back by a year, from a clock that was wrong: the next day's comes.
        let year = [("2027-11-23T12:00:00Z", false), ("2026-11-23T12:00:00Z", false)];
        check("0 3 * * *", &[&year[..], &[("2026-11-24T03:00:00Z", true)]].concat());
    }

    #[test]
    fn what_was_missed_is_due_once() {
        let check = |last: &str, now: &str, expected: bool| {
            let schedule = schedule("0 3 * * *", "UTC");
            let mut agenda = Agenda::new(&schedule, at(last), at(now));
            assert_eq!(agenda.nap() == Some(Duration::ZERO), expected, "{last} {now}");
            assert_eq!(agenda.is_due(at(now)), expected, "{last} {now}");
            assert!(!agenda.is_due(at(now)), "not twice: {last} {now}");
        };
        check("2026-11-23T03:00:00Z", "2026-11-24T02:59:00Z", false);
        check("2026-11-23T03:00:00Z", "2026-11-24T03:01:00Z", true);
        check("2026-11-20T03:00:00Z", "2026-11-24T03:01:00Z", true);
        // Another daemon's clock is ahead of this one's.
        check("2026-11-24T03:00:00Z", "2026-11-24T02:59:58Z", false);
    }

    #[test]
    fn naps_are_bounded() {
        let schedule = schedule("0 3 * * *", "UTC");
        let nap = |now| Agenda::new(&schedule, at(now), at(now)).nap();
        assert_eq!(nap("2026-11-23T02:59:59.5Z"), Some(Duration::from_millis(500)));
        assert_eq!(nap("2026-11-23T03:00:00Z"), Some(LONGEST_NAP));
    }
}
