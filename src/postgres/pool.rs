//! Warm connections for reads, bounded in number: those of one target, and those of one server. Migrations
//! take theirs out and close them.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use deadpool::{
    Status,
    managed::{
        self, Metrics, Object, PoolConfig, PoolError, QueueMode, RecycleError, RecycleResult, WeakPool,
    },
};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::timeout,
};

use crate::postgres::{
    connect::{Connection, connect, timed_out},
    error::{ConnectError, ConnectReason},
    url::Target,
};

/// The most that one attempt to connect takes, where the caller's deadline is longer.
const CONNECT_LIMIT: Duration = Duration::from_secs(10);

/// A connection of the pool: dropping it gives it back, [`give_back`] only where it may stay warm.
pub type Pooled = Object<Connector>;

/// Opens the pool's connections.
#[derive(Debug)]
pub struct Connector {
    target: Target,
    settings: Vec<(&'static str, String)>,
    warm: Option<Warm>,
}

impl managed::Manager for Connector {
    type Type = Connection;
    type Error = ConnectError;

    async fn create(&self) -> Result<Connection, ConnectError> {
        // Before it is opened: another one's place is free only when that one is closed.
        let place = self.warm.as_ref().and_then(Warm::place);
        let mut connection = connect(&self.target, &self.settings, CONNECT_LIMIT).await?;
        connection.place = place;
        Ok(connection)
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

/// How many connections one server keeps, however many pools there are for its databases. Whoever opens
/// one where there is no place left takes that of the connection that nobody has asked for the longest;
/// where all of them are in use, it is closed after its use.
#[derive(Debug, Clone)]
pub struct Warm(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    places: Arc<Semaphore>,
    pools: Mutex<Vec<WeakPool<Connector>>>,
}

impl Warm {
    /// Places for so many connections.
    pub fn of(connections: usize) -> Self {
        let places = Arc::new(Semaphore::new(connections));
        Self(Arc::new(Shared { places, pools: Mutex::default() }))
    }

    fn join(&self, pool: WeakPool<Connector>) {
        let mut pools = self.0.pools.lock().unwrap_or_else(PoisonError::into_inner);
        // Pools go with their databases: before there is more room for them, it is made.
        if pools.len() == pools.capacity() {
            pools.retain(|pool| pool.upgrade().is_some());
        }
        pools.push(pool);
    }

    fn free_place(&self) -> Option<OwnedSemaphorePermit> {
        self.0.places.clone().try_acquire_owned().ok()
    }

    fn place(&self) -> Option<OwnedSemaphorePermit> {
        self.free_place().or_else(|| {
            self.close_oldest();
            self.free_place()
        })
    }

    fn close_oldest(&self) {
        let pools = self.0.pools.lock().unwrap_or_else(PoisonError::into_inner);
        let oldest = pools.iter().filter_map(|pool| {
            let pool = pool.upgrade()?;
            let mut idle = None;
            pool.retain(|_, metrics| {
                idle = idle.max(Some(metrics.last_used()));
                true
            });
            Some((idle?, pool))
        });
        let Some((idle, pool)) = oldest.max_by_key(|(idle, _)| *idle) else { return };
        let mut is_closed = false;
        // They are gone through from the front, and asked for at the back.
        pool.retain(|_, metrics| {
            let is_meant = !is_closed && metrics.last_used() >= idle;
            is_closed |= is_meant;
            !is_meant
        });
    }
}

/// Gives a connection back to its pool, or closes it where its server keeps as many as it may.
pub fn give_back(mut connection: Pooled) {
    let warm = Object::pool(&connection).and_then(|pool| pool.manager().warm.clone());
    if let Some(warm) = warm
        && connection.place.is_none()
    {
        connection.place = warm.free_place();
        if connection.place.is_none() {
            drop(Object::take(connection));
        }
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
    pub fn new(target: Target, settings: Vec<(&'static str, String)>, max_size: usize) -> Self {
        Self::build(Connector { target, settings, warm: None }, max_size)
    }

    /// The same, and what is given back is kept only within the places of its server.
    pub fn within(
        warm: &Warm,
        target: Target,
        settings: Vec<(&'static str, String)>,
        max_size: usize,
    ) -> Self {
        let pool = Self::build(Connector { target, settings, warm: Some(warm.clone()) }, max_size);
        warm.join(pool.pool.weak());
        pool
    }

    fn build(connector: Connector, max_size: usize) -> Self {
        let config = PoolConfig { queue_mode: QueueMode::Lifo, ..PoolConfig::new(max_size) };
        let pool = managed::Pool::builder(connector)
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

    /// A connection of one's own, which does not go back and does not count any more, here or of its server.
    pub async fn take(&self, deadline: Duration) -> Result<Connection, ConnectError> {
        let mut connection = self.get(deadline).await.map(Object::take)?;
        drop(connection.place.take());
        Ok(connection)
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
