//! Files that hold one secret: a URL, a key.

use std::{fs, os::unix::fs::MetadataExt as _, path::Path};

/// Reads a file and trims it. The second text warns of others who can read it too; `what` says what
/// it holds.
pub(super) fn read(path: &Path, what: &str) -> Result<(String, Option<String>), String> {
    let shown = path.display();
    let read = fs::read_to_string(path).and_then(|text| Ok((text, fs::metadata(path)?)));
    let (text, metadata) = read.map_err(|error| format!("cannot read {shown}: {error}"))?;
    let warning = is_open(metadata.mode(), metadata.uid())
        .then(|| format!("{shown} holds {what} and other users can read it: chmod 600 {shown}"));
    Ok((text.trim().to_owned(), warning))
}

/// PostgreSQL's rule for its private keys: a file of root's may be readable for one group. systemd's
/// credentials (by an access list, which shows as the group's bit) and Kubernetes' secrets are such.
fn is_open(mode: u32, owner: u32) -> bool {
    let forbidden = if owner == 0 { 0o004 } else { 0o044 };
    mode & forbidden != 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_can_read_a_secret() {
        let check = |mode: u32, owner: u32, expected: bool| {
            assert_eq!(is_open(mode, owner), expected, "{mode:o} of {owner}");
        };
        check(0o100_400, 0, false);
        check(0o100_600, 1000, false);
        check(0o100_440, 0, false);
        check(0o100_640, 0, false);
        check(0o100_640, 1000, true);
        check(0o100_644, 0, true);
        check(0o100_604, 1000, true);
    }
}
