//! Gates: whether what has to hold on a database after a wave does.

use std::time::{Duration, Instant};

use backon::{BackoffBuilder as _, ExponentialBuilder};
use tokio::time::{sleep, timeout};

use crate::{
    engine::{Database, failure::of_session},
    migration::Failure,
    postgres::{
        assertion::{self, Answer},
        session::SessionError,
    },
};

/// How long after an answer the gate is asked again, at first and at most.
const PAUSES: (Duration, Duration) = (Duration::from_millis(250), Duration::from_secs(5));

/// What a gate says of one database.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum GateVerdict {
    /// It holds.
    Passed,
    /// It does not.
    Failed,
    /// That cannot be decided: the statement is not fit, failed or hung, or the database does not
    /// answer. In words for people, without any value of a table.
    Inconclusive(String),
}

/// Asks the gate's statement on one database until it holds or `limit` is over, and says what it
/// said last. Dropping the future ends the asking, on the server too.
pub async fn gate(database: &Database, sql: &str, limit: Duration) -> GateVerdict {
    let started = Instant::now();
    // In whole milliseconds: it is told.
    let left = || Duration::from_millis(millis(limit.saturating_sub(started.elapsed())));
    let silent = format!("it did not answer within {}", humantime::format_duration(limit));
    let mut last = GateVerdict::Inconclusive(silent);
    let (first, longest) = PAUSES;
    let pauses = ExponentialBuilder::default().with_min_delay(first).with_max_delay(longest);
    for pause in pauses.with_factor(2.0).with_jitter().without_max_times().build() {
        // An answer that the limit cuts off says less than the one before it. So each may take the
        // whole limit, and this one alone cuts it off.
        let Ok(verdict) = timeout(left(), Box::pin(once(database, sql, limit))).await else { break };
        last = verdict;
        if last == GateVerdict::Passed || left() <= pause {
            break;
        }
        sleep(pause).await;
    }
    last
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

async fn once(database: &Database, sql: &str, limit: Duration) -> GateVerdict {
    let connection = match database.looks.take(limit).await {
        Ok(connection) => connection,
        Err(error) => return inconclusive(&Failure::from(&error)),
    };
    match assertion::ask(&connection, &database.names, sql, limit).await {
        Ok(Answer::Boolean(true)) => GateVerdict::Passed,
        Ok(Answer::Boolean(false)) => GateVerdict::Failed,
        Ok(Answer::Unfit(why)) => GateVerdict::Inconclusive(why),
        Err(SessionError::Sql(fault)) => {
            GateVerdict::Inconclusive(format!("it failed with {}: {}", fault.sqlstate, fault.message))
        }
        Err(error) => inconclusive(&of_session(error, "the gate was asked")),
    }
}

fn inconclusive(failure: &Failure) -> GateVerdict {
    GateVerdict::Inconclusive(failure.message.clone())
}
