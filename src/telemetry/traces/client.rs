//! The client's end of a trace: one span for a command, under which everything else comes.

use std::{env, time::Duration};

use opentelemetry::{
    Context, KeyValue,
    trace::{Span as _, SpanKind, Status, TraceContextExt as _, Tracer as _, TracerProvider as _},
};
use opentelemetry_otlp::RetryPolicy;
use opentelemetry_sdk::trace::{SdkTracerProvider, Span};

use crate::{
    migration::TraceContext,
    telemetry::traces::{Traces, exporter, of, resource, to_remote},
};

/// How long a command waits at its end for the collector.
const PATIENCE: Duration = Duration::from_millis(200);

/// The trace of one command of `nexusctl`.
#[derive(Debug)]
pub struct ClientTrace {
    context: TraceContext,
    recorded: Option<(Traces, Span)>,
}

impl ClientTrace {
    /// Begins a trace, or a part of the one that the variable `TRACEPARENT` names. A span of the
    /// command's own is recorded only where the standard variables name an endpoint: without one
    /// nothing is set up, and the daemon is asked for the trace. Inside a runtime.
    pub fn begin(command: &'static str) -> Self {
        let caller = env::var("TRACEPARENT").ok().and_then(|text| TraceContext::parse(&text));
        let recorded = record(command, caller);
        let own = recorded.as_ref().and_then(|(_, span)| of(span.span_context())).or(caller);
        let context = own.unwrap_or_else(|| TraceContext {
            trace: fastrand::u128(1..),
            span: fastrand::u64(1..),
            sampled: true,
        });
        Self { context, recorded }
    }

    /// What the daemon is told.
    pub fn context(&self) -> TraceContext {
        self.context
    }

    /// Ends the span and sends it. A collector that does not answer costs a moment, and the span.
    pub async fn end(self, succeeded: bool) {
        let Some((traces, mut span)) = self.recorded else { return };
        if !succeeded {
            span.set_status(Status::error(""));
        }
        span.end();
        traces.stop(PATIENCE).await;
    }
}

fn record(command: &'static str, caller: Option<TraceContext>) -> Option<(Traces, Span)> {
    // A collector that cannot be used is no reason not to do what was asked for.
    // Whoever waits for his prompt does not wait for a second attempt.
    let exporter = exporter(None, RetryPolicy::disabled()).ok().flatten()?;
    let resource = resource("nexusctl", []);
    let provider = SdkTracerProvider::builder().with_batch_exporter(exporter).with_resource(resource).build();
    let parent =
        caller.map_or_else(Context::new, |it| Context::new().with_remote_span_context(to_remote(it)));
    let tracer = provider.tracer("nexus");
    let name = format!("nexusctl {command}");
    let attributes = [KeyValue::new("nexus.command", command)];
    let span = tracer.span_builder(name).with_kind(SpanKind::Client).with_attributes(attributes);
    let span = span.start_with_context(&tracer, &parent);
    Some((Traces { provider, sql_text: false }, span))
}
