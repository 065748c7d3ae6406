//! Serving the pages over connections: each has so long for the header of a request, so much room for it,
//! and an end.

use std::{convert::Infallible, pin::pin, time::Duration};

use axum::{
    Router,
    body::Body,
    http::{Request, Response},
};
use futures_util::{Stream, StreamExt as _};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    time::{sleep, timeout},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tower::ServiceExt as _;

use crate::{
    access::Peer,
    http::{HttpState, router},
    runtime::Tasks,
};

/// How large the header of a request may be, and how many fields it may have.
const MAX_HEADER: usize = 16 << 10;
const MAX_FIELDS: usize = 64;

/// How long a connection is used for one request after the other.
const MAX_AGE: Duration = Duration::from_mins(5);

/// How long the answer may take that is under way then.
const LAST_ANSWER: Duration = Duration::from_secs(10);

/// Serves the pages over connections, each with what it shows of who is at its other end, until
/// `shutdown`; then ends the answers that are under way. A client that does not send the whole header of a
/// request within `header` is disconnected, also one that has had an answer and asks for nothing more.
pub async fn serve<C, S>(
    tasks: Tasks,
    connections: C,
    state: HttpState,
    header: Duration,
    shutdown: CancellationToken,
) where
    C: Stream<Item = (Peer, S)> + Send + 'static,
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (router, open) = (router(state), TaskTracker::new());
    let mut connections = pin!(connections);
    loop {
        tokio::select! {
            Some((peer, stream)) = connections.next() => {
                let served = serve_one(stream, peer, router.clone(), header, shutdown.clone());
                drop(tasks.spawn("http-connection", open.track_future(served)));
            }
            () = shutdown.cancelled() => break,
        }
    }
    open.close();
    open.wait().await;
}

async fn serve_one<S>(stream: S, peer: Peer, router: Router, header: Duration, shutdown: CancellationToken)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let service = service_fn(|request| answer(request, peer.clone(), router.clone()));
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(header)
        .max_buf_size(MAX_HEADER)
        .max_headers(MAX_FIELDS)
        .serve_connection(TokioIo::new(stream), service);
    let mut connection = pin!(connection);
    tokio::select! {
        // Whatever it ended by is the client's affair.
        _ = &mut connection => return,
        () = sleep(MAX_AGE) => {}
        () = shutdown.cancelled() => {}
    }
    connection.as_mut().graceful_shutdown();
    drop(timeout(LAST_ANSWER, connection).await);
}

async fn answer(
    mut request: Request<Incoming>,
    peer: Peer,
    router: Router,
) -> Result<Response<Body>, Infallible> {
    request.extensions_mut().insert(peer);
    router.oneshot(request.map(Body::new)).await
}

#[cfg(test)]
mod tests {
    use std::io;

    use tokio::{
        io::{AsyncReadExt as _, AsyncWriteExt as _},
        net::{TcpListener, TcpStream},
        sync::watch,
        task::JoinHandle,
        time::Instant,
    };

    use super::*;
    use crate::{
        access::Origin,
        http::{Readiness, tests::state},
    };

    const ASK: &[u8] = b"GET /-/ready HTTP/1.1\r\nhost: localhost\r\n";

    /// A server, and how to talk to it.
    async fn start(
        header: Duration,
    ) -> io::Result<(std::net::SocketAddr, watch::Sender<Readiness>, CancellationToken, JoinHandle<()>)> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let (sender, readiness) = watch::channel(Readiness::Starting);
        let shutdown = CancellationToken::new();
        let accepted = futures_util::stream::unfold(listener, |listener| async move {
            let (stream, from) = listener.accept().await.ok()?;
            Some(((Peer::at(Origin::Tcp(from)), stream), listener))
        });
        let served = serve(Tasks::default(), accepted, state(readiness), header, shutdown.clone());
        Ok((address, sender, shutdown, crate::runtime::spawn_owned(served)))
    }

    async fn said(address: std::net::SocketAddr, bytes: &[u8]) -> io::Result<String> {
        let mut stream = TcpStream::connect(address).await?;
        stream.write_all(bytes).await?;
        let mut text = Vec::new();
        // What was said before a connection was reset counts.
        drop(stream.read_to_end(&mut text).await);
        Ok(String::from_utf8_lossy(&text).into_owned())
    }

    #[tokio::test]
    async fn serves_until_it_is_told_to_stop() -> io::Result<()> {
        let (address, readiness, shutdown, server) = start(Duration::from_mins(1)).await?;
        let ask = [ASK, b"connection: close\r\n\r\n"].concat();
        assert!(said(address, &ask).await?.starts_with("HTTP/1.1 503"));
        readiness.send_replace(Readiness::Serving);
        assert!(said(address, &ask).await?.starts_with("HTTP/1.1 200"));
        // A client that is connected and asks for nothing does not hold it up.
        let _idle = TcpStream::connect(address).await?;
        shutdown.cancel();
        server.await?;
        assert!(TcpStream::connect(address).await.is_err());
        Ok(())
    }

    #[tokio::test]
    async fn who_says_nothing_or_too_much_is_disconnected() -> io::Result<()> {
        let (address, _readiness, shutdown, server) = start(Duration::from_millis(300)).await?;
        let began = Instant::now();
        for part in [b"".as_slice(), b"GET /-/re", ASK] {
            assert_eq!(said(address, part).await?, "", "{part:?}");
        }
        // After an answer, too.
        let answer = said(address, &[ASK, b"\r\n"].concat()).await?;
        assert!(answer.starts_with("HTTP/1.1 503"), "{answer}");
        assert!((Duration::from_millis(1200)..Duration::from_secs(30)).contains(&began.elapsed()));
        let long = format!("x: {}\r\n\r\n", "y".repeat(2 * MAX_HEADER));
        let fields = "a: b\r\n".repeat(MAX_FIELDS + 1) + "\r\n";
        for more in [long, fields] {
            let answer = said(address, &[ASK, more.as_bytes()].concat()).await?;
            assert!(answer.starts_with("HTTP/1.1 431") || answer.is_empty(), "{answer}");
        }
        shutdown.cancel();
        server.await?;
        Ok(())
    }
}
