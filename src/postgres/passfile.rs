//! The password file: `~/.pgpass`, `PGPASSFILE`, or the parameter `passfile`.

use std::{env, io::ErrorKind, path::PathBuf};

use crate::{
    postgres::url::{Endpoint, Host, Target},
    redact::{GuardedFile, SecretString},
};

/// The password that the file has for this endpoint of the target.
///
/// As libpq does, a file that others may read is ignored, with a warning; one of root's may be
/// readable for its group.
pub(super) fn password(target: &Target, endpoint: &Endpoint) -> Option<SecretString> {
    let path = target.passfile.clone().or_else(default_path)?;
    let file = match GuardedFile::read(&path) {
        Err(error) if error.kind() == ErrorKind::NotFound => return None,
        file => file.map_err(|error| error.to_string()),
    };
    let text = file.and_then(|file| {
        file.refuse_others()?;
        file.into_text().map_err(|error| error.to_string())
    });
    let text = match text {
        Ok(text) => text,
        Err(why) => {
            tracing::warn!(path = %path.display(), why, "the password file is ignored");
            return None;
        }
    };
    let host = match &endpoint.host {
        Host::Tcp(name) => name.clone(),
        Host::Socket(directory) if directory.ends_with("run/postgresql") => "localhost".to_owned(),
        Host::Socket(directory) => directory.display().to_string(),
    };
    let wanted = [&host, &endpoint.port.to_string(), &target.dbname, &target.user];
    text.lines().find_map(|line| matching(line, wanted)).map(SecretString::from)
}

fn default_path() -> Option<PathBuf> {
    match env::var_os("PGPASSFILE") {
        Some(path) if !path.is_empty() => Some(PathBuf::from(path)),
        _ => env::home_dir().map(|home| home.join(".pgpass")),
    }
}

/// The fifth field of `host:port:database:user:password`, if the first four match.
fn matching(line: &str, wanted: [&String; 4]) -> Option<String> {
    if line.starts_with('#') {
        return None;
    }
    let mut rest = line;
    for value in wanted {
        let (field, after) = field(rest);
        if field != "*" && unescape(field) != *value {
            return None;
        }
        rest = after?;
    }
    let password = unescape(field(rest).0);
    (!password.is_empty()).then_some(password)
}

/// The text up to the next colon without a backslash, and what follows it.
fn field(text: &str) -> (&str, Option<&str>) {
    let mut letters = text.char_indices();
    while let Some((at, letter)) = letters.next() {
        match letter {
            '\\' => drop(letters.next()),
            ':' => return (&text[..at], Some(&text[at + 1..])),
            _ => {}
        }
    }
    (text, None)
}

fn unescape(text: &str) -> String {
    let mut plain = String::with_capacity(text.len());
    let mut letters = text.chars();
    while let Some(letter) = letters.next() {
        plain.push(if letter == '\\' { letters.next().unwrap_or('\\') } else { letter });
    }
    plain
}

#[cfg(test)]
mod tests {
    use std::{
        fs::{self, Permissions},
        os::unix::fs::PermissionsExt as _,
    };

    use super::*;
    use crate::redact::ExposeSecret;

    #[test]
    fn first_matching_line_counts() {
        let wanted = ["db.example", "5432", "shop", "app:x"].map(str::to_owned);
        let cases = [
            ("db.example:5432:shop:app\\:x:pass", Some("pass")),
            ("*:*:*:*:any", Some("any")),
            ("db.example:5432:shop:app\\:x:a\\:b\\\\c:ignored", Some("a:b\\c")),
            ("other:5432:shop:app\\:x:pass", None),
            ("db.example:*:*:*:", None),
            ("# *:*:*:*:comment", None),
            ("db.example:5432", None),
            ("", None),
        ];
        for (line, expected) in cases {
            assert_eq!(matching(line, wanted.each_ref()).as_deref(), expected, "{line}");
        }
    }

    #[test]
    fn a_file_that_others_may_read_is_ignored() {
        let file = tempfile::NamedTempFile::new().expect("a temporary file");
        fs::write(file.path(), "# comment\nh:*:d:u:first\n*:*:*:*:second\n").expect("written");
        let url = format!("host=h dbname=d user=u passfile='{}'", file.path().display());
        let target = Target::parse(&SecretString::from(url)).expect("a good DSN");
        for (mode, expected) in [(0o600, Some("first")), (0o660, None), (0o604, None)] {
            fs::set_permissions(file.path(), Permissions::from_mode(mode)).expect("chmod");
            let found = password(&target, &target.endpoints[0]);
            assert_eq!(found.as_ref().map(ExposeSecret::expose_secret), expected, "{mode:o}");
        }
    }
}
