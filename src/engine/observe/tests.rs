//! Looks by tables: what follows from which rows, files and failures.

use std::{path::PathBuf, sync::Arc, time::Duration};

use jiff::{SignedDuration, Timestamp};

use crate::{
    engine::observe::{Compared, Glance, SeeError, compare::Rules, conclude},
    migration::{
        AppliedRow, AttemptOutcome, Catalog, Code, Counts, Direction, Failure, FindingKind, Migration, Mode,
        Observation, Script, Tracked, Version,
        attempt::LastAttempt,
        checksum::Checksums,
        header::Header,
        plan::{Policy, Tolerance},
    },
    postgres::look::{Leftovers, Look},
};

const DAY: Duration = Duration::from_hours(24);

fn now() -> Timestamp {
    "2026-05-01T12:00:00Z".parse().expect("it is a time")
}

fn hours_ago(hours: i64) -> Timestamp {
    now().checked_sub(SignedDuration::from_hours(hours)).expect("it is a time")
}

fn rules() -> Rules {
    Rules { policy: Policy::default(), pending_limit: DAY, now: now() }
}

/// A directory of these versions, of an hour ago. A trailing `!` leaves the down file out.
#[allow(clippy::unnecessary_wraps, reason = "as what is tested takes it")]
fn catalog(versions: &[&str]) -> Compared {
    let script = |text: &str, name: String| Script {
        path: PathBuf::from(&name),
        file_name: name,
        checksums: Checksums::of(text.as_bytes()),
        size: 1,
        arrived: hours_ago(1),
        header: Header::default(),
    };
    let migrations = versions.iter().map(|text| {
        let version = text.trim_end_matches('!');
        Migration {
            version: Version::from_row(version),
            up: script(&up_text(version), format!("{version}.up.sql")),
            down: (!text.ends_with('!')).then(|| script("down", format!("{version}.down.sql"))),
        }
    });
    Ok((Arc::new(Catalog::new(migrations.collect(), Vec::new())), None))
}

fn up_text(version: &str) -> String {
    format!("-- up of {version}\n")
}

fn row(version: &str) -> AppliedRow {
    AppliedRow {
        version: Version::from_row(version),
        applied_at: hours_ago(2),
        checksum: Checksums::of(up_text(version).as_bytes()).raw.hex(),
        dirty: false,
        last_attempt: None,
        kept_down: None,
        applied_by: None,
    }
}

fn dirty(version: &str, outcome: Option<AttemptOutcome>) -> AppliedRow {
    let last_attempt = outcome.map(|outcome| LastAttempt {
        id: 7,
        direction: Some(Direction::Up),
        mode: Mode::NonTransactional,
        outcome,
        statements_done: 2,
        statements_total: 3,
        checksum: String::new(),
    });
    AppliedRow { dirty: true, last_attempt, ..row(version) }
}

fn look(rows: Vec<AppliedRow>, journal: &[&str]) -> Look {
    Look {
        tracked: Tracked::new(rows),
        journal: journal.iter().map(|&version| (version.to_owned(), hours_ago(2))).collect(),
        ..Look::default()
    }
}

fn see(compared: &Compared, look: &Look) -> Observation {
    conclude("main", compared, Ok(look), &rules())
}

fn told(observation: &Observation) -> Vec<String> {
    let tell = |finding: &crate::migration::Finding| format!("{} {}", finding.kind, finding.subject);
    observation.findings.iter().map(tell).collect()
}

#[test]
fn what_each_row_and_file_comes_to() {
    let check = |files: &[&str], rows: Vec<AppliedRow>, journal: &[&str], expected: &[&str]| {
        let observation = see(&catalog(files), &look(rows, journal));
        assert_eq!(told(&observation), expected, "{files:?}");
        for finding in &observation.findings {
            assert!(finding.message.contains(&finding.subject) && !finding.message.ends_with('.'));
        }
    };
    let drifted = || AppliedRow { checksum: "65ab".to_owned(), ..row("0001_a") };
    let crlf = || AppliedRow {
        checksum: Checksums::of(up_text("0001_a").replace('\n', "\r\n").as_bytes()).raw.hex(),
        ..row("0001_a")
    };
    check(&["0001_a", "0002_b"], vec![row("0001_a")], &["0001_a"], &[]);
    check(&["0001_a"], vec![drifted()], &[], &["checksum_drift 0001_a"]);
    check(&["0001_a"], vec![crlf()], &[], &["line_endings 0001_a"]);
    check(
        &["0002_b"],
        vec![row("0001_a"), row("0002_b")],
        &["0001_a"],
        &["missing_file 0001_a", "no_down 0001_a"],
    );
    check(&[], vec![row("0001_a")], &[], &["unknown_row 0001_a", "no_down 0001_a"]);
    check(&["0001_a", "0002_b"], vec![row("0002_b")], &[], &["out_of_order 0001_a"]);
    check(&["0001_a!"], vec![row("0001_a")], &[], &["no_down 0001_a"]);
    check(&["0001_a!"], vec![], &[], &["no_down 0001_a"]);
    check(&["0001_a"], vec![dirty("0001_a", None)], &[], &["dirty 0001_a"]);
    check(&["0001_a"], vec![dirty("0001_a", Some(AttemptOutcome::RolledBack))], &[], &["dirty 0001_a"]);
    let running = || dirty("0001_a", Some(AttemptOutcome::Running));
    check(&["0001_a"], vec![running()], &[], &["attempt_interrupted 0001_a"]);
    // What was corrected since the attempt has not drifted.
    let corrected = AppliedRow { checksum: "65ab".to_owned(), ..dirty("0001_a", None) };
    check(&["0001_a"], vec![corrected], &[], &["dirty 0001_a"]);
}

