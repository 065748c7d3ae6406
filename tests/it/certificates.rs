//! Certificates for tests: an authority, and what it signs.

use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use rcgen::{BasicConstraints, Certificate, CertificateParams, CertifiedIssuer, IsCa, KeyPair, SanType};

use crate::support::private;

/// An authority.
pub(crate) struct Authority(CertifiedIssuer<'static, KeyPair>);

impl Authority {
    pub(crate) fn new() -> Self {
        let mut params = CertificateParams::new(Vec::new()).expect("no names");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().expect("a key is made");
        Self(CertifiedIssuer::self_signed(params, key).expect("it is signed"))
    }

    /// Writes its certificate.
    pub(crate) fn write(&self, path: &Path) -> PathBuf {
        fs::write(path, self.0.pem()).expect("it is written");
        path.to_owned()
    }

    /// Signs a certificate for a name, and writes it with its key. `uri:` and `email:` make other names
    /// than those of hosts.
    pub(crate) fn sign(&self, name: &str, certificate: &Path, key: &Path) -> Certificate {
        self.sign_until(None, name, certificate, key)
    }

    /// The same, of a certificate that ends at a moment, as the time since 1970 has it.
    pub(crate) fn sign_until(
        &self,
        ends: Option<Duration>,
        name: &str,
        certificate: &Path,
        key: &Path,
    ) -> Certificate {
        let ascii = |text: &str| text.try_into().expect("it is ASCII");
        let name = match name.split_once(':') {
            Some(("uri", uri)) => SanType::URI(ascii(uri)),
            Some(("email", address)) => SanType::Rfc822Name(ascii(address)),
            _ => SanType::DnsName(ascii(name)),
        };
        let mut params = CertificateParams::new(Vec::new()).expect("no names");
        params.subject_alt_names.push(name);
        if let Some(ends) = ends {
            params.not_after = rcgen::date_time_ymd(1970, 1, 1) + ends;
        }
        let pair = KeyPair::generate().expect("a key is made");
        let signed = params.signed_by(&pair, &self.0).expect("it is signed");
        fs::write(certificate, signed.pem()).expect("it is written");
        private(key, &pair.serialize_pem());
        signed
    }
}
