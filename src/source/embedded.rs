//! Migrations that are part of the program: Nexus's own.

use std::io;

use jiff::Timestamp;

use crate::migration::{
    Catalog, Migration, Script, ScriptReader, Version, checksum::Checksums, header::Header,
};

/// A migration in the program's own text.
#[derive(Debug, Clone, Copy)]
pub struct Own {
    /// Its version.
    pub version: &'static str,
    /// Its up file.
    pub up: &'static str,
    /// Its down file.
    pub down: &'static str,
}

/// The migrations of the program, to be read like files.
#[derive(Debug, Clone, Copy)]
pub struct Embedded(pub &'static [Own]);

impl Embedded {
    /// Their catalog.
    pub fn catalog(self) -> Catalog {
        let migration = |own: &Own| Migration {
            version: Version::from_row(own.version),
            up: script(own.version, "up", own.up),
            down: Some(script(own.version, "down", own.down)),
        };
        Catalog::new(self.0.iter().map(migration).collect(), Vec::new())
    }

    fn text(self, file_name: &str) -> Option<&'static str> {
        self.0.iter().find_map(|own| {
            let rest = file_name.strip_prefix(own.version)?;
            match rest {
                ".up.sql" => Some(own.up),
                ".down.sql" => Some(own.down),
                _ => None,
            }
        })
    }
}

impl ScriptReader for Embedded {
    fn open(&self, script: &Script) -> io::Result<Box<dyn io::Read + Send>> {
        let text = self.text(&script.file_name).ok_or(io::ErrorKind::NotFound)?;
        Ok(Box::new(text.as_bytes()))
    }
}

fn script(version: &str, direction: &str, text: &str) -> Script {
    let file_name = format!("{version}.{direction}.sql");
    Script {
        path: file_name.clone().into(),
        file_name,
        checksums: Checksums::of(text.as_bytes()),
        size: text.len() as u64,
        arrived: Timestamp::UNIX_EPOCH,
        // Its author is ours: a test reads each of them.
        header: Header::parse(text).unwrap_or_default(),
    }
}
