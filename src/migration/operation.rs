//! Where an operation is in its life, and how each of its databases stands in it.

use std::fmt;

/// Where an operation is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum OperationState {
    /// Asked for; nothing is touched before a second person has approved it.
    AwaitingApproval,
    /// Accepted; the migration directories are being read.
    Pending,
    /// Databases are being worked on.
    Running,
    /// No database is begun until somebody resumes it, or until its pause is over.
    Paused,
    /// It has stopped by itself with work left: somebody has to decide.
    Halted,
    /// It was cancelled, and the databases under way are being stopped.
    Cancelling,
    /// Every database succeeded or had nothing to do.
    Succeeded,
    /// It has ended, and some databases failed, or what it did was rolled back.
    Failed,
    /// It was cancelled.
    Cancelled,
}

impl OperationState {
    /// All of them, in the order of a life.
    pub const ALL: [Self; 9] = [
        Self::AwaitingApproval,
        Self::Pending,
        Self::Running,
        Self::Paused,
        Self::Halted,
        Self::Cancelling,
        Self::Succeeded,
        Self::Failed,
        Self::Cancelled,
    ];

    /// As in JSON, logs and labels.
    pub fn name(self) -> &'static str {
        match self {
            Self::AwaitingApproval => "awaiting_approval",
            Self::Pending => "pending",
            Self::Running => "running",
            Self::Paused => "paused",
            Self::Halted => "halted",
            Self::Cancelling => "cancelling",
            Self::Succeeded => "succeeded",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
        }
    }

    /// Whether nothing more comes of it, unless it is tried again.
    pub fn is_over(self) -> bool {
        matches!(self, Self::Succeeded | Self::Failed | Self::Cancelled)
    }

    /// Whether nobody is at work on it, and nothing happens by itself.
    pub fn is_at_rest(self) -> bool {
        self.is_over() || self == Self::Halted
    }
}

impl fmt::Display for OperationState {
    /// As in a sentence.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name().replace('_', " "))
    }
}

/// How a database stands in an operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum DatabaseState {
    /// Its turn has not come.
    Waiting,
    /// It is worked on.
    Running,
    /// Everything was done.
    Succeeded,
    /// There was nothing to do.
    UpToDate,
    /// It failed, or was refused.
    Failed,
    /// The operation was cancelled before it was done.
    Cancelled,
    /// It was not there any more when its turn came.
    Skipped,
    /// What the operation had applied was rolled back.
    RolledBack,
}

impl DatabaseState {
    /// All of them.
    pub const ALL: [Self; 8] = [
        Self::Waiting,
        Self::Running,
        Self::Succeeded,
        Self::UpToDate,
        Self::Failed,
        Self::Cancelled,
        Self::Skipped,
        Self::RolledBack,
    ];

    /// As in JSON and for people.
    pub fn name(self) -> &'static str {
        match self {
            Self::Waiting => "waiting",
            Self::Running => "running",
            Self::Succeeded => "succeeded",
            Self::UpToDate => "up to date",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
            Self::Skipped => "skipped",
            Self::RolledBack => "rolled back",
        }
    }

    /// Whether it is as the operation was to leave it.
    pub fn is_well(self) -> bool {
        matches!(self, Self::Succeeded | Self::UpToDate)
    }

    /// Whether it counts as a failure of its wave.
    pub fn is_failure(self) -> bool {
        matches!(self, Self::Failed | Self::Skipped)
    }
}

impl fmt::Display for DatabaseState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// How a gate came out on one database.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GateOutcome {
    /// It held.
    Passed,
    /// It did not hold.
    Failed,
    /// It could not be decided.
    Inconclusive,
}

impl GateOutcome {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Passed, Self::Failed, Self::Inconclusive];

    /// As in logs and JSON.
    pub fn name(self) -> &'static str {
        match self {
            Self::Passed => "passed",
            Self::Failed => "failed",
            Self::Inconclusive => "inconclusive",
        }
    }
}
