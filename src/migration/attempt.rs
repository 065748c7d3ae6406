//! One attempt to run a migration file, as the journal keeps it.

use std::fmt;

use jiff::Timestamp;
use uuid::Uuid;

use crate::migration::{Version, header::Header};

/// Which of a migration's two files is meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Direction {
    /// The file that applies it.
    Up,
    /// The file that rolls it back.
    Down,
}

impl fmt::Display for Direction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Up => "up",
            Self::Down => "down",
        })
    }
}

/// Whether a file runs inside one transaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Mode {
    /// In one transaction: all of it or nothing.
    #[default]
    Transactional,
    /// Statement by statement, each committing by itself (`-- nexus: no-transaction`).
    NonTransactional,
}

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Transactional => "transactional",
            Self::NonTransactional => "non-transactional",
        })
    }
}

/// How an attempt ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AttemptOutcome {
    /// It is under way, or its daemon died.
    Running,
    /// Done; written in the migration's own transaction where it has one.
    Succeeded,
    /// It failed, and the server is known to have kept nothing of it.
    RolledBack,
    /// It failed, and something of it may have stayed.
    Failed,
    /// Its daemon or connection died; what stayed is said by the mode and the statements done.
    Interrupted,
    /// A later recovery settled it.
    Recovered,
}

impl AttemptOutcome {
    /// The word that the journal stores.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::Succeeded => "succeeded",
            Self::RolledBack => "rolled_back",
            Self::Failed => "failed",
            Self::Interrupted => "interrupted",
            Self::Recovered => "recovered",
        }
    }

    /// Reads the stored word.
    pub fn parse(text: &str) -> Option<Self> {
        [Self::Running, Self::Succeeded, Self::RolledBack, Self::Failed, Self::Interrupted, Self::Recovered]
            .into_iter()
            .find(|outcome| outcome.as_str() == text)
    }
}

/// What the journal says of the last attempt on a dirty row: the evidence.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LastAttempt {
    /// The journal's number for it.
    pub id: i64,
    /// Which file it ran; `None` for a repair.
    pub direction: Option<Direction>,
    /// Whether in a transaction.
    pub mode: Mode,
    /// How it ended.
    pub outcome: AttemptOutcome,
    /// How many statements were done.
    pub statements_done: u32,
    /// Of how many.
    pub statements_total: u32,
    /// The up file's checksum, as hexadecimal digits.
    pub checksum: String,
}

/// The down script that the journal kept when a migration was applied; its text is read when a
/// step needs it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeptDown {
    /// The checksum of its bytes, as hexadecimal digits: that of the file it was read from.
    pub checksum: String,
    /// What its header says.
    pub header: Header,
    /// Its size in bytes.
    pub size: u64,
}

/// A whole row of the journal, for `history`.
#[derive(Debug, Clone)]
pub struct Attempt {
    /// The journal's number for it.
    pub id: i64,
    /// The operation that made it.
    pub operation: Option<Uuid>,
    /// The migration.
    pub version: Version,
    /// `up`, `down`, or a repair's name.
    pub direction: String,
    /// `transactional`, `non-transactional`, or empty for a repair.
    pub mode: String,
    /// The up file's checksum.
    pub checksum: String,
    /// How many statements were done.
    pub statements_done: i32,
    /// Of how many.
    pub statements_total: i32,
    /// When it began.
    pub started_at: Timestamp,
    /// When it ended.
    pub finished_at: Option<Timestamp>,
    /// How it ended.
    pub outcome: String,
    /// PostgreSQL's code, where the server raised the error.
    pub sqlstate: Option<String>,
    /// A safe message, or a repair's reason.
    pub message: Option<String>,
    /// Who asked.
    pub requested_by: String,
    /// The daemon's instance.
    pub instance: String,
    /// The trace of its operation.
    pub trace_id: Option<String>,
    /// How long it took.
    pub duration_ms: Option<i64>,
}
