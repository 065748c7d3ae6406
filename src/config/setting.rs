//! How one value of the configuration is written, read and printed.

use std::{net::SocketAddr, path::PathBuf, time::Duration};

use crate::{config::problem::may_hold_secret, redact::mask_text};

/// How the values of one kind of setting are written. Everything comes down to a text, so that the
/// file, the environment and the flags are read by the same code.
pub(super) trait Form {
    /// What it is in the program.
    type Value;
    /// The TOML types that it may have.
    const TYPES: &'static [&'static str];
    /// What a person is told to write.
    const EXPECTED: &'static str;

    /// Reads the text; the error says what is wrong with it.
    fn parse(text: &str) -> Result<Self::Value, String>;

    /// The value as TOML.
    fn literal(value: &Self::Value) -> String;

    /// The complaint about a text that is not of this form.
    fn unlike(text: &str) -> String {
        let found =
            if may_hold_secret(text) { "something that may hold a secret".into() } else { quoted(text) };
        format!("expected {}, found {found}", Self::EXPECTED)
    }
}

/// A string as TOML.
pub(super) fn quoted(text: &str) -> String {
    toml::Value::String(text.to_owned()).to_string()
}

/// A length of time of at least `LEAST` milliseconds, as people write it. PostgreSQL counts its
/// limits in whole milliseconds, in 32 bits, and reads 0 as "no limit".
pub(super) struct Span<const LEAST: u64>;

impl<const LEAST: u64> Form for Span<LEAST> {
    type Value = Duration;
    const TYPES: &'static [&'static str] = &["string"];
    const EXPECTED: &'static str = "a duration such as \"5s\", \"500ms\" or \"10min\"";

    fn parse(text: &str) -> Result<Duration, String> {
        let span = humantime::parse_duration(text).map_err(|_| Self::unlike(text))?;
        if span.subsec_nanos() % 1_000_000 != 0 {
            return Err(format!("{text:?} is not a whole number of milliseconds"));
        }
        match u64::try_from(span.as_millis()).unwrap_or(u64::MAX) {
            0 if LEAST > 0 => Err(format!("{text:?} would wait without a limit; it must be at least 1ms")),
            0..=2_147_483_647 => Ok(span),
            _ => Err(format!("{text:?} is longer than PostgreSQL can count, which is about 24 days")),
        }
    }

    fn literal(value: &Duration) -> String {
        quoted(&humantime::format_duration(*value).to_string())
    }
}

/// A number of bytes, plain or with a unit.
pub(super) struct Size;

const UNITS: [(&str, u64); 7] = [
    ("GiB", 1 << 30),
    ("MiB", 1 << 20),
    ("KiB", 1 << 10),
    ("GB", 1_000_000_000),
    ("MB", 1_000_000),
    ("kB", 1_000),
    ("B", 1),
];

impl Form for Size {
    type Value = u64;
    const TYPES: &'static [&'static str] = &["string", "integer"];
    const EXPECTED: &'static str = "a number of bytes above 0 such as 1048576 or \"64MiB\"";

    fn parse(text: &str) -> Result<u64, String> {
        let unit = UNITS.iter().find_map(|(name, bytes)| Some((text.strip_suffix(name)?, *bytes)));
        let (number, bytes) = unit.unwrap_or((text, 1));
        let number: Option<u64> = number.trim().parse().ok();
        let size = number.and_then(|number| number.checked_mul(bytes)).filter(|size| *size > 0);
        size.ok_or_else(|| Self::unlike(text))
    }

    fn literal(value: &u64) -> String {
        match UNITS[..3].iter().find(|(_, bytes)| value.is_multiple_of(*bytes)) {
            Some((name, bytes)) => format!("\"{}{name}\"", value / bytes),
            None => value.to_string(),
        }
    }
}

/// A whole number of at least `LEAST`.
pub(super) struct Count<const LEAST: u32>;

impl<const LEAST: u32> Form for Count<LEAST> {
    type Value = u32;
    const TYPES: &'static [&'static str] = &["integer"];
    const EXPECTED: &'static str =
        if LEAST == 0 { "a whole number from 0 to 10000" } else { "a whole number from 1 to 10000" };

    fn parse(text: &str) -> Result<u32, String> {
        let count = text.parse().ok().filter(|count| (LEAST..=10_000).contains(count));
        count.ok_or_else(|| Self::unlike(text))
    }

    fn literal(value: &u32) -> String {
        value.to_string()
    }
}

/// Yes or no.
pub(super) struct Flag;

