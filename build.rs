//! Compiles `proto/` to Rust with protox, so that no `protoc` is needed, and keeps the descriptor
//! set for gRPC reflection.

use std::{env, fs, path::PathBuf};

use prost::Message as _;

const FILES: [&str; 10] = [
    "nexus/v1/alert_service.proto",
    "nexus/v1/audit_log_service.proto",
    "nexus/v1/audit_service.proto",
    "nexus/v1/finding.proto",
    "nexus/v1/fleet_service.proto",
    "nexus/v1/migration_service.proto",
    "nexus/v1/operation_service.proto",
    "nexus/v1/progress.proto",
    "nexus/v1/selection.proto",
    "nexus/v1/strategy.proto",
];

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo::rerun-if-changed=proto");
    let descriptors = protox::compile(FILES, ["proto"])?;
    let out = PathBuf::from(env::var("OUT_DIR")?);
    fs::write(out.join("nexus.v1.bin"), descriptors.encode_to_vec())?;
    tonic_prost_build::configure().compile_fds(descriptors)?;
    Ok(())
}
