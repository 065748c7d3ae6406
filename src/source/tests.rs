//! The directory on disk, by its files: what is refused first, then what is read.

use std::{
    error::Error,
    fs::{self, File},
    io::{self, Read as _},
    os::unix::fs::{PermissionsExt as _, symlink},
    time::{Duration, Instant, SystemTime},
};

use nix::{sys::stat::Mode, unistd::mkfifo};
use tempfile::TempDir;

use super::*;
use crate::migration::{Checksum, Code, Direction, ScriptReader as _, Version};

type TestResult = Result<(), Box<dyn Error>>;

/// A directory that holds `files`, old enough to be believed.
fn directory(files: &[(&str, &str)], options: Options) -> io::Result<(TempDir, Directory)> {
    let dir = TempDir::new()?;
    for (name, text) in files {
        let path = dir.path().join(name);
        fs::create_dir_all(path.parent().unwrap_or(dir.path()))?;
        fs::write(path, text)?;
    }
    settle();
    let directory = Directory::new(dir.path().to_owned(), options);
    Ok((dir, directory))
}

/// Lets the time pass in which a file is still racy.
fn settle() {
    std::thread::sleep(Duration::from_millis(60));
}

/// The problems of a directory that holds `files`: the code of the first, and each one's line.
fn check(files: &[(&str, &str)], options: Options, code: Code, expected: &[&str]) -> TestResult {
    let (_dir, directory) = directory(files, options)?;
    let failure = directory.snapshot().expect_err("it has problems");
    assert_eq!(failure.code, code, "{failure}");
    if let [only] = expected {
        assert_eq!((failure.message.as_str(), failure.details.len()), (*only, 0));
    } else {
        assert_eq!(failure.details, expected);
        assert!(failure.message.starts_with(expected[0]), "{failure}");
    }
    Ok(())
}

#[test]
fn names_that_are_refused() -> TestResult {
    let form = "the name is not NUMBER_description.up.sql or NUMBER_description.down.sql";
    check(
        &[("10_a.up.sql", ""), ("add.sql", ""), ("0010_B.up.sql", ""), ("0011_x.UP.SQL", ""), ("README", "")],
        Options::default(),
        Code::MalformedName,
        &[
            &format!(
                "0010_B.up.sql: {form}: the description may not contain 'B' (naming = \"relaxed\" would take it)"
            ),
            &format!("0011_x.UP.SQL: {form}: it must end in .up.sql or .down.sql"),
            &format!("10_a.up.sql: {form}: it must begin with a number of 4 to 18 digits"),
            &format!("add.sql: {form}: it must end in .up.sql or .down.sql"),
        ],
    )?;
    let relaxed = Options { naming: Naming::Relaxed, ..Options::default() };
    let (_dir, directory) = directory(&[("0010_B-1.up.sql", "")], relaxed)?;
    assert_eq!(directory.snapshot()?.migrations().len(), 1);
    Ok(())
}

#[test]
fn pairs_that_are_refused() -> TestResult {
    let recursive = Options { recursive: true, missing_down: MissingDown::Error, ..Options::default() };
    check(
        &[
            ("0010_a.up.sql", ""),
            ("0010_a.down.sql", ""),
            ("00010_b.up.sql", ""),
            ("00010_b.down.sql", ""),
            ("0011_c.down.sql", ""),
            ("0012_d.up.sql", ""),
            ("0012_e.down.sql", ""),
        ],
        Options::default(),
        Code::DuplicateVersion,
        &[
            "0010_a.down.sql: it has the same number as 00010_b.down.sql",
            "0011_c.down.sql: its up file 0011_c.up.sql is missing",
            "0012_e.down.sql: its up file is missing; 0012_d.up.sql has the same number and another name",
        ],
    )?;
    check(
        &[
            ("a/0010_x.up.sql", ""),
            ("b/0010_x.up.sql", ""),
            ("a/0011_y.down.sql", ""),
            ("b/0011_y.up.sql", ""),
            ("a/b/0012_z.up.sql", ""),
        ],
        recursive,
        Code::MissingDown,
        &[
            "a/b/0012_z.up.sql: its down file 0012_z.down.sql is missing",
            "b/0010_x.up.sql: it is the same migration as a/0010_x.up.sql",
            "b/0011_y.up.sql: it is in another directory than a/0011_y.down.sql of the same migration",
        ],
    )
}

