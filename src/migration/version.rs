//! Versions and file names: `NUMBER_description.up.sql` / `.down.sql`.

use std::{cmp::Ordering, fmt};

use crate::migration::Direction;

/// The fewest digits a number may have.
pub const MIN_DIGITS: usize = 4;

/// The most digits a number may have: 14-digit time stamps are in use, and a `u64` holds 19.
pub const MAX_DIGITS: usize = 18;

/// How strictly file names are read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Naming {
    /// Descriptions are `[a-z0-9_]`: the runbook's pattern.
    #[default]
    Strict,
    /// Descriptions may also hold other letters, `-` and `.`.
    Relaxed,
}

/// A migration's version, `NUMBER_description`, ordered by number and never as text.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Version {
    text: String,
    number: u64,
}

/// Why a text is not a version.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum VersionError {
    /// It does not begin with enough digits.
    #[error("it must begin with a number of {MIN_DIGITS} to {MAX_DIGITS} digits")]
    Number,
    /// The number is not followed by `_`.
    #[error("the number must be followed by an underscore and a description")]
    Separator,
    /// The description is empty.
    #[error("the description after the number is empty")]
    NoDescription,
    /// The description holds a character that may not be there.
    #[error("the description may not contain {0:?}")]
    Character(char),
}

/// Why a `.sql` file's name is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FileNameError {
    /// It ends in neither `.up.sql` nor `.down.sql`.
    #[error("it must end in .up.sql or .down.sql")]
    Direction,
    /// What stands before the ending is no version.
    #[error(transparent)]
    Version(#[from] VersionError),
}

impl Version {
    /// Reads `NUMBER_description`.
    pub fn parse(text: &str, naming: Naming) -> Result<Self, VersionError> {
        let digits = text.bytes().take_while(u8::is_ascii_digit).count();
        if !(MIN_DIGITS..=MAX_DIGITS).contains(&digits) {
            return Err(VersionError::Number);
        }
        let description = text[digits..].strip_prefix('_').ok_or(VersionError::Separator)?;
        if description.is_empty() {
            return Err(VersionError::NoDescription);
        }
        if let Some(wrong) = description.chars().find(|&c| !naming.allows(c)) {
            return Err(VersionError::Character(wrong));
        }
        let number = text[..digits].parse().map_err(|_| VersionError::Number)?;
        Ok(Self { text: text.to_owned(), number })
    }

    /// Takes a version as a row of `schema_migrations` holds it. Rows written by hand or by other
    /// tools may hold anything: what has no leading number sorts first, as number 0.
    pub fn from_row(text: &str) -> Self {
        let digits = text.bytes().take_while(u8::is_ascii_digit).count();
        Self { text: text.to_owned(), number: text[..digits].parse().unwrap_or(0) }
    }

    /// The leading number.
    pub fn number(&self) -> u64 {
        self.number
    }

    /// The whole version, as in the file's name and in the table.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// The text after the number.
    pub fn description(&self) -> &str {
        self.text.split_once('_').map_or("", |(_, description)| description)
    }

    /// The name of its file.
    pub fn file_name(&self, direction: Direction) -> String {
        format!("{}.{direction}.sql", self.text)
    }

    /// Whether a user who wrote `wanted` (a whole version, or only a number) means this one.
    pub fn is_meant_by(&self, wanted: &str) -> bool {
        self.text == wanted
            || (!wanted.is_empty()
                && wanted.bytes().all(|byte| byte.is_ascii_digit())
                && wanted.parse() == Ok(self.number))
    }
}

impl Naming {
    fn allows(self, c: char) -> bool {
        match self {
            Self::Strict => matches!(c, 'a'..='z' | '0'..='9' | '_'),
            Self::Relaxed => c.is_alphanumeric() || matches!(c, '_' | '-' | '.'),
        }
    }
}

/// Reads the name of a `.sql` file.
pub fn parse_file_name(name: &str, naming: Naming) -> Result<(Version, Direction), FileNameError> {
    let (stem, direction) = if let Some(stem) = name.strip_suffix(".up.sql") {
        (stem, Direction::Up)
    } else if let Some(stem) = name.strip_suffix(".down.sql") {
        (stem, Direction::Down)
    } else {
        return Err(FileNameError::Direction);
    };
    Ok((Version::parse(stem, naming)?, direction))
}

impl Ord for Version {
    fn cmp(&self, other: &Self) -> Ordering {
        self.number.cmp(&other.number).then_with(|| self.text.cmp(&other.text))
    }
}

