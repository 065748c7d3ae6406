//! One look at one database for the monitor and for audits: what its rows and its schema say,
//! compared with its catalog, as findings. No lock is taken, nothing is written.

use std::{sync::Arc, time::Duration};

use jiff::Timestamp;

use crate::{
    engine::{Database, failure::of_session},
    migration::{Catalog, Code, Failure, Finding, FindingKind, Migration, Observation, Tracked, Version},
    postgres::{
        error::ConnectReason,
        look::{self, Look, Pulse},
        session::{Session, SessionError},
        tracking::Shape,
    },
};

mod compare;
#[cfg(test)]
mod tests;

use compare::Rules;

/// How long a look may take, connecting included. It is short, so that a server that is silent
/// does not hold up those that answer.
const LIMIT: Duration = Duration::from_secs(10);

/// How long connecting may take: a look comes again.
const CONNECT_LIMIT: Duration = Duration::from_secs(3);

/// How many details of a failure are kept: a directory may have thousands of bad files.
const MOST_EVIDENCE: usize = 20;

/// How much is looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Depth {
    /// The rows of `schema_migrations` and the journal.
    Rows,
    /// The schema too: INVALID indexes and NOT VALID constraints.
    Everything,
}

/// The kinds that only a comparison with the catalog tells.
const OF_THE_CATALOG: [FindingKind; 7] = [
    FindingKind::ChecksumDrift,
    FindingKind::LineEndings,
    FindingKind::MissingFile,
    FindingKind::UnknownRow,
    FindingKind::OutOfOrder,
    FindingKind::PendingTooLong,
    FindingKind::NoDown,
];

/// The kinds that the schema tells, which only an audit looks at.
pub const OF_THE_SCHEMA: [FindingKind; 2] = [FindingKind::InvalidIndex, FindingKind::NotValidConstraint];

/// The kinds that the tables themselves tell.
const OF_THE_TABLES: [FindingKind; 2] = [FindingKind::ForeignTable, FindingKind::TableGone];

/// The kinds that a run under way has in its hands.
const OF_A_RUN: [FindingKind; 2] = [FindingKind::Dirty, FindingKind::AttemptInterrupted];

/// What a database is compared with: a catalog, and why that is not the directory's of today but
/// its last good one; or why there is none at all.
pub type Compared = Result<(Arc<Catalog>, Option<Failure>), Failure>;

/// What is remembered of a database from one look to the next, so that the next one costs a single
/// round trip where nothing has changed. Only a look that left nothing open is remembered.
#[derive(Debug, Default)]
pub struct Memory(Option<Remembered>, Option<Arc<Glance>>);

/// What the rows of a database say in a few words, compared with its catalog: for whoever asks how
/// it stood when it was last looked at.
#[derive(Debug, Clone)]
pub struct Glance {
    /// The catalog that it was compared with.
    pub catalog: Arc<Catalog>,
    /// What is pending, as places in [`Catalog::migrations`]: a new database has everything pending.
    pending: Box<[u32]>,
}

impl Glance {
    fn new(catalog: &Arc<Catalog>, look: &Look) -> Self {
        let is_pending = |version: &Version| look.tracked.get(version).is_none();
        let places = (0_u32..).zip(catalog.migrations());
        let pending = places.filter(|(_, it)| is_pending(&it.version)).map(|(place, _)| place);
        Self { catalog: catalog.clone(), pending: pending.collect() }
    }

    /// One that tells of a catalog that these stretches of it are pending, by the first version and the
    /// last of each.
    pub fn of_stretches(catalog: &Arc<Catalog>, stretches: &[(String, String)]) -> Self {
        let place = |version: &String| {
            let is_it = |it: &Migration| it.version.as_str() == version;
            catalog.migrations().iter().position(is_it).and_then(|place| u32::try_from(place).ok())
        };
        // Of a version that this catalog does not have, nothing is said.
        let places = stretches.iter().filter_map(|(first, last)| Some(place(first)?..=place(last)?));
        Self { catalog: catalog.clone(), pending: places.flatten().collect() }
    }

    /// What is pending, as stretches of the catalog.
    pub fn stretches(&self) -> Vec<(String, String)> {
        let version = |place: u32| {
            let migration = self.catalog.migrations().get(place as usize);
            migration.map(|migration| migration.version.to_string()).unwrap_or_default()
        };
        let stretches = self.pending.chunk_by(|before, after| before + 1 == *after);
        let ends = stretches.filter_map(|stretch| Some((*stretch.first()?, *stretch.last()?)));
        ends.map(|(first, last)| (version(first), version(last))).collect()
    }

    /// What is pending, in order.
    pub fn pending(&self) -> impl Iterator<Item = &Migration> {
        self.pending.iter().filter_map(|place| self.catalog.migrations().get(*place as usize))
    }
}

#[derive(Debug)]
struct Remembered {
    shape: Shape,
    /// `None` after a look at the rows alone.
    pulse: Option<Pulse>,
    catalog: Arc<Catalog>,
    /// When a pending migration will have been so for too long.
    due: Option<Timestamp>,
    observation: Observation,
}

