//! The file: how its chain is gone on with, and how records are put behind each other.
//!
//! What the last daemon left is looked at first. A record that it did not write to its end stays where it is,
//! and the next record tells of it; where records are missing that are known to have been there, the chain
//! goes on behind those, so that the gap stays to be seen. Beside the file lies one with the chain's end.

use std::{
    fs::{self, File, OpenOptions, TryLockError},
    io::{self, Write as _},
    os::unix::fs::{FileExt as _, MetadataExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
};

use serde_json::{Value, json};
use uuid::Uuid;

use crate::{
    auditlog::{
        Entry, Head,
        chain::{Flaw, read, seal},
    },
    migration::Checksum,
    redact::{open_for_its_owner, refuse_others},
};

/// How much is read at once, from the end.
const PIECE: u64 = 64 << 10;

/// How long the text is that the end of the chain is kept in.
const HEAD_LENGTH: usize = 190;

/// How many lines at the end may be no records.
const MOST_TORN: usize = 16;

/// Why the file cannot be gone on with.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The disk says no.
    #[error("The audit log {} cannot be written: {cause}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system says.
        cause: io::Error,
    },
    /// It may not be used as it is.
    #[error("The audit log {} cannot be used: {reason}", path.display())]
    Unfit {
        /// The file.
        path: PathBuf,
        /// Why not.
        reason: String,
    },
}

/// Where the end of a file's chain is kept.
pub fn head_path(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".head");
    name.into()
}

/// The end of a chain, as it was kept beside a file.
pub fn read_head(path: &Path) -> Option<Head> {
    let kept: Value = serde_json::from_slice(&fs::read(head_path(path)).ok()?).ok()?;
    let text = |key: &str| kept.get(key)?.as_str();
    Some(Head {
        chain: Uuid::parse_str(text("chain")?).ok()?,
        sequence: kept.get("sequence")?.as_u64()?,
        hash: Checksum::from_hex(text("hash")?)?,
    })
}

/// The file, as long as it is written.
#[derive(Debug)]
pub(super) struct LogFile {
    path: PathBuf,
    file: File,
    head: Head,
    /// How long it is, if nobody else writes it.
    length: u64,
    /// Keeps the end of the chain; `None` where it cannot be.
    beside: Option<File>,
}

/// What is at the end of a file.
#[derive(Debug, Default)]
struct Tail {
    last: Option<Head>,
    /// The lines after the last record, with the ends that they have.
    torn: Vec<Vec<u8>>,
    /// The last line has no end.
    is_open: bool,
}

impl LogFile {
    /// Opens it, makes it where it is missing, and locks it. `known` is the end of the chain, where this
    /// daemon knows it already. Returns what the next record has to tell.
    pub(super) fn open(path: &Path, known: Option<Head>) -> Result<(Self, Vec<Entry>), OpenError> {
        let io = |cause| OpenError::Io { path: path.to_owned(), cause };
        let unfit = |reason: String| OpenError::Unfit { path: path.to_owned(), reason };
        let directory = path.parent().filter(|it| !it.as_os_str().is_empty()).unwrap_or(Path::new("."));
        // Not to wait for the other end of a pipe.
        let flags = nix::fcntl::OFlag::O_NONBLOCK.bits();
        let mut options = OpenOptions::new();
        let options = options.read(true).append(true).custom_flags(flags);
        let file = open_for_its_owner(path, options).map_err(io)?;
        let metadata = file.metadata().map_err(io)?;
        if !metadata.is_file() {
            return Err(unfit("it is no regular file".to_owned()));
        }
        refuse_others(path, &metadata).map_err(unfit)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                return Err(unfit(
                    "another process writes it: each nexusd needs its own ([log] audit_file)".to_owned(),
                ));
            }
            Err(TryLockError::Error(cause)) => return Err(io(cause)),
        }
        let tail = tail(&file, metadata.len()).map_err(io)?.map_err(unfit)?;
        let known = known.or_else(|| read_head(path));
        let (head, notices) = resume(known, &tail);
        // A file that is new is there after a crash of the machine, too.
        File::open(directory).and_then(|directory| directory.sync_all()).map_err(io)?;
        let beside = open_beside(path);
        let mut log = Self { path: path.to_owned(), file, head, length: metadata.len(), beside };
        if tail.is_open {
            log.write(b"\n").map_err(io)?;
        }
        Ok((log, notices))
    }

    /// The last record.
    pub(super) fn head(&self) -> Head {
        self.head
    }

    /// Whether nothing was ever written to it.
    pub(super) fn is_empty(&self) -> bool {
        self.length == 0
    }

    /// Whether its path names another file by now, or none.
    pub(super) fn is_moved(&self) -> bool {
        let place = |metadata: fs::Metadata| (metadata.dev(), metadata.ino());
        let named = fs::metadata(&self.path).map(place).ok();
        named.is_none() || named != self.file.metadata().map(place).ok()
    }

    /// Whether it was deleted: what is written to it is gone with this process.
    pub(super) fn is_deleted(&self) -> bool {
        is_deleted(&self.file)
    }

    /// What there is to tell of a length that is not what was written; from now on it counts as known.
    pub(super) fn look(&mut self) -> io::Result<Option<Entry>> {
        let (found, expected) = (self.file.metadata()?.len(), self.length);
        self.length = found;
        let notice =
            format!("the file is {found} bytes long and should be {expected}: somebody else has changed it");
        Ok((found != expected).then(|| Entry::tampering(notice)))
    }

    /// Puts records behind the last one, and waits until the disk has them. On an error none of them is
    /// there, as far as the disk can be told so: the file has to be opened anew.
    pub(super) fn append(&mut self, entries: &[Entry], instance: &str) -> io::Result<()> {
        let (mut head, mut text) = (self.head, String::new());
        for entry in entries {
            let (line, next) = seal(&head, entry, instance);
            text.push_str(&line);
            head = next;
        }
        self.write(text.as_bytes())?;
        self.head = head;
        self.keep_head();
        Ok(())
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        let written = self.file.write_all(bytes).and_then(|()| self.file.sync_data());
        if let Err(error) = written {
            // Where that fails too, whoever opens it next finds what is left.
            drop(self.file.set_len(self.length));
            return Err(error);
        }
        self.length += bytes.len() as u64;
        Ok(())
    }

    /// Notes the chain's end. It is not waited for: one that is behind says less, and nothing wrong.
    fn keep_head(&mut self) {
        if self.beside.as_ref().is_some_and(is_deleted) {
            tracing::warn!(path = %self.path.display(), "the end that was kept beside the audit log was deleted");
            self.beside = open_beside(&self.path);
        }
        let Some(file) = &self.beside else { return };
        let Head { chain, sequence, hash } = self.head;
        let text =
            json!({ "chain": chain.to_string(), "sequence": sequence, "hash": hash.hex() }).to_string();
        // Of one length, so that nothing is left of the one before.
        let text = format!("{text:<HEAD_LENGTH$}\n");
        if let Err(error) = file.write_all_at(text.as_bytes(), 0) {
            tracing::warn!(%error, "the end of the audit log cannot be kept");
            self.beside = None;
        }
    }
}

