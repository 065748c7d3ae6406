//! The header: the comments that a migration file opens with.

use std::time::Duration;

use crate::migration::Mode;

/// What the header of one file says.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Header {
    /// `-- nexus: no-transaction`: run statement by statement, outside a transaction.
    pub no_transaction: bool,
    /// `-- nexus: lock-timeout 2s`.
    pub lock_timeout: Option<Duration>,
    /// `-- nexus: statement-timeout 10min`.
    pub statement_timeout: Option<Duration>,
    /// `-- nexus: allow RULE reason`: the rules that are silenced, with the reasons.
    pub allowed: Vec<Allowed>,
    /// `-- Description: …`.
    pub description: String,
    /// `-- Impact: …`.
    pub impact: String,
    /// `-- Rollback Impact: …`.
    pub rollback_impact: String,
    /// `-- Data Loss: …`.
    pub data_loss: String,
}

impl Header {
    /// Whether the file runs inside one transaction.
    pub fn mode(&self) -> Mode {
        if self.no_transaction { Mode::NonTransactional } else { Mode::Transactional }
    }
}

/// One lint rule that a file silences.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Allowed {
    /// The rule's name.
    pub rule: String,
    /// Why; never empty.
    pub reason: String,
}