#[test]
fn evidence_is_what_a_person_would_look_up() {
    let drifted = AppliedRow { checksum: "65ab".to_owned(), ..row("0001_a") };
    let observation = see(&catalog(&["0001_a"]), &look(vec![drifted], &[]));
    let finding = observation.findings.first().expect("there is one");
    let file = format!("file checksum: {}", Checksums::of(up_text("0001_a").as_bytes()).raw);
    assert_eq!(finding.message, "Migration 0001_a checksum mismatch");
    assert_eq!(finding.evidence, ["stored checksum: 65ab".to_owned(), file]);

    let left = dirty("0001_a", Some(AttemptOutcome::Running));
    let observation = see(&catalog(&["0001_a"]), &look(vec![left], &[]));
    let finding = observation.findings.first().expect("there is one");
    assert_eq!(
        finding.evidence,
        [
            "partly applied: 2 of 3 statements are done",
            "row written at 2026-05-01T10:00:00Z",
            "statements done: 2 of 3"
        ]
    );
}

#[test]
fn a_run_under_way_is_not_told_as_dirty() {
    let rows = || vec![dirty("0001_a", Some(AttemptOutcome::Running)), dirty("0002_b", None)];
    let leftovers =
        || Some(Leftovers { indexes: vec![("i".to_owned(), "t".to_owned())], ..Leftovers::default() });
    let free = see(&catalog(&["0001_a", "0002_b"]), &Look { leftovers: leftovers(), ..look(rows(), &[]) });
    assert_eq!(told(&free), ["attempt_interrupted 0001_a", "dirty 0002_b", "invalid_index i"]);
    assert_eq!(free.unknown, []);
    assert_eq!(free.counts.map(|counts| counts.dirty), Some(2));

    let held = Look { is_locked: true, leftovers: leftovers(), ..look(rows(), &[]) };
    let held = see(&catalog(&["0001_a", "0002_b"]), &held);
    assert_eq!(told(&held), Vec::<String>::new());
    assert_eq!(
        held.unknown,
        [
            FindingKind::Dirty,
            FindingKind::AttemptInterrupted,
            FindingKind::InvalidIndex,
            FindingKind::NotValidConstraint
        ]
    );
    assert_eq!(held.counts.map(|counts| counts.dirty), Some(1));
}

#[test]
fn pending_since_the_file_came_or_the_journal_last_knew() {
    let check = |limit: Duration, journal: &[&str], expected: &[&str]| {
        let rules = Rules { pending_limit: limit, ..rules() };
        // The file is an hour old; the journal knew it two hours ago.
        let observation = conclude("main", &catalog(&["0001_a"]), Ok(&look(vec![], journal)), &rules);
        assert_eq!(told(&observation), expected, "{limit:?}");
        let oldest = observation.counts.and_then(|counts| counts.oldest_pending);
        assert_eq!(oldest, Some(hours_ago(1)));
    };
    check(Duration::from_mins(61), &[], &[]);
    check(Duration::from_mins(59), &[], &["pending_too_long 0001_a"]);
    check(Duration::from_mins(59), &["0001_a"], &["pending_too_long 0001_a"]);
    check(Duration::ZERO, &[], &[]);
    let rolled_back = Look { journal: [("0001_a".to_owned(), now())].into(), ..look(vec![], &[]) };
    let rules = Rules { pending_limit: Duration::from_mins(59), ..rules() };
    let observation = conclude("main", &catalog(&["0001_a"]), Ok(&rolled_back), &rules);
    assert_eq!(told(&observation), Vec::<String>::new());
}

