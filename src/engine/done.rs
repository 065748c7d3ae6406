//! What one operation has done on a database, by its journal.

use crate::{
    engine::{Run, failure::of_session, run::locked},
    migration::{Failure, StepAction, Version},
    postgres::journal,
};

/// What an operation has done on a database.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Done {
    /// Its steps, in their order.
    pub steps: Vec<(Version, StepAction)>,
    /// The migration whose up file it ran last, where that was not done.
    pub failed_at: Option<Version>,
    /// Whether it was a repair, which is done at once or not at all.
    pub is_repaired: bool,
}

/// Asks the journal under the lock, so that nothing of it is under way any more.
pub async fn done(run: &Run) -> Result<Done, Failure> {
    let (session, shape) = locked(run).await?;
    let known = if shape.journal {
        journal::of_operation(&session, run.author.operation).await
    } else {
        Ok(Vec::new())
    };
    let known = known.map_err(|error| of_session(error, "reading what the operation has done"))?;
    session.release().await.map_err(|error| of_session(error, "giving the lock back"))?;
    let mut done = Done::default();
    for (version, direction, is_done) in known {
        let action = match direction.as_str() {
            "up" => StepAction::Apply,
            "down" => StepAction::Rollback,
            "undo" => StepAction::Undo,
            // What a repair is recorded as.
            _ => {
                done.is_repaired |= is_done;
                continue;
            }
        };
        done.failed_at = (action == StepAction::Apply && !is_done).then(|| version.clone());
        if is_done {
            done.steps.push((version, action));
        }
    }
    Ok(done)
}
