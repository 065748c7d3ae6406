//! Everything that needs the built binaries or a PostgreSQL server, in one binary.

mod access;
mod alerts;
mod audit;
mod catalog;
mod certificates;
mod cli_local;
mod cli_stub;
mod concurrency;
mod counters;
mod crash;
mod daemon;
mod direct;
mod dirty;
mod discovery;
mod escape;
mod fleet;
mod gate;
mod grpc;
mod health;
mod leader;
mod lost;
mod operations;
mod operations_steered;
mod otlp;
mod overview;
mod pooler;
#[allow(dead_code, reason = "tests/faults uses the rest")]
mod process;
mod prometheus;
#[allow(dead_code, reason = "tests/faults uses the rest")]
mod proxy;
mod reload;
mod runbook;
mod scripts;
mod servers;
mod service;
mod service_manager;
mod standing;
mod strategy;
mod support;
mod tls;
mod traces;
mod watch;
