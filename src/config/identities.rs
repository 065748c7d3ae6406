//! The file of those who are let in: `[[token]]`, `[[certificate]]` and `[[unix]]`, each with a role on
//! some databases. It is read anew when it changes, apart from the rest of the configuration.

use std::{collections::BTreeMap, path::Path};

use jiff::Timestamp;
use toml::de::DeTable;

use crate::{
    access::{
        Role, San,
        identity::{NAME_FORM, hex, is_name},
    },
    config::{
        ConfigError, Overrides, Place, Problem,
        reader::{Layer, Reader, Section},
        setting::{Count, Form, quoted},
    },
    redact::GuardedFile,
    selector::Pattern,
};

/// Somebody who is let in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IdentityConfig {
    /// The name that they are known by; a token has one.
    pub name: Option<String>,
    /// How they show who they are.
    pub shown_by: ShownBy,
    /// What they may do.
    pub role: Role,
    /// On which databases, by names or globs.
    pub databases: Vec<String>,
    /// On which databases, by a selector.
    pub selector: Option<String>,
    /// How many migrations they roll back at once; `None`: as many as `[access]` says.
    pub max_rollback_steps: Option<u32>,
    /// Where it is written.
    pub place: Place,
}

/// How somebody shows who they are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ShownBy {
    /// By a token.
    Token {
        /// Its SHA-256.
        sha256: [u8; 32],
        /// When it ends.
        expires: Option<Timestamp>,
    },
    /// By a certificate with this name.
    Certificate(San),
    /// By being this user of the system: a name or a number.
    User(String),
    /// By being in this group of the system: a name or a number.
    Group(String),
}

/// The keys of every entry.
const COMMON: [&str; 5] = ["name", "role", "databases", "selector", "max_rollback_steps"];

/// What kind of entry a table is.
#[derive(Clone, Copy)]
enum Kind {
    Token,
    Certificate,
    Unix,
}

impl Kind {
    const ALL: [Self; 3] = [Self::Token, Self::Certificate, Self::Unix];

    fn name(self) -> &'static str {
        match self {
            Self::Token => "token",
            Self::Certificate => "certificate",
            Self::Unix => "unix",
        }
    }

    fn keys(self) -> &'static [&'static str] {
        match self {
            Self::Token => &["sha256", "expires"],
            Self::Certificate => &["san"],
            Self::Unix => &["user", "group"],
        }
    }
}

/// Reads the file. `own_uid` is the user that the daemon runs as: whoever else may write to the file
/// could let anybody in, so that it is refused.
pub fn read_identities(path: &Path, own_uid: u32) -> Result<Vec<IdentityConfig>, ConfigError> {
    let unreadable = |source| ConfigError::Unreadable { path: path.to_owned(), source };
    let file = GuardedFile::read(path).map_err(unreadable)?;
    if let Err(message) = file.refuse_others().and_then(|()| file.refuse_strangers(own_uid)) {
        return Err(ConfigError::Invalid(vec![Problem { place: None, message }]));
    }
    parse_identities(&file.into_text().map_err(unreadable)?, path)
}

/// Reads the file's text.
fn parse_identities(text: &str, path: &Path) -> Result<Vec<IdentityConfig>, ConfigError> {
    let table = DeTable::parse(text).map_err(|error| {
        let place = Place::new(Some(path), text, &error.span().unwrap_or(0..0));
        ConfigError::Invalid(vec![Problem { place: Some(place), message: error.message().to_owned() }])
    })?;
    let (environment, overrides) = (BTreeMap::new(), Overrides::default());
    let mut reader = Reader::new(Some(path), text, &environment, &overrides);
    let root = Section::new(String::new(), Some((table.span(), table.get_ref())));
    reader.only(&root, &Kind::ALL.map(Kind::name), |_| None);
    let mut identities = Vec::new();
    for kind in Kind::ALL {
        for (index, section) in reader.sections(&root, kind.name()).into_iter().enumerate() {
            identities.extend(identity(&mut reader, section, kind, index + 1));
        }
    }
    same_tokens(&mut reader, &root, &identities);
    let problems = reader.finish();
    if problems.is_empty() { Ok(identities) } else { Err(ConfigError::Invalid(problems)) }
}

