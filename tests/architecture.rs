//! Keeps the house in order: which module may import which, who owns each dependency, how long a
//! file may be, and that every error code is documented.
//!
//! The rules are tables, the judges are pure functions from texts to violations, and each judge is
//! shown a planted violation, so that none of them can pass by being blind.

use std::{collections::BTreeSet, error::Error, fs, path::Path};

use crate::{codes::undocumented, names::paths};
use nexus::migration::Code;

#[path = "architecture/codes.rs"]
mod codes;
#[path = "architecture/findings.rs"]
mod findings;
#[path = "architecture/names.rs"]
mod names;
#[path = "architecture/planted.rs"]
mod planted;
#[path = "architecture/security.rs"]
mod security;

/// Each module of the library, and the modules that it may import.
const LAYERS: &[(&str, &[&str])] = &[
    ("redact", &[]),
    ("runtime", &[]),
    ("migration", &["redact"]),
    ("selector", &[]),
    ("access", &["migration", "selector"]),
    ("auditlog", &["redact", "migration", "access"]),
    ("sql", &["migration"]),
    ("source", &["migration", "runtime"]),
    ("postgres", &["redact", "migration", "runtime"]),
    ("engine", &["migration", "sql", "postgres", "runtime"]),
    ("control", &["runtime", "migration", "source", "postgres", "engine"]),
    (
        "fleet",
        &[
            "redact",
            "runtime",
            "migration",
            "selector",
            "access",
            "auditlog",
            "source",
            "postgres",
            "engine",
            "control",
        ],
    ),
    ("alert", &["redact", "runtime", "migration", "control"]),
    ("telemetry", &["redact", "runtime", "migration"]),
    ("rpc", &["redact", "runtime", "migration", "access", "auditlog", "sql", "engine", "fleet", "alert"]),
    ("http", &["runtime", "migration", "access", "fleet", "telemetry"]),
    ("cli", &["redact", "rpc", "migration", "selector", "access", "auditlog", "sql", "source", "telemetry"]),
    ("config", &["redact", "selector", "access"]),
    (
        "daemon",
        &[
            "redact",
            "runtime",
            "migration",
            "selector",
            "access",
            "auditlog",
            "sql",
            "source",
            "postgres",
            "engine",
            "control",
            "fleet",
            "alert",
            "telemetry",
            "rpc",
            "http",
            "config",
        ],
    ),
];

/// The modules that take part in I/O; the others are pure.
const WORKING: &[&str] = &[
    "runtime",
    "source",
    "postgres",
    "engine",
    "control",
    "auditlog",
    "fleet",
    "alert",
    "telemetry",
    "rpc",
    "http",
    "cli",
    "config",
    "daemon",
    "bin",
];

