//! Saves files as `DEST/br.gif`, written whole or not at all.
//!
//! ```text
//!  bytes ─► DEST/.procession-x7Kq0aTzP4mD.part ─► rename ─► DEST/br.gif
//! ```
//!
//! No half-written file has the file's name, whenever the process dies. The temporary
//! file is in the same directory because a rename is atomic only within one file system. It is locked
//! while it is written: a file without a lock was left by a process that is gone, and is removed by
//! a later run. A process id in its name would not do, since containers that share a destination
//! have process ids of their own.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use procession_os::{directories, regular_file};
use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;
use tempfile::NamedTempFile;
use thiserror::Error;

/// Why a destination cannot be used, or a file was not saved.
#[derive(Debug, Error)]
pub enum SaveError {
    /// The destination is missing and could not be made.
    #[error("cannot make the directory {}", path.display())]
    CannotMake {
        /// The destination.
        path: PathBuf,
        /// The error of the system.
        source: io::Error,
    },
    /// The destination is something else than a directory.
    #[error("{} is not a directory: name another destination", path.display())]
    NotADirectory {
        /// The destination.
        path: PathBuf,
    },
    /// The destination, or a directory above it, is a link to something that does not exist, or to itself.
    #[error("{} is a link that leads to no directory: remove it, or name another destination", path.display())]
    BrokenLink {
        /// The link.
        path: PathBuf,
    },
    /// No file can be made in the destination.
    #[error("cannot write in the directory {}", path.display())]
    NotWritable {
        /// The destination.
        path: PathBuf,
        /// The error of the system.
        source: io::Error,
    },
    /// A file could not be written.
    #[error("cannot save {}", path.display())]
    CannotSave {
        /// The file.
        path: PathBuf,
        /// The error of the system.
        source: io::Error,
    },
}

impl SaveError {
    /// The error without the name of the file, so that it is the same for all files.
    pub(super) fn cause(&self) -> Option<String> {
        match self {
            SaveError::CannotSave { path, source } => {
                let dest = path.parent().unwrap_or(path);
                Some(format!("cannot save in {}: {source}", dest.display()))
            }
            _ => None,
        }
    }
}

/// Makes sure that flags can be saved in `dest`: makes it, with its parents, when it is missing,
/// and tries to make a file in it.
pub fn prepare(dest: &Path) -> Result<(), SaveError> {
    let path = || dest.to_owned();
    if dest.exists() && !dest.is_dir() {
        return Err(SaveError::NotADirectory { path: path() });
    }
    make(dest)?;
    // Permissions, read-only mounts and quotas can each prevent it, so a file is made. It has no
    // name where the system allows that, so that nothing is left if this process is killed here.
    tempfile::tempfile_in(dest)
        .map(drop)
        .map_err(|source| SaveError::NotWritable { path: path(), source })
}

/// Makes a directory with its parents.
fn make(dir: &Path) -> Result<(), SaveError> {
    fs::create_dir_all(dir).map_err(|source| match directories::broken_link(dir) {
        Some(link) => SaveError::BrokenLink { path: link.to_owned() },
        None => SaveError::CannotMake { path: dir.to_owned(), source },
    })
}

/// Makes the directories in `dest` that files with these names need.
pub fn prepare_for<'f>(
    dest: &Path,
    files: impl IntoIterator<Item = &'f str>,
) -> Result<(), SaveError> {
    let parents: BTreeSet<_> =
        files.into_iter().filter_map(|file| Path::new(file).parent()).collect();
    for parent in parents.into_iter().filter(|parent| !parent.as_os_str().is_empty()) {
        make(&dest.join(parent))?;
    }
    Ok(())
}

/// A complete body.
#[derive(Debug)]
pub enum ReceivedBody {
    /// In memory.
    Bytes(Vec<u8>),
    /// In a temporary file of the destination, with its length in bytes.
    Part(NamedTempFile, u64),
}

/// Saves a body as `dest/file`, replacing an older file, and returns its length. Any number of threads
/// and processes may save into the same directory; the last one to finish wins.
pub fn save(dest: &Path, file: &str, body: ReceivedBody) -> Result<u64, SaveError> {
    let path = dest.join(file);
    let saved = match body {
        ReceivedBody::Bytes(bytes) => write_part(dest, &bytes),
        ReceivedBody::Part(part, bytes) => Ok((part, bytes)),
    };
    // Locked until it has its name. Where anything fails, it is removed when it is dropped.
    let persist = |(part, bytes): (NamedTempFile, u64)| match part.persist(&path) {
        Ok(_) => Ok(bytes),
        Err(error) => Err(error.error),
    };
    saved.and_then(persist).map_err(|source| SaveError::CannotSave { path: path.clone(), source })
}

