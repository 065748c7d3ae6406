//! Where a daemon is.

use std::{fmt, str::FromStr};

use crate::rpc::client::credentials::is_loopback;

/// Where `nexusd` listens unless its configuration says otherwise.
pub const DEFAULT_ADDRESS: &str = "http://127.0.0.1:7421";

/// The port of [`DEFAULT_ADDRESS`].
const DEFAULT_PORT: u16 = 7421;

/// Where a daemon is: `host:port`, `http://host:port`, `https://host:port` or `unix:/path`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Address(String);

/// Why a text is not an address.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AddressError {
    /// Neither form fits.
    #[error("expected host:port, https://host:port, http://host:port or unix:/path")]
    Form,
    /// The socket's path is missing.
    #[error("the path after unix: is missing")]
    NoPath,
}

impl FromStr for Address {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        if let Some(path) = text.strip_prefix("unix:") {
            let path = path.strip_prefix("//").unwrap_or(path);
            return if path.is_empty() {
                Err(AddressError::NoPath)
            } else {
                Ok(Self(format!("unix:{path}")))
            };
        }
        let (scheme, rest) = match text.strip_prefix("https://") {
            Some(rest) => ("https", rest),
            None => ("http", text.strip_prefix("http://").unwrap_or(text)),
        };
        let authority = rest.trim_end_matches('/');
        let parsed: http::uri::Authority = authority.parse().map_err(|_| AddressError::Form)?;
        // A user before the host leaves no port where one is looked for, and is refused with it.
        let host = parsed.host();
        let port = match authority.strip_prefix(host).ok_or(AddressError::Form)? {
            "" => DEFAULT_PORT,
            rest => rest.strip_prefix(':').and_then(|port| port.parse().ok()).unwrap_or(0),
        };
        if host.is_empty() || port == 0 {
            return Err(AddressError::Form);
        }
        Ok(Self(format!("{scheme}://{host}:{port}")))
    }
}

impl Address {
    /// Whether TLS is spoken there.
    pub fn is_tls(&self) -> bool {
        self.0.starts_with("https://")
    }

    /// Whether nobody on the way could read what is said: by TLS, or as it does not leave the machine.
    pub fn is_private(&self) -> bool {
        let host = self.0.strip_prefix("http://").and_then(|authority| authority.rsplit_once(':'));
        host.is_none_or(|(host, _)| is_loopback(host))
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses() {
        let check = |text: &str, expected: Result<&str, AddressError>| {
            let read = text.parse::<Address>().map(|address| address.0);
            assert_eq!(read.as_deref().map_err(Clone::clone), expected, "{text:?}");
        };
        check("127.0.0.1:7421", Ok("http://127.0.0.1:7421"));
        check("http://localhost:80/", Ok("http://localhost:80"));
        check("db-1", Ok("http://db-1:7421"));
        check("[::1]:7421", Ok("http://[::1]:7421"));
        check("unix:/run/nexus.sock", Ok("unix:/run/nexus.sock"));
        check("unix:///run/nexus.sock", Ok("unix:/run/nexus.sock"));
        check("unix:", Err(AddressError::NoPath));
        check("https://nexus.example.com", Ok("https://nexus.example.com:7421"));
        check("https://[::1]:443/", Ok("https://[::1]:443"));
        for wrong in ["", "http://", "host:port", "host:99999", "host:0", "host:", "user@host:1", "host/path"]
        {
            check(wrong, Err(AddressError::Form));
        }
    }
}
