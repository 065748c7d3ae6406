//! Everything that needs the built binaries or a PostgreSQL server, in one binary.

mod alerts;
mod audit;
mod catalog;
mod cli_local;
mod cli_stub;
mod concurrency;
mod counters;
mod crash;
mod daemon;
mod dirty;
mod discovery;
mod escape;
mod fleet;
mod grpc;
mod lost;
mod otlp;
mod pooler;
mod prometheus;
mod proxy;
mod reload;
mod runbook;
mod scripts;
mod servers;
mod support;
mod traces;
mod watch;