#[test]
fn content_that_is_refused() -> TestResult {
    let options = Options { max_file_size: 30, ..Options::default() };
    check(
        &[("0010_a.up.sql", "-- 31 bytes are one too many --")],
        options,
        Code::FileTooLarge,
        &["0010_a.up.sql: it is larger than max_file_size, 30 bytes"],
    )?;
    let bad = "\u{feff}-- Description: x\r\n-- nexus: no-transact\r\n";
    let (_dir, directory) = directory(&[("0010_a.up.sql", bad)], Options::default())?;
    for _ in 0..2 {
        let failure = directory.snapshot().expect_err("the directive is unknown");
        assert_eq!(failure.code, Code::BadDirective);
        assert_eq!(failure.version.as_deref(), Some("0010_a"));
        let location = failure.location.ok_or("it is at a place")?;
        assert_eq!(location.to_string(), "0010_a.up.sql:2:4");
        assert_eq!(location.excerpt, "-- nexus: no-transact");
    }
    Ok(())
}

#[test]
fn directories_that_cannot_be_read() -> TestResult {
    let dir = TempDir::new()?;
    let missing = dir.path().join("missing");
    let failure = Directory::new(missing.clone(), Options::default()).snapshot().expect_err("it is missing");
    assert_eq!(failure.code, Code::DirectoryUnreadable);
    assert_eq!(failure.message, format!("{}: the migration directory does not exist", missing.display()));
    fs::write(&missing, "")?;
    let failure = Directory::new(missing, Options::default()).snapshot().expect_err("it is a file");
    assert_eq!(failure.code, Code::DirectoryUnreadable);
    Ok(())
}

#[test]
fn files_that_cannot_be_read() -> TestResult {
    let (dir, directory) = directory(&[("0010_a.up.sql", "SELECT 1;")], Options::default())?;
    fs::create_dir(dir.path().join("0011_b.up.sql"))?;
    symlink("nowhere", dir.path().join("0012_c.up.sql"))?;
    symlink("0013_d.up.sql", dir.path().join("0013_d.up.sql"))?;
    let failure = directory.snapshot().expect_err("three files cannot be read");
    assert_eq!(failure.code, Code::FileUnreadable);
    assert_eq!(failure.details.len(), 3);
    assert_eq!(failure.details[0], "0011_b.up.sql: it is a directory");
    assert_eq!(failure.details[1], "0012_c.up.sql: it is a symbolic link to a file that does not exist");
    assert!(failure.details[2].starts_with("0013_d.up.sql: cannot read it:"), "{}", failure.details[2]);

    for file in ["0012_c.up.sql", "0013_d.up.sql"] {
        fs::remove_file(dir.path().join(file))?;
    }
    fs::remove_dir(dir.path().join("0011_b.up.sql"))?;
    assert_eq!(directory.snapshot()?.migrations().len(), 1, "it is well again");

    let path = dir.path().join("0010_a.up.sql");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o000))?;
    // The superuser reads it all the same.
    if File::open(&path).is_err() {
        let failure = directory.snapshot().expect_err("it may not be read");
        assert_eq!(failure.code, Code::FileUnreadable);
    }
    Ok(())
}

#[test]
fn what_a_catalog_holds() -> TestResult {
    let up = "-- nexus: no-transaction\nVACUUM;\n";
    let files = [
        ("0010_a.up.sql", up),
        ("0010_a.down.sql", "SELECT 1;"),
        ("0002_b.up.sql", ""),
        (".0002_c.up.sql", "an editor's"),
        ("notes.txt", ""),
        ("more/0011_d.up.sql", ""),
    ];
    let (dir, directory) = directory(&files, Options::default())?;
    let catalog = directory.snapshot()?;
    let versions: Vec<_> = catalog.migrations().iter().map(|one| one.version.as_str()).collect();
    assert_eq!(versions, ["0002_b", "0010_a"]);
    assert_eq!(catalog.notices(), ["0002_b.up.sql: its down file 0002_b.down.sql is missing"]);
    let script = catalog.script(&Version::from_row("0010_a"), Direction::Up).ok_or("it is there")?;
    assert_eq!(script.checksums.raw, Checksum::of(up.as_bytes()));
    assert_eq!((script.size, script.header.no_transaction), (up.len() as u64, true));
    assert_eq!(
        (script.file_name.as_str(), &script.path),
        ("0010_a.up.sql", &dir.path().join("0010_a.up.sql"))
    );
    let mut text = String::new();
    directory.open(script)?.read_to_string(&mut text)?;
    assert_eq!(text, up);

    let recursive = Options { recursive: true, ..Options::default() };
    symlink(dir.path(), dir.path().join("more/loop"))?;
    let catalog = Directory::new(dir.path().to_owned(), recursive).snapshot()?;
    let script = catalog.script(&Version::from_row("0011_d"), Direction::Up).ok_or("it is there")?;
    assert_eq!(script.file_name, "more/0011_d.up.sql");
    Ok(())
}

