//! The directory of an embedded server: whose it is, and the sweeping of those whose owner died.

use std::{
    env, fs, io,
    os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _, chown},
    path::{Path, PathBuf},
    process, thread,
    time::{Duration, Instant},
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::{Pid, User, geteuid},
};

use super::EmbeddedError;

const PREFIX: &str = "nexus-pg-";
/// How long an orphaned server may take to end.
const ORPHAN_LIMIT: Duration = Duration::from_secs(5);

/// Whom the server runs as, where that is not us.
#[derive(Debug, Clone, Copy)]
pub(super) struct Account {
    pub(super) uid: u32,
    pub(super) gid: u32,
}

impl Account {
    /// As root `postgres`, else `nobody`; as anybody else, oneself.
    pub(super) fn choose() -> Result<Option<Self>, EmbeddedError> {
        if !geteuid().is_root() {
            return Ok(None);
        }
        let user = ["postgres", "nobody"].into_iter().find_map(|name| User::from_name(name).ok().flatten());
        let user = user.filter(|user| !user.uid.is_root()).ok_or(EmbeddedError::NoAccount)?;
        Ok(Some(Self { uid: user.uid.as_raw(), gid: user.gid.as_raw() }))
    }
}

/// Where servers' directories are: the system's temporary directory, unless its path is too long for a
/// socket (107 characters at most), or root's alone where another account is to run the server.
pub(super) fn base(account: Option<Account>) -> PathBuf {
    let base = env::temp_dir();
    let base = base.canonicalize().unwrap_or(base);
    let entered = |path: &Path| fs::metadata(path).is_ok_and(|metadata| metadata.mode() & 0o001 != 0);
    let fits = base.as_os_str().len() <= 64 && (account.is_none() || base.ancestors().all(entered));
    if fits { base } else { PathBuf::from("/tmp") }
}

/// The directory of one server; its name tells the owner's process.
#[derive(Debug)]
pub(super) struct Directory {
    path: PathBuf,
    account: Option<Account>,
}

impl Directory {
    pub(super) fn create(base: &Path, account: Option<Account>) -> Result<Self, EmbeddedError> {
        for number in 0u32.. {
            let path = base.join(format!("{PREFIX}{}-{number}", process::id()));
            match fs::DirBuilder::new().mode(0o700).create(&path) {
                Ok(()) => {
                    let directory = Self { path, account };
                    directory.give(&directory.path)?;
                    directory.write("owner", &Owner::of(process::id()).to_line())?;
                    return Ok(directory);
                }
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                Err(source) => {
                    return Err(EmbeddedError::Io { what: format!("create {}", path.display()), source });
                }
            }
        }
        Err(EmbeddedError::io("name a directory")(io::ErrorKind::AlreadyExists.into()))
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Writes a file that only the server's account may read.
    pub(super) fn write(&self, name: &str, text: &str) -> Result<PathBuf, EmbeddedError> {
        let path = self.path.join(name);
        fs::OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&path)
            .and_then(|mut file| io::Write::write_all(&mut file, text.as_bytes()))
            .map_err(EmbeddedError::io(format!("write {}", path.display())))?;
        self.give(&path)?;
        Ok(path)
    }

    pub(super) fn remove(&self) -> Result<(), EmbeddedError> {
        match fs::remove_dir_all(&self.path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(EmbeddedError::io(format!("remove {}", self.path.display()))(error))
            }
            _ => Ok(()),
        }
    }

    fn give(&self, path: &Path) -> Result<(), EmbeddedError> {
        let Some(account) = self.account else { return Ok(()) };
        chown(path, Some(account.uid), Some(account.gid))
            .map_err(EmbeddedError::io(format!("give {} to the server's user", path.display())))
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        if let Err(error) = self.remove() {
            tracing::warn!(%error, "directory of the embedded server is left behind");
        }
    }
}

/// A process that cannot be mistaken for a later one with the same number.
#[derive(Debug, PartialEq, Eq)]
struct Owner {
    pid: u32,
    /// When it started, in the kernel's ticks; absent where there is no `/proc`, or no such process.
    started: Option<u64>,
    /// The process-number space: a container that shares the directory has another.
    space: Option<String>,
}

