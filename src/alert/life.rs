//! The life of alerts, without a clock, a disk or a network: what was seen and what time it is go
//! in, the alerts that are in another state now come out.
//!
//! A finding begins a life that is pending; after the hold-off it fires; when it is no longer seen,
//! it is resolved. One that comes back within the flap window goes on with its old life, and the
//! next time its end is believed only after it has stayed away for a while: so a flapping alert
//! fires, is resolved, fires again, and then stands until it is really over.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    time::Duration,
};

use jiff::Timestamp;
use uuid::Uuid;

use crate::migration::{
    Acknowledgement, Alert, AlertState, Code, Failure, Finding, FindingKind, Observation, Severity,
    event::InventoryChange,
};

/// How many alerts there may be: of more, no life begins.
const MOST: usize = 10_000;

/// How many alerts that are over are remembered.
const MOST_RESOLVED: usize = 2_000;

/// For how long they are.
const REMEMBERED: Duration = Duration::from_hours(24);

/// How patient the machine is.
#[derive(Debug, Clone, Copy)]
pub(super) struct Rules {
    /// How long a finding has to stand before its alert fires.
    pub(super) hold: Duration,
    /// Within what time an alert that comes back is the same one.
    pub(super) flap_window: Duration,
}

/// A sink, as far as the lives know of it.
#[derive(Debug, Clone)]
pub(super) struct Audience {
    /// Its name in the configuration.
    pub(super) name: String,
    /// The least severity that it is told of.
    pub(super) least: Severity,
}

/// One alert, and what has to be known of it beside.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Life {
    /// The alert.
    pub(super) alert: Alert,
    /// Since when a flapping alert, whose end is not yet believed, has not been seen.
    pub(super) gone: Option<Timestamp>,
    /// Counts what sinks have to be told.
    pub(super) revision: u32,
    /// The newest revision that each sink has been told; 0 where it is still to be told the first.
    pub(super) delivered: BTreeMap<String, u32>,
}

/// What a sink has to be told of an alert.
#[derive(Debug, Clone)]
pub(super) struct Telling {
    /// The alert.
    pub(super) alert: Alert,
    /// Which of its revisions this is.
    pub(super) revision: u32,
}

/// What came of an observation, or of time.
#[derive(Debug, Default)]
pub(super) struct Outcome {
    /// The alerts that are in another state, as they stand now.
    pub(super) changed: Vec<Alert>,
    /// The sinks that were never told of an alert that is forgotten now, once for each.
    pub(super) dropped: Vec<String>,
    /// How many findings have no alert, because there are too many.
    pub(super) refused: usize,
}

type Key = (String, FindingKind, String);

/// All lives.
#[derive(Debug)]
pub(super) struct Lives {
    rules: Rules,
    audiences: Vec<Audience>,
    /// The last life of each finding.
    current: BTreeMap<Key, Life>,
    /// Lives of findings that have a newer one.
    past: Vec<Life>,
}

impl Audience {
    fn hears_of(&self, alert: &Alert) -> bool {
        alert.finding.kind.severity() >= self.least
    }
}

impl Life {
    fn begin(database: &str, finding: &Finding, now: Timestamp) -> Self {
        let alert = Alert {
            id: Uuid::now_v7(),
            database: database.to_owned(),
            finding: finding.clone(),
            state: AlertState::Pending,
            started: now,
            fired: None,
            resolved: None,
            acknowledged: None,
            flaps: 0,
        };
        Self::of(alert)
    }

    /// An alert of which nobody was told yet.
    pub(super) fn of(alert: Alert) -> Self {
        Self { alert, gone: None, revision: 0, delivered: BTreeMap::new() }
    }

    /// The finding is there. Says whether the alert is in another state.
    fn seen(&mut self, finding: &Finding, now: Timestamp) -> bool {
        if self.gone.take().is_some() {
            self.alert.flaps += 1;
        }
        self.alert.finding.clone_from(finding);
        if self.alert.resolved.is_none() {
            return false;
        }
        self.alert.flaps += 1;
        self.alert.resolved = None;
        self.alert.acknowledged = None;
        self.fire(now);
        true
    }

    /// The finding is not there.
    fn missed(&mut self, now: Timestamp) -> bool {
        match self.alert.state {
            AlertState::Pending => self.resolve(now),
            AlertState::Firing | AlertState::Acknowledged => {
                self.gone.get_or_insert(now);
                return false;
            }
            AlertState::Resolved => return false,
        }
        true
    }

