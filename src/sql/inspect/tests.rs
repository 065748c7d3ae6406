//! The inspection by tables: what is refused first, then what is accepted.

use super::*;
use crate::migration::Mode::{NonTransactional, Transactional};

fn inspected(bytes: &[u8], mode: Mode) -> Result<Inspection, Vec<Failure>> {
    let version = Version::from_row("0010_x");
    inspect(bytes, "0010_x.up.sql", Direction::Up, &version, mode)
}

/// What is refused in `text`: line, column and message of each.
fn refused(text: impl AsRef<[u8]>, mode: Mode, expected: &[(Code, u32, u32, &str)]) {
    let failures = inspected(text.as_ref(), mode).err().unwrap_or_default();
    let found: Vec<_> = failures
        .iter()
        .map(|failure| {
            let place = failure.location.as_deref().cloned().unwrap_or_default();
            (failure.code, place.line, place.column, failure.message.as_str())
        })
        .collect();
    assert_eq!(found, expected, "{:?}", String::from_utf8_lossy(text.as_ref()));
}

fn accepted(text: &str, mode: Mode, statements: u32, wrapped: bool) {
    let expected = Inspection { statements, wrapped, checksums: Checksums::of(text.as_bytes()) };
    assert_eq!(inspected(text.as_bytes(), mode), Ok(expected), "{text:?}");
}

#[test]
fn transaction_control() {
    for (statement, name) in [
        ("BEGIN", "BEGIN"),
        ("begin isolation level serializable", "BEGIN"),
        ("START TRANSACTION", "START TRANSACTION"),
        ("COMMIT", "COMMIT"),
        ("commit and chain", "COMMIT"),
        ("END", "END"),
        ("ROLLBACK", "ROLLBACK"),
        ("rollback work", "ROLLBACK"),
        ("ABORT", "ABORT"),
        ("PREPARE TRANSACTION 'x'", "PREPARE TRANSACTION"),
        ("COMMIT PREPARED 'x'", "COMMIT PREPARED"),
        ("ROLLBACK PREPARED 'x'", "ROLLBACK PREPARED"),
        ("COMMIT nonsense", "COMMIT"),
    ] {
        let message = format!("{name} may not stand in a migration");
        for mode in [Transactional, NonTransactional] {
            let expected = [(Code::TransactionControl, 2, 3, message.as_str())];
            refused(format!("SELECT 1;\n  {statement};\nSELECT 2"), mode, &expected);
        }
    }
    for savepoint in ["SAVEPOINT a", "ROLLBACK TO a", "ROLLBACK WORK TO SAVEPOINT a", "RELEASE a"] {
        accepted(savepoint, Transactional, 1, false);
        let message = "a savepoint may not stand in a migration";
        refused(savepoint, NonTransactional, &[(Code::TransactionControl, 1, 1, message)]);
    }
    for harmless in [
        "SET TRANSACTION READ ONLY",
        "PREPARE p AS SELECT 1",
        "CREATE TABLE begin (commit int)",
        "DO $$ BEGIN COMMIT; END $$",
        "SELECT 'COMMIT;' -- COMMIT;\n/* COMMIT; */",
        "CREATE FUNCTION f() RETURNS int BEGIN ATOMIC SELECT 1; END",
    ] {
        accepted(harmless, Transactional, 1, false);
    }
}

#[test]
fn wrappers() {
    accepted("BEGIN; CREATE TABLE t (); COMMIT;", Transactional, 1, true);
    accepted(
        "-- x\nSTART TRANSACTION;\nSAVEPOINT a; SELECT 1;\nEND TRANSACTION\n-- y",
        Transactional,
        2,
        true,
    );
    let control = |line, column, name| (Code::TransactionControl, line, column, name);
    let (begin, commit) = ("BEGIN may not stand in a migration", "COMMIT may not stand in a migration");
    refused("BEGIN;\nCOMMIT;", Transactional, &[(Code::EmptyMigration, 1, 1, "Migration 0010_x is empty")]);
    refused("BEGIN;\na;\nCOMMIT", NonTransactional, &[control(1, 1, begin), control(3, 1, commit)]);
    refused("BEGIN;\na", Transactional, &[control(1, 1, begin)]);
    refused("a;\nCOMMIT", Transactional, &[control(2, 1, commit)]);
    refused("a;\nBEGIN;\nb;\nCOMMIT", Transactional, &[control(2, 1, begin), control(4, 1, commit)]);
    refused("BEGIN;\nCOMMIT;\na", Transactional, &[control(1, 1, begin), control(2, 1, commit)]);
    refused(
        "BEGIN;\na;\nCOMMIT;\nBEGIN;\nb;\nCOMMIT",
        Transactional,
        &[control(1, 1, begin), control(3, 1, commit), control(4, 1, begin), control(6, 1, commit)],
    );
    refused("BEGIN READ ONLY;\na;\nCOMMIT", Transactional, &[control(1, 1, begin), control(3, 1, commit)]);
    refused("BEGIN;\na;\nCOMMIT AND CHAIN", Transactional, &[control(1, 1, begin), control(3, 1, commit)]);
    let rollback = "ROLLBACK may not stand in a migration";
    refused("BEGIN;\nROLLBACK;\nCOMMIT", Transactional, &[control(2, 1, rollback)]);
    let large = format!("BEGIN;\n{}COMMIT;\n", "insert into t values (1);\n".repeat(100_000));
    accepted(&large, Transactional, 100_000, true);
}

