//! OpenTelemetry's traces: spans, sent to a collector over OTLP.
//!
//! The collector costs bounded memory and no time: spans wait in a queue of limited length, from
//! which a thread of the SDK's own sends them; what does not fit is dropped.

use std::{
    env,
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use opentelemetry::{
    Context, KeyValue, SpanId, TraceFlags, TraceId,
    trace::{SpanContext, TraceContextExt as _, TraceState, TracerProvider as _},
};
use opentelemetry_otlp::{
    ExporterBuildError, RetryPolicy, SpanExporter, WithExportConfig as _, WithTonicConfig as _,
};
use opentelemetry_sdk::{
    Resource,
    error::OTelSdkResult,
    trace::{ParentBasedSampler, Sampler, SdkTracerProvider, SpanData},
};
use tracing::{Level, Span, Subscriber};
use tracing_opentelemetry::OpenTelemetrySpanExt as _;
use tracing_subscriber::{Layer, filter::Targets, registry::LookupSpan};

use crate::{
    migration::{
        TraceContext,
        trace::{SPAN_TARGET, SQL_TARGET},
    },
    redact::mask_text,
};

mod client;

pub use client::ClientTrace;

/// What the configuration says of traces. The standard variables win over it, as everywhere.
#[derive(Debug, Clone, PartialEq)]
pub struct Settings {
    /// The collector's URL; `None` exports nothing.
    pub endpoint: Option<String>,
    /// Of how many traces the spans are recorded, from 0 to 1.
    pub sample_ratio: f64,
    /// Whether spans have the text of statements.
    pub sql_text: bool,
}

/// The traces cannot be exported as they are asked for.
#[derive(Debug, thiserror::Error)]
#[error("cannot export traces: {0}")]
pub struct TracesError(String);

impl From<ExporterBuildError> for TracesError {
    fn from(error: ExporterBuildError) -> Self {
        Self(mask_text(&error.to_string()))
    }
}

/// An export of spans that is under way.
#[derive(Debug)]
pub struct Traces {
    provider: SdkTracerProvider,
    sql_text: bool,
}

impl Traces {
    /// Begins to export the daemon's spans; `None` where no endpoint is set. Inside a runtime.
    pub fn start(settings: &Settings, instance: &str) -> Result<Option<Self>, TracesError> {
        let exporter = exporter(settings.endpoint.as_deref(), RetryPolicy::recommended())?;
        let Some(exporter) = exporter else { return Ok(None) };
        let resource = resource("nexusd", [KeyValue::new("service.instance.id", instance.to_owned())]);
        let mut builder = SdkTracerProvider::builder().with_batch_exporter(exporter).with_resource(resource);
        if variable("OTEL_TRACES_SAMPLER").is_none() {
            // A client that records nothing asks for every trace: how many are had is said here.
            let ratio = Sampler::TraceIdRatioBased(settings.sample_ratio);
            let sampler = ParentBasedSampler::new(ratio.clone()).with_remote_parent_sampled(ratio);
            builder = builder.with_sampler(sampler);
        }
        Ok(Some(Self { provider: builder.build(), sql_text: settings.sql_text }))
    }

    /// What turns `tracing`'s spans into OpenTelemetry's: those that are made to be exported. Events
    /// are left out, as libraries put SQL into theirs.
    pub fn layer<S>(&self) -> impl Layer<S> + use<S>
    where
        S: Subscriber + for<'span> LookupSpan<'span>,
    {
        let mut wanted = Targets::new().with_target(SPAN_TARGET, Level::INFO);
        if !self.sql_text {
            wanted = wanted.with_target(SQL_TARGET, tracing::level_filters::LevelFilter::OFF);
        }
        tracing_opentelemetry::layer()
            .with_tracer(self.provider.tracer("nexus"))
            .with_context_activation(false)
            .with_tracked_inactivity(false)
            .with_location(false)
            .with_threads(false)
            .with_target(false)
            .with_level(false)
            .with_filter(wanted)
    }

    /// Sends what is left and ends, at most within `limit`.
    pub async fn stop(self, limit: Duration) {
        let stop = move || self.provider.shutdown_with_timeout(limit);
        // The exporter tells of its failures by itself.
        let _ = tokio::task::spawn_blocking(stop).await;
    }
}

/// Puts a span under its caller's, and gives the place in the trace of what comes under it: the
/// span itself, or the caller where it is not exported.
pub(super) fn join(span: &Span, caller: Option<TraceContext>) -> Option<TraceContext> {
    if span.is_disabled() {
        return caller;
    }
    if let Some(caller) = caller {
        let remote = Context::new().with_remote_span_context(to_remote(caller));
        // It fails where the span is not exported.
        let _ = span.set_parent(remote);
    }
    of(span.context().span().span_context()).or(caller)
}

fn to_remote(context: TraceContext) -> SpanContext {
    let flags = if context.sampled { TraceFlags::SAMPLED } else { TraceFlags::NOT_SAMPLED };
    let (trace, span) = (TraceId::from(context.trace), SpanId::from(context.span));
    SpanContext::new(trace, span, flags, true, TraceState::default())
}

fn of(context: &SpanContext) -> Option<TraceContext> {
    let trace = u128::from_be_bytes(context.trace_id().to_bytes());
    let span = u64::from_be_bytes(context.span_id().to_bytes());
    context.is_valid().then(|| TraceContext { trace, span, sampled: context.is_sampled() })
}

/// A variable that is set to something.
fn variable(name: &str) -> Option<String> {
    env::var(name).ok().filter(|value| !value.is_empty())
}

/// The exporter to the endpoint of the environment, else to the given one; `None` where there is
/// neither, or where the environment switches it off.
fn exporter(endpoint: Option<&str>, retries: RetryPolicy) -> Result<Option<Told<SpanExporter>>, TracesError> {
    let is = |name: &str, word: &str| variable(name).is_some_and(|value| value.eq_ignore_ascii_case(word));
    if is("OTEL_SDK_DISABLED", "true") || is("OTEL_TRACES_EXPORTER", "none") {
        return Ok(None);
    }
    let builder = SpanExporter::builder().with_tonic().with_retry_policy(retries);
    let named = ["OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT"];
    let exporter = match endpoint {
        _ if named.iter().any(|name| variable(name).is_some()) => builder.build()?,
        Some(endpoint) => builder.with_endpoint(endpoint).build()?,
        None => return Ok(None),
    };
    Ok(Some(Told::new(exporter)))
}

/// What the spans come from; the environment may name the service otherwise, and add to it.
fn resource(service: &'static str, more: impl IntoIterator<Item = KeyValue>) -> Resource {
    let version = KeyValue::new("service.version", env!("CARGO_PKG_VERSION"));
    let name = variable("OTEL_SERVICE_NAME").unwrap_or_else(|| service.to_owned());
    Resource::builder().with_service_name(name).with_attribute(version).with_attributes(more).build()
}

/// An exporter that tells once when it begins to fail, and once when it works again.
#[derive(Debug)]
struct Told<E> {
    exporter: E,
    is_failing: AtomicBool,
}

impl<E> Told<E> {
    fn new(exporter: E) -> Self {
        Self { exporter, is_failing: AtomicBool::new(false) }
    }
}

impl<E: opentelemetry_sdk::trace::SpanExporter> opentelemetry_sdk::trace::SpanExporter for Told<E> {
    async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
        let result = self.exporter.export(batch).await;
        match &result {
            Err(error) if !self.is_failing.swap(true, Ordering::Relaxed) => {
                let error = mask_text(&error.to_string());
                tracing::warn!(%error, "traces cannot be exported; they are lost until this is told otherwise");
            }
            Ok(()) if self.is_failing.swap(false, Ordering::Relaxed) => {
                tracing::info!("traces are exported again");
            }
            _ => {}
        }
        result
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.exporter.shutdown_with_timeout(timeout)
    }

    fn force_flush(&self) -> OTelSdkResult {
        self.exporter.force_flush()
    }

    fn set_resource(&mut self, resource: &Resource) {
        self.exporter.set_resource(resource);
    }
}

