//! Of several daemons with one control database, one leads: it looks at the databases, looks for new
//! ones, makes the audits that are due, and tells of alerts. The others show what it keeps, and one of
//! them succeeds where it ends.
//!
//! Taking over has an order. First the alerts are read, so that nothing that is told afterwards finds
//! nobody who knows what was told before; then come those who tell. Giving up goes the other way, and
//! while this daemon still leads: what the alerts' sinks were told is kept before another one reads it.

use std::{sync::Arc, time::Duration};

use tokio::{
    sync::Notify,
    time::{Instant, sleep, timeout},
};
use tokio_util::sync::CancellationToken;

use crate::{
    alert::Alerts,
    control::{Control, leader::Leadership},
    daemon::{access::Doors, alerts, inventories::Inventories},
    fleet::{Fleet, SeenElsewhere, SeenHere, audit::Audits},
    migration::Failure,
    telemetry::Metrics,
};

/// How often what is seen is kept, and what is kept is shown.
const PERIOD: Duration = Duration::from_secs(1);

/// How often what is old is forgotten.
const FORGET_PERIOD: Duration = Duration::from_hours(1);

/// How long it may take to give the leadership up.
const HANDING_OVER: Duration = Duration::from_secs(5);

/// Everything that one daemon of several does.
pub(super) struct Leading {
    pub(super) control: Arc<Control>,
    pub(super) fleet: Arc<Fleet>,
    pub(super) inventories: Arc<Inventories>,
    pub(super) alerts: Alerts,
    pub(super) audits: Arc<Audits>,
    pub(super) doors: Arc<Doors>,
    pub(super) metrics: Metrics,
    /// For how long operations and audits are kept.
    pub(super) keep_days: u32,
}

impl Leading {
    /// Follows, and leads where nobody else does, until `stop`.
    pub(super) async fn run(self, stop: CancellationToken) {
        self.let_go();
        tokio::select! {
            () = self.control.opened() => {}
            () = stop.cancelled() => return,
        }
        let mut elsewhere = SeenElsewhere::default();
        loop {
            let leadership = tokio::select! {
                leadership = self.follow(&mut elsewhere) => leadership,
                () = stop.cancelled() => return,
            };
            self.lead(leadership, &stop).await;
            if stop.is_cancelled() {
                return;
            }
        }
    }

    /// Shows what the leader keeps, until there is none and this daemon becomes it.
    async fn follow(&self, elsewhere: &mut SeenElsewhere) -> Leadership {
        let mut shown: Option<Instant> = None;
        loop {
            match self.control.lead().await {
                Ok(Some(leadership)) => return leadership,
                Ok(None) => {}
                Err(failure) => tracing::debug!(%failure, "it cannot be seen who leads"),
            }
            if shown.is_none_or(|at| at.elapsed() >= PERIOD) {
                if let Err(failure) = self.show(elsewhere).await {
                    tracing::debug!(%failure, "what the leader keeps cannot be read");
                }
                shown = Some(Instant::now());
            }
            sleep(self.control.rhythm().min(PERIOD)).await;
        }
    }

    async fn show(&self, elsewhere: &mut SeenElsewhere) -> Result<(), Failure> {
        self.alerts.refresh().await?;
        self.inventories.follow().await?;
        self.fleet.show_seen(&self.control, elsewhere).await
    }

    /// Leads as long as that lasts.
    async fn lead(&self, mut leadership: Leadership, stop: &CancellationToken) {
        let errands = Notify::new();
        let lost = tokio::select! {
            lost = leadership.hold(&errands) => Some(lost),
            failure = self.work(&errands) => {
                tracing::warn!(reason = %failure, "this daemon cannot lead");
                None
            }
            () = stop.cancelled() => None,
        };
        // It is over for everybody who asks, before anything waits.
        let leadership = lost.is_none().then_some(leadership);
        self.let_go();
        if let Some(reason) = lost {
            tracing::warn!(%reason, "this daemon leads no more");
        }
        if timeout(HANDING_OVER, self.alerts.follow()).await.is_err() {
            tracing::warn!("the alerts were not kept in time: sinks may be told the same again");
        }
        if let Some(leadership) = leadership {
            leadership.resign().await;
        }
    }

    /// Does not do any more what only the leader does.
    fn let_go(&self) {
        self.fleet.lead(false);
        self.audits.follow();
        self.metrics.leads(false);
    }

    /// Takes everything over, and does from then on what nobody else is at work on; ends with a failure.
    async fn work(&self, errands: &Notify) -> Failure {
        match self.take_over().await {
            Ok(()) => tracing::info!("this daemon leads"),
            Err(failure) => return failure,
        }
        let mut here = SeenHere::default();
        let mut ticks = tokio::time::interval(PERIOD);
        let mut forget = tokio::time::interval(FORGET_PERIOD);
        loop {
            tokio::select! {
                _ = ticks.tick() => {
                    if let Err(failure) = self.fleet.keep_seen(&self.control, &mut here).await {
                        tracing::debug!(%failure, "what was seen cannot be kept");
                    }
                    for report in self.audits.heard().await {
                        self.metrics.audited_elsewhere(&report);
                    }
                }
                () = errands.notified() => self.run_errands().await,
                _ = forget.tick() => {
                    if let Err(failure) = self.forget().await {
                        tracing::debug!(%failure, "what is old cannot be forgotten");
                    }
                }
            }
        }
    }

    async fn take_over(&self) -> Result<(), Failure> {
        let standing = self.alerts.lead().await?;
        self.metrics.leads(true);
        alerts::count(standing, &self.metrics);
        self.inventories.lead().await?;
        for report in self.audits.lead().await? {
            self.metrics.audited_elsewhere(&report);
        }
        self.fleet.lead(true);
        self.doors.tell_again();
        Ok(())
    }

    /// Does what other daemons ask of the leader.
    async fn run_errands(&self) {
        loop {
            let errand = match self.control.take_errand(&[], true).await {
                Ok(Some(errand)) => errand,
                Ok(None) => return,
                Err(failure) => return tracing::debug!(%failure, "errands cannot be read"),
            };
            let answer = match self.inventories.answer(&errand.document) {
                Some(answer) => Some(answer),
                None => self.alerts.answer(&errand.document).await,
            };
            let Some(answer) = answer else {
                tracing::warn!("another daemon asks for something that this one does not know");
                continue;
            };
            if let Err(failure) = self.control.answer_errand(errand.id, &answer).await {
                tracing::debug!(%failure, "an errand cannot be answered");
            }
        }
    }

    async fn forget(&self) -> Result<(), Failure> {
        let days = i32::try_from(self.keep_days).unwrap_or(i32::MAX);
        self.control.forget_operations(days).await?;
        self.audits.forget(days).await?;
        self.control.forget_errands().await
    }
}
