//! The model: which states a database, its log, its alerts and its metrics may be in, whatever
//! happened. It is asked after each fault, when nobody is at work any more, and again after a retry.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use crate::{
    scene::{MIGRATIONS, Mode, Scene},
    support::{World, await_that},
    trial::Trial,
};

/// How long alerts and metrics may take to say what is so.
const TOLD_WITHIN: Duration = Duration::from_secs(20);

/// What is there of a migration, by its own traces in the schema.
#[derive(Debug, Clone, Default)]
struct Effect {
    table: bool,
    /// The index of the non-transactional one, valid.
    index: bool,
    /// What its files wrote of themselves, in order: each time that `up` or `down` was committed.
    ran: Vec<String>,
}

impl Effect {
    fn is_up(&self) -> bool {
        self.ran.last().is_some_and(|last| last == "up")
    }

    fn count(&self, what: &str) -> usize {
        self.ran.iter().filter(|ran| *ran == what).count()
    }
}

/// How much there is of a migration.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Extent {
    Nothing,
    Part,
    Whole,
}

/// A row of `nexus_journal`.
#[derive(Debug, Clone)]
struct Attempt {
    direction: String,
    is_transactional: bool,
    outcome: String,
    done: u32,
}

/// Everything about one migration.
#[derive(Debug, Clone, Default)]
struct Seen {
    /// Whether it has a row, and whether that is dirty.
    row: Option<bool>,
    attempts: Vec<Attempt>,
    effect: Effect,
}

impl Seen {
    /// The last attempt that says anything: an undo in a transaction that did not commit changed nothing.
    fn last_attempt(&self) -> Option<&Attempt> {
        self.attempts
            .iter()
            .rfind(|it| !(it.direction == "undo" && it.is_transactional && it.outcome != "succeeded"))
    }

    /// It is dirty, and its attempt was not even closed.
    fn is_interrupted(&self) -> bool {
        self.row == Some(true) && self.last_attempt().is_some_and(|attempt| attempt.outcome == "running")
    }
}

/// What a database holds.
#[derive(Debug, Clone)]
pub(crate) struct State {
    mode: Mode,
    /// In the order of the catalog.
    seen: Vec<(&'static str, Seen)>,
}

impl State {
    /// Reads it, when the sessions of killed daemons are gone.
    pub(crate) fn of(scene: &Scene, world: &World) -> Self {
        await_that("nobody is at work", || {
            let busy = "select from pg_stat_activity where application_name ~ '^nexusd [0-9a-f]{8}-' \
                        and datname = current_database()";
            world.database.sql(busy).is_empty()
        });
        let mut seen: BTreeMap<&str, Seen> =
            MIGRATIONS.iter().map(|it| (it.version, Seen::default())).collect();
        let is_there = |table: &str| {
            world.database.sql(&format!("select to_regclass('public.{table}') is not null")) == ["t"]
        };
        let mut sql = String::from(
            "select 'ran', what, '', '', '', '' from ran order by id; \
             select 'table', tablename, '', '', '', '' from pg_tables where schemaname = 'public'; \
             select 'index', indexrelid::regclass, '', '', '', '' from pg_index \
             where indisvalid and indexrelid::regclass::text like '%\\_id'; ",
        );
        if is_there("schema_migrations") {
            sql.push_str("select 'row', version, dirty, '', '', '' from schema_migrations; ");
        }
        if is_there("nexus_journal") {
            sql.push_str(
                "select 'attempt', version, direction, mode, outcome, statements_done from nexus_journal order by id; ",
            );
        }
        for row in world.database.sql(&sql) {
            let columns: Vec<_> = row.split('|').collect();
            let [kind, name, one, two, three, four] = columns[..] else { continue };
            match kind {
                "ran" => {
                    let (version, what) = name.split_once(' ').expect("it says which and what");
                    seen.entry(of(version)).or_default().effect.ran.push(what.to_owned());
                }
                "table" | "index" => {
                    let found = MIGRATIONS.iter().find(|it| name.split('_').next() == Some(it.table));
                    let Some(effect) = found.and_then(|it| seen.get_mut(it.version)).map(|it| &mut it.effect)
                    else {
                        continue;
                    };
                    if kind == "table" {
                        effect.table = true;
                    } else {
                        effect.index = true;
                    }
                }
                "row" => seen.entry(of(name)).or_default().row = Some(one == "t"),
                _ => seen.entry(of(name)).or_default().attempts.push(Attempt {
                    direction: one.to_owned(),
                    is_transactional: two == "transactional",
                    outcome: three.to_owned(),
                    done: four.parse().expect("a number"),
                }),
            }
        }
        Self { mode: scene.mode, seen: seen.into_iter().collect() }
    }

