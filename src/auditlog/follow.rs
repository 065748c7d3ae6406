//! Reading the file while it is written, and the next one where it was moved away.

use std::{
    fs::{self, File},
    io::{self, BufRead as _, BufReader, Seek as _},
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
};

use uuid::Uuid;

use crate::{
    auditlog::chain::{self, Head},
    migration::Checksum,
};

/// How many records are read at once.
const MOST: usize = 256;

/// Reads the records behind a known one, in their order. It waits for the disk.
pub struct Follower {
    path: PathBuf,
    file: BufReader<File>,
    known: u64,
}

/// Records of one chain.
pub struct Batch {
    /// Which chain.
    pub chain: Uuid,
    /// At least one.
    pub records: Vec<Followed>,
}

/// One record.
pub struct Followed {
    /// Its number.
    pub sequence: u64,
    /// Its hash.
    pub hash: Checksum,
    /// Its line, without the end.
    pub line: String,
}

impl Batch {
    /// The number of the last record.
    pub fn last(&self) -> u64 {
        self.records.last().map(|record| record.sequence).unwrap_or_default()
    }
}

impl Follower {
    /// Reads the file of this path behind the record with this number.
    pub fn of(path: &Path, known: u64) -> io::Result<Self> {
        Ok(Self { path: path.to_owned(), file: BufReader::new(File::open(path)?), known })
    }

    /// The next records, up to the last that the disk has; `None` where there are none yet.
    pub fn read_on(&mut self, last: impl Fn() -> Head) -> io::Result<Option<Batch>> {
        loop {
            // Whoever writes has turned to the next file before this last look at the one that was moved away.
            let next = self.next_file()?;
            let batch = self.read(last())?;
            match (batch, next) {
                (None, Some(next)) => self.file = BufReader::new(next),
                (batch, _) => return Ok(batch),
            }
        }
    }

    /// What is no record is passed over: it belongs to nobody.
    fn read(&mut self, last: Head) -> io::Result<Option<Batch>> {
        let mut batch: Option<Batch> = None;
        while batch.as_ref().is_none_or(|batch| batch.records.len() < MOST) {
            let begin = self.file.stream_position()?;
            let mut line = Vec::new();
            self.file.read_until(b'\n', &mut line)?;
            let Some(whole) = line.strip_suffix(b"\n") else {
                // It is still being written.
                self.file.seek(io::SeekFrom::Start(begin))?;
                break;
            };
            let Ok(sealed) = chain::read(whole) else { continue };
            let Head { chain, sequence, hash } = sealed.head;
            if sequence <= self.known {
                continue;
            }
            if chain == last.chain && sequence > last.sequence {
                self.file.seek(io::SeekFrom::Start(begin))?;
                break;
            }
            let of_one = batch.get_or_insert_with(|| Batch { chain, records: Vec::new() });
            if of_one.chain != chain {
                self.file.seek(io::SeekFrom::Start(begin))?;
                break;
            }
            let line = String::from_utf8_lossy(whole).into_owned();
            of_one.records.push(Followed { sequence, hash, line });
        }
        Ok(batch)
    }

    /// The file that the path names now, where that is another one and has been gone on with.
    fn next_file(&self) -> io::Result<Option<File>> {
        let place = |metadata: &fs::Metadata| (metadata.dev(), metadata.ino());
        let Ok(file) = File::open(&self.path) else { return Ok(None) };
        let (now, then) = (file.metadata()?, self.file.get_ref().metadata()?);
        Ok((place(&now) != place(&then) && now.len() > 0).then_some(file))
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;
    use crate::auditlog::{Entry, file::LogFile};

    #[test]
    fn what_is_written_while_the_file_is_moved_away_is_read() {
        let directory = tempfile::tempdir().expect("a directory is made");
        let path = directory.path().join("audit.jsonl");
        let write = |log: &mut LogFile| log.append(&[Entry::new("call")], "i").expect("it is written");
        let (mut log, _) = LogFile::open(&path, None).expect("it is opened");
        write(&mut log);
        let mut follower = Follower::of(&path, 0).expect("it is opened");
        let last = Cell::new(log.head());
        let mut read = || {
            let batch = follower.read_on(|| last.get()).expect("it is read")?;
            Some(batch.records.iter().map(|record| record.sequence).collect::<Vec<_>>())
        };
        // What the disk may not have yet is not there.
        last.update(|head| Head { sequence: 0, ..head });
        assert_eq!(read(), None);
        last.update(|head| Head { sequence: 9, ..head });
        assert_eq!(read(), Some(vec![1]));
        // As logrotate does it: the next file is there, and the old one is still written.
        fs::rename(&path, directory.path().join("audit.jsonl.1")).expect("it is moved away");
        fs::write(&path, "").expect("it is made");
        write(&mut log);
        assert_eq!(read(), Some(vec![2]));
        write(&mut log);
        let head = log.head();
        drop(log);
        fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o600)).expect("it is set");
        let (mut log, _) = LogFile::open(&path, Some(head)).expect("it is opened");
        write(&mut log);
        assert_eq!((read(), read(), read()), (Some(vec![3]), Some(vec![4]), None));
    }
}
