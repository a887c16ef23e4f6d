//! Where workers meet their coordinator: the directory in which the channel library makes its
//! sockets, which is that of the `tempfile` crate.
//!
//! A socket's name is short, so a directory may be too long for it, and the library would cut the
//! name without a word. And a coordinator that is killed while a worker starts leaves the socket
//! behind: [`PrivateDir`] is for programs in which that must not pile up.

use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, Once, PoisonError};
use std::{env, io};

use crate::error::PoolError;
use crate::locked_dir::{self, LockedDir};

/// Makes sure that sockets can be made in the temporary directory. Where it is too long, missing
/// or not writable, another one is used for all temporary files of this process that are made
/// with the `tempfile` crate.
pub(crate) fn prepare() -> Result<(), PoolError> {
    static OVERRIDE: Once = Once::new();
    let preferred = tempfile::env::temp_dir();
    if found_usable().as_ref() == Some(&preferred) && preferred.is_dir() {
        return Ok(());
    }
    let Err(reason) = usable_for_sockets(&preferred) else { return Ok(()) };
    OVERRIDE.call_once(|| {
        let usable = others().find(|dir| usable_for_sockets(dir).is_ok());
        if let Some(dir) = usable {
            // Refused only if the application has set one of its own, which then stands.
            let _ = tempfile::env::override_temp_dir(&dir);
        }
    });
    usable_for_sockets(&tempfile::env::temp_dir())
        .map_err(|_| PoolError::NoRunDir(format!("{}: {reason}", preferred.display())))
}

/// Where to go if the temporary directory is of no use.
fn others() -> impl Iterator<Item = PathBuf> {
    let runtime = env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from);
    runtime.into_iter().chain(["/tmp", "/var/tmp", "/dev/shm"].map(PathBuf::from))
}

/// The directory in which sockets were made last: to try that out again would take longer than to
/// start a worker.
fn found_usable() -> MutexGuard<'static, Option<PathBuf>> {
    static FOUND: Mutex<Option<PathBuf>> = Mutex::new(None);
    FOUND.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Tries it, in the way of the channel library: permissions tell too little of a directory in
/// which nothing can be made, or of a file system that has no sockets.
fn usable_for_sockets(dir: &Path) -> Result<(), String> {
    if dir.to_str().is_none() || !dir.is_absolute() {
        return Err("its name is not UTF-8, or relative".to_owned());
    }
    let trial = tempfile::tempdir_in(dir).map_err(|error| error.to_string())?;
    // Refused where the name is too long; the library would cut it without a word.
    UnixListener::bind(trial.path().join("socket")).map_err(|error| error.to_string())?;
    *found_usable() = Some(dir.to_owned());
    Ok(())
}

/// A temporary directory of this process alone, which is removed with its contents when this is
/// dropped, or, if the process was killed before that, by the next one that makes such a
/// directory.
///
/// It is a matter for programs: from when it is made until the process ends, all temporary files
/// that the `tempfile` crate makes in this process go there, those of other libraries as well. Make
/// it before the first pool, at the head of `main`.
///
/// Its name is random, and it is locked while its process lives, so that programs in containers
/// with a common temporary directory do not remove each other's.
#[derive(Debug)]
pub struct PrivateDir {
    _dir: LockedDir,
}

/// What the names of these directories begin with.
const PURPOSE: &str = "procession";

impl PrivateDir {
    /// Makes the directory, and removes those of processes that have ended without doing so.
    pub fn create() -> io::Result<Self> {
        let mut refusal = io::Error::other("no temporary directory is usable for sockets");
        for base in [env::temp_dir()].into_iter().chain(others()) {
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
        let refused = |_| io::Error::other("the temporary directory was settled before");
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
