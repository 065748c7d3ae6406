//! The texts of scripts, for as long as runs need them: what one run has read of a small file, its own later
//! steps and the runs beside it do not read again. An idle daemon keeps none.

use std::{
    collections::HashMap,
    io::{self, Cursor, Read},
    sync::{Arc, Mutex, PoisonError},
};

use crate::{
    migration::{Script, ScriptReader, checksum::Checksum},
    source::Directory,
};

/// The largest file whose text is kept.
const MOST_OF_ONE: u64 = 64 << 10;

/// The most bytes that are kept of all files together.
const MOST: u64 = 4 << 20;

/// Reads the scripts of one directory for those who hold it; see [`Directory::reading`].
#[derive(Debug)]
pub struct Reading {
    directory: Arc<Directory>,
    texts: Mutex<Texts>,
}

/// Texts by their checksums, so that none is ever taken for another.
#[derive(Debug, Default)]
struct Texts {
    by_checksum: HashMap<Checksum, Arc<[u8]>>,
    size: u64,
}

impl Reading {
    pub(super) fn new(directory: Arc<Directory>) -> Self {
        Self { directory, texts: Mutex::default() }
    }

    fn kept(&self, script: &Script) -> Option<Arc<[u8]>> {
        let texts = self.texts.lock().unwrap_or_else(PoisonError::into_inner);
        texts.by_checksum.get(&script.checksums.raw).cloned()
    }

    /// Keeps a text, where it is the script's and there is room.
    fn keep(&self, script: &Script, text: &Arc<[u8]>) {
        if Checksum::of(text) != script.checksums.raw {
            return;
        }
        let mut texts = self.texts.lock().unwrap_or_else(PoisonError::into_inner);
        if texts.size + script.size <= MOST
            && texts.by_checksum.insert(script.checksums.raw, text.clone()).is_none()
        {
            texts.size += script.size;
        }
    }
}

impl ScriptReader for Reading {
    fn open(&self, script: &Script) -> io::Result<Box<dyn Read + Send>> {
        if script.size > MOST_OF_ONE {
            return Ok(Box::new(self.directory.open(script)?));
        }
        if let Some(text) = self.kept(script) {
            return Ok(Box::new(Cursor::new(text)));
        }
        let mut text = Vec::with_capacity(usize::try_from(script.size).unwrap_or_default());
        // Of a file that has grown meanwhile, enough is read for its checksum to differ.
        self.directory.open(script)?.take(script.size + 1).read_to_end(&mut text)?;
        let text = Arc::from(text);
        self.keep(script, &text);
        Ok(Box::new(Cursor::new(text)))
    }
}
