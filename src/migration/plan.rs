//! The plan: what will be done to one database, in order. Pure functions of the catalog, the rows
//! and the request. The planner decides, the executor obeys.

use std::fmt;

use crate::migration::{Direction, Mode, Version, header::Header};

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
    /// The script's size in bytes; 0 where no SQL is run, or where the journal keeps it.
    pub size: u64,
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
