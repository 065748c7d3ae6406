//! The plan: what will be done to one database, in order. Pure functions of the catalog, the rows
//! and the request. The planner decides, the executor obeys.

use std::fmt;

use uuid::Uuid;

use crate::migration::{Direction, Mode, Version, header::Header};

mod apply;
#[cfg(test)]
mod model;
mod rollback;
mod settle;
#[cfg(test)]
mod tests;

pub use apply::plan_apply;
pub use rollback::plan_rollback;
pub use settle::plan_recover;

/// What will be done to one database.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Plan {
    /// The steps, in order.
    pub steps: Vec<Step>,
    /// Warnings that stop nothing: what a policy of "warn" let pass, line endings, which down is used.
    pub notices: Vec<String>,
}

/// One thing to be done to one migration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    /// The migration.
    pub version: Version,
    /// What.
    pub action: StepAction,
    /// Whether its script runs inside one transaction.
    pub mode: Mode,
    /// Where its script comes from; `None` where no SQL is run.
    pub source: Option<Source>,
    /// Why it is in the plan, for a person; empty where that is obvious.
    pub reason: String,
    /// What the script's header says.
    pub header: Header,
    /// The script's size in bytes; 0 where no SQL is run.
    pub size: u64,
    /// The checksum that the row holds, as hexadecimal digits; empty where there is no row yet.
    pub row_checksum: String,
}

/// What a step does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StepAction {
    /// Run the up file and record the version.
    Apply,
    /// Run the down script and remove the row.
    Rollback,
    /// Settle a dirty row of which nothing was committed: remove it, run nothing.
    ForgetAttempt,
    /// Settle a dirty row whose rollback failed: it is still applied, clear the mark.
    ClearMark,
    /// Settle a dirty row: run the down script, remove the row.
    Undo,
    /// Settle a dirty row of a non-transactional migration: go on after this many statements.
    Resume {
        /// How many statements are done.
        done: u32,
    },
}

impl StepAction {
    /// Which file the step runs; `None` where it runs none.
    pub fn direction(self) -> Option<Direction> {
        match self {
            Self::Apply | Self::Resume { .. } => Some(Direction::Up),
            Self::Rollback | Self::Undo => Some(Direction::Down),
            Self::ForgetAttempt | Self::ClearMark => None,
        }
    }

    /// Whether the step settles a dirty row.
    pub fn settles(self) -> bool {
        !matches!(self, Self::Apply | Self::Rollback)
    }
}

impl fmt::Display for StepAction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Apply => "apply",
            Self::Rollback => "roll back",
            Self::ForgetAttempt => "forget attempt",
            Self::ClearMark => "clear mark",
            Self::Undo => "undo",
            Self::Resume { .. } => "resume",
        })
    }
}

/// Where a step's SQL comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    /// The file in the migration directory.
    File,
    /// The text kept in the journal when the migration was applied.
    Journal,
}

/// What the planner does about something that is not as it should be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Tolerance {
    /// Refuse.
    #[default]
    Deny,
    /// Go on, with a notice.
    Warn,
    /// Go on.
    Allow,
}

/// How dirty rows are settled.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Recovery {
    /// By the journal's evidence; the runbook's steps where there is none.
    #[default]
    Evidence,
    /// Always by the runbook's steps: run the down script, remove the row.
    Down,
    /// Not at all: refuse.
    Off,
}

/// The policies of one database.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Policy {
    /// A pending migration is older than an applied one.
    pub out_of_order: Tolerance,
    /// An applied migration has no file.
    pub missing_file: Tolerance,
    /// Dirty rows.
    pub recovery: Recovery,
}

/// What an apply is asked to do.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ApplyRequest {
    /// Stop after this version or number.
    pub to: Option<String>,
    /// At most this many.
    pub limit: Option<u32>,
    /// Refuse dirty rows.
    pub no_auto_recover: bool,
    /// Go on with partly applied migrations instead of undoing them.
    pub resume: bool,
    /// Refuse what could not be taken back: a pending migration without a down file.
    pub reversible: bool,
}

/// What a rollback is asked to do.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct RollbackRequest {
    /// How far.
    pub extent: Extent,
    /// Refuse dirty rows.
    pub no_auto_recover: bool,
    /// Which down script; `None`: the file, or the kept text where the file is gone or differs.
    pub source: Option<Source>,
    /// At most this many on a database; more is refused. `None` is without a limit.
    pub most: Option<u32>,
}

/// How far a rollback goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Extent {
    /// This many rows, newest first.
    Steps(i64),
    /// Everything newer than this version or number; "0": everything.
    To(String),
    /// These and no others, as far as their rows are there and are the operation's own: what it has
    /// put in place.
    Exactly {
        /// The versions.
        versions: Vec<Version>,
        /// The operation.
        operation: Uuid,
    },
}

impl Default for Extent {
    fn default() -> Self {
        Self::Steps(1)
    }
}
