//! A proxy before PostgreSQL that counts round trips (how often the client speaks after the
//! server), and that can harm a connection at a message: cut it, swallow what goes over it, be slow.

use std::{
    io::{Read as _, Write as _},
    net::{Shutdown, TcpListener, TcpStream},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, Weak,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread,
    time::Duration,
};

/// The proxy, for one server. Its threads end with the connections, those that went silent with it.
pub(crate) struct Proxy {
    port: u16,
    trips: Arc<AtomicUsize>,
    watched: Watched,
    harm: Arc<Mutex<Option<Harm>>>,
    /// What holds on to connections that went silent.
    _silent: Arc<()>,
}

/// What the monitor has sent, which looks whenever it wants: it is kept apart from the operations'.
type Watched = Arc<Mutex<Vec<String>>>;

/// What is done to a connection, once.
#[derive(Debug, Clone)]
pub(crate) struct Harm {
    /// At the message of the client's that holds all of these texts.
    pub(crate) at: &'static [&'static str],
    /// What.
    pub(crate) how: How,
}

/// How a connection is harmed at a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum How {
    /// The server does not get it, and the connection ends.
    CutBefore,
    /// The server gets it; its answer is lost, and the connection ends.
    CutAfter,
    /// From before it on nothing arrives any more, either way, and nobody is told.
    SilentBefore,
    /// From behind it on.
    SilentAfter,
    /// It takes this long.
    Slow(Duration),
}

impl Proxy {
    pub(crate) fn to(server_port: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port is bound");
        let port = listener.local_addr().expect("it has an address").port();
        let trips = Arc::new(AtomicUsize::new(0));
        let harm = Arc::new(Mutex::new(None));
        let (watched, silent) = (Watched::default(), Arc::new(()));
        let beside = (trips.clone(), watched.clone(), harm.clone(), Arc::downgrade(&silent));
        drop(thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                // Where the server is away, so is whoever stands before it.
                let Ok(server) = TcpStream::connect(("127.0.0.1", server_port)) else { continue };
                relay(client, server, beside.clone());
            }
        }));
        Self { port, trips, watched, harm, _silent: silent }
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// Harms the next connection that sends such a message.
    pub(crate) fn harm(&self, harm: Harm) {
        *of(&self.harm) = Some(harm);
    }

    /// Whether the harm is done.
    pub(crate) fn has_harmed(&self) -> bool {
        of(&self.harm).is_none()
    }

    /// The round trips since the last call.
    pub(crate) fn take(&self) -> usize {
        self.trips.swap(0, Ordering::SeqCst)
    }

    /// What the monitor has sent since the last call, a text for each round trip.
    pub(crate) fn take_watched(&self) -> Vec<String> {
        std::mem::take(&mut *self.watched.lock().expect("no test panicked with it"))
    }
}

/// What all connections share: the round trips, what the monitor sent, the harm, the proxy's life.
type Beside = (Arc<AtomicUsize>, Watched, Arc<Mutex<Option<Harm>>>, Weak<()>);

fn of<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What becomes of some bytes, and of those after them.
#[derive(Clone, Copy, PartialEq)]
enum Then {
    Deliver,
    /// They are lost, and the connection ends.
    End,
    /// They are lost, and nobody is told.
    Swallow,
}

fn relay(client: TcpStream, server: TcpStream, (trips, watched, harm, life): Beside) {
    let server_spoke = Arc::new(AtomicBool::new(true));
    // What becomes of the server's answers.
    let answers = Arc::new(Mutex::new(Then::Deliver));
    let (from_client, to_client) = (client.try_clone().expect("a socket"), client);
    let (from_server, to_server) = (server.try_clone().expect("a socket"), server);
    let (spoke, harmed, other_life) = (server_spoke.clone(), answers.clone(), life.clone());
    drop(thread::spawn(move || {
        // Whose the connection is, its start-up message tells, which is the first or the second.
        let (mut is_known, mut is_watch, mut before) = (false, false, 0);
        // The rest, after a message that was the last to arrive.
        let mut rest = Then::Deliver;
        copy(from_client, to_server, &life, |bytes| {
            let text = String::from_utf8_lossy(bytes);
            if !is_known && text.contains("user\0") {
                (is_known, is_watch) = (true, text.contains("nexusd watch"));
            }
            // A Terminate message is answered by nobody.
            if bytes.first() != Some(&b'X') && spoke.swap(false, Ordering::SeqCst) {
                match (is_known, is_watch) {
                    (false, _) => before += 1,
                    (true, false) => drop(trips.fetch_add(1 + std::mem::take(&mut before), Ordering::SeqCst)),
                    (true, true) => of(&watched).push(text.clone().into_owned()),
                }
            }
            if rest != Then::Deliver {
                return rest;
            }
            let meant = |harm: &mut Harm| !is_watch && harm.at.iter().all(|part| text.contains(part));
            let Some(Harm { how, .. }) = of(&harm).take_if(meant) else { return Then::Deliver };
            let (now, later) = match how {
                How::CutBefore => (Then::End, Then::End),
                How::CutAfter => (Then::Deliver, Then::End),
                How::SilentBefore => (Then::Swallow, Then::Swallow),
                How::SilentAfter => (Then::Deliver, Then::Swallow),
                How::Slow(time) => {
                    thread::sleep(time);
                    (Then::Deliver, Then::Deliver)
                }
            };
            *of(&harmed) = later;
            // After a cut the server's answer ends the connection.
            if later == Then::Swallow {
                rest = later;
            }
            now
        });
    }));
    drop(thread::spawn(move || {
        copy(from_server, to_client, &other_life, |_| {
            server_spoke.store(true, Ordering::SeqCst);
            *of(&answers)
        });
    }));
}

fn copy(mut from: TcpStream, mut to: TcpStream, life: &Weak<()>, mut seen: impl FnMut(&[u8]) -> Then) {
    let mut buffer = vec![0; 1 << 20];
    let mut is_silent = false;
    while let Ok(count) = from.read(&mut buffer) {
        let then = if count == 0 { Then::End } else { seen(&buffer[..count]) };
        is_silent |= then == Then::Swallow;
        match then {
            Then::Deliver if to.write_all(&buffer[..count]).is_ok() => {}
            Then::Swallow => {}
            Then::Deliver | Then::End => break,
        }
    }
    // Whom nobody tells, does not hear of the other's end either.
    while is_silent && life.strong_count() > 0 {
        thread::sleep(Duration::from_millis(50));
    }
    // The other side may be gone already.
    let _ = to.shutdown(Shutdown::Both);
    let _ = from.shutdown(Shutdown::Both);
}
