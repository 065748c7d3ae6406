//! What the leader knows for all daemons: documents by kind and key, without their meaning.

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
