//! The certificate that the daemon shows, and the authorities of its clients' certificates. They are read
//! anew when their files change: whoever connects from then on sees the new ones, and nobody who is
//! connected notices.

use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::{Arc, PoisonError, RwLock},
};

use rustls::{
    Error, RootCertStore, ServerConfig,
    crypto::ring,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _},
    server::{NoServerSessionStorage, VerifierBuilderError, WebPkiClientVerifier},
};
use tokio_rustls::TlsAcceptor;
use x509_cert::{
    Certificate,
    der::Decode as _,
    ext::pkix::{SubjectAltName, name::GeneralName},
};

use crate::{access::San, config, redact::refuse_others};

/// Why the files of `[server]` cannot be used.
#[derive(Debug, thiserror::Error)]
pub(super) enum TlsError {
    /// One of them is not what it should be.
    #[error("[server] {key}: cannot use {}", path.display())]
    File {
        /// The setting.
        key: &'static str,
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: io::Error,
    },
    /// The key is another certificate's, or of a kind that cannot be used.
    #[error("[server] tls_cert and tls_key do not go together")]
    Pair(#[source] Error),
    /// None of the authorities can be used.
    #[error("[server] tls_client_ca: cannot use {}", .0.display())]
    Authorities(PathBuf, #[source] VerifierBuilderError),
}

/// What is spoken over a connection.
#[derive(Debug, Clone, Copy)]
pub(super) enum Protocol {
    /// gRPC.
    Http2,
    /// The pages for monitoring.
    Http1,
}

/// The files of `[server]`.
#[derive(Debug, Clone)]
struct Files {
    certificate: PathBuf,
    key: PathBuf,
    authorities: Option<PathBuf>,
}

/// What is in them.
#[derive(PartialEq, Eq)]
struct Texts {
    certificate: Vec<u8>,
    key: Vec<u8>,
    authorities: Option<Vec<u8>>,
}

/// What connections are accepted with.
struct Current {
    texts: Texts,
    http2: Arc<ServerConfig>,
    http1: Arc<ServerConfig>,
}

/// TLS towards clients.
pub(super) struct Tls {
    files: Files,
    current: RwLock<Current>,
}

impl Tls {
    /// TLS with the files of the configuration; `None` where it names none.
    pub(super) fn load(server: &config::ServerConfig) -> Result<Option<Arc<Self>>, TlsError> {
        let (Some(certificate), Some(key)) = (&server.tls_cert, &server.tls_key) else { return Ok(None) };
        let files = Files {
            certificate: certificate.clone(),
            key: key.clone(),
            authorities: server.tls_client_ca.clone(),
        };
        let current = files.current(files.texts()?)?;
        Ok(Some(Arc::new(Self { files, current: RwLock::new(current) })))
    }

    /// The files.
    pub(super) fn files(&self) -> impl Iterator<Item = PathBuf> {
        let Files { certificate, key, authorities } = self.files.clone();
        [certificate, key].into_iter().chain(authorities)
    }

    /// Whether clients may show certificates.
    pub(super) fn asks_for_certificates(&self) -> bool {
        self.files.authorities.is_some()
    }

    /// Reads the files anew; says whether they are others. What is wrong with them changes nothing.
    pub(super) fn reload(&self) -> Result<bool, TlsError> {
        let texts = self.files.texts()?;
        if self.current.read().unwrap_or_else(PoisonError::into_inner).texts == texts {
            return Ok(false);
        }
        let current = self.files.current(texts)?;
        *self.current.write().unwrap_or_else(PoisonError::into_inner) = current;
        Ok(true)
    }

    /// What a new connection is accepted with.
    pub(super) fn acceptor(&self, protocol: Protocol) -> TlsAcceptor {
        let current = self.current.read().unwrap_or_else(PoisonError::into_inner);
        let config = match protocol {
            Protocol::Http2 => &current.http2,
            Protocol::Http1 => &current.http1,
        };
        config.clone().into()
    }
}

impl Files {
    fn texts(&self) -> Result<Texts, TlsError> {
        let read = |key, path: &Path| {
            fs::read(path).map_err(|source| TlsError::File { key, path: path.to_owned(), source })
        };
        let fail = |source| TlsError::File { key: "tls_key", path: self.key.clone(), source };
        let metadata = fs::metadata(&self.key).map_err(fail)?;
        refuse_others(&self.key, &metadata).map_err(|wrong| fail(io::Error::other(wrong)))?;
        Ok(Texts {
            certificate: read("tls_cert", &self.certificate)?,
            key: read("tls_key", &self.key)?,
            authorities: self.authorities.as_deref().map(|path| read("tls_client_ca", path)).transpose()?,
        })
    }

    fn current(&self, texts: Texts) -> Result<Current, TlsError> {
        let provider = Arc::new(ring::default_provider());
        let builder = ServerConfig::builder_with_provider(provider.clone())
            .with_safe_default_protocol_versions()
            .map_err(TlsError::Pair)?;
        let builder = match (&self.authorities, &texts.authorities) {
            (Some(path), Some(text)) => {
                let mut roots = RootCertStore::empty();
                for certificate in certificates("tls_client_ca", path, text)? {
                    roots.add(certificate).map_err(|error| TlsError::File {
                        key: "tls_client_ca",
                        path: path.clone(),
                        source: io::Error::other(error),
                    })?;
                }
                // Who has none may have a token, or be a probe: what they may do is not decided here.
                let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider)
                    .allow_unauthenticated()
                    .build();
                builder.with_client_cert_verifier(
                    verifier.map_err(|source| TlsError::Authorities(path.clone(), source))?,
                )
            }
            _ => builder.with_no_client_auth(),
        };
        let key = PrivateKeyDer::from_pem_slice(&texts.key).map_err(|_| TlsError::File {
            key: "tls_key",
            path: self.key.clone(),
            // The parser's own words might quote the file.
            source: io::Error::other("it holds no private key in PEM"),
        })?;
        let chain = certificates("tls_cert", &self.certificate, &texts.certificate)?;
        let mut config = builder.with_single_cert(chain, key).map_err(TlsError::Pair)?;
        // A session that is resumed is not verified again: a certificate would outlive its end.
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.send_tls13_tickets = 0;
        let speaking = |protocol: &[u8]| {
            let mut config = config.clone();
            config.alpn_protocols = vec![protocol.to_vec()];
            Arc::new(config)
        };
        Ok(Current { texts, http2: speaking(b"h2"), http1: speaking(b"http/1.1") })
    }
}

fn certificates(
    key: &'static str,
    path: &Path,
    text: &[u8],
) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let fail = |source| TlsError::File { key, path: path.to_owned(), source };
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(text).collect();
    match found.map_err(|error| fail(io::Error::other(error)))? {
        found if found.is_empty() => Err(fail(io::Error::other("it holds no certificate in PEM"))),
        found => Ok(found),
    }
}