#[test]
fn outside_of_transactions() {
    for (statement, name) in [
        ("CREATE INDEX CONCURRENTLY i ON t (a)", "CREATE INDEX CONCURRENTLY"),
        ("create unique index /* x */ concurrently on t (a)", "CREATE INDEX CONCURRENTLY"),
        ("DROP INDEX CONCURRENTLY i", "DROP INDEX CONCURRENTLY"),
        ("REINDEX INDEX CONCURRENTLY i", "REINDEX CONCURRENTLY"),
        ("REINDEX (CONCURRENTLY) TABLE t", "REINDEX CONCURRENTLY"),
        ("REINDEX DATABASE d", "REINDEX DATABASE"),
        ("REINDEX SYSTEM d", "REINDEX SYSTEM"),
        ("REINDEX SCHEMA s", "REINDEX SCHEMA"),
        ("VACUUM", "VACUUM"),
        ("VACUUM (FULL) t", "VACUUM"),
        ("CREATE DATABASE d", "CREATE DATABASE"),
        ("DROP DATABASE IF EXISTS d WITH (FORCE)", "DROP DATABASE"),
        ("ALTER DATABASE d SET TABLESPACE t", "ALTER DATABASE SET TABLESPACE"),
        ("CREATE TABLESPACE t LOCATION '/x'", "CREATE TABLESPACE"),
        ("DROP TABLESPACE t", "DROP TABLESPACE"),
        ("ALTER SYSTEM SET work_mem = '1MB'", "ALTER SYSTEM"),
        ("CREATE SUBSCRIPTION s CONNECTION '' PUBLICATION p", "CREATE SUBSCRIPTION"),
        ("CREATE SUBSCRIPTION s CONNECTION '' PUBLICATION p WITH (copy_data = off)", "CREATE SUBSCRIPTION"),
        ("DROP SUBSCRIPTION s", "DROP SUBSCRIPTION"),
        ("ALTER SUBSCRIPTION s REFRESH PUBLICATION", "ALTER SUBSCRIPTION REFRESH PUBLICATION"),
        ("CLUSTER", "CLUSTER without a table"),
        ("CLUSTER VERBOSE", "CLUSTER without a table"),
        ("ALTER TABLE t DETACH PARTITION p CONCURRENTLY", "DETACH PARTITION CONCURRENTLY"),
    ] {
        let message = format!("{name} cannot run inside a transaction");
        refused(statement, Transactional, &[(Code::NotInTransaction, 1, 1, &message)]);
        accepted(statement, NonTransactional, 1, false);
    }
    for harmless in [
        "CREATE INDEX i ON t (concurrently)",
        "CREATE INDEX i ON t ((a = 'CONCURRENTLY'))",
        "DROP INDEX i",
        "REINDEX TABLE t",
        "REINDEX (CONCURRENTLY false) TABLE t",
        "REFRESH MATERIALIZED VIEW CONCURRENTLY v",
        "ANALYZE",
        "ALTER DATABASE d SET work_mem = '1MB'",
        "CREATE SUBSCRIPTION s CONNECTION '' PUBLICATION p WITH (connect = false)",
        "CREATE SUBSCRIPTION s CONNECTION '' PUBLICATION p WITH (enabled, create_slot='off')",
        "CLUSTER t USING i",
        "CLUSTER i ON t",
        "ALTER TABLE t DETACH PARTITION p",
        "DISCARD PLANS",
        "create nonsense",
    ] {
        accepted(harmless, Transactional, 1, false);
    }
    let (code, message) = (Code::NotInTransaction, "DISCARD ALL cannot run inside a transaction");
    refused("DISCARD ALL", Transactional, &[(code, 1, 1, message)]);
    let message = "DISCARD ALL would release the lock that guards the migration";
    refused("DISCARD ALL", NonTransactional, &[(Code::TransactionControl, 1, 1, message)]);
}

#[test]
fn copies() {
    let from = "COPY FROM STDIN needs a client that sends or takes the rows";
    let to = "COPY TO STDOUT needs a client that sends or takes the rows";
    for (statement, message) in [
        ("COPY t FROM STDIN", from),
        ("copy s.t (a, b) from stdin with (format csv)", from),
        ("COPY t FROM STDOUT", from),
        ("COPY t TO STDOUT", to),
        ("COPY t TO STDIN", to),
        ("COPY (SELECT 1) TO STDOUT CSV", to),
    ] {
        for mode in [Transactional, NonTransactional] {
            refused(statement, mode, &[(Code::CopyStream, 1, 1, message)]);
        }
    }
    for file in
        ["COPY t FROM '/stdin'", "COPY t FROM PROGRAM 'x'", "COPY stdin TO '/x'", "COPY t TO 'stdout'"]
    {
        accepted(file, Transactional, 1, false);
    }
}

