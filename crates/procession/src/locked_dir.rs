//! Temporary directories that are removed even if their process was killed. The next process that
//! creates one removes those that were left. Control groups of the kernel are such directories, too.
//!
//! | directory | lock on it | removed by |
//! |---|---|---|
//! | in use | shared, held by its process | `drop` |
//! | left by a process that ended | none | [`sweep`] of another process |
//! | being swept | exclusive, held by the sweeper | - |
//! | created and not locked yet | none | a sweep may remove it; `create_in` then tries again |
//!
//! The lock is a `flock` of the directory itself. The system releases it when the process ends in
//! any way. A process id in the name would not do: containers that share the directory have process
//! ids of their own, so a process of one container does not exist in another.

use std::fs::{self, File, Permissions};
use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, Mode, OFlags, flock, open};
use rustix::io::Errno;
use rustix::process::getuid;

/// The number of random characters at the end of a name.
const RANDOM: usize = 12;
/// The number of new directories that other processes may sweep before `create_in` fails.
const TRIES: usize = 100;

/// A temporary directory of this process. `drop` removes it with its contents.
#[derive(Debug)]
pub(crate) struct LockedDir {
    path: PathBuf,
    /// The process that removes it. A forked copy of that process does not.
    owner: u32,
    remove: Remove,
    _lock: File,
}

/// Removes a directory with what is in it.
type Remove = fn(&Path) -> io::Result<()>;

impl LockedDir {
    /// Creates `base/purpose-1000-x7Kq0aTzP4mD`, where 1000 is the user id. Only this user may
    /// enter it (mode 0700).
    pub(crate) fn create_in(base: &Path, purpose: &str) -> io::Result<Self> {
        Self::create_with(base, purpose, |dir| fs::remove_dir_all(dir))
    }

    /// The same for a directory that is removed in another way.
    pub(crate) fn create_with(base: &Path, purpose: &str, remove: Remove) -> io::Result<Self> {
        let prefix = prefix(purpose);
        for _ in 0..TRIES {
            let mut builder = tempfile::Builder::new();
            builder.prefix(&prefix).rand_bytes(RANDOM).permissions(Permissions::from_mode(0o700));
            let made = builder.tempdir_in(base)?;
            let lock = match File::open(made.path()) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                other => other?,
            };
            // On a file system without locks `flock` fails here. It fails in `sweep` as well, so no
            // directory is removed there by mistake.
            let is_locked = flock(&lock, FlockOperation::NonBlockingLockShared);
            if is_locked != Err(Errno::WOULDBLOCK) && is_the_same(&lock, made.path()) {
                let owner = std::process::id();
                return Ok(Self { path: made.keep(), owner, remove, _lock: lock });
            }
        }
        Err(io::Error::other("other processes remove each temporary directory before it is locked"))
    }

    /// The directory.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for LockedDir {
    fn drop(&mut self) {
        if self.owner == std::process::id() {
            let _ = (self.remove)(&self.path);
        }
    }
}

/// Removes the directories for this purpose that processes of this user have left in `base`.
/// Returns their number.
pub(crate) fn sweep(base: &Path, purpose: &str) -> usize {
    sweep_with(base, purpose, |dir| fs::remove_dir_all(dir))
}

/// The same for directories that are removed in another way.
pub(crate) fn sweep_with(base: &Path, purpose: &str, remove: Remove) -> usize {
    let prefix = prefix(purpose);
    let is_ours = |entry: &fs::DirEntry| {
        let name = entry.file_name();
        let random = name.to_str().and_then(|name| name.strip_prefix(&prefix));
        random.is_some_and(|random| {
            random.len() == RANDOM && random.bytes().all(|byte| byte.is_ascii_alphanumeric())
        }) && entry.metadata().is_ok_and(|dir| dir.is_dir() && dir.uid() == getuid().as_raw())
    };
    let entries = fs::read_dir(base).into_iter().flatten().flatten();
    entries.filter(is_ours).filter(|entry| remove_if_left(&entry.path(), remove)).count()
}

fn prefix(purpose: &str) -> String {
    format!("{purpose}-{}-", getuid().as_raw())
}

fn remove_if_left(dir: &Path, remove: Remove) -> bool {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let Ok(lock) = open(dir, flags, Mode::empty()).map(File::from) else { return false };
    flock(&lock, FlockOperation::NonBlockingLockExclusive).is_ok()
        && is_the_same(&lock, dir)
        && remove(dir).is_ok()
}

/// Whether the path still is that of the opened directory.
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
    fn directories_that_were_left_are_removed_and_others_are_kept() {
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
            // Of another version, whose names end in a process id.
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
    fn a_program_that_was_started_by_the_process_does_not_keep_the_lock() {
        let base = tempfile::tempdir().unwrap();
        let mut dir = LockedDir::create_in(base.path(), "mine").unwrap();
        let mut sleeper = Command::new("sleep").arg("60").stdout(Stdio::null()).spawn().unwrap();
        // As if this process had been killed.
        dir.owner = 0;
        drop(dir);
        // Another test may be starting a program, which has the lock until its `exec`.
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
    fn directories_can_be_created_and_swept_at_the_same_time() {
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
