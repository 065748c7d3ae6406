//! SIGTERM and SIGINT stop the daemon, a second one at once; SIGHUP reopens the logs and
//! reads the inventory, the certificates and those who are let in anew.

use std::sync::Arc;

use anyhow::Context as _;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;

use crate::{
    auditlog::AuditLog,
    daemon::{access::Doors, inventories::Inventories, service_manager},
    telemetry::jsonl::JsonlLog,
};

/// The status of a process that was stopped in the middle of its work.
const STOPPED_AT_ONCE: i32 = 1;

/// Begins to listen for the signals that stop the daemon.
pub(super) fn stop(stop: CancellationToken) -> anyhow::Result<()> {
    let (mut terminate, mut interrupt) = (listen(SignalKind::terminate())?, listen(SignalKind::interrupt())?);
    // It never ends by itself: the process's end is its end.
    drop(crate::runtime::spawn_owned(async move {
        loop {
            tokio::select! {
                _ = terminate.recv() => end(&stop),
                _ = interrupt.recv() => end(&stop),
            }
        }
    }));
    Ok(())
}

/// Begins to reopen the logs and to read the inventory anew at each SIGHUP.
pub(super) fn hangup(
    log: Arc<JsonlLog>,
    audit_log: AuditLog,
    inventories: Arc<Inventories>,
    doors: Arc<Doors>,
) -> anyhow::Result<()> {
    let mut hangup = listen(SignalKind::hangup())?;
    // It ends with the process.
    drop(crate::runtime::spawn_owned(async move {
        while hangup.recv().await.is_some() {
            service_manager::reloading().await;
            match log.reopen() {
                Ok(()) => tracing::info!("the migration log was reopened"),
                Err(error) => tracing::error!(%error, "the migration log could not be reopened"),
            }
            match audit_log.reopen().await {
                Ok(()) => tracing::info!("the audit log was reopened"),
                Err(error) => tracing::error!(
                    error,
                    "the audit log could not be reopened: the file before stays in use"
                ),
            }
            // What is wrong is told where it is found.
            drop(doors.reload_now().await);
            drop(inventories.reload().await);
            service_manager::ready().await;
        }
    }));
    Ok(())
}

fn listen(kind: SignalKind) -> anyhow::Result<Signal> {
    signal(kind).context("cannot listen for signals")
}

#[allow(clippy::exit, reason = "a second signal means at once: the databases' locks end with the process")]
fn end(stop: &CancellationToken) {
    if stop.is_cancelled() {
        tracing::warn!("stopped at once by a second signal");
        std::process::exit(STOPPED_AT_ONCE);
    }
    stop.cancel();
}
