//! The migration directory while the daemon runs: what changes is told, what is wrong is told and
//! compared with the last good catalog, and nothing is ever read in halves.

use std::{
    cell::RefCell,
    collections::BTreeSet,
    fs,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    sync::atomic::{AtomicBool, AtomicUsize, Ordering},
    time::{Duration, Instant},
};

use nexus::source::{Directory, Options};
use serde_json::{Value, json};

use crate::support::{Database, Running, World, await_that};

/// How soon a change has to be in the log.
const SOON: Duration = Duration::from_secs(2);

const SWAPS: usize = 200;

/// A volume as Kubernetes mounts it: each set of files in a directory of its own, a link `..data`
/// to the present one, and links to the single files through it.
struct Volume {
    mount: PathBuf,
    sets: usize,
}

impl Volume {
    fn new(mount: &Path) -> Self {
        fs::create_dir_all(mount).expect("a directory is made");
        Self { mount: mount.to_owned(), sets: 0 }
    }

    /// Mounts another set in the steps, and in the order, of the kubelet.
    fn mount(&mut self, set: &[(String, String)]) {
        self.sets += 1;
        let path = |name: &str| self.mount.join(name);
        let before = fs::read_link(path("..data")).ok();
        let directory = format!("..2025_10_30_{}", self.sets);
        fs::create_dir(path(&directory)).expect("a directory is made");
        for (name, text) in set {
            fs::write(path(&directory).join(name), text).expect("a file is written");
        }
        symlink(&directory, path("..data_tmp")).expect("a link is made");
        fs::rename(path("..data_tmp"), path("..data")).expect("the link is swapped");
        for (name, _) in set {
            if fs::symlink_metadata(path(name)).is_err() {
                symlink(Path::new("..data").join(name), path(name)).expect("a link is made");
            }
        }
        for entry in fs::read_dir(&self.mount).expect("the mount is read") {
            let name = entry.expect("the mount is read").file_name().to_string_lossy().into_owned();
            if !name.starts_with("..") && !set.iter().any(|(kept, _)| *kept == name) {
                fs::remove_file(path(&name)).expect("a link is removed");
            }
        }
        if let Some(before) = before {
            fs::remove_dir_all(self.mount.join(before)).expect("the old set is removed");
        }
    }
}

/// A set of migrations whose texts say whose they are.
fn set(owner: &str, numbers: impl Iterator<Item = u32>) -> Vec<(String, String)> {
    let files = |number| {
        ["up", "down"].map(|direction| {
            (format!("{number:04}_t{number}.{direction}.sql"), format!("select '{owner}';\n"))
        })
    };
    numbers.flat_map(files).collect()
}

/// Two sets that share some files, some names, and some nothing.
fn sets() -> [Vec<(String, String)>; 2] {
    let shared = set("both", 1..=2);
    let of = |owner, numbers| [shared.clone(), set(owner, 4..=5), set(owner, numbers)].concat();
    [of("a", 9..=9), of("b", 20..=22)]
}

