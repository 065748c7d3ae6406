//! Files that hold one secret: a URL, a key.

use std::{fs, os::unix::fs::PermissionsExt as _, path::Path};

/// Reads a file and trims it. The second text warns of others who can read it too; `what` says what
/// it holds.
pub(super) fn read(path: &Path, what: &str) -> Result<(String, Option<String>), String> {
    let shown = path.display();
    let read = fs::read_to_string(path).and_then(|text| Ok((text, fs::metadata(path)?)));
    let (text, metadata) = read.map_err(|error| format!("cannot read {shown}: {error}"))?;
    let is_open = metadata.permissions().mode() & 0o044 != 0;
    let warning =
        is_open.then(|| format!("{shown} holds {what} and other users can read it: chmod 600 {shown}"));
    Ok((text.trim().to_owned(), warning))
}