fn write_part(dest: &Path, bytes: &[u8]) -> io::Result<(NamedTempFile, u64)> {
    let mut part = create_part(dest)?;
    // An error of the temporary file would contain its random name, so equal errors would differ.
    part.as_file_mut().write_all(bytes)?;
    Ok((part, bytes.len() as u64))
}

/// The file beside the saved ones that `validators.rs` writes.
pub(super) const VALIDATORS_FILE: &str = ".validators.jsonl";
/// The begin of the name of a temporary file.
const PREFIX: &str = ".procession-";
/// Random characters in the name of a temporary file.
const RANDOM: usize = 12;
/// How often another process may take a new file for one that was left.
const TRIES: usize = 100;

/// Makes a temporary file that will be renamed, and is locked until then.
pub(super) fn create_part(dest: &Path) -> io::Result<NamedTempFile> {
    let mut builder = tempfile::Builder::new();
    // As an ordinary file; the umask applies.
    builder.prefix(PREFIX).suffix(".part").rand_bytes(RANDOM);
    let mut options = File::options();
    options.read(true).write(true).create_new(true).mode(0o666);
    for _ in 0..TRIES {
        let part = builder.make_in(dest, |path| options.open(path))?;
        // A sweep locks a file before it removes it: one that is locked, or has no name any more,
        // was found before it could be locked here. Without locks only age counts there.
        let locked = flock(part.as_file(), FlockOperation::NonBlockingLockExclusive);
        if locked != Err(Errno::WOULDBLOCK) && part.as_file().metadata()?.nlink() > 0 {
            return Ok(part);
        }
    }
    Err(io::Error::other("other processes remove every temporary file that is made"))
}

/// Removes the temporary files that killed processes left in `dest`, and returns their number. Files
/// of running processes stay, and files that cannot be removed.
pub fn sweep(dest: &Path) -> usize {
    let Ok(entries) = fs::read_dir(dest) else {
        return 0;
    };
    entries
        .flatten()
        .filter(|entry| entry.file_name().to_str().is_some_and(is_part))
        .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_file()))
        .filter(|entry| remove_if_left(&entry.path()))
        .count()
}

/// Whether a temporary file of ours may have this name: `.procession-x7Kq0aTzP4mD.part`, or as they were
/// in older versions, which locked them as well, `.br.gif.x7Kq0aTzP4mD.part` and `.br.gif.4712.0.part`.
fn is_part(name: &str) -> bool {
    let is_random =
        |text: &str| text.len() == RANDOM && text.bytes().all(|byte| byte.is_ascii_alphanumeric());
    let is_number = |text: &str| text.parse::<u64>().is_ok() && !text.starts_with('+');
    let Some(stem) = name.strip_suffix(".part") else { return false };
    if let Some(random) = stem.strip_prefix(PREFIX) {
        return is_random(random);
    }
    let older = || {
        let stem = stem.strip_prefix('.')?;
        if let Some(middle) = stem.strip_prefix(VALIDATORS_FILE) {
            return middle.strip_prefix('.');
        }
        let (cc, middle) = stem.split_once(".gif.")?;
        let is_code = cc.len() == 2 && cc.bytes().all(|byte| byte.is_ascii_alphabetic());
        is_code.then_some(middle)
    };
    older().is_some_and(|middle| match middle.split_once('.') {
        Some((pid, n)) => is_number(pid) && is_number(n),
        None => is_random(middle),
    })
}

/// Where there are no locks, a file that was not written to for this time was left.
const AGE: Duration = Duration::from_secs(3600);

