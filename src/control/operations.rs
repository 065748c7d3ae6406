//! Operations as they are kept, and the leases on them.
//!
//! An operation that somebody has to work on has an owner until a moment by the control database's
//! clock. Whoever takes one over raises its fence, and a change is only kept with the newest fence:
//! an owner that was frozen and wakes up changes nothing any more.

use tokio_postgres::types::Type;
use uuid::Uuid;

use crate::{control::Control, migration::Failure};

/// The channel on which a changed operation's id is told.
pub const CHANNEL: &str = "nexus_operation";

/// One event of an operation, as it is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeptEvent {
    /// Its number in the operation's log, from 1.
    pub number: i64,
    /// Its database; empty for the operation as a whole.
    pub database: String,
    /// What it takes the place of.
    pub class: String,
    /// The event, as it is sent to whoever watches.
    pub body: Vec<u8>,
}

/// What has changed of an operation.
#[derive(Debug, Clone, Default)]
pub struct Change {
    /// The operation.
    pub id: Uuid,
    /// The owner's fence.
    pub fence: i64,
    /// Counts the changes.
    pub revision: i64,
    /// Whether somebody has to be at work on it.
    pub is_active: bool,
    /// Nothing more will be told of it for now: its owner lets go.
    pub is_released: bool,
    /// Since when it is over, in microseconds since 1970.
    pub ended: Option<i64>,
    /// The operation without its databases, as JSON.
    pub document: String,
    /// The databases that have changed, each as JSON.
    pub databases: Vec<(String, String)>,
    /// The events that are new.
    pub events: Vec<KeptEvent>,
    /// The numbers of those that others have taken the place of.
    pub gone: Vec<i64>,
}

/// An operation as it was read.
#[derive(Debug)]
pub struct Kept {
    /// The operation without its databases, as JSON.
    pub document: String,
    /// How often it has changed.
    pub revision: i64,
    /// The databases that have changed since the revision that was asked for.
    pub databases: Vec<(String, String)>,
    /// The events behind the number that was asked for.
    pub events: Vec<KeptEvent>,
}

/// Which operation is where.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    /// The operation.
    pub id: Uuid,
    /// How often it has changed.
    pub revision: i64,
    /// Whether somebody has to be at work on it.
    pub is_active: bool,
}

impl Control {
    /// Keeps a new operation, owned by this daemon; says whether it is new, or was kept by this very
    /// daemon before.
    pub async fn create(&self, change: &Change) -> Result<bool, Failure> {
        let (names, documents) = split(&change.databases);
        let sql = format!(
            "with made as (insert into operation (id, created, is_active, document, revision, owner, lease_until, fence) \
               values ($1, pg_catalog.clock_timestamp(), true, $2::text::jsonb, $3, $4, {lease}, $5) \
               on conflict (id) do nothing returning id), \
             databases as (insert into operation_database (operation, name, document, revision) \
               select made.id, it.name, it.document::jsonb, $3 \
               from made, unnest($6::text[], $7::text[]) as it (name, document)) \
             select true as mine, pg_catalog.pg_notify('{CHANNEL}', made.id::text)::text from made \
             union all select owner = $4 and fence = $5, null from operation where id = $1",
            lease = self.lease_sql(),
        );
        let rows = self
            .query(
                &sql,
                &[
                    (&change.id, Type::UUID),
                    (&change.document, Type::TEXT),
                    (&change.revision, Type::INT8),
                    (&self.instance(), Type::TEXT),
                    (&change.fence, Type::INT8),
                    (&names, Type::TEXT_ARRAY),
                    (&documents, Type::TEXT_ARRAY),
                ],
            )
            .await?;
        Ok(rows.first().is_some_and(|row| row.get("mine")))
    }