impl PartialOrd for Version {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn file_names() {
        let check = |name: &str, naming, expected: Result<(&str, u64, Direction), FileNameError>| {
            let read = parse_file_name(name, naming);
            let read = read.as_ref().map(|(v, d)| (v.as_str(), v.number(), *d)).map_err(Clone::clone);
            assert_eq!(read, expected, "{name}");
        };
        let strict = Naming::Strict;
        check("0010_add_products.up.sql", strict, Ok(("0010_add_products", 10, Direction::Up)));
        check("000010_x.down.sql", strict, Ok(("000010_x", 10, Direction::Down)));
        check("20251030101530_x.up.sql", strict, Ok(("20251030101530_x", 20_251_030_101_530, Direction::Up)));
        check("0010_x.sql", strict, Err(FileNameError::Direction));
        check("010_x.up.sql", strict, Err(VersionError::Number.into()));
        check("1234567890123456789_x.up.sql", strict, Err(VersionError::Number.into()));
        check("add.up.sql", strict, Err(VersionError::Number.into()));
        check("0010.up.sql", strict, Err(VersionError::Separator.into()));
        check("0010-x.up.sql", strict, Err(VersionError::Separator.into()));
        check("0010_.up.sql", strict, Err(VersionError::NoDescription.into()));
        check("0010_Add.up.sql", strict, Err(VersionError::Character('A').into()));
        check("0010_a b.up.sql", Naming::Relaxed, Err(VersionError::Character(' ').into()));
        check("0010_Ädd-1.2.up.sql", Naming::Relaxed, Ok(("0010_Ädd-1.2", 10, Direction::Up)));
    }

    #[test]
    fn order_is_numeric() {
        let mut versions = ["10000_c", "0002_b", "0010_a", "legacy"].map(Version::from_row);
        versions.sort();
        assert_eq!(versions.each_ref().map(Version::as_str), ["legacy", "0002_b", "0010_a", "10000_c"]);
    }

    #[test]
    fn a_number_or_a_version_means_it() {
        let version = Version::from_row("0010_add_products");
        for wanted in ["10", "0010", "0010_add_products"] {
            assert!(version.is_meant_by(wanted), "{wanted}");
        }
        for wanted in ["", "1", "0010_add", "add_products", "+10"] {
            assert!(!version.is_meant_by(wanted), "{wanted}");
        }
    }

    proptest! {
        #[test]
        fn a_name_is_read_as_it_is_written(
            number in "[0-9]{4,18}", description in "[a-z0-9_]{1,30}", is_up in any::<bool>()
        ) {
            let direction = if is_up { Direction::Up } else { Direction::Down };
            let name = format!("{number}_{description}.{direction}.sql");
            for naming in [Naming::Strict, Naming::Relaxed] {
                let (version, read) = parse_file_name(&name, naming).expect("it is of the runbook's form");
                prop_assert_eq!((version.file_name(read), read), (name.clone(), direction));
                prop_assert_eq!(version.number().to_string(), number.trim_start_matches('0').to_owned().max("0".into()));
                prop_assert_eq!(version.description(), &description);
                prop_assert!(version.is_meant_by(&number) && version.is_meant_by(version.as_str()));
                prop_assert_eq!(Version::from_row(version.as_str()), version);
            }
        }

        #[test]
        fn any_name_is_read_or_refused(name in "[0-9]{0,20}_?(\\PC|[a-c._ /-]){0,8}(\\.(up|down|Up))?(\\.sql)?") {
            let (strict, relaxed) = (parse_file_name(&name, Naming::Strict), parse_file_name(&name, Naming::Relaxed));
            if let Ok((version, direction)) = &relaxed {
                prop_assert_eq!(version.file_name(*direction), name.clone());
                prop_assert!(!name.contains(['/', ' ', '\\']), "{}", name);
            }
            if strict.is_ok() {
                prop_assert_eq!(&strict, &relaxed, "what is strict is relaxed too");
                prop_assert!(name.is_ascii());
            }
        }

        #[test]
        fn versions_are_in_one_order(texts in prop::array::uniform3("[0-9]{0,5}_?[a-c]{0,2}")) {
            let [a, b, c] = texts.each_ref().map(|text| Version::from_row(text));
            prop_assert_eq!(a.cmp(&b), b.cmp(&a).reverse());
            prop_assert_eq!(a == b, a.cmp(&b).is_eq());
            prop_assert!(!(a <= b && b <= c) || a <= c);
            prop_assert!(a.number() >= b.number() || a < b);
        }
    }
}