/// Removes the file unless a process writes to it.
fn remove_if_left(part: &Path) -> bool {
    let file = regular_file::without_link(File::options().read(true), part);
    let Ok(file) = file else { return false };
    let is_left = match flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => true,
        Err(Errno::WOULDBLOCK) => false,
        Err(_) => {
            let age = file.metadata().and_then(|file| file.modified()).map(|time| time.elapsed());
            matches!(age, Ok(Ok(age)) if age > AGE)
        }
    };
    // It is still locked here: if it was made just now, its process sees that and makes another.
    is_left && fs::remove_file(part).is_ok()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn names(dir: &Path) -> Vec<String> {
        let mut names: Vec<String> = fs::read_dir(dir)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    fn body(bytes: &[u8]) -> ReceivedBody {
        ReceivedBody::Bytes(bytes.to_vec())
    }

    #[test]
    fn a_missing_destination_is_made_with_its_parents() {
        let dir = tempfile::tempdir().unwrap();
        let dest = dir.path().join("a/b");
        prepare(&dest).unwrap();
        prepare(&dest).unwrap();
        assert_eq!(names(&dest), [""; 0]);
    }

    #[test]
    fn a_file_is_no_destination() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("file");
        fs::write(&file, "").unwrap();
        let error = prepare(&file).unwrap_err();
        assert!(matches!(error, SaveError::NotADirectory { .. }), "{error}");
        let below = prepare(&file.join("b")).unwrap_err();
        assert!(matches!(below, SaveError::CannotMake { .. }), "{below}");
        let link = dir.path().join("link");
        std::os::unix::fs::symlink(&link, &link).unwrap();
        for dest in [link.clone(), link.join("below/it")] {
            let around = prepare(&dest).unwrap_err();
            assert!(matches!(&around, SaveError::BrokenLink { path } if *path == link), "{around}");
        }
        assert!(below.to_string().contains(file.to_str().unwrap()), "{below}");
        assert!(std::error::Error::source(&below).is_some());
    }

    #[test]
    fn a_flag_is_an_ordinary_file_and_replaces_an_older_one() {
        let dir = tempfile::tempdir().unwrap();
        save(dir.path(), "br.gif", body(b"old")).unwrap();
        save(dir.path(), "br.gif", body(b"new")).unwrap();
        let flag = dir.path().join("br.gif");
        assert_eq!(fs::read(&flag).unwrap(), b"new");
        let ordinary = dir.path().join("ordinary");
        File::create(&ordinary).unwrap();
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode();
        assert_eq!(mode(&flag), mode(&ordinary));
        assert_eq!(names(dir.path()), ["br.gif", "ordinary"]);
    }

    #[test]
    fn the_cause_of_a_failed_save_names_no_temporary_file() {
        let dir = tempfile::tempdir().unwrap();
        let missing = dir.path().join("missing");
        let cause = |file: &str| save(&missing, file, body(b"x")).unwrap_err().cause();
        assert_eq!(cause("br.gif"), cause("cn.gif"));
        assert!(
            cause("br.gif").unwrap().ends_with("missing: No such file or directory (os error 2)")
        );
    }

    #[test]
    fn a_failed_save_leaves_nothing_behind() {
        let dir = tempfile::tempdir().unwrap();
        let in_the_way = dir.path().join("br.gif");
        fs::create_dir(&in_the_way).unwrap();
        let error = save(dir.path(), "br.gif", body(b"x")).unwrap_err().to_string();
        assert_eq!(error, format!("cannot save {}", in_the_way.display()));
        assert_eq!(names(dir.path()), ["br.gif"]);
        assert!(save(&dir.path().join("missing"), "br.gif", body(b"x")).is_err());
    }

    #[test]
    fn files_that_no_process_has_locked_are_swept_and_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        let swept = [
            ".procession-x7Kq0aTzP4mD.part",
            ".br.gif.x7Kq0aTzP4mD.part",
            ".br.gif.4711.0.part",
            "..validators.jsonl.x7Kq0aTzP4mD.part",
        ];
        let kept = [
            ".procession-x7Kq0aTz.part",
            ".other.x7Kq0aTzP4mD.part",
            ".br.gif.4711.part",
            ".bra.gif.x7Kq0aTzP4mD.part",
            ".br.gif.-1.0.part",
            ".br.gif.x7Kq0aTz-4mD.part",
            "br.gif",
        ];
        for name in kept.iter().chain(&swept) {
            fs::write(dir.path().join(name), "").unwrap();
        }
        let mut written = create_part(dir.path()).unwrap();
        assert!(is_part(written.path().file_name().unwrap().to_str().unwrap()));
        assert_eq!(sweep(dir.path()), swept.len());
        written.write_all(b"flag").unwrap();
        written.persist(dir.path().join("br.gif")).unwrap();
        let mut kept = kept.to_vec();
        kept.sort_unstable();
        assert_eq!(names(dir.path()), kept);
        assert_eq!(sweep(&dir.path().join("missing")), 0);
    }

    #[test]
    fn a_sweep_spoils_no_flag_that_is_being_saved() {
        let dir = tempfile::tempdir().unwrap();
        let dest = dir.path();
        std::thread::scope(|scope| {
            for _ in 0..2 {
                scope.spawn(|| (0..500).for_each(|_| _ = sweep(dest)));
                scope.spawn(|| {
                    (0..500).for_each(|_| _ = save(dest, "br.gif", body(b"flag")).unwrap())
                });
            }
        });
        assert_eq!(names(dest), ["br.gif"]);
    }
}
