//! What systemd, or another manager that sets `NOTIFY_SOCKET`, is told: that the daemon serves, reloads,
//! still works, and stops. Where the variable is not set, nobody is told anything.

use std::time::Duration;

use sd_notify::NotifyState;
use tokio::{
    sync::{mpsc, oneshot},
    time::MissedTickBehavior,
};

use crate::runtime::Tasks;

/// How often the watchdog is fed within its limit: one answer that comes late does not end the daemon.
const FEEDS_PER_LIMIT: u32 = 3;

/// A limit that makes no sense must not keep a processor busy.
const SHORTEST_PERIOD: Duration = Duration::from_millis(10);

/// Asks a task whether it still does its work; the answer is sent back through it.
pub(super) type Question = oneshot::Sender<()>;

/// The daemon answers.
pub(super) async fn ready() {
    tell(vec![NotifyState::Ready, NotifyState::Status("serving")]).await;
}

/// The daemon is about to read anew what it reads on SIGHUP; [`ready`] says that it has.
pub(super) async fn reloading() {
    let mut states = vec![NotifyState::Reloading];
    // Type=notify-reload asks for the time, so that it knows which SIGHUP this one is about.
    states.extend(NotifyState::monotonic_usec_now());
    tell(states).await;
}

/// The daemon takes no more work, and ends within `limit`. The manager waits that long, whatever its own
/// limit is.
pub(super) async fn stopping(limit: Duration) {
    let patience = u32::try_from(limit.as_micros()).unwrap_or(u32::MAX);
    let status = NotifyState::Status("stopping: what is running ends or is cancelled");
    tell(vec![NotifyState::Stopping, NotifyState::ExtendTimeoutUsec(patience), status]).await;
}

/// Begins to feed the manager's watchdog, where it has one: as long as whoever is asked answers.
pub(super) fn watch(tasks: &Tasks, questions: mpsc::Sender<Question>) {
    if let Some(limit) = sd_notify::watchdog_enabled() {
        let period = (limit / FEEDS_PER_LIMIT).max(SHORTEST_PERIOD);
        drop(tasks.spawn("watchdog", feed(questions, period)));
    }
}

/// A task that hangs does not answer, and the manager then ends the daemon; one that has ended needs no
/// watchdog any more.
async fn feed(questions: mpsc::Sender<Question>, period: Duration) {
    let mut ticks = tokio::time::interval(period);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = ticks.tick() => {}
            () = questions.closed() => return,
        }
        let (question, answer) = oneshot::channel();
        if questions.send(question).await.is_err() || answer.await.is_err() {
            return;
        }
        tell(vec![NotifyState::Watchdog]).await;
    }
}

/// Sends one message. A manager that does not read holds up the thread that waits for it, not the
/// daemon's own.
async fn tell(states: Vec<NotifyState<'static>>) {
    let sent = tokio::task::spawn_blocking(move || sd_notify::notify(&states)).await;
    if let Ok(Err(error)) = sent {
        tracing::warn!(%error, "the service manager could not be told how the daemon is");
    }
}
