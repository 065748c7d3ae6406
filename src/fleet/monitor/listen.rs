//! Being told of changes: for databases with `watch = "notify"`, beside the poll.

use std::{sync::Arc, time::Duration};

use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;

use crate::{
    engine::Database,
    fleet::{inventory::Member, monitor::rhythm::Rhythm},
    postgres::{
        notify,
        pool::{self, Pooled},
        session::SessionError,
    },
};

/// How long connecting, or one message, may take.
const LIMIT: Duration = Duration::from_secs(10);

/// How often a silent connection is made sure of, and with it that the trigger is there.
const CHECK: Duration = Duration::from_mins(10);

/// Listens until `stop`, and has the monitor look at each change. What cannot be put right by
/// waiting, as a missing privilege, ends it with a warning: the poll goes on.
pub(in crate::fleet) async fn listen(member: Arc<Member>, poll: Duration, stop: CancellationToken) {
    let mut rhythm = Rhythm::new(poll);
    loop {
        let ended = tokio::select! {
            ended = hear(&member, poll) => ended,
            () = stop.cancelled() => return,
        };
        match ended {
            Err(SessionError::Sql(fault)) if !passes(&fault.sqlstate) => {
                let (database, error) = (member.name(), fault.message);
                tracing::warn!(database, error, "the trigger cannot be made: the database is only polled");
                return;
            }
            Err(error) => tracing::debug!(database = member.name(), %error, "listening ended"),
            Ok(()) => rhythm = Rhythm::new(poll),
        }
        tokio::select! {
            () = tokio::time::sleep(rhythm.pause(true, false)) => {}
            () = stop.cancelled() => return,
        }
    }
}

/// Everything may pass, a standby or another daemon's doing, but for a privilege that is missing.
fn passes(sqlstate: &str) -> bool {
    sqlstate != "42501"
}

/// Listens on one connection until it ends.
async fn hear(member: &Member, poll: Duration) -> Result<(), SessionError> {
    let Database { looks, names, dbname, .. } = &*member.database;
    let mut connection = Box::pin(looks.take(LIMIT)).await.map_err(|_| SessionError::Lost)?;
    within(notify::listen(&connection, names, dbname)).await?;
    // Nobody told of what came before.
    member.nudge(Instant::now());
    let mut nudged = member.nudged.subscribe();
    loop {
        // The table is made by the first operation; it may also be dropped and made anew.
        let is_installed = within(notify::install(&connection, names, dbname)).await?;
        tokio::select! {
            heard = connection.hear() => {
                if !heard {
                    return Ok(());
                }
                member.nudge(Instant::now());
            }
            _ = nudged.changed(), if !is_installed => {}
            () = tokio::time::sleep(if is_installed { CHECK } else { poll }) => {}
        }
    }
}

/// Takes away the trigger of a database that is only polled; false where that is to be tried again.
pub(super) async fn remove(member: &Member) -> bool {
    let Database { looks, names, keeps_looks, .. } = &*member.database;
    let Ok(connection) = Box::pin(looks.get(LIMIT)).await else { return false };
    let removed = within(notify::remove(&connection, names)).await;
    if *keeps_looks && removed.is_ok() {
        pool::give_back(connection);
    } else {
        drop(Pooled::take(connection));
    }
    let database = member.name();
    match removed {
        Ok(was_there) => {
            if was_there {
                tracing::info!(database, "the trigger that told of changes is removed");
            }
            true
        }
        Err(SessionError::Sql(fault)) if !passes(&fault.sqlstate) => {
            tracing::warn!(
                database,
                error = fault.message,
                "the trigger that told of changes cannot be removed"
            );
            true
        }
        Err(_) => false,
    }
}

async fn within<T>(message: impl Future<Output = Result<T, SessionError>>) -> Result<T, SessionError> {
    timeout(LIMIT, message).await.unwrap_or(Err(SessionError::Lost))
}
