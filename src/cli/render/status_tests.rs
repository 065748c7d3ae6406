//! Tests of the status as it is shown.

use super::*;
use crate::rpc::proto;

fn plain(text: &str) -> String {
    anstream::adapter::strip_str(text).to_string()
}

fn migration(version: &str, state: MigrationState, findings: &[FindingKind]) -> MigrationStatus {
    let applied = prost_types::Timestamp { seconds: 1_761_819_330, nanos: 0 };
    MigrationStatus {
        version: version.into(),
        state: state.into(),
        applied_at: (state != MigrationState::Pending).then_some(applied),
        checksum: "a1b2c3d4e5f60718293a4b5c6d7e8f90".into(),
        findings: findings.iter().map(|&kind| kind.into()).collect(),
        explanation: String::new(),
    }
}

fn orders() -> DatabaseStatus {
    let mut dirty = migration("0010_add_products", MigrationState::Dirty, &[FindingKind::Dirty]);
    dirty.explanation = "nothing of it was committed.".into();
    DatabaseStatus {
        database: "orders".into(),
        labels: [("env".into(), "prod".into())].into(),
        current_version: "0002_add_orders".into(),
        migrations: vec![
            migration("0001_create_users", MigrationState::Applied, &[]),
            migration("0002_add_orders", MigrationState::Applied, &[FindingKind::ChecksumDrift]),
            dirty,
            migration("0011_add_carts", MigrationState::Pending, &[]),
        ],
        applied: 2,
        pending: 1,
        dirty: 1,
        drift: 1,
        ..Default::default()
    }
}

fn unreadable(database: &str) -> DatabaseStatus {
    let failure = proto::Failure { message: "No route to host".into(), ..Default::default() };
    DatabaseStatus { database: database.into(), failure: Some(failure), ..Default::default() }
}

#[test]
fn one_database_has_the_runbooks_columns() {
    let expected = "\
version            applied_at            status     checksum_preview
───────────────────────────────────────────────────────────────────────
0011_add_carts     -                     · Pending  a1b2c3d4e5f60718...
0010_add_products  2025-10-30 10:15:30Z  ⚠️  DIRTY  a1b2c3d4e5f60718...
0002_add_orders    2025-10-30 10:15:30Z  ✗ Drift    a1b2c3d4e5f60718...
0001_create_users  2025-10-30 10:15:30Z  ✓ Clean    a1b2c3d4e5f60718...
";
    assert_eq!(plain(&one(&orders(), false, None)), expected);
    assert_eq!(plain(&one(&orders(), false, Some(80))), expected, "it fits a terminal");
    let summary = plain(&summary(&[orders()]));
    assert_eq!(summary, "orders: 2 applied, 1 pending, 1 dirty, 1 drifted; at 0002_add_orders\n");
}

#[test]
fn many_clean_migrations_are_summed_up() {
    let migrations =
        (1..=50).map(|n| migration(&format!("{n:04}_x"), MigrationState::Applied, &[])).collect();
    let status = DatabaseStatus { database: "orders".into(), migrations, applied: 50, ..Default::default() };
    let short = plain(&one(&status, false, None));
    assert!(short.ends_with("0031_x   2025-10-30 10:15:30Z  ✓ Clean  a1b2c3d4e5f60718...\n… and 30 older, all clean (--full shows them)\n"), "{short}");
    assert!(plain(&one(&status, true, None)).contains("\n0001_x "));
}

#[test]
fn several_databases_make_a_matrix() {
    let clean = DatabaseStatus {
        database: "users".into(),
        current_version: "0001_create_users".into(),
        migrations: vec![migration("0001_create_users", MigrationState::Applied, &[])],
        applied: 1,
        ..Default::default()
    };
    let databases = [orders(), unreadable("stock"), clean];
    let shown = plain(&matrix(&databases, None));
    let cells = |line: usize| {
        let line = shown.lines().nth(line).expect("a line");
        line.split("  ").map(str::trim).filter(|cell| !cell.is_empty()).map(str::to_owned).collect::<Vec<_>>()
    };
    let header =
        ["database", "labels", "version", "applied", "pending", "dirty", "drift", "missing", "state"];
    assert_eq!(cells(0), header, "{shown}");
    assert_eq!(cells(2)[..8], ["orders", "env=prod", "0002_add_orders", "2", "1", "1", "1", "0"], "{shown}");
    assert_eq!(cells(3), ["stock", "-", "-", "-", "-", "-", "-", "✗ Unreadable"], "{shown}");
    assert_eq!(cells(4).last().map(String::as_str), Some("✓ Clean"), "{shown}");
    let expected = "3 databases: 1 ⚠️  DIRTY, 1 ✗ Unreadable, 1 ✓ Clean\n";
    assert_eq!(plain(&summary(&databases)), expected);
}

