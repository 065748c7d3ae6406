//! The database's lock: taking it, and who holds it.

use std::time::Duration;

use tokio::time::Instant;
use tokio_postgres::SimpleQueryRow;
use tokio_util::sync::CancellationToken;

use crate::{
    postgres::{
        quote::quote_literal,
        session::{CHECK_INTERVAL_MS, FIRST_PAUSE, Locked, Session, SessionError, text},
        tracking::{self, BEGIN_SNAPSHOT, Shape},
    },
    runtime::faults,
};

impl Session {
    /// Takes the lock by polling, until `deadline`. A waiting lock call would deadlock with CREATE
    /// INDEX CONCURRENTLY, which waits for every transaction. `waiting` is told once, and again
    /// when it changes, who has it. Who `takes_over` from an owner that is one no more ends his session.
    pub async fn lock(
        &mut self,
        deadline: Instant,
        cancel: &CancellationToken,
        takes_over: impl Fn() -> bool,
        mut waiting: impl FnMut(&str),
    ) -> Result<Locked, SessionError> {
        let sql = format!(
            "set application_name = {name}; \
             select case when pg_catalog.current_setting('client_connection_check_interval') = '{CHECK_INTERVAL_MS}ms' \
               then pg_catalog.pg_try_advisory_lock({key}) end as locked, pg_catalog.pg_backend_pid() as pid, \
             current_user as role, pg_catalog.pg_is_in_recovery() as standby, \
             pg_catalog.current_setting('client_connection_check_interval') as interval; \
             {shape}",
            name = quote_literal(&self.application_name),
            key = self.key,
            shape = tracking::shape_query(&self.names),
        );
        // A pooler loses the settings: no lock is taken where they do not hold, as it would be left behind.
        let mut last_holder = String::new();
        let mut pause = FIRST_PAUSE;
        loop {
            let rows = self.rows(&sql).await?;
            let [first, shape @ ..] = rows.as_slice() else { return Err(SessionError::Lost) };
            self.check_session(first)?;
            if text(first, "locked") == Some("t") || faults::is_without("the lock") {
                return Ok(Locked { shape: tracking::read_shape(&self.names, shape)? });
            }
            if takes_over() {
                self.end_namesakes().await?;
            }
            let is_last = Instant::now() + pause >= deadline;
            // A run that has just ended may take a moment to let go: that is not worth telling.
            if (is_last || pause > FIRST_PAUSE)
                && let Some(holder) = self.holder().await?
                && holder != last_holder
            {
                waiting(&holder);
                last_holder = holder;
            }
            if is_last {
                return Err(SessionError::LockHeld { holder: last_holder });
            }
            tokio::select! {
                () = tokio::time::sleep(pause.mul_f64(0.5 + fastrand::f64())) => {}
                () = cancel.cancelled() => return Err(SessionError::Cancelled),
            }
            pause = (pause * 2).min(Duration::from_millis(500));
        }
    }

    /// Ends the session of the same operation that holds the lock: whoever opened it is frozen, or cut
    /// off, and its server does not know. What it was doing is rolled back, or settled by evidence.
    async fn end_namesakes(&self) -> Result<(), SessionError> {
        let sql = format!(
            "select pg_catalog.pg_terminate_backend(l.pid) from pg_catalog.pg_locks l \
             join pg_catalog.pg_stat_activity a on a.pid = l.pid \
             where {others} and a.application_name = {name}",
            others = self.of_others_sql(),
            name = quote_literal(&self.application_name)
        );
        self.rows(&sql).await.map(drop)
    }

    fn check_session(&mut self, row: &SimpleQueryRow) -> Result<(), SessionError> {
        let pid = text(row, "pid").and_then(|pid| pid.parse().ok()).ok_or(SessionError::Lost)?;
        let moved = self.pid != 0 && self.pid != pid;
        if moved || text(row, "interval") != Some(&format!("{CHECK_INTERVAL_MS}ms")) {
            return Err(SessionError::Pooler);
        }
        if text(row, "standby") == Some("t") {
            return Err(SessionError::Standby);
        }
        self.pid = pid;
        text(row, "role").unwrap_or_default().clone_into(&mut self.role);
        Ok(())
    }

    /// Reads which tables exist, without the lock, and who holds it.
    pub async fn look(&mut self) -> Result<(Shape, Option<String>), SessionError> {
        let (holder, shape) = (self.holder_query(), tracking::shape_query(&self.names));
        let sql = format!("{BEGIN_SNAPSHOT}{holder}; {shape}; commit");
        let rows = self.rows(&sql).await?;
        let (holders, shape): (Vec<_>, Vec<_>) =
            rows.into_iter().partition(|row| text(row, "holder").is_some());
        let holder = holders.first().and_then(|row| text(row, "holder")).map(str::to_owned);
        Ok((tracking::read_shape(&self.names, &shape)?, holder))
    }

    /// Who holds the lock, for a person.
    pub async fn holder(&self) -> Result<Option<String>, SessionError> {
        let rows = self.rows(&self.holder_query()).await?;
        Ok(rows.first().and_then(|row| text(row, "holder")).map(str::to_owned))
    }

    /// A role without `pg_read_all_stats` sees less of other sessions: what it cannot see is left out.
    pub(in crate::postgres) fn holder_query(&self) -> String {
        let others = self.of_others_sql();
        format!(
            "select pg_catalog.format('pid %s (%s%s)%s', l.pid, \
               coalesce(nullif(a.application_name, ''), 'unknown'), \
               coalesce(' from ' || pg_catalog.host(a.client_addr), ''), \
               coalesce(', connected since ' || \
                 pg_catalog.to_char(a.backend_start at time zone 'UTC', 'YYYY-MM-DD HH24:MI:SS\"Z\"'), '')) as holder \
             from pg_catalog.pg_locks l left join pg_catalog.pg_stat_activity a on a.pid = l.pid \
             where {others} limit 1"
        )
    }

    /// The process alone, for those who look: all that is known of it costs what beginning a session costs.
    pub(in crate::postgres) fn held_query(&self) -> String {
        format!("select l.pid as holder from pg_catalog.pg_lock_status() l where {}", self.of_others_sql())
    }

    /// A condition that a row of the server's list of locks is this one, held by somebody else.
    fn of_others_sql(&self) -> String {
        let (high, low) = self.key_halves();
        format!(
            "l.locktype = 'advisory' and l.granted and l.objsubid = 1 \
             and l.classid = {high} and l.objid = {low} and l.database = (select d.oid \
             from pg_catalog.pg_database d where d.datname = pg_catalog.current_database()) \
             and l.pid <> pg_catalog.pg_backend_pid()"
        )
    }
}