/// Looks at a database once and compares it with its catalog. Without a catalog, what the rows
/// alone say is still told. A migration that is pending for longer than `pending_limit` is a
/// finding; zero is without a limit.
pub async fn observe(
    database: &Arc<Database>,
    compared: &Compared,
    pending_limit: Duration,
    depth: Depth,
) -> Observation {
    let seen = within_limit(database, see(database, depth == Depth::Everything, Known::Nothing)).await;
    let rules = Rules { policy: database.policy, pending_limit, now: Timestamp::now() };
    let seen = seen.map(Option::unwrap_or_default);
    conclude(&database.name, compared, seen.as_ref(), &rules)
}

/// The same at [`Depth::Rows`], by whoever looks again and again.
pub async fn observe_again(
    database: &Arc<Database>,
    compared: &Compared,
    pending_limit: Duration,
    memory: &mut Memory,
) -> Observation {
    let rules = Rules { policy: database.policy, pending_limit, now: Timestamp::now() };
    let last = memory.0.take().filter(|last| last.may_stand(compared, rules.now));
    let pulse = last.as_ref().and_then(|last| Some((last.shape, last.pulse.as_ref()?)));
    let known = match (pulse, compared) {
        (Some((shape, pulse)), _) => Known::Pulse(shape, pulse),
        // The first look: mostly the only one for long.
        (None, Ok((catalog, _))) if memory.1.is_none() => Known::Catalog(catalog),
        _ => Known::Nothing,
    };
    let seen = within_limit(database, see(database, false, known)).await;
    let seen = match (seen, last) {
        (Ok(None), Some(mut last)) => {
            last.observation.time = rules.now;
            return memory.0.insert(last).observation.clone();
        }
        (seen, _) => seen.map(Option::unwrap_or_default),
    };
    let observation = conclude(&database.name, compared, seen.as_ref(), &rules);
    memory.1 = match (&seen, compared) {
        (Ok(look), Ok((catalog, _))) => Some(Arc::new(Glance::new(catalog, look))),
        // Nothing was seen; what was before is not how it is now.
        _ => None,
    };
    memory.0 = match (seen, compared) {
        (Ok(look), Ok((catalog, None))) if !look.is_locked && look.tracked.dirty().next().is_none() => {
            Some(Remembered {
                due: compare::due(catalog, &look, &rules),
                shape: look.shape,
                pulse: look.pulse,
                catalog: catalog.clone(),
                observation: observation.clone(),
            })
        }
        _ => None,
    };
    observation
}

impl Memory {
    /// What was seen last; `None` where the database could not be read.
    pub fn glance(&self) -> Option<Arc<Glance>> {
        self.1.clone()
    }

    /// What was seen last, once more, by whoever knows that nothing was written since; `None` where
    /// that does not settle it.
    pub fn unchanged(&mut self, compared: &Compared) -> Option<Observation> {
        let now = Timestamp::now();
        let last = self.0.as_mut().filter(|last| last.may_stand(compared, now))?;
        last.observation.time = now;
        Some(last.observation.clone())
    }
}

impl Remembered {
    /// Whether it is still true of a database that has not changed.
    fn may_stand(&self, compared: &Compared, now: Timestamp) -> bool {
        let is_same = matches!(compared, Ok((catalog, None)) if Arc::ptr_eq(catalog, &self.catalog));
        is_same && self.due.is_none_or(|due| now < due)
    }
}

