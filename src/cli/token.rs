//! `nexusctl token create`: makes a token, and the entry of the daemon's file that lets it in. The daemon
//! is not asked, and never sees more of a token than its SHA-256 until it is used.

use std::{fmt::Write as _, path::PathBuf, time::Duration};

use anyhow::Context as _;
use clap::{Subcommand, ValueEnum};
use jiff::Timestamp;
use rustls::crypto::ring;

use crate::{
    access::{
        Role,
        grant::EVERY,
        identity::{NAME_FORM, digest, hex, is_name},
    },
    cli::{Exit, Refusal, args, context::store::write_for_its_owner, render, session::Session},
    redact::TOKEN_PREFIX,
};

/// What is done with tokens.
#[derive(Debug, Subcommand)]
pub enum Action {
    /// Make a token for the databases of -d, -l or --all, and print the entry for the daemon's file: the
    /// token goes to stdout and the entry to stderr; with --out the token goes to the file, and the entry
    /// to stdout
    Create(Create),
}

/// A token to be made.
#[derive(Debug, clap::Args)]
pub struct Create {
    /// Who has it: what is written down of who did something
    #[arg(long, value_name = "NAME", value_parser = name)]
    name: String,
    /// What it may do
    #[arg(long, value_enum)]
    role: Word,
    /// For how long it is good, or "never"
    #[arg(long, value_name = "DURATION", default_value = "90d", value_parser = expiry)]
    expires: Expiry,
    /// How many migrations an operator rolls back at once [default: as the daemon's configuration says]
    #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(u32).range(1..=10_000))]
    max_rollback_steps: Option<u32>,
    /// The file that the token is written to, of mode 0600; it must not be there yet
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
}

/// A role, as an argument.
#[derive(Debug, Clone, Copy, ValueEnum)]
enum Word {
    /// Read
    Viewer,
    /// Apply, recover, roll back some steps, steer operations
    Operator,
    /// Everything
    Admin,
}

impl From<Word> for Role {
    fn from(word: Word) -> Self {
        match word {
            Word::Viewer => Self::Viewer,
            Word::Operator => Self::Operator,
            Word::Admin => Self::Admin,
        }
    }
}

fn name(text: &str) -> Result<String, String> {
    if is_name(text) { Ok(text.to_owned()) } else { Err(format!("expected {NAME_FORM}")) }
}

/// When it ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Expiry(Option<Duration>);

fn expiry(text: &str) -> Result<Expiry, String> {
    if text == "never" {
        return Ok(Expiry(None));
    }
    args::duration(text).map(|duration| Expiry(Some(duration)))
}

/// Makes a token.
pub fn run(action: &Action, session: &mut Session) -> anyhow::Result<Exit> {
    let Action::Create(create) = action;
    let global = &session.global;
    if global.database.is_empty() && global.selector.is_empty() && !global.all {
        let message = "For which databases is the token?";
        return Err(Refusal::new(message, "-d 'orders-*', -l env=prod, or --all for every one").into());
    }
    let databases = if global.database.is_empty() { vec![EVERY.to_owned()] } else { global.database.clone() };
    let token = new_token()?;
    let entry = entry(create, &token, &databases, &global.selector, Timestamp::now())?;
    if let Some(out) = &create.out {
        write_for_its_owner(out, format!("{token}\n").as_bytes(), false)
            .with_context(|| format!("Cannot write the token to {}", out.display()))?;
    }
    let console = &mut session.console;
    if console.is_json() {
        let shown = create.out.is_none().then_some(token);
        console.json(&render::json::NewToken { token: shown, file: create.out.clone(), entry })?;
    } else if create.out.is_some() {
        console.data(&entry)?;
    } else {
        console.note(&format!("{entry}\n"));
        console.data(&format!("{token}\n"))?;
    }
    Ok(Exit::Done)
}

/// 256 bits of the system's randomness.
fn new_token() -> anyhow::Result<String> {
    let mut bytes = [0; 32];
    let random = ring::default_provider().secure_random;
    random.fill(&mut bytes).ok().context("The system has no randomness to give")?;
    Ok(format!("{TOKEN_PREFIX}{}", hex(&bytes)))
}

/// The entry of the daemon's file.
fn entry(
    create: &Create,
    token: &str,
    databases: &[String],
    selectors: &[String],
    now: Timestamp,
) -> anyhow::Result<String> {
    let sha256 = hex(&digest(token));
    let mut entry = toml::Table::new();
    entry.insert("name".into(), create.name.clone().into());
    entry.insert("sha256".into(), sha256.into());
    entry.insert("role".into(), Role::from(create.role).as_str().into());
    entry.insert("databases".into(), databases.to_vec().into());
    if !selectors.is_empty() {
        entry.insert("selector".into(), selectors.join(",").into());
    }
    if let Some(steps) = create.max_rollback_steps {
        entry.insert("max_rollback_steps".into(), i64::from(steps).into());
    }
    if let Some(duration) = create.expires.0 {
        let expires = now.checked_add(duration).context("--expires is too far away")?;
        entry.insert("expires".into(), format!("{expires:.0}").into());
    }
    let mut text = "[[token]]\n".to_owned();
    for key in ["name", "sha256", "role", "databases", "selector", "max_rollback_steps", "expires"] {
        if let Some(value) = entry.get(key) {
            writeln!(text, "{key} = {value}")?;
        }
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_differ_and_are_long() {
        let (one, two) = (new_token().expect("it is made"), new_token().expect("it is made"));
        assert_ne!(one, two);
        assert!(one.starts_with(TOKEN_PREFIX) && one.len() == TOKEN_PREFIX.len() + 64, "{one}");
    }

    #[test]
    fn an_entry_holds_no_token() {
        let create = Create {
            name: "c/i".into(),
            role: Word::Operator,
            expires: expiry("90d").expect("a duration"),
            max_rollback_steps: Some(3),
            out: None,
        };
        let now = "2026-11-23T00:00:00Z".parse().expect("a time");
        let selectors = ["env=prod".to_owned(), "tier!=gold".to_owned()];
        let text = entry(&create, "nexus_a", &["*".to_owned()], &selectors, now).expect("it is written");
        let sha256 = "9451f650";
        assert!(text.starts_with(&format!("[[token]]\nname = \"c/i\"\nsha256 = \"{sha256}")), "{text}");
        assert!(
            text.ends_with(
                "role = \"operator\"\ndatabases = [\"*\"]\nselector = \"env=prod,tier!=gold\"\n\
                 max_rollback_steps = 3\nexpires = \"2027-02-21T00:00:00Z\"\n"
            ),
            "{text}"
        );
        assert!(!text.contains("nexus_a"), "{text}");
        assert_eq!(expiry("never"), Ok(Expiry(None)));
        assert!(expiry("soon").is_err());
        assert_eq!(name("ana@example.com").as_deref(), Ok("ana@example.com"));
        for wrong in ["", "a b", "c\"i", "a\u{1b}[0m"] {
            assert!(name(wrong).is_err(), "{wrong:?}");
        }
    }
}
