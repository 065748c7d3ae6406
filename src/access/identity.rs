//! Who is let in, and by what: a snapshot that is replaced as a whole when its file changes.

use std::sync::Arc;

use jiff::Timestamp;
use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq as _;

use crate::{
    access::{Caller, Grant, Origin, Proof, Role},
    migration::{Code, Failure},
};

/// How many digits of a token's digest name it: to people, and in records.
const DIGITS_OF_AN_ID: usize = 8;

/// What a connection shows of who is at its other end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Peer {
    /// Where they are.
    pub from: Origin,
    /// The process at the other end of a Unix socket.
    pub process: Option<Process>,
    /// The client's certificate, which a trusted authority has signed.
    pub certificate: Option<Shown>,
    /// Why it is only told that it is not served; `None`: it is.
    pub turned_away: Option<Crowd>,
}

/// What counts of a client's certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shown {
    /// The names in it that say who its holder is.
    pub names: Arc<[San]>,
    /// When it ends. The authorities looked at that when the connection was made, which may be long ago.
    pub ends: Timestamp,
}

/// Why one more connection is too many.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Crowd {
    /// So many clients are connected already.
    Clients(usize),
    /// So many of them from the same address, or of the same user.
    OfOne(usize),
}

impl Peer {
    /// One of which nothing is known but where it is.
    pub fn at(from: Origin) -> Self {
        Self { from, process: None, certificate: None, turned_away: None }
    }
}

impl From<Crowd> for Failure {
    fn from(crowd: Crowd) -> Self {
        Self::new(
            Code::TooManyClients,
            match crowd {
                Crowd::Clients(most) => format!("nexusd serves {most} connections already"),
                Crowd::OfOne(most) => format!("nexusd serves {most} connections of yours already"),
            },
        )
    }
}

/// A process, as the kernel knows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Process {
    /// Its effective user.
    pub uid: u32,
    /// Its effective group.
    pub gid: u32,
    /// The groups that its user is in.
    pub groups: Arc<[u32]>,
    /// Its user's name, where there is one.
    pub user: Option<String>,
}

/// A name in a certificate, of those that say who its holder is.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum San {
    /// A host's or a service's name, in lower case.
    Dns(String),
    /// Such as SPIFFE's ids.
    Uri(String),
    /// An address of a person.
    Email(String),
}

impl San {
    /// Reads `dns:NAME`, `uri:URI` or `email:ADDRESS`.
    pub fn parse(text: &str) -> Option<Self> {
        let (kind, name) = text.split_once(':')?;
        let is_plain = !name.is_empty() && !name.contains(|c: char| c.is_whitespace() || c.is_control());
        match kind {
            _ if !is_plain => None,
            "dns" => Some(Self::Dns(name.to_ascii_lowercase())),
            "uri" => Some(Self::Uri(name.to_owned())),
            "email" => Some(Self::Email(name.to_owned())),
            _ => None,
        }
    }

    /// The name without its kind.
    pub fn name(&self) -> &str {
        let (Self::Dns(name) | Self::Uri(name) | Self::Email(name)) = self;
        name
    }
}

impl std::fmt::Display for San {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let kind = match self {
            Self::Dns(_) => "dns",
            Self::Uri(_) => "uri",
            Self::Email(_) => "email",
        };
        write!(f, "{kind}:{}", self.name())
    }
}

/// Something that says who somebody is, and what is granted to them by it. Several about the same one
/// add up.
#[derive(Debug, Clone)]
pub struct Identity {
    /// The name that they are known by; `None`: the one that the proof has.
    pub name: Option<String>,
    /// How they show it.
    pub by: By,
    /// What is granted.
    pub grant: Grant,
}

/// How somebody shows who they are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum By {
    /// By a token.
    Token {
        /// The SHA-256 of its text. The token itself is stored nowhere.
        digest: [u8; 32],
        /// When it ends; `None`: never.
        expires: Option<Timestamp>,
    },
    /// By a certificate with this name in it.
    Certificate(San),
    /// By being this user, on the Unix socket.
    User(u32),
    /// By being in this group, on the Unix socket.
    Group(u32),
}

/// Everybody who is let in.
#[derive(Debug, Clone, Default)]
pub struct Identities {
    known: Vec<Identity>,
    /// The user that the daemon runs as.
    own_uid: u32,
    /// Whether loopback is open: the configuration names no way to say who one is.
    is_open: bool,
}

