//! When a database is looked at next.

use std::time::Duration;

use backon::{BackoffBuilder as _, ExponentialBackoff, ExponentialBuilder};

/// The longest pause before a database is asked again that does not answer; longer only where the
/// poll is.
const LONGEST_PAUSE: Duration = Duration::from_mins(10);

/// The first pause before a database is looked at again on which somebody was at work.
const BUSY_PAUSE: Duration = Duration::from_millis(250);

/// The pauses between the looks at one database.
pub(super) struct Rhythm {
    poll: Duration,
    /// While it does not answer, longer and longer.
    unreachable: Option<ExponentialBackoff>,
    /// While somebody is at work on it, so that the end of that is seen soon.
    busy: Option<ExponentialBackoff>,
}

impl Rhythm {
    /// A look on every `poll`.
    pub(super) fn new(poll: Duration) -> Self {
        Self { poll, unreachable: None, busy: None }
    }

    /// The pause after a look at a database that did not answer, or on which somebody was at work,
    /// or with which all is as it should be. It varies by a tenth, so that looks spread.
    pub(super) fn pause(&mut self, is_unreachable: bool, is_busy: bool) -> Duration {
        let poll = self.poll;
        self.unreachable = self.unreachable.take().filter(|_| is_unreachable);
        self.busy = self.busy.take().filter(|_| is_busy);
        let pause = if is_unreachable {
            let backoff = self.unreachable.get_or_insert_with(|| pauses(poll, LONGEST_PAUSE.max(poll)));
            backoff.next().unwrap_or(poll)
        } else if is_busy {
            let backoff = self.busy.get_or_insert_with(|| pauses(BUSY_PAUSE.min(poll), poll));
            backoff.next().unwrap_or(poll)
        } else {
            poll
        };
        pause.mul_f64(0.9 + 0.2 * fastrand::f64())
    }
}

/// Each twice as long as the one before, without an end.
fn pauses(first: Duration, longest: Duration) -> ExponentialBackoff {
    ExponentialBuilder::default()
        .with_min_delay(first)
        .with_max_delay(longest)
        .with_factor(2.0)
        .without_max_times()
        .build()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_to_their_bounds_and_begin_anew() {
        let mut rhythm = Rhythm::new(Duration::from_secs(30));
        let mut check = |is_unreachable, is_busy, expected: f64| {
            let pause = rhythm.pause(is_unreachable, is_busy).as_secs_f64();
            assert!((expected * 0.9..=expected * 1.1).contains(&pause), "{pause} for {expected}");
        };
        check(false, false, 30.0);
        for expected in [30.0, 60.0, 120.0, 240.0, 480.0, 600.0, 600.0] {
            check(true, false, expected);
        }
        check(false, false, 30.0);
        check(true, false, 30.0);
        for expected in [0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 30.0, 30.0] {
            check(false, true, expected);
        }
        check(false, false, 30.0);
        check(false, true, 0.25);
    }

    #[test]
    fn a_poll_that_is_longer_than_the_longest_pause() {
        let hour = Duration::from_hours(1);
        let mut rhythm = Rhythm::new(hour);
        for _ in 0..3 {
            assert!(rhythm.pause(true, false) >= hour.mul_f64(0.9));
        }
    }
}