/// Waits until the log has `count` lines with this message, and returns them.
fn lines(world: &Running, message: &str, count: usize) -> Vec<Value> {
    let until = Instant::now() + SOON;
    loop {
        let found = world.logged(message);
        if found.len() >= count {
            return found;
        }
        assert!(Instant::now() < until, "never told: {message}\n{:?}", world.log());
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Waits until the daemon has taken its first look, by a failure that comes and goes. Returns how
/// many changes it has told of.
fn watched(world: &Running, spoil: impl FnOnce(), restore: impl FnOnce()) -> usize {
    spoil();
    lines(world, "Migration directory cannot be read", 1);
    restore();
    // Whether it was good when it was looked at first is a matter of who was quicker.
    let is_good = || {
        let changes = world.logged("Migrations changed").len();
        let again = world.logged("Migration directory can be read again").len();
        (changes + again > 0).then_some(changes)
    };
    await_that("it is read again", || is_good().is_some());
    is_good().unwrap_or_default()
}

#[test]
fn a_directory_that_is_wrong_is_told_and_compared_as_it_was() {
    let world = World::new();
    world.tables(1, 2);
    let world = world.start();
    world.ctl(&["apply", "--database", "main"]).expect(0);
    world.write("wrong.sql", "");
    let told = lines(&world, "Migration directory cannot be read", 1);
    assert_eq!((told[0]["level"].as_str(), told[0]["code"].as_str()), (Some("error"), Some("NX0001")));
    assert_eq!(told[0].get("database").or(told[0].get("operation")), None, "it is of no operation");
    let status = world.ctl(&["status", "--output", "json"]);
    assert_eq!(status.code, Some(1));
    let status = status.json();
    let main = &status["databases"][0];
    assert_eq!((&main["failure"], &main["applied"]), (&Value::Null, &json!(2)), "{main}");
    assert_eq!(main["catalog_failure"]["code"], "NX0001", "{main}");
    let shown = world.ctl(&["status", "--check"]).expect(3);
    assert!(shown.contains("0002_t2") && shown.contains("wrong.sql"), "{shown}");
    world.ctl(&["apply", "--database", "main"]).expect(1);

    // Gone altogether, changed meanwhile, and back.
    fs::rename(world.path("migrations"), world.path("away")).expect("it is moved");
    let told = lines(&world, "Migration directory cannot be read", 2);
    assert_eq!((told.len(), told[1]["code"].as_str()), (2, Some("NX0014")), "{told:?}");
    assert!(world.ctl(&["status"]).expect(1).contains("0002_t2"));
    fs::remove_file(world.path("away/wrong.sql")).expect("it is removed");
    fs::rename(world.path("away"), world.path("migrations")).expect("it is moved");
    lines(&world, "Migration directory can be read again", 1);
    world.ctl(&["status", "--check"]).expect(0);
}

#[test]
fn what_changes_is_told_once_for_all_who_share_the_directory() {
    let world = World::new();
    let (second, migrations) = (Database::new(), world.path("migrations"));
    world.tables(1, 1);
    let world = world
        .more(&format!(
            "[[database]]\nname = \"second\"\nurl = {:?}\nmigrations = {:?}\n",
            second.url,
            migrations.display().to_string()
        ))
        .start();
    let before = watched(&world, || world.write("wrong.sql", ""), || world.remove("wrong.sql"));
    let check = |count: usize, key: &str, versions: &[&str]| {
        let told = lines(&world, "Migrations changed", before + count).split_off(before);
        assert_eq!(told.len(), count, "{told:?}");
        for list in ["added", "edited", "removed"] {
            let expected = if list == key { json!(versions) } else { json!([]) };
            assert_eq!(told[count - 1][list], expected, "{told:?}");
        }
        assert_eq!(told[count - 1]["digest"].as_str().map(str::len), Some(64));
    };
    world.tables(2, 1);
    check(1, "added", &["0002_t2"]);
    world.write("0001_t1.up.sql", "create table t1 (id bigint);");
    check(2, "edited", &["0001_t1"]);
    for file in ["0002_t2.up.sql", "0002_t2.down.sql"] {
        world.remove(file);
    }
    check(3, "removed", &["0002_t2"]);
}

#[test]
fn no_snapshot_is_of_two_sets_while_they_are_swapped() {
    let world = World::new();
    let mut volume = Volume::new(&world.path("volume"));
    let sets = sets();
    let options = Options::default();
    let digests = sets.each_ref().map(|set| {
        volume.mount(set);
        let catalog = Directory::new(volume.mount.clone(), options).snapshot().expect("it is read");
        assert_eq!(catalog.migrations().len() * 2, set.len());
        catalog.digest().to_owned()
    });
    let shared = Directory::new(volume.mount.clone(), options);
    let (done, snapshots) = (AtomicBool::new(false), AtomicUsize::new(0));
    let read = |directory: Option<&Directory>| {
        let mut seen = [0_usize; 2];
        while !done.load(Ordering::Relaxed) {
            let fresh = Directory::new(volume.mount.clone(), options);
            let catalog = directory.unwrap_or(&fresh).snapshot().expect("every snapshot is whole");
            let which = digests.iter().position(|digest| digest == catalog.digest());
            seen[which.expect("every snapshot is of one set")] += 1;
            snapshots.fetch_add(1, Ordering::Relaxed);
        }
        seen
    };
    let seen = std::thread::scope(|scope| {
        let readers = [Some(&shared), None].map(|directory| scope.spawn(move || read(directory)));
        let mut volume = Volume { mount: volume.mount.clone(), sets: volume.sets };
        // However slow the readers are, they read as often as is swapped.
        let mut swaps = 0;
        let goes_on = || !readers.iter().any(std::thread::ScopedJoinHandle::is_finished);
        while goes_on() && (swaps < SWAPS || snapshots.load(Ordering::Relaxed) < SWAPS) {
            volume.mount(&sets[swaps % 2]);
            swaps += 1;
        }
        done.store(true, Ordering::Relaxed);
        readers.map(|reader| reader.join().expect("a reader ends well"))
    });
    assert!(seen.iter().flatten().all(|&count| count > 0), "{seen:?}");
}

#[test]
fn a_daemon_sees_swaps_and_never_half_of_one() {
    let world = World::new();
    let mount = world.path("migrations");
    let mut volume = Volume::new(&mount);
    let sets = sets();
    volume.mount(&sets[1]);
    let world = world.start();
    let wrong = [sets[1].as_slice(), &[("wrong.sql".into(), String::new())]].concat();
    let volume = RefCell::new(volume);
    let before =
        watched(&world, || volume.borrow_mut().mount(&wrong), || volume.borrow_mut().mount(&sets[1]));
    let mut volume = volume.into_inner();
    volume.mount(&sets[0]);
    let told = lines(&world, "Migrations changed", before + 1).split_off(before);
    let counts = ["added", "edited", "removed"].map(|key| told[0][key].as_array().map(Vec::len));
    assert_eq!(counts, [Some(1), Some(2), Some(3)], "one swap is one change: {told:?}");

    let names = |set: &[(String, String)]| -> BTreeSet<String> {
        set.iter().filter_map(|(name, _)| name.strip_suffix(".up.sql")).map(str::to_owned).collect()
    };
    let expected = sets.each_ref().map(|set| names(set));
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let swaps = scope.spawn(|| {
            for number in 1..=SWAPS {
                volume.mount(&sets[number % 2]);
            }
            done.store(true, Ordering::Relaxed);
        });
        while !done.load(Ordering::Relaxed) {
            let status = world.ctl(&["status", "--output", "json"]).json();
            let main = &status["databases"][0];
            assert_eq!((&main["failure"], &main["catalog_failure"]), (&Value::Null, &Value::Null), "{main}");
            let migrations = main["migrations"].as_array().expect("a list");
            let seen = migrations.iter().filter_map(|it| it["version"].as_str()).map(str::to_owned).collect();
            assert!(expected.contains(&seen), "{seen:?}");
        }
        swaps.join().expect("the swaps end");
    });
    assert_eq!(world.logged("Migration directory cannot be read").len(), 1, "that of the wrong file");
}