/// Says who asks, by what a connection shows and the token of a request, as the files have it now.
pub type Authenticate =
    Arc<dyn Fn(&Peer, Option<&str>) -> Result<(Caller, Arc<[Grant]>), Failure> + Send + Sync>;

/// The digest of a token's text.
pub fn digest(token: &str) -> [u8; 32] {
    Sha256::digest(token.as_bytes()).into()
}

/// The token of an `authorization` header. One that is of another kind is given, and is none.
pub fn bearer(header: Option<&str>) -> Option<&str> {
    let (scheme, token) = header?.split_once(' ').unwrap_or_default();
    Some(if scheme.eq_ignore_ascii_case("bearer") { token.trim() } else { "" })
}

/// What names a token without giving it away.
fn id(digest: &[u8; 32]) -> String {
    hex(&digest[..DIGITS_OF_AN_ID / 2])
}

/// What a name looks like, in words.
pub const NAME_FORM: &str = "a name of 1 to 100 letters, digits, `_`, `.`, `-`, `@`, `/` and `:`";

/// Whether a text may be somebody's name: it is written down wherever they did something.
pub fn is_name(text: &str) -> bool {
    let fits = |c: char| c.is_alphanumeric() || "_.-@/:".contains(c);
    (1..=100).contains(&text.len()) && text.chars().all(fits)
}

/// Bytes as lower-case hexadecimal digits.
pub fn hex(bytes: &[u8]) -> String {
    let mut digits = String::with_capacity(2 * bytes.len());
    for byte in bytes {
        for nibble in [byte >> 4, byte & 15] {
            digits.extend(char::from_digit(nibble.into(), 16));
        }
    }
    digits
}

impl Identities {
    /// Whoever reaches loopback is let in; on the Unix socket root, and the user that the daemon runs as.
    pub fn open(own_uid: u32) -> Self {
        Self { known: Vec::new(), own_uid, is_open: true }
    }

    /// Those that are known; on the Unix socket root and the daemon's user as well.
    pub fn of(own_uid: u32, known: Vec<Identity>) -> Self {
        Self { known, own_uid, is_open: false }
    }

    /// Whether anybody could come in over TCP: with a token, or with a certificate where those are asked
    /// for.
    pub fn has_one_for_tcp(&self, asks_for_certificates: bool) -> bool {
        let is_one = |by: &By| match by {
            By::Token { .. } => true,
            By::Certificate(_) => asks_for_certificates,
            By::User(_) | By::Group(_) => false,
        };
        self.known.iter().any(|it| is_one(&it.by))
    }

    /// Who asks, and what is granted to them. A token that is given decides alone: where it is wrong,
    /// nothing else is tried. Whoever is turned away is not even looked at.
    pub fn authenticate(
        &self,
        peer: &Peer,
        token: Option<&str>,
        now: Timestamp,
    ) -> Result<(Caller, Arc<[Grant]>), Failure> {
        if let Some(crowd) = peer.turned_away {
            return Err(crowd.into());
        }
        if let Some(token) = token {
            return self.by_token(peer.from, token, now);
        }
        if let Some(Shown { names, ends }) = &peer.certificate {
            if *ends < now {
                let message = format!("The client's certificate expired at {ends:.0}");
                let hint = "have its authority make a new one, and connect again with that";
                return Err(Failure::new(Code::ExpiredCredential, message).hint(hint));
            }
            return self.by_certificate(peer.from, names);
        }
        if let Some(process) = &peer.process {
            return Ok(self.by_process(peer.from, process));
        }
        let is_loopback = matches!(peer.from, Origin::Tcp(address) if address.ip().is_loopback());
        if self.is_open && is_loopback {
            let caller = Caller { name: String::new(), proof: Proof::None, from: peer.from };
            return Ok((caller, Arc::new([Grant::everywhere(Role::Admin)])));
        }
        let message = "nexusd does not know who asks: there is no token and no client certificate";
        Err(Failure::new(Code::NoCredential, message))
    }

