//! A proxy before PostgreSQL that counts round trips (how often the client speaks after the
//! server), and that can cut a connection around a message.

use std::{
    io::{Read as _, Write as _},
    net::{Shutdown, TcpListener, TcpStream},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread,
};

/// The proxy, for one server. Its threads end with the connections.
pub(crate) struct Proxy {
    port: u16,
    trips: Arc<AtomicUsize>,
    watched: Watched,
    cut: Arc<Mutex<Option<Cut>>>,
}

/// What the monitor has sent, which looks whenever it wants: it is kept apart from the operations'.
type Watched = Arc<Mutex<Vec<String>>>;

/// Where a connection is cut, once.
#[derive(Debug, Clone)]
pub(crate) struct Cut {
    /// The message of the client's that holds this text.
    pub(crate) at: &'static str,
    /// Whether the server still gets it; its answer is lost in either case.
    pub(crate) delivered: bool,
}

impl Proxy {
    pub(crate) fn to(server_port: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port is bound");
        let port = listener.local_addr().expect("it has an address").port();
        let trips = Arc::new(AtomicUsize::new(0));
        let cut = Arc::new(Mutex::new(None));
        let watched = Watched::default();
        let (counted, cuts, looks) = (trips.clone(), cut.clone(), watched.clone());
        drop(thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                let server = TcpStream::connect(("127.0.0.1", server_port)).expect("the server answers");
                relay(client, server, counted.clone(), looks.clone(), cuts.clone());
            }
        }));
        Self { port, trips, watched, cut }
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// Cuts the next connection that sends such a message.
    pub(crate) fn cut(&self, cut: Cut) {
        *self.cut.lock().expect("no test panicked with it") = Some(cut);
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

fn relay(
    client: TcpStream,
    server: TcpStream,
    trips: Arc<AtomicUsize>,
    watched: Watched,
    cut: Arc<Mutex<Option<Cut>>>,
) {
    let server_spoke = Arc::new(AtomicBool::new(true));
    let deaf = Arc::new(AtomicBool::new(false));
    let (from_client, to_client) = (client.try_clone().expect("a socket"), client);
    let (from_server, to_server) = (server.try_clone().expect("a socket"), server);
    let (spoke, cutting) = (server_spoke.clone(), deaf.clone());
    drop(thread::spawn(move || {
        // Whose the connection is, its start-up message tells, which is the first or the second.
        let (mut is_known, mut is_watch, mut before) = (false, false, 0);
        copy(from_client, to_server, |bytes| {
            let text = String::from_utf8_lossy(bytes);
            if !is_known && text.contains("user\0") {
                (is_known, is_watch) = (true, text.contains("nexusd watch"));
            }
            // A Terminate message is answered by nobody.
            if bytes.first() != Some(&b'X') && spoke.swap(false, Ordering::SeqCst) {
                match (is_known, is_watch) {
                    (false, _) => before += 1,
                    (true, false) => drop(trips.fetch_add(1 + std::mem::take(&mut before), Ordering::SeqCst)),
                    (true, true) => {
                        watched.lock().expect("no test panicked with it").push(text.clone().into_owned());
                    }
                }
            }
            let mut cut = cut.lock().expect("no test panicked with it");
            match cut.take_if(|cut| !is_watch && text.contains(cut.at)) {
                Some(Cut { delivered, .. }) => {
                    cutting.store(true, Ordering::SeqCst);
                    if delivered { Then::Deliver } else { Then::Drop }
                }
                None => Then::Deliver,
            }
        });
    }));
    drop(thread::spawn(move || {
        copy(from_server, to_client, |_| {
            server_spoke.store(true, Ordering::SeqCst);
            if deaf.load(Ordering::SeqCst) { Then::Drop } else { Then::Deliver }
        });
    }));
}

/// What becomes of some bytes.
enum Then {
    Deliver,
    /// They are lost, and the connection ends.
    Drop,
}

fn copy(mut from: TcpStream, mut to: TcpStream, mut seen: impl FnMut(&[u8]) -> Then) {
    let mut buffer = vec![0; 1 << 20];
    while let Ok(count) = from.read(&mut buffer) {
        if count == 0
            || matches!(seen(&buffer[..count]), Then::Drop)
            || to.write_all(&buffer[..count]).is_err()
        {
            break;
        }
    }
    // The other side may be gone already.
    let _ = to.shutdown(Shutdown::Both);
    let _ = from.shutdown(Shutdown::Both);
}
