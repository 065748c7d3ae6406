//! `nexusctl context`: the daemons that one works with, and what each is shown.

use std::path::{Path, PathBuf};

use anyhow::Context as _;
use clap::Subcommand;

use crate::{
    cli::{
        Exit, Refusal,
        render::{self, table::Fit},
        session::Session,
    },
    selector::is_name,
};

pub mod store;

use store::{Contexts, Noted};

/// What is done with contexts.
#[derive(Debug, Subcommand)]
pub enum Action {
    /// Note a daemon: --server, and --ca, --token-file, --cert and --key as it wants them. The first one
    /// is used from then on
    Add {
        /// What it is called
        name: String,
        /// Use it from now on
        #[arg(long = "use")]
        is_used: bool,
        /// Note it anew where there is one of this name
        #[arg(long)]
        replace: bool,
    },
    /// Use a context from now on, where neither --context nor --server says otherwise
    Use {
        /// Its name
        name: String,
    },
    /// List the contexts
    List,
    /// Forget a context; the files that it names stay
    Remove {
        /// Its name
        name: String,
    },
}

/// Does it. No daemon is asked.
pub fn run(action: &Action, session: &mut Session) -> anyhow::Result<Exit> {
    let mut contexts = Contexts::read()?;
    let done = match action {
        Action::List => {
            list(&contexts, session)?;
            return Ok(Exit::Done);
        }
        Action::Add { name, is_used, replace } => {
            let noted = noted(session)?;
            add(&mut contexts, name, noted, *is_used, *replace)?
        }
        Action::Use { name } => {
            known(&contexts, name)?;
            contexts.current = Some(name.clone());
            format!("{name} is used from now on\n")
        }
        Action::Remove { name } => {
            known(&contexts, name)?;
            contexts.by_name.remove(name);
            if contexts.current.as_ref() == Some(name) {
                contexts.current = None;
            }
            format!("{name} is forgotten\n")
        }
    };
    contexts.write()?;
    if session.console.is_json() {
        list(&contexts, session)?;
    } else {
        session.console.note(&done);
    }
    Ok(Exit::Done)
}

/// The context of a name.
pub fn known<'a>(contexts: &'a Contexts, name: &str) -> Result<&'a Noted, Refusal> {
    contexts.by_name.get(name).ok_or_else(|| {
        let names: Vec<_> = contexts.by_name.keys().map(String::as_str).collect();
        let hint = if names.is_empty() {
            "nexusctl context add notes one".to_owned()
        } else {
            format!("there are {}", names.join(", "))
        };
        Refusal::new(format!("There is no context {name:?}"), hint)
    })
}

fn add(
    contexts: &mut Contexts,
    name: &str,
    noted: Noted,
    is_used: bool,
    replace: bool,
) -> Result<String, Refusal> {
    if !is_name(name) {
        let message = format!("{name:?} is no name of a context");
        return Err(Refusal::new(message, "letters, digits, `_`, `.` and `-` are"));
    }
    if !replace && contexts.by_name.contains_key(name) {
        return Err(Refusal::new(format!("There is a context {name:?} already"), "--replace notes it anew"));
    }
    let is_first = contexts.by_name.is_empty();
    let done = format!("{name} is {}\n", noted.server);
    contexts.by_name.insert(name.to_owned(), noted);
    if is_used || is_first {
        contexts.current = Some(name.to_owned());
    }
    Ok(done)
}

/// What the options say, with paths that mean the same from everywhere.
fn noted(session: &Session) -> anyhow::Result<Noted> {
    let global = &session.global;
    let Some(server) = &global.server else {
        return Err(Refusal::new("A context needs a daemon", "--server https://HOST:7421").into());
    };
    let absolute = |path: &Option<PathBuf>| path.as_deref().map(absolute).transpose();
    let noted = Noted {
        server: server.to_string(),
        ca: absolute(&global.ca)?,
        cert: absolute(&global.cert)?,
        key: absolute(&global.key)?,
        token_file: absolute(&global.token_file)?,
    };
    // What cannot be used is not noted.
    drop(session.credentials_of(&noted)?);
    Ok(noted)
}

fn absolute(path: &Path) -> anyhow::Result<PathBuf> {
    path.canonicalize().with_context(|| format!("Cannot use {}", path.display()))
}

fn list(contexts: &Contexts, session: &mut Session) -> anyhow::Result<()> {
    if session.console.is_json() {
        session.console.json(&render::json::Contexts::from(contexts))?;
        return Ok(());
    }
    if contexts.by_name.is_empty() {
        session.console.data("no contexts\n")?;
        return Ok(());
    }
    let row = |(name, noted): (&String, &Noted)| {
        let shown = [(&noted.token_file, "token"), (&noted.cert, "certificate")];
        let shown: Vec<_> =
            shown.into_iter().filter(|(file, _)| file.is_some()).map(|(_, word)| word).collect();
        let is_current = contexts.current.as_ref() == Some(name);
        let used = if is_current { "*" } else { "" };
        vec![used.to_owned(), name.clone(), noted.server.clone(), shown.join(", ")]
    };
    let columns = [("", Fit::Whole), ("name", Fit::Whole), ("server", Fit::Cut), ("shown", Fit::Whole)];
    let rows = contexts.by_name.iter().map(row).collect();
    let width = session.console.width();
    session.console.data(&format!("{}\n", render::table::table(&columns, rows, width)))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_one_is_used() {
        let mut contexts = Contexts::default();
        let noted =
            || Noted { server: "https://h:1".into(), ca: None, cert: None, key: None, token_file: None };
        let mut add = |name: &str, is_used, replace| {
            let added = super::add(&mut contexts, name, noted(), is_used, replace);
            (added.is_ok(), contexts.current.clone().unwrap_or_default())
        };
        assert_eq!(add("a b", false, false), (false, String::new()));
        assert_eq!(add("dev", false, false), (true, "dev".to_owned()));
        assert_eq!(add("prod", false, false), (true, "dev".to_owned()));
        assert_eq!(add("prod", true, false), (false, "dev".to_owned()));
        assert_eq!(add("prod", true, true), (true, "prod".to_owned()));
        assert_eq!(
            known(&contexts, "x").err().map(|refusal| refusal.hint),
            Some("there are dev, prod".to_owned())
        );
    }
}
