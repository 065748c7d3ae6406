//! How databases stand: one as in the runbook, several as a matrix, and what is wrong with them.

use std::fmt::Write as _;

use crate::{
    cli::render::{
        table::table,
        text::{GREEN, RED, YELLOW, clean, count, labels, sentence, time},
    },
    rpc::proto::{DatabaseStatus, FindingKind, MigrationState, MigrationStatus},
};

/// How many clean migrations are shown, newest first, unless all are asked for.
const SHOWN: usize = 20;

const CLEAN: &str = "✓ Clean";
const DIRTY: &str = "⚠️  DIRTY";
const UNREADABLE: &str = "✗ Unreadable";

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

/// Everything that is wrong or waits, by database and version.
pub fn findings(databases: &[DatabaseStatus]) -> Vec<Finding> {
    let mut found = Vec::new();
    for status in databases {
        let mut add = |version: &str, kind, message: String| {
            let (database, version) = (status.database.clone(), version.to_owned());
            found.push(Finding { database, version, kind, message });
        };
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
                    FindingKind::Dirty | FindingKind::Unspecified => continue,
                    FindingKind::ChecksumDrift => {
                        ("checksum_drift", "checksum mismatch: the file is not what was applied")
                    }
                    FindingKind::LineEndings => {
                        ("line_endings", "differs from what was applied in line endings only")
                    }
                    FindingKind::MissingFile => ("missing_file", "is applied, and its file is gone"),
                    FindingKind::OutOfOrder => ("out_of_order", "is pending, though a later one is applied"),
                    FindingKind::NoDown => ("no_down", "has no down migration"),
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
pub fn list(findings: &[Finding], all: bool) -> String {
    let mut text = String::new();
    for group in findings.chunk_by(|a, b| a.database == b.database) {
        let database = clean(&group[0].database);
        let (pending, others): (Vec<_>, Vec<_>) = group.iter().partition(|finding| finding.kind == "pending");
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
    if text.is_empty() { text } else { format!("\n{text}") }
}

/// One database: its migrations, newest first, in the runbook's columns.
pub fn one(status: &DatabaseStatus, full: bool, width: Option<u16>) -> String {
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
        text = paint(&table(&["version", "applied_at", "status", "checksum_preview"], rows, width));
        if hidden > 0 {
            let _ = writeln!(text, "… and {hidden} older, all clean (--full shows them)");
        }
    }
    if !status.lock_holder.is_empty() {
        let _ = writeln!(text, "\nlocked by {}", clean(&status.lock_holder));
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
            FindingKind::Dirty | FindingKind::Unspecified => {}
        }
    }
    let is_wrong = words.iter().skip(1).any(|word| word.starts_with('✗'));
    if is_wrong && words[0] == CLEAN {
        words.remove(0);
    }
    words.join(", ")
}

/// Several databases: one row each.
pub fn matrix(databases: &[DatabaseStatus], width: Option<u16>) -> String {
    if databases.is_empty() {
        return "no databases\n".to_owned();
    }
    let header =
        ["database", "labels", "version", "#applied", "#pending", "#dirty", "#drift", "#missing", "state"];
    let rows = databases.iter().map(|status| {
        let numbers = [status.applied, status.pending, status.dirty, status.drift, status.missing];
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
    paint(&table(&header, rows, width))
}

/// The worst of what a database is.
fn overall(status: &DatabaseStatus) -> &'static str {
    let any = |state| status.migrations.iter().any(|migration| migration.state() == state);
    if status.failure.is_some() {
        UNREADABLE
    } else if any(MigrationState::Dirty) {
        DIRTY
    } else if any(MigrationState::Running) {
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
                (status.dirty, "dirty"),
                (status.drift, "drifted"),
                (status.missing, "missing"),
                (status.out_of_order, "out of order"),
            ];
            let mut text = format!("\n{}: {} applied", clean(&status.database), status.applied);
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
            paint(&format!("\n{}: {}\n", count(several.len(), "database"), states.join(", ")))
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
