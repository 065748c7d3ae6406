//! PURE: who may do what. Who asks is a [`Caller`]; what is given to them are [`Grant`]s, each a role on
//! some databases; [`rule`] is the one table that says which role an RPC takes. The three together are
//! a [`Permit`]: it goes with the request, and is asked where its databases are resolved.
//!
//! [`admit::admit`] is the one place where a request is let in, whatever it came by.
//!
//! What is not granted is denied. What a caller may not even read does not exist for them.

use std::{fmt, net::SocketAddr};

pub mod admit;
pub mod grant;
pub mod identity;
pub mod permit;
pub mod rule;

pub use grant::Grant;
pub use identity::{Authenticate, By, Crowd, Identities, Identity, Peer, Process, San, Shown};
pub use permit::Permit;
pub use rule::{Rule, Scope};

/// What somebody may do. Each role may do what those before it may.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Role {
    /// Read.
    Viewer,
    /// Apply, recover, roll back some steps, and steer operations.
    Operator,
    /// Everything: repair, roll back any number of steps, have the configuration read anew.
    Admin,
}

impl Role {
    /// Every role, the least first.
    pub const ALL: [Self; 3] = [Self::Viewer, Self::Operator, Self::Admin];

    /// Its name, as it is written and told.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Viewer => "viewer",
            Self::Operator => "operator",
            Self::Admin => "admin",
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Who asks, how that is known, and from where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Caller {
    /// Their name, as the proof has it. Where there is no proof it is what they say of themselves, and
    /// may be empty.
    pub name: String,
    /// How the name is known.
    pub proof: Proof,
    /// Where they are.
    pub from: Origin,
}

/// How it is known who asks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Proof {
    /// It is not: whoever reaches the loopback address is let in.
    None,
    /// The kernel says so of the process at the other end of the Unix socket.
    Peer {
        /// Its effective user.
        uid: u32,
        /// Its effective group.
        gid: u32,
    },
    /// They have a token.
    Token {
        /// The first digits of its SHA-256: enough to find it in the file of tokens.
        id: String,
    },
    /// They have the key of a certificate.
    Certificate {
        /// The name of the certificate that was known, such as `dns:deploy.example.com`.
        san: String,
    },
    /// It is the daemon itself, by its schedules.
    Daemon,
}

/// Where a caller is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    /// At the other end of a TCP connection.
    Tcp(SocketAddr),
    /// At the other end of the Unix socket: the process, where the system knows it.
    Unix(Option<i32>),
    /// In the daemon.
    Daemon,
}

impl Caller {
    /// The daemon, which does by itself what its configuration says.
    pub fn daemon() -> Self {
        Self { name: "nexusd".to_owned(), proof: Proof::Daemon, from: Origin::Daemon }
    }

    /// Whether the name is more than what they say of themselves.
    pub fn is_proven(&self) -> bool {
        self.proof != Proof::None
    }

    /// What tells them from everybody else. Two ways to show the same name may be two people.
    pub fn identity(&self) -> String {
        format!("{} {}", self.proof.method(), self.name)
    }

    /// The same with the name that counts: where nothing is proven, what they say of themselves.
    #[must_use]
    pub fn called(self, claimed: &str) -> Self {
        if self.is_proven() { self } else { Self { name: claimed.to_owned(), ..self } }
    }
}

impl fmt::Display for Caller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = if self.name.is_empty() { "somebody" } else { &self.name };
        write!(f, "{name} ({}, from {})", self.proof, self.from)
    }
}

impl Proof {
    /// The method, in a word.
    pub fn method(&self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Peer { .. } => "unix",
            Self::Token { .. } => "token",
            Self::Certificate { .. } => "certificate",
            Self::Daemon => "daemon",
        }
    }
}

impl fmt::Display for Proof {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::None | Self::Daemon => f.write_str(self.method()),
            Self::Peer { uid, gid } => write!(f, "unix uid={uid} gid={gid}"),
            Self::Token { id } => write!(f, "token {id}"),
            Self::Certificate { san } => write!(f, "certificate {san}"),
        }
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(f),
            Self::Unix(Some(pid)) => write!(f, "the Unix socket, pid {pid}"),
            Self::Unix(None) => f.write_str("the Unix socket"),
            Self::Daemon => f.write_str("the daemon"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn roles_are_ordered() {
        assert!(Role::Viewer < Role::Operator && Role::Operator < Role::Admin);
        assert!(Role::ALL.is_sorted());
    }

    #[test]
    fn only_a_name_that_is_not_proven_is_taken_from_the_request() {
        let from = Origin::Tcp(SocketAddr::from(([127, 0, 0, 1], 4711)));
        let caller = |name: &str, proof| Caller { name: name.into(), proof, from }.called("eve@host");
        assert_eq!(caller("", Proof::None).to_string(), "eve@host (none, from 127.0.0.1:4711)");
        let token = Proof::Token { id: "1a2b3c4d".into() };
        assert_eq!(caller("ci", token).to_string(), "ci (token 1a2b3c4d, from 127.0.0.1:4711)");
    }
}
