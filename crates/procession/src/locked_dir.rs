//! Temporary directories that are removed even if their process was killed: by the next process
//! that makes one.
//!
//! ```text
//!   /tmp/procession-1000-x7Kq0aTzP4mD/   locked: its process lives
//!   /tmp/procession-1000-Qm2w9dLe81Rs/   not locked: its process is gone, and it may be removed
//! ```
//!
//! The lock is a shared `flock` of the directory. The system releases it when the process ends,
//! however it ends. A process id would not do: in containers that share a directory each has
//! process ids of its own, so that a living process of one is not found in another. Whoever removes
//! a directory holds the exclusive lock meanwhile, so none is removed between its making and its
//! locking.

use std::fs::{self, File, Permissions};
use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, Mode, OFlags, flock, open};
use rustix::io::Errno;
use rustix::process::getuid;

/// Random characters at the end of a name.
const RANDOM: usize = 12;
/// Another process may take a new directory for one that was left, so often.
const TRIES: usize = 100;

/// A temporary directory of this process. It is removed with its contents when this is dropped.
#[derive(Debug)]
pub(crate) struct LockedDir {
    path: PathBuf,
    /// In a process that was forked from this one the directory is not removed.
    owner: u32,
    _lock: File,
}

impl LockedDir {
    /// Makes a directory in `base` that only this user may enter: `purpose-1000-x7Kq0aTzP4mD`.
    pub(crate) fn create_in(base: &Path, purpose: &str) -> io::Result<Self> {
        let prefix = prefix(purpose);
        for _ in 0..TRIES {
            let mut builder = tempfile::Builder::new();
            builder.prefix(&prefix).rand_bytes(RANDOM).permissions(Permissions::from_mode(0o700));
            let made = builder.tempdir_in(base)?;
            let lock = match File::open(made.path()) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                other => other?,
            };
            // On a file system without locks the exclusive lock is refused as well, so nothing is
            // removed there.
            let is_locked = flock(&lock, FlockOperation::NonBlockingLockShared);
            if is_locked != Err(Errno::WOULDBLOCK) && is_the_same(&lock, made.path()) {
                return Ok(Self { path: made.keep(), owner: std::process::id(), _lock: lock });
            }
        }
        Err(io::Error::other("other processes remove every temporary directory that is made"))
    }

    /// The directory.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for LockedDir {
    fn drop(&mut self) {
        if self.owner == std::process::id() {
            let _ = fs::remove_dir_all(&self.path);
        }
    }
}

/// Removes the directories for this purpose that processes of this user have left in `base`, and
/// gives their number.
pub(crate) fn sweep(base: &Path, purpose: &str) -> usize {
    let prefix = prefix(purpose);
    let is_ours = |entry: &fs::DirEntry| {
        let name = entry.file_name();
        let random = name.to_str().and_then(|name| name.strip_prefix(&prefix));
        random.is_some_and(|random| {
            random.len() == RANDOM && random.bytes().all(|byte| byte.is_ascii_alphanumeric())
        }) && entry.metadata().is_ok_and(|dir| dir.is_dir() && dir.uid() == getuid().as_raw())
    };
    let entries = fs::read_dir(base).into_iter().flatten().flatten();
    entries.filter(is_ours).filter(|entry| remove_if_left(&entry.path())).count()
}

fn prefix(purpose: &str) -> String {
    format!("{purpose}-{}-", getuid().as_raw())
}

fn remove_if_left(dir: &Path) -> bool {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let Ok(lock) = open(dir, flags, Mode::empty()).map(File::from) else { return false };
    flock(&lock, FlockOperation::NonBlockingLockExclusive).is_ok()
        && is_the_same(&lock, dir)
        && fs::remove_dir_all(dir).is_ok()
}

/// Whether the path still leads to the directory that was opened.
fn is_the_same(open: &File, path: &Path) -> bool {
    let of = |file: fs::Metadata| (file.dev(), file.ino());
    let there = fs::symlink_metadata(path).map(of);
    there.is_ok_and(|there| open.metadata().map(of).is_ok_and(|opened| opened == there))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::{Command, Stdio};
    use std::time::{Duration, Instant};

    #[test]
    fn a_directory_is_removed_when_it_is_dropped_and_not_while_it_is_in_use() {
        let base = tempfile::tempdir().unwrap();
        let dir = LockedDir::create_in(base.path(), "mine").unwrap();
        fs::write(dir.path().join("file"), "").unwrap();
        assert_eq!(fs::metadata(dir.path()).unwrap().permissions().mode() & 0o777, 0o700);
        assert_eq!((sweep(base.path(), "mine"), dir.path().is_dir()), (0, true));
        drop(dir);
        assert_eq!(fs::read_dir(base.path()).unwrap().count(), 0);
    }

    #[test]
    fn what_was_left_is_removed_and_nothing_else() {
        let base = tempfile::tempdir().unwrap();
        let uid = getuid().as_raw();
        let make = |name: String| {
            let dir = base.path().join(name);
            fs::create_dir(&dir).unwrap();
            fs::write(dir.join("socket"), "").unwrap();
            dir
        };
        let left = make(format!("mine-{uid}-{}", "x".repeat(RANDOM)));
        let kept = [
            // Of a version whose names end in a process id, and holds no lock.
            make(format!("mine-{uid}-4711")),
            make(format!("mine-{uid}-{}", "-".repeat(RANDOM))),
            make(format!("other-{uid}-{}", "x".repeat(RANDOM))),
        ];
        let link = base.path().join(format!("mine-{uid}-{}", "y".repeat(RANDOM)));
        std::os::unix::fs::symlink(&kept[2], &link).unwrap();
        assert_eq!((sweep(base.path(), "mine"), left.exists()), (1, false));
        assert!(kept.iter().all(|dir| dir.join("socket").exists()) && link.is_symlink());
        assert_eq!(sweep(&base.path().join("missing"), "mine"), 0);
    }

    #[test]
    fn a_program_that_was_started_meanwhile_does_not_keep_the_lock() {
        let base = tempfile::tempdir().unwrap();
        let mut dir = LockedDir::create_in(base.path(), "mine").unwrap();
        let mut sleeper = Command::new("sleep").arg("60").stdout(Stdio::null()).spawn().unwrap();
        // As if this process had been killed.
        dir.owner = 0;
        drop(dir);
        // Another test may be starting a program: until its `exec`, that one holds the lock too.
        let begun = Instant::now();
        let mut swept = sweep(base.path(), "mine");
        while swept == 0 && begun.elapsed() < Duration::from_secs(30) {
            std::thread::sleep(Duration::from_millis(10));
            swept = sweep(base.path(), "mine");
        }
        sleeper.kill().unwrap();
        sleeper.wait().unwrap();
        assert_eq!(swept, 1);
    }

    #[test]
    fn makers_and_sweepers_do_not_disturb_each_other() {
        let base = tempfile::tempdir().unwrap();
        let base = base.path();
        std::thread::scope(|scope| {
            for _ in 0..2 {
                scope.spawn(|| (0..300).for_each(|_| _ = sweep(base, "mine")));
                scope.spawn(|| {
                    for _ in 0..300 {
                        let dir = LockedDir::create_in(base, "mine").unwrap();
                        fs::write(dir.path().join("file"), "").expect("it is there");
                    }
                });
            }
        });
    }
}
