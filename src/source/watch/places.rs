//! What a directory's path depends on: the directory, and each link and name on the way to it.

use std::{
    collections::BTreeSet,
    ffi::OsString,
    fs,
    path::{Path, PathBuf},
};

use crate::source::listing::volume_link;

/// The most links that are followed, as in the kernel.
const MOST_LINKS: u32 = 40;

/// Where a change can be one of the directory. Every path is without links.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Places {
    /// Directories in which everything counts.
    inside: BTreeSet<PathBuf>,
    /// Single entries: the directory itself, the links on the way to it, and what is missing.
    entries: BTreeSet<PathBuf>,
}

impl Places {
    /// The places of a directory as they are now; of one that is missing, where it would appear.
    pub(super) fn of(directory: &Path) -> Self {
        let mut places = Self::default();
        places.follow(directory);
        if let Some(link) = volume_link(directory) {
            places.follow(&link);
        }
        places
    }

    /// These and others.
    pub(super) fn extend(&mut self, others: Self) {
        self.inside.extend(others.inside);
        self.entries.extend(others.entries);
    }

    fn follow(&mut self, path: &Path) {
        // It fails for an empty path only, which no configuration has.
        let path = std::path::absolute(path).unwrap_or_default();
        let mut place = PathBuf::new();
        let mut rest: Vec<OsString> = reversed(&path);
        let mut links = 0;
        while let Some(name) = rest.pop() {
            if name == ".." {
                place.pop();
                continue;
            }
            let entry = place.join(&name);
            match fs::read_link(&entry) {
                Ok(target) if links < MOST_LINKS => {
                    links += 1;
                    rest.extend(reversed(&target));
                    self.entries.insert(entry);
                }
                _ if fs::symlink_metadata(&entry).is_ok() => place = entry,
                _ => {
                    self.entries.insert(entry);
                    return;
                }
            }
        }
        self.entries.insert(place.clone());
        self.inside.insert(place);
    }

    /// The directories that have to be watched.
    pub(super) fn watched(&self) -> BTreeSet<PathBuf> {
        let above = self.entries.iter().filter_map(|entry| entry.parent()).map(Path::to_owned);
        self.inside.iter().cloned().chain(above).collect()
    }

    /// Whether everything in this place counts.
    pub(super) fn is_inside(&self, place: &Path) -> bool {
        self.inside.contains(place)
    }

    /// Whether something that happened to `path` can be a change of the directory: inside it, to an
    /// entry on the way to it, or to what such an entry is in.
    pub(super) fn concern(&self, path: &Path) -> bool {
        self.inside.iter().any(|place| path.starts_with(place))
            || self.entries.iter().any(|entry| entry.starts_with(path))
    }
}

fn reversed(path: &Path) -> Vec<OsString> {
    path.components().rev().map(|component| component.as_os_str().to_owned()).collect()
}
