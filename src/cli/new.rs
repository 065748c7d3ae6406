//! `nexusctl new`: the next pair of files, from a template with the runbook's header. Needs no daemon.

use std::{
    fs::{self, File},
    io::{self, Write as _},
    path::{Path, PathBuf},
};

use anyhow::Context as _;
use jiff::{Timestamp, tz::TimeZone};

use crate::{
    cli::{Exit, Refusal, checksum::unreadable, render, session::Session},
    migration::{
        Direction,
        version::{MAX_DIGITS, MIN_DIGITS, Naming, Version, parse_file_name},
    },
};

/// The digits of a time stamp, `YYYYMMDDhhmmss`.
const TIMESTAMP_DIGITS: usize = 14;

/// Longer names leave no room for the number and the ending in a file's name.
const MAX_NAME: usize = 200;

/// The arguments of `new`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// What the migration does, such as `add_products`; spaces and dashes become underscores
    #[arg(value_parser = normalise)]
    name: String,
    /// The migration directory
    #[arg(long, value_name = "DIR", default_value = "migrations")]
    dir: PathBuf,
    /// For statements that cannot run in a transaction, such as CREATE INDEX CONCURRENTLY
    #[arg(long)]
    no_transaction: bool,
}

/// Writes the pair. What exists is never overwritten.
pub fn run(args: &Args, session: &mut Session) -> anyhow::Result<Exit> {
    let number = next_number(&numbers(&args.dir)?, Timestamp::now())?;
    let version = Version::parse(&format!("{number}_{}", args.name), Naming::Strict)
        .with_context(|| format!("Cannot name a migration {number}_{}", args.name))?;
    let [up, down] = [Direction::Up, Direction::Down].map(|direction| {
        let path = args.dir.join(version.file_name(direction));
        (path, template(&version, &number, direction, args.no_transaction))
    });
    create(&up.0, &up.1)?;
    if let Err(error) = create(&down.0, &down.1) {
        // Half a pair would be in the way of the next try; the file was made a moment ago, by us.
        let _ = fs::remove_file(&up.0);
        return Err(error.into());
    }
    let console = &mut session.console;
    if console.is_json() {
        console.json(&render::json::Created::new(version.as_str(), &up.0, &down.0))?;
    } else {
        console.data(&format!("{}\n{}\n", up.0.display(), down.0.display()))?;
        console.note("hint: write the SQL into both files; a file without any is refused as empty\n");
    }
    Ok(Exit::Done)
}

/// The description, in the runbook's `lowercase_with_underscores`.
fn normalise(name: &str) -> Result<String, String> {
    let spaced: String = name
        .chars()
        .map(|c| if matches!(c, ' ' | '\t' | '-' | '_') { ' ' } else { c.to_ascii_lowercase() })
        .collect();
    let words: Vec<_> = spaced.split_whitespace().collect();
    let name = words.join("_");
    if let Some(wrong) = name.chars().find(|c| !matches!(c, 'a'..='z' | '0'..='9' | '_')) {
        return Err(format!(
            "{wrong:?} cannot be in a name: use letters, digits and underscores, such as add_products"
        ));
    }
    let is_number = |word: &&str| word.len() >= MIN_DIGITS && word.bytes().all(|byte| byte.is_ascii_digit());
    match words.first() {
        None => Err("a name is needed, such as add_products".to_owned()),
        Some(_) if name.len() > MAX_NAME => Err(format!("it is longer than {MAX_NAME} characters")),
        Some(first) if is_number(first) => {
            Err("leave the number out: it is given by the directory".to_owned())
        }
        Some(_) => Ok(name),
    }
}

/// The numbers in use, with their digits.
fn numbers(directory: &Path) -> anyhow::Result<Vec<(u64, usize)>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(directory).map_err(|error| unreadable(directory, &error))? {
        let name = entry.with_context(|| format!("Cannot read {}", directory.display()))?.file_name();
        if let Ok((version, _)) = parse_file_name(&name.to_string_lossy(), Naming::Relaxed) {
            let digits = version.as_str().bytes().take_while(u8::is_ascii_digit).count();
            found.push((version.number(), digits));
        }
    }
    Ok(found)
}

