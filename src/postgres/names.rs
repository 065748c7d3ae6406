//! The qualified names of the tables that Nexus keeps in a database, and the key of its lock.

use crate::{migration::Checksum, postgres::quote::quote_ident};

/// Where a database keeps its migrations' rows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Names {
    /// The schema, unquoted.
    pub schema: String,
    /// The tracking table, unquoted; `schema_migrations` unless configured otherwise.
    pub table: String,
    /// The journal, unquoted.
    pub journal: String,
    /// The tracking table, quoted and qualified: ready for SQL.
    pub tracking_sql: String,
    /// The journal, quoted and qualified: ready for SQL.
    pub journal_sql: String,
}

impl Names {
    /// The names for a schema and a tracking table. The journal is `nexus_journal`; beside a table
    /// of another name, `TABLE_nexus_journal`, so that two sets of migrations in one schema keep
    /// their evidence apart.
    pub fn new(schema: &str, table: &str) -> Self {
        let journal = match table {
            "schema_migrations" => "nexus_journal".to_owned(),
            other => format!("{other}_nexus_journal"),
        };
        Self {
            tracking_sql: format!("{}.{}", quote_ident(schema), quote_ident(table)),
            journal_sql: format!("{}.{}", quote_ident(schema), quote_ident(&journal)),
            schema: schema.to_owned(),
            table: table.to_owned(),
            journal,
        }
    }

    /// The name of the trigger that tells of changes of the rows, and of its function; unquoted.
    pub fn watch(&self) -> String {
        match self.table.as_str() {
            "schema_migrations" => "nexus_watch".to_owned(),
            other => format!("{other}_nexus_watch"),
        }
    }

    /// The channel that the trigger notifies: `nexus_` and the lock's key in hexadecimal digits.
    pub fn channel(&self, dbname: &str) -> String {
        format!("nexus_{:016x}", self.lock_key(dbname))
    }

    /// The key of the advisory lock: the first eight bytes, as a big-endian signed integer, of the
    /// SHA-256 of `nexus/DBNAME/SCHEMA.TABLE`. Documented, so that other tools can take it too.
    pub fn lock_key(&self, dbname: &str) -> i64 {
        let digest = Checksum::of(format!("nexus/{dbname}/{}.{}", self.schema, self.table).as_bytes());
        i64::from_be_bytes(digest.leading_bytes())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_key_is_the_documented_one() {
        // printf nexus/shop/public.schema_migrations | sha256sum | cut -c1-16
        let key = Names::new("public", "schema_migrations").lock_key("shop");
        assert_eq!(format!("{key:016x}"), "5056c5c0fa7dd97c");
        let channel = Names::new("public", "schema_migrations").channel("shop");
        assert_eq!(channel, "nexus_5056c5c0fa7dd97c");
    }

    #[test]
    fn names_are_quoted_and_apart() {
        let names = Names::new("My \"schema\"", "other");
        assert_eq!(names.tracking_sql, r#""My ""schema"""."other""#);
        assert_eq!(names.journal, "other_nexus_journal");
        assert_ne!(names.lock_key("a"), names.lock_key("b"));
    }
}
