//! One file: its metadata, and what is kept of its content.

use std::{
    fs::Metadata,
    io::{self, Read},
    os::unix::fs::MetadataExt as _,
    time::{Duration, SystemTime},
};

use crate::{
    migration::{
        Code, Location, Script,
        checksum::{Checksums, Hasher},
        header::Header,
    },
    source::{
        listing::{Listed, Root, too_large},
        problem::Problem,
    },
};

/// How much of a file its header can be in.
const HEADER: usize = 64 << 10;

/// A file that was written so shortly before it was read may be written again without another time
/// stamp: it is read once more (as git does with what it calls racily clean).
const RACY: Duration = Duration::from_millis(50);

/// The longest excerpt of a line, in characters.
const EXCERPT: usize = 200;

/// The metadata by which a change is seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Stamp {
    device: u64,
    inode: u64,
    size: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl Stamp {
    pub(super) fn of(metadata: &Metadata) -> Self {
        Self {
            device: metadata.dev(),
            inode: metadata.ino(),
            size: metadata.len(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
        }
    }

    /// What tells one file or directory from every other.
    pub(super) fn identity(&self) -> (u64, u64) {
        (self.device, self.inode)
    }

    /// Whether the file is not larger than that.
    pub(super) fn is_of_at_most(&self, bytes: u64) -> bool {
        self.size <= bytes
    }

    /// When the file came to be as it is: the change of its inode, which no copy brings along as it
    /// does the time of the last write.
    fn arrived(&self) -> jiff::Timestamp {
        let (seconds, nanoseconds) = self.changed;
        let nanoseconds = i32::try_from(nanoseconds).unwrap_or_default();
        jiff::Timestamp::new(seconds, nanoseconds).unwrap_or_default()
    }

    /// Whether the last change is too near to `now` for the next one to show, or ahead of it.
    pub(super) fn is_racy(&self, now: SystemTime) -> bool {
        let (seconds, nanoseconds) = self.modified.max(self.changed);
        let (Ok(seconds), Ok(nanoseconds)) = (u64::try_from(seconds), u32::try_from(nanoseconds)) else {
            return false;
        };
        let last = SystemTime::UNIX_EPOCH + Duration::new(seconds, nanoseconds);
        now.duration_since(last).map_or(true, |age| age < RACY)
    }
}

/// What is kept of a file that has been read.
#[derive(Debug)]
pub(super) struct Content {
    stamp: Stamp,
    is_racy: bool,
    is_stable: bool,
    size: u64,
    checksums: Checksums,
    pub(super) header: Result<Header, Problem>,
}

impl Content {
    /// Reads a file once, in pieces.
    pub(super) fn read(root: &Root, listed: &Listed, max_size: u64) -> Result<Self, Problem> {
        let mut head = String::new();
        let mut read = || -> io::Result<Self> {
            let now = SystemTime::now();
            let file = root.open(listed)?;
            let stamp = Stamp::of(&file.metadata()?);
            let mut hasher = Hasher::default();
            let mut buffer = Vec::with_capacity(HEADER);
            let mut size = 0;
            let mut rest = (&file).take(max_size.saturating_add(1));
            while rest.by_ref().take(HEADER as u64).read_to_end(&mut buffer)? > 0 {
                hasher.update(&buffer);
                if size == 0 {
                    head = String::from_utf8_lossy(&buffer).into_owned();
                }
                size += buffer.len() as u64;
                buffer.clear();
            }
            let is_stable = Stamp::of(&file.metadata()?) == stamp && size == stamp.size;
            let (is_racy, checksums) = (stamp.is_racy(now) || !is_stable, hasher.finish());
            Ok(Self { stamp, is_racy, is_stable, size, checksums, header: Ok(Header::default()) })
        };
        let read = read().map_err(|error| {
            Problem::new(Code::FileUnreadable, &listed.name, format!("cannot read it: {error}"))
                .version(&listed.version)
        })?;
        if read.size > max_size {
            return Err(too_large(&listed.name, &listed.version, max_size));
        }
        let header = Header::parse(&head).map_err(|error| {
            let line = head.lines().nth(error.line as usize - 1).unwrap_or_default();
            let text: String = line.trim_start_matches('\u{feff}').chars().take(EXCERPT).collect();
            let location = Location::new(&listed.name, error.line, error.column, &text);
            Problem::new(Code::BadDirective, &listed.name, error.message)
                .version(&listed.version)
                .at(location)
        });
        Ok(Self { header, ..read })
    }

    /// Whether it is what a file with this metadata holds, for certain.
    pub(super) fn is_of(&self, stamp: &Stamp) -> bool {
        !self.is_racy && self.stamp == *stamp
    }

    /// Whether it was read from the very file that was listed, which nobody wrote to meanwhile.
    pub(super) fn is_whole(&self, stamp: &Stamp) -> bool {
        self.is_stable && self.stamp == *stamp
    }

    /// The script; one whose header is refused counts as a file that is there.
    pub(super) fn script(&self, listed: &Listed) -> Script {
        Script {
            path: listed.path.clone(),
            file_name: listed.name.clone(),
            checksums: self.checksums,
            size: self.size,
            arrived: self.stamp.arrived(),
            header: self.header.clone().unwrap_or_default(),
        }
    }
}
