//! What the daemon tells: the record of migrations, its own log, its metrics. Consumers of events.

pub mod jsonl;
pub mod log;
pub mod metrics;
pub mod rpc;
pub mod traces;

pub use jsonl::{JsonlLog, LogError};
pub use metrics::Metrics;
pub use rpc::RpcLayer;
pub use traces::Traces;
