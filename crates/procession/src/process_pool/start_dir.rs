//! The directory of a pool for the starts of its workers: a worker makes the server for its lifeline in it, and a file
//! in it says which starts are awaited. It exists from the first start to the end of the pool. If the program is
//! killed, the next one removes it (`locked_dir.rs`).
//!
//! There is one directory for all workers, since to make one takes a file system longer than anything else at a start.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use super::socket_dir::PURPOSE;
use crate::locked_dir::LockedDir;
use crate::transport::StartFile;

/// The directory, once a worker was started.
#[derive(Default)]
pub(crate) struct StartDirSlot(Mutex<Option<Arc<StartDir>>>);

impl StartDirSlot {
    /// A start of a worker that is awaited. If the directory was removed, there is another one from now on.
    pub(crate) fn begin_start(&self) -> io::Result<AwaitedStart> {
        let mut slot = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let dir = match slot.as_ref().filter(|dir| dir.is_there()) {
            Some(dir) => Arc::clone(dir),
            None => Arc::clone(slot.insert(Arc::new(StartDir::create()?))),
        };
        drop(slot);
        let number = dir.started.fetch_add(1, Ordering::Relaxed) % StartFile::MOST;
        dir.note(number, StartFile::AWAITED);
        Ok(AwaitedStart { dir, number })
    }

    /// Removes the directory, unless a start is still awaited: then the end of that removes it.
    pub(crate) fn end(&self) {
        let dir = self.0.lock().unwrap_or_else(PoisonError::into_inner).take();
        drop(dir);
    }
}

struct StartDir {
    dir: LockedDir,
    /// See [`StartFile`].
    file: File,
    /// The number of starts.
    started: AtomicU64,
}

impl StartDir {
    fn create() -> io::Result<Self> {
        let dir = LockedDir::create_in(&tempfile::env::temp_dir(), PURPOSE)?;
        let mut options = OpenOptions::new();
        let file =
            options.write(true).create_new(true).mode(0o600).open(StartFile::path(dir.path()))?;
        Ok(Self { dir, file, started: AtomicU64::new(0) })
    }

    /// Whether nobody has removed it: the file is removed with it.
    fn is_there(&self) -> bool {
        self.file.metadata().is_ok_and(|file| file.nlink() > 0)
    }

    /// An error, of a full disk, is ignored: then a process that has lost its socket in a wrapper is not recognized by
    /// the file.
    fn note(&self, number: u64, state: u8) {
        let _ = self.file.write_all_at(&[state], number);
    }
}

/// A start that is awaited until this is dropped.
pub(crate) struct AwaitedStart {
    dir: Arc<StartDir>,
    number: u64,
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
}

impl Drop for AwaitedStart {
    fn drop(&mut self) {
        self.dir.note(self.number, StartFile::OVER);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

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
}
