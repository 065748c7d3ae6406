//! Who leads: whoever holds an advisory lock of the control database, on a connection of its own.
//!
//! The lock ends with its session, so a leader that dies is succeeded at once. One that is frozen
//! keeps its session: whoever finds its last sign of life older than a lease ends that session. By
//! then it does not believe itself to lead any more: it counts the lease from before it gave the sign
//! ([`Control::leads`]), and what it writes is refused ([`Control::write`]).

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use sha2::{Digest as _, Sha256};
use tokio::{
    sync::Notify,
    time::{Instant, MissedTickBehavior},
};
use tokio_postgres::types::Type;

use crate::{
    control::{Control, errands},
    migration::Failure,
    postgres::connect::Connection,
    runtime::faults,
};

/// The condition that `l` of `pg_locks` is the leader's lock, whose key is the first parameter.
const HELD: &str = "l.locktype = 'advisory' and l.granted and l.objsubid = 1 \
     and l.database = (select oid from pg_catalog.pg_database where datname = pg_catalog.current_database()) \
     and (l.classid::int8 << 32) | l.objid::int8 = $1";

/// The leadership, as long as it lasts.
#[derive(Debug)]
pub struct Leadership {
    control: Arc<Control>,
    /// `None` where it was given up.
    connection: Option<Connection>,
}

/// Until when this daemon leads for sure, by its own clock, which also runs while it is frozen.
#[derive(Debug, Default)]
pub(super) struct Term(Mutex<Option<Instant>>);

impl Term {
    fn is_on(&self) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).is_some_and(|until| Instant::now() < until)
    }

    fn set(&self, until: Option<Instant>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = until;
    }
}

impl Control {
    /// Becomes the leader, where nobody is.
    pub async fn lead(self: &Arc<Self>) -> Result<Option<Leadership>, Failure> {
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
        let leadership = Leadership { control: self.clone(), connection: Some(connection) };
        leadership.beat().await?;
        leadership.listen().await?;
        Ok(Some(leadership))
    }

    /// Whether this daemon leads at this very moment: nobody else can.
    pub fn leads(&self) -> bool {
        self.term.is_on()
    }

    /// Who leads, by the last sign of life; `None` where nobody does.
    pub async fn leader(&self) -> Result<Option<String>, Failure> {
        let sql = format!(
            "select instance from leader join pg_catalog.pg_locks l on l.pid = leader.pid where {HELD}"
        );
        let rows = self.query(&sql, &[(&self.leader_key(), Type::INT8)]).await?;
        Ok(rows.first().map(|row| row.get("instance")))
    }

    /// How often a sign of life is due, and it is seen whether somebody has to succeed.
    pub fn rhythm(&self) -> Duration {
        self.lease() / 4
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
    /// Keeps it, by one sign of life after another; returns when it is over. `errands` is told when
    /// somebody may have asked something of the leader.
    pub async fn hold(&mut self, errands: &Notify) -> Failure {
        let mut ticks = tokio::time::interval(self.control.rhythm());
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                is_there = self.hear() => {
                    if !is_there {
                        return self.control.lost();
                    }
                }
                _ = ticks.tick() => {
                    // Whoever asked meanwhile was told that it is over: it cannot begin again unheard.
                    if !self.control.leads() {
                        return self.control.silent(self.control.lease());
                    }
                    if let Err(failure) = self.beat().await {
                        return failure;
                    }
                }
            }
            errands.notify_one();
        }
    }

    /// Leads no more: another may at once.
    pub async fn resign(mut self) {
        if let Some(connection) = self.connection.take() {
            connection.close().await;
        }
    }

    /// False where the session has ended.
    async fn hear(&mut self) -> bool {
        match &mut self.connection {
            Some(connection) => connection.hear().await,
            None => false,
        }
    }

    /// Shows that the leader lives.
    async fn beat(&self) -> Result<(), Failure> {
        let Self { control, connection: Some(connection) } = self else { return Err(self.control.lost()) };
        // The control database counts from when it gets the statement, which is later, and longer by a tenth.
        let until = Instant::now() + control.lease().mul_f64(0.9);
        let sql = "insert into leader (instance, pid, beat) \
             values ($1, pg_catalog.pg_backend_pid(), pg_catalog.clock_timestamp()) on conflict (single) do update \
             set instance = excluded.instance, pid = excluded.pid, beat = excluded.beat";
        let parameters: &[_] = &[(&control.instance() as _, Type::TEXT)];
        bounded(control, connection.client.query_typed(sql, parameters)).await?;
        control.term.set(Some(until));
        faults::reached("leader", "beat");
        Ok(())
    }

    /// Hears of errands from now on. Only the first sign of life has to outlive a crash of the server:
    /// with it, the one before leads no more.
    async fn listen(&self) -> Result<(), Failure> {
        let Some(connection) = &self.connection else { return Err(self.control.lost()) };
        let sql = format!("set synchronous_commit to off; listen {}", errands::CHANNEL);
        bounded(&self.control, connection.client.batch_execute(&sql)).await
    }
}

impl Drop for Leadership {
    fn drop(&mut self) {
        self.control.term.set(None);
    }
}

/// A statement of the leader's, which with the pause before it takes less than a lease.
async fn bounded<T>(
    control: &Control,
    statement: impl Future<Output = Result<T, tokio_postgres::Error>>,
) -> Result<T, Failure> {
    let patience = control.lease() / 2;
    match tokio::time::timeout(patience, statement).await {
        Ok(answer) => answer.map_err(|error| super::failure_of(&control.settings, &error)),
        Err(_) => Err(control.silent(patience)),
    }
}