fn identity<'a>(
    reader: &mut Reader<'a>,
    mut section: Section<'a>,
    kind: Kind,
    number: usize,
) -> Option<IdentityConfig> {
    section.label = format!("{} #{number}: ", kind.name());
    reader.only(&section, &[&COMMON, kind.keys()].concat(), |_| None);
    let file = [Layer::File(&section)];
    let name = reader.setting::<Who>(&file, "name");
    let role = reader.setting::<Role>(&file, "role");
    let databases = reader.list::<Glob>(&section, "databases", "[\"orders-*\"]");
    let selector = reader.selector(&section, "selector");
    let max_rollback_steps = reader.setting::<Count<1>>(&file, "max_rollback_steps");
    let mut missing = |key: &str, what: &str| {
        if section.get(key).is_none() {
            let message = format!("{}{key} is missing: {what}", section.label);
            reader.complain(&section.span, message);
        }
    };
    missing("role", "give \"viewer\", \"operator\" or \"admin\"");
    if section.get("selector").is_none() {
        missing("databases", "on which databases; [\"*\"] is every one");
    }
    let shown_by = match kind {
        Kind::Token => {
            missing("name", "who has the token");
            missing("sha256", "nexusctl token create prints it");
            let sha256 = reader.setting::<Sha256>(&file, "sha256");
            let expires = reader.setting::<Instant>(&file, "expires");
            ShownBy::Token { sha256: sha256?, expires }
        }
        Kind::Certificate => {
            missing("san", "a name of the certificate such as \"dns:ci.example.com\"");
            ShownBy::Certificate(reader.setting::<San>(&file, "san")?)
        }
        Kind::Unix => {
            let (user, group) =
                (reader.setting::<Account>(&file, "user"), reader.setting::<Account>(&file, "group"));
            match (user, group) {
                (Some(user), None) => ShownBy::User(user),
                (None, Some(group)) => ShownBy::Group(group),
                _ => {
                    let message = format!("{}give exactly one of user and group", section.label);
                    reader.complain(&section.span, message);
                    return None;
                }
            }
        }
    };
    let place = reader.place(&section.span);
    Some(IdentityConfig { name, shown_by, role: role?, databases, selector, max_rollback_steps, place })
}

/// One token is one person's; several entries of it add up.
fn same_tokens<'a>(reader: &mut Reader<'a>, root: &Section<'a>, identities: &[IdentityConfig]) {
    let mut seen = BTreeMap::new();
    for identity in identities {
        let ShownBy::Token { sha256, .. } = &identity.shown_by else { continue };
        let name = identity.name.clone().unwrap_or_default();
        let first = seen.entry(*sha256).or_insert_with(|| name.clone());
        if *first != name {
            let message = format!("the token of {name:?} is that of {first:?}: make another one");
            reader.complain(&root.span.clone(), message);
        }
    }
}

/// A name of somebody, as it is written down wherever they did something.
struct Who;

impl Form for Who {
    type Value = String;
    const TYPES: &'static [&'static str] = &["string"];
    const EXPECTED: &'static str = NAME_FORM;

    fn parse(text: &str) -> Result<String, String> {
        if is_name(text) { Ok(text.to_owned()) } else { Err(Self::unlike(text)) }
    }

    fn literal(value: &String) -> String {
        quoted(value)
    }
}

/// A user or a group of the system.
struct Account;

impl Form for Account {
    type Value = String;
    const TYPES: &'static [&'static str] = &["string", "integer"];
    const EXPECTED: &'static str = "a name or a number of the system's";

    fn parse(text: &str) -> Result<String, String> {
        let fits = !text.is_empty() && !text.contains(|c: char| c.is_whitespace() || c.is_control());
        if fits { Ok(text.to_owned()) } else { Err(Self::unlike(text)) }
    }

    fn literal(value: &String) -> String {
        quoted(value)
    }
}

/// A database's name, or a glob.
struct Glob;

impl Form for Glob {
    type Value = String;
    const TYPES: &'static [&'static str] = &["string"];
    const EXPECTED: &'static str = "a name or a glob such as \"orders-*\"";

    fn parse(text: &str) -> Result<String, String> {
        if text.is_empty() {
            return Err(Self::unlike(text));
        }
        Pattern::parse(text).map(|_| text.to_owned()).map_err(|wrong| format!("{text:?} is no glob: {wrong}"))
    }

    fn literal(value: &String) -> String {
        quoted(value)
    }
}

/// A SHA-256. What is written in its place by mistake is not shown: it may be the token.
struct Sha256;

impl Form for Sha256 {
    type Value = [u8; 32];
    const TYPES: &'static [&'static str] = &["string"];
    const EXPECTED: &'static str = "a SHA-256 of 64 hexadecimal digits, as nexusctl token create prints it";

    fn parse(text: &str) -> Result<[u8; 32], String> {
        let wrong = || format!("expected {}", Self::EXPECTED);
        if text.len() != 64 || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return Err(wrong());
        }
        let mut digest = [0; 32];
        for (index, byte) in digest.iter_mut().enumerate() {
            *byte = u8::from_str_radix(&text[2 * index..2 * index + 2], 16).map_err(|_| wrong())?;
        }
        Ok(digest)
    }

    fn literal(value: &[u8; 32]) -> String {
        quoted(&hex(value))
    }
}

/// A moment.
struct Instant;

