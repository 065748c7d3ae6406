//! What the leader knows for all daemons: documents by kind and key, without their meaning.

use std::{
    collections::{HashMap, HashSet},
    time::Duration,
};

use jiff::Timestamp;
use tokio_postgres::types::Type;

use crate::{control::Control, migration::Failure};

/// A document, as JSON.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Document {
    /// Its key among those of its kind.
    pub key: String,
    /// Its body, as JSON.
    pub body: String,
    /// When it was written, by the control database's clock.
    pub changed: Timestamp,
}

/// How far back it is looked for what was written: a statement has its time before others see it.
const MARGIN: Duration = Duration::from_secs(10);

/// The documents of one kind, as they were read last: what has not changed is not read again.
#[derive(Debug)]
pub struct Mirror {
    kind: &'static str,
    /// When each was written.
    known: HashMap<String, Timestamp>,
    /// When they were read, by the control database's clock.
    read: Option<Timestamp>,
}

/// What another look at the documents of a kind showed.
#[derive(Debug, Default)]
pub struct Changes {
    /// Those that are new or others.
    pub written: Vec<Document>,
    /// The keys of those that are gone.
    pub gone: Vec<String>,
}

impl Mirror {
    /// Nothing was read yet.
    pub fn new(kind: &'static str) -> Self {
        Self { kind, known: HashMap::new(), read: None }
    }

    /// Reads what has changed.
    pub async fn refresh(&mut self, control: &Control) -> Result<Changes, Failure> {
        let since = self.read.map(|read| read.checked_sub(MARGIN).unwrap_or(read));
        // What was written late may be older than what was read: of those, only what is known is left out.
        let is_recent = |changed: &Timestamp| since.is_some_and(|since| *changed >= since);
        let recent = self.known.iter().filter(|(_, changed)| is_recent(changed));
        let (keys, times): (Vec<_>, Vec<_>) = recent.map(|(key, changed)| (key.as_str(), *changed)).unzip();
        let (documents, number, read) = control.changed(self.kind, since, &keys, &times).await?;
        self.read = read;
        let mut changes = self.take(documents);
        if self.known.len() != number {
            let all = control.documents(self.kind).await?;
            let there: HashSet<String> = all.iter().map(|document| document.key.clone()).collect();
            changes.written.extend(self.take(all).written);
            changes.gone = self.known.extract_if(|key, _| !there.contains(key)).map(|(key, _)| key).collect();
        }
        Ok(changes)
    }

    fn take(&mut self, documents: Vec<Document>) -> Changes {
        let mut is_new = |it: &Document| self.known.insert(it.key.clone(), it.changed) != Some(it.changed);
        let written = documents.into_iter().filter(|document| is_new(document)).collect();
        Changes { written, gone: Vec::new() }
    }
}

impl Control {
    /// Writes documents of one kind, and takes others away, as long as this daemon leads; false where
    /// it does not.
    pub async fn write(
        &self,
        kind: &str,
        written: &[(String, String)],
        gone: &[String],
    ) -> Result<bool, Failure> {
        let (keys, bodies): (Vec<_>, Vec<_>) =
            written.iter().map(|(key, body)| (key.as_str(), body.as_str())).unzip();
        let sql = "with leads as (select from leader where instance = $1 for share), \
             gone as (delete from document using leads where kind = $2 and key = any ($5)), \
             written as (insert into document (kind, key, body) select $2, it.key, it.body::jsonb \
               from leads, unnest($3::text[], $4::text[]) as it (key, body) \
               on conflict (kind, key) do update \
               set body = excluded.body, changed = pg_catalog.clock_timestamp()) \
             select from leads";
        let parameters: &[_] = &[
            (&self.instance() as _, Type::TEXT),
            (&kind as _, Type::TEXT),
            (&keys as _, Type::TEXT_ARRAY),
            (&bodies as _, Type::TEXT_ARRAY),
            (&gone as _, Type::TEXT_ARRAY),
        ];
        Ok(!self.query(sql, parameters).await?.is_empty())
    }

    /// Adds a document that nobody else writes: any daemon may.
    pub async fn add(&self, kind: &str, key: &str, body: &str) -> Result<(), Failure> {
        let sql =
            "insert into document (kind, key, body) values ($1, $2, $3::text::jsonb) on conflict do nothing";
        let parameters: &[_] = &[(&kind as _, Type::TEXT), (&key as _, Type::TEXT), (&body as _, Type::TEXT)];
        self.query(sql, parameters).await.map(drop)
    }

    /// Takes documents of a kind away that are older than so many days, and of many the oldest.
    pub async fn forget_documents(&self, kind: &str, days: i32, most: i64) -> Result<(), Failure> {
        let sql = "delete from document where kind = $1 \
             and (changed < pg_catalog.now() - pg_catalog.make_interval(days => $2) \
               or key in (select key from document where kind = $1 order by changed desc offset $3))";
        let parameters: &[_] =
            &[(&kind as _, Type::TEXT), (&days as _, Type::INT4), (&most as _, Type::INT8)];
        self.query(sql, parameters).await.map(drop)
    }

    /// Those of a kind that were written at a moment or later, but for those that were written as these
    /// were, how many there are in all, and what time it is.
    async fn changed(
        &self,
        kind: &str,
        since: Option<Timestamp>,
        keys: &[&str],
        times: &[Timestamp],
    ) -> Result<(Vec<Document>, usize, Option<Timestamp>), Failure> {
        let sql = "select key, body::text as body, changed, all_there.number, all_there.now \
             from (select pg_catalog.count(*) as number, pg_catalog.now() as now \
               from document where kind = $1) all_there \
             left join document on kind = $1 and changed >= coalesce($2, '-infinity') \
               and not exists (select from unnest($3::text[], $4::timestamptz[]) as known (key, changed) \
                 where known.key = document.key and known.changed = document.changed)";
        let parameters: &[_] = &[
            (&kind as _, Type::TEXT),
            (&since as _, Type::TIMESTAMPTZ),
            (&keys as _, Type::TEXT_ARRAY),
            (&times as _, Type::TIMESTAMPTZ_ARRAY),
        ];
        let rows = self.query(sql, parameters).await?;
        let number = rows.first().map_or(0, |row| row.get::<_, i64>("number"));
        let document = |row: &tokio_postgres::Row| {
            let key = row.get::<_, Option<String>>("key")?;
            Some(Document { key, body: row.get("body"), changed: row.get("changed") })
        };
        let number = usize::try_from(number).unwrap_or_default();
        Ok((rows.iter().filter_map(document).collect(), number, rows.first().map(|row| row.get("now"))))
    }

    /// Reads all documents of one kind, by key.
    pub async fn documents(&self, kind: &str) -> Result<Vec<Document>, Failure> {
        let sql = "select key, body::text as body, changed from document where kind = $1 order by key";
        let rows = self.query(sql, &[(&kind, Type::TEXT)]).await?;
        let document = |row: &tokio_postgres::Row| Document {
            key: row.get("key"),
            body: row.get("body"),
            changed: row.get("changed"),
        };
        Ok(rows.iter().map(document).collect())
    }
}