    /// Keeps a change, and with it the lease; false where somebody else owns the operation by now.
    pub async fn save(&self, change: &Change) -> Result<bool, Failure> {
        let (names, documents) = split(&change.databases);
        let numbers: Vec<_> = change.events.iter().map(|event| event.number).collect();
        let of: Vec<_> = change.events.iter().map(|event| event.database.as_str()).collect();
        let classes: Vec<_> = change.events.iter().map(|event| event.class.as_str()).collect();
        let bodies: Vec<_> = change.events.iter().map(|event| event.body.as_slice()).collect();
        let sql = format!(
            "with held as (update operation set document = $2::text::jsonb, revision = $3, is_active = $6, \
               ended = pg_catalog.to_timestamp($7::float8 / 1e6), \
               owner = case when $8 then '' else owner end, \
               lease_until = case when $8 then null else {lease} end \
               where id = $1 and owner = $4 and fence = $5 and revision <= $3 returning id), \
             databases as (insert into operation_database (operation, name, document, revision) \
               select held.id, it.name, it.document::jsonb, $3 \
               from held, unnest($9::text[], $10::text[]) as it (name, document) \
               on conflict (operation, name) do update \
               set document = excluded.document, revision = excluded.revision), \
             gone as (delete from operation_event event using held \
               where event.operation = held.id and event.number = any ($15)), \
             events as (insert into operation_event (operation, number, database, class, body) \
               select held.id, it.* from held, unnest($11::int8[], $12::text[], $13::text[], $14::bytea[]) \
               as it (number, database, class, body) on conflict do nothing) \
             select pg_catalog.pg_notify('{CHANNEL}', id::text) from held",
            lease = self.lease_sql(),
        );
        let rows = self
            .query(
                &sql,
                &[
                    (&change.id, Type::UUID),
                    (&change.document, Type::TEXT),
                    (&change.revision, Type::INT8),
                    (&self.instance(), Type::TEXT),
                    (&change.fence, Type::INT8),
                    (&change.is_active, Type::BOOL),
                    (&change.ended.map(micros), Type::FLOAT8),
                    (&change.is_released, Type::BOOL),
                    (&names, Type::TEXT_ARRAY),
                    (&documents, Type::TEXT_ARRAY),
                    (&numbers, Type::INT8_ARRAY),
                    (&of, Type::TEXT_ARRAY),
                    (&classes, Type::TEXT_ARRAY),
                    (&bodies, Type::BYTEA_ARRAY),
                    (&change.gone, Type::INT8_ARRAY),
                ],
            )
            .await?;
        Ok(!rows.is_empty())
    }

    /// Keeps the leases on these operations with their fences; returns those that are still held.
    pub async fn renew(&self, held: &[(Uuid, i64)]) -> Result<Vec<Uuid>, Failure> {
        let (ids, fences): (Vec<_>, Vec<_>) = held.iter().copied().unzip();
        let sql = format!(
            "update operation set lease_until = {lease} \
             from unnest($1::uuid[], $2::int8[]) as it (held, held_fence) \
             where id = it.held and fence = it.held_fence and owner = $3 returning id",
            lease = self.lease_sql(),
        );
        let parameters: &[_] = &[
            (&ids as _, Type::UUID_ARRAY),
            (&fences as _, Type::INT8_ARRAY),
            (&self.instance() as _, Type::TEXT),
        ];
        Ok(self.query(&sql, parameters).await?.iter().map(|row| row.get("id")).collect())
    }

    /// Gives a lease up before its time, so that another daemon goes on at once.
    pub async fn hand_over(&self, id: Uuid, fence: i64) -> Result<(), Failure> {
        let sql = format!(
            "with held as (update operation set owner = '', lease_until = pg_catalog.clock_timestamp() \
             where id = $1 and fence = $2 and owner = $3 returning id) \
             select pg_catalog.pg_notify('{CHANNEL}', id::text) from held"
        );
        let parameters: &[_] =
            &[(&id as _, Type::UUID), (&fence as _, Type::INT8), (&self.instance() as _, Type::TEXT)];
        self.query(&sql, parameters).await.map(drop)
    }

    /// Takes one operation over that somebody has to be at work on and that nobody is: returns it with
    /// its fence. Those of `but` are left to others.
    pub async fn take_over(&self, but: &[Uuid]) -> Result<Option<(Uuid, i64)>, Failure> {
        let condition = "is_active and coalesce(lease_until, '-infinity') < pg_catalog.clock_timestamp() \
                         and not id = any ($2)";
        self.claim(condition, (&but, Type::UUID_ARRAY)).await
    }

    /// Takes this operation, where nobody has to be at work on it and nobody owns it.
    pub async fn take(&self, id: Uuid) -> Result<Option<i64>, Failure> {
        let condition =
            "id = $2 and not is_active and coalesce(lease_until, '-infinity') < pg_catalog.clock_timestamp()";
        Ok(self.claim(condition, (&id, Type::UUID)).await?.map(|(_, fence)| fence))
    }

