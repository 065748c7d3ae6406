//! The migration directory on disk.
//!
//! [`Directory::snapshot`] gives the catalog of the directory as it is at that moment. It lists the
//! directory each time, and reads only the files whose metadata has changed since it read them last:
//! a request always sees the present, and a thousand unchanged migrations cost a few milliseconds.

mod file;
mod listing;
mod pairing;
mod problem;

use std::{
    collections::HashMap,
    fs::File,
    io::{self, Read},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
};

use crate::{
    migration::{Catalog, Script, ScriptReader, catalog::CatalogResult, version::Naming},
    source::{
        file::Content,
        listing::Listed,
        problem::{Problem, failure},
    },
};

/// What is expected of a migration directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Options {
    /// How strictly file names are read.
    pub naming: Naming,
    /// Whether sub-directories are read too.
    pub recursive: bool,
    /// What an up file without its down file is.
    pub missing_down: MissingDown,
    /// The most bytes that a file may have.
    pub max_file_size: u64,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            naming: Naming::default(),
            recursive: false,
            missing_down: MissingDown::default(),
            max_file_size: 64 << 20,
        }
    }
}

/// What an up file without its down file is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum MissingDown {
    /// A notice of the catalog.
    #[default]
    Warn,
    /// A failure.
    Error,
}

/// A migration directory, with what has been read of it.
#[derive(Debug)]
pub struct Directory {
    path: PathBuf,
    options: Options,
    cache: Mutex<Cache>,
}

#[derive(Debug, Default)]
struct Cache {
    files: HashMap<PathBuf, Content>,
    catalog: Option<Arc<Catalog>>,
    /// Whether `catalog` is what follows from `files`.
    is_current: bool,
}

impl Directory {
    /// The directory at `path`, which is not looked at yet.
    pub fn new(path: PathBuf, options: Options) -> Self {
        Self { path, options, cache: Mutex::default() }
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What is expected of it.
    pub fn options(&self) -> Options {
        self.options
    }

    /// The catalog of the directory as it is now: the same one as long as nothing changes, or a
    /// failure that names every problem at once.
    ///
    /// Hidden files, whose names begin with a dot, are not read: editors and Kubernetes keep their
    /// own things there. Symbolic links are followed. It blocks on the disk: call it from a thread
    /// that may.
    pub fn snapshot(&self) -> CatalogResult {
        let mut cache = self.cache.lock().unwrap_or_else(PoisonError::into_inner);
        let (files, mut problems) = listing::list(&self.path, &self.options);
        let is_unchanged = cache.refresh(&files, self.options.max_file_size, &mut problems);
        if is_unchanged && cache.is_current && problems.is_empty() {
            return Ok(cache.catalog.clone().unwrap_or_default());
        }
        let result = cache.build(files, problems, self.options.missing_down);
        cache.is_current = result.is_ok();
        result
    }
}

impl Cache {
    /// Reads the files that are new or changed and forgets those that are gone; says whether there
    /// were none of either.
    fn refresh(&mut self, files: &[Listed], max_size: u64, problems: &mut Vec<Problem>) -> bool {
        let mut old = std::mem::take(&mut self.files);
        let mut is_unchanged = true;
        for file in files {
            let cached = old.remove(&file.path).filter(|content| content.is_of(&file.stamp));
            is_unchanged &= cached.is_some();
            match cached.map_or_else(|| Content::read(file, max_size), Ok) {
                Ok(content) => {
                    problems.extend(content.header.as_ref().err().cloned());
                    self.files.insert(file.path.clone(), content);
                }
                Err(problem) => problems.push(problem),
            }
        }
        is_unchanged && old.is_empty()
    }

    fn build(
        &mut self,
        files: Vec<Listed>,
        mut problems: Vec<Problem>,
        policy: MissingDown,
    ) -> CatalogResult {
        let scripts = files.into_iter().filter_map(|file| {
            let content = self.files.get(&file.path)?;
            Some((file.version.clone(), file.direction, content.script(&file)))
        });
        let mut unpaired = Vec::new();
        let (migrations, notices) = pairing::pair(scripts, policy, &mut unpaired);
        // A file that could not be read is there: its pair is not told that it is missing.
        unpaired.retain(|found| !problems.iter().any(|known| known.is_of_the_same_version(found)));
        problems.append(&mut unpaired);
        if let Some(failure) = failure(problems) {
            return Err(failure);
        }
        let catalog = Catalog::new(migrations, notices);
        match &self.catalog {
            Some(old) if **old == catalog => Ok(Arc::clone(old)),
            _ => Ok(Arc::clone(self.catalog.insert(Arc::new(catalog)))),
        }
    }
}

impl ScriptReader for Directory {
    fn open(&self, script: &Script) -> io::Result<Box<dyn Read + Send>> {
        Ok(Box::new(File::open(&script.path)?))
    }
}

#[cfg(test)]
mod tests;
