//! The parameters that are understood, and what they may be.

use std::{collections::BTreeMap, net::IpAddr, path::PathBuf, str::FromStr, time::Duration};

use super::{Endpoint, Host, Keepalive, Roots, SslMode, TlsSettings, UrlError, syntax};

/// Every parameter that is understood.
const KNOWN: [&str; 29] = [
    "application_name",
    "channel_binding",
    "client_encoding",
    "connect_timeout",
    "dbname",
    "fallback_application_name",
    "gssencmode",
    "host",
    "hostaddr",
    "keepalives",
    "keepalives_count",
    "keepalives_idle",
    "keepalives_interval",
    "load_balance_hosts",
    "options",
    "passfile",
    "password",
    "port",
    "ssl",
    "sslcert",
    "sslcompression",
    "sslkey",
    "sslmode",
    "sslnegotiation",
    "sslrootcert",
    "sslsni",
    "target_session_attrs",
    "tcp_user_timeout",
    "user",
];

/// libpq's other parameters, and why they are refused.
const UNSUPPORTED: [(&str, &str); 14] = [
    ("gssdelegation", "Nexus does not speak Kerberos"),
    ("gsslib", "Nexus does not speak Kerberos"),
    ("krbsrvname", "Nexus does not speak Kerberos"),
    ("replication", "a migration needs an ordinary session"),
    ("require_auth", "use channel_binding=require"),
    ("requirepeer", "protect the socket's directory instead"),
    ("service", "write its parameters into the URL"),
    ("servicefile", "write the service's parameters into the URL"),
    ("ssl_max_protocol_version", "TLS 1.2 and 1.3 are used"),
    ("ssl_min_protocol_version", "TLS 1.2 and 1.3 are used"),
    ("sslcertmode", "give sslcert and sslkey, or neither"),
    ("sslcrl", "revocation lists are not checked"),
    ("sslcrldir", "revocation lists are not checked"),
    ("sslpassword", "the file of sslkey must not be encrypted"),
];

