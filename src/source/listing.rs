//! The `.sql` files of a directory, with their metadata.

use std::{
    fs::{self, DirEntry, File, Metadata},
    io,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
};

use crate::{
    migration::{
        Code, Direction, Version,
        version::{FileNameError, Naming, parse_file_name},
    },
    source::{
        Options,
        beneath::{Bounds, LEADS_OUT},
        file::Stamp,
        problem::Problem,
    },
};

/// In a volume that Kubernetes mounts, the link to the directory that holds its files now. It is
/// swapped in one step, while the links to the single files come and go one after the other.
const VOLUME_LINK: &str = "..data";

/// A migration file, not yet read.
#[derive(Debug, PartialEq)]
pub(super) struct Listed {
    /// Where it will be found later, too: below the directory as it is configured.
    pub(super) path: PathBuf,
    /// Where it is now, every link to its directory followed.
    pub(super) real_path: PathBuf,
    /// Its path below the directory, for messages.
    pub(super) name: String,
    pub(super) version: Version,
    pub(super) direction: Direction,
    pub(super) stamp: Stamp,
}

/// What a migration directory's path leads to at one moment.
#[derive(Debug)]
pub(super) struct Root {
    /// The path by which its files are found later, too.
    path: PathBuf,
    /// The directory, every link followed.
    real_path: PathBuf,
    /// What tells it from one that takes its place.
    identity: (u64, u64),
    /// What nothing is read outside of: the whole volume.
    bounds: Bounds,
}

impl Root {
    /// Follows a migration directory's path: in a volume of Kubernetes to the set of files that is
    /// mounted now, so that a listing never holds files of two sets.
    pub(super) fn of(directory: &Path) -> io::Result<Self> {
        let bounds = Bounds::of(directory)?;
        let path = volume_link(directory).unwrap_or_else(|| directory.to_owned());
        let real_path = fs::canonicalize(&path)?;
        if !bounds.hold(&real_path) {
            return Err(io::Error::other(format!("{VOLUME_LINK} leads out of it")));
        }
        let identity = Stamp::of(&fs::metadata(&real_path)?).identity();
        Ok(Self { path, real_path, identity, bounds })
    }

    /// Whether it leads to the same place as another one.
    pub(super) fn is_same(&self, other: &Self) -> bool {
        self.path == other.path && self.real_path == other.real_path && self.identity == other.identity
    }

    /// Opens a file of it.
    pub(super) fn open(&self, listed: &Listed) -> io::Result<File> {
        self.bounds.open(&listed.real_path)
    }

    /// Whether a path leads out of it.
    fn is_left_by(&self, path: &Path) -> io::Result<bool> {
        Ok(!self.bounds.hold(&fs::canonicalize(path)?))
    }
}

/// The link in `directory` that Kubernetes swaps, where it has one.
pub(super) fn volume_link(directory: &Path) -> Option<PathBuf> {
    let link = directory.join(VOLUME_LINK);
    fs::symlink_metadata(&link).is_ok_and(|link| link.is_symlink()).then_some(link)
}

/// The files of a directory, in the order of their names, and all that is wrong with them.
#[derive(Debug, PartialEq)]
pub(super) struct Files {
    pub(super) files: Vec<Listed>,
    pub(super) problems: Vec<Problem>,
}

/// Lists the directory that `root` was found to be.
pub(super) fn list(directory: &Path, root: Result<&Root, &io::Error>, options: &Options) -> Files {
    let mut found = Files { files: Vec::new(), problems: Vec::new() };
    let listed = match root {
        Ok(root) => Listing { root, options, found: &mut found }
            .directory(&root.real_path, &mut Vec::new())
            .map_err(|error| unreadable_directory(directory, &error)),
        Err(error) => Err(unreadable_directory(directory, error)),
    };
    found.problems.extend(listed.err());
    found.files.sort_by(|a, b| a.name.cmp(&b.name));
    found
}

struct Listing<'a> {
    root: &'a Root,
    options: &'a Options,
    found: &'a mut Files,
}

