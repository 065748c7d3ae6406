//! What the journal of one database keeps.

use std::sync::Arc;

use crate::{
    engine::{Database, failure::of_session},
    migration::{Attempt, Failure},
    postgres::journal,
};

/// Reads attempts, newest first: of one version or number, or of all; at most `limit`.
pub async fn history(
    database: &Arc<Database>,
    version: Option<&str>,
    limit: u32,
) -> Result<Vec<Attempt>, Failure> {
    let doing = "reading the journal";
    let mut session = database.session("history").await?;
    let (shape, _) = session.look().await.map_err(|error| of_session(error, doing))?;
    let attempts = if shape.journal {
        journal::history(&session, version, i64::from(limit)).await
    } else {
        Ok(Vec::new())
    };
    let attempts = attempts.map_err(|error| of_session(error, doing))?;
    session.give_back();
    Ok(attempts)
}