    fn by_token(&self, from: Origin, token: &str, now: Timestamp) -> Result<(Caller, Arc<[Grant]>), Failure> {
        let given = digest(token);
        // Each is compared, and each in the same time: how long it takes says nothing about any of them.
        let mut matching = Vec::new();
        for identity in &self.known {
            if let By::Token { digest, expires } = &identity.by
                && bool::from(digest.ct_eq(&given))
            {
                matching.push((identity, *expires));
            }
        }
        let Some((first, _)) = matching.first() else {
            return Err(Failure::new(Code::BadCredential, "The token is not known"));
        };
        let name = first.name.clone().unwrap_or_default();
        let is_alive = |expires: &Option<Timestamp>| expires.is_none_or(|expires| now < expires);
        let grants: Arc<[Grant]> = matching
            .iter()
            .filter(|(_, expires)| is_alive(expires))
            .map(|(it, _)| it.grant.clone())
            .collect();
        if grants.is_empty() {
            let last = matching.iter().filter_map(|(_, expires)| *expires).max();
            let at = last.map(|at| format!(" at {at:.0}")).unwrap_or_default();
            return Err(Failure::new(Code::ExpiredCredential, format!("The token of {name} expired{at}")));
        }
        Ok((Caller { name, proof: Proof::Token { id: id(&given) }, from }, grants))
    }

    /// The first entry that fits says who it is; a certificate with several names is one person.
    fn by_certificate(&self, from: Origin, names: &[San]) -> Result<(Caller, Arc<[Grant]>), Failure> {
        let has = |identity: &&Identity| matches!(&identity.by, By::Certificate(san) if names.contains(san));
        let first = self.known.iter().find(has);
        let san = match first.map(|it| &it.by) {
            Some(By::Certificate(san)) => san,
            _ => names.first().ok_or_else(|| {
                let message =
                    "The client's certificate has no DNS, URI or email name: it does not say who asks";
                Failure::new(Code::BadCredential, message)
            })?,
        };
        let name = first.and_then(|it| it.name.clone()).unwrap_or_else(|| san.name().to_owned());
        let proof = Proof::Certificate { san: san.to_string() };
        Ok((Caller { name, proof, from }, self.granted(|by| *by == By::Certificate(san.clone()))))
    }

    fn by_process(&self, from: Origin, process: &Process) -> (Caller, Arc<[Grant]>) {
        let Process { uid, gid, groups, user } = process;
        let is_of = |by: &By| match by {
            By::User(user) => user == uid,
            By::Group(group) => group == gid || groups.contains(group),
            By::Token { .. } | By::Certificate(_) => false,
        };
        let named = self.known.iter().find(|it| it.name.is_some() && it.by == By::User(*uid));
        let name = named.and_then(|it| it.name.clone()).or_else(|| user.clone());
        let name = name.unwrap_or_else(|| format!("uid {uid}"));
        let caller = Caller { name, proof: Proof::Peer { uid: *uid, gid: *gid }, from };
        // They could read the daemon's memory: there is nothing to be kept from them.
        if *uid == 0 || *uid == self.own_uid {
            return (caller, Arc::new([Grant::everywhere(Role::Admin)]));
        }
        (caller, self.granted(is_of))
    }

