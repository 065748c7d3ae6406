//! The migration directory on disk.
//!
//! [`Directory::snapshot`] gives the catalog of the directory as it is at that moment. It lists the
//! directory each time, and reads only the files whose metadata has changed since it read them last:
//! a request always sees the present, and a thousand unchanged migrations cost a few milliseconds.
//! [`watch`] tells of changes that nobody asked for.

mod beneath;
pub mod embedded;
mod file;
mod listing;
mod pairing;
mod problem;
mod texts;
pub mod watch;

use std::{
    collections::HashMap,
    fs::File,
    io,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError, Weak},
    thread,
    time::Duration,
};

use crate::{
    migration::{Catalog, Code, Failure, Migration, Script, catalog::CatalogResult, version::Naming},
    source::{
        beneath::Bounds,
        file::Content,
        listing::{Listed, Root},
        problem::{Problem, failure},
    },
};

pub use texts::Texts;

/// How often a directory is read anew that changes while it is read: it changes without pause then.
const READINGS: u32 = 200;

/// The pause before it is read anew.
const PAUSE: Duration = Duration::from_millis(2);

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
    /// Whether a directory or a file is refused that everybody may write to.
    pub refuse_open: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            naming: Naming::default(),
            recursive: false,
            missing_down: MissingDown::default(),
            max_file_size: 64 << 20,
            refuse_open: false,
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
    /// Beside the cache, whose lock is held while the disk is waited for.
    last_good: Mutex<Option<Arc<Catalog>>>,
    /// What the runs that are under way share.
    texts: Mutex<Weak<Texts>>,
    /// One thread at a time waits for the disk, which may hang: whoever else comes waits without one.
    turn: Arc<tokio::sync::Mutex<()>>,
}

#[derive(Debug, Default)]
struct Cache {
    files: HashMap<PathBuf, Content>,
    /// Whether the last good catalog is what follows from `files`.
    is_current: bool,
}