    async fn claim(
        &self,
        condition: &str,
        parameter: super::Parameter<'_>,
    ) -> Result<Option<(Uuid, i64)>, Failure> {
        let sql = format!(
            "update operation set owner = $1, fence = fence + 1, lease_until = {lease} \
             where id = (select id from operation where {condition} \
               order by created limit 1 for update skip locked) \
             returning id, fence",
            lease = self.lease_sql(),
        );
        let rows = self.query(&sql, &[(&self.instance(), Type::TEXT), parameter]).await?;
        Ok(rows.first().map(|row| (row.get("id"), row.get("fence"))))
    }

    /// Where the newest operations are, the newest first.
    pub async fn places(&self, limit: i64) -> Result<Vec<Place>, Failure> {
        let sql = "select id, revision, is_active from operation order by created desc limit $1";
        let rows = self.query(sql, &[(&limit, Type::INT8)]).await?;
        let place = |row: &tokio_postgres::Row| Place {
            id: row.get("id"),
            revision: row.get("revision"),
            is_active: row.get("is_active"),
        };
        Ok(rows.iter().map(place).collect())
    }

    /// Reads an operation: what has changed since a revision, and the events behind a number.
    pub async fn read(&self, id: Uuid, since: i64, behind: i64) -> Result<Option<Kept>, Failure> {
        // One statement sees one moment.
        let sql = "select o.document::text as document, o.revision, \
             (select pg_catalog.array_agg(name order by name) from operation_database d \
               where d.operation = o.id and d.revision > $2) as names, \
             (select pg_catalog.array_agg(d.document::text order by name) from operation_database d \
               where d.operation = o.id and d.revision > $2) as documents, \
             e.* from operation o left join lateral \
             (select pg_catalog.array_agg(number order by number) as numbers, \
               pg_catalog.array_agg(database order by number) as databases, \
               pg_catalog.array_agg(class order by number) as classes, \
               pg_catalog.array_agg(body order by number) as bodies \
               from operation_event event where event.operation = o.id and number > $3) e on true \
             where o.id = $1";
        let parameters: &[_] =
            &[(&id as _, Type::UUID), (&since as _, Type::INT8), (&behind as _, Type::INT8)];
        let rows = self.query(sql, parameters).await?;
        Ok(rows.first().map(|row| {
            let texts = |column| row.get::<_, Option<Vec<String>>>(column).unwrap_or_default();
            let numbers = row.get::<_, Option<Vec<i64>>>("numbers").unwrap_or_default();
            let bodies = row.get::<_, Option<Vec<Vec<u8>>>>("bodies").unwrap_or_default();
            let events = numbers.into_iter().zip(texts("databases")).zip(texts("classes")).zip(bodies);
            Kept {
                document: row.get("document"),
                revision: row.get("revision"),
                databases: texts("names").into_iter().zip(texts("documents")).collect(),
                events: events
                    .map(|(((number, database), class), body)| KeptEvent { number, database, class, body })
                    .collect(),
            }
        }))
    }

    /// Forgets operations that ended longer ago than `days`; says how many.
    pub async fn forget_operations(&self, days: i32) -> Result<u64, Failure> {
        let sql = "with gone as (delete from operation where not is_active \
             and document->>'state' <> 'halted' \
             and ended < pg_catalog.now() - pg_catalog.make_interval(days => $1) returning 1) \
             select count(*) as gone from gone";
        let rows = self.query(sql, &[(&days, Type::INT4)]).await?;
        Ok(rows.first().map_or(0, |row| row.get::<_, i64>("gone").unsigned_abs()))
    }

    /// Until when a lease lasts that is taken now.
    fn lease_sql(&self) -> String {
        format!(
            "pg_catalog.clock_timestamp() + pg_catalog.make_interval(secs => {})",
            self.settings.lease.as_secs_f64()
        )
    }
}

fn split(databases: &[(String, String)]) -> (Vec<&str>, Vec<&str>) {
    databases.iter().map(|(name, document)| (name.as_str(), document.as_str())).unzip()
}

#[allow(clippy::cast_precision_loss, reason = "microseconds since 1970 fit for 285 years")]
fn micros(micros: i64) -> f64 {
    micros as f64
}
