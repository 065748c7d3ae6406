//! HTTP for monitoring: `/metrics`, `/-/healthy`, `/-/ready`.

use std::{
    io::{self, ErrorKind},
    sync::Arc,
};

use axum::{
    Router,
    extract::{ConnectInfo, Request, State, connect_info::Connected},
    http::{
        StatusCode,
        header::{AUTHORIZATION, CONTENT_TYPE, WWW_AUTHENTICATE},
    },
    response::{IntoResponse, Response},
    routing::get,
    serve::{IncomingStream, Listener},
};
use futures_util::{Stream, StreamExt as _};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    sync::watch,
};
use tokio_util::sync::CancellationToken;

use crate::{
    access::{Authenticate, Peer, Permit, identity::bearer, rule::METRICS},
    fleet::Gate,
    migration::{Code, Failure, failure::Kind},
    telemetry::Metrics,
};

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
    /// Says who asks for `/metrics`; `None`: whoever asks is answered.
    pub authenticate: Option<Authenticate>,
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

/// Serves the pages over connections, each with what it shows of who is at its other end, until
/// `shutdown`; then ends the answers that are under way.
pub async fn serve<C, S>(connections: C, state: HttpState, shutdown: CancellationToken) -> io::Result<()>
where
    C: Stream<Item = (S, Peer)> + Unpin + Send + 'static,
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let service = router(state).into_make_service_with_connect_info::<Remote>();
    axum::serve(Connections(connections), service).with_graceful_shutdown(shutdown.cancelled_owned()).await
}

/// What a connection shows of who is at its other end.
#[derive(Debug, Clone)]
struct Remote(Peer);

/// Connections that somebody else accepts.
struct Connections<C>(C);

impl<C, S> Listener for Connections<C>
where
    C: Stream<Item = (S, Peer)> + Unpin + Send + 'static,
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    type Io = S;
    type Addr = Peer;

    async fn accept(&mut self) -> (S, Peer) {
        match self.0.next().await {
            Some(connection) => connection,
            // None will come any more: the server ends when it is told to.
            None => std::future::pending().await,
        }
    }

    fn local_addr(&self) -> io::Result<Peer> {
        Err(ErrorKind::Unsupported.into())
    }
}

impl<C, S> Connected<IncomingStream<'_, Connections<C>>> for Remote
where
    C: Stream<Item = (S, Peer)> + Unpin + Send + 'static,
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    fn connect_info(stream: IncomingStream<'_, Connections<C>>) -> Self {
        Self(stream.remote_addr().clone())
    }
}

async fn metrics(State(state): State<Arc<HttpState>>, request: Request) -> Response {
    if let Err(failure) = admit(&state, &request) {
        return refused(&failure);
    }
    (state.refresh)();
    ([(CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], state.metrics.encode()).into_response()
}

/// Refuses whoever may not read the metrics.
fn admit(state: &HttpState, request: &Request) -> Result<(), Failure> {
    let Some(authenticate) = &state.authenticate else { return Ok(()) };
    let header = request.headers().get(AUTHORIZATION);
    let token = bearer(header.map(|header| header.to_str().unwrap_or_default()));
    let remote = request.extensions().get::<ConnectInfo<Remote>>();
    let Some(ConnectInfo(Remote(peer))) = remote else {
        return Err(Failure::new(Code::NoCredential, "It is not known where the request comes from"));
    };
    let (caller, grants) = authenticate(peer, token)?;
    Permit::new(caller, grants, &METRICS).map(drop)
}

fn refused(failure: &Failure) -> Response {
    let text = format!("{failure}\n{}\n[{}]\n", failure.remedy(), failure.code);
    if failure.code.kind() == Kind::Unauthenticated {
        (StatusCode::UNAUTHORIZED, [(WWW_AUTHENTICATE, "Bearer")], text).into_response()
    } else {
        (StatusCode::FORBIDDEN, text).into_response()
    }
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
    use crate::access::{Identities, Origin};

    async fn answer(readiness: Readiness, method: &str, path: &str) -> (u16, String, String) {
        let state = HttpState {
            metrics: Metrics::new(),
            readiness: watch::channel(readiness).1,
            gate: Arc::new(|| Ok(())),
            authenticate: None,
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
    async fn metrics_take_a_role_where_somebody_is_asked() {
        let identities = Identities::open(500);
        let now = jiff::Timestamp::now();
        let state = HttpState {
            metrics: Metrics::new(),
            readiness: watch::channel(Readiness::Serving).1,
            gate: Arc::new(|| Ok(())),
            authenticate: Some(Arc::new(move |peer, token| identities.authenticate(peer, token, now))),
            refresh: Arc::new(|| {}),
        };
        let check = async |path: &str, from: Option<[u8; 4]>, header: Option<&str>, expected: u16| {
            let mut request = Request::builder().uri(path);
            if let Some(header) = header {
                request = request.header(AUTHORIZATION, header);
            }
            let mut request = request.body(Body::empty()).expect("a request");
            if let Some(address) = from {
                let peer = Peer { from: Origin::Tcp((address, 1).into()), process: None, certificate: None };
                request.extensions_mut().insert(ConnectInfo(Remote(peer)));
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
    async fn serves_until_it_is_told_to_stop() -> io::Result<()> {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let (sender, readiness) = watch::channel(Readiness::Starting);
        let shutdown = CancellationToken::new();
        let state = HttpState {
            metrics: Metrics::new(),
            readiness,
            gate: Arc::new(|| Ok(())),
            authenticate: None,
            refresh: Arc::new(|| {}),
        };
        let accepted = futures_util::stream::unfold(listener, |listener| async move {
            let (stream, from) = listener.accept().await.ok()?;
            let peer = Peer { from: Origin::Tcp(from), process: None, certificate: None };
            Some(((stream, peer), listener))
        });
        let server = crate::runtime::spawn_owned(serve(Box::pin(accepted), state, shutdown.clone()));
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
