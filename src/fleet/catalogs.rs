//! Watching the migration directories: each one once, however many databases share it.

use std::{collections::HashSet, sync::Arc, time::Duration};

use uuid::Uuid;

use crate::{fleet::Fleet, source::watch::Watcher};

impl Fleet {
    /// Watches every migration directory until the fleet shuts down, and tells what changes in it.
    /// Each is also looked at every `poll`: not every file system tells of its changes.
    pub fn watch_catalogs(&self, poll: Duration) {
        let watcher = Watcher::new();
        let mut seen = HashSet::new();
        for member in self.inventory.members() {
            if seen.insert(Arc::as_ptr(&member.directory)) {
                let (directory, sink) = (member.directory.clone(), self.sink(Uuid::nil(), None));
                let watch = watcher.clone().watch(directory, poll, sink, self.stop.drain.clone());
                self.tasks.spawn_vital("watch-directory", watch);
            }
        }
    }
}