impl Form for Flag {
    type Value = bool;
    const TYPES: &'static [&'static str] = &["boolean"];
    const EXPECTED: &'static str = "true or false";

    fn parse(text: &str) -> Result<bool, String> {
        text.parse().map_err(|_| Self::unlike(text))
    }

    fn literal(value: &bool) -> String {
        value.to_string()
    }
}

/// How long a name may be: PostgreSQL cuts longer ones silently.
const LONGEST_NAME: usize = 63;
/// How long a tracking table's may be: beside it there is a journal, `TABLE_nexus_journal`.
pub(super) const LONGEST_TABLE: usize = 49;

/// The name of a schema or a table, of at most `MOST` bytes.
pub(super) struct Identifier<const MOST: usize = LONGEST_NAME>;

impl<const MOST: usize> Form for Identifier<MOST> {
    type Value = String;
    const TYPES: &'static [&'static str] = &["string"];
    const EXPECTED: &'static str = if MOST == LONGEST_TABLE {
        "a PostgreSQL name of 1 to 49 bytes"
    } else {
        "a PostgreSQL name of 1 to 63 bytes"
    };

    fn parse(text: &str) -> Result<String, String> {
        let fits = (1..=MOST).contains(&text.len()) && !text.contains('\0') && is_shown(text);
        if fits { Ok(text.to_owned()) } else { Err(Self::unlike(text)) }
    }

    fn literal(value: &String) -> String {
        quoted(value)
    }
}

/// Whether a text that everybody is shown holds nothing that has to be masked.
pub(super) fn is_shown(text: &str) -> bool {
    mask_text(text) == text
}

/// The path of a file or a directory.
pub(super) struct Location;

impl Form for Location {
    type Value = PathBuf;
    const TYPES: &'static [&'static str] = &["string"];
    const EXPECTED: &'static str = "a path";

    fn parse(text: &str) -> Result<PathBuf, String> {
        let fits = !text.is_empty() && !text.contains('\0') && !text.contains("://");
        if fits { Ok(text.into()) } else { Err(Self::unlike(text)) }
    }

    fn literal(value: &PathBuf) -> String {
        quoted(&value.to_string_lossy())
    }
}

/// The path of a file, or an empty text for none.
pub(super) struct OptionalLocation;

impl Form for OptionalLocation {
    type Value = Option<PathBuf>;
    const TYPES: &'static [&'static str] = &["string"];
    const EXPECTED: &'static str = "a path, or \"\" for none";

    fn parse(text: &str) -> Result<Option<PathBuf>, String> {
        if text.is_empty() { Ok(None) } else { Location::parse(text).map(Some) }
    }

    fn literal(value: &Option<PathBuf>) -> String {
        value.as_ref().map_or_else(|| "\"\"".into(), Location::literal)
    }
}

/// Where a collector listens, or an empty text for none. There is no TLS towards it: it stands on the
/// same machine or in the same pod.
pub(super) struct OptionalEndpoint;

impl Form for OptionalEndpoint {
    type Value = Option<String>;
    const TYPES: &'static [&'static str] = &["string"];
    const EXPECTED: &'static str = "a URL without TLS such as \"http://127.0.0.1:4317\", or \"\" for none";

    fn parse(text: &str) -> Result<Option<String>, String> {
        let authority = text.strip_prefix("http://").map(|rest| rest.trim_end_matches('/'));
        match authority {
            None if text.is_empty() => Ok(None),
            Some(authority) if !authority.is_empty() && !authority.contains(['/', '@', ' ', '?', '#']) => {
                Ok(Some(text.to_owned()))
            }
            _ => Err(Self::unlike(text)),
        }
    }

    fn literal(value: &Option<String>) -> String {
        quoted(value.as_deref().unwrap_or_default())
    }
}

/// A part of a whole.
pub(super) struct Share;

impl Form for Share {
    type Value = f64;
    const TYPES: &'static [&'static str] = &["float", "integer"];
    const EXPECTED: &'static str = "a number from 0.0 to 1.0";

    fn parse(text: &str) -> Result<f64, String> {
        let share = text.parse().ok().filter(|share| (0.0..=1.0).contains(share));
        share.ok_or_else(|| Self::unlike(text))
    }

    fn literal(value: &f64) -> String {
        format!("{value:?}")
    }
}

/// An address to listen on. What one that other machines reach takes is for those to say who know the
/// other settings.
pub(super) struct ListenAddress;

