//! What the record says of observations: what is new in them, and what is over. Every look tells
//! all that is wrong; a line is written only where that has changed.

use std::collections::{BTreeMap, HashMap};

use crate::{
    migration::{Finding, FindingKind, Observation, Severity},
    telemetry::jsonl::line::Line,
};

/// What the last look at each database saw, by kind and subject. It begins empty: what is wrong when
/// the daemon starts is told once more.
#[derive(Debug, Default)]
pub(super) struct Observed(HashMap<String, BTreeMap<(FindingKind, String), String>>);

impl Observed {
    /// Forgets databases that are gone: one that comes back is a new one.
    pub(super) fn forget(&mut self, databases: &[String]) {
        for database in databases {
            self.0.remove(database);
        }
    }

    /// The lines of an observation. What it could not see stays as it was.
    pub(super) fn lines(&mut self, seen: &Observation) -> Vec<Line> {
        let known = self.0.entry(seen.database.clone()).or_default();
        let key = |finding: &Finding| (finding.kind, finding.subject.clone());
        let news: Vec<_> = seen.findings.iter().filter(|it| !known.contains_key(&key(it))).collect();
        let is_still = |(kind, subject): &(FindingKind, String)| {
            let is_same = |it: &Finding| it.kind == *kind && it.subject == *subject;
            seen.unknown.contains(kind) || seen.findings.iter().any(is_same)
        };
        let over: Vec<_> = known.extract_if(.., |it, _| !is_still(it)).collect();
        known.extend(news.iter().map(|it| (key(it), it.message.clone())));

        let mut lines: Vec<_> = dirty(seen, &news).into_iter().collect();
        let others = news.iter().filter(|it| it.kind != FindingKind::Dirty);
        lines.extend(others.map(|it| {
            about(seen, level(it.kind), "Finding appeared", it.kind, &it.subject)
                .with("finding", it.message.as_str())
                .with("evidence", it.evidence.as_slice())
                .with("remedy", it.kind.remedy())
        }));
        lines.extend(over.into_iter().map(|((kind, subject), message)| {
            about(seen, "info", "Finding is over", kind, &subject).with("finding", message)
        }));
        lines
    }
}

/// The runbook's line, for all rows that are newly found dirty, whatever the journal knows of them.
fn dirty(seen: &Observation, news: &[&Finding]) -> Option<Line> {
    let is_dirty = |it: &&&Finding| matches!(it.kind, FindingKind::Dirty | FindingKind::AttemptInterrupted);
    let found: Vec<_> = news.iter().filter(is_dirty).collect();
    let versions: Vec<_> = found.iter().map(|it| it.subject.as_str()).collect();
    let evidence: Vec<_> = found.iter().flat_map(|it| it.evidence.iter().map(String::as_str)).collect();
    let line = |first: &&&Finding| {
        Line::new(seen.time, "warn", "Found migrations in dirty state")
            .with("versions", versions.as_slice())
            .with("database", seen.database.as_str())
            .with("kind", first.kind.name())
            .with("severity", first.kind.severity().name())
            .with("evidence", evidence.as_slice())
    };
    found.first().copied().map(|first| line(&first))
}

fn about(seen: &Observation, level: &'static str, message: &str, kind: FindingKind, subject: &str) -> Line {
    let some = |text: &str| Some(text.to_owned()).filter(|text| !text.is_empty());
    Line::new(seen.time, level, message)
        .with_some(kind.subject_name(), some(subject))
        .with("kind", kind.name())
        .with("severity", kind.severity().name())
        .with_some("database", some(&seen.database))
}

fn level(kind: FindingKind) -> &'static str {
    match kind.severity() {
        Severity::Info => "info",
        Severity::Warning => "warn",
        Severity::Critical => "error",
    }
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;

    use super::*;

    fn seen(findings: &[(FindingKind, &str)], unknown: &[FindingKind]) -> Observation {
        let finding = |(kind, subject): &(FindingKind, &str)| {
            Finding::new(*kind, *subject, "what is wrong").evidence(["what was seen".to_owned()])
        };
        Observation {
            database: "main".to_owned(),
            time: Timestamp::UNIX_EPOCH,
            counts: None,
            newest: None,
            findings: findings.iter().map(finding).collect(),
            unknown: unknown.to_vec(),
        }
    }

    /// The lines' messages with what they are about.
    fn told(observed: &mut Observed, seen: &Observation) -> Vec<String> {
        let tell = |line: Line| {
            let text = String::from_utf8(line.encode(|_| {})).expect("it is text");
            let line: serde_json::Value = serde_json::from_str(&text).expect("it is JSON");
            let about = line.get("version").or(line.get("versions")).unwrap_or(&line["database"]);
            format!("{} {} {} {about}", line["level"], line["message"], line["kind"]).replace('"', "")
        };
        observed.lines(seen).into_iter().map(tell).collect()
    }

    #[test]
    fn only_what_changes_is_told() {
        use FindingKind::{AttemptInterrupted, ChecksumDrift, DatabaseUnreachable, Dirty, NoDown};
        let mut observed = Observed::default();
        let mut check = |findings: &[(FindingKind, &str)], unknown: &[FindingKind], expected: &[&str]| {
            assert_eq!(told(&mut observed, &seen(findings, unknown)), expected);
        };
        check(&[], &[], &[]);
        let drift = (ChecksumDrift, "0001_a");
        check(&[drift], &[], &["error Finding appeared checksum_drift 0001_a"]);
        check(&[drift], &[], &[]);
        let dirty = [drift, (Dirty, "0002_b"), (Dirty, "0003_c")];
        check(&dirty, &[], &["warn Found migrations in dirty state dirty [0002_b,0003_c]"]);
        // What could not be seen is neither new nor over.
        let all = [Dirty, ChecksumDrift];
        check(&[(DatabaseUnreachable, "")], &all, &["error Finding appeared database_unreachable main"]);
        check(&dirty, &[], &["info Finding is over database_unreachable main"]);
        check(
            &[(Dirty, "0003_c"), (NoDown, "0001_a")],
            &[],
            &[
                "info Finding appeared no_down 0001_a",
                "info Finding is over dirty 0002_b",
                "info Finding is over checksum_drift 0001_a",
            ],
        );
        check(
            &[(AttemptInterrupted, "0004_d")],
            &[NoDown],
            &[
                "warn Found migrations in dirty state attempt_interrupted [0004_d]",
                "error Finding appeared attempt_interrupted 0004_d",
                "info Finding is over dirty 0003_c",
            ],
        );
    }
}