    /// It is `now`.
    fn advance(&mut self, now: Timestamp, rules: Rules) -> bool {
        let until = self.alert.acknowledged.as_ref().and_then(|acknowledged| acknowledged.until);
        // A clock that was put back must not lengthen the wait for the end.
        self.gone = self.gone.map(|gone| gone.min(now));
        match (self.alert.state, self.gone) {
            (AlertState::Pending, _) => {
                // A clock that was put back must not lengthen the hold-off.
                self.alert.started = self.alert.started.min(now);
                let held = elapsed(self.alert.started, now) >= rules.hold;
                if held {
                    self.fire(now);
                }
                held
            }
            (AlertState::Firing | AlertState::Acknowledged, Some(gone))
                if elapsed(gone, now) >= quiet(self.alert.flaps, rules) =>
            {
                self.resolve(now);
                true
            }
            (AlertState::Acknowledged, _) if until.is_some_and(|until| until <= now) => {
                self.alert.state = AlertState::Firing;
                self.alert.acknowledged = None;
                self.revision += 1;
                true
            }
            _ => false,
        }
    }

    fn fire(&mut self, now: Timestamp) {
        self.alert.state = AlertState::Firing;
        self.alert.fired = Some(now);
        self.revision += 1;
    }

    fn resolve(&mut self, now: Timestamp) {
        self.alert.state = AlertState::Resolved;
        self.alert.resolved = Some(now);
        self.gone = None;
        self.revision += 1;
    }

    /// Whether a sink has to be told: of what fires, and of the end of what has fired since the sink
    /// is there. Of one that is acknowledged nothing is told until it is over.
    fn is_due(&self, audience: &Audience) -> bool {
        let told = self.delivered.get(&audience.name);
        audience.hears_of(&self.alert)
            && match self.alert.state {
                AlertState::Firing => told.is_none_or(|told| *told < self.revision),
                AlertState::Resolved => told.is_some_and(|told| *told < self.revision),
                AlertState::Pending | AlertState::Acknowledged => false,
            }
    }

    fn stands(&self) -> bool {
        matches!(self.alert.state, AlertState::Firing | AlertState::Acknowledged)
    }

    fn telling(&self) -> Telling {
        Telling { alert: self.alert.clone(), revision: self.revision }
    }
}

/// For how long a flapping alert has to stay away before its end is believed: a quarter of the
/// window for each time that it came back, the whole window at most.
fn quiet(flaps: u32, rules: Rules) -> Duration {
    rules.flap_window * flaps.min(4) / 4
}

fn elapsed(from: Timestamp, to: Timestamp) -> Duration {
    Duration::try_from(to.duration_since(from)).unwrap_or_default()
}

/// Whether a kind of finding is worth an alert. What is only worth knowing is listed by `status`
/// and by audits, and nobody is told.
fn is_alert(kind: FindingKind) -> bool {
    kind.severity() > Severity::Info
}

impl Lives {
    /// Goes on with the lives that were kept. Sinks that are gone are forgotten.
    pub(super) fn new(rules: Rules, audiences: Vec<Audience>, kept: Vec<Life>) -> Self {
        let (mut current, mut past) = (BTreeMap::new(), Vec::new());
        let mut kept = kept;
        kept.sort_by_key(|life| life.alert.started);
        for mut life in kept {
            life.delivered.retain(|sink, _| audiences.iter().any(|audience| audience.name == *sink));
            past.extend(current.insert(key(&life.alert), life));
        }
        Self { rules, audiences, current, past }
    }

    /// Goes on with what somebody else has kept. What sinks were told by this daemon is not forgotten: it
    /// may not have come to be kept. Returns the alerts that are in another state than before.
    pub(super) fn replace(&mut self, kept: Vec<Life>) -> Vec<Alert> {
        let before: HashMap<Uuid, Life> = std::mem::take(&mut self.current)
            .into_values()
            .chain(self.past.drain(..))
            .map(|life| (life.alert.id, life))
            .collect();
        let mut kept = kept;
        for life in &mut kept {
            let told = before.get(&life.alert.id).map(|before| &before.delivered);
            for (sink, revision) in told.into_iter().flatten() {
                let newest = life.delivered.entry(sink.clone()).or_default();
                *newest = (*newest).max(*revision);
            }
        }
        *self = Self::new(self.rules, std::mem::take(&mut self.audiences), kept);
        let is_another = |life: &&Life| {
            let state = |it: &Alert| (it.state, it.fired, it.acknowledged.clone());
            before.get(&life.alert.id).is_none_or(|before| state(&before.alert) != state(&life.alert))
        };
        self.all().filter(is_another).map(|life| life.alert.clone()).collect()
    }

