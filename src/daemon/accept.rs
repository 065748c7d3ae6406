//! Connections, accepted from the ports and from the socket: so many at once, each with a key agreed on
//! where there is a certificate, and each with an end.

use std::{
    io,
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use jiff::Timestamp;
use nix::unistd::{Gid, Uid, User, getgrouplist};
use tokio::{
    net::{TcpListener, TcpStream, UnixListener, UnixStream},
    sync::mpsc,
    time::{Instant, sleep, timeout},
};
use tokio_rustls::TlsAcceptor;
use tokio_stream::wrappers::ReceiverStream;

use crate::{
    access::{Origin, Peer, Process},
    daemon::{
        connection::{Connection, Stream},
        places::{Guest, Place, Places},
        tls::{self, Protocol, Tls},
    },
    runtime::Tasks,
    telemetry::metrics::Clients,
};

/// How many connections wait for the server to take them.
const WAITING: usize = 16;

/// How long nothing is accepted after the system has refused to: it has no descriptors left.
const BREATH: Duration = Duration::from_millis(500);

/// How often it is told that connections are refused.
const TOLD_EVERY: Duration = Duration::from_mins(1);

/// How long whoever is turned away may take to ask, and to hear so.
const TURNED_AWAY: Duration = Duration::from_secs(5);

/// How long what is under way on a connection may go on after its client was told to make another one.
const GRACE: Duration = Duration::from_mins(10);

/// What a listener's clients have.
#[derive(Debug, Clone, Copy)]
pub(super) struct Terms {
    /// How many there are at once.
    pub(super) most: usize,
    /// How many of one address.
    pub(super) most_of_one: usize,
    /// How long one may take to agree on a key, and then to begin to speak.
    pub(super) handshake: Duration,
    /// How long a connection lives before its client is told to make another one.
    pub(super) max_age: Duration,
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
    Tcp(TcpStream, SocketAddr),
    Unix(UnixStream),
}

/// Accepts connections until nobody takes them any more.
pub(super) fn incoming(
    tasks: &Tasks,
    name: &'static str,
    listener: Listener,
    terms: Terms,
    clients: Clients,
) -> ReceiverStream<io::Result<Connection>> {
    let (sender, receiver) = mpsc::channel(WAITING);
    let places = Places::new(terms.most, terms.most_of_one, clients);
    tasks.spawn_vital(name, accept(tasks.clone(), listener, terms, places, sender));
    ReceiverStream::new(receiver)
}

async fn accept(
    tasks: Tasks,
    listener: Listener,
    terms: Terms,
    places: Arc<Places>,
    sender: mpsc::Sender<io::Result<Connection>>,
) {
    let (mut refusals, mut crowds) = (Seldom::default(), Seldom::default());
    let failed = Arc::new(Mutex::new(Seldom::default()));
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = sender.closed() => return,
        };
        let accepted = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                if let Some(times) = refusals.is_due(Instant::now()) {
                    tracing::warn!(%error, times, "connections cannot be accepted");
                }
                sleep(BREATH).await;
                continue;
            }
        };
        let place = places.take(accepted.guest());
        if place.as_ref().is_none_or(|place| place.turned_away().is_some())
            && let Some(times) = crowds.is_due(Instant::now())
        {
            let (max_clients, of_one) = (terms.most, terms.most_of_one);
            tracing::warn!(times, max_clients, of_one, "clients are turned away: there are too many");
        }
        // Of those who are turned away there are too many as well: this one is not even told.
        let Some(place) = place else { continue };
        let tls = match &listener {
            Listener::Tcp(_, protocol, Some(tls)) => Some(tls.acceptor(*protocol)),
            _ => None,
        };
        let speaks_http2 = !matches!(listener, Listener::Tcp(_, Protocol::Http1, _));
        let (sender, failed) = (sender.clone(), failed.clone());
        // In a task of its own: nobody waits for somebody else's handshake.
        drop(tasks.spawn("connection", async move {
            match timeout(terms.handshake, meet(accepted, tls, place, terms.max_age)).await {
                Ok(Ok(connection)) => {
                    let connection = if speaks_http2 {
                        connection.speaking_by(Instant::now() + terms.handshake)
                    } else {
                        connection
                    };
                    // Whoever would have taken it may be gone.
                    drop(sender.send(Ok(connection)).await);
                }
                Ok(Err(error)) => {
                    tracing::debug!(%error, "a connection came to nothing");
                    let due = failed.lock().unwrap_or_else(PoisonError::into_inner).is_due(Instant::now());
                    if let Some(times) = due {
                        // A certificate of another authority is one reason; nobody is known who could be recorded.
                        tracing::info!(times, %error, "connections came to nothing before anything was asked");
                    }
                }
                Err(_) => tracing::debug!("a client took too long to agree on a key"),
            }
        }));
    }
}

