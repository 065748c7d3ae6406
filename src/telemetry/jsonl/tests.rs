//! Tests of the record: each event's line to the letter, and a file that comes and goes.

use std::{collections::HashSet, fs, os::unix::fs::symlink, time::Duration};

use uuid::Uuid;

use super::*;
use crate::{
    migration::{
        AuditReport, Direction, EventKind, Finding, FindingKind, Location, Mode, Observation, OperationState,
        Plan, Step, StepAction, Version,
        event::{CatalogChange, DatabaseOutcome, DatabaseReport, StepDone},
        header::Header,
        plan::Source,
    },
    redact::redact_json,
};

const PLACE: &str = r#""database":"orders","operation":"00000000-0000-0000-0000-000000000007""#;

fn untouched(_: &mut Value) {}

fn event(kind: EventKind) -> Event {
    let time: Timestamp = "2025-10-30T10:15:30.1239Z".parse().expect("a time stamp");
    Event { operation: Uuid::from_u128(7), trace: None, time, database: "orders".into(), kind }
}

fn version() -> Version {
    Version::from_row("0010_add_products")
}

fn step(action: StepAction, source: Option<Source>, reason: &str) -> Step {
    let (version, mode, header) = (version(), Mode::Transactional, Header::default());
    Step {
        version,
        action,
        mode,
        source,
        reason: reason.into(),
        header,
        size: 3,
        row_checksum: String::new(),
    }
}

fn finished(action: StepAction, source: Option<Source>, reason: &str) -> EventKind {
    let step = step(action, source, reason);
    EventKind::StepFinished(StepDone { step, checksum: "a1b2".into(), duration_ms: 12 })
}

fn failed(failure: Failure) -> EventKind {
    let (direction, failure) = (Direction::Up, Box::new(failure));
    EventKind::StepFailed { version: version(), direction, failure, duration_ms: 12 }
}

fn report(result: Result<DatabaseOutcome, Failure>) -> EventKind {
    let (plan, result) = (Some(Plan::default()), result.map_err(Box::new));
    let report = DatabaseReport {
        database: "orders".into(),
        plan,
        done: vec![],
        done_before: vec![],
        result,
        duration_ms: 34,
    };
    EventKind::DatabaseFinished(Box::new(report))
}

/// The event's lines, after what each begins with.
fn check(kind: EventKind, expected: &[String]) {
    let lines = lines(&event(kind), &mut HashSet::new(), &mut Observed::default());
    let lines: Vec<_> =
        lines.into_iter().map(|line| String::from_utf8_lossy(&line.encode(untouched)).into_owned()).collect();
    let expected: Vec<_> = expected
        .iter()
        .map(|rest| format!("{{\"timestamp\":\"2025-10-30T10:15:30.123Z\",{rest}}}\n"))
        .collect();
    assert_eq!(lines, expected);
    for line in lines {
        serde_json::from_str::<Value>(&line).expect("a line is JSON");
    }
}