#[test]
fn counts() {
    let rows = vec![
        row("0001_a"),
        AppliedRow { checksum: "65ab".to_owned(), ..row("0002_b") },
        row("0003_c"),
        dirty("0004_d", None),
    ];
    let observation = see(&catalog(&["0001_a", "0002_b", "0004_d", "0005_e"]), &look(rows, &["0003_c"]));
    let expected =
        Counts { applied: 3, pending: 1, dirty: 1, drift: 1, missing: 1, oldest_pending: Some(hours_ago(1)) };
    assert_eq!(observation.counts, Some(expected));
}

#[test]
fn what_the_policy_allows_is_no_finding() {
    let policy =
        Policy { out_of_order: Tolerance::Allow, missing_file: Tolerance::Allow, ..Policy::default() };
    let seen = look(vec![row("0002_b"), row("0003_c")], &["0003_c"]);
    let observation =
        conclude("main", &catalog(&["0001_a", "0002_b"]), Ok(&seen), &Rules { policy, ..rules() });
    assert_eq!(told(&observation), ["no_down 0003_c"]);
    assert_eq!(observation.counts.map(|counts| counts.missing), Some(1));
}

#[test]
fn a_look_that_fails_says_what_it_cannot_know() {
    use FindingKind::{
        AccessUnreadable, DatabaseUnreachable, DirectoryUnreadable, ForeignTable, InventoryInvalid,
        LogUnwritable, OperationHalted, TableGone,
    };
    // What is of the daemon or of the directory is known whatever becomes of the look.
    let always = [DirectoryUnreadable, InventoryInvalid, AccessUnreadable, LogUnwritable, OperationHalted];
    let check = |compared: &Compared, seen: SeeError, expected: &[&str], known: &[FindingKind]| {
        let observation = conclude("main", compared, Err(&seen), &rules());
        assert_eq!(told(&observation), expected);
        assert_eq!(observation.counts, None);
        for kind in FindingKind::ALL {
            let is_known = !observation.unknown.contains(kind);
            assert_eq!(is_known, always.contains(kind) || known.contains(kind), "{kind}");
        }
    };

    let good = catalog(&["0001_a"]);
    let refused = || SeeError::Failed(Failure::new(Code::Unreachable, "nothing listens there"));
    check(&good, refused(), &["database_unreachable "], &[DatabaseUnreachable]);
    check(
        &good,
        SeeError::Unfit(ForeignTable, Failure::new(Code::ForeignTable, "it is another tool's")),
        &["foreign_table "],
        &[ForeignTable, TableGone, DatabaseUnreachable],
    );
    check(&good, SeeError::Passing, &[], &[]);
    let bad = Err(Failure::new(Code::DirectoryUnreadable, "it does not exist"));
    check(&bad, refused(), &["directory_unreadable ", "database_unreachable "], &[DatabaseUnreachable]);
}

#[test]
fn without_a_catalog_the_rows_alone_still_tell() {
    let bad = Err(Failure::new(Code::DirectoryUnreadable, "it does not exist"));
    let observation = see(&bad, &look(vec![row("0001_a"), dirty("0002_b", None)], &[]));
    assert_eq!(told(&observation), ["directory_unreadable ", "dirty 0002_b"]);
    assert_eq!(observation.counts, None);
    assert!(observation.unknown.contains(&FindingKind::ChecksumDrift));
    assert!(!observation.unknown.contains(&FindingKind::Dirty));
}

#[test]
fn what_is_pending_is_told_in_stretches() {
    let check = |versions: &[&str], pending: &[u32], expected: &[(&str, &str)]| {
        let Ok((catalog, _)) = catalog(versions) else { return };
        let glance = Glance { catalog: catalog.clone(), pending: pending.into() };
        let stretches = glance.stretches();
        let told = stretches.iter().map(|(first, last)| (first.as_str(), last.as_str()));
        assert_eq!(told.collect::<Vec<_>>(), expected);
        assert_eq!(*Glance::of_stretches(&catalog, &stretches).pending, *pending);
    };
    let four = ["0001_a", "0002_b", "0003_c", "0004_d"];
    check(&four, &[], &[]);
    check(&four, &[0, 1, 2, 3], &[("0001_a", "0004_d")]);
    check(&four, &[1, 3], &[("0002_b", "0002_b"), ("0004_d", "0004_d")]);
    // A daemon whose directory is older says nothing of what it does not have.
    let Ok((older, _)) = catalog(&four[..3]) else { return };
    let stretches = [("0002_b", "0002_b"), ("0004_d", "0004_d")];
    let stretches = stretches.map(|(first, last)| (first.to_owned(), last.to_owned()));
    assert_eq!(*Glance::of_stretches(&older, &stretches).pending, [1]);
}