/// Each dependency, and the modules (or parts of modules) that may name it.
const OWNERS: &[(&str, &[&str])] = &[
    ("tonic", &["rpc", "daemon", "telemetry::rpc"]),
    ("tonic_prost", &["rpc"]),
    ("tonic_health", &["rpc", "daemon"]),
    ("tonic_reflection", &["rpc", "daemon"]),
    ("tonic_types", &["rpc"]),
    ("prost", &["rpc"]),
    ("prost_types", &["rpc", "cli"]),
    ("axum", &["http", "telemetry::rpc"]),
    ("tower", &["rpc", "http", "daemon", "telemetry::rpc"]),
    ("http", &["rpc", "telemetry::rpc", "config"]),
    ("http_body", &["telemetry::rpc"]),
    ("hyper", &["http"]),
    ("hyper_util", &["http"]),
    ("governor", &["rpc"]),
    ("tokio", WORKING),
    ("tokio_stream", WORKING),
    ("tokio_util", WORKING),
    ("futures_util", WORKING),
    ("tokio_postgres", &["postgres", "control"]),
    ("deadpool_postgres", &["postgres"]),
    ("deadpool", &["postgres"]),
    ("tokio_postgres_rustls", &["postgres"]),
    ("tokio_rustls", &["daemon"]),
    ("x509_cert", &["daemon"]),
    ("rustls", &["postgres", "alert", "cli", "daemon", "bin"]),
    ("rustls_native_certs", &["postgres"]),
    ("squawk_syntax", &["sql"]),
    ("tracing", WORKING),
    ("tracing_subscriber", &["telemetry"]),
    ("prometheus", &["telemetry"]),
    ("opentelemetry", &["telemetry"]),
    ("opentelemetry_sdk", &["telemetry"]),
    ("opentelemetry_otlp", &["telemetry"]),
    ("tracing_opentelemetry", &["telemetry"]),
    ("notify_debouncer_full", &["source"]),
    ("croner", &["fleet"]),
    ("reqwest", &["alert"]),
    ("hmac", &["alert"]),
    (
        "serde",
        &[
            "redact",
            "control::failures",
            "fleet::operation::kept",
            "fleet::kept",
            "alert",
            "telemetry",
            "http",
            "cli",
            "config",
            "daemon",
        ],
    ),
    (
        "serde_json",
        &[
            "redact",
            "auditlog",
            "fleet::operation::kept",
            "fleet::kept",
            "alert",
            "telemetry",
            "http",
            "cli",
            "daemon",
        ],
    ),
    ("toml", &["config", "cli"]),
    ("humantime", &["migration", "sql", "source", "engine", "control", "fleet", "rpc", "cli", "config"]),
    (
        "jiff",
        &[
            "runtime",
            "migration",
            "access",
            "auditlog",
            "source",
            "postgres",
            "engine",
            "control",
            "fleet",
            "alert",
            "telemetry",
            "rpc",
            "http",
            "cli",
            "config",
            "daemon",
        ],
    ),
    ("sha2", &["migration", "access", "alert", "control"]),
    ("subtle", &["access"]),
    (
        "uuid",
        &[
            "migration",
            "auditlog",
            "postgres",
            "engine",
            "control",
            "fleet",
            "alert",
            "telemetry",
            "rpc",
            "cli",
            "daemon",
        ],
    ),
    ("secrecy", &["redact"]),
    (
        "thiserror",
        &[
            "redact",
            "migration",
            "selector",
            "access",
            "auditlog",
            "sql",
            "source",
            "postgres",
            "engine",
            "fleet",
            "alert",
            "telemetry",
            "rpc",
            "http",
            "cli",
            "config",
            "daemon",
        ],
    ),
    ("anyhow", &["cli", "bin", "daemon"]),
    ("backon", &["postgres", "engine", "fleet", "alert", "rpc"]),
    ("fastrand", &["postgres", "engine", "control", "fleet", "alert", "telemetry"]),
    ("percent_encoding", &["redact", "postgres", "cli"]),
    ("glob", &["config"]),
    ("globset", &["selector"]),
    ("strsim", &["migration", "postgres", "config"]),
    ("clap", &["cli", "daemon", "bin"]),
    ("clap_complete", &["cli"]),
    ("comfy_table", &["cli"]),
    ("indicatif", &["cli"]),
    ("terminal_size", &["cli"]),
    ("unicode_width", &["cli"]),
    ("anstream", &["cli"]),
    ("anstyle", &["cli"]),
    ("nix", &["redact", "source", "postgres", "auditlog", "telemetry", "cli", "daemon", "runtime"]),
    ("fail", &["runtime::faults"]),
    ("quick_xml", &["cli"]),
    ("sd_notify", &["daemon::service_manager"]),
];

/// Dependencies that only the code generated from `proto/` needs to name.
const GENERATED: &[&str] = &["prost", "prost_types", "tonic_prost"];

/// The most lines that a file may have, by the beginning of its path; the first that fits counts.
const LONGEST: &[(&str, usize)] = &[("src/bin/", 60), ("src/", 500), ("tests/", 500), ("examples/", 500)];

#[test]
fn modules_import_only_what_lies_below_them() -> Result<(), Box<dyn Error>> {
    let mut violations = Vec::new();
    for (path, text) in rust_files("src")? {
        violations.extend(forbidden_imports(&path, &text)?);
    }
    none(&violations);
    Ok(())
}

#[test]
fn dependencies_stay_with_their_owners() -> Result<(), Box<dyn Error>> {
    let mut violations = Vec::new();
    for (path, text) in rust_files("src")? {
        violations.extend(strayed_dependencies(&path, &text)?);
    }
    none(&violations);
    Ok(())
}

#[test]
fn every_dependency_has_an_owner_and_is_used() -> Result<(), Box<dyn Error>> {
    let manifest = fs::read_to_string("Cargo.toml")?;
    none(&unused_dependencies(&manifest, &rust_files("src")?)?);
    Ok(())
}

#[test]
fn files_are_short_and_say_what_they_are_for() -> Result<(), Box<dyn Error>> {
    let mut violations = Vec::new();
    for directory in ["src", "tests", "examples"] {
        for (path, text) in rust_files(directory)? {
            violations.extend(ill_formed(&path, &text));
        }
    }
    none(&violations);
    Ok(())
}

#[test]
fn every_error_code_is_documented() -> Result<(), Box<dyn Error>> {
    let codes: Vec<_> = Code::ALL.iter().map(|code| code.as_str()).collect();
    none(&undocumented(&codes, &fs::read_to_string("docs/errors.md")?));
    Ok(())
}

