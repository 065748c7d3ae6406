//! The gate after a wave: asked on each of its databases that came out well.

use std::{sync::Arc, time::Duration};

use futures_util::StreamExt as _;
use tokio::time::Instant;

use crate::{
    engine::{self, GateVerdict},
    fleet::{inventory::Member, run::Attempt, strategy::Gate},
    migration::{DatabaseState, EventKind, EventSink as _, GateOutcome},
};

/// How often the alerts are looked at.
const LOOK: Duration = Duration::from_millis(250);

/// How the gate of a wave came out.
pub(super) enum Answer {
    /// It holds on every database, or there is none.
    Holds,
    /// It does not hold on one.
    Fails(String),
    /// It could not be decided on one, and failed on none.
    Open(String),
    /// The operation is cancelled.
    Stopped,
}

impl Attempt {
    /// Asks the gate on each database of a wave. It ends with the first on which it does not hold.
    pub(super) async fn gate(&self, index: usize) -> Answer {
        let Some(gate) = &self.strategy.gate else { return Answer::Holds };
        let drain = self.operation.to_work_with().stop.drain;
        tokio::select! {
            answer = self.asked(gate, index) => answer,
            () = drain.cancelled() => Answer::Stopped,
        }
    }

    async fn asked(&self, gate: &Gate, index: usize) -> Answer {
        tokio::time::sleep(gate.wait).await;
        let work = self.operation.to_work_with();
        let wave = self.wave_of(index);
        let names = self.waves.get(index).map(|wave| wave.databases.as_slice()).unwrap_or_default();
        let is_well = |name: &&String| self.state_of(name).is_some_and(DatabaseState::is_well);
        let members: Vec<_> =
            names.iter().filter(is_well).filter_map(|name| work.members.get(name).cloned()).collect();
        let ask = |member: Arc<Member>| async move {
            let verdict = self.ask(gate, &member).await;
            (member, verdict)
        };
        let mut open = Vec::new();
        let mut asked =
            futures_util::stream::iter(members.into_iter().map(ask)).buffer_unordered(self.parallel());
        while let Some((member, (outcome, reason))) = asked.next().await {
            let name = member.name().to_owned();
            let kind = EventKind::GateChecked { wave: wave.clone(), outcome, reason: reason.clone() };
            self.operation.update_database(&name, |database| database.gate = Some((outcome, reason.clone())));
            work.sink.emit(&name, kind);
            match outcome {
                GateOutcome::Passed => {}
                GateOutcome::Failed => {
                    return Answer::Fails(format!(
                        "the gate after {} did not hold on {name}: {reason}",
                        wave.name
                    ));
                }
                GateOutcome::Inconclusive => open.push(format!("{name}: {reason}")),
            }
        }
        let more = open.len().saturating_sub(1);
        let Some(first) = open.into_iter().next() else { return Answer::Holds };
        let more = if more == 0 { String::new() } else { format!(", and on {more} more") };
        let what = "could not be decided; look, then resume or cancel";
        Answer::Open(format!("the gate after {} {what}: {first}{more}", wave.name))
    }

    async fn ask(&self, gate: &Gate, member: &Member) -> (GateOutcome, String) {
        let until = Instant::now() + gate.limit;
        if let Some(sql) = &gate.sql {
            let _place = member.gate_place().await;
            match engine::gate(&member.database, sql, gate.limit).await {
                GateVerdict::Passed => {}
                GateVerdict::Failed => {
                    return (GateOutcome::Failed, "its statement returned false".to_owned());
                }
                GateVerdict::Inconclusive(why) => return (GateOutcome::Inconclusive, why),
            }
        }
        if gate.no_alerts {
            return self.no_alerts(member, until).await;
        }
        (GateOutcome::Passed, String::new())
    }

    async fn no_alerts(&self, member: &Member, until: Instant) -> (GateOutcome, String) {
        loop {
            let alerts = self.fleet.open_alerts(member.name());
            if alerts.is_empty() {
                return (GateOutcome::Passed, String::new());
            }
            if Instant::now() >= until {
                return (GateOutcome::Failed, format!("open alerts: {}", alerts.join(", ")));
            }
            tokio::time::sleep(LOOK).await;
        }
    }
}
