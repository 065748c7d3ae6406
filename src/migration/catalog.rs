//! The catalog: the immutable set of migrations read from one directory at one moment.

use std::{io, path::PathBuf};

use jiff::Timestamp;
use sha2::{Digest as _, Sha256};

use crate::migration::{
    Direction, Failure, Version,
    checksum::{Checksum, Checksums},
    header::Header,
};

/// One migration file. Its text is not kept: 1,000 migrations cost a daemon nothing while it is
/// idle, and a [`ScriptReader`] reads the text when a step needs it.
#[derive(Debug, Clone, PartialEq)]
pub struct Script {
    /// Where it is.
    pub path: PathBuf,
    /// Its name, for messages.
    pub file_name: String,
    /// Its checksums.
    pub checksums: Checksums,
    /// Its size in bytes.
    pub size: u64,
    /// When it came to be as it is in this directory, by the disk's clock.
    pub arrived: Timestamp,
    /// What its header says.
    pub header: Header,
}

/// A migration: its two files.
#[derive(Debug, Clone, PartialEq)]
pub struct Migration {
    /// Its version.
    pub version: Version,
    /// The file that applies it.
    pub up: Script,
    /// The file that rolls it back.
    pub down: Option<Script>,
}

/// The migrations of one directory, in order, with unique numbers.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Catalog {
    migrations: Vec<Migration>,
    digest: String,
    notices: Vec<String>,
}

impl Catalog {
    /// Puts migrations in order. `source` has made sure that their numbers are unique; `notices`
    /// are what it has to say of the directory (a missing down file, say).
    pub fn new(mut migrations: Vec<Migration>, notices: Vec<String>) -> Self {
        migrations.sort_by(|a, b| a.version.cmp(&b.version));
        let mut hasher = Sha256::new();
        for migration in &migrations {
            let down = migration.down.as_ref().map(|down| down.checksums.raw.hex());
            let line =
                (migration.version.as_str(), migration.up.checksums.raw.hex(), down.unwrap_or_default());
            hasher.update(format!("{} {} {}\n", line.0, line.1, line.2));
        }
        let digest = Checksum::from(hasher).hex();
        Self { migrations, digest, notices }
    }

    /// The migrations, oldest first.
    pub fn migrations(&self) -> &[Migration] {
        &self.migrations
    }

    /// A digest of every version and checksum: equal catalogs have equal digests.
    pub fn digest(&self) -> &str {
        &self.digest
    }

    /// What there is to say of the directory.
    pub fn notices(&self) -> &[String] {
        &self.notices
    }

    /// The migration of a version.
    pub fn get(&self, version: &Version) -> Option<&Migration> {
        let index = self.migrations.binary_search_by(|migration| migration.version.cmp(version)).ok()?;
        self.migrations.get(index)
    }

    /// The migration that a user means by a version or a number.
    pub fn find(&self, wanted: &str) -> Option<&Migration> {
        self.migrations.iter().find(|migration| migration.version.is_meant_by(wanted))
    }

    /// The file of a version and direction.
    pub fn script(&self, version: &Version, direction: Direction) -> Option<&Script> {
        let migration = self.get(version)?;
        match direction {
            Direction::Up => Some(&migration.up),
            Direction::Down => migration.down.as_ref(),
        }
    }
}

/// Opens the files of a catalog. `source` implements it over the directory, so that the engine
/// knows nothing of disks.
pub trait ScriptReader: Send + Sync {
    /// Opens a script for reading from its first byte. The reader gives the raw bytes, a
    /// byte-order mark included; whoever reads compares their checksum with the catalog's.
    fn open(&self, script: &Script) -> io::Result<Box<dyn io::Read + Send>>;
}

/// What was read from a directory, or every reason why it could not be.
pub type CatalogResult = Result<std::sync::Arc<Catalog>, Failure>;
