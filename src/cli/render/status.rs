//! How databases stand: one as in the runbook, several as a matrix, and what is wrong with them.

use std::fmt::Write as _;

use crate::{
    cli::render::{
        fleet,
        table::{Fit, table},
        text::{GREEN, RED, YELLOW, clean, count, labels, sentence, time},
    },
    rpc::proto::{self, DatabaseStatus, FindingKind, MigrationState, MigrationStatus},
};

/// How many clean migrations are shown, newest first, unless all are asked for.
const SHOWN: usize = 20;

/// How many databases have a row each, unless all are asked for; of more, versions are counted.
const ROWS: usize = 12;

const CLEAN: &str = "✓ Clean";
const DIRTY: &str = "⚠️  DIRTY";
const UNREADABLE: &str = "✗ Unreadable";
const STALE: &str = "✗ Directory";

/// What is wrong, or waits, in one database.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// The database.
    pub database: String,
    /// The migration; empty where the finding is about the database.
    pub version: String,
    /// What, in a word that JSON knows.
    pub kind: &'static str,
    /// What, for a person.
    pub message: String,
}

impl Finding {
    /// Whether `status --check` fails for it: not for what is only worth knowing.
    pub fn fails_check(&self) -> bool {
        !matches!(self.kind, "line_endings" | "no_down")
    }
}

/// How much is shown.
#[derive(Debug, Clone, Copy)]
pub struct View {
    /// Every migration of a database, not only the newest clean ones, and every database of many.
    pub full: bool,
    /// What is pending among the findings.
    pub pending: bool,
    /// The terminal's width.
    pub width: Option<u16>,
}

/// Where operations are kept.
pub fn store(store: proto::Store) -> &'static str {
    match store {
        // An older daemon does not say.
        proto::Store::Unspecified => "",
        proto::Store::Memory => "operations are kept in memory\n",
        proto::Store::ControlDatabase => "operations are kept in the control database\n",
    }
}

/// How databases stand: one with its migrations, several as a matrix, what is wrong with them, and a
/// summary. Why a database could not be read is told apart, as an error.
pub fn text(databases: &[DatabaseStatus], findings: &[Finding], view: View) -> String {
    let (table, is_one) = match databases {
        [database] => (one(database, view.full, view.width), true),
        several if several.len() > ROWS && !view.full => (fleet::versions(several, view.width), false),
        several => (matrix(several, view.width), false),
    };
    let is_fleet = databases.len() > ROWS && !view.full;
    // The table of one database has a mark for each migration without a way back.
    let is_told = |kind| kind == "unreadable" || (is_one && kind == "no_down");
    let findings: Vec<_> = findings.iter().filter(|finding| !is_told(finding.kind)).collect();
    let list = if is_fleet {
        fleet::list(&findings, view.pending, view.width)
    } else {
        list(&findings, view.pending)
    };
    let sections = [table, list, summary(databases)];
    sections.into_iter().filter(|section| !section.is_empty()).collect::<Vec<_>>().join("\n")
}

/// The warnings about a directory that no finding tells already.
pub fn notices(status: &DatabaseStatus) -> impl Iterator<Item = &str> {
    let is_told = |notice: &str| {
        let without_down =
            status.migrations.iter().filter(|it| it.findings().any(|kind| kind == FindingKind::NoDown));
        let mut missing = without_down.map(|it| format!("{}.down.sql", it.version));
        missing.any(|file| notice.split(' ').any(|word| word == file))
    };
    status.notices.iter().map(String::as_str).filter(move |notice| !is_told(notice))
}

/// Everything that is wrong or waits, by database and version.
pub fn findings(databases: &[DatabaseStatus]) -> Vec<Finding> {
    let mut found = Vec::new();
    for status in databases {
        let mut add = |version: &str, kind, message: String| {
            let (database, version) = (status.database.clone(), version.to_owned());
            found.push(Finding { database, version, kind, message });
        };
        if status.catalog_failure.is_some() {
            let message = "the directory cannot be read; compared with its last good catalog";
            add("", "directory_unreadable", message.to_owned());
        }
        if let Some(failure) = &status.failure {
            add("", "unreadable", sentence(&failure.message));
            continue;
        }
        for migration in &status.migrations {
            let kinds: Vec<_> = migration.findings().collect();
            let version = migration.version.as_str();
            match migration.state() {
                MigrationState::Running => {
                    add(version, "running", explained("is being worked on", migration));
                }
                MigrationState::Dirty => add(version, "dirty", explained("is dirty", migration)),
                MigrationState::Pending if !kinds.contains(&FindingKind::OutOfOrder) => {
                    add(version, "pending", "is pending".to_owned());
                }
                _ => {}
            }
            for kind in kinds {
                let (kind, message) = match kind {
                    // Told by the state.
                    FindingKind::ChecksumDrift => {
                        ("checksum_drift", "checksum mismatch: the file is not what was applied")
                    }
                    FindingKind::LineEndings => {
                        ("line_endings", "differs from what was applied in line endings only")
                    }
                    FindingKind::MissingFile => ("missing_file", "is applied, and its file is gone"),
                    FindingKind::OutOfOrder => ("out_of_order", "is pending, though a later one is applied"),
                    FindingKind::NoDown => ("no_down", "has no down migration"),
                    _ => continue,
                };
                add(version, kind, message.to_owned());
            }
        }
    }
    found
}

