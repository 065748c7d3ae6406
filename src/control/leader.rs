//! Who leads: whoever holds an advisory lock of the control database, on a connection of its own.
//!
//! The lock ends with its session, so a leader that dies is succeeded at once. One that is frozen
//! keeps its session: whoever finds its last sign of life older than a lease ends that session.

use std::time::Duration;

use sha2::{Digest as _, Sha256};
use tokio_postgres::types::Type;

use crate::{control::Control, migration::Failure, postgres::connect::Connection};

/// The condition that `l` of `pg_locks` is the leader's lock, whose key is the first parameter.
const HELD: &str = "l.locktype = 'advisory' and l.granted and l.objsubid = 1 \
     and l.database = (select oid from pg_catalog.pg_database where datname = pg_catalog.current_database()) \
     and (l.classid::int8 << 32) | l.objid::int8 = $1";

/// The leadership, as long as it lasts.
#[derive(Debug)]
pub struct Leadership {
    connection: Connection,
}

impl Control {
    /// Becomes the leader, where nobody is.
    pub async fn lead(&self) -> Result<Option<Leadership>, Failure> {
        let key = self.leader_key();
        if self.is_led(key).await? {
            self.end_a_silent_leader(key).await?;
            return Ok(None);
        }
        let connection = self.connect().await?;
        let sql = "select pg_catalog.pg_try_advisory_lock($1) as leads";
        let got = bounded(self, connection.client.query_typed(sql, &[(&key, Type::INT8)])).await?;
        if !got.first().is_some_and(|row| row.get("leads")) {
            return Ok(None);
        }
        let leadership = Leadership { connection };
        leadership.beat(self).await?;
        Ok(Some(leadership))
    }

    /// Who leads, by the last sign of life.
    pub async fn leader(&self) -> Result<Option<String>, Failure> {
        let rows = self.query("select instance from leader", &[]).await?;
        Ok(rows.first().map(|row| row.get("instance")))
    }

    /// Whether somebody holds the lock: asked without a connection of one's own.
    async fn is_led(&self, key: i64) -> Result<bool, Failure> {
        let sql = format!("select exists (select from pg_catalog.pg_locks l where {HELD}) as led");
        let rows = self.query(&sql, &[(&key, Type::INT8)]).await?;
        Ok(rows.first().is_some_and(|row| row.get("led")))
    }

    /// Ends the session of a leader that has shown no sign of life for a lease: it is frozen, or cut off.
    async fn end_a_silent_leader(&self, key: i64) -> Result<(), Failure> {
        let sql = format!(
            "select pg_catalog.pg_terminate_backend(l.pid) as ended, leader.instance \
             from leader join pg_catalog.pg_locks l on l.pid = leader.pid \
             where leader.beat < pg_catalog.clock_timestamp() - pg_catalog.make_interval(secs => $2) and {HELD}"
        );
        let lease = self.lease().as_secs_f64();
        for row in self.query(&sql, &[(&key, Type::INT8), (&lease, Type::FLOAT8)]).await? {
            let leader: String = row.get("instance");
            tracing::warn!(leader, "the leader is silent: its session was ended");
        }
        Ok(())
    }

    /// The lock's key: another service may have its schema in the same database.
    fn leader_key(&self) -> i64 {
        let digest = Sha256::digest(format!("nexus leader of {}", self.settings.schema));
        i64::from_be_bytes(std::array::from_fn(|index| digest[index]))
    }
}

impl Leadership {
    /// Shows that the leader lives; an error, and it leads no more.
    pub async fn beat(&self, control: &Control) -> Result<(), Failure> {
        let sql = "insert into leader (instance, pid, beat) \
             values ($1, pg_catalog.pg_backend_pid(), pg_catalog.clock_timestamp()) on conflict (single) do update \
             set instance = excluded.instance, pid = excluded.pid, beat = excluded.beat";
        let parameters: &[_] = &[(&control.instance() as _, Type::TEXT)];
        bounded(control, self.connection.client.query_typed(sql, parameters)).await.map(drop)
    }

    /// How often a sign of life is due.
    pub fn rhythm(control: &Control) -> Duration {
        control.lease() / 4
    }

    /// Leads no more: another may at once.
    pub async fn resign(self) {
        self.connection.close().await;
    }
}

/// A statement that may take no longer than a leader may be silent.
async fn bounded<T>(
    control: &Control,
    statement: impl Future<Output = Result<T, tokio_postgres::Error>>,
) -> Result<T, Failure> {
    match tokio::time::timeout(Leadership::rhythm(control), statement).await {
        Ok(answer) => answer.map_err(|error| super::failure_of(&control.settings, &error)),
        Err(_) => Err(control.silent(Leadership::rhythm(control))),
    }
}
