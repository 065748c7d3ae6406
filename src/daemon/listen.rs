//! The ports and the socket, bound before any other work.

use std::{
    io::ErrorKind,
    net::SocketAddr,
    os::unix::fs::{FileTypeExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
    sync::Arc,
};

use anyhow::{Context as _, bail};
use tokio::net::{TcpListener, UnixListener, UnixStream};

use crate::{
    config::ServerConfig,
    daemon::{
        accept::{Listener, Terms, incoming},
        grpc::{Connections, Incoming},
        tls::{Protocol, Tls},
    },
    runtime::Tasks,
    telemetry::Metrics,
};

/// Everything that the daemon listens on.
pub(super) struct Listeners {
    grpc: TcpListener,
    http: TcpListener,
    socket: Option<UnixListener>,
    addresses: Addresses,
}

/// Where the daemon listens.
#[derive(Debug, Clone)]
pub(super) struct Addresses {
    pub(super) grpc: SocketAddr,
    pub(super) http: SocketAddr,
    socket: Option<PathBuf>,
}

impl Listeners {
    pub(super) async fn bind(config: &ServerConfig) -> anyhow::Result<Self> {
        let bind = async |address: SocketAddr, what: &str| {
            let bound = TcpListener::bind(address).await;
            bound.with_context(|| format!("cannot listen on {address} for {what}"))
        };
        let grpc = bind(config.grpc, "gRPC").await?;
        let http = bind(config.http, "HTTP").await?;
        let socket = match &config.socket {
            Some(path) => Some(bind_socket(path).await?),
            None => None,
        };
        let addresses = Addresses {
            grpc: grpc.local_addr().context("the gRPC port has no address")?,
            http: http.local_addr().context("the HTTP port has no address")?,
            socket: config.socket.clone(),
        };
        Ok(Self { grpc, http, socket, addresses })
    }

    /// Begins to accept connections: those for HTTP, and those for gRPC.
    pub(super) fn accept(
        self,
        tasks: &Tasks,
        tls: Option<&Arc<Tls>>,
        terms: Terms,
        metrics: &Metrics,
    ) -> (Addresses, Connections, Incoming) {
        let port = |listener, protocol| Listener::Tcp(listener, protocol, tls.cloned());
        let http =
            incoming(tasks, "accept-http", port(self.http, Protocol::Http1), terms, metrics.clients("http"));
        let unix = self.socket.map(|socket| {
            incoming(tasks, "accept-socket", Listener::Unix(socket), terms, metrics.clients("socket"))
        });
        let tcp =
            incoming(tasks, "accept-grpc", port(self.grpc, Protocol::Http2), terms, metrics.clients("grpc"));
        (self.addresses, http, Incoming { tcp, unix })
    }
}

impl Addresses {
    /// Removes the socket's file.
    pub(super) fn clean_up(&self) {
        if let Some(path) = &self.socket
            && let Err(error) = std::fs::remove_file(path)
        {
            tracing::warn!(path = %path.display(), %error, "the socket could not be removed");
        }
    }
}

/// Binds a socket that its user and group may use. One that a dead daemon left is replaced; one
/// that somebody answers on is not.
async fn bind_socket(path: &Path) -> anyhow::Result<UnixListener> {
    let left_over = std::fs::symlink_metadata(path).is_ok_and(|file| file.file_type().is_socket());
    if left_over {
        match UnixStream::connect(path).await {
            Err(error) if error.kind() == ErrorKind::ConnectionRefused => {
                std::fs::remove_file(path).with_context(|| format!("cannot replace {}", path.display()))?;
            }
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Ok(_) => bail!("cannot listen on {}: another process answers there", path.display()),
            // One that has more to do than it can accept says so, and lives.
            Err(error) => {
                bail!("cannot listen on {}: another process may answer there: {error}", path.display())
            }
        }
    }
    let listener =
        UnixListener::bind(path).with_context(|| format!("cannot listen on {}", path.display()))?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o660))
        .with_context(|| format!("cannot set the mode of {}", path.display()))?;
    Ok(listener)
}

#[cfg(test)]
mod tests {
    use tokio::net::UnixSocket;

    use super::*;

    #[tokio::test]
    async fn only_a_dead_socket_is_replaced() {
        let home = tempfile::tempdir().expect("a directory is made");
        let path = home.path().join("nexusd.sock");
        let alive = bind_socket(&path).await.expect("nothing is there");
        let refusal = bind_socket(&path).await.expect_err("somebody answers").to_string();
        assert!(refusal.contains("another process answers there"), "{refusal}");
        drop(alive);
        drop(bind_socket(&path).await.expect("it was left by somebody"));
        std::fs::remove_file(&path).expect("it is removed");

        let busy = UnixSocket::new_stream().expect("a socket");
        busy.bind(&path).expect("nothing is there");
        let busy = busy.listen(1).expect("it listens");
        // Nobody accepts them.
        let mut waiting = Vec::new();
        while let Ok(stream) = UnixStream::connect(&path).await {
            waiting.push(stream);
        }
        let refusal = bind_socket(&path).await.expect_err("it is busy").to_string();
        assert!(refusal.contains("another process may answer there"), "{refusal}");
        drop(busy);
        drop(bind_socket(&path).await.expect("it was left by somebody"));
    }
}
