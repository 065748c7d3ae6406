//! What has happened and was not told yet. Whoever tells of it cannot wait, so that the queue has no end of
//! its own: where it grows long nothing new is begun.

use std::sync::atomic::{AtomicUsize, Ordering};

use crate::migration::{Code, Failure};

/// How many events may wait.
const MOST: usize = 100_000;

/// How many events wait to be told.
#[derive(Debug, Default)]
pub(super) struct Backlog(AtomicUsize);

impl Backlog {
    /// So many wait now.
    pub(super) fn is(&self, waiting: usize) {
        self.0.store(waiting, Ordering::Relaxed);
    }

    /// Refuses something new while too many wait.
    pub(super) fn admit(&self) -> Result<(), Failure> {
        let waiting = self.0.load(Ordering::Relaxed);
        if waiting <= MOST {
            return Ok(());
        }
        let message = format!("{waiting} events wait to be written to the migration log");
        let hint =
            "the log is written more slowly than things happen: see to its disk; what waits is written";
        Err(Failure::new(Code::LogUnwritable, message).hint(hint))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_new_is_begun_while_too_much_waits() {
        let backlog = Backlog::default();
        let code = |waiting| {
            backlog.is(waiting);
            backlog.admit().err().map(|failure| failure.code)
        };
        assert_eq!([code(0), code(MOST)], [None; 2]);
        assert_eq!(code(MOST + 1), Some(Code::LogUnwritable));
        assert_eq!(code(3), None);
    }
}
