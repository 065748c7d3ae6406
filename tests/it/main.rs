//! Everything that needs the built binaries or a PostgreSQL server, in one binary.

mod audit;
mod cli_local;
mod cli_stub;
mod concurrency;
mod counters;
mod crash;
mod daemon;
mod dirty;
mod escape;
mod fleet;
mod grpc;
mod lost;
mod pooler;
mod proxy;
mod runbook;
mod scripts;
mod support;
mod watch;