#[test]
fn findings_are_listed_and_decide_the_check() {
    let mut databases = vec![orders(), unreadable("stock")];
    let found = findings(&databases);
    let kinds: Vec<_> = found.iter().map(|finding| finding.kind).collect();
    assert_eq!(kinds, ["checksum_drift", "dirty", "pending", "unreadable"]);
    assert!(found.iter().all(Finding::fails_check));
    let expected = "\
orders: 0002_add_orders checksum mismatch: the file is not what was applied
orders: 0010_add_products is dirty: nothing of it was committed
orders: 0011_add_carts is pending
";
    let view = View { full: false, pending: true, width: None };
    let shown = plain(&text(&databases, &found, view));
    assert!(shown.contains(&format!("\n\n{expected}\n2 databases: ")), "{shown}");
    assert!(!shown.contains("No route"), "it is told as an error: {shown}");
    assert!(!text(&databases, &found, View { pending: false, ..view }).contains("is pending"));
    let harmless = [FindingKind::LineEndings, FindingKind::NoDown];
    databases.truncate(1);
    databases[0].migrations = vec![migration("0001_create_users", MigrationState::Applied, &harmless)];
    assert!(!findings(&databases).iter().any(Finding::fails_check));
    databases[0].migrations = vec![
        migration("0001_a", MigrationState::Pending, &[FindingKind::OutOfOrder]),
        migration("0002_b", MigrationState::Running, &[FindingKind::Dirty]),
        migration("0003_c", MigrationState::Applied, &[FindingKind::MissingFile]),
    ];
    let kinds: Vec<_> = findings(&databases).iter().map(|finding| finding.kind).collect();
    assert_eq!(kinds, ["out_of_order", "running", "missing_file"]);
}

#[test]
fn what_cannot_be_read_or_undone_is_told_once() {
    let view = View { full: false, pending: true, width: None };
    let stock = [unreadable("stock")];
    assert_eq!(text(&stock, &findings(&stock), view), "", "the error tells it");
    let mut status = orders();
    status.migrations = vec![migration("0002_b", MigrationState::Applied, &[FindingKind::NoDown])];
    status.notices =
        vec!["0002_b.up.sql: its down file 0002_b.down.sql is missing".into(), "something else".into()];
    assert_eq!(notices(&status).collect::<Vec<_>>(), ["something else"]);
    let one = [status];
    let shown = plain(&text(&one, &findings(&one), view));
    assert!(shown.contains("✓ Clean, no down") && !shown.contains("no down migration"), "{shown}");
    let several = [one.into(), vec![unreadable("stock")]].concat();
    let shown = plain(&text(&several, &findings(&several), view));
    assert_eq!(shown.matches("no down").count(), 1, "{shown}");
}

#[test]
fn a_directory_that_cannot_be_read_is_told_beside_the_comparison() {
    let failure = proto::Failure { message: "it does not exist".into(), ..Default::default() };
    let status = DatabaseStatus {
        database: "orders".into(),
        migrations: vec![migration("0001_a", MigrationState::Applied, &[])],
        applied: 1,
        catalog_failure: Some(failure),
        ..Default::default()
    };
    let found = findings(std::slice::from_ref(&status));
    assert!(matches!(found.as_slice(), [Finding { kind: "directory_unreadable", .. }]), "{found:?}");
    assert!(found[0].fails_check());
    let view = View { full: false, pending: true, width: None };
    let shown = plain(&text(std::slice::from_ref(&status), &found, view));
    assert!(shown.contains("0001_a") && shown.contains("last good catalog"), "{shown}");
    let shown = plain(&matrix(&[status, orders()], None));
    assert!(shown.lines().nth(2).is_some_and(|row| row.trim_end().ends_with("✗ Directory")), "{shown}");
}

#[test]
fn what_is_running_is_not_dirty() {
    let mut status = orders();
    status.migrations = vec![
        migration("0001_a", MigrationState::Applied, &[]),
        migration("0002_b", MigrationState::Running, &[FindingKind::Dirty]),
    ];
    // As the daemon counts: its rows are dirty.
    (status.applied, status.pending, status.dirty, status.drift) = (1, 0, 1, 0);
    assert_eq!(summary(&[status.clone()]), "orders: 1 applied, 1 running; at 0002_add_orders\n");
    let shown = plain(&matrix(&[status, unreadable("stock")], None));
    let cells: Vec<_> = shown.lines().nth(2).expect("a row").split_whitespace().collect();
    assert_eq!(cells[3..], ["1", "0", "0", "0", "0", "▶", "Running"], "{shown}");
}

#[test]
fn a_narrow_terminal_is_not_exceeded() {
    let version = "20240101000000_add_customer_profiles";
    let mut status = orders();
    version.clone_into(&mut status.current_version);
    status.migrations = vec![
        migration(version, MigrationState::Applied, &[FindingKind::NoDown]),
        migration("20240101000001_add_customer_settings", MigrationState::Dirty, &[FindingKind::Dirty]),
    ];
    let shown = plain(&one(&status, false, Some(80)));
    assert!(crate::cli::render::table::width(&shown) <= 80, "{shown}");
    assert_eq!(shown.lines().count(), 4, "{shown}");
    assert!(shown.contains(version) && !shown.contains("checksum"), "{shown}");
    status.drift = 0;
    let shown = plain(&matrix(&[status, unreadable("stock")], Some(80)));
    assert!(crate::cli::render::table::width(&shown) <= 80, "{shown}");
    assert_eq!(shown.lines().count(), 4, "{shown}");
    assert!(shown.contains("  20240101000000_") && !shown.contains("drift"), "{shown}");
}
