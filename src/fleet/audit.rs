//! Audits: read-only looks at everything that may be wrong, on schedules or on request, and what the
//! last ones found. They are remembered in memory, where a daemon that starts again begins with none, or
//! in the control database ([`keeping`]), where the daemon that leads keeps the schedules.

mod keeping;
mod turns;

use std::{
    collections::{BTreeMap, VecDeque},
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Instant,
};

use jiff::Timestamp;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::{
    access::Permit,
    control::Control,
    engine::Depth,
    fleet::{
        Fleet,
        audit::{keeping::Keeping, turns::Turns},
        schedule::{Agenda, Schedule},
        selector::Selection,
    },
    migration::{AuditReport, Code, EventKind, EventSink as _, Failure, Observation, catalog::CatalogResult},
    source::Directory,
};

/// The name of an audit that somebody asked for.
const MANUAL: &str = "manual";

/// How many audits are remembered.
const MOST_AUDITS: usize = 100;

/// How many databases and findings the remembered audits hold in all; the newest one stays however
/// large it is.
const MOST_ENTRIES: usize = 20_000;

/// One audit that runs by itself.
#[derive(Debug, Clone)]
pub struct Scheduled {
    /// Its name in the configuration.
    pub name: String,
    /// When it runs.
    pub schedule: Schedule,
    /// What it looks at.
    pub selection: Selection,
}

/// The audits of one fleet.
pub struct Audits {
    fleet: Arc<Fleet>,
    scheduled: Vec<Scheduled>,
    /// The newest first.
    remembered: Mutex<VecDeque<Arc<AuditReport>>>,
    /// `None` where they are remembered in memory only.
    keeping: Option<Keeping>,
    /// Those that somebody asked for, and that run.
    turns: Arc<Turns>,
}

impl Audits {
    /// Nothing was audited yet, or what the control database knows.
    pub fn new(fleet: Arc<Fleet>, scheduled: Vec<Scheduled>, control: Option<Arc<Control>>) -> Arc<Self> {
        let keeping = control.map(Keeping::new);
        Arc::new(Self { fleet, scheduled, remembered: Mutex::default(), keeping, turns: Arc::default() })
    }

    /// Begins to keep the schedules, each in a task of its own, until the fleet is shut down. With a
    /// control database, that is for [`Audits::lead`].
    pub fn start(self: &Arc<Self>) {
        if self.keeping.is_none() {
            for scheduled in &self.scheduled {
                self.keep(scheduled, Timestamp::now(), self.fleet.stop.drain.clone());
            }
        }
    }

    /// The schedules, in the order of the configuration.
    pub fn scheduled(&self) -> &[Scheduled] {
        &self.scheduled
    }

    /// Audits the selected databases now. It goes on where whoever asked for it goes away. Refused where
    /// too many run already.
    pub async fn request(
        self: &Arc<Self>,
        selection: Selection,
        permit: Permit,
    ) -> Result<Arc<AuditReport>, Failure> {
        let (audits, turn) = (self.clone(), self.turns.take(permit.caller())?);
        let audit = async move {
            let _turn = turn;
            Ok(audits.end(audits.look(MANUAL, &selection, &permit).await?).await)
        };
        let ended = self.fleet.tasks.spawn("audit", audit).await;
        ended.map_err(|_| Failure::new(Code::Internal, "The audit ended unexpectedly"))?
    }

    /// The last audits, the newest first, with the databases that the caller may see.
    pub async fn list(&self, limit: usize, permit: &Permit) -> Result<Vec<Arc<AuditReport>>, Failure> {
        self.fleet.what_is_kept_is_known()?;
        self.hear_of_others().await;
        Ok(self.seen(permit).take(limit).collect())
    }

