//! Named tasks that are joined, and the clock.

use std::{future::Future, time::Duration};

use tokio::task::JoinHandle;
use tokio_util::task::TaskTracker;

/// The tasks of one process, so that a shutdown can wait for all of them.
#[derive(Debug, Clone, Default)]
pub struct Tasks {
    tracker: TaskTracker,
}

impl Tasks {
    /// Starts a task. Its name is on every log line that it writes.
    pub fn spawn<F>(&self, name: &'static str, future: F) -> JoinHandle<F::Output>
    where
        F: Future + Send + 'static,
        F::Output: Send + 'static,
    {
        use tracing::Instrument as _;
        self.tracker.spawn(future.instrument(tracing::debug_span!("task", name)))
    }

    /// Waits until every task has ended, at most for `deadline`; says whether they all did.
    pub async fn join(&self, deadline: Duration) -> bool {
        self.tracker.close();
        tokio::time::timeout(deadline, self.tracker.wait()).await.is_ok()
    }
}

/// Starts a task that lives as long as the object that holds its handle: a connection's driver.
#[allow(clippy::disallowed_methods, reason = "the one place, beside Tasks, that spawns")]
pub fn spawn_owned<F>(future: F) -> JoinHandle<F::Output>
where
    F: Future + Send + 'static,
    F::Output: Send + 'static,
{
    tokio::spawn(future)
}
