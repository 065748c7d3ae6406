//! A collector of traces: OpenTelemetry's own service, that keeps what it is sent.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
};

use opentelemetry_proto::tonic::{
    collector::trace::v1::{
        ExportTraceServiceRequest, ExportTraceServiceResponse,
        trace_service_server::{TraceService, TraceServiceServer},
    },
    common::v1::{KeyValue, any_value::Value},
    trace::v1::{span::SpanKind, status::StatusCode},
};
use tonic::{Request, Response, Status};

use crate::support::await_that;

/// One span, as a test reads it.
#[derive(Debug, Clone)]
pub(crate) struct Span {
    pub(crate) trace: String,
    pub(crate) id: String,
    pub(crate) parent: String,
    pub(crate) name: String,
    pub(crate) kind: SpanKind,
    pub(crate) has_failed: bool,
    pub(crate) start: u64,
    pub(crate) end: u64,
    pub(crate) attributes: BTreeMap<String, String>,
    /// Of the process that made it.
    pub(crate) resource: BTreeMap<String, String>,
}

impl Span {
    /// An attribute; empty where it has none of that name.
    pub(crate) fn attribute(&self, name: &str) -> &str {
        self.attributes.get(name).map_or("", String::as_str)
    }
}

/// What a collector does with what it is sent.
#[derive(Clone, Copy)]
pub(crate) enum Manner {
    Take,
    Hang,
}

#[derive(Clone)]
struct Service {
    spans: Arc<Mutex<Vec<Span>>>,
    received: Arc<Mutex<Vec<String>>>,
    manner: Manner,
}

#[tonic::async_trait]
impl TraceService for Service {
    async fn export(
        &self,
        request: Request<ExportTraceServiceRequest>,
    ) -> Result<Response<ExportTraceServiceResponse>, Status> {
        if matches!(self.manner, Manner::Hang) {
            return std::future::pending().await;
        }
        let request = request.into_inner();
        self.received.lock().unwrap_or_else(PoisonError::into_inner).push(format!("{request:?}"));
        let spans = read(request);
        self.spans.lock().unwrap_or_else(PoisonError::into_inner).extend(spans);
        Ok(Response::new(ExportTraceServiceResponse::default()))
    }
}

/// A collector on a free port, until it is dropped.
pub(crate) struct Collector {
    pub(crate) endpoint: String,
    spans: Arc<Mutex<Vec<Span>>>,
    received: Arc<Mutex<Vec<String>>>,
    _runtime: tokio::runtime::Runtime,
}

impl Collector {
    pub(crate) fn start(manner: Manner) -> Self {
        let (spans, received) = (Arc::new(Mutex::default()), Arc::new(Mutex::default()));
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .expect("a runtime is built");
        let listener =
            runtime.block_on(tokio::net::TcpListener::bind("127.0.0.1:0")).expect("a port is bound");
        let address = listener.local_addr().expect("it has an address");
        let service =
            TraceServiceServer::new(Service { spans: spans.clone(), received: received.clone(), manner });
        let serving = tonic::transport::Server::builder()
            .add_service(service)
            .serve_with_incoming(tokio_stream::wrappers::TcpListenerStream::new(listener));
        runtime.block_on(async { drop(nexus::runtime::spawn_owned(serving)) });
        Self { endpoint: format!("http://{address}"), spans, received, _runtime: runtime }
    }

    /// Everything that it was sent, as `Debug` shows it.
    pub(crate) fn received(&self) -> String {
        self.received.lock().unwrap_or_else(PoisonError::into_inner).join("\n")
    }

    /// The spans so far, in the order of their starts.
    pub(crate) fn spans(&self) -> Vec<Span> {
        let mut spans = self.spans.lock().unwrap_or_else(PoisonError::into_inner).clone();
        spans.sort_by_key(|span| span.start);
        spans
    }

    /// The spans, as soon as there is one of this name.
    pub(crate) fn spans_with(&self, name: &str) -> Vec<Span> {
        await_that(name, || self.spans().iter().any(|span| span.name == name));
        self.spans()
    }
}

fn read(request: ExportTraceServiceRequest) -> Vec<Span> {
    let mut read = Vec::new();
    for of_resource in request.resource_spans {
        let resource = attributes(of_resource.resource.map(|it| it.attributes).unwrap_or_default());
        for span in of_resource.scope_spans.into_iter().flat_map(|scope| scope.spans) {
            read.push(Span {
                kind: span.kind(),
                has_failed: span.status.is_some_and(|status| status.code() == StatusCode::Error),
                trace: hex(&span.trace_id),
                id: hex(&span.span_id),
                parent: hex(&span.parent_span_id),
                name: span.name,
                start: span.start_time_unix_nano,
                end: span.end_time_unix_nano,
                attributes: attributes(span.attributes),
                resource: resource.clone(),
            });
        }
    }
    read
}

fn attributes(attributes: Vec<KeyValue>) -> BTreeMap<String, String> {
    let text = |value: Value| match value {
        Value::StringValue(text) => text,
        Value::IntValue(number) => number.to_string(),
        Value::BoolValue(flag) => flag.to_string(),
        other => format!("{other:?}"),
    };
    attributes
        .into_iter()
        .map(|it| (it.key, it.value.and_then(|it| it.value).map(text).unwrap_or_default()))
        .collect()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |digits, byte| digits + &format!("{byte:02x}"))
}
