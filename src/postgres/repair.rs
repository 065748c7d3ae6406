//! Changing one row by hand, durably, with the reason in the journal, in one transaction.

use tokio_postgres::types::Type;

use crate::{
    migration::Version,
    postgres::{
        executor::Author,
        names::Names,
        quote::quote_literal,
        session::{Session, SessionError},
    },
    redact::mask_text,
};

/// One change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// `dirty = false`.
    ClearDirty {
        /// The row.
        version: Version,
    },
    /// The row goes.
    Forget {
        /// The row.
        version: Version,
    },
    /// Another checksum.
    AcceptChecksum {
        /// The row.
        version: Version,
        /// The checksum, as hexadecimal digits.
        checksum: String,
    },
    /// Another version.
    Rename {
        /// The row.
        version: Version,
        /// Its new version.
        new: Version,
    },
    /// A row comes.
    MarkApplied {
        /// The row.
        version: Version,
        /// Its checksum, as hexadecimal digits.
        checksum: String,
    },
}

/// Makes the change; fails where it is not what became of the row. The session is of no use then.
pub async fn change(
    session: &Session,
    author: &Author,
    change: &Change,
    reason: &str,
) -> Result<(), SessionError> {
    let Names { tracking_sql: tracking, journal_sql: journal, .. } = &session.names;
    let there = |version: &Version, more: &str| {
        format!("exists (select from {tracking} where version = {}{more})", quote_literal(version.as_str()))
    };
    let with_checksum = |checksum: &str| format!(" and checksum = {}", quote_literal(checksum));
    // $1 is the row's version, $2 what it gets: a checksum or a version. Last, what is to be found then.
    let (name, version, value, row, found) = match change {
        Change::ClearDirty { version } => (
            "clear-dirty",
            version,
            "",
            format!("update {tracking} set dirty = false where version = $1 and $2 = ''"),
            there(version, " and not dirty"),
        ),
        Change::Forget { version } => (
            "forget",
            version,
            "",
            format!("delete from {tracking} where version = $1 and $2 = ''"),
            format!("not {}", there(version, "")),
        ),
        Change::AcceptChecksum { version, checksum } => (
            "accept-checksum",
            version,
            checksum.as_str(),
            format!("update {tracking} set checksum = $2 where version = $1"),
            there(version, &with_checksum(checksum)),
        ),
        Change::Rename { version, new } => (
            "rename",
            version,
            new.as_str(),
            format!("update {tracking} set version = $2 where version = $1"),
            format!("not {} and {}", there(version, ""), there(new, "")),
        ),
        Change::MarkApplied { version, checksum } => (
            "mark-applied",
            version,
            checksum.as_str(),
            format!("insert into {tracking} (version, checksum) values ($1, $2)"),
            there(version, &(with_checksum(checksum) + " and not dirty")),
        ),
    };
    // A renamed row takes the kept down script along.
    let (recorded, kept) = match change {
        Change::Rename { new, .. } => (
            new,
            format!(
                "(select j.down_text from {journal} j where j.version = $1 and j.direction in ('up', 'rename') \
                 order by j.id desc limit 1)"
            ),
        ),
        _ => (version, "null".to_owned()),
    };
    let sql = format!(
        "with changed as ({row} returning version) \
         insert into {journal} (operation_id, version, direction, checksum, down_text, outcome, message, \
           requested_by, trace_id, instance, finished_at, duration_ms) \
         select $3, $4, $5, case when length($2) = 64 then $2 else '' end, {kept}, 'succeeded', $6, $7, $8, $9, \
           clock_timestamp(), 0 from changed returning id"
    );
    session.rows("begin; set local synchronous_commit = on").await?;
    let recorded = session
        .query(
            &sql,
            &[
                (&version.as_str(), Type::TEXT),
                (&value, Type::TEXT),
                (&author.operation, Type::UUID),
                (&recorded.as_str(), Type::TEXT),
                (&name, Type::TEXT),
                (&mask_text(reason), Type::TEXT),
                (&author.requested_by, Type::TEXT),
                (&author.trace.trace_id(), Type::TEXT),
                (&author.instance, Type::TEXT),
            ],
        )
        .await?;
    // A rule, a trigger or somebody else has kept the row from being changed.
    if recorded.is_empty() {
        return Err(SessionError::RowGone);
    }
    let is_wrong = Session::fail_sql(&[("row", &format!("not ({found})"))]);
    session.rows(&format!("{is_wrong}; commit")).await.map(drop)
}
