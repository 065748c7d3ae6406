//! HTTP for monitoring: `/metrics`, `/-/healthy`, `/-/ready`.

use std::{io, sync::Arc};

use axum::{
    Router,
    extract::State,
    http::{StatusCode, header::CONTENT_TYPE},
    response::{IntoResponse, Response},
    routing::get,
};
use tokio::{net::TcpListener, sync::watch};
use tokio_util::sync::CancellationToken;

use crate::{fleet::Gate, telemetry::Metrics};

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
    pub gate: Gate,
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

/// Serves the pages until `shutdown`, then ends the answers that are under way.
pub async fn serve(listener: TcpListener, state: HttpState, shutdown: CancellationToken) -> io::Result<()> {
    axum::serve(listener, router(state)).with_graceful_shutdown(shutdown.cancelled_owned()).await
}

async fn metrics(State(state): State<Arc<HttpState>>) -> Response {
    (state.refresh)();
    ([(CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], state.metrics.encode()).into_response()
}

async fn ready(State(state): State<Arc<HttpState>>) -> (StatusCode, String) {
    let readiness = *state.readiness.borrow();
    let (status, text) = match readiness {
        Readiness::Serving => match (state.gate)() {
            Ok(()) => (StatusCode::OK, "nexusd takes requests".to_owned()),
            Err(failure) => (StatusCode::SERVICE_UNAVAILABLE, format!("nexusd refuses changes: {failure}")),
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
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tower::ServiceExt as _;

    use super::*;

    async fn answer(readiness: Readiness, method: &str, path: &str) -> (u16, String, String) {
        let state = HttpState {
            metrics: Metrics::new(),
            readiness: watch::channel(readiness).1,
            gate: Arc::new(|| Ok(())),
            refresh: Arc::new(|| {}),
        };
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
    async fn serves_until_it_is_told_to_stop() -> io::Result<()> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let (sender, readiness) = watch::channel(Readiness::Starting);
        let shutdown = CancellationToken::new();
        let state = HttpState {
            metrics: Metrics::new(),
            readiness,
            gate: Arc::new(|| Ok(())),
            refresh: Arc::new(|| {}),
        };
        let server = crate::runtime::spawn_owned(serve(listener, state, shutdown.clone()));
        let ready = async || -> io::Result<String> {
            let mut stream = tokio::net::TcpStream::connect(address).await?;
            stream
                .write_all(b"GET /-/ready HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n")
                .await?;
            let mut text = String::new();
            stream.read_to_string(&mut text).await?;
            Ok(text)
        };
        assert!(ready().await?.starts_with("HTTP/1.1 503"));
        sender.send_replace(Readiness::Serving);
        assert!(ready().await?.starts_with("HTTP/1.1 200"));
        shutdown.cancel();
        server.await??;
        assert!(ready().await.is_err());
        Ok(())
    }
}