/// The names of a client's certificate that say who it is: DNS names, URIs and addresses of mail, in
/// their order. Its common name is no such name.
pub(super) fn names(certificate: &CertificateDer<'_>) -> Vec<San> {
    // What cannot be read names nobody.
    let Ok(certificate) = Certificate::from_der(certificate) else { return Vec::new() };
    let Ok(Some((_, SubjectAltName(names)))) = certificate.tbs_certificate.get::<SubjectAltName>() else {
        return Vec::new();
    };
    let name = |name: GeneralName| {
        San::parse(&match name {
            GeneralName::DnsName(name) => format!("dns:{name}"),
            GeneralName::UniformResourceIdentifier(uri) => format!("uri:{uri}"),
            GeneralName::Rfc822Name(address) => format!("email:{address}"),
            _ => return None,
        })
    };
    names.into_iter().filter_map(name).collect()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use rcgen::{CertificateParams, KeyPair, SanType};

    use super::*;

    fn pair(names: &[&str]) -> (rcgen::Certificate, KeyPair) {
        let key = KeyPair::generate().expect("a key is made");
        let params = CertificateParams::new(names.iter().map(|&name| name.to_owned()).collect::<Vec<_>>());
        (params.expect("names").self_signed(&key).expect("it is signed"), key)
    }

    #[test]
    fn names_of_a_certificate() {
        let key = KeyPair::generate().expect("a key is made");
        let mut params = CertificateParams::new(vec!["CI.example.com".to_owned()]).expect("names");
        let text = |text: &str| text.try_into().expect("it is ASCII");
        params.subject_alt_names.extend([
            SanType::URI(text("spiffe://example.com/ci")),
            SanType::Rfc822Name(text("ana@example.com")),
            SanType::IpAddress(std::net::IpAddr::from([10, 0, 0, 1])),
        ]);
        let certificate = params.self_signed(&key).expect("it is signed");
        let names: Vec<_> = names(certificate.der()).iter().map(ToString::to_string).collect();
        assert_eq!(names, ["dns:ci.example.com", "uri:spiffe://example.com/ci", "email:ana@example.com"]);
        assert_eq!(super::names(&CertificateDer::from_slice(b"none")), []);
        assert_eq!(super::names(pair(&[]).0.der()), []);
    }

    #[test]
    fn files_are_read_anew_and_what_is_wrong_with_them_changes_nothing() {
        let home = tempfile::tempdir().expect("a directory is made");
        let path = |name: &str| home.path().join(name);
        let write = |(certificate, key): &(rcgen::Certificate, KeyPair)| {
            fs::write(path("cert"), certificate.pem()).expect("it is written");
            fs::write(path("key"), key.serialize_pem()).expect("it is written");
            fs::set_permissions(path("key"), fs::Permissions::from_mode(0o600)).expect("it is set");
        };
        let (first, second) = (pair(&["a"]), pair(&["a"]));
        write(&first);
        let server = config::ServerConfig {
            tls_cert: Some(path("cert")),
            tls_key: Some(path("key")),
            ..config::ServerConfig::default()
        };
        let tls = Tls::load(&server).expect("it is loaded").expect("there is a certificate");
        assert!(!tls.reload().expect("it is well"));
        // The certificate is there before its key.
        fs::write(path("cert"), second.0.pem()).expect("it is written");
        let refusal = tls.reload().expect_err("they are of two pairs");
        assert_eq!(refusal.to_string(), "[server] tls_cert and tls_key do not go together");
        write(&second);
        assert!(tls.reload().expect("it is well"));
        let said = |text: &str| {
            fs::write(path("key"), text).expect("it is written");
            format!("{:#}", anyhow::Error::new(tls.reload().expect_err("it is refused")))
        };
        let refusal = said("hunter2");
        assert!(refusal.ends_with("it holds no private key in PEM"), "{refusal}");
        fs::set_permissions(path("key"), fs::Permissions::from_mode(0o644)).expect("it is set");
        let refusal = said(&second.1.serialize_pem());
        assert!(refusal.contains("tls_key") && refusal.contains("chmod 600"), "{refusal}");
        assert!(Tls::load(&config::ServerConfig::default()).expect("nothing is named").is_none());
    }
}
