//! Reading the inventory anew on request. The daemon knows how; here is what it answers.

use std::{future::Future, pin::Pin, sync::Arc};

use crate::{
    fleet::InventoryFault,
    migration::{Failure, event::InventoryChange},
};

/// Reads the configuration and looks for databases, now. A failure is of the configuration, of which
/// nothing is taken over then.
pub type Reload =
    Arc<dyn Fn() -> Pin<Box<dyn Future<Output = Result<Reloaded, Failure>> + Send>> + Send + Sync>;

/// What came of it.
#[derive(Debug, Clone)]
pub struct Reloaded {
    /// How the inventory has changed.
    pub change: InventoryChange,
    /// The discoveries that failed: what they found last stays.
    pub faults: Vec<InventoryFault>,
    /// The sections of the configuration that are others and need a restart.
    pub restart: Vec<&'static str>,
}
