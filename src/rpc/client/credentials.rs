//! What a client shows to a daemon: that it trusts it, and who asks.

use std::net::IpAddr;

use tonic::{
    metadata::AsciiMetadataValue,
    transport::{Certificate, ClientTlsConfig, Endpoint, Identity},
};

use crate::{
    redact::{ExposeSecret as _, SecretString},
    rpc::client::{Address, ClientError, innermost},
};

/// What a client shows, and whom it trusts. Nothing of it is shown by `Debug`.
#[derive(Default)]
pub struct Credentials {
    /// The authorities of the daemon's certificate, in PEM; `None`: those that the system trusts.
    pub authorities: Option<Vec<u8>>,
    /// The client's own certificate and its key, in PEM.
    pub certificate: Option<(Vec<u8>, SecretString)>,
    /// A token.
    pub token: Option<SecretString>,
}

impl Credentials {
    /// The endpoint, with TLS where the address asks for it.
    pub(super) fn secure(&self, endpoint: Endpoint, address: &Address) -> Result<Endpoint, ClientError> {
        if !address.is_tls() {
            return Ok(endpoint);
        }
        let mut tls = ClientTlsConfig::new();
        tls = match &self.authorities {
            Some(authorities) => tls.ca_certificate(Certificate::from_pem(authorities)),
            None => tls.with_enabled_roots(),
        };
        if let Some((certificate, key)) = &self.certificate {
            tls = tls.identity(Identity::from_pem(certificate, key.expose_secret()));
        }
        endpoint.tls_config(tls).map_err(|error| ClientError::Credentials { reason: innermost(&error) })
    }

    /// The token as a header. It is not sent where somebody could read it on its way.
    pub(super) fn authorization(&self, address: &Address) -> Result<Option<AsciiMetadataValue>, ClientError> {
        let Some(token) = &self.token else { return Ok(None) };
        if !address.is_private() {
            return Err(ClientError::InTheClear { address: address.clone() });
        }
        let header = format!("Bearer {}", token.expose_secret());
        let mut header: AsciiMetadataValue = header.parse().map_err(|_| ClientError::Credentials {
            reason: "the token is not one line of ASCII".to_owned(),
        })?;
        header.set_sensitive(true);
        Ok(Some(header))
    }
}

/// Whether a host is this machine.
pub(super) fn is_loopback(host: &str) -> bool {
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    host == "localhost" || bare.parse().is_ok_and(|address: IpAddr| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_not_sent_in_the_clear() {
        let credentials = Credentials { token: Some("nexus_x".to_owned().into()), ..Credentials::default() };
        let check = |address: &str, expected: bool| {
            let address: Address = address.parse().expect("an address");
            let header = credentials.authorization(&address);
            assert_eq!(header.is_ok(), expected, "{address}");
            let shown = format!("{header:?}");
            assert!(!shown.contains("nexus_x"), "{shown}");
        };
        check("https://nexus.example.com", true);
        check("http://127.0.0.1:7421", true);
        check("http://[::1]:7421", true);
        check("localhost:7421", true);
        check("unix:/run/nexus.sock", true);
        check("http://nexus.example.com", false);
        check("10.0.0.1:7421", false);
        check("localhost.example.com:7421", false);
    }
}
