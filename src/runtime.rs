//! Named tasks that are joined, and a process whose memory is its own.

use std::{future::Future, io, time::Duration};

use nix::sys::{
    prctl,
    resource::{Resource, getrlimit, setrlimit},
};

use tokio::task::JoinHandle;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

pub mod faults;

/// The tasks of one process, so that a shutdown can wait for all of them.
#[derive(Debug, Clone, Default)]
pub struct Tasks {
    tracker: TaskTracker,
    failed: CancellationToken,
}

impl Tasks {
    /// Tasks of which a vital one fires `failed` where it panics.
    pub fn new(failed: CancellationToken) -> Self {
        Self { tracker: TaskTracker::default(), failed }
    }

    /// Starts a task. Its name is on every log line that it writes.
    pub fn spawn<F>(&self, name: &'static str, future: F) -> JoinHandle<F::Output>
    where
        F: Future + Send + 'static,
        F::Output: Send + 'static,
    {
        use tracing::Instrument as _;
        self.tracker.spawn(future.instrument(tracing::debug_span!("task", name)))
    }

    /// Starts a task that the process cannot do without: one that panicked would otherwise be missed
    /// by nobody, and what it watches would seem to be well.
    pub fn spawn_vital(&self, name: &'static str, future: impl Future<Output = ()> + Send + 'static) {
        let guard = self.failed.clone().drop_guard();
        drop(self.spawn(name, async move {
            future.await;
            guard.disarm();
        }));
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

/// Keeps the memory of this process, which holds passwords and keys, out of core dumps, and out of the reach
/// of other processes of the same user (debuggers, `/proc/PID/mem`, `/proc/PID/environ`).
///
/// For the start of a program. The limit alone would not do: a program that the kernel pipes cores to is not
/// bound by it.
pub fn keep_memory_private() -> io::Result<()> {
    // A service manager may have set it, and forbidden to change limits.
    if getrlimit(Resource::RLIMIT_CORE)? != (0, 0) {
        setrlimit(Resource::RLIMIT_CORE, 0, 0)?;
    }
    Ok(prctl::set_dumpable(false)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn only_a_vital_task_that_panics_is_a_failure() {
        let failed = CancellationToken::new();
        let tasks = Tasks::new(failed.clone());
        tasks.spawn_vital("ends", async {});
        drop(tasks.spawn("panics", async { unreachable!("as the test wants it") }));
        assert!(tasks.join(Duration::from_secs(10)).await);
        assert!(!failed.is_cancelled());
        tasks.spawn_vital("panics", async { unreachable!("as the test wants it") });
        assert!(tasks.join(Duration::from_secs(10)).await);
        assert!(failed.is_cancelled());
    }
}
