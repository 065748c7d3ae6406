//! Reading the inventory anew on request. The daemon knows how; here is what it answers.

use std::{future::Future, pin::Pin, sync::Arc};

use crate::{
    fleet::ReloadFault,
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
    /// What could not be read anew, discoveries and the files of those who are let in: what was good last stays.
    pub faults: Vec<ReloadFault>,
    /// The sections of the configuration that are others and need a restart.
    pub restart: Vec<&'static str>,
}
