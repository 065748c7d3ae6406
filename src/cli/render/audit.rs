//! Audits for people: a table of the databases, what is wrong with each, and a summary.

use std::{fmt::Write as _, time::Duration};

use crate::{
    cli::render::{
        table::{Fit, table},
        text::{CYAN, GREEN, RED, YELLOW, clean, count, duration, sentence, time, timestamp, wrap},
    },
    rpc::proto::{Audit, AuditedDatabase, Finding, ListAuditsResponse, Severity},
};

/// How far the lines below a finding are indented.
const INDENT: usize = 12;

/// An audit: its databases, their findings, and a summary.
pub fn text(audit: &Audit, width: Option<u16>) -> String {
    let mut sections = vec![databases(&audit.databases, width)];
    let has_words = |it: &&AuditedDatabase| !(it.findings.is_empty() && it.unchecked.is_empty());
    sections.extend(audit.databases.iter().filter(has_words).map(|it| findings(it, width)));
    sections.push(summary(audit));
    sections.join("\n")
}

/// The audits that are remembered, and the schedules.
pub fn list(listed: &ListAuditsResponse, width: Option<u16>) -> String {
    let columns = [
        ("id", Fit::Whole),
        ("name", Fit::Cut),
        ("started_at", Fit::Whole),
        ("#took", Fit::Spare),
        ("#databases", Fit::Whole),
        ("#critical", Fit::Whole),
        ("#warning", Fit::Whole),
        ("#info", Fit::Spare),
    ];
    let rows = listed.audits.iter().map(|audit| {
        let numbers = [audit.checked, audit.critical, audit.warning, audit.info];
        let mut row = vec![clean(&audit.id), clean(&audit.name), time(audit.started_at.as_ref())];
        row.push(duration(took(audit)));
        row.extend(numbers.map(|number| number.to_string()));
        row
    });
    let audits = if listed.audits.is_empty() {
        "no audit is remembered: `nexusctl audit run` makes one\n".to_owned()
    } else {
        table(&columns, rows.collect(), width)
    };
    if listed.schedules.is_empty() {
        return audits;
    }
    let columns =
        [("schedule", Fit::Cut), ("cron", Fit::Whole), ("time_zone", Fit::Whole), ("next_at", Fit::Whole)];
    let rows = listed.schedules.iter().map(|schedule| {
        let texts = [&schedule.name, &schedule.schedule, &schedule.time_zone].map(|text| clean(text));
        [&texts[..], &[time(schedule.next_at.as_ref())]].concat()
    });
    format!("{audits}\n{}", table(&columns, rows.collect(), width))
}

/// How long an audit took.
pub fn took(audit: &Audit) -> Duration {
    let [started, ended] = [&audit.started_at, &audit.ended_at].map(|time| timestamp(time.as_ref()));
    let took = started.zip(ended).and_then(|(started, ended)| ended.duration_since(started).try_into().ok());
    took.unwrap_or_default()
}

/// How many findings of a database are of this severity.
pub fn of_severity(database: &AuditedDatabase, severity: Severity) -> usize {
    database.findings.iter().filter(|finding| finding.severity() == severity).count()
}

/// Whether a database fails a check for findings as grave as `least`.
pub fn fails(database: &AuditedDatabase, least: Severity) -> bool {
    database.unreadable || database.findings.iter().any(|finding| finding.severity() >= least)
}

/// Why a database could not be read, where no finding says so.
pub fn unread(database: &AuditedDatabase) -> Option<&'static str> {
    let is_told = |finding: &Finding| finding.severity() == Severity::Critical;
    (database.unreadable && !database.findings.iter().any(is_told))
        .then_some("could not be read: a lock is held on its tables; audit it again")
}

fn databases(databases: &[AuditedDatabase], width: Option<u16>) -> String {
    let columns = [
        ("database", Fit::Whole),
        ("#applied", Fit::Spare),
        ("#pending", Fit::Spare),
        ("#critical", Fit::Whole),
        ("#warning", Fit::Whole),
        ("#info", Fit::Whole),
    ];
    let rows = databases.iter().map(|database| {
        let number = |number: u32| if database.unreadable { "-".to_owned() } else { number.to_string() };
        let mut row = vec![clean(&database.database), number(database.applied), number(database.pending)];
        let severities = [Severity::Critical, Severity::Warning, Severity::Info];
        row.extend(severities.map(|severity| of_severity(database, severity).to_string()));
        row
    });
    table(&columns, rows.collect(), width)
}

/// What is wrong with one database, the gravest first.
fn findings(database: &AuditedDatabase, width: Option<u16>) -> String {
    let mut text = format!("{}\n", clean(&database.database));
    let mut findings: Vec<_> = database.findings.iter().collect();
    findings.sort_by_key(|finding| std::cmp::Reverse(finding.severity()));
    for finding in findings {
        lines(&mut text, finding, width);
    }
    let mut line = |line: String| {
        let _ = writeln!(text, "{}", wrap(&line, width, INDENT));
    };
    if let Some(why) = unread(database) {
        line(format!("  {why}"));
    }
    if !database.unreadable && !database.unchecked.is_empty() {
        let kinds = database.unchecked().map(|kind| super::json::word(kind.as_str_name(), "FINDING_KIND_"));
        line(format!("  not checked: {}", kinds.collect::<Vec<_>>().join(", ")));
    }
    text
}