impl Form for Instant {
    type Value = Timestamp;
    const TYPES: &'static [&'static str] = &["string"];
    const EXPECTED: &'static str = "a time such as \"2027-02-21T00:00:00Z\"";

    fn parse(text: &str) -> Result<Timestamp, String> {
        text.parse().map_err(|_| Self::unlike(text))
    }

    fn literal(value: &Timestamp) -> String {
        quoted(&value.to_string())
    }
}

impl Form for San {
    type Value = Self;
    const TYPES: &'static [&'static str] = &["string"];
    const EXPECTED: &'static str = "\"dns:NAME\", \"uri:URI\" or \"email:ADDRESS\"";

    fn parse(text: &str) -> Result<Self, String> {
        // Its complaint names no value: an address has the sign of a credential.
        Self::parse(text).ok_or_else(|| format!("expected {}", Self::EXPECTED))
    }

    fn literal(value: &Self) -> String {
        quoted(&value.to_string())
    }
}

impl Form for Role {
    type Value = Self;
    const TYPES: &'static [&'static str] = &["string"];
    const EXPECTED: &'static str = "\"viewer\", \"operator\" or \"admin\"";

    fn parse(text: &str) -> Result<Self, String> {
        Self::ALL.into_iter().find(|role| role.as_str() == text).ok_or_else(|| Self::unlike(text))
    }

    fn literal(value: &Self) -> String {
        quoted(value.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, expected: Result<usize, &[&str]>) {
        match (parse_identities(text, Path::new("access.toml")), expected) {
            (Ok(identities), Ok(count)) => assert_eq!(identities.len(), count, "{text}"),
            (Err(error), Err(parts)) => {
                let said = error.to_string();
                for part in parts {
                    assert!(said.contains(part), "{part:?} in {said}");
                }
            }
            (got, _) => assert!(got.is_err() == expected.is_err(), "{text}: {got:?}"),
        }
    }

    #[test]
    fn every_kind() {
        let digest = "ab".repeat(32);
        let token = format!("[[token]]\nname = \"ci\"\nsha256 = \"{digest}\"\nrole = \"operator\"\n");
        check("", Ok(0));
        check(
            &format!(
                "{token}databases = [\"*\"]\nexpires = \"2027-02-21T00:00:00Z\"\nmax_rollback_steps = 3\n\
                 {token}selector = \"env=dev\"\n\
                 [[certificate]]\nsan = \"email:ana@example.com\"\nrole = \"admin\"\ndatabases = [\"a\"]\n\
                 [[unix]]\nuser = \"ana\"\nrole = \"viewer\"\ndatabases = [\"*\"]\n\
                 [[unix]]\ngroup = 50\nrole = \"viewer\"\ndatabases = [\"*\"]\n"
            ),
            Ok(5),
        );
    }

    #[test]
    fn what_is_wrong_is_told_at_its_place() {
        let digest = "ab".repeat(32);
        let all = "databases = [\"*\"]\n";
        check(
            "[[token]]\n",
            Err(&[
                "access.toml:1:1: token #1: name is missing",
                "role is missing",
                "databases is missing",
                "sha256 is missing",
            ]),
        );
        check(
            &format!("[[unix]]\nrole = \"root\"\n{all}"),
            Err(&[
                "access.toml:2:8",
                "\"viewer\", \"operator\" or \"admin\"",
                "exactly one of user and group",
            ]),
        );
        check(
            &format!("[[unix]]\nuser = \"a\"\ngroup = \"b\"\nrole = \"admin\"\n{all}"),
            Err(&["exactly one"]),
        );
        check(
            &format!("[[certificate]]\nsan = \"ci.example.com\"\nrole = \"admin\"\n{all}"),
            Err(&["access.toml:2:7", "dns:NAME"]),
        );
        check(
            "[[unix]]\nuser = \"a\"\nrole = \"admin\"\ndatabases = [\"a[\"]\n",
            Err(&["access.toml:4:14", "is no glob"]),
        );
        check(
            "[[unix]]\nuser = \"a\"\nrole = \"admin\"\nselector = \"env==x\"\n",
            Err(&["access.toml:4:17"]),
        );
        check("[[tokens]]\n", Err(&["unknown key `tokens`; did you mean `token`?"]));
        let two = |name: &str| {
            format!("[[token]]\nname = \"{name}\"\nsha256 = \"{digest}\"\nrole = \"admin\"\n{all}")
        };
        check(&format!("{}{}", two("a"), two("b")), Err(&["the token of \"b\" is that of \"a\""]));
    }

    #[test]
    fn a_token_in_the_place_of_its_digest_is_not_shown() {
        let token = format!("nexus_{}", "5e".repeat(32));
        let text = format!(
            "[[token]]\nname = \"ci\"\nsha256 = \"{token}\"\nrole = \"admin\"\ndatabases = [\"*\"]\n"
        );
        let said = parse_identities(&text, Path::new("access.toml")).expect_err("it is refused").to_string();
        assert!(said.contains("access.toml:3:10") && !said.contains("5e5e"), "{said}");
    }
}
