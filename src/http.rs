//! HTTP for monitoring: `/metrics`, `/-/healthy`, `/-/ready`.

mod gate;
mod serve;

use std::sync::Arc;

use axum::{
    Router,
    extract::{Request, State},
    http::{
        HeaderValue, StatusCode,
        header::{AUTHORIZATION, CONTENT_TYPE, WWW_AUTHENTICATE},
    },
    response::{IntoResponse, Response},
    routing::get,
};
use tokio::sync::watch;

use crate::{
    access::{
        Authenticate, Peer, Permit,
        admit::{Refusal, admit},
        rule::METRICS,
    },
    migration::{Failure, failure::Kind},
    telemetry::Metrics,
};

pub use self::{gate::Watched, serve::serve};

/// Whether the daemon takes requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Readiness {
    /// Not yet.
    #[default]
    Starting,
    /// It does.
    Serving,
    /// No more: it is about to stop.
    Draining,
}

/// What the pages are made of.
#[derive(Clone)]
pub struct HttpState {
    /// What `/metrics` shows.
    pub metrics: Metrics,
    /// What `/-/ready` says.
    pub readiness: watch::Receiver<Readiness>,
    /// Whether mutations are admitted: `/-/ready` says so.
    pub gate: Watched,
    /// Says who asks.
    pub authenticate: Authenticate,
    /// Whether whoever asks for `/metrics` is answered.
    pub open_metrics: bool,
    /// Is told who was refused `/metrics`.
    pub refused: Arc<dyn Fn(&Refusal) + Send + Sync>,
    /// Brings up to date what is not told by events, before each `/metrics`.
    pub refresh: Arc<dyn Fn() + Send + Sync>,
}

/// The pages. Every answer is plain text.
pub fn router(state: HttpState) -> Router {
    Router::new()
        .route("/metrics", get(metrics))
        .route("/-/healthy", get(async || "nexusd is alive\n"))
        .route("/-/ready", get(ready))
        .fallback(async || {
            (StatusCode::NOT_FOUND, "not found; there are /metrics, /-/healthy and /-/ready\n")
        })
        .with_state(Arc::new(state))
}

