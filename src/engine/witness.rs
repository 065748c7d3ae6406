//! Whoever has to know what is about to be changed on a database is told before anything is.

use std::{pin::Pin, sync::Arc};

use uuid::Uuid;

use crate::{
    engine::{
        Run,
        scripts::{Prepared, Text},
    },
    migration::{Checksum, Code, Failure, Migration, Plan, Version},
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
    /// What is done, in a word; of a repair, as it is typed.
    pub action: String,
    /// The name of the file that is run, or taken as it is, and the checksum of its text; `None` where none
    /// is.
    pub script: Option<(String, Checksum)>,
}

impl Used {
    /// The steps of a plan, with what was made ready for each.
    pub(super) fn of_plan(plan: &Plan, prepared: &[Prepared]) -> Vec<Self> {
        let used = plan.steps.iter().zip(prepared).map(|(step, prepared)| Self {
            version: step.version.clone(),
            action: step.action.to_string(),
            script: prepared.text.as_ref().map(|text| (text.name().to_owned(), text.checksum())),
        });
        used.collect()
    }

    /// A row that is changed by hand; `taken` is the migration whose file is taken as it is.
    pub(super) fn of_repair(version: &Version, action: String, taken: Option<&Migration>) -> Self {
        let script = taken.map(|it| (it.up.file_name.clone(), it.up.checksums.raw));
        Self { version: version.clone(), action, script }
    }
}

/// Where nobody has to know.
pub fn no_witness() -> Witness {
    Arc::new(|_| Box::pin(std::future::ready(Ok(()))))
}

impl Run {
    /// Tells what is about to be changed, unless the operation is cancelled meanwhile.
    pub(super) async fn witnessed(&self, steps: Vec<Used>) -> Result<(), Failure> {
        let witnessed = (self.witness)(Intent {
            operation: self.author.operation,
            requested_by: self.author.requested_by.clone(),
            database: self.database.name.clone(),
            steps,
        });
        tokio::select! {
            witnessed = witnessed => witnessed,
            () = self.stop.cancel.cancelled() => {
                Err(Failure::new(Code::Cancelled, "The operation was cancelled"))
            }
        }
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
