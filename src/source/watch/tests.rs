//! What is seen of a watched directory, and how soon; first what goes wrong.

use std::{
    error::Error,
    fs,
    os::unix::fs::symlink,
    path::Path,
    time::{Duration, Instant},
};

use futures_util::FutureExt as _;
use notify_debouncer_full::notify::{
    Event,
    event::{AccessKind, AccessMode, CreateKind, Flag, RemoveKind},
};
use tempfile::TempDir;
use tokio::sync::mpsc;
use tokio_util::sync::DropGuard;

use super::*;
use crate::{
    migration::{Code, Version},
    source::Options,
};

type TestResult = Result<(), Box<dyn Error>>;

/// How soon a change has to be told.
const SOON: Duration = Duration::from_secs(2);

/// So seldom that what is seen is seen by inotify.
const SELDOM: Duration = Duration::from_hours(1);

struct Heard(mpsc::UnboundedSender<EventKind>);

impl EventSink for Heard {
    fn emit(&self, _: &str, kind: EventKind) {
        let _ = self.0.send(kind);
    }
}

/// A directory that is watched as long as this lives.
struct Watched {
    directory: Arc<Directory>,
    heard: mpsc::UnboundedReceiver<EventKind>,
    _stop: DropGuard,
}

impl Watched {
    /// Begins to watch, and waits until the first look is over.
    async fn new(watcher: Watcher, path: &Path, poll: Duration) -> Self {
        let (sender, heard) = mpsc::unbounded_channel();
        let directory = Arc::new(Directory::new(path.to_owned(), Options::default()));
        let stop = CancellationToken::new();
        let watch = watcher.watch(directory.clone(), poll, Arc::new(Heard(sender)), stop.clone());
        drop(crate::runtime::spawn_owned(watch));
        let until = Instant::now() + SOON;
        while directory.last_good().is_none() {
            assert!(Instant::now() < until, "the directory is never read");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        Self { directory, heard, _stop: stop.drop_guard() }
    }

    async fn next(&mut self) -> Result<EventKind, Box<dyn Error>> {
        Ok(tokio::time::timeout(SOON, self.heard.recv()).await?.ok_or("the watch has ended")?)
    }

    /// The next event is a change of these versions.
    async fn changes(&mut self, added: &[&str], edited: &[&str], removed: &[&str]) -> TestResult {
        let told = self.next().await?;
        let EventKind::CatalogChanged(change) = told else {
            return Err(format!("no change: {told:?}").into());
        };
        let names = |versions: &[Version]| versions.iter().map(ToString::to_string).collect::<Vec<_>>();
        assert_eq!(
            (names(&change.added), names(&change.edited), names(&change.removed)),
            (owned(added), owned(edited), owned(removed)),
        );
        Ok(())
    }

    /// The next event is a failure; returns its message.
    async fn fails(&mut self, code: Code) -> Result<String, Box<dyn Error>> {
        let told = self.next().await?;
        let EventKind::CatalogFailed { failure, .. } = told else {
            return Err(format!("no failure: {told:?}").into());
        };
        assert_eq!(failure.code, code, "{failure}");
        Ok(failure.message)
    }
}

fn owned(texts: &[&str]) -> Vec<String> {
    texts.iter().map(|&text| text.to_owned()).collect()
}

/// Makes a directory with a migration of each version.
fn make(path: &Path, versions: &[&str]) -> TestResult {
    fs::create_dir_all(path)?;
    for version in versions {
        fs::write(path.join(format!("{version}.up.sql")), path.display().to_string())?;
        fs::write(path.join(format!("{version}.down.sql")), "select 1;")?;
    }
    Ok(())
}

#[tokio::test]
async fn a_file_that_is_wrong_is_told_once_and_the_last_good_catalog_stays() -> TestResult {
    let home = TempDir::new()?;
    let path = home.path().join("migrations");
    make(&path, &["0001_a"])?;
    let mut watched = Watched::new(Watcher::new(), &path, Duration::from_millis(20)).await;
    let good = watched.directory.last_good().ok_or("it was read")?;
    fs::write(path.join("wrong.sql"), "")?;
    assert!(watched.fails(Code::MalformedName).await?.starts_with("wrong.sql: "));
    assert!(watched.directory.snapshot().is_err());
    assert_eq!(watched.directory.last_good().as_deref(), Some(&*good));
    fs::write(path.join("more.sql"), "")?;
    assert!(watched.fails(Code::MalformedName).await?.ends_with("(and one more problem)"));
    fs::remove_file(path.join("wrong.sql"))?;
    assert!(watched.fails(Code::MalformedName).await?.starts_with("more.sql: "));
    fs::remove_file(path.join("more.sql"))?;
    watched.changes(&[], &[], &[]).await
}

#[tokio::test]
async fn a_directory_that_vanishes_is_seen_again() -> TestResult {
    let home = TempDir::new()?;
    let path = home.path().join("a/b/migrations");
    make(&path, &["0001_a", "0002_b"])?;
    let mut watched = Watched::new(Watcher::new(), &path, SELDOM).await;
    fs::remove_dir_all(&path)?;
    watched.fails(Code::DirectoryUnreadable).await?;
    make(&path, &["0001_a", "0002_b"])?;
    watched.changes(&[], &[], &[]).await?;
    fs::remove_dir_all(home.path().join("a"))?;
    watched.fails(Code::DirectoryUnreadable).await?;
    make(&path, &["0002_b"])?;
    watched.changes(&[], &[], &["0001_a"]).await?;
    // And what comes after that is seen, too.
    make(&path, &["0003_c"])?;
    watched.changes(&["0003_c"], &[], &[]).await
}

#[tokio::test]
async fn files_that_come_change_and_go_are_seen() -> TestResult {
    let home = TempDir::new()?;
    let path = home.path().join("migrations");
    make(&path, &["0001_a"])?;
    let both = Watcher::new();
    let mut watched = Watched::new(both.clone(), &path, SELDOM).await;
    let mut beside = Watched::new(both, &path, SELDOM).await;
    make(&path, &["0002_b"])?;
    watched.changes(&["0002_b"], &[], &[]).await?;
    fs::write(path.join("0002_b.up.sql"), "select 2;")?;
    watched.changes(&[], &["0002_b"], &[]).await?;
    fs::remove_file(path.join("0002_b.down.sql"))?;
    watched.changes(&[], &["0002_b"], &[]).await?;
    fs::remove_file(path.join("0002_b.up.sql"))?;
    watched.changes(&[], &[], &["0002_b"]).await?;
    beside.changes(&["0002_b"], &[], &[]).await
}

#[tokio::test]
async fn files_that_come_one_by_one_are_told_together() -> TestResult {
    let home = TempDir::new()?;
    let path = home.path().join("migrations");
    make(&path, &["0001_a"])?;
    let mut watched = Watched::new(Watcher::new(), &path, SELDOM).await;
    let versions: Vec<_> = (2..10).map(|number| format!("{number:04}_x")).collect();
    let mut pace = tokio::time::interval(Duration::from_millis(60));
    for version in &versions {
        pace.tick().await;
        make(&path, &[version])?;
    }
    watched.changes(&versions.iter().map(String::as_str).collect::<Vec<_>>(), &[], &[]).await
}

#[tokio::test]
async fn a_directory_that_is_replaced_is_seen() -> TestResult {
    let home = TempDir::new()?;
    let path = home.path().join("migrations");
    make(&path, &["0001_a"])?;
    make(&home.path().join("next"), &["0001_a", "0002_b"])?;
    let mut watched = Watched::new(Watcher::new(), &path, SELDOM).await;
    fs::rename(&path, home.path().join("old"))?;
    fs::rename(home.path().join("next"), &path)?;
    watched.changes(&["0002_b"], &["0001_a"], &[]).await?;
    make(&path, &["0003_c"])?;
    watched.changes(&["0003_c"], &[], &[]).await
}

#[tokio::test]
async fn a_link_on_the_way_that_is_swapped_is_seen() -> TestResult {
    let home = TempDir::new()?;
    for (release, versions) in [("v1", vec!["0001_a"]), ("v2", vec!["0002_b"]), ("v3", vec!["0003_c"])] {
        make(&home.path().join(release).join("migrations"), &versions)?;
    }
    let swap = |release: &str| -> TestResult {
        symlink(release, home.path().join("new"))?;
        Ok(fs::rename(home.path().join("new"), home.path().join("current"))?)
    };
    swap("v1")?;
    let mut watched =
        Watched::new(Watcher::new(), &home.path().join("current/../current/migrations"), SELDOM).await;
    swap("v2")?;
    watched.changes(&["0002_b"], &[], &["0001_a"]).await?;
    swap("v3")?;
    watched.changes(&["0003_c"], &[], &["0002_b"]).await?;
    fs::remove_file(home.path().join("current"))?;
    watched.fails(Code::DirectoryUnreadable).await?;
    swap("v3")?;
    watched.changes(&[], &[], &[]).await
}

#[tokio::test]
async fn without_inotify_directories_are_polled() -> TestResult {
    let home = TempDir::new()?;
    make(home.path(), &["0001_a"])?;
    let none = Inotify { debouncer: None, has_warned: false };
    let blind = Watcher { inotify: Arc::new(Mutex::new(none)), bells: Arc::default() };
    let mut watched = Watched::new(blind, home.path(), Duration::from_millis(20)).await;
    make(home.path(), &["0002_b"])?;
    // A poll may come between the two files.
    let told = watched.next().await?;
    assert!(matches!(told, EventKind::CatalogChanged(_) | EventKind::CatalogFailed { .. }), "{told:?}");
    Ok(())
}

#[test]
fn what_stays_as_it_is_is_told_once() {
    let mut told = Told::default();
    let mut take = |read: CatalogResult| told.take("m".into(), read);
    let failure = |message: &str| Err(Failure::new(Code::DirectoryUnreadable, message));
    let is_failure = |told: &Option<EventKind>| matches!(told, Some(EventKind::CatalogFailed { .. }));
    let is_change = |told: &Option<EventKind>| matches!(told, Some(EventKind::CatalogChanged(_)));
    let good = || Ok(Arc::new(Catalog::default()));
    assert!(take(good()).is_none(), "the first look finds nothing new");
    assert!(take(good()).is_none());
    assert!(is_failure(&take(failure("gone"))));
    assert!(take(failure("gone")).is_none());
    assert!(is_failure(&take(failure("a file"))), "another failure");
    assert!(is_change(&take(good())), "it can be read again");
    assert!(take(good()).is_none());
    assert!(is_failure(&take(failure("a file"))), "the same one, anew");
}

#[test]
fn a_bell_rings_for_what_concerns_it() -> TestResult {
    let home = TempDir::new()?;
    let path = fs::canonicalize(home.path())?.join("migrations");
    make(&path, &[])?;
    let bell = Arc::new(Bell { places: Mutex::new(Places::of(&path)), rung: Notify::new() });
    let rings = |happened: DebounceEventResult| {
        ring(std::slice::from_ref(&bell), &happened);
        bell.rung.notified().now_or_never().is_some()
    };
    let event = |kind, path: &Path| {
        let event = Event::new(kind).add_path(path.to_owned());
        Ok(vec![DebouncedEvent::new(event, Instant::now())])
    };
    let opened = notify::EventKind::Access(AccessKind::Open(AccessMode::Any));
    let created = notify::EventKind::Create(CreateKind::File);
    assert!(!rings(event(opened, &path.join("0001_a.up.sql"))), "our own reading");
    assert!(!rings(event(created, &home.path().join("a.log"))), "something beside it");
    assert!(rings(event(created, &path.join("0001_a.up.sql"))));
    assert!(rings(event(created, &path)));
    let removed = notify::EventKind::Remove(RemoveKind::Folder);
    assert!(rings(event(removed, &fs::canonicalize(home.path())?)), "what it is in");
    let overflow = Event::new(notify::EventKind::Other).set_flag(Flag::Rescan);
    assert!(rings(Ok(vec![DebouncedEvent::new(overflow, Instant::now())])));
    assert!(rings(Err(vec![notify::Error::generic("no more")])));
    Ok(())
}
