//! How databases stand, as they are read now or as the daemon saw them last.

use std::{collections::BTreeMap, sync::Arc};

use jiff::Timestamp;

use crate::{
    fleet::{
        MemberStatus,
        inventory::{Member, Seen},
    },
    migration::{Code, Failure, Finding, FindingKind, Observation, Version, drift::State},
    rpc::{convert, proto},
};

/// What of a status is told.
pub struct Scope<'a> {
    /// Of several databases, what is applied and well is left out.
    pub is_brief: bool,
    /// Only databases in which this version or number is not in place; empty: all.
    pub missing: &'a str,
}

/// Tells databases as they were just read.
pub fn live(read: &[MemberStatus], scope: &Scope<'_>) -> Result<Vec<proto::DatabaseStatus>, Failure> {
    let now = Timestamp::now();
    let lacks = |read: &MemberStatus| {
        let Ok((status, _)) = &read.status else { return Lacks::Unknown };
        let meant = status.standings.iter().find(|it| it.version.is_meant_by(scope.missing));
        let left_out = status.left_out.as_ref().and_then(|it| it.catalog.find(scope.missing));
        match meant {
            Some(it) if it.state == State::Applied => Lacks::No,
            Some(_) => Lacks::Yes,
            None if left_out.is_some() => Lacks::No,
            None => Lacks::NoSuch,
        }
    };
    let told = |read: &MemberStatus| {
        let mut status = convert::status(read);
        status.observed_at = Some(convert::timestamp(now));
        status
    };
    let told = filtered(read, scope.missing, lacks)?.into_iter().map(told);
    Ok(told.map(|status| brief(status, scope.is_brief && read.len() > 1)).collect())
}

/// Tells databases as the daemon saw them last.
pub fn cached(members: &[Arc<Member>], scope: &Scope<'_>) -> Result<Vec<proto::DatabaseStatus>, Failure> {
    let seen: Vec<_> = members.iter().map(|member| (member, member.seen())).collect();
    let lacks = |(_, seen): &(&Arc<Member>, Arc<Seen>)| {
        let (Some(last), Some(glance)) = (&seen.last, &seen.glance) else {
            return Lacks::Unknown;
        };
        let is_dirty = |it: &Finding| {
            matches!(it.kind, FindingKind::Dirty | FindingKind::AttemptInterrupted) && {
                let version = Version::from_row(&it.subject);
                version.is_meant_by(scope.missing)
            }
        };
        let is_pending = glance.pending().any(|it| it.version.is_meant_by(scope.missing));
        if is_pending || last.findings.iter().any(is_dirty) {
            Lacks::Yes
        } else if glance.catalog.find(scope.missing).is_some() {
            Lacks::No
        } else {
            Lacks::NoSuch
        }
    };
    let told = filtered(&seen, scope.missing, lacks)?.into_iter().map(|(member, seen)| {
        let mut status = seen.last.as_ref().map_or_else(unseen, |last| of_seen(last, seen));
        member.name().clone_into(&mut status.database);
        status.labels = convert::labels(member);
        status
    });
    Ok(told.collect())
}

/// Whether a version is not in place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Lacks {
    Yes,
    No,
    /// Neither the directory nor a row has it.
    NoSuch,
    /// The database could not be read: it may.
    Unknown,
}

fn filtered<'a, T>(all: &'a [T], missing: &str, lacks: impl Fn(&T) -> Lacks) -> Result<Vec<&'a T>, Failure> {
    if missing.is_empty() {
        return Ok(all.iter().collect());
    }
    let lacking: Vec<_> = all.iter().map(|it| (it, lacks(it))).collect();
    if !lacking.iter().any(|(_, lacks)| matches!(lacks, Lacks::Yes | Lacks::No)) {
        let message = format!("No migration {missing} is known: no directory has it, and no database");
        return Err(Failure::new(Code::UnknownVersion, message));
    }
    let kept = lacking.into_iter().filter(|(_, lacks)| matches!(lacks, Lacks::Yes | Lacks::Unknown));
    Ok(kept.map(|(it, _)| it).collect())
}

