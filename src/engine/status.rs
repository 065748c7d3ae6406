//! How one database stands, read live and without its lock.

use std::{sync::Arc, time::Duration};

use crate::{
    engine::{Database, failure::of_session},
    migration::{
        Catalog, Failure,
        drift::{self, Standing},
    },
    postgres::tracking::{self, Kept},
};

/// How one database stands.
#[derive(Debug, Clone)]
pub struct Status {
    /// Every migration that the directory or the table knows, in order.
    pub standings: Vec<Standing>,
    /// Who holds the database's lock now: then a dirty row is an attempt under way.
    pub lock_holder: Option<String>,
}

/// How long a status may take: it is only a look.
const LIMIT: Duration = Duration::from_secs(30);

/// Reads a database and compares it with its catalog.
pub async fn status(database: &Arc<Database>, catalog: &Catalog) -> Result<Status, Failure> {
    let doing = "reading the applied migrations";
    let read = async {
        let mut session = database.session("status").await?;
        let (shape, lock_holder) = session.look().await.map_err(|error| of_session(error, doing))?;
        let tracked = tracking::read(&session, shape, Kept::All).await;
        let tracked = tracked.map_err(|error| of_session(error, doing))?;
        session.give_back();
        Ok(Status { standings: drift::examine(catalog, &tracked), lock_holder })
    };
    let late = || {
        Failure::new(
            crate::migration::Code::Unreachable,
            format!("{} did not answer in {} s", database.name, LIMIT.as_secs()),
        )
    };
    tokio::time::timeout(LIMIT, read).await.map_err(|_| late())?
}
