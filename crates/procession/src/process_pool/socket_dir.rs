//! Where pools make their directories for the sockets of lifelines (`start_dir.rs`): in the temporary directory of the
//! crate `tempfile`, or in another one if that is not usable or was removed. A [`PrivateDir`] takes its place.
//!
//! The path of a socket is limited to about 100 bytes, and the channel library truncates longer ones
//! without an error. A coordinator that is killed leaves the directory of its pool behind; the next one removes it
//! ([`sweep`]).

use std::collections::BTreeSet;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, Once, PoisonError};
use std::{env, io};

use crate::error::PoolError;
use crate::locked_dir::{self, LockedDir};
use crate::temporary_files::{candidates, fallbacks};

/// Checks that sockets can be made in the temporary directory. If its path is too long, or it is
/// missing or not writable, sets another one for all files that `tempfile` makes in this process.
pub(crate) fn prepare() -> Result<(), PoolError> {
    static OVERRIDE: Once = Once::new();
    let preferred = tempfile::env::temp_dir();
    if found_usable().as_ref() == Some(&preferred) && preferred.is_dir() {
        return Ok(());
    }
    let Err(reason) = usable_for_sockets(&preferred) else { return Ok(()) };
    OVERRIDE.call_once(|| {
        let usable = fallbacks().find(|dir| usable_for_sockets(dir).is_ok());
        if let Some(dir) = usable {
            // An error only if the application has set a directory itself, which is then used.
            let _ = tempfile::env::override_temp_dir(&dir);
        }
    });
    let dir = tempfile::env::temp_dir();
    // If the directory of this program was removed, each pool makes another one.
    let has_another = || !dir.exists() && others().next().is_some();
    if usable_for_sockets(&dir).is_ok() || has_another() {
        return Ok(());
    }
    Err(PoolError::NoRunDir(format!("{}: {reason}", preferred.display())))
}

/// The directories in which sockets can be made, without a [`PrivateDir`] of this program.
fn others() -> impl Iterator<Item = PathBuf> {
    candidates().filter(|dir| usable_for_sockets(dir).is_ok())
}

/// Removes what killed programs of this user have left, in each place where they could make a directory: theirs may be
/// in memory, or replace one that was removed.
pub(super) fn sweep() {
    let all = [tempfile::env::temp_dir()].into_iter().chain(candidates());
    for base in all.filter(|base| base.is_absolute()).collect::<BTreeSet<_>>() {
        locked_dir::sweep(&base, PURPOSE);
    }
}

/// The directory for files in memory that all users may write to.
#[cfg(target_os = "linux")]
fn in_memory() -> Option<PathBuf> {
    /// The number by which `statfs` names this type of file system.
    const TMPFS: u64 = 0x0102_1994;
    let dir = Path::new("/dev/shm");
    let is_in_memory = rustix::fs::statfs(dir).is_ok_and(|it| it.f_type as u64 == TMPFS);
    is_in_memory.then(|| dir.to_owned())
}

#[cfg(not(target_os = "linux"))]
fn in_memory() -> Option<PathBuf> {
    None
}

/// The directory of the last successful check. A check takes longer than the start of a worker, so
/// it is not repeated.
fn found_usable() -> MutexGuard<'static, Option<PathBuf>> {
    static FOUND: Mutex<Option<PathBuf>> = Mutex::new(None);
    FOUND.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Makes a socket there, as the channel library does, but without a directory of its own: to remove a directory may
/// wait for the disk. Permissions alone do not show a read-only file system, or one without sockets.
fn usable_for_sockets(dir: &Path) -> Result<(), String> {
    if dir.to_str().is_none() || !dir.is_absolute() {
        return Err("its name is not UTF-8, or relative".to_owned());
    }
    let mut trial = tempfile::Builder::new();
    // As long as the path in the channel library's directory: `.tmpx7Kq0a/socket`.
    trial.suffix("-socket");
    // Unlike the channel library, this returns an error if the path is too long.
    trial.make_in(dir, |path| UnixListener::bind(path)).map_err(|error| error.to_string())?;
    *found_usable() = Some(dir.to_owned());
    Ok(())
}

