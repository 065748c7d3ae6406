//! The daemon's own log, for people, on stderr.

use std::io::{self, IsTerminal as _};

use tracing::level_filters::LevelFilter;
use tracing_subscriber::{
    EnvFilter, Layer, filter::Directive, fmt::MakeWriter, layer::SubscriberExt as _, registry::LookupSpan,
    util::SubscriberInitExt as _,
};

use crate::{migration::trace::SPAN_TARGET, telemetry::Traces};

/// Libraries that say too much, with the most that each may say. tokio-postgres logs whole
/// statements at debug and the server's notices, which may hold values from tables, at info; reqwest
/// logs URLs, which may be secrets; notify warns of what Nexus tells in its own words. What is made for traces is not for people to read here.
const CAPPED: [(&str, LevelFilter); 11] = [
    (SPAN_TARGET, LevelFilter::OFF),
    ("tokio_postgres", LevelFilter::WARN),
    ("tonic", LevelFilter::INFO),
    ("tower", LevelFilter::INFO),
    ("h2", LevelFilter::WARN),
    ("hyper", LevelFilter::WARN),
    ("hyper_util", LevelFilter::WARN),
    ("rustls", LevelFilter::WARN),
    ("reqwest", LevelFilter::WARN),
    ("notify", LevelFilter::ERROR),
    ("notify_debouncer_full", LevelFilter::ERROR),
];

/// Sends what is traced at `level` and above to stderr, one compact line each. For the daemon's
/// start; it fails where the process has a subscriber already. Spans go to `traces`, if there are any.
pub fn init(
    level: tracing::Level,
    traces: Option<&Traces>,
) -> Result<(), tracing_subscriber::util::TryInitError> {
    let ansi =
        io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
    let lines = lines(level, ansi, io::stderr);
    tracing_subscriber::registry().with(lines).with(traces.map(Traces::layer)).try_init()
}

fn lines<S, W>(level: tracing::Level, ansi: bool, writer: W) -> impl Layer<S>
where
    S: tracing::Subscriber + for<'a> LookupSpan<'a>,
    W: for<'w> MakeWriter<'w> + Send + Sync + 'static,
{
    tracing_subscriber::fmt::layer().compact().with_ansi(ansi).with_writer(writer).with_filter(filter(level))
}

fn filter(level: tracing::Level) -> EnvFilter {
    let level = LevelFilter::from_level(level);
    CAPPED.iter().fold(EnvFilter::default().add_directive(level.into()), |filter, (target, most)| {
        let directive: Result<Directive, _> = format!("{target}={}", level.min(*most)).parse();
        filter.add_directive(directive.expect("a target and a level are a directive"))
    })
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex, PoisonError};

    use super::*;

    #[derive(Clone, Default)]
    struct Captured(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Captured {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap_or_else(PoisonError::into_inner).write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn captured(level: tracing::Level) -> String {
        let captured = Captured::default();
        let writer = captured.clone();
        let subscriber = tracing_subscriber::registry().with(lines(level, false, move || writer.clone()));
        tracing::subscriber::with_default(subscriber, || {
            tracing::debug!(target: "tokio_postgres::query", "executing statement: select 1");
            tracing::info!(target: "tokio_postgres::connection", "NOTICE: a value");
            tracing::trace!(target: "h2::codec", "frame");
            tracing::info!(target: "tonic::transport", "listening");
            tracing::warn!(target: "rustls", "handshake");
            tracing::debug!(database = "orders", "reading");
            let span = tracing::info_span!(target: SPAN_TARGET, "operation");
            assert!(span.is_disabled(), "a span that nobody exports costs something");
            span.in_scope(|| tracing::error!("failed"));
        });
        let bytes = captured.0.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let lines: Vec<_> = String::from_utf8_lossy(&bytes)
            .lines()
            .filter_map(|line| {
                line.trim_start().split_once(' ')?.1.trim_start().split_once(' ')?.1.split_once(": ")
            })
            .map(|(_, message)| message.to_owned())
            .collect();
        lines.join("|")
    }

    #[test]
    fn libraries_are_held_back() {
        let check = |level, expected: &str| assert_eq!(captured(level), expected, "at {level}");
        check(tracing::Level::ERROR, "failed");
        check(tracing::Level::WARN, "handshake|failed");
        check(tracing::Level::INFO, "listening|handshake|failed");
        check(tracing::Level::TRACE, "listening|handshake|reading database=\"orders\"|failed");
    }
}
