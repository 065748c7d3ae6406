//! What outlives the daemon: alerts, acknowledgements, and which sink has been told what, in one
//! JSON file that only its owner reads.

use std::{
    collections::BTreeMap,
    fs::{self, OpenOptions, TryLockError},
    io::{self, Write as _},
    path::{Path, PathBuf},
};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::{
    alert::life::Life,
    migration::{Acknowledgement, Alert, AlertState, Finding, FindingKind},
    redact::open_for_its_owner,
};

/// The version of the file's form.
const VERSION: u32 = 1;

#[derive(Serialize, Deserialize)]
struct File {
    version: u32,
    alerts: Vec<Kept>,
}

#[derive(Serialize, Deserialize)]
pub(super) struct Kept {
    id: String,
    database: String,
    kind: String,
    subject: String,
    message: String,
    evidence: Vec<String>,
    state: String,
    started: Timestamp,
    fired: Option<Timestamp>,
    resolved: Option<Timestamp>,
    acknowledged: Option<KeptAcknowledgement>,
    flaps: u32,
    gone: Option<Timestamp>,
    revision: u32,
    delivered: BTreeMap<String, u32>,
}

#[derive(Serialize, Deserialize)]
pub(super) struct KeptAcknowledgement {
    by: String,
    reason: String,
    until: Option<Timestamp>,
}

impl From<Acknowledgement> for KeptAcknowledgement {
    fn from(acknowledgement: Acknowledgement) -> Self {
        let Acknowledgement { by, reason, until } = acknowledgement;
        Self { by, reason, until }
    }
}

impl From<KeptAcknowledgement> for Acknowledgement {
    fn from(kept: KeptAcknowledgement) -> Self {
        let KeptAcknowledgement { by, reason, until } = kept;
        Self { by, reason, until }
    }
}

/// Somebody else keeps his alerts in the file.
#[derive(Debug)]
pub(super) struct InUse;

/// Keeps other daemons from the file. The lock is that of a file beside it, which is never replaced.
/// Where there can be none, `None`: then nothing can be kept there either, which is told in its time.
pub(super) fn lock(path: &Path) -> Result<Option<fs::File>, InUse> {
    let mut options = OpenOptions::new();
    let options = options.write(true).truncate(false);
    let Ok(file) = open_for_its_owner(&beside(path, ".lock"), options) else { return Ok(None) };
    match file.try_lock() {
        Ok(()) => Ok(Some(file)),
        Err(TryLockError::WouldBlock) => Err(InUse),
        Err(TryLockError::Error(_)) => Ok(None),
    }
}

/// A file beside this one: its whole name, and what comes after it. Two state files in one directory
/// have no such file in common.
fn beside(path: &Path, ending: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(ending);
    PathBuf::from(name)
}

/// One life, as a document of its own.
pub(super) fn encode_one(life: &Life) -> serde_json::Result<String> {
    serde_json::to_string(&keep(life))
}

/// A life that a document tells; `None` where this nexusd does not know such a one.
pub(super) fn decode_one(document: &str) -> Option<Life> {
    serde_json::from_str(document).ok().and_then(revive)
}

/// Reads what was kept; nothing where there is no file. One that cannot be read is put aside, so
/// that what is written next does not take it away.
pub(super) fn read(path: &Path) -> Vec<Life> {
    let refused = match fs::read(path).map(|bytes| parse(&bytes)) {
        Ok(Ok(lives)) => return lives,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Vec::new(),
        Ok(Err(reason)) => reason,
        Err(error) => error.to_string(),
    };
    let aside = beside(path, ".unreadable");
    let kept = if fs::rename(path, &aside).is_ok() { aside.display().to_string() } else { String::new() };
    tracing::warn!(
        path = %path.display(), kept, reason = refused,
        "the alerts of earlier runs cannot be read: acknowledgements are lost, and what stands is told again"
    );
    Vec::new()
}

/// Writes everything anew: a reader sees the old file or the new one, never a part.
pub(super) fn write(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let new = beside(path, ".new");
    match fs::remove_file(&new) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = open_for_its_owner(&new, OpenOptions::new().write(true).create_new(true))?;
    file.write_all(bytes).and_then(|()| file.sync_data())?;
    fs::rename(&new, path)
}

/// The file's text.
pub(super) fn encode<'a>(lives: impl Iterator<Item = &'a Life>) -> serde_json::Result<Vec<u8>> {
    serde_json::to_vec_pretty(&File { version: VERSION, alerts: lives.map(keep).collect() })
}

fn parse(bytes: &[u8]) -> Result<Vec<Life>, String> {
    let file: File = serde_json::from_slice(bytes).map_err(|error| error.to_string())?;
    if file.version != VERSION {
        return Err(format!("its version is {}, and this nexusd knows {VERSION}", file.version));
    }
    // A kind that this nexusd does not know has no findings either: nothing could resolve it.
    Ok(file.alerts.into_iter().filter_map(revive).collect())
}

pub(super) fn keep(life: &Life) -> Kept {
    let alert = life.alert.clone();
    Kept {
        id: alert.id.to_string(),
        database: alert.database,
        kind: alert.finding.kind.name().to_owned(),
        subject: alert.finding.subject,
        message: alert.finding.message,
        evidence: alert.finding.evidence,
        state: alert.state.name().to_owned(),
        started: alert.started,
        fired: alert.fired,
        resolved: alert.resolved,
        acknowledged: alert.acknowledged.map(KeptAcknowledgement::from),
        flaps: alert.flaps,
        gone: life.gone,
        revision: life.revision,
        delivered: life.delivered.clone(),
    }
}

pub(super) fn revive(kept: Kept) -> Option<Life> {
    let kind = FindingKind::from_name(&kept.kind)?;
    let alert = Alert {
        id: Uuid::parse_str(&kept.id).ok()?,
        database: kept.database,
        finding: Finding { kind, subject: kept.subject, message: kept.message, evidence: kept.evidence },
        state: AlertState::from_name(&kept.state)?,
        started: kept.started,
        fired: kept.fired,
        resolved: kept.resolved,
        acknowledged: kept.acknowledged.map(Acknowledgement::from),
        flaps: kept.flaps,
    };
    Some(Life { alert, gone: kept.gone, revision: kept.revision, delivered: kept.delivered })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_files_that_differ_in_their_extension_have_locks_of_their_own() {
        let home = tempfile::tempdir().expect("a directory is made");
        let (first, second) = (home.path().join("alerts.a"), home.path().join("alerts.b"));
        let held = lock(&first).expect("nobody has it");
        assert!(held.is_some() && lock(&first).is_err());
        assert!(lock(&second).expect("it is another one").is_some());
        let unreadable = beside(Path::new("logs/alerts.json"), ".unreadable");
        assert_eq!(unreadable, Path::new("logs/alerts.json.unreadable"), "docs/alerts.md names it");
    }
}