/// One more than the greatest, in the same style: zero-padded to as many digits, or a time stamp.
fn next_number(numbers: &[(u64, usize)], now: Timestamp) -> Result<String, Refusal> {
    let (greatest, digits) = numbers.iter().max().copied().unwrap_or((0, MIN_DIGITS));
    let mut next = greatest + 1;
    if digits == TIMESTAMP_DIGITS {
        let stamp = now.to_zoned(TimeZone::UTC).strftime("%Y%m%d%H%M%S").to_string();
        next = next.max(stamp.parse().unwrap_or(0));
    }
    let number = format!("{next:0digits$}");
    if number.len() > MAX_DIGITS {
        let message = format!("The number after {greatest} has more than {MAX_DIGITS} digits");
        return Err(Refusal::new(message, "rename the migration with the greatest number"));
    }
    Ok(number)
}

/// A header, and no SQL: the engine refuses the file as empty until somebody writes some.
fn template(version: &Version, number: &str, direction: Direction, no_transaction: bool) -> String {
    let title = version.description().replace('_', " ");
    let title = match direction {
        Direction::Up => format!("Migration: {title}"),
        Direction::Down => format!("Rollback Migration: {title}"),
    };
    let directive = if no_transaction { "-- nexus: no-transaction\n" } else { "" };
    let file = version.file_name(direction);
    let impact = match direction {
        Direction::Up => "-- Impact:\n-- Rollback Impact:\n",
        Direction::Down => "-- Rollback Impact:\n",
    };
    format!(
        "-- {file}\n-- {title}\n-- Version: {number}\n-- Description:\n{impact}-- Data Loss:\n{directive}\n"
    )
}

fn create(path: &Path, text: &str) -> Result<(), Refusal> {
    File::create_new(path).and_then(|mut file| file.write_all(text.as_bytes())).map_err(|error| {
        let message = format!("Cannot create {}: {error}", path.display());
        let hint = match error.kind() {
            io::ErrorKind::AlreadyExists => "choose another name; what exists is never overwritten",
            _ => "see whether you may write to the directory",
        };
        Refusal::new(message, hint)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names() {
        let check = |name: &str, expected: Option<&str>| {
            assert_eq!(normalise(name).ok().as_deref(), expected, "{name:?}");
        };
        check("add_products", Some("add_products"));
        check("Add products", Some("add_products"));
        check(" add--products_2 ", Some("add_products_2"));
        for wrong in ["", " ", "../x", "add.products", "0010_add", "Ädd", "a'b", "add_products.up.sql"] {
            check(wrong, None);
        }
        check(&"x".repeat(201), None);
    }

    #[test]
    fn next_numbers() {
        let now: Timestamp = "2025-10-30T10:15:30Z".parse().expect("a time");
        let check = |numbers: &[(u64, usize)], expected: &str| {
            assert_eq!(next_number(numbers, now).expect("it fits"), expected, "{numbers:?}");
        };
        check(&[], "0001");
        check(&[(9, 4), (10, 4), (2, 4)], "0011");
        check(&[(9999, 4)], "10000");
        check(&[(12, 6)], "000013");
        check(&[(20_240_101_000_000, 14)], "20251030101530");
        check(&[(20_251_030_101_530, 14)], "20251030101531");
        check(&[(20_991_231_235_959, 14)], "20991231235960");
        assert!(next_number(&[(999_999_999_999_999_999, 18)], now).is_err());
    }

    #[test]
    fn the_template_is_the_runbooks_header_and_holds_no_sql() {
        let version = Version::parse("0010_add_products", Naming::Strict).expect("a version");
        let up = template(&version, "0010", Direction::Up, false);
        assert_eq!(
            up,
            "-- 0010_add_products.up.sql\n-- Migration: add products\n-- Version: 0010\n-- Description:\n\
             -- Impact:\n-- Rollback Impact:\n-- Data Loss:\n\n"
        );
        let down = template(&version, "0010", Direction::Down, true);
        assert!(down.contains("-- Rollback Migration: add products\n"), "{down}");
        assert!(down.ends_with("-- nexus: no-transaction\n\n"), "{down}");
        assert!(
            [up, down].iter().all(|text| text.lines().all(|line| line.is_empty() || line.starts_with("--")))
        );
    }
}
