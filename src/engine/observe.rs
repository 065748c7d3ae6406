//! One look at one database for the monitor and for audits: what its rows and its schema say,
//! compared with its catalog, as findings. No lock is taken, nothing is written.

use std::{sync::Arc, time::Duration};

use jiff::Timestamp;

use crate::{
    engine::{Database, failure::of_session},
    migration::{Code, Failure, Finding, FindingKind, Observation, catalog::CatalogResult},
    postgres::{
        look::{self, Look},
        session::{Session, SessionError},
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

/// The kinds that the schema tells.
const OF_THE_SCHEMA: [FindingKind; 2] = [FindingKind::InvalidIndex, FindingKind::NotValidConstraint];

/// The kinds that a run under way has in its hands.
const OF_A_RUN: [FindingKind; 2] = [FindingKind::Dirty, FindingKind::AttemptInterrupted];

/// Looks at a database once and compares it with its catalog. Without a catalog, what the rows
/// alone say is still told. A migration that is pending for longer than `pending_limit` is a
/// finding; zero is without a limit.
pub async fn observe(
    database: &Arc<Database>,
    catalog: &CatalogResult,
    pending_limit: Duration,
    depth: Depth,
) -> Observation {
    let seen = match tokio::time::timeout(LIMIT, see(database, depth)).await {
        Ok(seen) => seen,
        Err(_) => {
            let message = format!("{} did not answer in {} s", database.name, LIMIT.as_secs());
            Err(SeeError::Failed(Failure::new(Code::Unreachable, message)))
        }
    };
    let rules = Rules { policy: database.policy, pending_limit, now: Timestamp::now() };
    conclude(&database.name, catalog, seen, &rules)
}

/// Why nothing was seen.
enum SeeError {
    /// The tables are another tool's.
    Foreign(String),
    /// Somebody holds a table so that it cannot even be read: it will pass.
    Locked,
    /// The database does not answer, or not as it should.
    Failed(Failure),
}

async fn see(database: &Database, depth: Depth) -> Result<Look, SeeError> {
    let limit = database.limits.connect_timeout.min(CONNECT_LIMIT);
    let session = database.session_within("watch", limit).await.map_err(SeeError::Failed)?;
    let looked = look_at(&session, depth).await;
    // What went wrong in a transaction leaves the connection to be closed; a shape is read whole.
    if matches!(looked, Ok(_) | Err(SessionError::Shape(_))) {
        session.give_back();
    }
    looked.map_err(|error| match error {
        SessionError::Shape(error) => SeeError::Foreign(error.to_string()),
        SessionError::Sql(fault) if fault.sqlstate == "55P03" => SeeError::Locked,
        error => SeeError::Failed(of_session(error, "reading the applied migrations")),
    })
}

async fn look_at(session: &Session, depth: Depth) -> Result<Look, SessionError> {
    let shape = look::shape(session).await?;
    look::look(session, shape, depth == Depth::Everything).await
}

/// What follows from a look, or from its failure.
fn conclude(
    database: &str,
    catalog: &CatalogResult,
    seen: Result<Look, SeeError>,
    rules: &Rules,
) -> Observation {
    let mut observation = Observation {
        database: database.to_owned(),
        time: rules.now,
        counts: None,
        findings: Vec::new(),
        unknown: Vec::new(),
    };
    let findings = &mut observation.findings;
    if let Err(failure) = catalog {
        findings.push(of_failure(FindingKind::DirectoryUnreadable, failure));
    }
    match (seen, catalog) {
        (Ok(look), catalog) => {
            match catalog {
                Ok(catalog) => observation.counts = Some(compare::files(catalog, &look, rules, findings)),
                Err(_) => observation.unknown.extend(OF_THE_CATALOG),
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
        (Err(error), _) => {
            match error {
                SeeError::Foreign(message) => {
                    findings.push(Finding::new(FindingKind::ForeignTable, "", message));
                }
                SeeError::Failed(failure) => {
                    findings.push(of_failure(FindingKind::DatabaseUnreachable, &failure));
                    observation.unknown.push(FindingKind::ForeignTable);
                }
                SeeError::Locked => observation.unknown.push(FindingKind::ForeignTable),
            }
            observation.unknown.extend(OF_A_RUN.into_iter().chain(OF_THE_CATALOG).chain(OF_THE_SCHEMA));
        }
    }
    observation
}

fn of_failure(kind: FindingKind, failure: &Failure) -> Finding {
    let sqlstate = failure.sqlstate.iter().map(|sqlstate| format!("SQLSTATE {sqlstate}"));
    Finding::new(kind, "", failure.message.clone())
        .evidence(std::iter::once(failure.code.to_string()).chain(sqlstate))
        .evidence(failure.details.iter().cloned())
}