    /// How many rows are clean, and how many dirty.
    fn counts(&self) -> (usize, usize) {
        let count = |dirty| self.seen.iter().filter(|(_, seen)| seen.row == Some(dirty)).count();
        (count(false), count(true))
    }

    /// In a few words: how many are applied, and what is there of one that is dirty.
    pub(crate) fn label(&self) -> String {
        let mut label = self.counts().0.to_string();
        for (version, seen) in self.seen.iter().filter(|(_, seen)| seen.row == Some(true)) {
            label.push_str(match self.extent(version, &seen.effect) {
                Extent::Nothing => "+none",
                Extent::Part => "+part",
                Extent::Whole => "+whole",
            });
        }
        label
    }

    /// The effects of a migration in the order of its up file's statements.
    fn effects(&self, version: &str, effect: &Effect) -> Vec<bool> {
        let mut effects = vec![effect.table, effect.is_up()];
        if self.mode == Mode::NonTransactional && version == MIGRATIONS[1].version {
            effects.push(effect.index);
        }
        effects
    }

    fn extent(&self, version: &str, effect: &Effect) -> Extent {
        let effects = self.effects(version, effect);
        match effects.iter().filter(|done| **done).count() {
            0 => Extent::Nothing,
            all if all == effects.len() => Extent::Whole,
            _ => Extent::Part,
        }
    }

    /// Everything that may not be, where nothing but Nexus has written.
    pub(crate) fn violations(&self) -> Vec<String> {
        let mut violations = Vec::new();
        let mut rank = 0;
        for (version, seen) in &self.seen {
            violations
                .extend(self.wrong_with(version, seen).map(|what| format!("{version}: {what}: {seen:?}")));
            violations.extend(exactly_once(seen).err().map(|what| format!("{version}: {what}: {seen:?}")));
            // Clean rows, then at most one that is dirty, then none.
            let next = match seen.row {
                Some(false) => 0,
                Some(true) => 1,
                None => 2,
            };
            if next < rank || (next == 1 && rank == 1) {
                violations.push(format!("{version} is out of order: {:?}", self.label()));
            }
            rank = next;
        }
        let open = self.seen.iter().flat_map(|(_, seen)| &seen.attempts);
        let open = open.filter(|attempt| attempt.outcome == "running").count();
        if open > 1 {
            violations.push(format!("{open} attempts are open"));
        }
        violations
    }

    /// Whether what is there is what row and journal say.
    fn wrong_with(&self, version: &str, seen: &Seen) -> Option<String> {
        let extent = self.extent(version, &seen.effect);
        let expect = |wanted: Extent, why: &str| {
            (extent != wanted).then(|| format!("{why}, so {wanted:?} has to be there, and it is {extent:?}"))
        };
        match seen.row {
            None => expect(Extent::Nothing, "it has no row"),
            Some(false) => expect(Extent::Whole, "its row is clean"),
            Some(true) => {
                let Some(last) = seen.last_attempt() else {
                    return Some("it is dirty and no attempt says why".to_owned());
                };
                match (last.direction.as_str(), last.is_transactional) {
                    ("up", true) => expect(Extent::Nothing, "its apply did not commit"),
                    ("down", true) => expect(Extent::Whole, "its rollback did not commit"),
                    ("up", false) => {
                        let effects = self.effects(version, &seen.effect);
                        let done = effects.iter().filter(|done| **done).count();
                        let recorded = last.done as usize;
                        let fits = effects[..done].iter().all(|done| *done)
                            && (done == recorded || done == recorded + 1);
                        (!fits)
                            .then(|| format!("{recorded} statements are recorded, and {effects:?} are there"))
                    }
                    // The first statement of the down file drops the table, the last tells of it.
                    (_, false) => {
                        let is_down = !seen.effect.is_up();
                        let fits = match last.done {
                            0 => true,
                            1 => !seen.effect.table,
                            _ => !seen.effect.table && is_down,
                        };
                        (!fits).then(|| format!("{} statements of its down file are recorded", last.done))
                    }
                    (other, true) => Some(format!("its last attempt is {other:?}")),
                }
            }
        }
    }

    /// The attempts that did not succeed.
    pub(crate) fn failed(&self) -> Vec<String> {
        let attempts =
            self.seen.iter().flat_map(|(version, seen)| seen.attempts.iter().map(move |it| (version, it)));
        let failed = attempts.filter(|(_, attempt)| attempt.outcome != "succeeded");
        failed
            .map(|(version, attempt)| format!("{version}: an attempt did not succeed: {attempt:?}"))
            .collect()
    }

