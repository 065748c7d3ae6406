//! Rows of `schema_migrations`, with what the journal adds to the dirty ones.

use jiff::Timestamp;
use uuid::Uuid;

use crate::migration::{
    Version,
    attempt::{KeptDown, LastAttempt},
};

/// One row of `schema_migrations`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AppliedRow {
    /// The migration.
    pub version: Version,
    /// When it was applied, or its attempt began.
    pub applied_at: Timestamp,
    /// The stored checksum, as it stands in the table.
    pub checksum: String,
    /// An attempt began and is not known to have ended well.
    pub dirty: bool,
    /// The journal's last attempt; read only for dirty rows.
    pub last_attempt: Option<LastAttempt>,
    /// The down script that the journal keeps; of clean rows only where the reader asked for it.
    pub kept_down: Option<KeptDown>,
    /// The operation that put it there last, by the journal; read only for a rollback.
    pub applied_by: Option<Uuid>,
}

/// All that a database says of its migrations, read at one moment.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Tracked {
    /// The rows, in the order of their versions. Empty also where the table does not exist yet.
    pub rows: Vec<AppliedRow>,
}

impl Tracked {
    /// The rows, put in order.
    pub fn new(mut rows: Vec<AppliedRow>) -> Self {
        rows.sort_by(|a, b| a.version.cmp(&b.version));
        Self { rows }
    }

    /// The row of a version.
    pub fn get(&self, version: &Version) -> Option<&AppliedRow> {
        let index = self.rows.binary_search_by(|row| row.version.cmp(version)).ok()?;
        self.rows.get(index)
    }

    /// The dirty rows, oldest first.
    pub fn dirty(&self) -> impl Iterator<Item = &AppliedRow> {
        self.rows.iter().filter(|row| row.dirty)
    }

    /// The newest version that is in place.
    pub fn newest_clean(&self) -> Option<&Version> {
        self.rows.iter().rev().find(|row| !row.dirty).map(|row| &row.version)
    }
}
