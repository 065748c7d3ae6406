//! Whoever has to know what is about to be changed on a database is told before anything is.

use std::{pin::Pin, sync::Arc};

use uuid::Uuid;

use crate::{
    engine::{
        Run,
        scripts::{Prepared, Text},
    },
    migration::{Checksum, Failure, Plan, StepAction, Version},
};

/// Is told what a run is about to change; nothing is changed where it refuses.
pub type Witness =
    Arc<dyn Fn(Intent) -> Pin<Box<dyn Future<Output = Result<(), Failure>> + Send>> + Send + Sync>;

/// What a run is about to change.
#[derive(Debug, Clone)]
pub struct Intent {
    /// The operation.
    pub operation: Uuid,
    /// Who asked for it.
    pub requested_by: String,
    /// The database.
    pub database: String,
    /// The steps, in their order.
    pub steps: Vec<Used>,
}

/// One step that is about to be done.
#[derive(Debug, Clone)]
pub struct Used {
    /// The migration.
    pub version: Version,
    /// What is done.
    pub action: StepAction,
    /// The name of the script that is run, and the checksum of its text; `None` where none is.
    pub script: Option<(String, Checksum)>,
}

/// Where nobody has to know.
pub fn no_witness() -> Witness {
    Arc::new(|_| Box::pin(std::future::ready(Ok(()))))
}

impl Run {
    /// Tells what is about to be changed.
    pub(super) async fn witnessed(&self, plan: &Plan, prepared: &[Prepared]) -> Result<(), Failure> {
        let used = plan.steps.iter().zip(prepared).map(|(step, prepared)| Used {
            version: step.version.clone(),
            action: step.action,
            script: prepared.text.as_ref().map(|text| (text.name().to_owned(), text.checksum())),
        });
        (self.witness)(Intent {
            operation: self.author.operation,
            requested_by: self.author.requested_by.clone(),
            database: self.database.name.clone(),
            steps: used.collect(),
        })
        .await
    }
}

impl Text {
    fn checksum(&self) -> Checksum {
        match self {
            Self::File(script) => script.checksums.raw,
            Self::Kept { text, .. } => Checksum::of(text.as_bytes()),
        }
    }
}
