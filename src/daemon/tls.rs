//! The certificate that the daemon shows, and the authorities of its clients' certificates. They are read
//! anew when their files change: whoever connects from then on sees the new ones, and nobody who is
//! connected notices.

use std::{
    io,
    path::{Path, PathBuf},
    sync::{Arc, PoisonError, RwLock},
};

use jiff::Timestamp;
use nix::unistd::geteuid;
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

use crate::{
    access::{San, Shown},
    config,
    redact::GuardedFile,
};

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
        let own_uid = geteuid().as_raw();
        let read = |key, path: &Path, refuse: fn(&GuardedFile) -> Result<(), String>| {
            let read = GuardedFile::read(path).and_then(|file| {
                let checked = refuse(&file).and_then(|()| file.refuse_strangers(own_uid));
                checked.map(|()| file.into_bytes()).map_err(io::Error::other)
            });
            read.map_err(|source| TlsError::File { key, path: path.to_owned(), source })
        };
        // Whoever writes to the authorities lets in whom they like.
        let public = |key, path: &Path| read(key, path, GuardedFile::refuse_writers);
        Ok(Texts {
            certificate: public("tls_cert", &self.certificate)?,
            key: read("tls_key", &self.key, GuardedFile::refuse_others)?,
            authorities: self.authorities.as_deref().map(|path| public("tls_client_ca", path)).transpose()?,
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

/// What counts of a client's certificate.
pub(super) fn shown(certificate: &CertificateDer<'_>) -> Shown {
    // What cannot be read names nobody.
    let Ok(certificate) = Certificate::from_der(certificate) else {
        return Shown { names: [].into(), ends: Timestamp::MAX };
    };
    let ends = certificate.tbs_certificate.validity.not_after.to_unix_duration();
    let ends = i64::try_from(ends.as_secs()).ok().and_then(|ends| Timestamp::from_second(ends).ok());
    // Some say that they never end: 9999-12-31.
    Shown { names: names(&certificate).into(), ends: ends.unwrap_or(Timestamp::MAX) }
}

/// The names of a certificate that say who it is: DNS names, URIs and addresses of mail, in their order.
/// Its common name is no such name.
fn names(certificate: &Certificate) -> Vec<San> {
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
    use std::{fs, os::unix::fs::PermissionsExt as _};

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
        params.not_after = rcgen::date_time_ymd(2030, 1, 2);
        let text = |text: &str| text.try_into().expect("it is ASCII");
        params.subject_alt_names.extend([
            SanType::URI(text("spiffe://example.com/ci")),
            SanType::Rfc822Name(text("ana@example.com")),
            SanType::IpAddress(std::net::IpAddr::from([10, 0, 0, 1])),
        ]);
        let certificate = params.self_signed(&key).expect("it is signed");
        let shown = shown(certificate.der());
        let names: Vec<_> = shown.names.iter().map(ToString::to_string).collect();
        assert_eq!(names, ["dns:ci.example.com", "uri:spiffe://example.com/ci", "email:ana@example.com"]);
        assert_eq!(shown.ends.to_string(), "2030-01-02T00:00:00Z");
        assert_eq!(super::shown(&CertificateDer::from_slice(b"none")).names.len(), 0);
        assert_eq!(super::shown(pair(&[]).0.der()).names.len(), 0);
    }

    #[test]
    fn files_are_read_anew_and_what_is_wrong_with_them_changes_nothing() {
        let home = tempfile::tempdir().expect("a directory is made");
        let path = |name: &str| home.path().join(name);
        let write = |(certificate, key): &(rcgen::Certificate, KeyPair)| {
            fs::write(path("cert"), certificate.pem()).expect("it is written");
            fs::set_permissions(path("cert"), fs::Permissions::from_mode(0o644)).expect("it is set");
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
        fs::set_permissions(path("key"), fs::Permissions::from_mode(0o600)).expect("it is set");
        for name in ["cert", "ca"] {
            fs::write(path(name), first.0.pem()).expect("it is written");
            fs::set_permissions(path(name), fs::Permissions::from_mode(0o664)).expect("it is set");
            let server = config::ServerConfig { tls_client_ca: Some(path("ca")), ..server.clone() };
            let refusal = Tls::load(&server).err().expect("others may write to it");
            let refusal = format!("{:#}", anyhow::Error::new(refusal));
            assert!(refusal.contains(name) && refusal.contains("chmod 644"), "{refusal}");
            fs::set_permissions(path(name), fs::Permissions::from_mode(0o644)).expect("it is set");
        }
        assert!(Tls::load(&config::ServerConfig::default()).expect("nothing is named").is_none());
    }
}
