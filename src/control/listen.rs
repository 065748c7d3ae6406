//! Being told of what other daemons have changed.

use crate::{
    control::{Control, errands, operations},
    migration::Failure,
    postgres::connect::Connection,
};

/// A connection that hears of changes.
#[derive(Debug)]
pub struct Ear {
    connection: Connection,
}

impl Control {
    /// Begins to listen.
    pub async fn listen(&self) -> Result<Ear, Failure> {
        let connection = self.connect().await?;
        let sql = format!("listen {}; listen {}", operations::CHANNEL, errands::CHANNEL);
        let listens = connection.client.batch_execute(&sql).await;
        listens.map_err(|error| super::failure_of(&self.settings, &error))?;
        Ok(Ear { connection })
    }
}

impl Ear {
    /// Waits for the next change, whatever it is; false where the connection has ended.
    pub async fn hear(&mut self) -> bool {
        self.connection.hear().await
    }
}
