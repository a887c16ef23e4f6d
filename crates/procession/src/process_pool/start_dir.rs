//! The directory of a pool for the starts of its workers: a worker makes the server for its lifeline in it, and a file
//! in it says which starts are awaited. It exists from the first start to the end of the pool. If the program is
//! killed, the next one removes it (`locked_dir.rs`).
//!
//! There is one directory for all workers: of all that a start does in the file system, to make a directory takes
//! longest.
//!
//! Other users may read the file if they know the name of the directory: a wrapper may run the program as another user.

use std::fs::{self, File, OpenOptions, Permissions};
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt};
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rustix::process::geteuid;

use super::socket_dir::PURPOSE;
use crate::locked_dir::LockedDir;
use crate::temporary_files::candidates;
use crate::transport::StartFile;

/// The directory. `None` before the first start.
#[derive(Default)]
pub(crate) struct StartDirSlot(Mutex<Option<Arc<StartDir>>>);

impl StartDirSlot {
    /// Begins a start, which is awaited until the returned value is dropped. Makes the directory if there is none, if
    /// it was removed, or if this process has become another user since it was made.
    pub(crate) fn begin_start(&self) -> io::Result<AwaitedStart> {
        let mut slot = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let dir = match slot.as_ref().filter(|dir| dir.is_usable()) {
            Some(dir) => Arc::clone(dir),
            None => Arc::clone(slot.insert(Arc::new(StartDir::create()?))),
        };
        drop(slot);
        let mut starts = dir.starts();
        let number = starts.begun % StartFile::MOST;
        starts.begun += 1;
        starts.awaited += 1;
        drop(starts);
        dir.note(number, StartFile::AWAITED);
        Ok(AwaitedStart { dir, number, has_failed: true })
    }

    /// Removes the directory, unless a start is still awaited: then the end of that start removes it.
    pub(crate) fn end(&self) {
        let dir = self.0.lock().unwrap_or_else(PoisonError::into_inner).take();
        drop(dir);
    }
}

struct StartDir {
    dir: LockedDir,
    /// See [`StartFile`].
    file: File,
    starts: Mutex<Starts>,
}

#[derive(Default)]
struct Starts {
    /// The number of starts that have begun.
    begun: u64,
    /// The number of starts that are awaited.
    awaited: usize,
    /// Whether one has failed: a worker that was killed may have left its server in the directory.
    has_failed: bool,
}

impl StartDir {
    /// In the directory of this program, or elsewhere if that was removed or is full: systemd empties `/dev/shm` when a
    /// user logs out, also for programs that go on.
    fn create() -> io::Result<Self> {
        Self::create_in(&tempfile::env::temp_dir())
            .or_else(|error| candidates().find_map(|base| Self::create_in(&base).ok()).ok_or(error))
    }

    fn create_in(base: &Path) -> io::Result<Self> {
        let dir = LockedDir::create_in(base, PURPOSE)?;
        let mut options = OpenOptions::new();
        let file = options.write(true).create_new(true).open(StartFile::path(dir.path()))?;
        file.set_permissions(Permissions::from_mode(0o644))?;
        fs::set_permissions(dir.path(), Permissions::from_mode(0o711))?;
        Ok(Self { dir, file, starts: Mutex::default() })
    }

    fn starts(&self) -> MutexGuard<'_, Starts> {
        self.starts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether the directory still exists, and this process may make files in it. If the directory was removed, its
    /// file was removed, too.
    fn is_usable(&self) -> bool {
        let is_ours = |file: fs::Metadata| file.nlink() > 0 && file.uid() == geteuid().as_raw();
        self.file.metadata().is_ok_and(is_ours)
    }

    /// Removes the servers that workers have left.
    fn remove_servers(&self) {
        for entry in fs::read_dir(self.dir.path()).into_iter().flatten().flatten() {
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                let _ = fs::remove_dir_all(entry.path());
            }
        }
    }

    /// An error, such as that of a full disk, is ignored. Then a process whose socket a wrapper has closed
    /// does not find in the file that its start is awaited.
    fn note(&self, number: u64, state: u8) {
        let _ = self.file.write_all_at(&[state], number);
    }
}