fn explained(what: &str, migration: &MigrationStatus) -> String {
    match migration.explanation.as_str() {
        "" => what.to_owned(),
        explanation => format!("{what}: {}", sentence(explanation)),
    }
}

/// The findings as lines; those of pending migrations only where `all` are wanted, in one line.
fn list(findings: &[&Finding], all: bool) -> String {
    let mut text = String::new();
    for group in findings.chunk_by(|a, b| a.database == b.database) {
        let database = clean(&group[0].database);
        let (pending, others): (Vec<&Finding>, Vec<&Finding>) =
            group.iter().partition(|finding| finding.kind == "pending");
        for finding in others {
            let separator = if finding.version.is_empty() { "" } else { " " };
            let version = clean(&finding.version);
            let _ = writeln!(text, "{database}: {version}{separator}{}", finding.message);
        }
        match pending.as_slice() {
            [first, .., last] if all => {
                let (first, last) = (clean(&first.version), clean(&last.version));
                let _ = writeln!(text, "{database}: {} pending, {first} to {last}", pending.len());
            }
            [only] if all => {
                let _ = writeln!(text, "{database}: {} is pending", clean(&only.version));
            }
            _ => {}
        }
    }
    text
}

/// One database: its migrations, newest first, in the runbook's columns.
fn one(status: &DatabaseStatus, full: bool, width: Option<u16>) -> String {
    if status.failure.is_some() {
        return String::new();
    }
    let mut text = String::new();
    if !status.migrations.is_empty() {
        let mut clean_ones = 0;
        let shown = status.migrations.iter().rev().filter(|migration| {
            let is_clean = migration.state() == MigrationState::Applied && migration.findings.is_empty();
            clean_ones += usize::from(is_clean);
            full || !is_clean || clean_ones <= SHOWN
        });
        let rows = shown.map(|migration| {
            let preview: String = clean(&migration.checksum).chars().take(16).collect();
            let applied_at = time(migration.applied_at.as_ref());
            vec![clean(&migration.version), applied_at, state(migration), format!("{preview}...")]
        });
        let rows: Vec<_> = rows.collect();
        let hidden = status.migrations.len() - rows.len();
        let columns = [
            ("version", Fit::Cut),
            ("applied_at", Fit::Whole),
            ("status", Fit::Whole),
            ("checksum_preview", Fit::Spare),
        ];
        text = paint(&table(&columns, rows, width));
        if hidden > 0 {
            let _ = writeln!(text, "… and {hidden} older, all clean (--full shows them)");
        }
    }
    if !status.lock_holder.is_empty() {
        let separator = if text.is_empty() { "" } else { "\n" };
        let _ = writeln!(text, "{separator}locked by {}", clean(&status.lock_holder));
    }
    text
}

/// A migration's state in the runbook's words, with what is wrong.
fn state(migration: &MigrationStatus) -> String {
    let mut words = vec![match migration.state() {
        MigrationState::Applied => CLEAN,
        MigrationState::Pending => "· Pending",
        MigrationState::Dirty => DIRTY,
        MigrationState::Running => "▶ Running",
        MigrationState::Unspecified => "unknown",
    }];
    for kind in migration.findings() {
        match kind {
            FindingKind::ChecksumDrift => words.push("✗ Drift"),
            FindingKind::MissingFile => words.push("✗ Missing file"),
            FindingKind::OutOfOrder => words.push("✗ Out of order"),
            FindingKind::LineEndings => words.push("line endings"),
            FindingKind::NoDown => words.push("no down"),
            _ => {}
        }
    }
    let is_wrong = words.iter().skip(1).any(|word| word.starts_with('✗'));
    if is_wrong && words[0] == CLEAN {
        words.remove(0);
    }
    words.join(", ")
}