    /// What has to be so when everything has come to its end: so many applied, nothing open.
    pub(crate) fn unfinished(&self, applied: usize) -> Vec<String> {
        let mut left = Vec::new();
        if self.label() != applied.to_string() {
            left.push(format!("{applied} should be applied and clean, and it is {}", self.label()));
        }
        for (version, seen) in &self.seen {
            if seen.attempts.iter().any(|attempt| attempt.outcome == "running") {
                left.push(format!("{version} has an open attempt"));
            }
        }
        left
    }

    /// What the log tells that is not so: it may be silent about the last moments of a daemon that was
    /// killed (`tells_all` says that none was), but never ahead of the journal.
    pub(crate) fn untrue(&self, world: &World, tells_all: bool) -> Vec<String> {
        let mut untrue = Vec::new();
        let log = world.log();
        for (version, seen) in &self.seen {
            for (message, direction) in
                [("Migration applied successfully", "up"), ("Migration rolled back successfully", "down")]
            {
                let told =
                    log.iter().filter(|line| line["message"] == message && line["version"] == *version);
                let (told, done) = (told.count(), succeeded(seen, direction));
                if told > done || (tells_all && told < done) {
                    untrue.push(format!(
                        "{version}: the log tells of {told} {direction}, the journal of {done}"
                    ));
                }
            }
        }
        untrue
    }

    /// Waits until the daemon's alerts and metrics say the same as the rows.
    pub(crate) fn await_told(&self, scene: &Scene, trial: &mut Trial) {
        let (clean, dirty) = self.counts();
        let interrupted = self.seen.iter().filter(|(_, seen)| seen.is_interrupted()).count();
        let expected = [
            ("nexus_applied_migrations{database=\"main\"", clean),
            ("nexus_dirty_migrations{database=\"main\"", dirty),
            ("nexus_pending_migrations{database=\"main\"", self.seen.len() - clean - dirty),
            // A dirty row is told as one alert: as what it is by its last attempt.
            ("nexus_alerts_firing{kind=\"attempt_interrupted\"", interrupted),
            ("nexus_alerts_firing{kind=\"dirty\"", dirty - interrupted),
        ];
        let until = Instant::now() + TOLD_WITHIN;
        loop {
            let page = scene.running.daemon.try_page("/metrics").map(|(_, page)| page).unwrap_or_default();
            let says = |(series, value): &(&str, usize)| {
                let mut lines = page.lines().filter(|line| line.starts_with(series));
                lines.any(|line| line.rsplit(' ').next() == Some(&value.to_string()))
            };
            let missing: Vec<_> = expected.iter().filter(|it| !says(it)).collect();
            if missing.is_empty() {
                return;
            }
            if Instant::now() > until {
                trial.violates(format!("the metrics never say {missing:?}, with {}", self.label()));
                return;
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}

/// The migration of this version.
fn of(version: &str) -> &'static str {
    let found = MIGRATIONS.iter().find(|it| it.version == version);
    found.map_or("another", |it| it.version)
}

fn succeeded(seen: &Seen, direction: &str) -> usize {
    seen.attempts.iter().filter(|it| it.direction == direction && it.outcome == "succeeded").count()
}

/// Each attempt that succeeded follows one the other way, and each was committed once.
fn exactly_once(seen: &Seen) -> Result<(), String> {
    let mut is_applied = false;
    for attempt in seen.attempts.iter().filter(|attempt| attempt.outcome == "succeeded") {
        let next = match attempt.direction.as_str() {
            "up" if is_applied => return Err("it was applied twice".to_owned()),
            "down" if !is_applied => return Err("it was rolled back and was not applied".to_owned()),
            "up" | "mark-applied" | "clear-dirty" => true,
            "down" | "undo" | "forget" => false,
            _ => is_applied,
        };
        is_applied = next;
    }
    match seen.row {
        Some(false) if !is_applied => return Err("its row is clean, and no attempt put it there".to_owned()),
        None if is_applied => return Err("it was applied, and its row is gone".to_owned()),
        _ => {}
    }
    for (direction, ran) in [("up", seen.effect.count("up")), ("down", seen.effect.count("down"))] {
        let of = |attempt: &&Attempt| match direction {
            "up" => attempt.direction == "up",
            _ => attempt.direction == "down" || attempt.direction == "undo",
        };
        let done = seen.attempts.iter().filter(of).filter(|it| it.outcome == "succeeded").count();
        let loose = seen.attempts.iter().filter(of).filter(|it| !it.is_transactional).count();
        // What was done outside of a transaction may be there of an attempt that did not succeed.
        if ran < done || ran > done.max(loose) {
            return Err(format!("{ran} {direction} were committed, and {done} attempts succeeded"));
        }
    }
    Ok(())
}
