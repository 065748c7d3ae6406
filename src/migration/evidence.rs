//! What a dirty row means. Under the database's lock no other Nexus is at work, so the row and the
//! journal decide: `succeeded` is written in a migration's own transaction, therefore an attempt in
//! a transaction that is not marked so was not committed.

use std::fmt;

use crate::migration::{
    AppliedRow, Direction, Mode,
    attempt::{AttemptOutcome, LastAttempt},
};

/// What the evidence says of a dirty row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// An apply in a transaction that did not commit: nothing of it is there.
    NothingCommitted,
    /// A rollback in a transaction that did not commit: the migration is still in place.
    StillApplied,
    /// A non-transactional script stopped part-way.
    Partly {
        /// Which file.
        direction: Direction,
        /// Statements done.
        done: u32,
        /// Of how many.
        total: u32,
    },
    /// The script left its transaction: what stayed is not known, and nothing is done by itself.
    Escaped,
    /// The journal does not explain the mark: set by hand, or by another tool.
    Unknown,
}

/// Weighs the journal's last attempt on a dirty row.
pub fn verdict(row: &AppliedRow) -> Verdict {
    let Some(LastAttempt {
        direction: Some(direction),
        mode,
        outcome,
        statements_done,
        statements_total,
        ..
    }) = row.last_attempt
    else {
        return Verdict::Unknown;
    };
    match (outcome, mode, direction) {
        (AttemptOutcome::Succeeded | AttemptOutcome::Recovered, ..) => Verdict::Unknown,
        (AttemptOutcome::Failed, Mode::Transactional, _) => Verdict::Escaped,
        // The first statement failed, and the server kept nothing of it.
        (AttemptOutcome::RolledBack, Mode::NonTransactional, Direction::Up) if statements_done == 0 => {
            Verdict::NothingCommitted
        }
        (AttemptOutcome::RolledBack, Mode::NonTransactional, Direction::Down) if statements_done == 0 => {
            Verdict::StillApplied
        }
        (_, Mode::NonTransactional, _) => {
            Verdict::Partly { direction, done: statements_done, total: statements_total }
        }
        (_, Mode::Transactional, Direction::Up) => Verdict::NothingCommitted,
        (_, Mode::Transactional, Direction::Down) => Verdict::StillApplied,
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NothingCommitted => f.write_str("nothing of the attempt was committed"),
            Self::StillApplied => {
                f.write_str("the rollback was not committed: the migration is still in place")
            }
            Self::Partly { direction: Direction::Up, done, total } => {
                write!(f, "partly applied: {done} of {total} statements are done")
            }
            Self::Partly { direction: Direction::Down, done, total } => {
                write!(f, "partly rolled back: {done} of {total} statements are done")
            }
            Self::Escaped => f.write_str("the script left its transaction: what stayed of it is not known"),
            Self::Unknown => {
                f.write_str("the journal does not explain the mark: it was set by hand or by another tool")
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::migration::{Version, attempt::LastAttempt};

    #[test]
    fn every_kind_of_last_attempt() {
        use AttemptOutcome::{Failed, Interrupted, Recovered, RolledBack, Running, Succeeded};
        use Direction::{Down, Up};
        use Mode::{NonTransactional, Transactional};
        let check = |direction, mode, outcome, expected| {
            let last_attempt = LastAttempt {
                id: 1,
                direction,
                mode,
                outcome,
                statements_done: 2,
                statements_total: 3,
                checksum: String::new(),
            };
            let row = row(Some(last_attempt));
            assert_eq!(verdict(&row), expected, "{direction:?} {mode:?} {outcome:?}");
        };
        for outcome in [Running, RolledBack, Interrupted] {
            check(Some(Up), Transactional, outcome, Verdict::NothingCommitted);
            check(Some(Down), Transactional, outcome, Verdict::StillApplied);
        }
        for outcome in [Running, RolledBack, Interrupted, Failed] {
            for direction in [Up, Down] {
                let partly = Verdict::Partly { direction, done: 2, total: 3 };
                check(Some(direction), NonTransactional, outcome, partly);
            }
        }
        for mode in [Transactional, NonTransactional] {
            for outcome in [Succeeded, Recovered] {
                check(Some(Up), mode, outcome, Verdict::Unknown);
                check(Some(Down), mode, outcome, Verdict::Unknown);
            }
            check(None, mode, Running, Verdict::Unknown);
        }
        check(Some(Up), Transactional, Failed, Verdict::Escaped);
        check(Some(Down), Transactional, Failed, Verdict::Escaped);
        assert_eq!(verdict(&row(None)), Verdict::Unknown);
    }

    fn row(last_attempt: Option<LastAttempt>) -> AppliedRow {
        AppliedRow {
            version: Version::from_row("0001_a"),
            applied_at: jiff::Timestamp::UNIX_EPOCH,
            checksum: String::new(),
            dirty: true,
            last_attempt,
            kept_down: None,
            applied_by: None,
        }
    }
}
