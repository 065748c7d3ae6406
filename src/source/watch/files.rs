//! Watching single files, and directories for what comes and goes in them.

use std::{collections::BTreeSet, path::PathBuf, sync::Arc};

use crate::source::watch::{Bell, Watcher, lock, places::Places};

/// Rings when something has happened to one of some paths, links on the way to them included.
pub struct FileWatch {
    watcher: Watcher,
    bell: Arc<Bell>,
}

impl FileWatch {
    /// A watch on nothing yet.
    #[allow(clippy::new_without_default, reason = "it takes hold of system resources")]
    pub fn new() -> Self {
        let (watcher, bell) = (Watcher::new(), Arc::new(Bell::default()));
        lock(&watcher.bells).push(bell.clone());
        Self { watcher, bell }
    }

    /// Watches these paths as they are now, and nothing else. Whatever happens from then on rings: look
    /// at them afterwards.
    pub async fn arm(&self, paths: BTreeSet<PathBuf>) {
        let (watcher, bell) = (self.watcher.clone(), self.bell.clone());
        let arm = move || {
            let mut places = Places::default();
            for path in &paths {
                places.extend(Places::of(path));
            }
            watcher.arm_places(&places, false, &bell);
        };
        // If it cannot be armed, whoever watches polls too.
        let _ = tokio::task::spawn_blocking(arm).await;
    }

    /// Waits until something has happened, and for a while nothing more.
    pub async fn changed(&self) {
        self.bell.rung_out().await;
    }
}