impl Listing<'_> {
    /// Reads one directory. `above` are the directories that it is in: a link back to one of them
    /// is not followed.
    fn directory(&mut self, path: &Path, above: &mut Vec<(u64, u64)>) -> io::Result<()> {
        let metadata = fs::metadata(path)?;
        let identity = Stamp::of(&metadata).identity();
        if above.contains(&identity) {
            return Ok(());
        }
        above.push(identity);
        self.refuse_open(&self.name(path), &metadata);
        for entry in fs::read_dir(path)? {
            let entry = entry?;
            let file_name = entry.file_name().to_string_lossy().into_owned();
            let is_sql = file_name.to_ascii_lowercase().ends_with(".sql");
            if file_name.starts_with('.') || !(is_sql || self.options.recursive) {
                continue;
            }
            let path = entry.path();
            let is_link = entry.file_type().is_ok_and(|kind| kind.is_symlink());
            if is_link && self.root.is_left_by(&path).unwrap_or_default() {
                self.found.problems.push(Problem::new(Code::LeavesDirectory, &self.name(&path), LEADS_OUT));
                continue;
            }
            // What is no link is asked for in its directory, without a walk along its path.
            let metadata = if is_link { fs::metadata(&path) } else { entry.metadata() };
            let metadata = match metadata {
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
                self.found.problems.push(unreadable_directory(&self.path(&path), &error));
            }
        }
        above.pop();
        Ok(())
    }

    fn file(&mut self, real_path: PathBuf, file_name: &str, metadata: &Metadata) {
        let (name, path) = (self.name(&real_path), self.path(&real_path));
        let size = metadata.len();
        if !metadata.is_file() {
            let kind = if metadata.is_dir() { "a directory" } else { "no regular file" };
            self.found.problems.push(Problem::new(Code::FileUnreadable, &name, format!("it is {kind}")));
            return;
        }
        self.refuse_open(&name, metadata);
        match parse_file_name(file_name, self.options.naming) {
            Err(error) => {
                let message = malformed(file_name, self.options.naming, &error);
                self.found.problems.push(Problem::new(Code::MalformedName, &name, message));
            }
            Ok((version, _)) if size > self.options.max_file_size => {
                self.found.problems.push(too_large(&name, &version, self.options.max_file_size));
            }
            Ok((version, direction)) => {
                let stamp = Stamp::of(metadata);
                self.found.files.push(Listed { path, real_path, name, version, direction, stamp });
            }
        }
    }

    /// Notes what everybody may write to, where that is not to be.
    fn refuse_open(&mut self, name: &str, metadata: &Metadata) {
        if self.options.refuse_open && metadata.mode() & 0o002 != 0 {
            let (mode, name) = (metadata.mode() & 0o7777, if name.is_empty() { "." } else { name });
            let message =
                format!("everybody may write to it (mode {mode:04o}), and its database is protected");
            self.found.problems.push(Problem::new(Code::OpenDirectory, name, message));
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
        let name = self.name(&entry.path());
        self.found.problems.push(Problem::new(Code::FileUnreadable, &name, message));
    }

    fn below_root<'a>(&self, real_path: &'a Path) -> &'a Path {
        real_path.strip_prefix(&self.root.real_path).unwrap_or(real_path)
    }

    fn name(&self, real_path: &Path) -> String {
        self.below_root(real_path).to_string_lossy().into_owned()
    }

    fn path(&self, real_path: &Path) -> PathBuf {
        self.root.path.join(self.below_root(real_path))
    }
}

fn unreadable_directory(path: &Path, error: &io::Error) -> Problem {
    let message = match error.kind() {
        io::ErrorKind::NotFound => "the migration directory does not exist".to_owned(),
        io::ErrorKind::NotADirectory => "the migration directory is a file".to_owned(),
        _ => format!("cannot read the migration directory: {error}"),
    };
    Problem::new(Code::DirectoryUnreadable, &path.to_string_lossy(), message)
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
