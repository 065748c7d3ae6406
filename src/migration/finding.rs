//! What may be wrong, how grave it is, and what to do about it. Seen by the monitor and by audits,
//! shown by `status`, and given a life by `alert`.

use std::fmt;

/// One thing that is wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// What kind of thing.
    pub kind: FindingKind,
    /// What it is about, besides the database: a migration's version, an index, a directory. Empty
    /// where it is the database as a whole. With the kind and the database, it tells findings apart.
    pub subject: String,
    /// What is wrong, in a sentence without a full stop; never a value from a table.
    pub message: String,
    /// What was seen, for a person: `stored checksum: 65ab…`. Never a value from a table.
    pub evidence: Vec<String>,
}

impl Finding {
    /// A finding without evidence yet.
    pub fn new(kind: FindingKind, subject: impl Into<String>, message: impl Into<String>) -> Self {
        Self { kind, subject: subject.into(), message: message.into(), evidence: Vec::new() }
    }

    /// The same, with what was seen.
    #[must_use]
    pub fn evidence(mut self, evidence: impl IntoIterator<Item = String>) -> Self {
        self.evidence.extend(evidence);
        self
    }
}

/// How grave a finding is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Severity {
    /// Worth knowing.
    Info,
    /// To be seen to in working hours.
    Warning,
    /// To be seen to at once.
    Critical,
}

impl Severity {
    /// All of them, the least first.
    pub const ALL: [Self; 3] = [Self::Info, Self::Warning, Self::Critical];

    /// As in metrics, labels and JSON.
    pub fn name(self) -> &'static str {
        match self {
            Self::Info => "info",
            Self::Warning => "warning",
            Self::Critical => "critical",
        }
    }
}

impl fmt::Display for Severity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Declares the kinds: the name as in metrics, labels, JSON and `docs/findings/`, how grave it is,
/// and what to do about it.
macro_rules! kinds {
    ($($(#[$doc:meta])* $kind:ident = $name:literal, $severity:ident, $remedy:literal;)*) => {
        /// What may be wrong. Each has a page `docs/findings/NAME.md`.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum FindingKind { $($(#[$doc])* $kind,)* }

        impl FindingKind {
            /// All of them, in the order of the documentation.
            pub const ALL: &'static [Self] = &[$(Self::$kind),*];

            /// As in metrics, labels, JSON and the name of its page.
            pub fn name(self) -> &'static str {
                match self { $(Self::$kind => $name,)* }
            }

            /// How grave it is.
            pub fn severity(self) -> Severity {
                match self { $(Self::$kind => Severity::$severity,)* }
            }

            /// What to do about it, in a sentence.
            pub fn remedy(self) -> &'static str {
                match self { $(Self::$kind => $remedy,)* }
            }
        }
    };
}

kinds! {
    /// A row is dirty, and nobody is at work on it.
    Dirty = "dirty", Critical,
        "`nexusctl status` shows what the journal knows of it; `nexusctl recover` settles it";
    /// The file is not what was applied.
    ChecksumDrift = "checksum_drift", Critical,
        "Restore the file as it was applied, or `nexusctl repair accept-checksum` if the change is meant";
    /// The file is what was applied, but for line endings or a byte-order mark.
    LineEndings = "line_endings", Info,
        "Check the repository's line-ending settings (.gitattributes); `nexusctl repair accept-checksum` takes the file as it is";
    /// The row has no file, and the journal knows the row.
    MissingFile = "missing_file", Warning,
        "Restore the file, or roll the migration back from the journal's copy";
    /// The row has neither a file nor an attempt in the journal.
    UnknownRow = "unknown_row", Warning,
        "Find out who wrote the row; add its files, or `nexusctl repair forget` it";
    /// Pending, though a later one is applied.
    OutOfOrder = "out_of_order", Warning,
        "Give the migration a newer number, or apply it with `nexusctl apply --allow-out-of-order`";
    /// Pending for longer than `[watch] pending_limit`.
    PendingTooLong = "pending_too_long", Warning,
        "Apply it with `nexusctl apply`, or take the file away";
    /// A table of that name is not Nexus's.
    ForeignTable = "foreign_table", Critical,
        "Give the database another `table` or `schema` in the configuration, or convert the table";
    /// `schema_migrations` is gone, and its journal is not.
    TableGone = "table_gone", Critical,
        "Restore the table: `nexusctl history` shows what was applied; or drop the journal too, where the schema is empty";
    /// A migration left an index that PostgreSQL does not use.
    InvalidIndex = "invalid_index", Warning,
        "Drop it with DROP INDEX CONCURRENTLY and build it again, or recover the migration that made it";
    /// A constraint is there that was never checked against the old rows.
    NotValidConstraint = "not_valid_constraint", Info,
        "ALTER TABLE … VALIDATE CONSTRAINT, in a migration of its own";
    /// The journal's last attempt neither ended nor is under way.
    AttemptInterrupted = "attempt_interrupted", Critical,
        "`nexusctl status` shows how far it came; `nexusctl recover` settles it";
    /// The database does not answer.
    DatabaseUnreachable = "database_unreachable", Critical,
        "See that the server runs, and that its address and credentials in the configuration are right";
    /// The migration directory cannot be read, or what is in it is wrong.
    DirectoryUnreadable = "directory_unreadable", Critical,
        "Put the directory right; until then the last good catalog is what databases are compared with";
    /// Neither a down file nor a kept one.
    NoDown = "no_down", Info,
        "Write the down file: without it the migration cannot be rolled back";
    /// The record of migrations cannot be written: mutations are refused.
    LogUnwritable = "log_unwritable", Critical,
        "Make room on the disk, or put the file's owner and mode right";
    /// The configuration or a discovery is wrong: the last good inventory stays.
    InventoryInvalid = "inventory_invalid", Critical,
        "Correct the file or the `[[discover]]` entry; it is read again by itself, or at once with `nexusctl reload`";
    /// An operation has stopped by itself, and somebody has to decide.
    OperationHalted = "operation_halted", Critical,
        "`nexusctl operation show` says why; then `nexusctl operation retry`, `resume` or `cancel`";
    /// The file of those who are let in, or a certificate, is wrong: what was good last stays.
    AccessUnreadable = "access_unreadable", Critical,
        "Correct the file: who was taken away from it is let in until then; it is read again by itself, or at once with `nexusctl reload`";
}

impl FindingKind {
    /// What its subject is called in labels and logs: `version` where it is a migration's.
    pub fn subject_name(self) -> &'static str {
        match self {
            Self::Dirty
            | Self::ChecksumDrift
            | Self::LineEndings
            | Self::MissingFile
            | Self::UnknownRow
            | Self::OutOfOrder
            | Self::PendingTooLong
            | Self::AttemptInterrupted
            | Self::NoDown => "version",
            Self::ForeignTable
            | Self::TableGone
            | Self::InvalidIndex
            | Self::NotValidConstraint
            | Self::DatabaseUnreachable
            | Self::DirectoryUnreadable
            | Self::LogUnwritable
            | Self::InventoryInvalid
            | Self::AccessUnreadable => "subject",
            Self::OperationHalted => "operation",
        }
    }

    /// The kind of that name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|kind| kind.name() == name)
    }
}

impl fmt::Display for FindingKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