#[cfg(test)]
mod tests {
    use std::{
        fmt::Write as _,
        sync::{Arc, Mutex, atomic::AtomicUsize},
    };

    use opentelemetry_sdk::error::OTelSdkError;
    use tracing_subscriber::layer::SubscriberExt as _;

    use super::*;

    #[test]
    fn a_context_goes_both_ways() {
        for sampled in [true, false] {
            let context = TraceContext { trace: 1 << 100 | 5, span: 1 << 60 | 7, sampled };
            assert_eq!(of(&to_remote(context)), Some(context));
        }
        assert_eq!(of(&SpanContext::empty_context()), None);
    }

    /// Fails as often as it says.
    #[derive(Debug)]
    struct Failing(AtomicUsize);

    impl opentelemetry_sdk::trace::SpanExporter for Failing {
        async fn export(&self, _: Vec<SpanData>) -> OTelSdkResult {
            match self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1)) {
                Ok(_) => Err(OTelSdkError::InternalFailure("postgres://u:CANARY@h/ is down".into())),
                Err(_) => Ok(()),
            }
        }
    }

    /// Keeps the levels and the texts of events.
    #[derive(Clone, Default)]
    struct Kept(Arc<Mutex<Vec<String>>>);

    impl<S: Subscriber> Layer<S> for Kept {
        fn on_event(&self, event: &tracing::Event<'_>, _: tracing_subscriber::layer::Context<'_, S>) {
            let mut text = event.metadata().level().to_string();
            event.record(&mut |_: &tracing::field::Field, value: &dyn std::fmt::Debug| {
                let _ = write!(text, " {value:?}");
            });
            self.0.lock().expect("nobody panicked").push(text);
        }
    }

    #[tokio::test]
    async fn a_collector_that_is_down_is_told_once() {
        let kept = Kept::default();
        let subscriber = tracing_subscriber::registry().with(kept.clone());
        let _guard = tracing::subscriber::set_default(subscriber);
        let told = Told::new(Failing(AtomicUsize::new(3)));
        for _ in 0..6 {
            let _ = opentelemetry_sdk::trace::SpanExporter::export(&told, Vec::new()).await;
        }
        let texts = kept.0.lock().expect("nobody panicked").clone();
        let [lost, found] = texts.as_slice() else { return assert_eq!(texts.len(), 2, "{texts:?}") };
        assert!(lost.starts_with("WARN") && lost.contains("is down") && !lost.contains("CANARY"), "{lost}");
        assert!(found.starts_with("INFO"), "{found}");
    }

    #[test]
    fn without_an_exporter_the_caller_stays() {
        let caller = Some(TraceContext { trace: 1, span: 2, sampled: true });
        assert_eq!(join(&Span::none(), caller), caller);
        assert_eq!(join(&Span::none(), None), None);
    }
}