/// What is known before a look.
#[derive(Clone, Copy)]
enum Known<'a> {
    Nothing,
    /// What the rows are compared with: where they are no more and no less than this, and nothing is wrong
    /// with them, the journal has nothing to add.
    Catalog(&'a Catalog),
    /// The pulse of the last look.
    Pulse(Shape, &'a Pulse),
}

/// Why nothing was seen.
#[derive(Debug)]
enum SeeError {
    /// The tables are not as Nexus makes them, in the way of this kind.
    Unfit(FindingKind, Failure),
    /// Somebody holds a table so that it cannot even be read, or others who look take their turn
    /// first: it will pass, and says nothing of the database.
    Passing,
    /// The database does not answer, or not as it should.
    Failed(Failure),
}

async fn within_limit<T>(
    database: &Database,
    see: impl Future<Output = Result<T, SeeError>>,
) -> Result<T, SeeError> {
    let seen = tokio::time::timeout(LIMIT, see).await;
    seen.unwrap_or_else(|_| {
        let message = format!("{} did not answer in {} s", database.name, LIMIT.as_secs());
        Err(SeeError::Failed(Failure::new(Code::Unreachable, message)))
    })
}

/// Looks; `None` where the pulse is the known one.
async fn see(database: &Database, is_deep: bool, known: Known<'_>) -> Result<Option<Look>, SeeError> {
    let mut looked = see_once(database, is_deep, known).await?;
    // A warm connection may have died since it was used: that is no news of the database.
    if matches!(looked, Err(SessionError::Lost)) {
        looked = see_once(database, is_deep, known).await?;
    }
    looked.map_err(|error| {
        if matches!(&error, SessionError::Sql(fault) if fault.sqlstate == "55P03") {
            return SeeError::Passing;
        }
        let failure = of_session(error, "reading the applied migrations");
        match failure.code {
            Code::ForeignTable => SeeError::Unfit(FindingKind::ForeignTable, failure),
            Code::TableGone => SeeError::Unfit(FindingKind::TableGone, failure),
            _ => SeeError::Failed(failure),
        }
    })
}

async fn see_once(
    database: &Database,
    is_deep: bool,
    known: Known<'_>,
) -> Result<Result<Option<Look>, SessionError>, SeeError> {
    let limit = database.limits.connect_timeout.min(CONNECT_LIMIT);
    let connection = Box::pin(database.looks.get(limit)).await.map_err(|error| match error.reason {
        ConnectReason::Busy { .. } => SeeError::Passing,
        _ => SeeError::Failed(Failure::from(&error)),
    })?;
    let mut session = Session::new(connection, database.names.clone(), &database.dbname, "watch");
    let looked = look_at(&mut session, is_deep, known).await;
    // What went wrong in a transaction leaves a connection to be closed; a shape is read whole.
    if database.keeps_looks && matches!(looked, Ok(_) | Err(SessionError::Shape(_) | SessionError::TableGone))
    {
        session.give_back();
    }
    Ok(looked)
}

async fn look_at(
    session: &mut Session,
    is_deep: bool,
    known: Known<'_>,
) -> Result<Option<Look>, SessionError> {
    match known {
        Known::Nothing => {}
        Known::Catalog(catalog) => {
            return look::look_at_rows(session, |tracked| says_all(catalog, tracked)).await.map(Some);
        }
        Known::Pulse(shape, known) => match look::pulse(session, shape).await {
            Ok(pulse) if pulse == *known => return Ok(None),
            Ok(_) => {}
            // A table is gone, say: a whole look tells.
            Err(SessionError::Sql(_)) => drop(session.roll_back().await?),
            Err(error) => return Err(error),
        },
    }
    look::look(session, is_deep).await.map(Some)
}

/// Whether the rows say all that is to be told: the journal is asked for what is dirty, pending, without its
/// file, or without a down file.
fn says_all(catalog: &Catalog, tracked: &Tracked) -> bool {
    let is_plain =
        |it: &Migration| it.down.is_some() && tracked.get(&it.version).is_some_and(|row| !row.dirty);
    tracked.rows.len() == catalog.migrations().len() && catalog.migrations().iter().all(is_plain)
}

/// What follows from a look, or from its failure.
fn conclude(
    database: &str,
    compared: &Compared,
    seen: Result<&Look, &SeeError>,
    rules: &Rules,
) -> Observation {
    let mut observation = Observation {
        database: database.to_owned(),
        time: rules.now,
        counts: None,
        newest: None,
        findings: Vec::new(),
        unknown: Vec::new(),
    };
    let findings = &mut observation.findings;
    let (catalog, failure) = match compared {
        Ok((catalog, failure)) => (Some(catalog), failure.as_ref()),
        Err(failure) => (None, Some(failure)),
    };
    findings.extend(failure.map(|failure| of_failure(FindingKind::DirectoryUnreadable, failure)));
    let unseen = || OF_A_RUN.into_iter().chain(OF_THE_CATALOG).chain(OF_THE_SCHEMA);
    match seen {
        Ok(look) => {
            observation.newest = look.tracked.newest_clean().cloned();
            match catalog {
                Some(catalog) => observation.counts = Some(compare::files(catalog, look, rules, findings)),
                None => observation.unknown.extend(OF_THE_CATALOG),
            }
            if look.is_locked {
                observation.unknown.extend(OF_A_RUN);
            } else {
                findings.extend(look.tracked.dirty().map(compare::dirty));
            }
            match &look.leftovers {
                Some(leftovers) if !look.is_locked => findings.extend(compare::schema(leftovers)),
                _ => observation.unknown.extend(OF_THE_SCHEMA),
            }
        }
        Err(SeeError::Unfit(kind, failure)) => {
            findings.push(Finding::new(*kind, "", failure.message.clone()));
            observation.unknown.extend(unseen());
        }
        Err(SeeError::Failed(failure)) => {
            findings.push(of_failure(FindingKind::DatabaseUnreachable, failure));
            observation.unknown.extend(OF_THE_TABLES.into_iter().chain(unseen()));
        }
        Err(SeeError::Passing) => {
            observation.unknown.push(FindingKind::DatabaseUnreachable);
            observation.unknown.extend(OF_THE_TABLES.into_iter().chain(unseen()));
        }
    }
    observation
}

fn of_failure(kind: FindingKind, failure: &Failure) -> Finding {
    let sqlstate = failure.sqlstate.iter().map(|sqlstate| format!("SQLSTATE {sqlstate}"));
    Finding::new(kind, "", failure.message.clone())
        .evidence(std::iter::once(failure.code.to_string()).chain(sqlstate))
        .evidence(failure.details.iter().take(MOST_EVIDENCE).cloned())
}