/// The rows of "files that escape", as far as a file can be refused before it is executed;
/// the others are for the server-side guard.
#[test]
fn files_that_escape() {
    let control = "ROLLBACK may not stand in a migration";
    refused(
        "INSERT INTO t VALUES (1); ROLLBACK;",
        Transactional,
        &[(Code::TransactionControl, 1, 27, control)],
    );
    let control = "COMMIT may not stand in a migration";
    refused("CREATE TABLE a ();\nCOMMIT;\nfail", Transactional, &[(Code::TransactionControl, 2, 1, control)]);
    accepted("SET search_path = other", Transactional, 1, false);
    accepted("SELECT pg_advisory_unlock_all()", Transactional, 1, false);
    accepted("SET ROLE other", Transactional, 1, false);
    let copy = "COPY FROM STDIN needs a client that sends or takes the rows";
    refused("COPY t FROM STDIN;", Transactional, &[(Code::CopyStream, 1, 1, copy)]);
    let set = "`\\set` is a psql meta-command, not SQL";
    refused("SELECT 1;\n\\set it's x\nSELECT 2;", Transactional, &[(Code::MetaCommand, 2, 1, set)]);
    accepted("SELECT\u{a0}1", Transactional, 1, false);
    refused("a;\nb\0", Transactional, &[(Code::NulByte, 2, 2, "the file holds a NUL byte")]);
    for empty in ["", " \r\n", "-- only\n/* ; */ ;;", "\u{feff}"] {
        refused(empty, Transactional, &[(Code::EmptyMigration, 1, 1, "Migration 0010_x is empty")]);
    }
    refused(b"SELECT '\xe9'", Transactional, &[(Code::InvalidUtf8, 1, 9, "the file is not valid UTF-8")]);
}

#[test]
fn an_empty_down_file_is_named() {
    let version = Version::from_row("0010_x");
    let failures = inspect(&b"--"[..], "0010_x.down.sql", Direction::Down, &version, Transactional);
    let failure = failures.expect_err("it is empty").remove(0);
    assert_eq!(failure.message, "Migration 0010_x is empty: 0010_x.down.sql");
    assert_eq!(failure.version.as_deref(), Some("0010_x"));
}

#[test]
fn all_refusals_at_once() {
    let text = "\\c x\nCOMMIT;\nVACUUM; COPY t FROM stdin;\n1\tit\\.\n\\.\nSELECT '\\d'; \\d\n\0";
    let failures = inspected(text.as_bytes(), Transactional).expect_err("nothing of it may stand");
    let found: Vec<_> = failures
        .iter()
        .map(|failure| {
            let place = failure.location.as_deref().cloned().unwrap_or_default();
            (failure.code, place.to_string(), place.excerpt)
        })
        .collect();
    let at = |code, line, column, excerpt: &str| {
        (code, format!("0010_x.up.sql:{line}:{column}"), excerpt.to_owned())
    };
    let vacuum = "VACUUM; COPY t FROM stdin;";
    let expected = [
        at(Code::MetaCommand, 1, 1, "\\c x"),
        at(Code::TransactionControl, 2, 1, "COMMIT;"),
        at(Code::NotInTransaction, 3, 1, vacuum),
        at(Code::CopyStream, 3, 9, vacuum),
        at(Code::MetaCommand, 6, 14, "SELECT '\\d'; \\d"),
        at(Code::NulByte, 7, 1, "\u{fffd}"),
    ];
    assert_eq!(found, expected);
    let many = inspected("COMMIT;".repeat(100).as_bytes(), Transactional);
    assert_eq!(many.expect_err("each is refused").len(), MOST_REFUSALS);
}

#[test]
fn deep_nesting_never_aborts() {
    for depth in [1_000, 100_000] {
        let (open, close) = ("(".repeat(depth), ")".repeat(depth));
        accepted(&format!("SELECT {open}1{close}"), Transactional, 1, false);
        accepted(&format!("CREATE VIEW v AS SELECT {open}1{close}"), Transactional, 1, false);
        let (code, message) = if depth == 1_000 {
            (Code::NotInTransaction, "CREATE INDEX CONCURRENTLY cannot run inside a transaction")
        } else {
            (Code::TooDeep, "the statement is too large or too deeply nested to be checked")
        };
        let index = |expression: String| format!("CREATE INDEX CONCURRENTLY i ON t (({expression}))");
        refused(index(format!("{open}1{close}")), Transactional, &[(code, 1, 1, message)]);
        refused(index("NOT ".repeat(depth) + "true"), Transactional, &[(code, 1, 1, message)]);
    }
}
