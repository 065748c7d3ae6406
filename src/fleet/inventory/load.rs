//! Who is at work on a server: whoever only looks lets them go first.

use std::{
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::{
    sync::Notify,
    time::{Instant, timeout},
};

/// How long nobody may have been at work before it counts as calm: between one request and the next,
/// and between the databases of an operation, looks would only stand in the way.
const MOMENT: Duration = Duration::from_millis(250);

/// The runs and the readings for requests that are under way on one server.
#[derive(Default)]
pub(in crate::fleet) struct Load {
    at_work: Mutex<AtWork>,
    ended: Notify,
}

#[derive(Clone, Copy, Default)]
struct AtWork {
    count: usize,
    /// When the last of them ended.
    left: Option<Instant>,
}

/// One who is at work, until it is dropped.
pub(in crate::fleet) struct Loaded<'a>(&'a Load);

impl Load {
    /// Counts as being at work from now on.
    pub(super) fn enter(&self) -> Loaded<'_> {
        self.at_work().count += 1;
        Loaded(self)
    }

    /// Whether nobody is at work.
    pub(in crate::fleet) fn is_calm(&self) -> bool {
        self.at_work().count == 0
    }

    /// Waits until nobody has been at work for a moment, at most so long: looks may be late, and are
    /// never left out.
    pub(in crate::fleet) async fn calm(&self, at_most: Duration) {
        let calm = async {
            loop {
                // Before the question: what ends in between wakes it too.
                let ended = self.ended.notified();
                let AtWork { count, left } = *self.at_work();
                let until = left.map(|left| left + MOMENT).filter(|until| *until > Instant::now());
                match (count, until) {
                    (0, None) => return,
                    (0, Some(until)) => tokio::time::sleep_until(until).await,
                    _ => ended.await,
                }
            }
        };
        // When the time is over it is looked all the same.
        let _ = timeout(at_most, calm).await;
    }

    fn at_work(&self) -> MutexGuard<'_, AtWork> {
        self.at_work.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Loaded<'_> {
    fn drop(&mut self) {
        let mut at_work = self.0.at_work();
        at_work.count -= 1;
        if at_work.count == 0 {
            at_work.left = Some(Instant::now());
            self.0.ended.notify_waiters();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn looks_wait_for_the_end_of_the_work_and_not_for_ever() {
        let (load, long) = (Load::default(), Duration::from_mins(1));
        let started = Instant::now();
        load.calm(long).await;
        assert!(started.elapsed() < MOMENT, "nobody has been at work");

        let (first, second) = (load.enter(), load.enter());
        drop(first);
        assert!(!load.is_calm());
        let a_little = Duration::from_millis(20);
        load.calm(a_little).await;
        assert!(started.elapsed() >= a_little, "a look is late, and not left out");

        let mut ended = Instant::now();
        let ends = async {
            tokio::task::yield_now().await;
            ended = Instant::now();
            drop(second);
        };
        tokio::join!(load.calm(long), ends);
        assert!(load.is_calm() && ended.elapsed() >= MOMENT, "{:?}", ended.elapsed());
        assert!(started.elapsed() < long);
    }
}
