//! Each judge is shown a planted violation.

use std::error::Error;

use super::{
    WORKING, forbidden_imports, ill_formed, strayed_dependencies, undocumented, unused_dependencies,
};

#[test]
fn finds_a_planted_import() -> Result<(), Box<dyn Error>> {
    let check = |path: &str, text: &str, expected: &[&str]| -> Result<(), Box<dyn Error>> {
        assert_eq!(forbidden_imports(path, text)?, expected, "{path}: {text}");
        Ok(())
    };
    let rpc = "src/engine/apply.rs:1: `engine` may not import `crate::rpc::proto`";
    check("src/engine/apply.rs", "use crate::rpc::proto;", &[rpc])?;
    check(
        "src/engine/apply.rs",
        "use crate::{migration::Plan, rpc::{proto, client as c}};",
        &[rpc, "src/engine/apply.rs:1: `engine` may not import `crate::rpc::client`"],
    )?;
    check(
        "src/engine/apply.rs",
        "use crate::{\n    postgres,\n    rpc::{self},\n};",
        &["src/engine/apply.rs:3: `engine` may not import `crate::rpc`"],
    )?;
    check("src/engine/apply.rs", "fn f() { let x = Some(crate::rpc::proto); }", &[rpc])?;
    check("src/engine/apply.rs", "fn f() { vec![crate::rpc::proto::<u8>()] }", &[rpc])?;
    check("src/engine/apply.rs", "pub use super::super::rpc::proto;", &[rpc])?;
    check(
        "src/engine.rs",
        "mod tests { use super::super::rpc::*; }",
        &["src/engine.rs:1: `engine` may not import `crate::rpc`"],
    )?;
    check(
        "src/migration.rs",
        "#[cfg(test)] mod t { use crate::sql as s; }",
        &["src/migration.rs:1: `migration` may not import `crate::sql`"],
    )?;
    check(
        "src/engine.rs",
        "use crate::Handle;",
        &["src/engine.rs:1: `engine` may not import `crate::Handle`"],
    )?;
    check("src/shed.rs", "", &["src/shed.rs: the table of layers does not know the module `shed`"])?;
    // What looks like one and is none.
    check("src/engine/apply.rs", "use crate::{engine::x, migration::{self, Plan}}; use super::lock;", &[])?;
    check(
        "src/engine/apply.rs",
        "// use crate::rpc;\n/* crate::rpc::x */ /// crate::rpc::y\nfn f() {}",
        &[],
    )?;
    check("src/engine/apply.rs", "const C: &str = r#\"use crate::rpc;\"#; use rpc::x; mod rpc {}", &[])?;
    check("src/lib.rs", "pub mod engine; pub mod rpc;", &[])?;
    check("src/bin/nexusd.rs", "use nexus::daemon;", &[])
}

#[test]
fn finds_a_planted_stray_dependency() -> Result<(), Box<dyn Error>> {
    let check = |path: &str, text: &str, expected: &[&str]| -> Result<(), Box<dyn Error>> {
        assert_eq!(strayed_dependencies(path, text)?, expected, "{path}: {text}");
        Ok(())
    };
    let stray = ["src/engine/apply.rs:1: `tokio_postgres` belongs to postgres, control"];
    check("src/engine/apply.rs", "use tokio_postgres::Client;", &stray)?;
    check("src/engine/apply.rs", "use ::tokio_postgres as pg;", &stray)?;
    check("src/engine/apply.rs", "fn f(c: &tokio_postgres::Client) {}", &stray)?;
    check("src/engine/apply.rs", "fn f() -> Vec<::tokio_postgres::Row> {}", &stray)?;
    check(
        "src/migration/plan.rs",
        "#[tokio::test] async fn f() {}",
        &[&format!("src/migration/plan.rs:1: `tokio` belongs to {}", WORKING.join(", "))],
    )?;
    check(
        "src/telemetry/jsonl.rs",
        "use tonic::Code;",
        &["src/telemetry/jsonl.rs:1: `tonic` belongs to rpc, daemon, telemetry::rpc"],
    )?;
    check("src/fleet.rs", "use anyhow::Result;", &["src/fleet.rs:1: `anyhow` belongs to cli, bin, daemon"])?;
    // A module or an imported name of the file's own is not the dependency that is called the same.
    check("src/daemon.rs", "use crate::{http, rpc}; fn f() { http::serve(); }", &[])?;
    check("src/config.rs", "mod http; use http::Address; fn f() { <A as B>::http::g() }", &[])?;
    check(
        "src/postgres/connect.rs",
        "use tokio_postgres::{Client, Row}; fn f() -> impl A + use<'_> {}",
        &[],
    )?;
    check("src/telemetry/rpc.rs", "use tonic::Code;", &[])
}

#[test]
fn finds_planted_unused_and_unowned_dependencies() -> Result<(), Box<dyn Error>> {
    let manifest = "[dependencies]\ntoml = \"1\"\ntokio-postgres = \"0\"\nleft-pad = \"1\"\nprost = \"0\"";
    let files = [("src/config.rs".to_owned(), "use toml::Table; // tokio_postgres::Client".to_owned())];
    assert_eq!(
        unused_dependencies(manifest, &files)?,
        [
            "Cargo.toml: `left_pad` has no owner in tests/architecture.rs",
            "Cargo.toml: nothing in src/ uses `tokio_postgres`",
        ]
    );
    Ok(())
}

#[test]
fn finds_a_planted_ill_formed_file() {
    let check = |path: &str, lines: usize, expected: &[&str]| {
        let text = format!("//! Purpose.{}", "\n".repeat(lines));
        assert_eq!(ill_formed(path, &text), expected);
    };
    check("src/engine.rs", 500, &[]);
    check("src/engine.rs", 501, &["src/engine.rs: 501 lines are more than 500"]);
    check("src/bin/nexusd.rs", 60, &[]);
    check("src/bin/nexusd.rs", 61, &["src/bin/nexusd.rs: 61 lines are more than 60"]);
    check("tests/it/main.rs", 501, &["tests/it/main.rs: 501 lines are more than 500"]);
    check("src/engine/mod.rs", 1, &["src/engine/mod.rs: a module is a file of its own name, not mod.rs"]);
    let silent = ["src/x.rs: the first line does not say what the file is for (`//! …`)"];
    assert_eq!(ill_formed("src/x.rs", "use std::io;"), silent);
}

#[test]
fn finds_planted_gaps_in_the_documentation() {
    let page = "# Errors\n## NX0001: a\n## NX0002 b\n## NX0002 again\n## NX0009\n### NX0004";
    assert_eq!(
        undocumented(&["NX0001", "NX0002", "NX0003", "NX0005", "NX0005"], page),
        [
            "NX0002: 1 in Code::ALL, 2 in docs/errors.md",
            "NX0003: 1 in Code::ALL, 0 in docs/errors.md",
            "NX0005: 2 in Code::ALL, 0 in docs/errors.md",
            "NX0009: 0 in Code::ALL, 1 in docs/errors.md",
        ]
    );
}