    /// The one audit whose id begins so; the newest where nothing is given. It has the databases that the
    /// caller may see.
    pub async fn find(&self, id: &str, permit: &Permit) -> Result<Arc<AuditReport>, Failure> {
        self.fleet.what_is_kept_is_known()?;
        self.hear_of_others().await;
        let id = id.to_ascii_lowercase();
        let remembered: Vec<_> = self.seen(permit).collect();
        let is_meant = |report: &&Arc<AuditReport>| report.id.to_string().starts_with(&id);
        let mut found = remembered.iter().filter(is_meant);
        match (found.next(), found.next()) {
            (None, _) if id.is_empty() => Err(Failure::new(Code::UnknownAudit, "No audit was made yet")),
            (None, _) => Err(Failure::new(Code::UnknownAudit, format!("No audit {id} is remembered"))),
            (Some(_), Some(_)) if !id.is_empty() => {
                let ids = remembered.iter().filter(is_meant).map(|report| report.id.to_string()).collect();
                Err(Failure::new(Code::BadRequest, format!("Several audits begin with {id}")).details(ids))
            }
            (Some(report), _) => Ok(report.clone()),
        }
    }

    /// The audits, the newest first, as far as the caller may see them.
    fn seen(&self, permit: &Permit) -> impl Iterator<Item = Arc<AuditReport>> + use<> {
        let remembered: Vec<_> = self.remembered().iter().cloned().collect();
        let (sight, sees_everything) = (self.fleet.sight(permit), permit.sees_everything());
        remembered.into_iter().filter_map(move |report| {
            if sees_everything {
                return Some(report);
            }
            let mut report = AuditReport::clone(&report);
            report.databases.retain(|seen| sight.sees(&seen.database));
            (!report.databases.is_empty()).then(|| Arc::new(report))
        })
    }

    /// The up files of the migrations that an audit's findings are about, by version, for each of its
    /// databases: as the directories are now.
    pub async fn files(&self, report: &AuditReport) -> Vec<BTreeMap<String, PathBuf>> {
        // Each directory is read once.
        let mut catalogs: Vec<(Arc<Directory>, CatalogResult)> = Vec::new();
        let inventory = self.fleet.inventory();
        let mut files = Vec::with_capacity(report.databases.len());
        for Observation { database, findings, .. } in &report.databases {
            let member = inventory.get(database).filter(|_| !findings.is_empty());
            let Some(member) = member else {
                files.push(BTreeMap::new());
                continue;
            };
            let is_of = |(directory, _): &&(Arc<Directory>, _)| Arc::ptr_eq(directory, &member.directory);
            let known = catalogs.iter().find(is_of).map(|(_, catalog)| catalog.clone());
            let catalog = if let Some(catalog) = known {
                catalog
            } else {
                let catalog = member.catalog().await;
                catalogs.push((member.directory.clone(), catalog.clone()));
                catalog
            };
            let migrations = catalog.iter().flat_map(|catalog| catalog.migrations());
            let is_meant = |version: &str| findings.iter().any(|finding| finding.subject == version);
            let concerned = migrations.filter(|migration| is_meant(migration.version.as_str()));
            files.push(concerned.map(|it| (it.version.to_string(), it.up.path.clone())).collect());
        }
        files
    }

    /// Keeps one schedule until it is to stop, from when it was last seen to. While an audit runs, the
    /// schedule waits: there is one of it at a time.
    fn keep(self: &Arc<Self>, scheduled: &Scheduled, last: Timestamp, stop: CancellationToken) {
        let (audits, scheduled) = (self.clone(), scheduled.clone());
        self.fleet.tasks.spawn_vital("audit-schedule", async move {
            let mut agenda = Agenda::new(&scheduled.schedule, last, Timestamp::now());
            while let Some(nap) = agenda.nap() {
                tokio::select! {
                    () = tokio::time::sleep(nap) => {}
                    () = stop.cancelled() => return,
                }
                let now = Timestamp::now();
                if agenda.is_due(now) {
                    tokio::select! {
                        () = audits.make(&scheduled, now) => {}
                        () = stop.cancelled() => return,
                    }
                }
            }
        });
    }