/// A start that is awaited until this is dropped.
pub(crate) struct AwaitedStart {
    dir: Arc<StartDir>,
    number: u64,
    has_failed: bool,
}

impl AwaitedStart {
    /// The directory in which the worker makes its server.
    pub(crate) fn dir(&self) -> &Path {
        self.dir.dir.path()
    }

    /// The place of the start in the file.
    pub(crate) fn number(&self) -> u64 {
        self.number
    }

    /// Ends the start: the process is ready, and has no server any more.
    pub(crate) fn succeed(mut self) {
        self.has_failed = false;
    }
}

impl Drop for AwaitedStart {
    fn drop(&mut self) {
        self.dir.note(self.number, StartFile::OVER);
        // The lock is held during the removal, so that no start begins and no worker makes its server then.
        let mut starts = self.dir.starts();
        starts.awaited -= 1;
        starts.has_failed |= self.has_failed;
        if starts.awaited == 0 && starts.has_failed {
            starts.has_failed = false;
            self.dir.remove_servers();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_awaited(start: &AwaitedStart) -> bool {
        StartFile::is_awaited(start.dir(), start.number())
    }

    #[test]
    fn each_start_is_awaited_until_it_is_over() {
        let slot = StartDirSlot::default();
        let first = slot.begin_start().unwrap();
        let second = slot.begin_start().unwrap();
        assert_eq!(first.dir(), second.dir());
        assert!(is_awaited(&first) && is_awaited(&second));
        let (dir, number) = (first.dir().to_owned(), first.number());
        drop(first);
        assert!(!StartFile::is_awaited(&dir, number) && is_awaited(&second));
        assert!(!StartFile::is_awaited(&dir, 4711), "none has this number");
        slot.end();
        assert!(dir.is_dir() && is_awaited(&second));
        drop(second);
        assert!(!dir.exists());
    }

    #[test]
    fn a_directory_that_was_removed_is_made_anew() {
        let slot = StartDirSlot::default();
        let first = slot.begin_start().unwrap();
        fs::remove_dir_all(first.dir()).unwrap();
        let second = slot.begin_start().unwrap();
        assert_ne!(first.dir(), second.dir());
        assert!(!is_awaited(&first) && is_awaited(&second));
    }

    #[test]
    fn a_directory_of_another_user_is_not_used() {
        let slot = StartDirSlot::default();
        let first = slot.begin_start().unwrap();
        if std::os::unix::fs::chown(StartFile::path(first.dir()), Some(65534), None).is_ok() {
            let second = slot.begin_start().unwrap();
            assert_ne!(first.dir(), second.dir());
            assert!(is_awaited(&first) && is_awaited(&second));
        }
    }

    #[test]
    fn a_server_that_a_worker_has_left_is_removed_when_no_worker_is_awaited() {
        let slot = StartDirSlot::default();
        let server_of = |start: &AwaitedStart| {
            let server = tempfile::tempdir_in(start.dir()).unwrap().keep();
            fs::write(server.join("socket"), "").unwrap();
            server
        };
        let [failed, other] = [(); 2].map(|()| slot.begin_start().unwrap());
        let servers = [server_of(&failed), server_of(&other)];
        drop(failed);
        assert!(servers.iter().all(|server| server.exists()), "one may be in use");
        other.succeed();
        assert!(!servers.iter().any(|server| server.exists()));
        let next = slot.begin_start().unwrap();
        assert!(is_awaited(&next), "the file is still there");
    }

    #[test]
    fn other_users_can_see_whether_a_start_is_awaited_and_no_more() {
        let slot = StartDirSlot::default();
        let start = slot.begin_start().unwrap();
        let mode = |path: &Path| path.metadata().unwrap().mode() & 0o777;
        assert_eq!(mode(start.dir()), 0o711);
        assert_eq!(mode(&StartFile::path(start.dir())), 0o644);
    }
}