/// Parameters by name, taken out one by one.
pub(super) struct Parameters(BTreeMap<&'static str, String>);

impl Parameters {
    pub(super) fn read(text: &str) -> Result<Self, UrlError> {
        let mut known = BTreeMap::new();
        for (name, value) in syntax::parameters(text)? {
            if let Some(name) = KNOWN.iter().find(|known| **known == name) {
                known.insert(*name, value);
            } else if let Some((name, why)) = UNSUPPORTED.iter().find(|(known, _)| *known == name) {
                return Err(UrlError::Unsupported { name, why });
            } else {
                return Err(unknown(&name));
            }
        }
        Ok(Self(known))
    }

    /// A parameter's value; an empty one counts as left out.
    pub(super) fn take(&mut self, name: &'static str) -> Option<String> {
        self.0.remove(name).filter(|value| !value.is_empty())
    }

    pub(super) fn choose<T: Copy>(
        &mut self,
        name: &'static str,
        expected: &'static str,
        choices: &[(&str, T)],
    ) -> Result<Option<T>, UrlError> {
        let Some(value) = self.take(name) else { return Ok(None) };
        let chosen = choices.iter().find(|(choice, _)| *choice == value);
        chosen.map(|(_, chosen)| Some(*chosen)).ok_or(UrlError::BadValue { name, expected })
    }

    pub(super) fn number<T: FromStr>(
        &mut self,
        name: &'static str,
        expected: &'static str,
    ) -> Result<Option<T>, UrlError> {
        let number = self.take(name).map(|value| value.trim().parse());
        number.transpose().map_err(|_| UrlError::BadValue { name, expected })
    }

    /// Parameters that may be given, but only with the value that Nexus has anyway.
    pub(super) fn check_fixed(&mut self) -> Result<(), UrlError> {
        self.choose(
            "client_encoding",
            "utf8 or auto",
            &[("utf8", ()), ("UTF8", ()), ("utf-8", ()), ("UTF-8", ()), ("auto", ())],
        )?;
        self.choose("gssencmode", "disable or prefer", &[("disable", ()), ("prefer", ())])?;
        self.choose("sslcompression", "0", &[("0", ())])?;
        Ok(())
    }

    pub(super) fn endpoints(&mut self) -> Result<Vec<Endpoint>, UrlError> {
        let split = |list: Option<String>| -> Vec<String> {
            list.map(|list| list.split(',').map(|item| item.trim().to_owned()).collect()).unwrap_or_default()
        };
        let (hosts, addresses) = (split(self.take("host")), split(self.take("hostaddr")));
        let ports = split(self.take("port"));
        let count = hosts.len().max(addresses.len()).max(1);
        if !hosts.is_empty() && !addresses.is_empty() && hosts.len() != addresses.len() {
            return Err(UrlError::BadValue { name: "hostaddr", expected: "one address for each host" });
        }
        if ports.len() > 1 && ports.len() != count {
            return Err(UrlError::BadValue { name: "port", expected: "one port, or one for each host" });
        }
        let endpoint = |index: usize| {
            let bad_address = UrlError::BadValue { name: "hostaddr", expected: "an IP address" };
            let hostaddr: Option<IpAddr> = match addresses.get(index).filter(|text| !text.is_empty()) {
                Some(text) => Some(text.parse().map_err(|_| bad_address)?),
                None => None,
            };
            let host = match hosts.get(index).filter(|host| !host.is_empty()) {
                Some(path) if path.starts_with('/') => Host::Socket(PathBuf::from(path)),
                Some(name) => Host::Tcp(name.clone()),
                None => hostaddr.map_or_else(default_host, |address| Host::Tcp(address.to_string())),
            };
            let bad_port = UrlError::BadValue { name: "port", expected: "a number from 1 to 65535" };
            let port = match ports.get(index).or(ports.first()).filter(|port| !port.is_empty()) {
                Some(port) => port.parse().ok().filter(|port| *port != 0).ok_or(bad_port)?,
                None => 5432,
            };
            Ok(Endpoint { host, hostaddr, port })
        };
        (0..count).map(endpoint).collect()
    }

    pub(super) fn tls(&mut self) -> Result<TlsSettings, UrlError> {
        let roots = match self.take("sslrootcert").as_deref() {
            None => Roots::Default,
            Some("system") => Roots::System,
            Some(path) => Roots::File(PathBuf::from(path)),
        };
        let asked = self.choose(
            "sslmode",
            "disable, allow, prefer, require, verify-ca or verify-full",
            &[
                ("disable", SslMode::Disable),
                ("allow", SslMode::Allow),
                ("prefer", SslMode::Prefer),
                ("require", SslMode::Require),
                ("verify-ca", SslMode::VerifyCa),
                ("verify-full", SslMode::VerifyFull),
            ],
        )?;
        // JDBC's spelling, which libpq takes in URLs.
        let jdbc = self.choose("ssl", "true; use sslmode for more", &[("true", SslMode::Require)])?;
        let mode = match (asked.or(jdbc), &roots) {
            (None, Roots::System) => SslMode::VerifyFull,
            // Anybody may have a certificate that the system trusts: only the name tells servers apart.
            (Some(mode), Roots::System) if mode < SslMode::VerifyFull => {
                return Err(UrlError::BadValue {
                    name: "sslmode",
                    expected: "verify-full where sslrootcert is `system`",
                });
            }
            (mode, _) => mode.unwrap_or(SslMode::Prefer),
        };
        let direct = self
            .choose("sslnegotiation", "postgres or direct", &[("postgres", false), ("direct", true)])?
            .unwrap_or(false);
        if direct && mode < SslMode::Require {
            return Err(UrlError::BadValue {
                name: "sslmode",
                expected: "require or more for sslnegotiation=direct",
            });
        }
        Ok(TlsSettings {
            mode,
            roots,
            certificate: self.take("sslcert").map(PathBuf::from),
            key: self.take("sslkey").map(PathBuf::from),
            sni: self.choose("sslsni", "0 or 1", &[("0", false), ("1", true)])?.unwrap_or(true),
            direct,
        })
    }

    pub(super) fn keepalive(&mut self) -> Result<Keepalive, UrlError> {
        const SECONDS: &str = "a number of seconds";
        // Zero stands for the system's default.
        let positive = |number: u64| Some(number).filter(|number| *number > 0);
        let seconds = |number: Option<u64>| number.and_then(positive).map(Duration::from_secs);
        Ok(Keepalive {
            enabled: self.choose("keepalives", "0 or 1", &[("0", false), ("1", true)])?.unwrap_or(true),
            idle: seconds(self.number("keepalives_idle", SECONDS)?),
            interval: seconds(self.number("keepalives_interval", SECONDS)?),
            count: self.number("keepalives_count", "a number")?.filter(|count| *count > 0),
            user_timeout: self
                .number("tcp_user_timeout", "a number of milliseconds")?
                .and_then(positive)
                .map(Duration::from_millis),
        })
    }
}

fn default_host() -> Host {
    let directory = PathBuf::from("/var/run/postgresql");
    if directory.is_dir() { Host::Socket(directory) } else { Host::Tcp("localhost".to_owned()) }
}

fn unknown(name: &str) -> UrlError {
    let plain = name.len() <= 40 && name.chars().all(|c| c.is_ascii_alphabetic() || c == '_');
    let suggestion = KNOWN
        .into_iter()
        .map(|known| (strsim::damerau_levenshtein(known, &name.to_ascii_lowercase()), known))
        .filter(|(distance, known)| *distance <= (known.len() / 3).min(3))
        .min()
        .map(|(_, known)| known);
    UrlError::UnknownParameter { name: if plain { name.to_owned() } else { "…".to_owned() }, suggestion }
}
