//! Warm connections for reads, bounded in number. Migrations take theirs out and close them.

use std::time::Duration;

use deadpool::{
    Status,
    managed::{self, Metrics, Object, PoolConfig, PoolError, QueueMode, RecycleError, RecycleResult},
};
use tokio::time::timeout;

use crate::postgres::{
    connect::{Connection, connect, timed_out},
    error::{ConnectError, ConnectReason},
    url::Target,
};

/// The most that one attempt to connect takes, where the caller's deadline is longer.
const CONNECT_LIMIT: Duration = Duration::from_secs(10);

/// A connection of the pool: dropping it gives it back.
pub type Pooled = Object<Connector>;

/// Opens the pool's connections.
#[derive(Debug)]
pub struct Connector {
    target: Target,
    settings: Vec<(&'static str, String)>,
}

impl managed::Manager for Connector {
    type Type = Connection;
    type Error = ConnectError;

    async fn create(&self) -> Result<Connection, ConnectError> {
        connect(&self.target, &self.settings, CONNECT_LIMIT).await
    }

    /// No round trip: whoever uses a warm connection is ready for its being lost.
    async fn recycle(&self, connection: &mut Connection, _: &Metrics) -> RecycleResult<ConnectError> {
        if connection.is_closed() {
            return Err(RecycleError::message("closed"));
        }
        drop(connection.take_notices());
        Ok(())
    }
}

/// Warm connections to one target, with the same settings.
///
/// A connection goes back as it is: only statements that leave no trace in the session may be run on it.
#[derive(Debug, Clone)]
pub struct Pool {
    pool: managed::Pool<Connector>,
}

impl Pool {
    /// A pool that opens nothing yet, and never more than `max_size` connections.
    #[allow(
        clippy::missing_panics_doc,
        reason = "without time limits of the pool's own, building cannot fail"
    )]
    pub fn new(target: Target, settings: Vec<(&'static str, String)>, max_size: usize) -> Self {
        let config = PoolConfig { queue_mode: QueueMode::Lifo, ..PoolConfig::new(max_size) };
        let pool = managed::Pool::builder(Connector { target, settings })
            .config(config)
            .build()
            .expect("a pool without time limits is always built");
        Self { pool }
    }

    /// A warm connection, or a new one; waits for one that is in use where the pool is full.
    pub async fn get(&self, deadline: Duration) -> Result<Pooled, ConnectError> {
        let target = &self.pool.manager().target;
        match timeout(deadline, self.pool.get()).await {
            Ok(Ok(connection)) => Ok(connection),
            Ok(Err(PoolError::Backend(error))) => Err(error),
            Err(_) if self.is_exhausted() => Err(ConnectError {
                server: target.server(),
                reason: ConnectReason::Busy { limit: self.status().max_size, after: deadline },
            }),
            Ok(Err(_)) | Err(_) => Err(timed_out(target, deadline)),
        }
    }

    /// A connection of one's own, which does not go back and does not count any more.
    pub async fn take(&self, deadline: Duration) -> Result<Connection, ConnectError> {
        self.get(deadline).await.map(Object::take)
    }

    /// Closes the connections that nobody has asked for within this time; says how many.
    pub fn evict_idle(&self, longer_than: Duration) -> usize {
        let kept = |connection: &Connection, metrics: Metrics| {
            !connection.is_closed() && metrics.last_used() < longer_than
        };
        self.pool.retain(kept).removed.len()
    }

    /// The same for clones of one pool, and for no other.
    pub fn identity(&self) -> usize {
        std::ptr::from_ref(self.pool.manager()).addr()
    }

    /// How many connections there are, and how many of them are free.
    pub fn status(&self) -> Status {
        self.pool.status()
    }

    fn is_exhausted(&self) -> bool {
        let status = self.status();
        status.available == 0 && status.size >= status.max_size
    }
}
