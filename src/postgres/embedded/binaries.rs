//! Where PostgreSQL's server programs are.

use std::{
    env,
    ffi::{OsStr, OsString},
    fs,
    path::{Path, PathBuf},
};

use super::EmbeddedError;

/// The directory that holds both `initdb` and `postgres`: the one in `NEXUS_PG_BIN`, else the first of
/// PATH, else the newest of those that Debian's packages install.
pub(super) fn find() -> Result<PathBuf, EmbeddedError> {
    find_in(env::var_os("NEXUS_PG_BIN"), env::var_os("PATH").as_deref(), Path::new("/usr/lib/postgresql"))
}

fn find_in(
    explicit: Option<OsString>,
    path: Option<&OsStr>,
    debian: &Path,
) -> Result<PathBuf, EmbeddedError> {
    if let Some(explicit) = explicit.filter(|explicit| !explicit.is_empty()) {
        let explicit = PathBuf::from(explicit);
        return complete(&explicit).ok_or(EmbeddedError::BadBin(explicit));
    }
    let on_path = path.into_iter().flat_map(env::split_paths).find_map(|directory| complete(&directory));
    on_path.or_else(|| newest(debian)).ok_or(EmbeddedError::NotInstalled)
}

/// The real directory of this one's `initdb`, if `postgres` is there too: PATH often holds links only,
/// and the programs find the rest of their installation beside themselves.
fn complete(directory: &Path) -> Option<PathBuf> {
    let real = directory.join("initdb").canonicalize().ok()?;
    let directory = real.parent()?;
    directory.join("postgres").is_file().then(|| directory.to_owned())
}

fn newest(debian: &Path) -> Option<PathBuf> {
    let mut versions: Vec<(u32, PathBuf)> = fs::read_dir(debian)
        .ok()?
        .filter_map(Result::ok)
        .filter_map(|entry| Some((entry.file_name().to_str()?.parse().ok()?, entry.path().join("bin"))))
        .collect();
    versions.sort();
    versions.into_iter().rev().find_map(|(_, directory)| complete(&directory))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn explicit_then_path_then_the_newest() {
        let root = tempfile::tempdir().expect("a temporary directory");
        let root = root.path().canonicalize().expect("it exists");
        let make = |name: &str, programs: &[&str]| {
            let directory = root.join(name);
            fs::create_dir_all(&directory).expect("created");
            for program in programs {
                fs::write(directory.join(program), "").expect("written");
            }
            directory
        };
        let (nine, fifteen) =
            (make("9/bin", &["initdb", "postgres"]), make("15/bin", &["initdb", "postgres"]));
        make("16/bin", &["initdb"]);
        let links = make("links", &[]);
        symlink(nine.join("initdb"), links.join("initdb")).expect("linked");
        let found = |explicit: Option<&Path>, path: Option<&Path>, debian: &Path| {
            find_in(explicit.map(Into::into), path.map(Path::as_os_str), debian)
        };
        assert_eq!(found(Some(&fifteen), Some(&links), &root).ok(), Some(fifteen.clone()));
        assert_eq!(found(None, Some(&links), &root).ok(), Some(nine));
        assert_eq!(found(None, None, &root).ok(), Some(fifteen));
        assert!(matches!(found(Some(&links.join("x")), None, &root), Err(EmbeddedError::BadBin(_))));
        assert!(matches!(found(None, None, &links), Err(EmbeddedError::NotInstalled)));
    }
}
