//! The layer that counts RPCs, each once, when its answer has ended, and that gives each its place in a
//! trace.

use std::{
    borrow::Cow,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Instant,
};

use http::{HeaderMap, Request, Response};
use http_body::{Body, Frame, SizeHint};
use tower::{Layer, Service};
use tracing::{Instrument as _, Span, field::Empty};

use crate::{
    migration::{TraceContext, trace::SPAN_TARGET},
    telemetry::{Metrics, traces},
};

/// gRPC's status codes by number, as metrics name them.
const CODES: [&str; 17] = [
    "OK",
    "Canceled",
    "Unknown",
    "InvalidArgument",
    "DeadlineExceeded",
    "NotFound",
    "AlreadyExists",
    "PermissionDenied",
    "ResourceExhausted",
    "FailedPrecondition",
    "Aborted",
    "OutOfRange",
    "Unimplemented",
    "Internal",
    "Unavailable",
    "DataLoss",
    "Unauthenticated",
];

/// What is counted as the method where the client made the name up: its labels would have no bound.
const OTHER: &str = "other";

/// The statuses that are the server's own fault, by OpenTelemetry's conventions.
const FAULTS: [&str; 6] =
    ["Unknown", "DeadlineExceeded", "Unimplemented", "Internal", "Unavailable", "DataLoss"];

/// Counts the RPCs of known services.
#[derive(Debug, Clone)]
pub struct RpcLayer {
    metrics: Metrics,
    services: Arc<[Cow<'static, str>]>,
}

impl RpcLayer {
    /// Counts in `metrics`. The `services` are the full names of those that are served, such as
    /// `nexus.v1.FleetService`; an RPC of any other counts as the method `other`.
    pub fn new(metrics: Metrics, services: impl IntoIterator<Item = impl Into<Cow<'static, str>>>) -> Self {
        Self { metrics, services: services.into_iter().map(Into::into).collect() }
    }

    fn method(&self, path: &str) -> Cow<'static, str> {
        let method = path.strip_prefix('/').unwrap_or(path);
        let service = method.split('/').next().unwrap_or_default();
        if self.services.iter().any(|known| known == service) {
            method.to_owned().into()
        } else {
            OTHER.into()
        }
    }
}

impl<S> Layer<S> for RpcLayer {
    type Service = RpcService<S>;

    fn layer(&self, inner: S) -> RpcService<S> {
        RpcService { inner, layer: self.clone() }
    }
}

/// A service whose RPCs are counted.
#[derive(Debug, Clone)]
pub struct RpcService<S> {
    inner: S,
    layer: RpcLayer,
}

impl<S, B, R> Service<Request<B>> for RpcService<S>
where
    S: Service<Request<B>, Response = Response<R>>,
    S::Future: Send + 'static,
    R: Body,
{
    type Response = Response<CountedBody<R>>;
    type Error = S::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, S::Error>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, mut request: Request<B>) -> Self::Future {
        let method = self.layer.method(request.uri().path());
        let span = span(&method);
        if let Some(context) = traces::join(&span, caller(request.headers())) {
            request.extensions_mut().insert(context);
        }
        let metrics = self.layer.metrics.clone();
        let answer = self.inner.call(request).instrument(span.clone());
        let mut call = Call { metrics, method, started: Instant::now(), code: None, span };
        Box::pin(async move {
            let answer = answer.await.inspect_err(|_| call.code = Some("Internal"))?;
            call.read_status(answer.headers());
            Ok(answer.map(|body| CountedBody { body, call }))
        })
    }
}

/// The span of an RPC; those that only ask for the daemon's health have none.
fn span(method: &str) -> Span {
    if !method.starts_with("nexus.") {
        return Span::none();
    }
    tracing::info_span!(
        target: SPAN_TARGET,
        "rpc",
        otel.name = method,
        otel.kind = "server",
        otel.status_code = Empty,
        rpc.system.name = "grpc",
        rpc.method = method,
        rpc.response.status_code = Empty,
        "error.type" = Empty,
    )
}

/// The caller's place in a trace, by W3C's header.
fn caller(headers: &HeaderMap) -> Option<TraceContext> {
    headers.get("traceparent")?.to_str().ok().and_then(TraceContext::parse)
}

/// One RPC under way. It is counted when it is dropped, however it ended; one that nobody saw the
/// end of was cancelled by its client.
#[derive(Debug)]
struct Call {
    metrics: Metrics,
    method: Cow<'static, str>,
    started: Instant,
    code: Option<&'static str>,
    span: Span,
}

impl Call {
    /// Takes the status from trailers, or from the headers of an answer that has nothing else.
    fn read_status(&mut self, headers: &HeaderMap) {
        if let Some(status) = headers.get("grpc-status") {
            let number = status.to_str().ok().and_then(|number| number.parse::<usize>().ok());
            self.code = Some(number.and_then(|number| CODES.get(number)).copied().unwrap_or("Unknown"));
        }
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        let code = self.code.unwrap_or("Canceled");
        let method = if code == "Unimplemented" { OTHER } else { &self.method };
        self.metrics.rpc(method, code, self.started.elapsed());
        // Entered, so that its end is that of the answer's last part.
        self.span.in_scope(|| {
            self.span.record("rpc.response.status_code", code);
            if FAULTS.contains(&code) {
                self.span.record("otel.status_code", "ERROR");
                self.span.record("error.type", code);
            }
        });
    }
}