fn is_deleted(file: &File) -> bool {
    file.metadata().is_ok_and(|metadata| metadata.nlink() == 0)
}

/// Opens what holds the chain's end.
fn open_beside(path: &Path) -> Option<File> {
    let opened = open_for_its_owner(&head_path(path), OpenOptions::new().write(true).truncate(false));
    opened.map_err(|error| tracing::warn!(%error, "the end of the audit log cannot be kept")).ok()
}

/// Reads the end of a file, from the last record on. The inner error says why it cannot be gone on with.
fn tail(file: &File, length: u64) -> io::Result<Result<Tail, String>> {
    let mut torn: Vec<Vec<u8>> = Vec::new();
    let mut text: Vec<u8> = Vec::new();
    let (mut begin, mut is_open) = (length, None);
    loop {
        // Whole lines at the end of `text`: all of them where it is the whole file.
        while let Some(at) = last_line(&text, begin == 0) {
            let line = text.split_off(at);
            let is_open = *is_open.get_or_insert(!line.ends_with(b"\n"));
            match read(line.strip_suffix(b"\n").unwrap_or(&line)) {
                Ok(sealed) => {
                    torn.reverse();
                    return Ok(Ok(Tail { last: Some(sealed.head), torn, is_open }));
                }
                Err(Flaw::Altered | Flaw::Malformed) => {
                    let reason = "its last record is not as nexusd has written it; nexusctl auditlog verify tells \
                                  more, and a new file begins where this one is moved away";
                    return Ok(Err(reason.to_owned()));
                }
                Err(Flaw::Torn) => torn.push(line),
            }
            if torn.len() > MOST_TORN {
                return Ok(Err("its last lines are no records: it is another file".to_owned()));
            }
        }
        if begin == 0 {
            torn.reverse();
            return Ok(Ok(Tail { last: None, torn, is_open: is_open.unwrap_or(false) }));
        }
        let size = begin.min(PIECE);
        let mut piece = vec![0; usize::try_from(size).unwrap_or_default()];
        begin -= size;
        file.read_exact_at(&mut piece, begin)?;
        piece.append(&mut text);
        text = piece;
    }
}

/// Where the last line begins that is known to be whole at its beginning.
fn last_line(text: &[u8], is_all: bool) -> Option<usize> {
    let body = text.strip_suffix(b"\n").unwrap_or(text);
    match body.iter().rposition(|byte| *byte == b'\n') {
        Some(at) => Some(at + 1),
        None => (is_all && !text.is_empty()).then_some(0),
    }
}

/// Behind which record the next one comes, and what it has to tell.
fn resume(known: Option<Head>, tail: &Tail) -> (Head, Vec<Entry>) {
    let mut notices = Vec::new();
    if !tail.torn.is_empty() {
        let torn = tail.torn.iter().map(|line| {
            let line = line.strip_suffix(b"\n").unwrap_or(line);
            json!({ "sha256": Checksum::of(line).hex(), "bytes": line.len() })
        });
        let entry = Entry::noticed("what stands before this record is no record");
        notices.push(entry.with("torn", torn.collect::<Vec<_>>()));
    }
    let head = match (known, tail.last) {
        (None, None) => Head::of_new_chain(Uuid::now_v7()),
        (Some(known), None) => {
            notices.push(Entry::noticed(format!(
                "the file is new: the chain goes on behind record {} of another one",
                known.sequence
            )));
            known
        }
        (Some(known), Some(last)) if known.chain != last.chain => {
            notices.push(Entry::tampering(format!(
                "the file is of another chain than the one that was written here last, {}, which had {} records",
                known.chain, known.sequence
            )));
            last
        }
        (Some(known), Some(last)) if last.sequence < known.sequence => {
            notices.push(Entry::tampering(format!(
                "the file ends with record {}, and there was a record {}: the end of the file was cut off",
                last.sequence, known.sequence
            )));
            known
        }
        (Some(known), Some(last)) if last.sequence == known.sequence && last.hash != known.hash => {
            notices.push(Entry::tampering(format!(
                "record {} is not the one that was written: the file was rewritten",
                last.sequence
            )));
            known
        }
        (_, Some(last)) => last,
    };
    (head, notices)
}

#[cfg(test)]
#[path = "file_tests.rs"]
mod tests;
