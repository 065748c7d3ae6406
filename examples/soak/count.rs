//! The invariant, counted: every migration ran exactly as often as the journal says, the last time forwards;
//! nothing is dirty, nothing is left open, nothing is missing from what was written down.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    process::Command,
};

use serde_json::Value;

use crate::{
    fleet::{Fleet, MIGRATIONS, OUTSIDE, binary},
    report::Report,
};

/// What each migration left in the ledger: forwards and back, in the order of the commits.
const LEDGER: &str =
    "select version, string_agg(case when up then 'u' else 'd' end, '' order by id) from ledger group by 1";

/// What the journal says was committed. An undo is a down file that was run to settle a row.
const JOURNAL: &str = "select version, count(*) filter (where direction = 'up'), \
    count(*) filter (where direction in ('down', 'undo')) \
    from nexus_journal where outcome = 'succeeded' and mode = 'transactional' group by 1";

/// Counts everything.
pub(crate) fn everything(fleet: &Fleet, report: &mut Report) -> anyhow::Result<()> {
    let mut counted = Counted::default();
    for name in &fleet.databases {
        database(fleet, name, &mut counted, report)?;
    }
    report.fact("migrations applied", counted.ups.to_string());
    report.fact("migrations rolled back", counted.downs.to_string());
    report.must_be("databases that are not at the head", counted.behind, 0);
    report.must_be("migrations that did not run exactly once", counted.not_once, 0);
    report.must_be("dirty rows", counted.dirty, 0);
    report.must_be("attempts that nobody has settled", counted.open, 0);
    report.must_be("invalid indexes", counted.invalid, 0);
    lines(fleet, report)?;
    audit_log(fleet, report)
}

#[derive(Default)]
struct Counted {
    ups: usize,
    downs: usize,
    behind: usize,
    not_once: usize,
    dirty: usize,
    open: usize,
    invalid: usize,
}

fn number(fleet: &Fleet, database: &str, sql: &str) -> anyhow::Result<usize> {
    Ok(fleet.sql(database, sql)?.join("").parse()?)
}

fn database(fleet: &Fleet, name: &str, counted: &mut Counted, report: &mut Report) -> anyhow::Result<()> {
    let applied = number(fleet, name, "select count(*) from schema_migrations where not dirty")?;
    let tables = number(fleet, name, "select count(*) from pg_tables where tablename ~ '^step_[0-9]+$'")?;
    if applied != MIGRATIONS || tables != MIGRATIONS - 1 {
        counted.behind += 1;
        report.violation(format!("{name} has {applied} rows and {tables} tables"));
    }
    counted.dirty += number(fleet, name, "select count(*) from schema_migrations where dirty")?;
    counted.open += number(fleet, name, "select count(*) from nexus_journal where outcome = 'running'")?;
    counted.invalid += number(fleet, name, "select count(*) from pg_index where not indisvalid")?;
    let mut journal = BTreeMap::new();
    for row in fleet.sql(name, JOURNAL)? {
        let columns: Vec<_> = row.split('|').collect();
        if let [version, ups, downs] = columns[..] {
            journal.insert(version.to_owned(), (ups.parse()?, downs.parse()?));
        }
    }
    let ledger = fleet.sql(name, LEDGER)?;
    for row in &ledger {
        let Some((version, ran)) = row.split_once('|') else { continue };
        let ups = ran.matches('u').count();
        let downs = ran.len() - ups;
        (counted.ups, counted.downs) = (counted.ups + ups, counted.downs + downs);
        // Each statement of this one is committed by itself, and a part of it may have been undone.
        if version.ends_with(&format!("_{OUTSIDE}")) {
            continue;
        }
        let alternates = ran.len() == 2 * downs + 1
            && ran.bytes().enumerate().all(|(at, way)| (way == b'u') == (at % 2 == 0));
        if !alternates || journal.get(version) != Some(&(ups, downs)) {
            counted.not_once += 1;
            let told = journal.get(version);
            report.violation(format!(
                "{name} {version}: it ran {ran}, and the journal has {told:?} up and down"
            ));
        }
    }
    if ledger.len() != MIGRATIONS {
        counted.not_once += MIGRATIONS.abs_diff(ledger.len());
        report.violation(format!("{name}: {} of {MIGRATIONS} migrations have ever run", ledger.len()));
    }
    Ok(())
}

/// Every line of every migration log is whole.
fn lines(fleet: &Fleet, report: &mut Report) -> anyhow::Result<()> {
    let (mut all, mut torn) = (0, 0);
    for log in fleet.logs("migrations.jsonl") {
        let text = fs::read_to_string(log)?;
        all += text.lines().count();
        torn += text.lines().filter(|line| serde_json::from_str::<Value>(line).is_err()).count();
    }
    report.fact("lines of the migration logs", all.to_string());
    report.must_be("lines that are not JSON", torn, 0);
    Ok(())
}

/// The records of the audit logs are a chain, and every operation that the service knows is in one of them.
fn audit_log(fleet: &Fleet, report: &mut Report) -> anyhow::Result<()> {
    let logs = fleet.logs("audit.jsonl");
    if logs.is_empty() {
        report.fact("audit log", "there is none");
        return Ok(());
    }
    let (mut records, mut recorded) = (0, BTreeSet::new());
    for log in logs {
        let verified = Command::new(binary("nexusctl")?).args(["auditlog", "verify"]).arg(&log).output()?;
        if !verified.status.success() {
            let said = String::from_utf8_lossy(&verified.stderr).into_owned();
            report.violation(format!("auditlog verify {}: {}", log.display(), said.trim()));
        }
        for line in fs::read_to_string(&log)?.lines() {
            records += 1;
            let record: Value = serde_json::from_str(line).unwrap_or_default();
            recorded.extend(record["operation"].as_str().map(str::to_owned));
        }
    }
    report.fact("audit records", records.to_string());
    let known = if fleet.alone {
        fleet.steady().operations(&[])?
    } else {
        fleet.sql("control", "select id from nexus.operation")?
    };
    let lost = known.iter().filter(|id| !recorded.contains(*id)).count();
    report.fact("operations", known.len().to_string());
    report.must_be("operations without an audit record", lost, 0);
    Ok(())
}