/// An answer's body that sees how the RPC ends.
#[derive(Debug)]
pub struct CountedBody<R> {
    body: R,
    call: Call,
}

impl<R: Body + Unpin> Body for CountedBody<R> {
    type Data = R::Data;
    type Error = R::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<R::Data>, R::Error>>> {
        let frame = ready!(Pin::new(&mut self.body).poll_frame(context));
        match &frame {
            Some(Ok(frame)) => {
                if let Some(trailers) = frame.trailers_ref() {
                    self.call.read_status(trailers);
                }
            }
            Some(Err(_)) => self.call.code = Some("Unknown"),
            // An answer that ends without a status is malformed: gRPC's clients read it so too.
            None => self.call.code = self.call.code.or(Some("Unknown")),
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use std::{collections::VecDeque, convert::Infallible};

    use axum::body::Bytes;
    use tower::{ServiceExt as _, service_fn};

    use super::*;

    /// A body of given frames.
    struct Frames(VecDeque<Result<Frame<Bytes>, &'static str>>);

    impl Body for Frames {
        type Data = Bytes;
        type Error = &'static str;

        fn poll_frame(
            mut self: Pin<&mut Self>,
            _: &mut Context<'_>,
        ) -> Poll<Option<Result<Frame<Bytes>, &'static str>>> {
            Poll::Ready(self.0.pop_front())
        }
    }

    fn status(number: &'static str) -> HeaderMap {
        HeaderMap::from_iter([(
            http::HeaderName::from_static("grpc-status"),
            http::HeaderValue::from_static(number),
        )])
    }

    /// Sends one RPC to `path`, reads `reads` frames of the answer, then drops it.
    async fn check(
        path: &str,
        headers: HeaderMap,
        frames: Vec<Result<Frame<Bytes>, &'static str>>,
        reads: usize,
        expected: &str,
    ) {
        let metrics = Metrics::new();
        let answer = Arc::new(std::sync::Mutex::new(Some((headers, Frames(frames.into())))));
        let service = RpcLayer::new(metrics.clone(), ["nexus.v1.FleetService"]).layer(service_fn(
            move |_: Request<()>| {
                let (headers, frames) =
                    answer.lock().expect("nobody panicked").take().expect("it is called once");
                let mut response = Response::new(frames);
                *response.headers_mut() = headers;
                async move { Ok::<_, Infallible>(response) }
            },
        ));
        let request = Request::builder().uri(format!("http://localhost{path}")).body(()).expect("a request");
        let mut body = service.oneshot(request).await.expect("it cannot fail").into_body();
        for _ in 0..reads {
            assert!(
                !metrics.encode().contains("nexus_rpc_requests_total{"),
                "{path} is counted before its end"
            );
            let _ = std::future::poll_fn(|context| Pin::new(&mut body).poll_frame(context)).await;
        }
        drop(body);
        let text = metrics.encode();
        let counted: Vec<_> =
            text.lines().filter_map(|line| line.strip_prefix("nexus_rpc_requests_total")).collect();
        assert_eq!(counted, [expected]);
        let method = expected.split('"').nth(3).unwrap_or_default();
        assert!(
            text.contains(&format!("nexus_rpc_duration_seconds_count{{method=\"{method}\"}} 1")),
            "{text}"
        );
    }

    #[tokio::test]
    async fn rpcs_are_counted_at_their_end() {
        let data = || Ok(Frame::data(Bytes::from_static(b"x")));
        let trailers = |number| Ok(Frame::trailers(status(number)));
        let none = HeaderMap::new;
        let list = "/nexus.v1.FleetService/List";
        let counted = |code: &str| format!("{{code=\"{code}\",method=\"nexus.v1.FleetService/List\"}} 1");
        check(list, none(), vec![data(), trailers("0")], 3, &counted("OK")).await;
        check(list, none(), vec![data(), data(), trailers("9")], 3, &counted("FailedPrecondition")).await;
        check(list, status("5"), vec![], 0, &counted("NotFound")).await;
        check(list, status("99"), vec![], 0, &counted("Unknown")).await;
        check(list, none(), vec![data(), trailers("0")], 1, &counted("Canceled")).await;
        check(list, none(), vec![data()], 2, &counted("Unknown")).await;
        check(list, none(), vec![Err("reset")], 1, &counted("Unknown")).await;
        let other = "{code=\"Unimplemented\",method=\"other\"} 1";
        check("/nexus.v1.FleetService/Guess", status("12"), vec![], 0, other).await;
        check("/some.Other/Guess", none(), vec![], 1, "{code=\"Unknown\",method=\"other\"} 1").await;
    }
}