fn brief(mut status: proto::DatabaseStatus, is_brief: bool) -> proto::DatabaseStatus {
    if is_brief {
        let applied = proto::MigrationState::Applied;
        status.migrations.retain(|it| it.state() != applied || !it.findings.is_empty());
    }
    status
}

fn unseen() -> proto::DatabaseStatus {
    let failure = Failure::new(Code::Unreachable, "The daemon has not looked at it yet")
        .hint("wait for its first look, or leave --cached out");
    proto::DatabaseStatus { failure: Some(convert::failure(&failure)), ..Default::default() }
}

fn of_seen(observation: &Observation, seen: &Seen) -> proto::DatabaseStatus {
    let mut status = proto::DatabaseStatus {
        observed_at: Some(convert::timestamp(observation.time)),
        ..Default::default()
    };
    let directory = observation.findings.iter().find(|it| it.kind == FindingKind::DirectoryUnreadable);
    let told = |code, finding: &Finding| convert::failure(&Failure::new(code, finding.message.clone()));
    let (Some(counts), Some(glance)) = (observation.counts, &seen.glance) else {
        let why = observation.findings.iter().find_map(|finding| {
            let code = match finding.kind {
                FindingKind::DatabaseUnreachable => Code::Unreachable,
                FindingKind::ForeignTable => Code::ForeignTable,
                FindingKind::TableGone => Code::TableGone,
                FindingKind::DirectoryUnreadable => Code::DirectoryUnreadable,
                _ => return None,
            };
            Some(told(code, finding))
        });
        let passing = || convert::failure(&Failure::new(Code::Unreachable, "It could not be looked at"));
        status.failure = Some(why.unwrap_or_else(passing));
        return status;
    };
    status.catalog_failure = directory.map(|finding| told(Code::DirectoryUnreadable, finding));
    status.applied = counts.applied;
    status.pending = counts.pending;
    status.dirty = counts.dirty;
    status.drift = counts.drift;
    status.missing = counts.missing;
    status.current_version = observation.newest.as_ref().map(ToString::to_string).unwrap_or_default();
    if observation.unknown.contains(&FindingKind::Dirty) {
        "a run that was under way".clone_into(&mut status.lock_holder);
    }
    let pending = glance.pending().map(|migration| proto::MigrationStatus {
        version: migration.version.to_string(),
        state: proto::MigrationState::Pending.into(),
        checksum: migration.up.checksums.raw.hex(),
        ..Default::default()
    });
    let mut migrations: BTreeMap<_, _> = pending.map(|it| (number(&it.version), it)).collect();
    for finding in &observation.findings {
        let (state, kind) = match finding.kind {
            FindingKind::Dirty | FindingKind::AttemptInterrupted => (proto::MigrationState::Dirty, None),
            FindingKind::ChecksumDrift
            | FindingKind::LineEndings
            | FindingKind::MissingFile
            | FindingKind::OutOfOrder
            | FindingKind::NoDown => (proto::MigrationState::Applied, Some(finding.kind)),
            FindingKind::UnknownRow => (proto::MigrationState::Applied, Some(FindingKind::MissingFile)),
            _ => continue,
        };
        status.out_of_order += u32::from(finding.kind == FindingKind::OutOfOrder);
        let migration =
            migrations.entry(number(&finding.subject)).or_insert_with(|| proto::MigrationStatus {
                version: finding.subject.clone(),
                state: state.into(),
                ..Default::default()
            });
        if state == proto::MigrationState::Dirty {
            migration.state = state.into();
            finding.evidence.first().cloned().unwrap_or_default().clone_into(&mut migration.explanation);
        }
        migration.findings.extend(kind.map(|kind| i32::from(convert::finding_kind(kind))));
    }
    status.migrations = migrations.into_values().collect();
    status
}

/// The order of versions: by number, then by text.
fn number(version: &str) -> (u64, String) {
    (Version::from_row(version).number(), version.to_owned())
}
