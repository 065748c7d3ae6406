//! What one look at one database saw: the counts for the metrics, the findings for the alerts.

use jiff::Timestamp;

use crate::migration::{Finding, FindingKind, Severity, Version};

/// One look at one database.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Observation {
    /// The database.
    pub database: String,
    /// When it was looked at.
    pub time: Timestamp,
    /// What its rows said; `None` where it could not be read.
    pub counts: Option<Counts>,
    /// The newest migration that is applied and clean; `None` also where the rows could not be read.
    pub newest: Option<Version>,
    /// Everything that is wrong, each told apart by kind and subject. A kind that was not looked
    /// for is in [`Self::unknown`], and not in here.
    pub findings: Vec<Finding>,
    /// Kinds of which this look can say nothing: what was known of them stays as it was.
    pub unknown: Vec<FindingKind>,
}

/// What a database's rows and its catalog say.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counts {
    /// Applied and clean.
    pub applied: u32,
    /// In the directory and not applied.
    pub pending: u32,
    /// Dirty.
    pub dirty: u32,
    /// Applied from another text than the file's.
    pub drift: u32,
    /// Applied, and the file is gone.
    pub missing: u32,
    /// Since when the oldest pending migration has been known to be pending.
    pub oldest_pending: Option<Timestamp>,
}

impl Observation {
    /// What is known of the daemon itself, of which one kind of finding tells: all that is wrong of
    /// that kind.
    pub fn of_the_daemon(kind: FindingKind, findings: Vec<Finding>) -> Self {
        let others = FindingKind::ALL.iter().copied().filter(|other| *other != kind);
        Self {
            database: String::new(),
            time: Timestamp::now(),
            counts: None,
            newest: None,
            findings,
            unknown: others.collect(),
        }
    }

    /// The gravest of its findings.
    pub fn severity(&self) -> Option<Severity> {
        self.findings.iter().map(|finding| finding.kind.severity()).max()
    }
}

impl AuditReport {
    /// How many findings of that severity there are.
    pub fn count(&self, severity: Severity) -> u32 {
        let findings = self.databases.iter().flat_map(|database| &database.findings);
        let number = findings.filter(|finding| finding.kind.severity() == severity).count();
        u32::try_from(number).unwrap_or(u32::MAX)
    }
}

/// What an audit checked and found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuditReport {
    /// Its id.
    pub id: uuid::Uuid,
    /// The name of the schedule; `manual` where somebody asked.
    pub name: String,
    /// When it began.
    pub started: Timestamp,
    /// When it ended.
    pub ended: Timestamp,
    /// What each database looked like, in the order of their names.
    pub databases: Vec<Observation>,
}
