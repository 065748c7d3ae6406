//! What Nexus does when everything breaks: faults are made to happen, and after each one the schema,
//! the rows, the journal, the log, the alerts and the metrics are compared with the states that may be.
//! `make faults` runs all of it and prints the matrix; docs/faults.md tells how to read it.

use std::{io::Write as _, process::ExitCode};

mod killed;
mod locks;
mod machine;
mod model;
mod network;
mod races;
mod scene;
mod server;
mod service;
mod trial;

#[allow(dead_code, unused_imports, reason = "the other binary uses the rest")]
#[path = "../it/service.rs"]
mod fleet;
#[allow(dead_code, unused_imports, reason = "the other binary uses the rest")]
#[path = "../it/operations.rs"]
mod operations;
#[allow(dead_code, reason = "the other binary uses the rest")]
#[path = "../it/people.rs"]
mod people;
#[allow(dead_code, reason = "the other binary uses the rest")]
#[path = "../it/process.rs"]
mod process;
#[allow(dead_code, reason = "the other binary uses the rest")]
#[path = "../it/proxy.rs"]
mod proxy;
#[allow(dead_code, reason = "the other binary uses the rest")]
#[path = "../it/servers.rs"]
mod servers;
#[allow(dead_code, reason = "the other binary uses the rest")]
#[path = "../it/support.rs"]
mod support;

/// How many cases run at once: most of them wait most of the time.
const AT_ONCE: usize = 5;

fn main() -> ExitCode {
    let filter = std::env::args().skip(1).find(|argument| !argument.starts_with('-')).unwrap_or_default();
    let cases = [
        killed::cases(),
        service::cases(),
        server::cases(),
        network::cases(),
        locks::cases(),
        machine::cases(),
        races::cases(),
    ];
    let cases: Vec<_> = cases.into_iter().flatten().filter(|case| case.is_called(&filter)).collect();
    let (table, violated) = trial::run(cases, AT_ONCE);
    say(&format!("\n{table}"));
    let path = std::path::Path::new(env!("CARGO_TARGET_TMPDIR")).join("faults.txt");
    std::fs::write(&path, &table).expect("the table is written");
    say(&format!("the table is in {}", path.display()));
    if violated == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Says a line on stdout, as a whole.
fn say(line: &str) {
    // Where nobody listens any more, there is nobody to tell.
    let _ = writeln!(std::io::stdout(), "{line}");
}