#[test]
fn changes_are_seen() -> TestResult {
    let (dir, directory) = directory(&[("0010_a.up.sql", "SELECT 1;")], Options::default())?;
    let path = dir.path().join("0010_a.up.sql");
    let checksum = |catalog: &Catalog| catalog.migrations()[0].up.checksums.raw;
    let first = directory.snapshot()?;
    assert!(Arc::ptr_eq(&first, &directory.snapshot()?), "nothing changed");

    fs::write(&path, "SELECT 2;")?;
    let second = directory.snapshot()?;
    assert_eq!(checksum(&second), Checksum::of(b"SELECT 2;"));

    // The same size, inode and modification time, right after it was read.
    let modified = fs::metadata(&path)?.modified()?;
    fs::write(&path, "SELECT 3;")?;
    File::options().write(true).open(&path)?.set_modified(modified)?;
    assert_eq!(checksum(&*directory.snapshot()?), Checksum::of(b"SELECT 3;"));

    settle();
    let third = directory.snapshot()?;
    fs::write(dir.path().join("other.sql"), "")?;
    assert!(directory.snapshot().is_err());
    fs::remove_file(dir.path().join("other.sql"))?;
    assert!(Arc::ptr_eq(&third, &directory.snapshot()?), "it is again what it was");

    fs::write(dir.path().join("0010_b.up.sql"), "")?;
    settle();
    for _ in 0..3 {
        assert_eq!(directory.snapshot().expect_err("two of a number").code, Code::DuplicateVersion);
    }
    fs::rename(dir.path().join("0010_b.up.sql"), dir.path().join("0011_b.up.sql"))?;
    assert_eq!(directory.snapshot()?.migrations().len(), 2);
    fs::remove_file(&path)?;
    assert_eq!(directory.snapshot()?.migrations().len(), 1);
    Ok(())
}

#[test]
fn a_swapped_link_is_seen() -> TestResult {
    let (dir, _) = directory(&[("..1/0010_a.up.sql", "1"), ("..2/0010_a.up.sql", "2")], Options::default())?;
    let mount = dir.path().to_owned();
    symlink("..1", mount.join("..data"))?;
    symlink("..data/0010_a.up.sql", mount.join("0010_a.up.sql"))?;
    let directory = Directory::new(mount.clone(), Options { recursive: true, ..Options::default() });
    assert_eq!(directory.snapshot()?.migrations()[0].up.checksums.raw, Checksum::of(b"1"));
    symlink("..2", mount.join("..new"))?;
    fs::rename(mount.join("..new"), mount.join("..data"))?;
    let catalog = directory.snapshot()?;
    assert_eq!(catalog.migrations()[0].up.checksums.raw, Checksum::of(b"2"));
    let mut text = String::new();
    directory.open(&catalog.migrations()[0].up)?.read_to_string(&mut text)?;
    assert_eq!(text, "2");
    symlink("/", mount.join("..new"))?;
    fs::rename(mount.join("..new"), mount.join("..data"))?;
    let failure = directory.snapshot().expect_err("it leads out");
    assert_eq!(failure.code, Code::DirectoryUnreadable);
    assert!(failure.message.ends_with("..data leads out of it"), "{failure}");
    Ok(())
}

#[test]
fn what_leads_out_of_the_directory_is_refused() -> TestResult {
    let files = [("in/0010_a.up.sql", "SELECT 1;"), ("out/0011_b.up.sql", "SELECT 1;")];
    let (dir, _) = directory(&files, Options::default())?;
    let root = dir.path().join("in");
    symlink("0010_a.up.sql", root.join("0010_a.down.sql"))?;
    let options = Options { recursive: true, ..Options::default() };
    let directory = Directory::new(root.clone(), options);
    assert!(directory.snapshot()?.migrations()[0].down.is_some());
    symlink("../out/0011_b.up.sql", root.join("0011_b.up.sql"))?;
    symlink(dir.path().join("out"), root.join("more"))?;
    mkfifo(&root.join("0012_c.up.sql"), Mode::S_IRWXU)?;
    let failure = directory.snapshot().expect_err("links lead out");
    assert_eq!(failure.code, Code::LeavesDirectory);
    let out = "it is a symbolic link that leads out of the migration directory";
    let expected = ["0011_b.up.sql: ", "more: "].map(|name| format!("{name}{out}"));
    assert_eq!(failure.details[0], expected[0]);
    assert_eq!(failure.details[1], "0012_c.up.sql: it is no regular file");
    assert_eq!(failure.details[2], expected[1]);
    Ok(())
}