/// Several databases: one row each.
fn matrix(databases: &[DatabaseStatus], width: Option<u16>) -> String {
    if databases.is_empty() {
        return "no databases\n".to_owned();
    }
    // Where room is wanted, a count that is 0 everywhere is left out.
    let spare = |count: fn(&DatabaseStatus) -> u32| {
        if databases.iter().all(|status| count(status) == 0) { Fit::Spare } else { Fit::Whole }
    };
    let columns = [
        ("database", Fit::Whole),
        ("labels", Fit::Cut),
        ("version", Fit::Cut),
        ("#applied", Fit::Whole),
        ("#pending", spare(|status| status.pending)),
        ("#dirty", spare(dirty)),
        ("#drift", spare(|status| status.drift)),
        ("#missing", spare(|status| status.missing)),
        ("state", Fit::Whole),
    ];
    let rows = databases.iter().map(|status| {
        let numbers = [status.applied, status.pending, dirty(status), status.drift, status.missing];
        let number = |number: u32| if status.failure.is_some() { "-".to_owned() } else { number.to_string() };
        let version = match status.current_version.as_str() {
            "" => "-".to_owned(),
            version => clean(version),
        };
        let mut row = vec![clean(&status.database), clean(&labels(&status.labels)), version];
        row.extend(numbers.map(number));
        row.push(overall(status).to_owned());
        row
    });
    paint(&table(&columns, rows.collect(), width))
}

/// How many rows are dirty, and not because they are being worked on.
pub fn dirty(status: &DatabaseStatus) -> u32 {
    in_state(status, MigrationState::Dirty)
}

/// How many migrations are being worked on.
pub fn running(status: &DatabaseStatus) -> u32 {
    in_state(status, MigrationState::Running)
}

fn in_state(status: &DatabaseStatus, state: MigrationState) -> u32 {
    let number = status.migrations.iter().filter(|migration| migration.state() == state).count();
    u32::try_from(number).unwrap_or(u32::MAX)
}

/// The worst of what a database is.
fn overall(status: &DatabaseStatus) -> &'static str {
    if status.failure.is_some() {
        UNREADABLE
    } else if dirty(status) > 0 {
        DIRTY
    } else if status.catalog_failure.is_some() {
        STALE
    } else if running(status) > 0 {
        "▶ Running"
    } else if status.drift > 0 {
        "✗ Drift"
    } else if status.missing > 0 {
        "✗ Missing file"
    } else if status.out_of_order > 0 {
        "✗ Out of order"
    } else if status.pending > 0 {
        "· Pending"
    } else {
        CLEAN
    }
}

/// The last line: the counts of one database, or how many databases stand how.
pub fn summary(databases: &[DatabaseStatus]) -> String {
    match databases {
        [] => String::new(),
        [status] if status.failure.is_some() => String::new(),
        [status] => {
            let rest = [
                (status.pending, "pending"),
                (running(status), "running"),
                (dirty(status), "dirty"),
                (status.drift, "drifted"),
                (status.missing, "missing"),
                (status.out_of_order, "out of order"),
            ];
            let mut text = format!("{}: {} applied", clean(&status.database), status.applied);
            for (number, what) in rest.into_iter().filter(|(number, _)| *number > 0) {
                let _ = write!(text, ", {number} {what}");
            }
            if !status.current_version.is_empty() {
                let _ = write!(text, "; at {}", clean(&status.current_version));
            }
            text + "\n"
        }
        several => {
            let mut states: Vec<(&str, usize)> = Vec::new();
            for state in several.iter().map(overall) {
                match states.iter_mut().find(|(known, _)| *known == state) {
                    Some((_, number)) => *number += 1,
                    None => states.push((state, 1)),
                }
            }
            let states: Vec<_> = states.iter().map(|(state, number)| format!("{number} {state}")).collect();
            paint(&format!("{}: {}\n", count(several.len(), "database"), states.join(", ")))
        }
    }
}

/// Colours the states. Done after the table is laid out, so that its widths are those of the text.
fn paint(text: &str) -> String {
    let mut text = text.to_owned();
    for (word, style) in [
        (CLEAN, GREEN),
        (DIRTY, YELLOW),
        ("▶ Running", YELLOW),
        (UNREADABLE, RED),
        (STALE, RED),
        ("✗ Drift", RED),
        ("✗ Missing file", RED),
        ("✗ Out of order", RED),
    ] {
        text = text.replace(word, &format!("{style}{word}{style:#}"));
    }
    text
}

#[cfg(test)]
#[path = "status_tests.rs"]
mod tests;