    /// Makes an audit that is due.
    async fn make(&self, scheduled: &Scheduled, now: Timestamp) {
        let leads = || self.keeping.as_ref().is_none_or(Keeping::leads);
        if !leads() {
            return;
        }
        let made = self.look(&scheduled.name, &scheduled.selection, &Permit::of_the_daemon()).await;
        // Whoever leads by now makes it.
        if !leads() {
            return;
        }
        match made {
            Ok(report) => drop(self.end(report).await),
            Err(failure) if failure.code == Code::ShuttingDown => return,
            Err(failure) => tracing::warn!(audit = scheduled.name, %failure, "the audit could not be made"),
        }
        if let Some(keeping) = &self.keeping {
            keeping.made(scheduled, now).await;
        }
    }

    async fn look(&self, name: &str, selection: &Selection, permit: &Permit) -> Result<AuditReport, Failure> {
        let (started, clock) = (Timestamp::now(), Instant::now());
        let databases = tokio::select! {
            databases = self.fleet.observe(selection, Depth::Everything, permit) => databases?,
            () = self.fleet.stop.drain.cancelled() => {
                return Err(Failure::new(Code::ShuttingDown, "The daemon is stopping"));
            }
        };
        // The end is by the clock that does not jump.
        let ended = started.checked_add(clock.elapsed()).unwrap_or(started);
        Ok(AuditReport { id: Uuid::now_v7(), name: name.to_owned(), started, ended, databases })
    }

    /// Remembers an audit and tells of it.
    async fn end(&self, report: AuditReport) -> Arc<AuditReport> {
        let remembered = self.remember(report.clone());
        if let Some(keeping) = &self.keeping {
            keeping.keep(&report).await;
        }
        self.fleet.sink(Uuid::nil(), None).emit("", EventKind::AuditFinished(Box::new(report)));
        remembered
    }

    fn remember(&self, report: AuditReport) -> Arc<AuditReport> {
        let report = Arc::new(report);
        let mut remembered = self.remembered();
        remembered.push_front(report.clone());
        bound(&mut remembered, MOST_AUDITS, MOST_ENTRIES);
        report
    }

    fn remembered(&self) -> MutexGuard<'_, VecDeque<Arc<AuditReport>>> {
        self.remembered.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Forgets the oldest audits, so that at most so many stay with at most so many databases and findings
/// in all. The newest one stays.
fn bound(remembered: &mut VecDeque<Arc<AuditReport>>, audits: usize, entries: usize) {
    let mut sum = 0;
    let fits = |report: &&Arc<AuditReport>| {
        sum += report.databases.iter().map(|database| 1 + database.findings.len()).sum::<usize>();
        sum <= entries
    };
    let most = remembered.iter().take(audits).take_while(fits).count();
    remembered.truncate(most.max(1));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::migration::{Finding, FindingKind};

    #[test]
    fn what_is_remembered_is_bounded() {
        // The findings of each audit's one database, the newest first.
        let check = |findings: &[usize], expected: usize| {
            let report = |count: &usize| {
                let database = Observation {
                    database: "orders".into(),
                    time: Timestamp::UNIX_EPOCH,
                    counts: None,
                    newest: None,
                    findings: vec![Finding::new(FindingKind::Dirty, "1", "is dirty"); *count],
                    unknown: Vec::new(),
                };
                let (started, ended) = (Timestamp::UNIX_EPOCH, Timestamp::UNIX_EPOCH);
                let (id, name) = (Uuid::nil(), "nightly".to_owned());
                Arc::new(AuditReport { id, name, started, ended, databases: vec![database] })
            };
            let mut remembered: VecDeque<_> = findings.iter().map(report).collect();
            bound(&mut remembered, 3, 10);
            let kept: Vec<_> = remembered.iter().map(|report| report.databases[0].findings.len()).collect();
            assert_eq!(kept, findings[..expected], "{findings:?}");
        };
        check(&[0], 1);
        check(&[0, 0, 0, 0], 3);
        check(&[4, 4, 0], 2);
        check(&[4, 5, 0], 1);
        check(&[99], 1);
        check(&[99, 0], 1);
    }
}
