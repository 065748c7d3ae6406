//! The `.sql` files of a directory, with their metadata.

use std::{
    fs::{self, DirEntry, Metadata},
    io,
    path::{Path, PathBuf},
};

use crate::{
    migration::{
        Code, Direction, Version,
        version::{FileNameError, Naming, parse_file_name},
    },
    source::{Options, file::Stamp, problem::Problem},
};

/// A migration file, not yet read.
#[derive(Debug)]
pub(super) struct Listed {
    pub(super) path: PathBuf,
    /// Its path below the directory, for messages.
    pub(super) name: String,
    pub(super) version: Version,
    pub(super) direction: Direction,
    pub(super) stamp: Stamp,
}

/// Lists a directory, in the order of the names, with all that is wrong with it.
pub(super) fn list(root: &Path, options: &Options) -> (Vec<Listed>, Vec<Problem>) {
    let mut listing = Listing { root, options, files: Vec::new(), problems: Vec::new() };
    if let Err(error) = listing.directory(root, &mut Vec::new()) {
        listing.unreadable_directory(root, &error);
    }
    listing.files.sort_by(|a, b| a.name.cmp(&b.name));
    (listing.files, listing.problems)
}

struct Listing<'a> {
    root: &'a Path,
    options: &'a Options,
    files: Vec<Listed>,
    problems: Vec<Problem>,
}

impl Listing<'_> {
    /// Reads one directory. `above` are the directories that it is in: a link back to one of them
    /// is not followed.
    fn directory(&mut self, path: &Path, above: &mut Vec<(u64, u64)>) -> io::Result<()> {
        let identity = Stamp::of(&fs::metadata(path)?).identity();
        if above.contains(&identity) {
            return Ok(());
        }
        above.push(identity);
        for entry in fs::read_dir(path)? {
            let entry = entry?;
            let file_name = entry.file_name().to_string_lossy().into_owned();
            let is_sql = file_name.to_ascii_lowercase().ends_with(".sql");
            if file_name.starts_with('.') || !(is_sql || self.options.recursive) {
                continue;
            }
            let path = entry.path();
            let metadata = match fs::metadata(&path) {
                Ok(metadata) => metadata,
                Err(error) if is_sql => {
                    self.unreadable_file(&entry, &error);
                    continue;
                }
                Err(_) => continue,
            };
            if is_sql {
                self.file(path, &file_name, &metadata);
            } else if metadata.is_dir()
                && let Err(error) = self.directory(&path, above)
            {
                self.unreadable_directory(&path, &error);
            }
        }
        above.pop();
        Ok(())
    }

    fn file(&mut self, path: PathBuf, file_name: &str, metadata: &Metadata) {
        let name = self.name(&path);
        let size = metadata.len();
        if !metadata.is_file() {
            let kind = if metadata.is_dir() { "a directory" } else { "no regular file" };
            self.problems.push(Problem::new(Code::FileUnreadable, &name, format!("it is {kind}")));
            return;
        }
        match parse_file_name(file_name, self.options.naming) {
            Err(error) => {
                let message = malformed(file_name, self.options.naming, &error);
                self.problems.push(Problem::new(Code::MalformedName, &name, message));
            }
            Ok((version, _)) if size > self.options.max_file_size => {
                self.problems.push(too_large(&name, &version, self.options.max_file_size));
            }
            Ok((version, direction)) => {
                self.files.push(Listed { path, name, version, direction, stamp: Stamp::of(metadata) });
            }
        }
    }

    fn unreadable_file(&mut self, entry: &DirEntry, error: &io::Error) {
        let is_missing = error.kind() == io::ErrorKind::NotFound;
        let is_link = entry.file_type().is_ok_and(|kind| kind.is_symlink());
        let message = match (is_missing, is_link) {
            (true, true) => "it is a symbolic link to a file that does not exist".to_owned(),
            // It was deleted while the directory was read.
            (true, false) => return,
            _ => format!("cannot read it: {error}"),
        };
        self.problems.push(Problem::new(Code::FileUnreadable, &self.name(&entry.path()), message));
    }

    fn unreadable_directory(&mut self, path: &Path, error: &io::Error) {
        let message = match error.kind() {
            io::ErrorKind::NotFound => "the migration directory does not exist".to_owned(),
            io::ErrorKind::NotADirectory => "the migration directory is a file".to_owned(),
            _ => format!("cannot read the migration directory: {error}"),
        };
        self.problems.push(Problem::new(Code::DirectoryUnreadable, &path.to_string_lossy(), message));
    }

    fn name(&self, path: &Path) -> String {
        path.strip_prefix(self.root).unwrap_or(path).to_string_lossy().into_owned()
    }
}

/// A file over the cap.
pub(super) fn too_large(name: &str, version: &Version, cap: u64) -> Problem {
    let message = format!("it is larger than max_file_size, {cap} bytes");
    Problem::new(Code::FileTooLarge, name, message).version(version)
}

fn malformed(file_name: &str, naming: Naming, error: &FileNameError) -> String {
    let relaxed = match naming {
        Naming::Strict if parse_file_name(file_name, Naming::Relaxed).is_ok() => {
            " (naming = \"relaxed\" would take it)"
        }
        _ => "",
    };
    format!("the name is not NUMBER_description.up.sql or NUMBER_description.down.sql: {error}{relaxed}")
}