#[test]
fn the_runbooks_lines() {
    let applied = |rest: &str| {
        format!(
            r#""level":"info","message":"Migration applied successfully","version":"0010_add_products","type":"up","checksum":"a1b2",{PLACE},"duration_ms":12{rest}"#
        )
    };
    check(finished(StepAction::Apply, Some(Source::File), ""), &[applied("")]);
    check(finished(StepAction::Resume { done: 2 }, Some(Source::File), ""), &[applied(r#","how":"resume""#)]);
    let back = |rest: &str| {
        format!(
            r#""level":"info","message":"Migration rolled back successfully","version":"0010_add_products","type":"down","checksum":"a1b2",{PLACE},"duration_ms":12{rest}"#
        )
    };
    check(finished(StepAction::Rollback, Some(Source::File), ""), &[back("")]);
    let why = r#","reason":"the file is gone","down_from":"journal""#;
    check(finished(StepAction::Rollback, Some(Source::Journal), "the file is gone"), &[back(why)]);
    let dirty = format!(
        r#""level":"warn","message":"Found migrations in dirty state","versions":["0010_add_products"],{PLACE}"#
    );
    check(EventKind::FoundDirty { versions: vec![version()] }, &[dirty]);

    let mut failure = Failure::new(Code::MigrationFailed, "0010_add_products.up.sql failed")
        .version("0010_add_products")
        .at(Location {
            file: "0010_add_products.up.sql".into(),
            line: 3,
            column: 9,
            excerpt: "select 'secret'".into(),
        });
    failure.sqlstate = Some("42601".into());
    failure.server_message = Some("syntax error at or near \"slect\"".into());
    let line = |message: &str, code: &str| {
        format!(
            r#""level":"error","message":"{message}","version":"0010_add_products","type":"up",{PLACE},"duration_ms":12,"code":"{code}","sqlstate":"42601","error":"syntax error at or near \"slect\"","reason":"0010_add_products.up.sql failed","file":"0010_add_products.up.sql","line":3,"column":9"#
        )
    };
    check(failed(failure.clone()), &[line("Migration failed and was rolled back", "NX0030")]);
    failure.code = Code::PartlyApplied;
    check(failed(failure.clone()), &[line("Migration failed", "NX0031")]);
    failure.code = Code::TransactionControl;
    check(failed(failure), &[line("Migration refused", "NX0008")]);
}

#[test]
fn the_runbooks_refusals() {
    let error = |message: &str, version: &str, step: &str, rest: &str| {
        format!(r#""level":"error","message":"{message}","version":"{version}",{step}{PLACE},{rest}"#)
    };
    let mismatches = Failure::new(Code::ChecksumMismatch, "2 checksums differ")
        .details(vec!["0010_add_products: a1 in the table, b2 on disk".into(), "0011_b a1 b2".into()]);
    let lines = [
        error(
            "Migration 0010_add_products checksum mismatch",
            "0010_add_products",
            "",
            r#""code":"NX0020","error":"0010_add_products: a1 in the table, b2 on disk""#,
        ),
        error(
            "Migration 0011_b checksum mismatch",
            "0011_b",
            "",
            r#""code":"NX0020","error":"0011_b a1 b2""#,
        ),
    ];
    check(report(Err(mismatches)), &lines);

    let empty = Failure::new(Code::EmptyMigration, "Migration 0010_add_products is empty");
    let line =
        |step| error("Migration 0010_add_products is empty", "0010_add_products", step, r#""code":"NX0003""#);
    check(report(Err(empty.clone())), &[line("")]);
    check(failed(empty), &[line(r#""type":"up","#)]);

    let message = "No down migration found for dirty migration";
    let no_down = Failure::new(Code::NoDownForDirty, message)
        .version("0010_add_products")
        .details(vec!["0010_add_products: marked by hand".into()]);
    let why = r#""code":"NX0024","error":"0010_add_products: marked by hand""#;
    check(report(Err(no_down)), &[error(message, "0010_add_products", "", why)]);

    let several = Failure::new(Code::EmptyMigration, "Migration 0001_a is empty").details(vec![
        "0001_a.up.sql:1:1: Migration 0001_a is empty [NX0003]".into(),
        "0002_b.up.sql holds a NUL byte [NX0005]".into(),
    ]);
    let all = format!(
        r#""level":"error","message":"Database failed",{PLACE},"duration_ms":34,"code":"NX0003","error":"Migration 0001_a is empty","details":["0001_a.up.sql:1:1: Migration 0001_a is empty [NX0003]","0002_b.up.sql holds a NUL byte [NX0005]"]"#
    );
    let line = error("Migration 0001_a is empty", "0001_a", "", r#""code":"NX0003""#);
    check(report(Err(several)), &[line, all]);
}

fn ended(state: OperationState, why: &str, not_begun: &[&str]) -> EventKind {
    let not_begun = not_begun.iter().map(|&name| name.to_owned()).collect();
    EventKind::OperationFinished { state, why: why.to_owned(), not_begun, attempt: 1 }
}

#[test]
fn the_other_lines() {
    let started = EventKind::OperationStarted {
        verb: "apply",
        databases: vec!["orders".into()],
        requested_by: "ana".into(),
        reason: String::new(),
        waves: 1,
        attempt: 1,
    };
    check(
        started,
        &[format!(
            r#""level":"info","message":"Operation started","verb":"apply","databases":["orders"],"requested_by":"ana",{PLACE}"#
        )],
    );
    let finish = |level: &str, ok, rest: &str| {
        format!(r#""level":"{level}","message":"Operation finished","succeeded":{ok},"state":{rest},{PLACE}"#)
    };
    check(ended(OperationState::Succeeded, "", &[]), &[finish("info", true, r#""succeeded""#)]);
    let why = r#""halted","why":"1 of 1 databases failed in canary","not_begun":2"#;
    let halted = ended(OperationState::Halted, "1 of 1 databases failed in canary", &["b", "c"]);
    check(halted, &[finish("error", false, why)]);
}

#[test]
fn the_lines_between() {
    let waiting =
        format!(r#""level":"info","message":"Waiting for the migration lock","holder":"pid 7",{PLACE}"#);
    check(EventKind::LockWaiting { holder: "pid 7".into() }, &[waiting]);
    let retry = EventKind::StepRetrying {
        version: version(),
        attempt: 1,
        delay: Duration::from_millis(250),
        blockers: vec!["pid 7".into()],
        sqlstate: "55P03".into(),
    };
    check(
        retry,
        &[format!(
            r#""level":"warn","message":"Migration will be retried","version":"0010_add_products",{PLACE},"attempt":1,"delay_ms":250,"sqlstate":"55P03","blockers":["pid 7"]"#
        )],
    );
    let notice =
        |version: Option<Version>| EventKind::Notice { version, message: "line endings only".into() };
    check(
        notice(None),
        &[format!(r#""level":"warn","message":"Notice","notice":"line endings only",{PLACE}"#)],
    );
    check(
        notice(Some(version())),
        &[format!(
            r#""level":"info","message":"Notice","version":"0010_add_products","notice":"line endings only",{PLACE}"#
        )],
    );
    for (action, how, direction) in [
        (StepAction::ForgetAttempt, "forget attempt", ""),
        (StepAction::ClearMark, "clear mark", ""),
        (StepAction::Undo, "undo", r#""type":"down","#),
    ] {
        check(
            finished(action, None, ""),
            &[format!(
                r#""level":"info","message":"Recovered dirty migration","version":"0010_add_products",{direction}"checksum":"a1b2",{PLACE},"duration_ms":12,"how":"{how}""#
            )],
        );
    }
    for (outcome, word) in [
        (DatabaseOutcome::Succeeded, "succeeded"),
        (DatabaseOutcome::UpToDate, "up to date"),
        (DatabaseOutcome::Planned, "planned"),
    ] {
        check(
            report(Ok(outcome)),
            &[format!(
                r#""level":"info","message":"Database finished","outcome":"{word}","steps":0,{PLACE},"duration_ms":34"#
            )],
        );
    }
    let unreachable =
        Failure::new(Code::Unreachable, "the database cannot be reached").details(vec!["refused".into()]);
    check(
        report(Err(unreachable)),
        &[format!(
            r#""level":"error","message":"Database failed",{PLACE},"duration_ms":34,"code":"NX0041","error":"the database cannot be reached","details":["refused"]"#
        )],
    );
    let change = |added: &[Version]| {
        EventKind::CatalogChanged(CatalogChange {
            directory: "/m".into(),
            digest: "d1".into(),
            added: added.to_vec(),
            edited: vec![],
            removed: vec![],
        })
    };
    let changed = |message: &str, added: &str| {
        format!(
            r#""level":"info","message":"{message}","directory":"/m","added":[{added}],"edited":[],"removed":[],"digest":"d1""#
        )
    };
    check(change(&[version()]), &[changed("Migrations changed", r#""0010_add_products""#)]);
    check(change(&[]), &[changed("Migration directory can be read again", "")]);
    let failure = Box::new(Failure::new(Code::DirectoryUnreadable, "/m: it does not exist"));
    let line = r#""level":"error","message":"Migration directory cannot be read","directory":"/m","code":"NX0014","error":"/m: it does not exist""#;
    check(EventKind::CatalogFailed { directory: "/m".into(), failure }, &[line.to_owned()]);
    let quiet = step(StepAction::Apply, Some(Source::File), "");
    check(EventKind::DatabaseStarted { steps: vec![quiet.clone()] }, &[]);
    check(EventKind::StepStarted { step: quiet, number: 1, total: 2 }, &[]);
    check(EventKind::StepProgress { version: version(), done: 1, total: 2 }, &[]);
}

#[test]
fn a_failure_is_told_once() {
    let mut reported = HashSet::new();
    let failure = Failure::new(Code::MigrationFailed, "no");
    let count = |kind, reported: &mut _| lines(&event(kind), reported, &mut Observed::default()).len();
    assert_eq!(count(failed(failure.clone()), &mut reported), 1);
    assert_eq!(count(report(Err(failure.clone())), &mut reported), 0);
    assert_eq!(count(report(Err(failure.clone())), &mut reported), 1, "of another run");
    count(failed(failure), &mut reported);
    count(ended(OperationState::Failed, "", &[]), &mut reported);
    assert_eq!(reported, HashSet::new());
}

fn messages(path: &Path) -> Vec<String> {
    let text = fs::read_to_string(path).expect("the log can be read");
    let message = |line: &str| {
        let line: Value = serde_json::from_str(line).expect("a line is JSON");
        line["message"].as_str().unwrap_or_default().to_owned()
    };
    text.lines().map(message).collect()
}

fn notice(message: &str) -> Event {
    event(EventKind::Notice { version: None, message: message.into() })
}

#[test]
fn only_the_owner_reads_it_and_secrets_are_hidden() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("logs/deeper/migrations.jsonl");
    let log = JsonlLog::open(&path, redact_json).expect("it is created with its directory");
    log.write(&notice("no answer from postgres://u:hunter2@h")).expect("it is written");
    assert_eq!(fs::metadata(&path).expect("it exists").permissions().mode() & 0o777, 0o600);
    let text = fs::read_to_string(&path).expect("it can be read");
    assert!(text.contains("postgres://u:") && !text.contains("hunter2"), "{text}");
    drop(log);
    JsonlLog::open(&path, redact_json).expect("it is opened again");
    assert_eq!(messages(&path), ["Log opened", "Notice", "Log opened"]);
}

#[test]
fn it_follows_a_rotation() {
    let directory = tempfile::tempdir().expect("a directory");
    let (path, old) = (directory.path().join("log"), directory.path().join("log.1"));
    let log = JsonlLog::open(&path, untouched).expect("it is created");
    fs::rename(&path, &old).expect("it is moved away");
    log.write(&notice("still in the old one")).expect("it is written");
    log.reopen().expect("it is opened anew");
    log.write(&notice("in the new one")).expect("it is written");
    assert_eq!(messages(&old), ["Log opened", "Notice"]);
    assert_eq!(messages(&path), ["Log reopened", "Notice"]);

    fs::remove_file(&path).expect("it is deleted");
    log.is_writable().expect("it is created again");
    log.write(&notice("in the third one")).expect("it is written");
    assert_eq!(messages(&path), ["Notice"]);
}

#[test]
fn what_cannot_be_written_is_told_and_kept() {
    let directory = tempfile::tempdir().expect("a directory");
    let (path, aside) = (directory.path().join("log"), directory.path().join("aside"));
    let log = JsonlLog::open(&path, untouched).expect("it is created");
    log.is_writable().expect("it is writable");
    fs::rename(&path, &aside).expect("it is moved away");
    symlink("/dev/full", &path).expect("a full disk takes its place");
    log.reopen().expect_err("the disk is full");
    log.write(&notice("kept")).expect_err("the disk is full");
    let failure = log.is_writable().expect_err("the disk is full");
    assert_eq!(failure.code, Code::LogUnwritable);
    let expected = "Failed to write to migration log file: ENOSPC: No space left on device";
    assert!(failure.message.starts_with(expected), "{failure}");

    fs::remove_file(&path).expect("the disk is emptied");
    fs::rename(&aside, &path).expect("the log is back");
    log.is_writable().expect("it is writable again");
    assert_eq!(messages(&path), ["Log opened", "Log reopened", "Notice"]);

    fs::remove_file(&path).expect("it is deleted");
    fs::create_dir(&path).expect("a directory takes its place");
    let failure = log.is_writable().expect_err("it is a directory");
    let expected =
        format!("Failed to write to migration log file: EISDIR: Is a directory ({})", path.display());
    assert_eq!(failure.message, expected);
}

#[test]
fn a_start_without_a_log_fails() {
    let error = JsonlLog::open("/dev/full", untouched).expect_err("the disk is full");
    let expected = "Failed to write to migration log file: ENOSPC: No space left on device (/dev/full)";
    assert_eq!(error.to_string(), expected);
    let error = JsonlLog::open("/proc/nexus/log", untouched).expect_err("there is no such directory");
    assert!(error.to_string().starts_with("Failed to write to migration log file: ENOENT: "), "{error}");
}

#[test]
fn an_audit_belongs_to_no_operation() {
    let at = |text: &str| text.parse().expect("a time stamp");
    let observation = |findings: Vec<Finding>| Observation {
        database: "orders".into(),
        time: at("2025-10-30T10:15:30Z"),
        counts: None,
        newest: None,
        findings,
        unknown: Vec::new(),
    };
    let report = |findings| AuditReport {
        id: Uuid::from_u128(9),
        name: "nightly".into(),
        started: at("2025-10-30T10:15:30.1Z"),
        ended: at("2025-10-30T10:15:30.25Z"),
        databases: vec![observation(findings)],
    };
    let kinds =
        [FindingKind::NoDown, FindingKind::Dirty, FindingKind::MissingFile, FindingKind::ChecksumDrift];
    let findings: Vec<_> = kinds.into_iter().map(|kind| Finding::new(kind, "0010_a", "is so")).collect();
    for (findings, level, counts) in [
        (Vec::new(), "info", r#""critical":0,"warning":0,"info":0"#),
        (findings[..1].to_vec(), "info", r#""critical":0,"warning":0,"info":1"#),
        (findings, "warn", r#""critical":2,"warning":1,"info":1"#),
    ] {
        let rest = r#""message":"Audit finished","audit":"00000000-0000-0000-0000-000000000009","name":"nightly","databases":1"#;
        let line = format!(r#""level":"{level}",{rest},{counts},"duration_ms":150"#);
        check(EventKind::AuditFinished(Box::new(report(findings))), &[line]);
    }
}

#[test]
fn what_does_not_fit_into_memory_is_counted() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("log");
    let log = JsonlLog::open(&path, untouched).expect("it is created");
    fs::remove_file(&path).expect("it is deleted");
    symlink("/dev/full", &path).expect("a full disk takes its place");
    log.is_writable().expect("nothing was written yet, and a device cannot tell");
    for _ in 0..MOST_KEPT + 5 {
        log.write(&notice("kept")).expect_err("the disk is full");
    }
    fs::remove_file(&path).expect("the disk is emptied");
    log.write(&notice("kept")).expect("it is written");
    let text = fs::read_to_string(&path).expect("it can be read");
    assert!(
        text.lines()
            .next()
            .is_some_and(|line| line.ends_with("\"message\":\"Log lines were lost\",\"count\":6}"))
    );
    assert_eq!(text.lines().count(), MOST_KEPT + 1);
}

#[test]
fn lines_of_several_writers_do_not_mix() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("log");
    let logs = [(); 4].map(|()| JsonlLog::open(&path, untouched).expect("it is opened"));
    std::thread::scope(|scope| {
        for log in &logs {
            scope.spawn(|| {
                for _ in 0..200 {
                    log.write(&notice(&"x".repeat(500))).expect("it is written");
                }
            });
        }
    });
    assert_eq!(messages(&path).len(), 4 + 800);
}

#[test]
fn alerts() {
    use crate::migration::{Acknowledgement, Alert, AlertState, Finding, FindingKind};
    let time = |text: &str| text.parse::<Timestamp>().expect("a time stamp");
    let (started, fired) = (time("2025-10-30T10:15:00Z"), Some(time("2025-10-30T10:15:10Z")));
    let alert = |state, fired, kind| {
        EventKind::AlertChanged(Box::new(Alert {
            id: Uuid::from_u128(9),
            database: "orders".into(),
            finding: Finding::new(kind, "0010_add_products", "The file is not what was applied"),
            state,
            started,
            fired,
            resolved: None,
            acknowledged: Some(Acknowledgement { by: "eve".into(), reason: "known".into(), until: fired }),
            flaps: 1,
        }))
    };
    let drift = FindingKind::ChecksumDrift;
    let of = |kind: &str, severity: &str| {
        format!(
            r#""id":"00000000-0000-0000-0000-000000000009","kind":"{kind}","severity":"{severity}","database":"orders","version":"0010_add_products","since":"2025-10-30T10:15:00.000Z","flaps":1,"finding":"The file is not what was applied""#
        )
    };
    let line = |start: &str, of: &str, end: &str| vec![format!("{start},{of}{end}")];
    let critical = of("checksum_drift", "critical");
    let firing = r#""level":"error","message":"Alert is firing""#;
    check(alert(AlertState::Firing, fired, drift), &line(firing, &critical, ""));
    let warning = of("missing_file", "warning");
    let firing = r#""level":"warn","message":"Alert is firing""#;
    check(alert(AlertState::Firing, fired, FindingKind::MissingFile), &line(firing, &warning, ""));
    let note = r#","by":"eve","reason":"known","until":"2025-10-30T10:15:10.000Z""#;
    let noted = r#""level":"info","message":"Alert acknowledged""#;
    check(alert(AlertState::Acknowledged, fired, drift), &line(noted, &critical, note));
    let over = r#""level":"info","message":"Alert resolved""#;
    check(alert(AlertState::Resolved, fired, drift), &line(over, &critical, ""));
    check(alert(AlertState::Pending, None, drift), &[]);
    check(alert(AlertState::Resolved, None, drift), &[]);
}
