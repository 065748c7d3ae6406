//! What one daemon asks of another: of the one that owns an operation, or of the one that leads.
//!
//! An errand is taken by one daemon at most, and by none after whoever asked has given up: what was
//! answered with "nobody did it" was not done.

use std::time::Duration;

use tokio_postgres::types::Type;
use uuid::Uuid;

use crate::{
    control::Control,
    migration::{Code, Failure},
};

/// The channel on which a new errand, or its answer, is told.
pub const CHANNEL: &str = "nexus_errand";

/// How long an answer is waited for beyond a lease, within which a dead owner is succeeded.
const PATIENCE: Duration = Duration::from_secs(5);

/// How often it is looked for.
const LOOK: Duration = Duration::from_millis(50);

/// An errand that was taken.
#[derive(Debug)]
pub struct Errand {
    /// Its id.
    pub id: Uuid,
    /// The operation that it is about; `None`: it is the leader's.
    pub operation: Option<Uuid>,
    /// What is asked, as JSON.
    pub document: String,
}

impl Control {
    /// Asks the owner of an operation, or the leader, and waits for the answer, which is JSON.
    pub async fn ask(&self, operation: Option<Uuid>, document: &str) -> Result<String, Failure> {
        let id = Uuid::now_v7();
        let sql = format!(
            "with made as (insert into errand (id, operation, document) values ($1, $2, $3::text::jsonb) \
             on conflict do nothing returning id) select pg_catalog.pg_notify('{CHANNEL}', id::text) from made"
        );
        let parameters: &[_] =
            &[(&id as _, Type::UUID), (&operation as _, Type::UUID), (&document as _, Type::TEXT)];
        self.query(&sql, parameters).await?;
        let patience = self.lease() + PATIENCE;
        let given_up = tokio::time::Instant::now() + patience;
        loop {
            tokio::time::sleep(LOOK).await;
            let is_last = tokio::time::Instant::now() > given_up;
            if let Some(answer) = self.answer(id, is_last).await? {
                return Ok(answer);
            }
            if is_last && self.is_taken(id).await? {
                // It is done, or will be: only the answer is missing.
                let message = "The nexusd that was asked has taken the order and has not answered";
                let hint = "look at what has become of it: nexusctl operation show";
                return Err(Failure::new(Code::OwnerSilent, message).hint(hint));
            }
            if is_last {
                let whom = operation.map_or_else(|| "leads".to_owned(), |id| format!("owns operation {id}"));
                let patience = humantime::format_duration(patience);
                let message = format!("The nexusd that {whom} did not answer within {patience}");
                return Err(Failure::new(Code::OwnerSilent, message));
            }
        }
    }

    /// The answer, where there is one: then, and where whoever asked gives up before anybody has taken
    /// it, the errand is over.
    async fn answer(&self, id: Uuid, gives_up: bool) -> Result<Option<String>, Failure> {
        let sql = "delete from errand where id = $1 and (answer is not null or ($2 and taken_by is null)) \
             returning answer::text";
        let rows = self.query(sql, &[(&id, Type::UUID), (&gives_up, Type::BOOL)]).await?;
        Ok(rows.first().and_then(|row| row.get("answer")))
    }

    async fn is_taken(&self, id: Uuid) -> Result<bool, Failure> {
        let rows = self.query("select from errand where id = $1", &[(&id, Type::UUID)]).await?;
        Ok(!rows.is_empty())
    }

    /// Takes an errand about one of these operations, or, as the leader, one of the leader's.
    pub async fn take_errand(&self, operations: &[Uuid], leads: bool) -> Result<Option<Errand>, Failure> {
        let sql = "update errand set taken_by = $1 where id = (select id from errand \
             where taken_by is null and made > pg_catalog.clock_timestamp() - pg_catalog.make_interval(secs => $4) \
             and (operation = any ($2) or (operation is null and $3)) \
             order by made limit 1 for update skip locked) \
             returning id, operation, document::text as document";
        let parameters: &[_] = &[
            (&self.instance() as _, Type::TEXT),
            (&operations as _, Type::UUID_ARRAY),
            (&leads as _, Type::BOOL),
            // Whoever asked earlier has given up, or is gone.
            (&(self.lease() + PATIENCE).as_secs_f64() as _, Type::FLOAT8),
        ];
        let rows = self.query(sql, parameters).await?;
        Ok(rows.first().map(|row| Errand {
            id: row.get("id"),
            operation: row.get("operation"),
            document: row.get("document"),
        }))
    }

    /// Answers an errand. Whoever asked may have gone.
    pub async fn answer_errand(&self, id: Uuid, answer: &str) -> Result<(), Failure> {
        let sql = "update errand set answer = $2::text::jsonb where id = $1";
        self.query(sql, &[(&id, Type::UUID), (&answer, Type::TEXT)]).await.map(drop)
    }

    /// Takes errands away that are long over: whoever asked died before the answer.
    pub async fn forget_errands(&self) -> Result<(), Failure> {
        let sql = "delete from errand where made < pg_catalog.now() - interval '1 hour'";
        self.query(sql, &[]).await.map(drop)
    }
}