/// The imports of a file that the layers forbid.
fn forbidden_imports(path: &str, text: &str) -> Result<Vec<String>, Box<dyn Error>> {
    let module = module_of(path);
    let Some(layer) = module.first().filter(|&layer| layer != "bin") else { return Ok(Vec::new()) };
    let Some(&(_, allowed)) = LAYERS.iter().find(|(name, _)| name == layer) else {
        return Ok(vec![format!("{path}: the table of layers does not know the module `{layer}`")]);
    };
    let imports = paths(text, &module)?.into_iter().filter(|path| path.segments[0] == "crate");
    Ok(imports
        .filter_map(|import| {
            let target = import.segments.get(1)?;
            (target != layer && !allowed.contains(&target.as_str())).then(|| {
                format!("{path}:{}: `{layer}` may not import `{}`", import.line, import.segments.join("::"))
            })
        })
        .collect())
}

/// The dependencies that a file names and whose owner it is not part of.
fn strayed_dependencies(path: &str, text: &str) -> Result<Vec<String>, Box<dyn Error>> {
    let module = module_of(path).join("::");
    let belongs = |owner: &str| {
        module.strip_prefix(owner).is_some_and(|rest| rest.is_empty() || rest.starts_with("::"))
    };
    let mut violations = Vec::new();
    for named in paths(text, &module_of(path))? {
        let owners = OWNERS.iter().find(|(dependency, _)| *dependency == named.segments[0]);
        if let Some((dependency, owners)) =
            owners.filter(|(_, owners)| !owners.iter().any(|owner| belongs(owner)))
        {
            violations.push(format!(
                "{path}:{}: `{dependency}` belongs to {}",
                named.line,
                owners.join(", ")
            ));
        }
    }
    Ok(violations)
}

/// The dependencies that the manifest declares and that have no owner, or that no file names.
fn unused_dependencies(manifest: &str, files: &[(String, String)]) -> Result<Vec<String>, Box<dyn Error>> {
    let manifest: toml::Table = manifest.parse()?;
    let declared = manifest.get("dependencies").and_then(toml::Value::as_table).ok_or("no dependencies")?;
    let mut named: BTreeSet<String> = GENERATED.iter().map(|&name| name.to_owned()).collect();
    for (path, text) in files {
        named.extend(paths(text, &module_of(path))?.into_iter().map(|mut path| path.segments.swap_remove(0)));
    }
    let mut violations = Vec::new();
    for name in declared.keys().map(|name| name.replace('-', "_")) {
        if !OWNERS.iter().any(|(dependency, _)| *dependency == name) {
            violations.push(format!("Cargo.toml: `{name}` has no owner in tests/architecture.rs"));
        } else if !named.contains(&name) {
            violations.push(format!("Cargo.toml: nothing in src/ uses `{name}`"));
        }
    }
    Ok(violations)
}

/// What is wrong with a file as a whole: its length, its place, its first line.
fn ill_formed(path: &str, text: &str) -> Vec<String> {
    let mut violations = Vec::new();
    let lines = text.lines().count();
    if let Some((_, most)) = LONGEST.iter().find(|(start, most)| path.starts_with(start) && lines > *most) {
        violations.push(format!("{path}: {lines} lines are more than {most}"));
    }
    if path.ends_with("/mod.rs") {
        violations.push(format!("{path}: a module is a file of its own name, not mod.rs"));
    }
    if !text.starts_with("//!") {
        violations.push(format!("{path}: the first line does not say what the file is for (`//! …`)"));
    }
    violations
}

fn none(violations: &[String]) {
    assert!(violations.is_empty(), "\n{}", violations.join("\n"));
}

/// The Rust files below a directory of the package, with their texts; none where it does not exist.
fn rust_files(directory: &str) -> Result<Vec<(String, String)>, Box<dyn Error>> {
    let mut files = Vec::new();
    if !Path::new(directory).exists() {
        return Ok(files);
    }
    for entry in fs::read_dir(directory)? {
        let path = format!("{directory}/{}", entry?.file_name().to_string_lossy());
        if Path::new(&path).is_dir() {
            files.extend(rust_files(&path)?);
        } else if Path::new(&path).extension().is_some_and(|extension| extension == "rs") {
            let text = fs::read_to_string(&path)?;
            files.push((path, text));
        }
    }
    files.sort();
    Ok(files)
}

/// The module that a file is: `src/engine/apply.rs` is `engine`, `apply`; `src/lib.rs` is empty.
fn module_of(path: &str) -> Vec<String> {
    let path = path.strip_prefix("src/").unwrap_or(path);
    let path = path.strip_suffix(".rs").unwrap_or(path);
    path.split('/').filter(|&part| part != "lib").map(str::to_owned).collect()
}
