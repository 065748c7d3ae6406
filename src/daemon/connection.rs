//! A connection: a stream, encrypted or not, with what it shows of who is at its other end, and with an end.

use std::{
    io::{self, ErrorKind},
    pin::Pin,
    task::{Context, Poll},
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{TcpStream, UnixStream},
    time::{Instant, Sleep, sleep_until},
};
use tokio_rustls::server::TlsStream;
use tonic::transport::server::Connected;

use crate::{access::Peer, daemon::places::Place};

/// How many bytes every client of HTTP/2 begins with, whatever it wants: before them it has said nothing.
const PREFACE: usize = 24;

/// One connection.
pub(super) struct Connection {
    stream: Stream,
    peer: Peer,
    /// When it ends, whatever is under way.
    end: Pin<Box<Sleep>>,
    /// Until when it has to have said something.
    silence: Option<Silence>,
    /// It is given back with the connection.
    _place: Place,
}

/// What bytes go over.
pub(super) enum Stream {
    /// A port without TLS.
    Tcp(TcpStream),
    /// One with it.
    Tls(Box<TlsStream<TcpStream>>),
    /// The socket.
    Unix(UnixStream),
}

/// A client that has not said enough yet to be believed one.
struct Silence {
    until: Pin<Box<Sleep>>,
    heard: usize,
}

impl Connection {
    /// One that ends at `end` at the latest.
    pub(super) fn new(stream: Stream, peer: Peer, place: Place, end: Instant) -> Self {
        Self { stream, peer, end: Box::pin(sleep_until(end)), silence: None, _place: place }
    }

    /// The same, which ends at `until` where its client has not begun to speak HTTP/2 by then: nobody else
    /// asks whether such a one is still there.
    #[must_use]
    pub(super) fn speaking_by(self, until: Instant) -> Self {
        Self { silence: Some(Silence { until: Box::pin(sleep_until(until)), heard: 0 }), ..self }
    }

    /// What it shows of who is at its other end.
    pub(super) fn peer(&self) -> &Peer {
        &self.peer
    }

    /// The stream, as long as the connection has not come to its end.
    fn stream(self: Pin<&mut Self>, context: &mut Context<'_>) -> io::Result<Pin<&mut dyn Duplex>> {
        let connection = self.get_mut();
        if connection.end.as_mut().poll(context).is_ready() {
            return Err(ErrorKind::TimedOut.into());
        }
        Ok(connection.stream.duplex())
    }
}

impl Stream {
    fn duplex(&mut self) -> Pin<&mut dyn Duplex> {
        let stream: &mut dyn Duplex = match self {
            Self::Tcp(stream) => stream,
            Self::Tls(stream) => stream.as_mut(),
            Self::Unix(stream) => stream,
        };
        Pin::new(stream)
    }
}

impl Silence {
    /// Whether it has lasted too long.
    fn is_over(&mut self, context: &mut Context<'_>) -> bool {
        self.until.as_mut().poll(context).is_ready()
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
        let before = buffer.filled().len();
        let connection = self.get_mut();
        let read = Pin::new(&mut *connection).stream(context)?.poll_read(context, buffer);
        if let Some(silence) = &mut connection.silence {
            silence.heard += buffer.filled().len() - before;
            if silence.heard >= PREFACE {
                connection.silence = None;
            } else if silence.is_over(context) {
                return Poll::Ready(Err(ErrorKind::TimedOut.into()));
            }
        }
        read
    }
}

impl AsyncWrite for Connection {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.stream(context)?.poll_write(context, bytes)
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.stream(context)?.poll_flush(context)
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        // Also at its end: nobody is to be kept waiting for it.
        self.get_mut().stream.duplex().poll_shutdown(context)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.stream(context)?.poll_write_vectored(context, slices)
    }

    fn is_write_vectored(&self) -> bool {
        match &self.stream {
            Stream::Tcp(stream) => stream.is_write_vectored(),
            Stream::Tls(stream) => stream.is_write_vectored(),
            Stream::Unix(stream) => stream.is_write_vectored(),
        }
    }
}