#[test]
fn what_everybody_may_write_to_is_refused_where_that_is_asked() -> TestResult {
    let (dir, open) = directory(&[("0010_a.up.sql", "SELECT 1;")], Options::default())?;
    let shut = Directory::new(dir.path().to_owned(), Options { refuse_open: true, ..Options::default() });
    let mode = |path: &std::path::Path, mode| fs::set_permissions(path, fs::Permissions::from_mode(mode));
    mode(dir.path(), 0o755)?;
    mode(&dir.path().join("0010_a.up.sql"), 0o664)?;
    assert!(shut.snapshot().is_ok());
    mode(dir.path(), 0o1777)?;
    mode(&dir.path().join("0010_a.up.sql"), 0o646)?;
    let failure = shut.snapshot().expect_err("everybody may write to it");
    assert_eq!(failure.code, Code::OpenDirectory);
    let said = |mode| format!("everybody may write to it (mode {mode}), and its database is protected");
    assert_eq!(failure.details, [format!(".: {}", said("1777")), format!("0010_a.up.sql: {}", said("0646"))]);
    assert!(open.snapshot().is_ok());
    Ok(())
}

#[test]
fn what_was_read_is_read_once_while_it_is_needed_and_unchanged() -> TestResult {
    let (dir, directory) =
        directory(&[("0010_a.up.sql", "SELECT 1;"), ("0011_b.up.sql", "SELECT 2;")], Options::default())?;
    let directory = Arc::new(directory);
    let catalog = directory.snapshot()?;
    let read = |number: usize| -> io::Result<String> {
        let mut text = String::new();
        directory.texts().open(&catalog.migrations()[number].up)?.read_to_string(&mut text)?;
        Ok(text)
    };
    let is_kept = |number: usize| directory.texts().find(&catalog.migrations()[number].up).is_some();
    let path = dir.path().join("0010_a.up.sql");
    let held = directory.texts();
    assert_eq!([read(0)?, read(1)?], ["SELECT 1;", "SELECT 2;"]);
    assert!(is_kept(0) && is_kept(1));

    // Written as it is read: without another stamp it may be written once more.
    fs::write(&path, "SELECT 9;")?;
    assert_eq!((read(0)?, is_kept(0), is_kept(1)), ("SELECT 9;".to_owned(), false, true));
    settle();
    assert_eq!((read(0)?, is_kept(0)), ("SELECT 9;".to_owned(), true));
    fs::write(&path, "-".repeat(70_000))?;
    settle();
    assert_eq!((read(0)?.len(), is_kept(0)), (70_000, false), "it is large now");
    drop(held);
    assert!(!is_kept(1), "nobody holds what was read");
    Ok(())
}

#[test]
fn only_so_much_is_kept_of_what_was_read() -> TestResult {
    let text = "-".repeat(60_000);
    let names: Vec<_> = (0..100).map(|number| format!("{number:04}_x.up.sql")).collect();
    let files: Vec<_> = names.iter().map(|name| (name.as_str(), text.as_str())).collect();
    let (_dir, directory) = directory(&files, Options::default())?;
    let directory = Arc::new(directory);
    let catalog = directory.snapshot()?;
    let texts = directory.texts();
    let mut most = 0;
    for migration in catalog.migrations() {
        texts.open(&migration.up)?;
        most = most.max(catalog.migrations().iter().filter(|it| texts.find(&it.up).is_some()).count());
    }
    assert_eq!(most, (4 << 20) / 60_000);
    Ok(())
}

#[test]
fn a_thousand_unchanged_migrations_cost_little() -> TestResult {
    let dir = TempDir::new()?;
    let long_ago = SystemTime::now() - Duration::from_hours(1);
    for number in 0..1000 {
        for direction in ["up", "down"] {
            let file = File::create(dir.path().join(format!("{number:04}_x.{direction}.sql")))?;
            file.set_modified(long_ago)?;
        }
    }
    settle();
    let directory = Directory::new(dir.path().to_owned(), Options::default());
    let first = directory.snapshot()?;
    let quickest = (0..5).map(|_| {
        let start = Instant::now();
        let same = directory.snapshot();
        assert!(same.is_ok_and(|same| Arc::ptr_eq(&same, &first)), "nothing changed");
        start.elapsed()
    });
    let quickest = quickest.min().unwrap_or_default();
    assert!(quickest < Duration::from_millis(50), "{quickest:?}, of which a quiet machine needs a tenth");
    Ok(())
}