    fn granted(&self, is_meant: impl Fn(&By) -> bool) -> Arc<[Grant]> {
        self.known.iter().filter(|it| is_meant(&it.by)).map(|it| it.grant.clone()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn grant(role: Role) -> Grant {
        Grant::everywhere(role)
    }

    fn known() -> Identities {
        let at = |text: &str| Some(text.parse().expect("a time"));
        let token = |name: &str, text: &str, expires, role| Identity {
            name: Some(name.to_owned()),
            by: By::Token { digest: digest(text), expires },
            grant: grant(role),
        };
        let entry =
            |name: Option<&str>, by, role| Identity { name: name.map(str::to_owned), by, grant: grant(role) };
        let san = |text: &str| By::Certificate(San::parse(text).expect("a name"));
        Identities::of(
            500,
            vec![
                token("ci", "nexus_a", None, Role::Operator),
                token("ci", "nexus_a", at("2026-01-01T00:00:00Z"), Role::Admin),
                token("old", "nexus_b", at("2026-01-01T00:00:00Z"), Role::Viewer),
                entry(Some("deploy"), san("dns:Deploy.example.com"), Role::Operator),
                entry(None, san("uri:spiffe://x/y"), Role::Viewer),
                entry(Some("ana"), By::User(1000), Role::Viewer),
                entry(None, By::Group(50), Role::Operator),
            ],
        )
    }

    fn check(identities: &Identities, peer: &Peer, token: Option<&str>, expected: &str) {
        let now = "2026-06-01T00:00:00Z".parse().expect("a time");
        let got = match identities.authenticate(peer, token, now) {
            Ok((caller, grants)) => {
                let roles: Vec<_> = grants.iter().map(|grant| grant.role().as_str()).collect();
                format!("{} {} [{}]", caller.name, caller.proof, roles.join(" "))
            }
            Err(failure) => failure.code.to_string(),
        };
        assert_eq!(got, expected, "{peer:?} {token:?}");
    }

    fn peer(from: &str) -> Peer {
        Peer::at(Origin::Tcp(from.parse().expect("an address")))
    }

    #[test]
    fn tokens() {
        let far = peer("10.0.0.1:1");
        check(&known(), &far, Some("nexus_a"), "ci token 9451f650 [operator]");
        check(&known(), &far, Some("nexus_b"), "NX0087");
        check(&known(), &far, Some("nexus_c"), "NX0086");
        check(&known(), &far, Some(""), "NX0086");
        check(&known(), &far, None, "NX0085");
        check(&known(), &peer("127.0.0.1:1"), None, "NX0085");
    }

    #[test]
    fn headers() {
        assert_eq!(bearer(None), None);
        assert_eq!(bearer(Some("Bearer nexus_a")), Some("nexus_a"));
        assert_eq!(bearer(Some("bearer  nexus_a ")), Some("nexus_a"));
        for other in ["", "Bearer", "Basic bmV4dXM=", "nexus_a"] {
            assert_eq!(bearer(Some(other)), Some(""), "{other}");
        }
    }

    #[test]
    fn certificates() {
        let shown = |names: &[&str]| {
            let names = names.iter().map(|name| San::parse(name).expect("a name")).collect();
            let ends = "2026-06-01T00:00:00Z".parse().expect("a time");
            Peer { certificate: Some(Shown { names, ends }), ..peer("10.0.0.1:1") }
        };
        let names = ["uri:spiffe://x/y", "dns:deploy.example.com"];
        check(&known(), &shown(&names), None, "deploy certificate dns:deploy.example.com [operator]");
        check(&known(), &shown(&names[..1]), None, "spiffe://x/y certificate uri:spiffe://x/y [viewer]");
        check(&known(), &shown(&["email:eve@x"]), None, "eve@x certificate email:eve@x []");
        check(&known(), &shown(&[]), None, "NX0086");
        let mut ended = shown(&names);
        let certificate = ended.certificate.as_mut().expect("there is one");
        certificate.ends = "2026-05-31T23:59:59Z".parse().expect("a time");
        check(&known(), &ended, None, "NX0087");
        // A wrong token is not made good by a certificate.
        check(&known(), &shown(&names), Some("nexus_c"), "NX0086");
        for text in ["deploy.example.com", "ip:1.2.3.4", "dns:", "dns:a b"] {
            assert_eq!(San::parse(text), None, "{text}");
        }
    }

    #[test]
    fn processes() {
        let process = |uid, gid, groups: &[u32], user: Option<&str>| Peer {
            from: Origin::Unix(Some(4711)),
            process: Some(Process { uid, gid, groups: groups.into(), user: user.map(str::to_owned) }),
            ..Peer::at(Origin::Unix(None))
        };
        check(&known(), &process(0, 0, &[], Some("root")), None, "root unix uid=0 gid=0 [admin]");
        check(&known(), &process(500, 5, &[], None), None, "uid 500 unix uid=500 gid=5 [admin]");
        check(
            &known(),
            &process(1000, 50, &[], Some("a")),
            None,
            "ana unix uid=1000 gid=50 [viewer operator]",
        );
        check(&known(), &process(7, 7, &[7, 50], Some("bob")), None, "bob unix uid=7 gid=7 [operator]");
        check(&known(), &process(7, 7, &[7], Some("bob")), None, "bob unix uid=7 gid=7 []");
        check(&known(), &process(7, 7, &[7], Some("bob")), Some("nexus_a"), "ci token 9451f650 [operator]");
        let open = Identities::open(500);
        check(&open, &process(7, 7, &[7], Some("bob")), None, "bob unix uid=7 gid=7 []");
        check(&open, &process(500, 7, &[7], Some("n")), None, "n unix uid=500 gid=7 [admin]");
    }

    #[test]
    fn loopback_is_open_where_nothing_is_configured_and_nothing_else_is() {
        let open = Identities::open(500);
        check(&open, &peer("127.0.0.1:1"), None, " none [admin]");
        check(&open, &peer("[::1]:1"), None, " none [admin]");
        check(&open, &peer("10.0.0.1:1"), None, "NX0085");
        let crowded = Peer { turned_away: Some(Crowd::Clients(8)), ..peer("127.0.0.1:1") };
        check(&open, &crowded, None, "NX0117");
        check(&known(), &crowded, Some("nexus_a"), "NX0117");
        check(&open, &peer("127.0.0.1:1"), Some("nexus_a"), "NX0086");
    }
}
