//! Servers that tests run beside the daemon, and how their pages are read.

use std::process::Child;

/// A page of an HTTP server: status and body; `None` where nothing answers.
pub(crate) fn http_get(address: &str, path: &str) -> Option<(u16, String)> {
    use std::io::{Read as _, Write as _};
    let mut stream = std::net::TcpStream::connect(address).ok()?;
    // HTTP/1.0 has no chunks: what follows the head is the body.
    write!(stream, "GET {path} HTTP/1.0\r\nHost: nexus\r\n\r\n").ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    let (head, body) = answer.split_once("\r\n\r\n")?;
    Some((head.split(' ').nth(1)?.parse().ok()?, body.to_owned()))
}

/// A port of loopback that nobody listens on.
pub(crate) fn free_port() -> u16 {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port is bound");
    listener.local_addr().expect("it has an address").port()
}

/// Another server that a test runs; it ends with the test.
pub(crate) struct Server(pub(crate) Child);

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended; then there is nothing to do.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