    /// Takes what was seen of one database.
    pub(super) fn observe(&mut self, seen: &Observation) -> Outcome {
        let mut outcome = Outcome::default();
        let mut there = BTreeSet::new();
        for finding in seen.findings.iter().filter(|finding| is_alert(finding.kind)) {
            there.insert((finding.kind, finding.subject.as_str()));
            let key = (seen.database.clone(), finding.kind, finding.subject.clone());
            let has_room = self.current.len() < MOST;
            match self.current.get_mut(&key) {
                Some(life) => {
                    let over = life.alert.resolved;
                    let is_another = over.is_some_and(|at| elapsed(at, seen.time) > self.rules.flap_window);
                    if is_another {
                        let begun = Life::begin(&seen.database, finding, seen.time);
                        self.past.push(std::mem::replace(life, begun));
                    }
                    if is_another || life.seen(finding, seen.time) {
                        outcome.changed.push(life.alert.clone());
                    }
                }
                None if has_room => {
                    let life = Life::begin(&seen.database, finding, seen.time);
                    outcome.changed.push(life.alert.clone());
                    self.current.insert(key, life);
                }
                None => outcome.refused += 1,
            }
        }
        let first = (seen.database.clone(), FindingKind::ALL[0], String::new());
        for ((_, kind, subject), life) in
            self.current.range_mut(first..).take_while(|((database, ..), _)| *database == seen.database)
        {
            let is_known = !seen.unknown.contains(kind);
            if is_known && !there.contains(&(*kind, subject.as_str())) && life.missed(seen.time) {
                outcome.changed.push(life.alert.clone());
            }
        }
        self.advance(seen.time, &mut outcome);
        outcome
    }

    /// It is `now`: what was pending fires, acknowledgements end, what is long over is forgotten.
    pub(super) fn tick(&mut self, now: Timestamp) -> Outcome {
        let mut outcome = Outcome::default();
        self.advance(now, &mut outcome);
        self.forget(now, &mut outcome);
        outcome
    }

    /// Resolves the alerts of databases that have left the inventory. As long as a discovery has not
    /// found its databases even once, what was kept of others may be theirs.
    pub(super) fn leave(&mut self, change: &InventoryChange, now: Timestamp) -> Vec<Alert> {
        let is_gone = |database: &String| {
            if change.is_complete {
                !change.databases.contains(database)
            } else {
                change.removed.contains(database)
            }
        };
        let strange = |life: &&mut Life| {
            let Alert { database, resolved, .. } = &life.alert;
            !database.is_empty() && resolved.is_none() && is_gone(database)
        };
        let resolved = self.current.values_mut().filter(strange).map(|life| {
            life.resolve(now);
            life.alert.clone()
        });
        let resolved = resolved.collect();
        self.forget_unborn();
        resolved
    }

    /// Takes note of a firing alert, found by its id or the beginning of it.
    pub(super) fn acknowledge(
        &mut self,
        id: &str,
        acknowledgement: Acknowledgement,
        now: Timestamp,
    ) -> Result<Alert, Failure> {
        let bad = |message: String| Err(Failure::new(Code::BadRequest, message));
        let id = id.trim().to_ascii_lowercase();
        let named = |life: &&mut Life| !id.is_empty() && life.alert.id.to_string().starts_with(&id);
        // Time makes the ids of one incident begin alike: those that are over do not count beside it.
        let mut found: Vec<_> = self.current.values_mut().filter(named).collect();
        if found.is_empty() {
            found = self.past.iter_mut().filter(named).collect();
        }
        let life = match found.as_mut_slice() {
            [life] => life,
            [] => {
                let message = format!("There is no alert {id:?}");
                return Err(Failure::new(Code::UnknownAlert, message));
            }
            several => {
                let ids = several.iter().map(|life| named_for_a_person(&life.alert)).collect();
                let message = format!("{} alerts begin with {id:?}", several.len());
                return Err(Failure::new(Code::BadRequest, message).details(ids));
            }
        };
        if acknowledgement.reason.trim().is_empty() {
            return bad("An acknowledgement needs a reason".into());
        }
        if acknowledgement.until.is_some_and(|until| until <= now) {
            return bad("The acknowledgement would be over already".into());
        }
        if !life.stands() {
            return bad(format!(
                "The alert is {}: only a firing one is taken note of",
                life.alert.state.name()
            ));
        }
        life.alert.state = AlertState::Acknowledged;
        life.alert.acknowledged = Some(acknowledgement);
        Ok(life.alert.clone())
    }

