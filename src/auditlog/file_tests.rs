//! What a file is like when it is opened again.

use std::os::unix::fs::PermissionsExt as _;

use tempfile::TempDir;

use super::*;
use crate::auditlog::verify::{Fault, Summary, Verifier, Wrong};

struct Place {
    _directory: TempDir,
    path: PathBuf,
}

impl Place {
    fn new() -> Self {
        let directory = TempDir::new().expect("a directory is made");
        Self { path: directory.path().join("logs/audit.jsonl"), _directory: directory }
    }

    /// Opens it, writes what is noticed and so many records, and closes it; says how many were noticed.
    fn write(&self, count: usize) -> usize {
        let (mut log, mut entries) = LogFile::open(&self.path, None).expect("it is opened");
        let noticed = entries.len();
        entries.extend((0..count).map(|number| Entry::new("call").with("number", number)));
        log.append(&entries, "i").expect("it is written");
        noticed
    }

    fn text(&self) -> Vec<u8> {
        fs::read(&self.path).expect("it is read")
    }

    fn put(&self, text: &[u8]) {
        fs::write(&self.path, text).expect("it is written");
    }

    fn verify(&self) -> Result<Summary, Fault> {
        let mut verifier = Verifier::default();
        verifier.read("f", self.text().as_slice()).expect("memory is read")?;
        verifier.end()
    }
}

#[test]
fn a_chain_goes_on_over_restarts() {
    let place = Place::new();
    for _ in 0..3 {
        assert_eq!(place.write(2), 0);
    }
    let summary = place.verify().expect("it is well");
    assert_eq!((summary.records, summary.first, summary.last.sequence), (6, 1, 6));
    assert_eq!(read_head(&place.path), Some(summary.last));
    for path in [&place.path, &head_path(&place.path)] {
        assert_eq!(fs::metadata(path).expect("it is there").permissions().mode() & 0o777, 0o600);
    }
    let (_log, _) = LogFile::open(&place.path, None).expect("it is opened");
    let refused = LogFile::open(&place.path, None).expect_err("it is locked").to_string();
    assert!(refused.contains("another process writes it"), "{refused}");
}

#[test]
fn a_record_that_was_cut_off_is_told_of_and_stays() {
    let place = Place::new();
    place.write(3);
    let whole = place.text();
    let line = whole.split_inclusive(|byte| *byte == b'\n').next_back().expect("a line").to_vec();
    // At any byte: also where nothing but the end of the line is missing.
    for cut in 1..line.len() {
        fs::remove_file(head_path(&place.path)).expect("it is removed");
        let torn = &whole[..whole.len() - cut];
        place.put(torn);
        assert_eq!(place.write(1), usize::from(cut > 1), "{cut}");
        assert!(place.text().starts_with(torn), "nothing is taken away");
        let summary = place.verify();
        assert_eq!(summary.as_ref().map(|it| it.records), Ok(4), "{cut}: {summary:?}");
    }
    // Twice, and with what a disk leaves after a loss of power.
    place.put(&[&whole[..], &vec![0; 100_000]].concat());
    fs::remove_file(head_path(&place.path)).expect("it is removed");
    assert_eq!(place.write(0), 1);
    let mut text = place.text();
    text.truncate(text.len() - 5);
    place.put(&text);
    fs::remove_file(head_path(&place.path)).expect("it is removed");
    place.write(1);
    assert!(place.verify().is_ok_and(|summary| summary.notes.len() == 2), "{:?}", place.verify());
}

#[test]
fn what_is_missing_stays_missing() {
    let place = Place::new();
    place.write(4);
    let whole = place.text();
    let ends: Vec<_> = (0..whole.len()).filter(|at| whole[*at] == b'\n').map(|at| at + 1).collect();
    place.put(&whole[..ends[1]]);
    assert_eq!(place.write(1), 1);
    let fault = place.verify().expect_err("two records are missing");
    assert_eq!((fault.line, fault.wrong), (3, Wrong::Missing), "{fault}");
    // A file that is gone: the chain goes on in a new one.
    fs::remove_file(&place.path).expect("it is removed");
    assert_eq!(place.write(1), 1);
    let summary = place.verify().expect("what there is is well");
    assert_eq!((summary.first, summary.records), (7, 2));
}

#[test]
fn what_was_altered_is_not_gone_on_with() {
    let place = Place::new();
    place.write(2);
    let whole = place.text();
    place.put(&String::from_utf8_lossy(&whole).replace("\"number\":1", "\"number\":7").into_bytes());
    let refused = LogFile::open(&place.path, None).expect_err("it was altered").to_string();
    assert!(refused.contains("its last record is not as nexusd has written it"), "{refused}");
    place.put("one\n".repeat(100).as_bytes());
    let refused = LogFile::open(&place.path, None).expect_err("it is no audit log").to_string();
    assert!(refused.contains("it is another file"), "{refused}");
    place.put(&whole);
    fs::set_permissions(&place.path, fs::Permissions::from_mode(0o644)).expect("its mode is set");
    let refused = LogFile::open(&place.path, None).expect_err("others read it").to_string();
    assert!(refused.contains("chmod 600"), "{refused}");
    let refused = LogFile::open(Path::new("/dev/full"), None).expect_err("it is a device").to_string();
    assert!(refused.contains("no regular file"), "{refused}");
}

#[test]
fn somebody_else_who_writes_is_noticed() {
    let place = Place::new();
    let (mut log, _) = LogFile::open(&place.path, None).expect("it is opened");
    log.append(&[Entry::new("call")], "i").expect("it is written");
    OpenOptions::new().append(true).open(&place.path).and_then(|mut it| it.write_all(b"x\n")).expect("it is");
    let told = log.look().expect("it is there").expect("it is told");
    log.append(&[told, Entry::new("call")], "i").expect("it is written");
    assert!(log.look().expect("it is there").is_none(), "once");
    let fault = place.verify().expect_err("a line is no record");
    assert_eq!((fault.line, fault.wrong), (2, Wrong::Torn));
    assert!(String::from_utf8_lossy(&place.text()).contains("somebody else has changed it"));
    // What lies beside it comes back.
    fs::remove_file(head_path(&place.path)).expect("it is removed");
    log.append(&[Entry::new("call")], "i").expect("it is written");
    assert_eq!(read_head(&place.path), Some(log.head()));
    fs::remove_file(&place.path).expect("it is removed");
    assert!(log.is_deleted() && log.is_moved());
}
