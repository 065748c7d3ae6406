//! Opening the files of a migration directory, and nothing outside of it: no link leads out, nothing is
//! waited for that is no regular file.

use std::{
    fs::{self, File, OpenOptions},
    io,
    os::unix::fs::OpenOptionsExt as _,
    path::{Component, Path, PathBuf},
};

use nix::{
    errno::Errno,
    fcntl::{OFlag, OpenHow, ResolveFlag, openat2},
};

/// What a link that leads out is called.
pub(super) const LEADS_OUT: &str = "it is a symbolic link that leads out of the migration directory";

/// A migration directory, held so that its files are opened in it wherever its path leads later.
#[derive(Debug)]
pub(super) struct Bounds {
    given: PathBuf,
    /// The directory, every link followed.
    real: PathBuf,
    directory: File,
}

impl Bounds {
    /// The directory that a path leads to now.
    pub(super) fn of(given: &Path) -> io::Result<Self> {
        let real = fs::canonicalize(given)?;
        let directory = OpenOptions::new()
            .read(true)
            .custom_flags((OFlag::O_DIRECTORY | OFlag::O_PATH | OFlag::O_NOFOLLOW).bits())
            .open(&real)?;
        Ok(Self { given: given.to_owned(), real, directory })
    }

    /// Whether a path, every link followed, is in the directory.
    pub(super) fn hold(&self, real: &Path) -> bool {
        real.starts_with(&self.real)
    }

    /// Opens a regular file of the directory for reading.
    pub(super) fn open(&self, path: &Path) -> io::Result<File> {
        let below = path.strip_prefix(&self.real).or_else(|_| path.strip_prefix(&self.given));
        let below = below.map_err(|_| io::Error::other("it is not in the migration directory"))?;
        let file = match self.open_below(below, ResolveFlag::RESOLVE_BENEATH) {
            // A link that begins at the root of the file system, be it to a file in here; or a system
            // that does not know the call, or does not let it through.
            Err(Errno::EXDEV | Errno::ENOSYS | Errno::EPERM | Errno::EINVAL) => self.follow(below)?,
            opened => opened?,
        };
        // Since it was listed, something else may have come in its place.
        if file.metadata()?.is_file() { Ok(file) } else { Err(io::Error::other("it is no regular file")) }
    }

    fn open_below(&self, below: &Path, resolve: ResolveFlag) -> nix::Result<File> {
        // Whatever is there: a pipe without a writer is not waited for.
        let flags = OFlag::O_RDONLY | OFlag::O_CLOEXEC | OFlag::O_NONBLOCK | OFlag::O_NOCTTY;
        openat2(&self.directory, below, OpenHow::new().flags(flags).resolve(resolve)).map(File::from)
    }

    /// The same by a path in which every link was followed.
    fn follow(&self, below: &Path) -> io::Result<File> {
        let real = fs::canonicalize(self.real.join(below))?;
        let below = real.strip_prefix(&self.real).map_err(|_| io::Error::other(LEADS_OUT))?;
        debug_assert!(below.components().all(|part| matches!(part, Component::Normal(_))));
        let resolve = ResolveFlag::RESOLVE_BENEATH | ResolveFlag::RESOLVE_NO_SYMLINKS;
        match self.open_below(below, resolve) {
            Err(Errno::ENOSYS | Errno::EPERM | Errno::EINVAL) => {
                let flags = OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK | OFlag::O_NOCTTY;
                OpenOptions::new().read(true).custom_flags(flags.bits()).open(&real)
            }
            opened => Ok(opened?),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{io::Read as _, os::unix::fs::symlink};

    use nix::{sys::stat::Mode, unistd::mkfifo};

    use super::*;

    #[test]
    fn what_is_opened_is_in_the_directory_and_regular() {
        let home = tempfile::tempdir().expect("a directory is made");
        let (root, outside) = (home.path().join("root"), home.path().join("outside.sql"));
        fs::create_dir_all(root.join("more")).expect("a directory is made");
        fs::write(&outside, "outside").expect("it is written");
        fs::write(root.join("more/a.sql"), "inside").expect("it is written");
        let link = |target: &Path, name: &str| symlink(target, root.join(name)).expect("a link is made");
        link(Path::new("more/a.sql"), "relative.sql");
        link(&root.join("more/a.sql"), "absolute.sql");
        link(Path::new("../outside.sql"), "out.sql");
        link(&outside, "far.sql");
        link(Path::new("../../outside.sql"), "more/out.sql");
        link(home.path(), "up");
        mkfifo(&root.join("pipe.sql"), Mode::S_IRWXU).expect("a pipe is made");
        // The directory's own path may be a link, which is swapped later.
        let given = home.path().join("given");
        symlink(&root, &given).expect("a link is made");
        let bounds = Bounds::of(&given).expect("it is a directory");
        let check = |name: &str, expected: Result<&str, &str>| {
            for base in [&given, &root] {
                let read = bounds.open(&base.join(name)).and_then(|mut file| {
                    let mut text = String::new();
                    file.read_to_string(&mut text).map(|_| text)
                });
                let read = read.map_err(|error| error.to_string());
                assert_eq!(read.as_deref().map_err(String::as_str), expected, "{name}");
            }
        };
        check("more/a.sql", Ok("inside"));
        check("relative.sql", Ok("inside"));
        check("absolute.sql", Ok("inside"));
        for name in ["out.sql", "far.sql", "more/out.sql", "up/outside.sql"] {
            check(name, Err(LEADS_OUT));
        }
        for name in ["pipe.sql", "more"] {
            check(name, Err("it is no regular file"));
        }
        fs::remove_file(&given).expect("the link is removed");
        symlink(home.path(), &given).expect("a link is made");
        check("more/a.sql", Ok("inside"));
        assert!(bounds.open(&outside).is_err());
    }
}