async fn metrics(State(state): State<Arc<HttpState>>, request: Request) -> Response {
    if !state.open_metrics
        && let Err(refusal) = state.knows(&request)
    {
        (state.refused)(&refusal);
        return refused(&refusal.failure);
    }
    (state.refresh)();
    ([(CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], state.metrics.encode()).into_response()
}

impl HttpState {
    /// Refuses whoever may not read everything.
    fn knows(&self, request: &Request) -> Result<Permit, Box<Refusal>> {
        let header = request.headers().get(AUTHORIZATION).map(HeaderValue::as_bytes);
        admit(&self.authenticate, request.extensions().get::<Peer>(), header, &METRICS)
    }
}

fn refused(failure: &Failure) -> Response {
    let text = format!("{failure}\n{}\n[{}]\n", failure.remedy(), failure.code);
    match failure.code.kind() {
        Kind::Unauthenticated => {
            (StatusCode::UNAUTHORIZED, [(WWW_AUTHENTICATE, "Bearer")], text).into_response()
        }
        Kind::Exhausted => (StatusCode::SERVICE_UNAVAILABLE, text).into_response(),
        _ => (StatusCode::FORBIDDEN, text).into_response(),
    }
}

async fn ready(State(state): State<Arc<HttpState>>, request: Request) -> (StatusCode, String) {
    let readiness = *state.readiness.borrow();
    let (status, text) = match readiness {
        Readiness::Serving => match state.gate.look().await {
            Ok(()) => (StatusCode::OK, "nexusd takes requests".to_owned()),
            Err(failure) => {
                // What is wrong names paths: it is for those who may read everything.
                let why =
                    if state.knows(&request).is_ok() { failure.message } else { "its log says why".into() };
                (StatusCode::SERVICE_UNAVAILABLE, format!("nexusd refuses changes: {why}"))
            }
        },
        Readiness::Starting => (StatusCode::SERVICE_UNAVAILABLE, "nexusd is starting".to_owned()),
        Readiness::Draining => {
            (StatusCode::SERVICE_UNAVAILABLE, "nexusd is stopping: it lets what is running end".to_owned())
        }
    };
    (status, format!("{text}\n"))
}

#[cfg(test)]
mod tests {
    use axum::{body::Body, http::Request};
    use tower::ServiceExt as _;

    use super::*;
    use crate::{
        access::{Crowd, Identities, Origin},
        migration::Code,
    };

    /// A state that lets in whoever is on loopback.
    pub(super) fn state(readiness: watch::Receiver<Readiness>) -> HttpState {
        let identities = Identities::open(500);
        let now = jiff::Timestamp::now();
        HttpState {
            metrics: Metrics::new(),
            readiness,
            gate: Watched::new(Arc::new(|| Ok(()))),
            authenticate: Arc::new(move |peer, token| identities.authenticate(peer, token, now)),
            open_metrics: false,
            refused: Arc::new(|_| {}),
            refresh: Arc::new(|| {}),
        }
    }

    async fn answer(readiness: Readiness, method: &str, path: &str) -> (u16, String, String) {
        let state = HttpState { open_metrics: true, ..state(watch::channel(readiness).1) };
        let request = Request::builder().method(method).uri(path).body(Body::empty()).expect("a request");
        let response = router(state).oneshot(request).await.expect("it cannot fail");
        let kind =
            response.headers().get(CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
        let (status, kind) = (response.status().as_u16(), kind.to_owned());
        let body = axum::body::to_bytes(response.into_body(), 1 << 20).await.expect("a body");
        (status, kind, String::from_utf8_lossy(&body).into_owned())
    }

    #[tokio::test]
    async fn pages() {
        use Readiness::{Draining, Serving, Starting};
        for (readiness, method, path, status, begins) in [
            (Starting, "GET", "/-/healthy", 200, "nexusd is alive\n"),
            (Draining, "HEAD", "/-/healthy", 200, ""),
            (Starting, "GET", "/-/ready", 503, "nexusd is starting\n"),
            (Serving, "GET", "/-/ready", 200, "nexusd takes requests\n"),
            (Draining, "GET", "/-/ready", 503, "nexusd is stopping"),
            (Starting, "GET", "/metrics", 200, "# HELP nexus_"),
            (Serving, "GET", "/", 404, "not found"),
            (Serving, "GET", "/-/quit", 404, "not found"),
            (Serving, "POST", "/metrics", 405, ""),
        ] {
            let (got, kind, body) = answer(readiness, method, path).await;
            assert_eq!(got, status, "{method} {path} while {readiness:?}");
            assert!(body.starts_with(begins), "{method} {path}: {body}");
            assert!(body.is_empty() || kind.starts_with("text/plain"), "{method} {path}: {kind}");
        }
        let (_, kind, _) = answer(Serving, "GET", "/metrics").await;
        assert_eq!(kind, "text/plain; version=0.0.4; charset=utf-8");
    }

    #[tokio::test]
    async fn metrics_take_a_role_where_somebody_is_asked() {
        let state = state(watch::channel(Readiness::Serving).1);
        let check = async |path: &str, from: Option<[u8; 4]>, header: Option<&str>, expected: u16| {
            let mut request = Request::builder().uri(path);
            if let Some(header) = header {
                request = request.header(AUTHORIZATION, header);
            }
            let mut request = request.body(Body::empty()).expect("a request");
            if let Some(address) = from {
                request.extensions_mut().insert(Peer::at(Origin::Tcp((address, 1).into())));
            }
            let response = router(state.clone()).oneshot(request).await.expect("it cannot fail");
            assert_eq!(response.status(), expected, "{path} {from:?} {header:?}");
        };
        let (near, far) = (Some([127, 0, 0, 1]), Some([10, 0, 0, 1]));
        check("/metrics", near, None, 200).await;
        check("/metrics", near, Some("Bearer nexus_a"), 401).await;
        check("/metrics", near, Some("Basic x"), 401).await;
        check("/metrics", far, None, 401).await;
        check("/metrics", None, None, 401).await;
        check("/-/ready", far, None, 200).await;
        check("/-/healthy", None, None, 200).await;
    }

    #[tokio::test]
    async fn why_it_is_not_ready_is_told_to_those_who_may_know() {
        let shut = || Err(Failure::new(Code::LogUnwritable, "/var/log/nexus cannot be written"));
        let gate = Watched::new(Arc::new(shut));
        let state = HttpState { gate, ..state(watch::channel(Readiness::Serving).1) };
        let check = async |path: &str, peer: Peer, expected: u16, said: &str| {
            let request = Request::builder().uri(path).extension(peer).body(Body::empty());
            let answer =
                router(state.clone()).oneshot(request.expect("a request")).await.expect("it cannot fail");
            assert_eq!(answer.status(), expected, "{said}");
            let body = axum::body::to_bytes(answer.into_body(), 1 << 20).await.expect("a body");
            let body = String::from_utf8_lossy(&body);
            assert!(body.starts_with(said), "{body}");
        };
        let at = |address: [u8; 4]| Peer::at(Origin::Tcp((address, 1).into()));
        let told = "nexusd refuses changes: /var/log/nexus cannot be written";
        check("/-/ready", at([127, 0, 0, 1]), 503, told).await;
        check("/-/ready", at([10, 0, 0, 1]), 503, "nexusd refuses changes: its log says why\n").await;
        let crowded = Peer { turned_away: Some(Crowd::Clients(8)), ..at([127, 0, 0, 1]) };
        check("/metrics", crowded.clone(), 503, "nexusd serves 8 connections already").await;
        check("/-/healthy", crowded, 200, "nexusd is alive").await;
    }
}
