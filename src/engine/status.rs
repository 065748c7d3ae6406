//! How one database stands, read live and without its lock, or by what a look saw.

use std::{sync::Arc, time::Duration};

use crate::{
    engine::{Database, Glance, failure::of_session},
    migration::{
        Catalog, Failure, FindingKind, Observation, Version,
        drift::{self, Standing},
    },
    postgres::tracking::{self, Kept},
};

/// How one database stands.
#[derive(Debug, Clone)]
pub struct Status {
    /// Every migration that the directory or the table knows, in order; but for those left out.
    pub standings: Vec<Standing>,
    /// Who holds the database's lock now: then a dirty row is an attempt under way.
    pub lock_holder: Option<String>,
    /// What is applied and well, where it is not among the standings.
    pub left_out: Option<LeftOut>,
}

/// What is applied and well, in a few words.
#[derive(Debug, Clone)]
pub struct LeftOut {
    /// How many migrations.
    pub applied: u32,
    /// The newest of them.
    pub newest: Option<Version>,
    /// The catalog that holds them.
    pub catalog: Arc<Catalog>,
}

impl Status {
    /// Whether a look saw rows with which nothing is wrong, and nobody at work: then [`Self::of`] has all
    /// that there is to say.
    pub fn is_of(seen: &Observation) -> bool {
        let is_told = |kind| matches!(kind, FindingKind::OutOfOrder | FindingKind::PendingTooLong);
        seen.counts.is_some_and(|counts| counts.dirty + counts.drift + counts.missing == 0)
            && seen.findings.iter().all(|finding| is_told(finding.kind))
            && !seen.unknown.contains(&FindingKind::Dirty)
    }

    /// What a look saw, where nothing was wrong; what is applied is left out.
    pub fn of(seen: &Observation, glance: &Glance) -> Option<Self> {
        let counts = seen.counts.filter(|_| Self::is_of(seen))?;
        let standings = glance.pending().map(|it| drift::pending(it, seen.newest.as_ref())).collect();
        let left_out =
            LeftOut { applied: counts.applied, newest: seen.newest.clone(), catalog: glance.catalog.clone() };
        Some(Self { standings, lock_holder: None, left_out: Some(left_out) })
    }
}

/// How long a status may take: it is only a look.
const LIMIT: Duration = Duration::from_secs(30);

/// Reads a database and compares it with its catalog.
pub async fn status(database: &Arc<Database>, catalog: &Catalog) -> Result<Status, Failure> {
    let doing = "reading the applied migrations";
    let read = async {
        let mut session = database.session("status").await?;
        let (shape, lock_holder) = session.look().await.map_err(|error| of_session(error, doing))?;
        let tracked = tracking::read(&session, shape, Kept::All).await;
        let tracked = tracked.map_err(|error| of_session(error, doing))?;
        session.give_back();
        Ok(Status { standings: drift::examine(catalog, &tracked), lock_holder, left_out: None })
    };
    let late = || {
        Failure::new(
            crate::migration::Code::Unreachable,
            format!("{} did not answer in {} s", database.name, LIMIT.as_secs()),
        )
    };
    tokio::time::timeout(LIMIT, read).await.map_err(|_| late())?
}
