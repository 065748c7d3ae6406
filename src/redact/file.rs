//! Files that hold keys are for their owner only.

use std::{fs::Metadata, os::unix::fs::MetadataExt as _, path::Path};

/// Refuses a file that others than its owner may read or write, saying what to do. A file of root's may be
/// readable for one group: systemd's credentials and Kubernetes' secrets are such.
pub fn refuse_others(path: &Path, metadata: &Metadata) -> Result<(), String> {
    let mode = metadata.mode();
    if !is_open(mode, metadata.uid()) {
        return Ok(());
    }
    let shown = path.display();
    Err(format!("{shown} has the mode {:04o}, so that others may use it: chmod 600 {shown}", mode & 0o7777))
}

fn is_open(mode: u32, owner: u32) -> bool {
    let forbidden = if owner == 0 { 0o037 } else { 0o077 };
    mode & forbidden != 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_may_use_a_file() {
        let check = |mode: u32, owner: u32, expected: bool| {
            assert_eq!(is_open(mode, owner), expected, "{mode:o} of {owner}");
        };
        check(0o100_600, 1000, false);
        check(0o100_400, 0, false);
        check(0o100_440, 0, false);
        check(0o100_440, 1000, true);
        check(0o100_460, 0, true);
        check(0o100_604, 0, true);
        check(0o100_620, 1000, true);
        check(0o100_601, 1000, true);
    }
}
