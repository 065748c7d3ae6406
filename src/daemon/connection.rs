//! Connections: accepted from ports and from the socket, encrypted where there is a certificate, each with
//! what it shows of who is at its other end.

use std::{
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use nix::unistd::{Gid, Uid, User, getgrouplist};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{TcpListener, TcpStream, UnixListener, UnixStream},
    sync::{Semaphore, mpsc},
    time::timeout,
};
use tokio_rustls::server::TlsStream;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::server::Connected;

use crate::{
    access::{Origin, Peer, Process},
    daemon::tls::{self, Protocol, Tls},
    runtime::Tasks,
};

/// How long a client may take to agree on a key.
const HANDSHAKE: Duration = Duration::from_secs(10);

/// With how many clients a key is being agreed on at once.
const MOST_HANDSHAKES: usize = 1024;

/// How many connections wait for the server to take them.
const WAITING: usize = 16;

/// How long nothing is accepted after the system has refused to: it has no descriptors left.
const BREATH: Duration = Duration::from_millis(500);

/// One connection.
pub(super) struct Connection {
    stream: Stream,
    peer: Peer,
}

enum Stream {
    Tcp(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
    Unix(UnixStream),
}

/// Where connections come from.
pub(super) enum Listener {
    /// A port, and what is spoken there.
    Tcp(TcpListener, Protocol, Option<Arc<Tls>>),
    /// The socket.
    Unix(UnixListener),
}

/// A connection that nothing is known of yet.
enum Accepted {
    Tcp(TcpStream, std::net::SocketAddr),
    Unix(UnixStream),
}

/// Accepts connections until nobody takes them any more.
pub(super) fn incoming(
    tasks: &Tasks,
    name: &'static str,
    listener: Listener,
) -> ReceiverStream<io::Result<Connection>> {
    let (sender, receiver) = mpsc::channel(WAITING);
    tasks.spawn_vital(name, accept(tasks.clone(), listener, sender));
    ReceiverStream::new(receiver)
}

async fn accept(tasks: Tasks, listener: Listener, sender: mpsc::Sender<io::Result<Connection>>) {
    let places = Arc::new(Semaphore::new(MOST_HANDSHAKES));
    loop {
        // It is never closed.
        let Ok(place) = places.clone().acquire_owned().await else { return };
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = sender.closed() => return,
        };
        let accepted = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::warn!(%error, "a connection could not be accepted");
                tokio::time::sleep(BREATH).await;
                continue;
            }
        };
        let tls = match &listener {
            Listener::Tcp(_, protocol, Some(tls)) => Some(tls.acceptor(*protocol)),
            _ => None,
        };
        let sender = sender.clone();
        // In a task of its own: nobody waits for somebody else's handshake.
        drop(tasks.spawn("connection", async move {
            match timeout(HANDSHAKE, meet(accepted, tls)).await {
                // Whoever would have taken it may be gone.
                Ok(Ok(connection)) => drop(sender.send(Ok(connection)).await),
                Ok(Err(error)) => tracing::debug!(%error, "a connection came to nothing"),
                Err(_) => tracing::debug!("a client took too long to agree on a key"),
            }
            drop(place);
        }));
    }
}

/// Makes a connection of what was accepted.
async fn meet(accepted: Accepted, tls: Option<tokio_rustls::TlsAcceptor>) -> io::Result<Connection> {
    Ok(match (accepted, tls) {
        (Accepted::Tcp(stream, address), tls) => {
            stream.set_nodelay(true)?;
            let mut peer = Peer { from: Origin::Tcp(address), process: None, certificate: None };
            let stream = match tls {
                None => Stream::Tcp(stream),
                Some(acceptor) => {
                    let stream = acceptor.accept(stream).await?;
                    // The authorities have vouched for the first one.
                    let shown = stream.get_ref().1.peer_certificates().and_then(<[_]>::first);
                    peer.certificate = shown.map(|certificate| tls::names(certificate).into());
                    Stream::Tls(Box::new(stream))
                }
            };
            Connection { stream, peer }
        }
        (Accepted::Unix(stream), _) => {
            let credentials = stream.peer_cred()?;
            let (uid, gid) = (credentials.uid(), credentials.gid());
            // The system's directory of users may be far away.
            let process = tokio::task::spawn_blocking(move || process(uid, gid)).await;
            let process = process.map_err(io::Error::other)?;
            let peer =
                Peer { from: Origin::Unix(credentials.pid()), process: Some(process), certificate: None };
            Connection { stream: Stream::Unix(stream), peer }
        }
    })
}

fn process(uid: u32, gid: u32) -> Process {
    let user = User::from_uid(Uid::from_raw(uid)).ok().flatten().map(|user| user.name);
    let groups = user.as_ref().and_then(|name| {
        let name = std::ffi::CString::new(name.as_bytes()).ok()?;
        getgrouplist(&name, Gid::from_raw(gid)).ok()
    });
    let groups = groups.unwrap_or_default().into_iter().map(Gid::as_raw).collect();
    Process { uid, gid, groups, user }
}

impl Listener {
    async fn accept(&self) -> io::Result<Accepted> {
        match self {
            Self::Tcp(listener, ..) => {
                listener.accept().await.map(|(stream, from)| Accepted::Tcp(stream, from))
            }
            Self::Unix(listener) => listener.accept().await.map(|(stream, _)| Accepted::Unix(stream)),
        }
    }
}

impl Connection {
    /// What it shows of who is at its other end.
    pub(super) fn peer(&self) -> &Peer {
        &self.peer
    }

    fn stream(self: Pin<&mut Self>) -> Pin<&mut dyn Duplex> {
        let stream: &mut dyn Duplex = match &mut self.get_mut().stream {
            Stream::Tcp(stream) => stream,
            Stream::Tls(stream) => stream.as_mut(),
            Stream::Unix(stream) => stream,
        };
        Pin::new(stream)
    }
}

/// Reads and writes.
trait Duplex: AsyncRead + AsyncWrite + Unpin {}

impl<T: AsyncRead + AsyncWrite + Unpin> Duplex for T {}

impl Connected for Connection {
    type ConnectInfo = Peer;

    fn connect_info(&self) -> Peer {
        self.peer.clone()
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.stream().poll_read(context, buffer)
    }
}

impl AsyncWrite for Connection {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.stream().poll_write(context, bytes)
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.stream().poll_flush(context)
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.stream().poll_shutdown(context)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.stream().poll_write_vectored(context, slices)
    }

    fn is_write_vectored(&self) -> bool {
        match &self.stream {
            Stream::Tcp(stream) => stream.is_write_vectored(),
            Stream::Tls(stream) => stream.is_write_vectored(),
            Stream::Unix(stream) => stream.is_write_vectored(),
        }
    }
}
