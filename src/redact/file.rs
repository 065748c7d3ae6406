//! Files that hold secrets, and files by which somebody is let in: what is read is what was looked at, as
//! each is opened once.

use std::{
    fs::{self, File, Metadata, OpenOptions},
    io::{self, Read as _},
    os::unix::fs::{MetadataExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
};

/// The most bytes that such a file may have.
const MOST_BYTES: u64 = 1 << 20;

/// A file that was read, with who may use it. There is no `Debug`: it may hold a secret.
pub struct GuardedFile {
    path: PathBuf,
    bytes: Vec<u8>,
    metadata: Metadata,
}

impl GuardedFile {
    /// Reads a regular file.
    pub fn read(path: &Path) -> io::Result<Self> {
        let is_regular = |metadata: &Metadata| {
            if metadata.is_file() { Ok(()) } else { Err(io::Error::other("it is no regular file")) }
        };
        // A pipe without a writer would be waited for.
        is_regular(&fs::metadata(path)?)?;
        let file = Self::read_whatever(path)?;
        is_regular(&file.metadata)?;
        Ok(file)
    }

    /// Reads a file, a pipe included: a shell makes those of `<(command)`.
    pub fn read_whatever(path: &Path) -> io::Result<Self> {
        let file = File::open(path)?;
        let metadata = file.metadata()?;
        let mut bytes = Vec::new();
        file.take(MOST_BYTES + 1).read_to_end(&mut bytes)?;
        if bytes.len() as u64 > MOST_BYTES {
            return Err(io::Error::other(format!("it is larger than {MOST_BYTES} bytes")));
        }
        Ok(Self { path: path.to_owned(), bytes, metadata })
    }

    /// What is in it.
    pub fn into_bytes(self) -> Vec<u8> {
        self.bytes
    }

    /// What is in it, as text.
    pub fn into_text(self) -> io::Result<String> {
        // The error would show what is in it.
        String::from_utf8(self.bytes).map_err(|_| io::Error::other("it is not UTF-8"))
    }

    /// Refuses a file that others than its owner may read or write, saying what to do. A file of root's may
    /// be readable for one group: systemd's credentials and Kubernetes' secrets are such.
    pub fn refuse_others(&self) -> Result<(), String> {
        refuse_others(&self.path, &self.metadata)
    }

    /// Refuses a file that others than its owner may write, saying what to do: everybody may read it.
    pub fn refuse_writers(&self) -> Result<(), String> {
        refuse(&self.path, &self.metadata, 0o022, "644")
    }

    /// Refuses a file that belongs to neither root nor this user: whoever it belongs to may write what they
    /// like.
    pub fn refuse_strangers(&self, own_uid: u32) -> Result<(), String> {
        let (shown, owner) = (self.path.display(), self.metadata.uid());
        if [0, own_uid].contains(&owner) {
            return Ok(());
        }
        Err(format!(
            "{shown} belongs to the user {owner}, who could let anybody in: it has to belong to root or to nexusd's user"
        ))
    }
}

/// The same of a file that is open, and is not read as a whole.
pub fn refuse_others(path: &Path, metadata: &Metadata) -> Result<(), String> {
    let forbidden = if metadata.uid() == 0 { 0o037 } else { 0o077 };
    refuse(path, metadata, forbidden, "600")
}

/// Refuses a directory that others may look into.
pub fn refuse_others_in(directory: &Path, metadata: &Metadata) -> Result<(), String> {
    refuse(directory, metadata, 0o077, "700")
}

/// Opens a file as the options say; where it is missing, makes it for its owner only, and its directory.
pub fn open_for_its_owner(path: &Path, options: &mut OpenOptions) -> io::Result<File> {
    if let Some(directory) = path.parent().filter(|directory| !directory.as_os_str().is_empty()) {
        fs::create_dir_all(directory)?;
    }
    options.create(true).mode(0o600).open(path)
}

fn refuse(path: &Path, metadata: &Metadata, forbidden: u32, wanted: &str) -> Result<(), String> {
    let mode = metadata.mode() & 0o7777;
    if mode & forbidden == 0 {
        return Ok(());
    }
    let shown = path.display();
    Err(format!("{shown} has the mode {mode:04o}, so that others may use it: chmod {wanted} {shown}"))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt as _, chown};

    use super::*;

    #[test]
    fn who_may_use_a_file() {
        let home = tempfile::tempdir().expect("a directory is made");
        let path = home.path().join("secret");
        fs::write(&path, "hunter2").expect("it is written");
        let check = |mode: u32, owner: u32, secret: bool, public: bool| {
            // Only root gives files away: elsewhere they are all one's own.
            let is_given = chown(&path, Some(owner), None).is_ok();
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).expect("it is set");
            let Ok(file) = GuardedFile::read(&path) else { return };
            let answers = (file.refuse_others().is_ok(), file.refuse_writers().is_ok());
            assert!(!is_given || answers == (secret, public), "{mode:o} of {owner}: {answers:?}");
            assert!(!is_given || file.refuse_strangers(7).is_ok() == [0, 7].contains(&owner));
            assert_eq!(file.into_text().ok().as_deref(), Some("hunter2"));
        };
        check(0o600, 1000, true, true);
        check(0o400, 0, true, true);
        check(0o440, 0, true, true);
        check(0o440, 1000, false, true);
        check(0o460, 0, false, false);
        check(0o604, 0, false, true);
        check(0o620, 1000, false, false);
        check(0o601, 7, false, true);
        check(0o602, 7, false, false);
    }

    #[test]
    fn what_is_no_file_is_not_waited_for() {
        let home = tempfile::tempdir().expect("a directory is made");
        let pipe = home.path().join("pipe");
        nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::S_IRWXU).expect("a pipe is made");
        let read = |path: &Path| GuardedFile::read(path).map(|_| ()).map_err(|error| error.to_string());
        assert_eq!(read(&pipe), Err("it is no regular file".to_owned()));
        assert_eq!(read(home.path()), Err("it is no regular file".to_owned()));
        let long = home.path().join("long");
        fs::write(&long, vec![b'x'; (1 << 20) + 1]).expect("it is written");
        assert_eq!(read(&long), Err("it is larger than 1048576 bytes".to_owned()));
    }
}