/// A temporary directory for the sockets of this process, removed with its contents on drop. If the
/// process was killed before, the next process that makes such a directory removes it.
///
/// For programs, not for libraries: from its creation to the end of the process, all files that the
/// crate `tempfile` makes in this process are made there, those of other libraries included. Create it at
/// the start of `main`, before the first pool.
///
/// The name is random, and the directory is locked while its process lives: processes in containers
/// that share a temporary directory do not remove each other's.
///
/// ```
/// # fn main() -> std::io::Result<()> {
/// let _sockets = procession::PrivateDir::create()?; // kept until the end of `main`
/// # Ok(()) }
/// ```
#[derive(Debug)]
pub struct PrivateDir {
    _dir: LockedDir,
}

/// Prefix of the names of these directories, and of those of the workers that are being started.
pub(super) const PURPOSE: &str = "procession";

impl PrivateDir {
    /// Makes the directory, and removes those that killed processes left behind. See the example of [`PrivateDir`].
    ///
    /// # Errors
    ///
    /// If no directory is usable for sockets, or the directory of `tempfile` was set before.
    pub fn create() -> io::Result<Self> {
        Self::create_in_first(None)
    }

    /// As [`create`](PrivateDir::create), but in `/dev/shm`, if that is a file system in memory (Linux) and the
    /// variable `TMPDIR` is not set. On a disk, to make and to remove the few directories of a pool may take longer
    /// than the start of a worker.
    ///
    /// Only for programs that make no other files by `tempfile`: they would take memory, and systemd removes what a user
    /// has in `/dev/shm` when the user logs out, also from programs that go on (`RemoveIPC=`). Pools make another
    /// directory then.
    ///
    /// ```
    /// # fn main() -> std::io::Result<()> {
    /// let _sockets = procession::PrivateDir::create_in_memory()?; // kept until the end of `main`
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    ///
    /// Those of [`create`](PrivateDir::create).
    pub fn create_in_memory() -> io::Result<Self> {
        let is_named = env::var_os("TMPDIR").is_some_and(|dir| !dir.is_empty());
        let in_memory = if is_named { None } else { in_memory() };
        Self::create_in_first(in_memory)
    }

    /// Makes it in this directory, or else in the first of the candidates that is usable.
    fn create_in_first(preferred: Option<PathBuf>) -> io::Result<Self> {
        let mut refusal = io::Error::other("no temporary directory is usable for sockets");
        for base in preferred.into_iter().chain(candidates()) {
            match Self::create_in(&base) {
                Ok(dir) => return Ok(dir),
                Err(error) => refusal = error,
            }
        }
        Err(refusal)
    }

    fn create_in(base: &Path) -> io::Result<Self> {
        locked_dir::sweep(base, PURPOSE);
        let dir = LockedDir::create_in(base, PURPOSE)?;
        usable_for_sockets(dir.path()).map_err(io::Error::other)?;
        let refused = |_| io::Error::other("the temporary directory was set before");
        tempfile::env::override_temp_dir(dir.path()).map_err(refused)?;
        Ok(Self { _dir: dir })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn a_directory_is_usable_if_a_socket_can_be_made_there() {
        let dir = tempfile::tempdir().expect("a directory");
        assert_eq!(usable_for_sockets(dir.path()), Ok(()));
        assert_eq!(fs::read_dir(dir.path()).expect("a directory").count(), 0);
        let long = dir.path().join("x".repeat(90));
        fs::create_dir(&long).expect("a directory");
        for unusable in [long.as_path(), Path::new("/does/not/exist"), Path::new("/proc")] {
            assert!(usable_for_sockets(unusable).is_err(), "{}", unusable.display());
        }
    }
}
