//! How long a scrape of 1,000 databases takes and how large it is: every gauge of every database is
//! there, as after an audit, an apply and a rollback of all of them.

use std::{
    io::{self, Write as _},
    time::{Duration, Instant},
};

use jiff::Timestamp;
use nexus::{
    migration::{
        AuditReport, Counts, Event, EventKind, Observation, OperationState,
        event::{DatabaseOutcome, DatabaseReport},
    },
    telemetry::Metrics,
};
use uuid::Uuid;

const DATABASES: usize = 1_000;
const SCRAPES: usize = 50;

fn main() -> io::Result<()> {
    let metrics = Metrics::new();
    let time = Timestamp::now();
    let tell = |kind: EventKind| {
        metrics.observe(&Event { operation: Uuid::nil(), trace: None, time, database: String::new(), kind });
    };
    let names: Vec<_> = (0..DATABASES).map(|number| format!("customer-{number:04}")).collect();
    let seen = |database: &String| {
        let counts = Counts { applied: 180, pending: 2, oldest_pending: Some(time), ..Counts::default() };
        let (findings, unknown) = (Vec::new(), Vec::new());
        Observation {
            database: database.clone(),
            time,
            counts: Some(counts),
            newest: None,
            findings,
            unknown,
        }
    };
    let databases: Vec<_> = names.iter().map(seen).collect();
    for observation in &databases {
        tell(EventKind::Observed(Box::new(observation.clone())));
    }
    let (id, name) = (Uuid::nil(), "nightly".to_owned());
    let audit = AuditReport { id, name, started: time, ended: time, databases };
    tell(EventKind::AuditFinished(Box::new(audit)));
    for verb in ["apply", "rollback"] {
        let (databases, requested_by, reason) = (names.clone(), String::new(), String::new());
        tell(EventKind::OperationStarted { verb, databases, requested_by, reason, waves: 1, attempt: 1 });
        for database in names.clone() {
            let result = Ok(DatabaseOutcome::Succeeded);
            let report = DatabaseReport {
                database,
                plan: None,
                done: vec![],
                done_before: vec![],
                result,
                duration_ms: 5,
            };
            tell(EventKind::DatabaseFinished(Box::new(report)));
        }
        let (state, why, not_begun) = (OperationState::Succeeded, String::new(), Vec::new());
        tell(EventKind::OperationFinished { state, why, not_begun, attempt: 1 });
    }

    let mut took: Vec<Duration> = Vec::new();
    let mut text = String::new();
    for _ in 0..SCRAPES {
        let started = Instant::now();
        text = metrics.encode();
        took.push(started.elapsed());
    }
    took.sort_unstable();
    let series = text.lines().filter(|line| !line.starts_with('#')).count();
    writeln!(
        io::stdout(),
        "{DATABASES} databases: {series} series, {} KiB; {SCRAPES} scrapes: median {:.1} ms, slowest {:.1} ms",
        text.len() / 1024,
        took[SCRAPES / 2].as_secs_f64() * 1e3,
        took[SCRAPES - 1].as_secs_f64() * 1e3,
    )
}