fn lines(text: &mut String, finding: &Finding, width: Option<u16>) {
    let (word, style) = match finding.severity() {
        Severity::Critical => ("critical", RED),
        Severity::Warning => ("warning", YELLOW),
        Severity::Info | Severity::Unspecified => ("info", GREEN),
    };
    let padding = " ".repeat(INDENT - 2 - word.len());
    let separator = if finding.subject.is_empty() { "" } else { "  " };
    let _ = writeln!(
        text,
        "  {style}{word}{style:#}{padding}{}{separator}{}",
        super::json::word(finding.kind().as_str_name(), "FINDING_KIND_"),
        clean(&finding.subject)
    );
    let indent = " ".repeat(INDENT);
    let mut line = |line: String| {
        let _ = writeln!(text, "{}", wrap(&format!("{indent}{line}"), width, INDENT));
    };
    line(sentence(&finding.message));
    for seen in &finding.evidence {
        line(format!("- {}", sentence(seen)));
    }
    if !finding.remedy.is_empty() {
        line(format!("{CYAN}hint:{CYAN:#} {}", sentence(&finding.remedy)));
    }
}

fn summary(audit: &Audit) -> String {
    format!(
        "audit {} ({}): {} in {}, {} critical, {} warning, {} info\n",
        clean(&audit.id),
        clean(&audit.name),
        count(audit.databases.len(), "database"),
        duration(took(audit)),
        audit.critical,
        audit.warning,
        audit.info
    )
}

/// An audit for the tests of its forms.
#[cfg(test)]
pub(super) fn example() -> Audit {
    use crate::rpc::proto::FindingKind;

    let at = |milliseconds: i32| {
        Some(prost_types::Timestamp { seconds: 1_761_819_330, nanos: milliseconds * 1_000_000 })
    };
    let drift = Finding {
        database: "orders".into(),
        kind: FindingKind::ChecksumDrift.into(),
        severity: Severity::Critical.into(),
        subject: "0010_add_products".into(),
        message: "the file is not what was applied".into(),
        evidence: vec!["stored checksum: b3fc0486".into(), "file checksum: 65ab01f2".into()],
        remedy: "Restore the file as it was applied".into(),
    };
    let no_down = Finding {
        database: "orders".into(),
        kind: FindingKind::NoDown.into(),
        severity: Severity::Info.into(),
        subject: "0009_add_stock".into(),
        message: "has no down migration".into(),
        remedy: "Write the down file".into(),
        evidence: Vec::new(),
    };
    let unreachable = Finding {
        database: "users".into(),
        kind: FindingKind::DatabaseUnreachable.into(),
        severity: Severity::Critical.into(),
        message: "the database does not answer".into(),
        remedy: "See that the server runs".into(),
        ..Default::default()
    };
    let file = "/srv/my migrations/0010_add_products.up.sql".to_owned();
    let orders = AuditedDatabase {
        database: "orders".into(),
        findings: vec![no_down, drift],
        checked_at: at(200),
        applied: 10,
        pending: 1,
        unreadable: false,
        files: [("0010_add_products".to_owned(), file)].into(),
        unchecked: vec![FindingKind::InvalidIndex.into(), FindingKind::NotValidConstraint.into()],
    };
    let billing =
        AuditedDatabase { database: "billing".into(), checked_at: at(150), applied: 3, ..Default::default() };
    let users = AuditedDatabase {
        database: "users".into(),
        findings: vec![unreachable],
        checked_at: at(210),
        unreadable: true,
        ..Default::default()
    };
    Audit {
        id: "01a2057a-e634-703b-b949-7edbe9f5581c".into(),
        name: "nightly".into(),
        started_at: at(123),
        ended_at: at(243),
        databases: vec![billing, orders, users],
        checked: 3,
        info: 1,
        warning: 0,
        critical: 2,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rpc::proto::AuditSchedule;

    #[test]
    fn an_audit_by_database() {
        let shown = anstream::adapter::strip_str(&text(&example(), None)).to_string();
        let expected = "\
database  applied  pending  critical  warning  info
───────────────────────────────────────────────────
billing         3        0         0        0     0
orders         10        1         1        0     1
users           -        -         1        0     0

orders
  critical  checksum_drift  0010_add_products
            the file is not what was applied
            - stored checksum: b3fc0486
            - file checksum: 65ab01f2
            hint: Restore the file as it was applied
  info      no_down  0009_add_stock
            has no down migration
            hint: Write the down file
  not checked: invalid_index, not_valid_constraint

users
  critical  database_unreachable
            the database does not answer
            hint: See that the server runs

audit 01a2057a-e634-703b-b949-7edbe9f5581c (nightly): 3 databases in 120 ms, 2 critical, 0 warning, 1 info
";
        assert_eq!(shown, expected);
    }

    #[test]
    fn audits_and_schedules() {
        let mut listed = ListAuditsResponse::default();
        assert!(list(&listed, None).starts_with("no audit is remembered"));
        listed.audits.push(Audit { databases: Vec::new(), ..example() });
        listed.schedules.push(AuditSchedule {
            name: "nightly".into(),
            schedule: "30 3 * * *".into(),
            time_zone: "Europe/Berlin".into(),
            next_at: Some(prost_types::Timestamp { seconds: 1_761_878_000, nanos: 0 }),
        });
        let shown = list(&listed, None);
        let rows: Vec<_> = shown.lines().collect();
        let cells: Vec<_> = rows[2].split_whitespace().collect();
        assert_eq!(
            cells[1..],
            ["nightly", "2025-10-30", "10:15:30Z", "120", "ms", "3", "2", "0", "1"],
            "{shown}"
        );
        assert_eq!(rows[6], "nightly   30 3 * * *  Europe/Berlin  2025-10-31 02:33:20Z", "{shown}");
    }
}
