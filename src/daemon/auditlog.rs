//! From the configuration to the audit log: who is told of it, what is told to it, and its copy in the
//! control database.

use std::{
    fs::{self, File},
    io::{self, BufRead as _, BufReader, Seek as _},
    os::unix::fs::MetadataExt as _,
    path::Path,
    sync::Arc,
    time::Duration,
};

use tokio_util::sync::CancellationToken;

use crate::{
    access::{admit::Refusal, rule::METRICS},
    auditlog::{AuditLog, Told, UsedFile, Writer, chain},
    control::{Control, audit_log::CopiedRecord},
    engine::{Intent, Used, Witness},
    telemetry::Metrics,
};

/// How many records are copied at once.
const MOST_COPIED: usize = 256;

/// The pause after the control database could not be used.
const PAUSE: Duration = Duration::from_secs(1);

/// Opens the file and goes on with its chain.
pub(super) fn open(path: &Path, instance: &str, metrics: &Metrics) -> anyhow::Result<(AuditLog, Writer)> {
    let metrics = metrics.clone();
    let opened = AuditLog::open(path, instance, move |told| match told {
        Told::Recorded(event, sequence) => metrics.audit_log_recorded(event, sequence),
        Told::Failed => metrics.audit_log_failed(),
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
    UsedFile { version: step.version.to_string(), action: step.action.to_string(), file, sha256 }
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
        log.notice(format!(
            "the control database has the records of this chain up to {last}, and the file went on behind record {number}: its end was cut off"
        ));
    } else if !hashes.is_empty() && !hashes.contains(&begun.hash.hex()) {
        log.notice(format!("record {number} is another one in the control database: the file was rewritten"));
    }
    Ok(())
}

/// Copies what is in the file and not in the control database.
async fn copy_all(
    log: &AuditLog,
    control: &Control,
    follower: &mut Option<Follower>,
    metrics: &Metrics,
) -> anyhow::Result<()> {
    if follower.is_none() {
        let chain = log.heads().borrow().chain;
        let (last, _) = control.copied_audit_log(chain, 0).await?;
        // Where the end of the file was cut off, what the daemon went on with is not there yet.
        let resumed = i64::try_from(log.resumed().sequence).unwrap_or(i64::MAX);
        *follower = Some(Follower::of(log.path(), last.min(resumed))?);
    }
    let Some(reading) = follower else { return Ok(()) };
    loop {
        let (records, chain) = match &reading.unsent {
            Some(unsent) => unsent.clone(),
            None => reading.read()?,
        };
        let Some((end, chain)) = records.last().map(|record| record.sequence).zip(chain) else {
            if !reading.turn(log.path())? {
                return Ok(());
            }
            continue;
        };
        reading.unsent = Some((records.clone(), Some(chain)));
        control.copy_audit_log(chain, &records).await?;
        reading.unsent = None;
        metrics.audit_log_copied(end.unsigned_abs());
    }
}

/// Reads the file as it grows, and the next one where it was moved away.
struct Follower {
    file: BufReader<File>,
    /// What the control database has already.
    known: i64,
    unsent: Option<Batch>,
}

/// Records of one chain, and which one.
type Batch = (Vec<CopiedRecord>, Option<uuid::Uuid>);

impl Follower {
    fn of(path: &Path, known: i64) -> io::Result<Self> {
        Ok(Self { file: BufReader::new(File::open(path)?), known, unsent: None })
    }

    /// The next records. What is no record is not copied: it belongs to nobody.
    fn read(&mut self) -> io::Result<Batch> {
        let (mut records, mut chain) = (Vec::new(), None);
        while records.len() < MOST_COPIED {
            let begin = self.file.stream_position()?;
            let mut line = Vec::new();
            self.file.read_until(b'\n', &mut line)?;
            let Some(whole) = line.strip_suffix(b"\n") else {
                // It is still being written.
                self.file.seek(io::SeekFrom::Start(begin))?;
                break;
            };
            let Ok(sealed) = chain::read(whole) else { continue };
            let sequence = i64::try_from(sealed.head.sequence).unwrap_or(i64::MAX);
            if sequence <= self.known {
                continue;
            }
            if *chain.get_or_insert(sealed.head.chain) != sealed.head.chain {
                self.file.seek(io::SeekFrom::Start(begin))?;
                break;
            }
            let line = String::from_utf8_lossy(whole).into_owned();
            records.push(CopiedRecord { sequence, hash: sealed.head.hash.hex(), line });
        }
        Ok((records, chain))
    }

    /// Goes on with the file that the path names now, where that is another one; says whether it is.
    fn turn(&mut self, path: &Path) -> io::Result<bool> {
        let place = |metadata: fs::Metadata| (metadata.dev(), metadata.ino());
        let Ok(file) = File::open(path) else { return Ok(false) };
        if place(file.metadata()?) == place(self.file.get_ref().metadata()?) {
            return Ok(false);
        }
        self.file = BufReader::new(file);
        Ok(true)
    }
}