    /// What a sink has yet to be told, the oldest first.
    pub(super) fn due(&self, audience: &Audience) -> Vec<Telling> {
        let due = self.all().filter(|life| life.is_due(audience));
        let mut due: Vec<_> = due.map(Life::telling).collect();
        due.sort_by_key(|telling| telling.alert.resolved.or(telling.alert.fired));
        due
    }

    /// What stands, for a sink that wants to be told again and again.
    pub(super) fn standing(&self, audience: &Audience) -> Vec<Telling> {
        let stands = |life: &&Life| life.stands() && audience.hears_of(&life.alert);
        self.all().filter(stands).map(Life::telling).collect()
    }

    /// A sink has been told, or has refused to be.
    pub(super) fn delivered(&mut self, audience: &Audience, told: &Telling) {
        let is_it = |life: &&mut Life| life.alert.id == told.alert.id;
        let last = self.current.get_mut(&key(&told.alert)).filter(is_it);
        if let Some(life) = last.or_else(|| self.past.iter_mut().find(is_it)) {
            let newest = life.delivered.entry(audience.name.clone()).or_default();
            *newest = told.revision.max(*newest);
        }
    }

    /// All alerts, the gravest first and then the newest.
    pub(super) fn list(&self) -> Vec<Alert> {
        let mut alerts: Vec<_> = self.all().map(|life| life.alert.clone()).collect();
        alerts.sort_by_key(|alert| std::cmp::Reverse((alert.finding.kind.severity(), alert.started)));
        alerts
    }

    /// All lives, to be kept.
    pub(super) fn all(&self) -> impl Iterator<Item = &Life> {
        self.current.values().chain(&self.past)
    }

    fn advance(&mut self, now: Timestamp, outcome: &mut Outcome) {
        for life in self.current.values_mut() {
            if life.advance(now, self.rules) {
                outcome.changed.push(life.alert.clone());
            }
            if life.stands() {
                // From now on each sink is owed the end, also one that never hears of the beginning.
                for audience in &self.audiences {
                    if !life.delivered.contains_key(&audience.name) {
                        life.delivered.insert(audience.name.clone(), 0);
                    }
                }
            }
        }
        self.forget_unborn();
    }

    /// Forgets what was over long ago, and where there is too much of it the oldest, first of what
    /// every sink has been told.
    fn forget(&mut self, now: Timestamp, outcome: &mut Outcome) {
        let audiences = &self.audiences;
        let is_untold = |life: &Life| audiences.iter().any(|audience| life.is_due(audience));
        let over = self.current.values().chain(&self.past);
        let mut over: Vec<_> =
            over.filter_map(|life| Some((life.alert.resolved?, is_untold(life), life.alert.id))).collect();
        over.sort_unstable_by_key(|(resolved, is_untold, _)| std::cmp::Reverse((*is_untold, *resolved)));
        let kept_for = REMEMBERED.max(self.rules.flap_window);
        let goes = over
            .into_iter()
            .enumerate()
            .filter(|(index, (resolved, ..))| *index >= MOST_RESOLVED || elapsed(*resolved, now) > kept_for);
        let goes: HashSet<Uuid> = goes.map(|(_, (.., id))| id).collect();
        if goes.is_empty() {
            return;
        }
        for life in self.current.values().chain(&self.past).filter(|life| goes.contains(&life.alert.id)) {
            let untold = audiences.iter().filter(|audience| life.is_due(audience));
            outcome.dropped.extend(untold.map(|audience| audience.name.clone()));
        }
        self.current.retain(|_, life| !goes.contains(&life.alert.id));
        self.past.retain(|life| !goes.contains(&life.alert.id));
    }

    /// Forgets what was over before it fired: nobody was told.
    fn forget_unborn(&mut self) {
        self.current.retain(|_, life| life.alert.resolved.is_none() || life.alert.fired.is_some());
    }
}

fn key(alert: &Alert) -> Key {
    (alert.database.clone(), alert.finding.kind, alert.finding.subject.clone())
}

/// An alert in a line: its id, and what it is about.
fn named_for_a_person(alert: &Alert) -> String {
    let Alert { id, database, finding, .. } = alert;
    format!("{id} {} {database} {}", finding.kind, finding.subject).trim_end().to_owned()
}
