//! What each case is played on: a database of its own, three migrations, a daemon that may be armed.

use std::{fmt::Write as _, time::Instant};

use crate::{
    model::State,
    process::Environment,
    support::{Database, Ended, Running, World, await_that},
    trial::Trial,
};

/// How the second migration, the one that things happen to, is run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mode {
    Transactional,
    NonTransactional,
    /// In one transaction, and larger than one message.
    Large,
}

/// One of the three.
pub(crate) struct Migration {
    pub(crate) version: &'static str,
    pub(crate) table: &'static str,
}

pub(crate) const MIGRATIONS: [Migration; 3] = [
    Migration { version: "0001_one", table: "one" },
    Migration { version: "0002_two", table: "two" },
    Migration { version: "0003_three", table: "three" },
];

/// How many rows the large one inserts, of a kilobyte each: three groups of statements.
pub(crate) const LARGE_ROWS: usize = 2500;

/// How long the slow files take: time enough to break something.
const SLOW_SECONDS: f64 = 1.2;

/// The statement that a file tells of itself with. It can be counted how often it was committed.
fn tell(version: &str, what: &str) -> String {
    format!("insert into ran (what) values ('{version} {what}');\n")
}

/// The same file, with that statement a slow one.
fn slowly(sql: &str) -> String {
    let (before, told) = sql.split_at(sql.rfind("insert into ran").expect("it tells"));
    let (what, after) = told.split_once("');").expect("it ends");
    let what = what.split_once('\'').expect("it is a text").1;
    format!(
        "{before}insert into ran (what) select '{what}' from (select pg_sleep({SLOW_SECONDS})) as slow;{after}"
    )
}

impl Migration {
    pub(crate) fn up(&self, mode: Mode) -> String {
        let Self { version, table } = self;
        let create = format!("create table {table} (id int, filler text);\n");
        let told = tell(version, "up");
        match mode {
            Mode::Transactional => create + &told,
            Mode::NonTransactional => {
                format!(
                    "-- nexus: no-transaction\n{create}{told}create index concurrently {table}_id on {table} (id);\n"
                )
            }
            Mode::Large => {
                let filler = "x".repeat(1000);
                let mut sql = create;
                for number in 0..LARGE_ROWS {
                    // Writing to a String cannot fail.
                    let _ = writeln!(sql, "insert into {table} values ({number}, '{filler}');");
                }
                sql + &told
            }
        }
    }

    pub(crate) fn down(&self, mode: Mode) -> String {
        let Self { version, table } = self;
        let told = tell(version, "down");
        match mode {
            Mode::NonTransactional => {
                format!("-- nexus: no-transaction\ndrop table if exists {table};\n{told}")
            }
            _ => format!("drop table {table};\n{told}"),
        }
    }
}

/// A scene, and who plays in it.
pub(crate) struct Scene {
    pub(crate) mode: Mode,
    pub(crate) running: Running,
}

impl Scene {
    /// Three migrations on a database of the shared server.
    pub(crate) fn set(mode: Mode) -> World {
        Self::on(mode, Database::new())
    }

    /// The same on another database.
    pub(crate) fn on(mode: Mode, database: Database) -> World {
        let world = World::on(database)
            .more("\n[watch]\npoll = \"150ms\"\n")
            .alerts("hold = \"0s\"\nflap_window = \"0s\"");
        world.database.sql("create table ran (id serial primary key, what text not null)");
        for (migration, mode) in MIGRATIONS.iter().zip([Mode::Transactional, mode, Mode::Transactional]) {
            world.migration(migration.version, &migration.up(mode), &migration.down(mode));
        }
        world
    }

    /// Makes the second migration slow, both ways; returns the world.
    pub(crate) fn slow(mode: Mode, world: World) -> World {
        let target = &MIGRATIONS[1];
        world.migration(target.version, &slowly(&target.up(mode)), &slowly(&target.down(mode)));
        world
    }

    /// Waits until the server is at work on the slow statement; returns its process.
    pub(crate) fn await_work(&self) -> i32 {
        let sql = "select pid from pg_stat_activity where wait_event = 'PgSleep' \
                   and application_name ~ '^nexusd [0-9a-f]{8}-' and datname = current_database()";
        let mut pid = None;
        await_that("the slow statement runs", || {
            pid = self.world().database.sql(sql).first().map(|pid| pid.parse().expect("a pid"));
            pid.is_some()
        });
        pid.expect("it was seen")
    }

    /// Waits until a row is marked.
    pub(crate) fn await_dirty(&self) {
        await_that("a row is marked", || self.world().database.rows().iter().any(|row| row.ends_with("|t")));
    }

    /// The daemon starts, with these failpoints.
    pub(crate) fn start(mode: Mode, world: World, failpoints: &str) -> Self {
        Self::start_in(mode, world, &[("FAILPOINTS", failpoints)])
    }

    /// The same with any variables of the environment.
    pub(crate) fn start_in(mode: Mode, world: World, environment: Environment<'_>) -> Self {
        Self { mode, running: world.start_in(environment) }
    }

    pub(crate) fn world(&self) -> &World {
        &self.running.world
    }

    pub(crate) fn ctl(&self, arguments: &[&str]) -> Ended {
        self.running.ctl(arguments)
    }

    /// Reads the state, and notes whether it is legal.
    pub(crate) fn judge(&self, trial: &mut Trial, tells_all: bool) -> State {
        let state = State::of(self, self.world());
        trial.saw(state.label());
        for violation in state.violations() {
            trial.violates(violation);
        }
        for untrue in state.untrue(self.world(), tells_all) {
            trial.violates(untrue);
        }
        state
    }

    /// The daemon has to have died, as by `kill -9`.
    pub(crate) fn is_dead(&mut self, trial: &mut Trial) {
        let code = self.running.daemon.wait();
        if code != Some(128 + 9) {
            trial.violates(format!("the failpoint was not reached: the daemon ended with {code:?}"));
        }
    }

    /// After a fault that killed the daemon: the state is legal, the daemon starts again and tells it,
    /// and then the retry has to bring everything to its end.
    pub(crate) fn revive(&mut self, trial: &mut Trial, retries: &[&[&str]], applied: usize) {
        let before = self.judge(trial, false);
        let over = Instant::now();
        self.running.daemon.restart();
        before.await_told(self, trial);
        self.converge(trial, over, retries, applied, false);
    }

    /// The retries have to succeed, and then all is at its end.
    pub(crate) fn converge(
        &self,
        trial: &mut Trial,
        over: Instant,
        retries: &[&[&str]],
        applied: usize,
        tells_all: bool,
    ) {
        for arguments in retries {
            let ended = self.ctl(arguments);
            if ended.code != Some(0) {
                trial.violates(format!("nexusctl {arguments:?} did not succeed: {ended:?}"));
                return;
            }
        }
        trial.converged(over.elapsed());
        let state = self.judge(trial, tells_all);
        for left in state.unfinished(applied) {
            trial.violates(left);
        }
        if self.mode == Mode::Large && applied >= 2 {
            let rows = self.world().database.sql("select count(*) from two");
            if rows != [LARGE_ROWS.to_string()] {
                trial.violates(format!("of {LARGE_ROWS} rows of the large migration {rows:?} are there"));
            }
        }
        state.await_told(self, trial);
        let said = self.running.daemon.said();
        if said.contains("panicked") {
            trial.violates(format!("the daemon panicked: {said}"));
        }
    }
}
