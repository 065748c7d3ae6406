//! Files that hold one secret: a URL, a key.

use std::path::Path;

use crate::redact::GuardedFile;

/// Reads a file and trims it. One that others may use is refused: it is nobody's secret any more.
pub(super) fn read(path: &Path) -> Result<String, String> {
    let unreadable = |error: std::io::Error| format!("cannot read {}: {error}", path.display());
    let file = GuardedFile::read(path).map_err(unreadable)?;
    file.refuse_others()?;
    Ok(file.into_text().map_err(unreadable)?.trim().to_owned())
}