/// Something that may happen without pause, and is told now and then.
#[derive(Debug, Default)]
struct Seldom {
    told: Option<Instant>,
    times: u64,
}

impl Seldom {
    /// It has happened: how often since it was told last, where it is to be told now.
    fn is_due(&mut self, now: Instant) -> Option<u64> {
        self.times += 1;
        let is_due = self.told.is_none_or(|told| now - told >= TOLD_EVERY);
        is_due.then(|| {
            self.told = Some(now);
            std::mem::take(&mut self.times)
        })
    }
}

/// Makes a connection of what was accepted.
async fn meet(
    accepted: Accepted,
    tls: Option<TlsAcceptor>,
    place: Place,
    max_age: Duration,
) -> io::Result<Connection> {
    let (stream, mut peer) = match (accepted, tls) {
        (Accepted::Tcp(stream, address), tls) => {
            stream.set_nodelay(true)?;
            let mut peer = Peer::at(Origin::Tcp(address));
            let stream = match tls {
                None => Stream::Tcp(stream),
                Some(acceptor) => {
                    let stream = acceptor.accept(stream).await?;
                    // The authorities have vouched for the first one.
                    let shown = stream.get_ref().1.peer_certificates().and_then(<[_]>::first);
                    peer.certificate = shown.map(tls::shown);
                    Stream::Tls(Box::new(stream))
                }
            };
            (stream, peer)
        }
        (Accepted::Unix(stream), _) => {
            let credentials = stream.peer_cred()?;
            let (uid, gid) = (credentials.uid(), credentials.gid());
            // The system's directory of users may be far away.
            let process = tokio::task::spawn_blocking(move || process(uid, gid)).await;
            let process = process.map_err(io::Error::other)?;
            let from = Origin::Unix(credentials.pid());
            (Stream::Unix(stream), Peer { process: Some(process), ..Peer::at(from) })
        }
    };
    peer.turned_away = place.turned_away();
    let left = life(&peer, max_age, Timestamp::now());
    Ok(Connection::new(stream, peer, place, Instant::now() + left))
}

/// How long a connection lives at most. One that a certificate was shown on does not outlive it: what its
/// holder has under way is seen by them no more.
fn life(peer: &Peer, max_age: Duration, now: Timestamp) -> Duration {
    if peer.turned_away.is_some() {
        return TURNED_AWAY;
    }
    let valid = peer.certificate.as_ref().map(|shown| now.duration_until(shown.ends));
    let valid = valid.map(|valid| valid.try_into().unwrap_or(Duration::ZERO));
    let most = max_age.saturating_add(GRACE);
    valid.map_or(most, |valid| most.min(valid))
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

impl Accepted {
    fn guest(&self) -> Guest {
        match self {
            Self::Tcp(_, from) => Guest::at(from.ip()),
            // Whom the system does not tell counts as nobody.
            Self::Unix(stream) => Guest::User(stream.peer_cred().map_or(u32::MAX, |it| it.uid())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::access::{Crowd, Shown};

    #[test]
    fn how_long_a_connection_lives() {
        let now: Timestamp = "2026-06-01T00:00:00Z".parse().expect("a time");
        let check = |turned_away, ends: Option<&str>, expected: u64| {
            let ends = ends.map(|text| text.parse().expect("a time"));
            let certificate = ends.map(|ends| Shown { names: [].into(), ends });
            let peer = Peer { certificate, turned_away, ..Peer::at(Origin::Unix(None)) };
            let left = life(&peer, Duration::from_hours(1), now);
            assert_eq!(left, Duration::from_secs(expected), "{peer:?}");
        };
        check(None, None, 4200);
        check(None, Some("2026-06-01T00:00:07Z"), 7);
        check(None, Some("2026-05-01T00:00:00Z"), 0);
        check(None, Some("2027-06-01T00:00:00Z"), 4200);
        check(Some(Crowd::OfOne(1)), Some("2027-06-01T00:00:00Z"), 5);
    }

    #[test]
    fn what_happens_without_pause_is_told_now_and_then() {
        let (mut seldom, now) = (Seldom::default(), Instant::now());
        let told = [0, 1, 59, 60, 61].map(|second| seldom.is_due(now + Duration::from_secs(second)));
        assert_eq!(told, [Some(1), None, None, Some(3), None]);
    }
}