impl Owner {
    fn of(pid: u32) -> Self {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        // The second field is the program's name, which may itself hold spaces and parentheses.
        let started =
            stat.rsplit_once(')').and_then(|(_, rest)| rest.split_whitespace().nth(19)?.parse().ok());
        let space = fs::read_link("/proc/self/ns/pid").ok().map(|link| link.to_string_lossy().into_owned());
        Self { pid, started, space }
    }

    fn to_line(&self) -> String {
        let started = self.started.map_or("-".to_owned(), |started| started.to_string());
        format!("{} {started} {}\n", self.pid, self.space.as_deref().unwrap_or("-"))
    }

    fn from_line(line: &str) -> Option<Self> {
        let mut words = line.split_whitespace();
        let pid = words.next()?.parse().ok()?;
        let started = words.next()?.parse().ok();
        Some(Self { pid, started, space: words.next().filter(|space| *space != "-").map(str::to_owned) })
    }

    /// Whether the process is known to have ended.
    fn is_dead(&self) -> bool {
        let now = Self::of(self.pid);
        if self.space != now.space {
            return false;
        }
        match self.started {
            Some(_) => self.started != now.started,
            None => !exists(self.pid),
        }
    }
}

fn exists(pid: u32) -> bool {
    !matches!(kill(Pid::from_raw(pid.cast_signed()), None), Err(nix::errno::Errno::ESRCH))
}

/// Ends the servers and removes the directories whose owner has died without doing so.
pub(super) fn sweep(base: &Path, account: Option<Account>) {
    let Ok(entries) = fs::read_dir(base) else { return };
    for entry in entries.filter_map(Result::ok) {
        let name = entry.file_name();
        let Some(pid) = name.to_str().and_then(owner_of_name) else { continue };
        let Ok(metadata) = fs::symlink_metadata(entry.path()) else { continue };
        let uid = metadata.uid();
        let ours = uid == geteuid().as_raw() || account.is_some_and(|account| uid == account.uid);
        if !metadata.is_dir() || !ours {
            continue;
        }
        let dead = match fs::read_to_string(entry.path().join("owner")).ok().as_deref().map(Owner::from_line)
        {
            Some(Some(owner)) => owner.is_dead(),
            // It is being made, or being removed.
            _ => !exists(pid),
        };
        if dead {
            end_orphan(&entry.path().join("data"));
            if let Err(error) = fs::remove_dir_all(entry.path()) {
                tracing::debug!(path = %entry.path().display(), %error, "directory of a dead owner stays");
            }
        }
    }
}

fn owner_of_name(name: &str) -> Option<u32> {
    let (pid, number) = name.strip_prefix(PREFIX)?.split_once('-')?;
    number.parse::<u32>().ok()?;
    pid.parse().ok()
}

/// Ends the server of a data directory, if there is one: the process whose number the directory's own
/// file has counts only while it works in that directory.
fn end_orphan(data: &Path) {
    let Some(pid) = fs::read_to_string(data.join("postmaster.pid"))
        .ok()
        .and_then(|text| text.lines().next()?.trim().parse::<i32>().ok())
        .filter(|pid| *pid > 1)
    else {
        return;
    };
    let runs = || fs::read_link(format!("/proc/{pid}/cwd")).is_ok_and(|directory| directory == data);
    for signal in [Signal::SIGQUIT, Signal::SIGKILL] {
        let begun = Instant::now();
        if runs() {
            let _ = kill(Pid::from_raw(pid), signal);
        }
        while runs() && begun.elapsed() < ORPHAN_LIMIT {
            thread::sleep(Duration::from_millis(20));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_directories() {
        for (name, expected) in [
            ("nexus-pg-12-0", Some(12)),
            ("nexus-pg-12", None),
            ("nexus-pg-x-0", None),
            ("nexus-pg-1-x", None),
        ] {
            assert_eq!(owner_of_name(name), expected, "{name}");
        }
    }

    #[test]
    fn a_reused_number_is_not_the_owner() {
        let me = Owner::of(process::id());
        assert_eq!(Owner::from_line(&me.to_line()).as_ref(), Some(&me));
        assert!(!me.is_dead());
        let before =
            Owner { started: me.started.map(|started| started.wrapping_sub(1)), ..Owner::of(me.pid) };
        assert_eq!(before.is_dead(), me.started.is_some());
        let elsewhere = Owner { space: Some("pid:[1]".to_owned()), ..before };
        assert!(!elsewhere.is_dead(), "a process of another container cannot be judged");
    }
}
