//! A copy of the daemons' audit logs, by chain. It is only ever added to; the file is what counts.

use tokio_postgres::types::Type;
use uuid::Uuid;

use crate::{control::Control, migration::Failure};

/// One record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CopiedRecord {
    /// Its number in the chain.
    pub sequence: i64,
    /// Its hash, in hexadecimal digits.
    pub hash: String,
    /// The record, as it stands in the file, without the line's end.
    pub line: String,
}

impl Control {
    /// Adds records of a chain; those that are there stay.
    pub async fn copy_audit_log(&self, chain: Uuid, records: &[CopiedRecord]) -> Result<(), Failure> {
        let numbers: Vec<_> = records.iter().map(|record| record.sequence).collect();
        let hashes: Vec<_> = records.iter().map(|record| record.hash.as_str()).collect();
        let lines: Vec<_> = records.iter().map(|record| record.line.as_str()).collect();
        let sql = "insert into audit_log (chain, sequence, hash, line) \
             select $1, it.sequence, it.hash, it.line \
             from unnest($2::int8[], $3::text[], $4::text[]) as it (sequence, hash, line) \
             on conflict do nothing";
        let parameters: &[_] = &[
            (&chain as _, Type::UUID),
            (&numbers as _, Type::INT8_ARRAY),
            (&hashes as _, Type::TEXT_ARRAY),
            (&lines as _, Type::TEXT_ARRAY),
        ];
        self.query(sql, parameters).await.map(drop)
    }

    /// The last number of a chain that is there, and the hashes that the record of a number has there.
    pub async fn copied_audit_log(&self, chain: Uuid, sequence: i64) -> Result<(i64, Vec<String>), Failure> {
        let sql = "select coalesce(max(sequence), 0) as last, \
             coalesce(pg_catalog.array_agg(hash) filter (where sequence = $2), '{}') as hashes \
             from audit_log where chain = $1 \
             and (sequence = $2 or sequence = (select max(sequence) from audit_log where chain = $1))";
        let rows = self.query(sql, &[(&chain, Type::UUID), (&sequence, Type::INT8)]).await?;
        Ok(rows.first().map(|row| (row.get("last"), row.get("hashes"))).unwrap_or_default())
    }
}
