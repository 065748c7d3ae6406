//! Nexus: `nexusd` applies, rolls back, recovers and audits SQL migrations on fleets of PostgreSQL
//! databases; `nexusctl` is its thin gRPC client.

pub mod migration;
pub mod rpc;
pub mod runtime;
pub mod source;
pub mod sql;