impl Form for ListenAddress {
    type Value = SocketAddr;
    const TYPES: &'static [&'static str] = &["string"];
    const EXPECTED: &'static str = "an address with a port such as \"127.0.0.1:7421\" or \"[::1]:7421\"";

    fn parse(text: &str) -> Result<SocketAddr, String> {
        let port = text.strip_prefix("localhost:").map(|port| format!("127.0.0.1:{port}"));
        port.as_deref().unwrap_or(text).parse().map_err(|_| Self::unlike(text))
    }

    fn literal(value: &SocketAddr) -> String {
        quoted(&value.to_string())
    }
}

impl Form for tracing::Level {
    type Value = Self;
    const TYPES: &'static [&'static str] = &["string"];
    const EXPECTED: &'static str = "\"error\", \"warn\", \"info\", \"debug\" or \"trace\"";

    fn parse(text: &str) -> Result<Self, String> {
        let is_word = text.bytes().all(|byte| byte.is_ascii_lowercase());
        text.parse().ok().filter(|_| is_word).ok_or_else(|| Self::unlike(text))
    }

    fn literal(value: &Self) -> String {
        quoted(&value.as_str().to_lowercase())
    }
}

/// Declares a policy: an enum whose values are written as words.
macro_rules! policies {
    ($($(#[$doc:meta])* $name:ident: $expected:literal {
        $($(#[$variant_doc:meta])* $variant:ident = $word:literal,)*
    })*) => {$(
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum $name { $($(#[$variant_doc])* $variant,)* }

        impl Form for $name {
            type Value = Self;
            const TYPES: &'static [&'static str] = &["string"];
            const EXPECTED: &'static str = $expected;

            fn parse(text: &str) -> Result<Self, String> {
                match text {
                    $($word => Ok(Self::$variant),)*
                    _ => Err(Self::unlike(text)),
                }
            }

            fn literal(value: &Self) -> String {
                quoted(match value { $(Self::$variant => $word),* })
            }
        }
    )*};
}

/// What the address of a documentation page begins with.
pub(super) struct PageBase;

impl Form for PageBase {
    type Value = String;
    const TYPES: &'static [&'static str] = &["string"];
    const EXPECTED: &'static str = "an address or a path without white space, such as \"https://wiki/nexus\"";

    fn parse(text: &str) -> Result<String, String> {
        let fits = !text.is_empty() && !text.contains(|c: char| c.is_whitespace() || c.is_control());
        if fits { Ok(text.to_owned()) } else { Err(Self::unlike(text)) }
    }

    fn literal(value: &String) -> String {
        quoted(value)
    }
}

policies! {
    /// Of what severity an alert has to be for a sink to be told.
    MinSeverity: "\"warning\" or \"critical\"" {
        /// Of every alert.
        Warning = "warning",
        /// Only of what has to be seen to at once.
        Critical = "critical",
    }
    /// How strictly file names are read.
    Naming: "\"strict\" or \"relaxed\"" {
        /// Descriptions are `[a-z0-9_]`.
        Strict = "strict",
        /// Descriptions may also hold other letters, `-` and `.`.
        Relaxed = "relaxed",
    }
    /// What a migration without a down file is.
    MissingDown: "\"warn\" or \"error\"" {
        /// Worth a notice.
        Warn = "warn",
        /// A reason not to run any.
        Error = "error",
    }
    /// What is done about a finding that may be harmless.
    Policy: "\"deny\", \"warn\" or \"allow\"" {
        /// Refuse.
        Deny = "deny",
        /// Go on with a notice.
        Warn = "warn",
        /// Go on.
        Allow = "allow",
    }
    /// How dirty rows are settled.
    Recovery: "\"evidence\", \"down\" or \"off\"" {
        /// As the journal's evidence says.
        Evidence = "evidence",
        /// Always by the down file: the runbook's literal steps.
        Down = "down",
        /// Not at all: refuse while there are any.
        Off = "off",
    }
    /// How often a run waits for the disk.
    Durability: "\"run\" or \"each\"" {
        /// Once for the whole run, or once a second; nothing is reported before.
        Run = "run",
        /// For every migration.
        Each = "each",
    }
    /// What becomes of an operation about a database that an unfinished one is about.
    Overlap: "\"queue\" or \"refuse\"" {
        /// The database waits for its lock.
        Queue = "queue",
        /// It is refused.
        Refuse = "refuse",
    }
    /// How a change of the rows is noticed.
    Watch: "\"poll\" or \"notify\"" {
        /// By looking.
        Poll = "poll",
        /// By looking, and at once by a trigger that Nexus installs.
        Notify = "notify",
    }
}
