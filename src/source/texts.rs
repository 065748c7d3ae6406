//! The texts of scripts, for as long as runs are under way: what one run has read of a small file, its own later
//! steps and the runs beside it do not read again, unless the file has changed. An idle daemon keeps none.

use std::{
    collections::HashMap,
    fs,
    io::{self, Cursor, Read},
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::SystemTime,
};

use crate::{
    migration::{Script, ScriptReader},
    source::{Directory, file::Stamp},
};

/// The largest file whose text is kept: what the engine reads at once.
const MOST_OF_ONE: u64 = 64 << 10;

/// The most bytes that are kept of one directory.
const MOST: usize = 4 << 20;

/// Reads the scripts of one directory for those who hold it; see [`Directory::texts`].
#[derive(Debug)]
pub struct Texts {
    directory: Arc<Directory>,
    kept: Mutex<Kept>,
}

#[derive(Debug, Default)]
struct Kept {
    files: HashMap<PathBuf, (Stamp, Arc<[u8]>)>,
    size: usize,
}

impl Texts {
    pub(super) fn new(directory: Arc<Directory>) -> Self {
        Self { directory, kept: Mutex::default() }
    }

    fn lock(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The text of a script, where its file is the one that it was read from, and as it was then.
    pub(super) fn find(&self, script: &Script) -> Option<Arc<[u8]>> {
        let (stamp, text) = self.lock().files.get(&script.path).cloned()?;
        (Stamp::of(&fs::metadata(&script.path).ok()?) == stamp).then_some(text)
    }

    fn keep(&self, script: &Script, stamp: Stamp, text: Arc<[u8]>) {
        let mut kept = self.lock();
        if kept.size + text.len() > MOST {
            *kept = Kept::default();
        }
        kept.size += text.len();
        if let Some((_, old)) = kept.files.insert(script.path.clone(), (stamp, text)) {
            kept.size -= old.len();
        }
    }
}

impl ScriptReader for Texts {
    fn open(&self, script: &Script) -> io::Result<Box<dyn Read + Send>> {
        if let Some(text) = self.find(script) {
            return Ok(Box::new(Cursor::new(text)));
        }
        let now = SystemTime::now();
        let mut file = self.directory.open(script)?;
        let stamp = Stamp::of(&file.metadata()?);
        if !stamp.is_of_at_most(MOST_OF_ONE) {
            return Ok(Box::new(file));
        }
        let mut text = Vec::new();
        file.read_to_end(&mut text)?;
        let text = Arc::<[u8]>::from(text);
        // What is being written, or may be again without another stamp, is read anew each time.
        if !stamp.is_racy(now) && Stamp::of(&file.metadata()?) == stamp {
            self.keep(script, stamp, text.clone());
        }
        Ok(Box::new(Cursor::new(text)))
    }
}
