//! Nexus: `nexusd` applies, rolls back, recovers and audits SQL migrations on fleets of PostgreSQL
//! databases; `nexusctl` is its thin gRPC client.

pub mod access;
pub mod alert;
pub mod cli;
pub mod config;
pub mod control;
pub mod daemon;
pub mod engine;
pub mod fleet;
pub mod http;
pub mod migration;
pub mod postgres;
pub mod redact;
pub mod rpc;
pub mod runtime;
pub mod selector;
pub mod source;
pub mod sql;
pub mod telemetry;
