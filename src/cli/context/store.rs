//! The file of contexts: `nexus/contexts.toml` in the directory that the XDG Base Directory Specification
//! names for configuration. It says who one is, so that it is for its owner only.

use std::{
    collections::BTreeMap,
    env,
    fs::{self, DirBuilder, OpenOptions},
    io::{self, ErrorKind, Write as _},
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
};

use anyhow::Context as _;
use serde::{Deserialize, Serialize};

use crate::{
    cli::Refusal,
    redact::{GuardedFile, refuse_others_in},
};

/// What is noted of daemons.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Contexts {
    /// The one that counts where nothing else is said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub current: Option<String>,
    /// All of them, by name.
    #[serde(default, rename = "context")]
    pub by_name: BTreeMap<String, Noted>,
}

/// One daemon, and what it is shown.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Noted {
    /// Where it is.
    pub server: String,
    /// The authorities of its certificate.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca: Option<PathBuf>,
    /// The certificate that says who asks.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cert: Option<PathBuf>,
    /// Its key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<PathBuf>,
    /// The file of the token that says who asks.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token_file: Option<PathBuf>,
}

/// Where the file is; `None` where there is no home.
fn path() -> Option<PathBuf> {
    let configured = env::var_os("XDG_CONFIG_HOME").map(PathBuf::from).filter(|path| path.is_absolute());
    let home = || env::home_dir().filter(|home| home.is_absolute()).map(|home| home.join(".config"));
    Some(configured.or_else(home)?.join("nexus").join("contexts.toml"))
}

impl Contexts {
    /// Reads the file; nothing is noted where there is none.
    pub fn read() -> anyhow::Result<Self> {
        match path() {
            Some(path) => Self::read_from(&path),
            None => Ok(Self::default()),
        }
    }

    fn read_from(path: &Path) -> anyhow::Result<Self> {
        let unreadable = || format!("Cannot read {}", path.display());
        let file = match GuardedFile::read(path) {
            Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => {
                return Ok(Self::default());
            }
            file => file.with_context(unreadable)?,
        };
        file.refuse_others().map_err(refused)?;
        refuse_open_directory(path)?;
        let text = file.into_text().with_context(unreadable)?;
        let contexts = toml::from_str(&text).map_err(|error: toml::de::Error| {
            let line =
                error.span().map_or(1, |span| text[..span.start.min(text.len())].matches('\n').count() + 1);
            let message = format!("{}:{line}: {}", path.display(), error.message());
            Refusal::new(message, "correct the file, or remove it and add the contexts again")
        })?;
        Ok(contexts)
    }

    /// Writes the file, whole or not at all.
    pub fn write(&self) -> anyhow::Result<()> {
        let path = path().ok_or_else(|| {
            Refusal::new("There is no home directory to note a context in", "set HOME or XDG_CONFIG_HOME")
        })?;
        match self.write_to(&path) {
            Err(error) if !error.is::<Refusal>() => {
                Err(error.context(format!("Cannot write {}", path.display())))
            }
            written => written,
        }
    }

    fn write_to(&self, path: &Path) -> anyhow::Result<()> {
        if let Some(directory) = path.parent() {
            DirBuilder::new().recursive(true).mode(0o700).create(directory)?;
        }
        refuse_open_directory(path)?;
        let new = path.with_extension("toml.new");
        let text = toml::to_string(self)?;
        write_for_its_owner(&new, text.as_bytes(), true)?;
        Ok(fs::rename(&new, path)?)
    }
}

/// Refuses a file's directory that others may use.
fn refuse_open_directory(path: &Path) -> anyhow::Result<()> {
    let directory = path.parent().unwrap_or(path);
    Ok(refuse_others_in(directory, &fs::metadata(directory)?).map_err(refused)?)
}

/// Writes a file that only its owner may read.
pub fn write_for_its_owner(path: &Path, bytes: &[u8], replace: bool) -> io::Result<()> {
    if replace {
        // The mode counts for a file that is made: one that was left over may have another.
        match fs::remove_file(path) {
            Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    file.write_all(bytes)?;
    file.sync_all()
}

fn refused(message: String) -> Refusal {
    Refusal::new(message, "what says who you are is for you only")
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};

    use super::*;

    #[test]
    fn what_is_noted_is_for_its_owner_only() {
        let home = tempfile::tempdir().expect("a directory is made");
        let path = home.path().join("nexus/contexts.toml");
        assert_eq!(Contexts::read_from(&path).expect("there is none"), Contexts::default());
        let prod = Noted {
            server: "https://nexus:7421".into(),
            ca: Some("/etc/ca.pem".into()),
            cert: None,
            key: None,
            token_file: None,
        };
        let contexts = Contexts { current: Some("prod".into()), by_name: [("prod".to_owned(), prod)].into() };
        contexts.write_to(&path).expect("it is written");
        assert_eq!(Contexts::read_from(&path).expect("it is read"), contexts);
        let mode = |path: &Path| fs::metadata(path).expect("it is there").mode() & 0o7777;
        assert_eq!((mode(&path), mode(path.parent().expect("a directory"))), (0o600, 0o700));
        let set = |path: &Path, mode| {
            fs::set_permissions(path, fs::Permissions::from_mode(mode)).expect("it is set");
        };
        let check = |part: &str| {
            let said = Contexts::read_from(&path).expect_err("it is refused").to_string();
            assert!(said.contains(part), "{part:?} in {said}");
        };
        set(&path, 0o644);
        check("chmod 600");
        set(&path, 0o600);
        set(path.parent().expect("a directory"), 0o755);
        check("chmod 700");
        assert!(contexts.write_to(&path).is_err());
        set(path.parent().expect("a directory"), 0o700);
        fs::write(&path, "current = \"prod\"\nserver = 1\n").expect("it is written");
        check("contexts.toml:2: unknown field");
    }
}
