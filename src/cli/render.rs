//! Answers as text and as JSON: pure functions from the daemon's messages.

pub mod alerts;
mod approval;
pub mod audit;
pub mod auditlog;
pub mod databases;
pub mod event;
pub mod failure;
pub mod fleet;
pub mod history;
pub mod json;
pub mod junit;
pub mod operation;
pub mod plan;
pub mod sarif;
pub mod status;
pub mod table;
pub mod text;
