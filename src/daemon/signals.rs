//! SIGTERM and SIGINT stop the daemon, a second one at once; SIGHUP reopens the log.

use std::sync::Arc;

use anyhow::Context as _;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;

use crate::telemetry::jsonl::JsonlLog;

/// The status of a process that was stopped in the middle of its work.
const STOPPED_AT_ONCE: i32 = 1;

/// Begins to listen for signals.
pub(super) fn watch(stop: CancellationToken, log: Arc<JsonlLog>) -> anyhow::Result<()> {
    let listen = |kind| signal(kind).context("cannot listen for signals");
    let signals =
        (listen(SignalKind::terminate())?, listen(SignalKind::interrupt())?, listen(SignalKind::hangup())?);
    // It never ends by itself: the process's end is its end.
    drop(crate::runtime::spawn_owned(react(signals, stop, log)));
    Ok(())
}

async fn react(
    (mut terminate, mut interrupt, mut hangup): (Signal, Signal, Signal),
    stop: CancellationToken,
    log: Arc<JsonlLog>,
) {
    loop {
        tokio::select! {
            _ = terminate.recv() => end(&stop),
            _ = interrupt.recv() => end(&stop),
            _ = hangup.recv() => match log.reopen() {
                Ok(()) => tracing::info!("the migration log was reopened"),
                Err(error) => tracing::error!(%error, "the migration log could not be reopened"),
            },
        }
    }
}

#[allow(clippy::exit, reason = "a second signal means at once: the databases' locks end with the process")]
fn end(stop: &CancellationToken) {
    if stop.is_cancelled() {
        tracing::warn!("stopped at once by a second signal");
        std::process::exit(STOPPED_AT_ONCE);
    }
    stop.cancel();
}
