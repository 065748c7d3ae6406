//! A proxy before PostgreSQL that counts round trips: how often the client speaks after the server.

use std::{
    io::{Read as _, Write as _},
    net::{Shutdown, TcpListener, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread,
};

/// The proxy, for one server. Its threads end with the connections.
pub(crate) struct Proxy {
    port: u16,
    trips: Arc<AtomicUsize>,
}

impl Proxy {
    pub(crate) fn to(server_port: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port is bound");
        let port = listener.local_addr().expect("it has an address").port();
        let trips = Arc::new(AtomicUsize::new(0));
        let counted = trips.clone();
        drop(thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                let server = TcpStream::connect(("127.0.0.1", server_port)).expect("the server answers");
                relay(client, server, counted.clone());
            }
        }));
        Self { port, trips }
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// The round trips since the last call.
    pub(crate) fn take(&self) -> usize {
        self.trips.swap(0, Ordering::SeqCst)
    }
}

fn relay(client: TcpStream, server: TcpStream, trips: Arc<AtomicUsize>) {
    let server_spoke = Arc::new(AtomicBool::new(true));
    let (from_client, to_client) = (client.try_clone().expect("a socket"), client);
    let (from_server, to_server) = (server.try_clone().expect("a socket"), server);
    let spoke = server_spoke.clone();
    drop(thread::spawn(move || {
        copy(from_client, to_server, |bytes| {
            // A Terminate message is answered by nobody.
            if bytes.first() != Some(&b'X') && spoke.swap(false, Ordering::SeqCst) {
                trips.fetch_add(1, Ordering::SeqCst);
            }
        });
    }));
    drop(thread::spawn(move || copy(from_server, to_client, |_| server_spoke.store(true, Ordering::SeqCst))));
}

fn copy(mut from: TcpStream, mut to: TcpStream, seen: impl Fn(&[u8])) {
    let mut buffer = vec![0; 1 << 20];
    while let Ok(count) = from.read(&mut buffer) {
        if count == 0 {
            break;
        }
        seen(&buffer[..count]);
        if to.write_all(&buffer[..count]).is_err() {
            break;
        }
    }
    // The other side may be gone already.
    let _ = to.shutdown(Shutdown::Both);
}