impl Directory {
    /// The directory at `path`, which is not looked at yet.
    pub fn new(path: PathBuf, options: Options) -> Self {
        Self {
            path,
            options,
            cache: Mutex::default(),
            last_good: Mutex::default(),
            texts: Mutex::default(),
            turn: Arc::default(),
        }
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
    /// own things there. Symbolic links are followed where they stay in the directory; of a volume that
    /// Kubernetes mounts, those files are read to which its link `..data` leads. What changes while it is
    /// read is read anew: a directory that is swapped is the old one or the new one, never some of each.
    /// It blocks on the disk: call it from a thread that may, or see [`Self::load`].
    pub fn snapshot(&self) -> CatalogResult {
        let mut cache = self.cache.lock().unwrap_or_else(PoisonError::into_inner);
        for reading in 0..READINGS {
            if reading > 0 {
                thread::sleep(PAUSE);
            }
            let root = Root::of(&self.path);
            let listed = listing::list(&self.path, root.as_ref(), &self.options);
            if cache.is_current && listed.problems.is_empty() && cache.holds(&listed.files) {
                return Ok(self.last_good().unwrap_or_default());
            }
            let mut problems = listed.problems.clone();
            cache.refresh(root.as_ref().ok(), &listed.files, self.options.max_file_size, &mut problems);
            let is_whole = cache.is_whole(&listed.files)
                && listing::list(&self.path, root.as_ref(), &self.options) == listed
                && is_same(Root::of(&self.path).ok().as_ref(), root.as_ref().ok());
            if is_whole {
                let (migrations, notices) = cache.pair(listed.files, problems, self.options.missing_down)?;
                cache.is_current = true;
                return Ok(self.keep(Catalog::new(migrations, notices)));
            }
        }
        let message =
            format!("{}: the migration directory changed each time it was read", self.path.display());
        Err(Failure::new(Code::DirectoryUnreadable, message))
    }

    /// The same, from a thread that may block.
    pub async fn load(self: &Arc<Self>) -> CatalogResult {
        let (directory, turn) = (self.clone(), self.turn.clone().lock_owned().await);
        let read = tokio::task::spawn_blocking(move || {
            let _turn = turn;
            directory.snapshot()
        });
        let read = read.await;
        read.map_err(|_| Failure::new(Code::Internal, "Reading the directory ended unexpectedly"))?
    }

    /// The last catalog that could be read, for comparisons while the directory cannot.
    pub fn last_good(&self) -> Option<Arc<Catalog>> {
        self.last_good.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// What reads its scripts: the same one for all who hold it at a time.
    pub fn texts(self: &Arc<Self>) -> Arc<Texts> {
        let mut shared = self.texts.lock().unwrap_or_else(PoisonError::into_inner);
        shared.upgrade().unwrap_or_else(|| {
            let texts = Arc::new(Texts::new(self.clone()));
            *shared = Arc::downgrade(&texts);
            texts
        })
    }

    /// Opens a script, in the directory as it is now.
    fn open(&self, script: &Script) -> io::Result<File> {
        Bounds::of(&self.path)?.open(&script.path)
    }

    /// Keeps a catalog; one that is equal to the last stays the same one.
    fn keep(&self, catalog: Catalog) -> Arc<Catalog> {
        let mut last = self.last_good.lock().unwrap_or_else(PoisonError::into_inner);
        match &*last {
            Some(old) if **old == catalog => Arc::clone(old),
            _ => Arc::clone(last.insert(Arc::new(catalog))),
        }
    }
}

impl Cache {
    /// Whether it was read of these very files, and none of them has changed since.
    fn holds(&self, files: &[Listed]) -> bool {
        let is_held = |file: &Listed| self.files.get(&file.path).is_some_and(|read| read.is_of(&file.stamp));
        self.files.len() == files.len() && files.iter().all(is_held)
    }

    /// Reads the files that are new or changed and forgets those that are gone.
    fn refresh(&mut self, root: Option<&Root>, files: &[Listed], max_size: u64, problems: &mut Vec<Problem>) {
        self.is_current = false;
        let mut old = std::mem::take(&mut self.files);
        for file in files {
            let cached = old.remove(&file.path).filter(|content| content.is_of(&file.stamp));
            // Where there is no root nothing was listed.
            let Some(root) = root else { continue };
            match cached.map_or_else(|| Content::read(root, file, max_size), Ok) {
                Ok(content) => {
                    problems.extend(content.header.as_ref().err().cloned());
                    self.files.insert(file.path.clone(), content);
                }
                Err(problem) => problems.push(problem),
            }
        }
    }

    /// Whether what was read of each file is what was listed.
    fn is_whole(&self, files: &[Listed]) -> bool {
        files.iter().all(|file| self.files.get(&file.path).is_none_or(|read| read.is_whole(&file.stamp)))
    }

    fn pair(
        &self,
        files: Vec<Listed>,
        mut problems: Vec<Problem>,
        policy: MissingDown,
    ) -> Result<(Vec<Migration>, Vec<String>), Failure> {
        let scripts = files.into_iter().filter_map(|file| {
            let content = self.files.get(&file.path)?;
            Some((file.version.clone(), file.direction, content.script(&file)))
        });
        let mut unpaired = Vec::new();
        let (migrations, notices) = pairing::pair(scripts, policy, &mut unpaired);
        // A file that could not be read is there: its pair is not told that it is missing.
        unpaired.retain(|found| !problems.iter().any(|known| known.is_of_the_same_version(found)));
        problems.append(&mut unpaired);
        failure(problems).map_or(Ok((migrations, notices)), Err)
    }
}

/// Whether a directory's path led to the same place twice, be it to none.
fn is_same(before: Option<&Root>, now: Option<&Root>) -> bool {
    match (before, now) {
        (Some(before), Some(now)) => before.is_same(now),
        (None, None) => true,
        _ => false,
    }
}

#[cfg(test)]
mod tests;
