//! The record of migrations: one JSON object a line, in the runbook's words.

mod line;
mod observed;
mod operation;
#[cfg(test)]
mod tests;

use std::{
    collections::VecDeque,
    fs::{File, OpenOptions},
    io::{self, Write as _},
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    sync::{Mutex, MutexGuard, PoisonError},
};

use jiff::Timestamp;
use nix::{
    errno::Errno,
    fcntl::{FallocateFlags, fallocate},
};
use serde_json::Value;

use crate::{
    migration::{Code, Event, Failure},
    redact::open_for_its_owner,
    telemetry::jsonl::{
        line::{Line, Reported, lines},
        observed::Observed,
    },
};

/// How many lines are kept while the file cannot be written.
const MOST_KEPT: usize = 10_000;

/// How much room on the disk is asked for before a mutation, so that its lines will fit.
const RESERVED_BYTES: i64 = 64 * 1024;

/// The file could not be opened or written. The message is the runbook's.
#[derive(Debug, thiserror::Error)]
#[error("Failed to write to migration log file: {} ({})", reason(cause), path.display())]
pub struct LogError {
    /// The file.
    pub path: PathBuf,
    cause: io::Error,
}

/// The record of migrations, in a file that only its owner reads.
///
/// What cannot be written is kept and written later, in order: a full disk costs no line of a run
/// that goes on. Each line is one `write` to a file opened for appending, so that lines of several
/// writers do not mix.
#[derive(Debug)]
pub struct JsonlLog {
    path: PathBuf,
    redact: fn(&mut Value),
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    file: File,
    failed: bool,
    waiting: VecDeque<Vec<u8>>,
    lost: u64,
    reported: Reported,
    observed: Observed,
}

impl JsonlLog {
    /// Opens the file, creating it and its directory where they are missing, and writes a first
    /// line: whoever opens it knows that it can be written. Every line goes through `redact`.
    pub fn open(path: impl Into<PathBuf>, redact: fn(&mut Value)) -> Result<Self, LogError> {
        let path = path.into();
        let file = open(&path).map_err(|cause| LogError { path: path.clone(), cause })?;
        warn_of_readers(&path, &file);
        let waiting = VecDeque::new();
        let state = State {
            file,
            failed: false,
            waiting,
            lost: 0,
            reported: Reported::default(),
            observed: Observed::default(),
        };
        let log = Self { path, redact, state: Mutex::new(state) };
        log.append(&mut log.state(), vec![opened("Log opened")])?;
        Ok(log)
    }

    /// Opens the path anew, after the file was moved away: for SIGHUP. Where that fails, the old
    /// file stays in use.
    pub fn reopen(&self) -> Result<(), LogError> {
        let mut state = self.state();
        state.file = open(&self.path).map_err(|cause| self.error(cause))?;
        self.append(&mut state, vec![opened("Log reopened")])
    }

    /// Writes what there is to say of an event. On an error the lines are kept for later.
    pub fn write(&self, event: &Event) -> Result<(), LogError> {
        let mut state = self.state();
        let State { reported, observed, .. } = &mut *state;
        let lines = lines(event, reported, observed);
        self.append(&mut state, lines)
    }

    /// Whether the next lines can be written: asked before each mutation. The path is opened anew,
    /// which sees a file that was deleted or made read-only; room is reserved, which sees a full
    /// disk; and lines that were kept are written now.
    pub fn is_writable(&self) -> Result<(), Box<Failure>> {
        let mut state = self.state();
        let checked = open(&self.path).and_then(|file| reserve(&file).map(|()| file));
        let result = match checked {
            Ok(file) => {
                state.file = file;
                self.append(&mut state, Vec::new())
            }
            Err(cause) => Err(self.error(cause)),
        };
        result.map_err(|error| Box::new(Failure::new(Code::LogUnwritable, error.to_string())))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn error(&self, cause: io::Error) -> LogError {
        LogError { path: self.path.clone(), cause }
    }

    fn append(&self, state: &mut State, lines: Vec<Line>) -> Result<(), LogError> {
        state.waiting.extend(lines.into_iter().map(|line| line.encode(self.redact)));
        while state.waiting.len() > MOST_KEPT {
            state.waiting.pop_front();
            state.lost += 1;
        }
        if state.waiting.is_empty() {
            return Ok(());
        }
        let written = self.write_waiting(state);
        state.failed = written.is_err();
        written.map_err(|cause| self.error(cause))
    }

    fn write_waiting(&self, state: &mut State) -> io::Result<()> {
        if state.failed {
            state.file = open(&self.path)?;
        }
        if state.lost > 0 {
            let line = Line::new(Timestamp::now(), "error", "Log lines were lost");
            write_whole(&state.file, &line.with("count", state.lost).encode(self.redact))?;
            state.lost = 0;
        }
        while let Some(line) = state.waiting.front() {
            write_whole(&state.file, line)?;
            state.waiting.pop_front();
        }
        Ok(())
    }
}

fn opened(message: &'static str) -> Line {
    Line::new(Timestamp::now(), "info", message)
        .with("nexusd", env!("CARGO_PKG_VERSION"))
        .with("pid", std::process::id())
}

fn open(path: &Path) -> io::Result<File> {
    open_for_its_owner(path, OpenOptions::new().append(true))
}

/// Writes a line in one call. Of a line that the disk had no room for, nothing stays: half a line
/// would make the file unreadable for programs.
fn write_whole(mut file: &File, line: &[u8]) -> io::Result<()> {
    let written = file.write(line)?;
    if written == line.len() {
        return Ok(());
    }
    let length = file.metadata()?.len();
    file.set_len(length.saturating_sub(written as u64))?;
    Err(Errno::ENOSPC.into())
}

/// Asks the disk for room behind the file's end. Where a file system cannot tell, it is not asked.
fn reserve(file: &File) -> io::Result<()> {
    let end = i64::try_from(file.metadata()?.len()).unwrap_or(i64::MAX - RESERVED_BYTES);
    match fallocate(file, FallocateFlags::FALLOC_FL_KEEP_SIZE, end, RESERVED_BYTES) {
        Err(error @ (Errno::ENOSPC | Errno::EDQUOT | Errno::EFBIG | Errno::EIO)) => Err(error.into()),
        _ => Ok(()),
    }
}

fn warn_of_readers(path: &Path, file: &File) {
    let Ok(metadata) = file.metadata() else { return };
    let mode = metadata.permissions().mode() & 0o777;
    if metadata.is_file() && mode & 0o077 != 0 {
        let mode = format!("{mode:o}");
        tracing::warn!(path = %path.display(), mode, "other users can read the migration log: chmod 600");
    }
}

/// The error's name and meaning: `EACCES: Permission denied`.
fn reason(cause: &io::Error) -> String {
    cause.raw_os_error().map_or_else(|| cause.to_string(), |number| Errno::from_raw(number).to_string())
}
