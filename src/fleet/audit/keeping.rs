//! Audits in the control database: each daemon adds those that it makes and shows those of all; the
//! one that leads keeps the schedules, and goes on with them where another left off.

use std::sync::{Arc, Mutex as StdMutex, MutexGuard, PoisonError};

use jiff::Timestamp;
use tokio::sync::Mutex;
use tokio_util::sync::DropGuard;
use uuid::Uuid;

use crate::{
    control::{Control, documents::Mirror},
    engine::OF_THE_SCHEMA,
    fleet::{
        audit::{Audits, MOST_AUDITS, MOST_ENTRIES, Scheduled, bound},
        kept,
    },
    migration::{AuditReport, Failure, FindingKind, Observation},
};

/// What the documents of audits are called.
const KIND: &str = "audit";

/// What the documents are called that tell when a schedule was last seen to.
const RUNS: &str = "audit_schedule";

/// The control database, as far as it is about audits.
pub(super) struct Keeping {
    control: Arc<Control>,
    mirror: Mutex<Mirror>,
    /// Those that others have made, and that the leader has not heard of yet.
    unheard: StdMutex<Vec<Arc<AuditReport>>>,
    /// Ends the schedules, as long as they are kept here.
    schedules: StdMutex<Option<DropGuard>>,
}

impl Keeping {
    pub(super) fn new(control: Arc<Control>) -> Self {
        let mirror = Mutex::new(Mirror::new(KIND));
        Self { control, mirror, unheard: StdMutex::default(), schedules: StdMutex::default() }
    }

    /// Whether this daemon leads at this very moment.
    pub(super) fn leads(&self) -> bool {
        self.control.leads()
    }

    /// Keeps an audit that this daemon has made; without the control database it stays in memory.
    pub(super) async fn keep(&self, report: &AuditReport) {
        if let Err(failure) = self.control.add(KIND, &report.id.to_string(), &kept::audit(report)).await {
            let audit = report.id.to_string();
            tracing::warn!(audit, %failure, "the audit cannot be kept: only this daemon shows it");
        }
    }

    /// Keeps that a schedule was seen to.
    pub(super) async fn made(&self, scheduled: &Scheduled, now: Timestamp) {
        let run = (scheduled.name.clone(), kept::run(&scheduled.schedule, now));
        if let Err(failure) = self.control.write(RUNS, &[run], &[]).await {
            let audit = &scheduled.name;
            tracing::warn!(audit, %failure, "it cannot be kept that the audit was made: it may be made again");
        }
    }

    fn unheard(&self) -> MutexGuard<'_, Vec<Arc<AuditReport>>> {
        self.unheard.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn schedules(&self) -> MutexGuard<'_, Option<DropGuard>> {
        self.schedules.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Audits {
    /// Keeps the schedules from now on: what was due while nobody led is made up for, once. Returns what
    /// is remembered, the oldest first.
    pub async fn lead(self: &Arc<Self>) -> Result<Vec<Arc<AuditReport>>, Failure> {
        let Some(keeping) = &self.keeping else { return Ok(Vec::new()) };
        self.refresh(keeping).await?;
        // What was found before is not how it is now.
        keeping.unheard().clear();
        let runs = keeping.control.documents(RUNS).await?;
        let stop = self.fleet.stop.drain.child_token();
        for scheduled in &self.scheduled {
            let kept = runs.iter().find(|run| run.key == scheduled.name);
            let last = kept.and_then(|run| kept::last_run(&scheduled.schedule, &run.body));
            let now = Timestamp::now();
            if last.is_none() {
                keeping.made(scheduled, now).await;
            }
            self.keep(scheduled, last.unwrap_or(now), stop.clone());
        }
        *keeping.schedules() = Some(stop.drop_guard());
        Ok(self.remembered().iter().rev().cloned().collect())
    }

    /// Leaves the schedules to another daemon.
    pub fn follow(&self) {
        if let Some(keeping) = &self.keeping {
            drop(keeping.schedules().take());
        }
    }

    /// The audits that others have made since it was last asked, for the leader. What only audits look at
    /// is told here; the rest its own looks tell, which are newer.
    pub async fn heard(&self) -> Vec<Arc<AuditReport>> {
        let Some(keeping) = &self.keeping else { return Vec::new() };
        self.hear_of_others().await;
        let heard = std::mem::take(&mut *keeping.unheard());
        for seen in heard.iter().flat_map(|report| &report.databases) {
            self.fleet.tell(&of_the_schema(seen));
        }
        heard
    }

    /// Forgets audits that were made longer ago than so many days, and of many the oldest.
    pub async fn forget(&self, days: i32) -> Result<(), Failure> {
        let Some(keeping) = &self.keeping else { return Ok(()) };
        let most = i64::try_from(MOST_AUDITS).unwrap_or(i64::MAX);
        keeping.control.forget_documents(KIND, days, most).await
    }

    /// Remembers what others have made. Without the control database, what is remembered is shown.
    pub(super) async fn hear_of_others(&self) {
        let Some(keeping) = &self.keeping else { return };
        if let Err(failure) = self.refresh(keeping).await {
            tracing::debug!(%failure, "the audits of other daemons cannot be read");
        }
    }

    async fn refresh(&self, keeping: &Keeping) -> Result<(), Failure> {
        let mut mirror = keeping.mirror.lock().await;
        let changes = mirror.refresh(&keeping.control).await?;
        let written = changes.written.iter().filter_map(|document| kept::revive_audit(&document.body));
        let gone: Vec<_> = changes.gone.iter().filter_map(|key| Uuid::parse_str(key).ok()).collect();
        let (mut remembered, mut unheard) = (self.remembered(), keeping.unheard());
        remembered.retain(|report| !gone.contains(&report.id));
        for report in written {
            if !remembered.iter().any(|known| known.id == report.id) {
                let report = Arc::new(report);
                if keeping.leads() {
                    unheard.push(report.clone());
                }
                remembered.push_front(report);
            }
        }
        remembered.make_contiguous().sort_by_key(|report| std::cmp::Reverse(report.ended));
        bound(&mut remembered, MOST_AUDITS, MOST_ENTRIES);
        Ok(())
    }
}

/// Of what an audit saw, what only audits look at.
fn of_the_schema(seen: &Observation) -> Observation {
    let is_it = |kind: &FindingKind| OF_THE_SCHEMA.contains(kind);
    let others = FindingKind::ALL.iter().filter(|kind| !is_it(kind) || seen.unknown.contains(kind));
    Observation {
        counts: None,
        findings: seen.findings.iter().filter(|finding| is_it(&finding.kind)).cloned().collect(),
        unknown: others.copied().collect(),
        ..seen.clone()
    }
}
