//! From the configuration to the audit log: who is told of it, what is told to it, and its copy in the
//! control database.

use std::{path::Path, sync::Arc, time::Duration};

use tokio_util::sync::CancellationToken;

use crate::{
    access::{admit::Refusal, rule::METRICS},
    auditlog::{AuditLog, Batch, Followed, Follower, Told, UsedFile, Writer},
    control::{Control, audit_log::CopiedRecord},
    engine::{Intent, Used, Witness},
    telemetry::Metrics,
};

/// The pause after the control database could not be used.
const PAUSE: Duration = Duration::from_secs(1);

/// Opens the file and goes on with its chain.
pub(super) fn open(path: &Path, instance: &str, metrics: &Metrics) -> anyhow::Result<(AuditLog, Writer)> {
    let metrics = metrics.clone();
    let opened = AuditLog::open(path, instance, move |told| match told {
        Told::Recorded(event, sequence) => metrics.audit_log_recorded(event, sequence),
        Told::Failed => metrics.audit_log_failed(),
        Told::Tampering => metrics.audit_log_tampering(),
    });
    Ok(opened?)
}

/// Has the log know which files are about to be used, before they are.
pub(super) fn witness(log: &AuditLog) -> Witness {
    let log = log.clone();
    Arc::new(move |intent| {
        let log = log.clone();
        Box::pin(async move {
            let Intent { operation, requested_by, database, steps } = intent;
            let files: Vec<_> = steps.into_iter().map(used).collect();
            log.change(operation, &requested_by, &database, &files).await
        })
    })
}

fn used(step: Used) -> UsedFile {
    let (file, sha256) = step.script.map(|(name, checksum)| (name, checksum.hex())).unwrap_or_default();
    UsedFile { version: step.version.to_string(), action: step.action, file, sha256 }
}

/// Has the log know whom the pages do not let in.
pub(super) fn refusals(log: &AuditLog) -> Arc<dyn Fn(&Refusal) + Send + Sync> {
    let log = log.clone();
    Arc::new(move |refusal: &Refusal| {
        log.refused(METRICS.path, refusal.caller.as_ref(), refusal.from, &refusal.failure);
    })
}

/// Copies every record into the control database, after it is in the file: one that is away holds nobody
/// up, and gets what it has missed when it is back.
pub(super) async fn copy(log: AuditLog, control: Arc<Control>, metrics: Metrics, stop: CancellationToken) {
    tokio::select! {
        () = control.opened() => {}
        () = stop.cancelled() => return,
    }
    let mut heads = log.heads();
    let mut follower = None;
    let mut is_compared = false;
    loop {
        let head = *heads.borrow_and_update();
        let copied = async {
            if !is_compared {
                compare(&log, &control).await?;
                is_compared = true;
            }
            copy_all(&log, &control, &mut follower, &metrics).await
        };
        let failed = copied
            .await
            .inspect_err(|error| tracing::debug!(%error, "the audit log is not copied yet"))
            .is_err();
        if stop.is_cancelled() && (failed || heads.borrow().sequence == head.sequence) {
            return;
        }
        tokio::select! {
            _ = heads.changed(), if !failed => {}
            () = tokio::time::sleep(PAUSE), if failed => {}
            () = stop.cancelled() => {}
        }
    }
}

/// Looks whether the control database knows records of the chain that the file does not have.
async fn compare(log: &AuditLog, control: &Control) -> anyhow::Result<()> {
    let begun = log.resumed();
    let number = i64::try_from(begun.sequence).unwrap_or(i64::MAX);
    let (last, hashes) = control.copied_audit_log(begun.chain, number).await?;
    if last > number {
        log.tell_of_tampering(format!(
            "the control database has the records of this chain up to {last}, and the file went on behind record {number}: its end was cut off"
        ));
    } else if !hashes.is_empty() && !hashes.contains(&begun.hash.hex()) {
        log.tell_of_tampering(format!(
            "record {number} is another one in the control database: the file was rewritten"
        ));
    }
    Ok(())
}

/// What is read of the file, and what of that is not copied yet.
struct Reading {
    follower: Follower,
    unsent: Option<Batch>,
}

/// Copies what is in the file and not in the control database.
async fn copy_all(
    log: &AuditLog,
    control: &Control,
    reading: &mut Option<Reading>,
    metrics: &Metrics,
) -> anyhow::Result<()> {
    loop {
        let Reading { mut follower, mut unsent } = match reading.take() {
            Some(reading) => reading,
            None => begin(log, control).await?,
        };
        if unsent.is_none() {
            // The file may be long, and the disk slow.
            // What the disk does not have yet may be gone with the machine's power, and would be missed then.
            let heads = log.heads();
            let read = move || (follower.read_on(|| *heads.borrow()), follower);
            let read = tokio::task::spawn_blocking(read).await?;
            (unsent, follower) = (read.0?, read.1);
        }
        let Reading { unsent, .. } = reading.insert(Reading { follower, unsent });
        let Some(batch) = unsent else { return Ok(()) };
        let records: Vec<_> = batch.records.iter().map(copied).collect();
        control.copy_audit_log(batch.chain, &records).await?;
        metrics.audit_log_copied(batch.last());
        *unsent = None;
    }
}

/// Begins to read behind what the control database has.
async fn begin(log: &AuditLog, control: &Control) -> anyhow::Result<Reading> {
    let chain = log.heads().borrow().chain;
    let (last, _) = control.copied_audit_log(chain, 0).await?;
    // Where the end of the file was cut off, what the daemon went on with is not there yet.
    let known = log.resumed().sequence.min(u64::try_from(last).unwrap_or_default());
    Ok(Reading { follower: Follower::of(log.path(), known)?, unsent: None })
}

fn copied(record: &Followed) -> CopiedRecord {
    let Followed { sequence, hash, line } = record;
    let sequence = i64::try_from(*sequence).unwrap_or(i64::MAX);
    CopiedRecord { sequence, hash: hash.hex(), line: line.clone() }
}
