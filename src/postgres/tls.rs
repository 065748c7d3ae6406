//! TLS towards PostgreSQL with libpq's meanings of `sslmode`, on rustls.

use std::{
    env, io,
    path::{Path, PathBuf},
    sync::Arc,
};

use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, Error, RootCertStore, SignatureScheme,
    client::{
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
        verify_server_cert_signed_by_trust_anchor, verify_server_name,
    },
    crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature},
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime, pem::PemObject as _},
    server::ParsedCertificate,
};
use tokio_postgres_rustls::MakeRustlsConnect;

use crate::{
    postgres::url::{Roots, SslMode, TlsSettings},
    redact::GuardedFile,
};

/// Why the TLS settings cannot be used; the server has not been asked anything.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file cannot be read as what it should be.
    #[error("cannot use `{parameter}` {}", path.display())]
    File {
        /// The parameter that names it.
        parameter: &'static str,
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        #[source]
        source: io::Error,
    },
    /// The system's store of trusted certificates cannot be read or is empty.
    #[error("the system has no trusted certificates; name a file with sslrootcert")]
    NoSystemRoots,
    /// The certificate and the key do not fit together.
    #[error("`sslcert` and `sslkey` do not fit together")]
    ClientCertificate(#[source] Error),
    /// Only one of the two is given.
    #[error("`sslcert` and `sslkey` must be given together")]
    HalfClientCertificate,
    /// rustls refuses its own provider: a bug.
    #[error("TLS cannot be set up")]
    Setup(#[source] Error),
}

/// What makes TLS connections for a target; reads the certificates' files.
pub(super) fn connector(settings: &TlsSettings) -> Result<MakeRustlsConnect, TlsError> {
    let provider = Arc::new(ring::default_provider());
    let verifier = Verifier {
        trust: trust(settings)?,
        names: settings.mode == SslMode::VerifyFull,
        provider: provider.clone(),
    };
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(TlsError::Setup)?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier));
    let mut config = match client_certificate(settings)? {
        Some((chain, key)) => {
            builder.with_client_auth_cert(chain, key).map_err(TlsError::ClientCertificate)?
        }
        None => builder.with_no_client_auth(),
    };
    config.enable_sni = settings.sni;
    config.alpn_protocols = if settings.direct { vec![b"postgresql".to_vec()] } else { Vec::new() };
    Ok(MakeRustlsConnect::new(config))
}

/// The certificates that are trusted; `None` where any certificate will do.
///
/// As in libpq, a root file makes every mode check the chain, and a mode that verifies needs roots.
fn trust(settings: &TlsSettings) -> Result<Option<Trust>, TlsError> {
    let file = match &settings.roots {
        _ if settings.mode == SslMode::Disable => return Ok(None),
        Roots::File(path) => Some(path.clone()),
        Roots::Default => home_file("root.crt"),
        Roots::System => None,
    };
    if let Some(path) = file {
        let certificates = certificates("sslrootcert", &path)?;
        let mut roots = RootCertStore::empty();
        roots.add_parsable_certificates(certificates.iter().cloned());
        return Ok(Some(Trust { roots, certificates }));
    }
    if settings.roots == Roots::Default && settings.mode < SslMode::VerifyCa {
        return Ok(None);
    }
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    if roots.is_empty() {
        return Err(TlsError::NoSystemRoots);
    }
    Ok(Some(Trust { roots, certificates: Vec::new() }))
}

fn client_certificate(
    settings: &TlsSettings,
) -> Result<Option<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>)>, TlsError> {
    if settings.mode == SslMode::Disable {
        return Ok(None);
    }
    let certificate = settings.certificate.clone().or_else(|| home_file("postgresql.crt"));
    let key = settings.key.clone().or_else(|| home_file("postgresql.key"));
    let (certificate, path) = match (certificate, key) {
        (Some(certificate), Some(key)) => (certificate, key),
        (None, None) => return Ok(None),
        _ => return Err(TlsError::HalfClientCertificate),
    };
    let fail = |source| TlsError::File { parameter: "sslkey", path: path.clone(), source };
    let file = GuardedFile::read(&path).map_err(fail)?;
    // libpq's rule, too: the owner alone, or root and one group.
    file.refuse_others().map_err(|wrong| fail(io::Error::other(wrong)))?;
    let key = PrivateKeyDer::from_pem_slice(&file.into_bytes());
    // The parser's own words might quote the file.
    let key = key.map_err(|_| fail(io::Error::other("it holds no private key in PEM")))?;
    Ok(Some((certificates("sslcert", &certificate)?, key)))
}

fn certificates(parameter: &'static str, path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let fail = |source| TlsError::File { parameter, path: path.to_owned(), source };
    let text = std::fs::read(path).map_err(fail)?;
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&text).collect();
    match found.map_err(|error| fail(io::Error::other(error)))? {
        found if found.is_empty() => Err(fail(io::Error::other("it holds no certificate in PEM"))),
        found => Ok(found),
    }
}

fn home_file(name: &str) -> Option<PathBuf> {
    env::home_dir().map(|home| home.join(".postgresql").join(name)).filter(|path| path.is_file())
}

/// What a server's certificate is held against.
#[derive(Debug)]
struct Trust {
    roots: RootCertStore,
    certificates: Vec<CertificateDer<'static>>,
}

/// Checks of a server's certificate what `sslmode` asks: nothing, the chain, or the chain and the name.
///
/// Names are looked for in the subject's alternative names only, not in the common name.
#[derive(Debug)]
struct Verifier {
    trust: Option<Trust>,
    names: bool,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let Some(trust) = &self.trust else { return Ok(ServerCertVerified::assertion()) };
        let certificate = ParsedCertificate::try_from(end_entity)?;
        let algorithms = self.provider.signature_verification_algorithms.all;
        match verify_server_cert_signed_by_trust_anchor(
            &certificate,
            &trust.roots,
            intermediates,
            now,
            algorithms,
        ) {
            Err(error) if !(trust.certificates.contains(end_entity) && is_self_signed(&error)) => {
                return Err(error);
            }
            _ => {}
        }
        if self.names {
            verify_server_name(&certificate, server_name)?;
        }
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

/// Whether a certificate was refused only because it is an authority's: a self-signed certificate that
/// the root file names itself. Its dates are checked before that.
fn is_self_signed(error: &Error) -> bool {
    matches!(error, Error::InvalidCertificate(CertificateError::Other(_) | CertificateError::UnknownIssuer))
}
