//! What the leader keeps for all daemons, as JSON: what was seen of databases, and audits.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::{
    fleet::{
        inventory::{Rows, Seen},
        schedule::Schedule,
    },
    migration::{AuditReport, Counts, Finding, FindingKind, Observation, Version},
};

/// What was seen of a database last.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct KeptSeen {
    #[serde(flatten)]
    last: KeptObservation,
    /// What is pending, as stretches of the catalog; `None` where it could not be read.
    pub(super) pending: Option<Vec<(String, String)>>,
    /// What its rows said when they could last be read, where they could not this time.
    rows: Option<KeptRows>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct KeptObservation {
    database: String,
    time: Timestamp,
    counts: Option<KeptCounts>,
    newest: Option<String>,
    findings: Vec<KeptFinding>,
    unknown: Vec<String>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct KeptRows {
    at: Timestamp,
    counts: KeptCounts,
    newest: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct KeptCounts {
    applied: u32,
    pending: u32,
    dirty: u32,
    drift: u32,
    missing: u32,
    oldest_pending: Option<Timestamp>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct KeptFinding {
    kind: String,
    subject: String,
    message: String,
    evidence: Vec<String>,
}

#[derive(Serialize, Deserialize)]
struct KeptAudit {
    id: String,
    name: String,
    started: Timestamp,
    ended: Timestamp,
    databases: Vec<KeptObservation>,
}

/// When a schedule was last seen to.
#[derive(Serialize, Deserialize)]
struct KeptRun {
    schedule: String,
    time_zone: String,
    last: Timestamp,
}

impl KeptSeen {
    /// What there is to keep; `None` where nothing was seen yet.
    pub(super) fn of(seen: &Seen) -> Option<Self> {
        let last = seen.last.as_ref()?;
        let rows = seen.rows.as_ref().filter(|_| last.counts.is_none());
        let rows = rows.map(|rows| KeptRows {
            at: rows.at,
            counts: counts(rows.counts),
            newest: rows.newest.as_ref().map(ToString::to_string),
        });
        Some(Self { last: observation(last), pending: seen.glance.as_ref().map(|it| it.stretches()), rows })
    }

    /// Whether it tells the same, at whatever time.
    pub(super) fn is_same(&self, other: &Self) -> bool {
        let Self { last, pending, rows } = self;
        let timeless = |it: &KeptObservation| KeptObservation { time: Timestamp::UNIX_EPOCH, ..it.clone() };
        *pending == other.pending && *rows == other.rows && timeless(last) == timeless(&other.last)
    }

    /// When the database was looked at.
    pub(super) fn time(&self) -> Timestamp {
        self.last.time
    }

    /// It was looked at then, once more.
    pub(super) fn seen_at(&mut self, time: Timestamp) {
        self.last.time = self.last.time.max(time);
    }

    /// What it tells, without a glance at the catalog.
    pub(super) fn seen(&self) -> Seen {
        let last = self.last.clone().revive();
        let of_last = last.counts.map(|counts| Rows { at: last.time, counts, newest: last.newest.clone() });
        let of_earlier = self.rows.clone().map(|rows| Rows {
            at: rows.at,
            counts: rows.counts.revive(),
            newest: rows.newest.as_deref().map(Version::from_row),
        });
        Seen { last: Some(last), glance: None, rows: of_last.or(of_earlier) }
    }
}

impl KeptObservation {
    fn revive(self) -> Observation {
        // A kind that this nexusd does not know is for nobody.
        let finding = |it: KeptFinding| {
            let kind = FindingKind::from_name(&it.kind)?;
            Some(Finding { kind, subject: it.subject, message: it.message, evidence: it.evidence })
        };
        Observation {
            database: self.database,
            time: self.time,
            counts: self.counts.map(KeptCounts::revive),
            newest: self.newest.as_deref().map(Version::from_row),
            findings: self.findings.into_iter().filter_map(finding).collect(),
            unknown: self.unknown.iter().filter_map(|kind| FindingKind::from_name(kind)).collect(),
        }
    }
}

impl KeptCounts {
    fn revive(self) -> Counts {
        let Self { applied, pending, dirty, drift, missing, oldest_pending } = self;
        Counts { applied, pending, dirty, drift, missing, oldest_pending }
    }
}

fn counts(of: Counts) -> KeptCounts {
    let Counts { applied, pending, dirty, drift, missing, oldest_pending } = of;
    KeptCounts { applied, pending, dirty, drift, missing, oldest_pending }
}

fn observation(of: &Observation) -> KeptObservation {
    let finding = |it: &Finding| {
        let Finding { kind, subject, message, evidence } = it.clone();
        KeptFinding { kind: kind.name().to_owned(), subject, message, evidence }
    };
    KeptObservation {
        database: of.database.clone(),
        time: of.time,
        counts: of.counts.map(counts),
        newest: of.newest.as_ref().map(ToString::to_string),
        findings: of.findings.iter().map(finding).collect(),
        unknown: of.unknown.iter().map(|kind| kind.name().to_owned()).collect(),
    }
}

/// An audit, to be kept.
pub(super) fn audit(report: &AuditReport) -> String {
    let AuditReport { id, name, started, ended, databases } = report;
    let databases = databases.iter().map(observation).collect();
    json(&KeptAudit { id: id.to_string(), name: name.clone(), started: *started, ended: *ended, databases })
}

/// An audit that was kept.
pub(super) fn revive_audit(document: &str) -> Option<AuditReport> {
    let KeptAudit { id, name, started, ended, databases } = serde_json::from_str(document).ok()?;
    let databases = databases.into_iter().map(KeptObservation::revive).collect();
    Some(AuditReport { id: Uuid::parse_str(&id).ok()?, name, started, ended, databases })
}

/// That a schedule was seen to, to be kept.
pub(super) fn run(schedule: &Schedule, last: Timestamp) -> String {
    let (expression, time_zone) = (schedule.expression().to_owned(), schedule.time_zone().to_owned());
    json(&KeptRun { schedule: expression, time_zone, last })
}

/// When a schedule was last seen to; `None` where it was another one then.
pub(super) fn last_run(schedule: &Schedule, document: &str) -> Option<Timestamp> {
    let kept: KeptRun = serde_json::from_str(document).ok()?;
    let is_it = kept.schedule == schedule.expression() && kept.time_zone == schedule.time_zone();
    is_it.then_some(kept.last)
}

/// What was seen of a database, to be kept.
pub(super) fn seen(kept: &KeptSeen) -> String {
    json(kept)
}

/// What was kept of a database.
pub(super) fn revive_seen(document: &str) -> Option<KeptSeen> {
    serde_json::from_str(document).ok()
}

/// When each database was looked at last, to be kept.
pub(super) fn times(times: &BTreeMap<String, Timestamp>) -> String {
    json(times)
}

/// When each database was looked at last.
pub(super) fn revive_times(document: &str) -> Option<BTreeMap<String, Timestamp>> {
    serde_json::from_str(document).ok()
}

fn json(of: &impl Serialize) -> String {
    serde_json::to_string(of).expect("texts, numbers and times are always JSON")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(1_761_819_330 + second).expect("a time")
    }

    fn seen_at(second: i64, counts: Option<Counts>) -> Seen {
        let finding = Finding::new(FindingKind::Dirty, "0003_c", "is dirty").evidence(["since then".into()]);
        let newest = Some(Version::from_row("0002_b"));
        let last = Observation {
            database: "orders".into(),
            time: at(second),
            counts,
            newest: newest.clone(),
            findings: vec![finding],
            unknown: vec![FindingKind::InvalidIndex],
        };
        let earlier = Rows { at: at(0), counts: Counts { applied: 7, ..Counts::default() }, newest };
        Seen { last: Some(last), glance: None, rows: Some(earlier) }
    }

    #[test]
    fn what_was_seen_is_told_as_it_was() {
        assert_eq!(KeptSeen::of(&Seen::default()), None);
        let counts = Counts { applied: 2, dirty: 1, oldest_pending: Some(at(5)), ..Counts::default() };
        for (counts, expected) in [(Some(counts), (at(9), 2)), (None, (at(0), 7))] {
            let before = seen_at(9, counts);
            let kept = KeptSeen::of(&before).expect("it was seen");
            let revived = revive_seen(&seen(&kept)).expect("it is JSON");
            assert_eq!(revived, kept);
            let after = revived.seen();
            assert_eq!(after.last, before.last);
            let rows = after.rows.expect("there are rows");
            assert_eq!((rows.at, rows.counts.applied), expected);
            // Another look that saw the same is no reason to keep it again.
            let mut later = KeptSeen::of(&seen_at(10, counts)).expect("it was seen");
            assert!(later.is_same(&kept) && later.time() > kept.time());
            later.pending = Some(Vec::new());
            assert!(!later.is_same(&kept));
        }
    }

    #[test]
    fn audits_and_their_schedules() {
        let observation = seen_at(3, None).last.expect("it was seen");
        let databases = vec![observation];
        let (id, name) = (Uuid::from_u128(7), "nightly".to_owned());
        let report = AuditReport { id, name, started: at(1), ended: at(4), databases };
        let document = audit(&report);
        assert_eq!(revive_audit(&document), Some(report));
        // What a newer nexusd looks for is for nobody here.
        let strange = document.replace("\"dirty\"", "\"haunted\"");
        assert!(revive_audit(&strange).is_some_and(|report| report.databases[0].findings.is_empty()));
        let schedule = |text| Schedule::parse(text, "UTC").expect("a schedule");
        let kept = run(&schedule("0 3 * * *"), at(3));
        assert_eq!(last_run(&schedule("0 3 * * *"), &kept), Some(at(3)));
        assert_eq!(last_run(&schedule("0 4 * * *"), &kept), None);
    }
}
