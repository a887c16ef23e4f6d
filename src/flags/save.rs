//! Where flags go: `DEST/br.gif`, written whole or not at all.
//!
//! ```text
//!  bytes ─► DEST/.br.gif.4712.0.part ─► rename ─► DEST/br.gif
//! ```
//!
//! Must never show a half-written flag under its name, whenever the process dies. The temporary
//! file lies beside the flag because a rename is atomic only within one file system.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use rustix::fs::{FlockOperation, flock};
use rustix::process::{Pid, test_kill_process};
use thiserror::Error;

use super::codes::Code;

/// Why a destination cannot be used, or a flag was not saved.
#[derive(Debug, Error)]
pub enum SaveError {
    /// The destination is missing and could not be made.
    #[error("cannot make the directory {}: {cause}", path.display())]
    CannotMake {
        /// The destination.
        path: PathBuf,
        /// What the system said.
        cause: io::Error,
    },
    /// The destination is something else than a directory.
    #[error("{} is not a directory: name another destination", path.display())]
    NotADirectory {
        /// The destination.
        path: PathBuf,
    },
    /// No file can be made in the destination.
    #[error("cannot write in the directory {}: {cause}", path.display())]
    NotWritable {
        /// The destination.
        path: PathBuf,
        /// What the system said.
        cause: io::Error,
    },
    /// A flag could not be written.
    #[error("cannot save {}: {cause}", path.display())]
    CannotSave {
        /// The flag's file.
        path: PathBuf,
        /// What the system said.
        cause: io::Error,
    },
}

impl SaveError {
    /// What went wrong with a flag, without its file.
    pub(super) fn cause(&self) -> Option<String> {
        match self {
            SaveError::CannotSave { path, cause } => {
                let dest = path.parent().unwrap_or(path);
                Some(format!("cannot save in {}: {cause}", dest.display()))
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
    fs::create_dir_all(dest).map_err(|cause| SaveError::CannotMake { path: path(), cause })?;
    // Only a try tells: permissions, read-only mounts and quotas all have their say. The file has
    // no name where the system allows that, so that nothing is left if we are killed here.
    tempfile::tempfile_in(dest)
        .map(drop)
        .map_err(|cause| SaveError::NotWritable { path: path(), cause })
}

/// Where a flag is saved.
pub fn path(dest: &Path, code: Code) -> PathBuf {
    dest.join(format!("{}.gif", code.lower()))
}

/// Saves a flag as `dest/{cc}.gif`, replacing an older one. Any number of threads and processes
/// may save into the same directory; the last one to finish wins.
pub fn save(dest: &Path, code: Code, bytes: &[u8]) -> Result<(), SaveError> {
    let path = path(dest, code);
    write_and_rename(dest, code, bytes, &path)
        .map_err(|cause| SaveError::CannotSave { path, cause })
}

fn write_and_rename(dest: &Path, code: Code, bytes: &[u8], path: &Path) -> io::Result<()> {
    let (part, mut file) = create_part(dest, code)?;
    let written = file.write_all(bytes).and_then(|()| {
        // Locked until it has its name.
        fs::rename(&part, path)
    });
    drop(file);
    if written.is_err() {
        // The first error is the one worth telling.
        let _ = fs::remove_file(&part);
    }
    written
}

fn create_part(dest: &Path, code: Code) -> io::Result<(PathBuf, File)> {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    loop {
        let n = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!(".{}.gif.{}.{n}.part", code.lower(), std::process::id());
        let part = dest.join(name);
        // Not `tempfile`, whose files are for their owner only: a flag is an ordinary file.
        match File::create_new(&part) {
            // A leftover of a killed process that had our pid.
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => continue,
            // The lock tells others that the writer lives. Not all file systems have locks; there
            // its pid has to do.
            other => {
                return other.map(|file| {
                    let _ = flock(&file, FlockOperation::NonBlockingLockExclusive);
                    (part, file)
                });
            }
        }
    }
}

/// Removes what killed processes left half written in `dest`, and tells how many files that were.
/// Files of processes that still run are let be; so is everything that cannot be removed.
pub fn sweep(dest: &Path) -> usize {
    let Ok(entries) = fs::read_dir(dest) else {
        return 0;
    };
    entries
        .flatten()
        .filter(|entry| {
            let writer = entry.file_name().to_str().and_then(writer_of);
            writer.is_some_and(|pid| is_gone(pid) || is_abandoned(&entry.path()))
        })
        .filter(|entry| fs::remove_file(entry.path()).is_ok())
        .count()
}

/// The pid in the name of a temporary file of ours.
fn writer_of(name: &str) -> Option<Pid> {
    let (cc, rest) = name.strip_prefix('.')?.split_once(".gif.")?;
    let (pid, n) = rest.strip_suffix(".part")?.split_once('.')?;
    cc.parse::<Code>().ok()?;
    n.parse::<u64>().ok()?;
    Pid::from_raw(pid.parse().ok().filter(|pid| *pid > 0)?)
}

/// Whether nobody writes to it, though there is a process of that pid: it may be another one. A
/// file that is younger than a second may not be locked yet.
fn is_abandoned(part: &Path) -> bool {
    let is_old = |file: &File| {
        let age = file.metadata().and_then(|file| file.modified()).map(|time| time.elapsed());
        matches!(age, Ok(Ok(age)) if age > Duration::from_secs(1))
    };
    File::open(part).is_ok_and(|file| {
        is_old(&file) && flock(&file, FlockOperation::NonBlockingLockExclusive).is_ok()
    })
}

fn is_gone(pid: Pid) -> bool {
    // Any other answer, such as "not permitted", means that somebody is there.
    test_kill_process(pid) == Err(rustix::io::Errno::SRCH)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    fn names(dir: &Path) -> Vec<String> {
        let mut names: Vec<String> = fs::read_dir(dir)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    fn br() -> Code {
        "BR".parse().unwrap()
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
        assert!(below.to_string().contains(file.to_str().unwrap()), "{below}");
    }

    #[test]
    fn a_flag_is_an_ordinary_file_and_replaces_an_older_one() {
        let dir = tempfile::tempdir().unwrap();
        save(dir.path(), br(), b"old").unwrap();
        save(dir.path(), br(), b"new").unwrap();
        let flag = dir.path().join("br.gif");
        assert_eq!(fs::read(&flag).unwrap(), b"new");
        let ordinary = dir.path().join("ordinary");
        File::create(&ordinary).unwrap();
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode();
        assert_eq!(mode(&flag), mode(&ordinary));
        assert_eq!(names(dir.path()), ["br.gif", "ordinary"]);
    }

    #[test]
    fn a_failed_save_leaves_nothing_behind() {
        let dir = tempfile::tempdir().unwrap();
        let in_the_way = dir.path().join("br.gif");
        fs::create_dir(&in_the_way).unwrap();
        let error = save(dir.path(), br(), b"x").unwrap_err().to_string();
        assert!(error.starts_with(&format!("cannot save {}: ", in_the_way.display())), "{error}");
        assert_eq!(names(dir.path()), ["br.gif"]);
        assert!(save(&dir.path().join("missing"), br(), b"x").is_err());
    }

    #[test]
    fn leftovers_of_the_dead_are_swept_and_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        let mut child = std::process::Command::new("true").spawn().unwrap();
        let dead = child.id();
        child.wait().unwrap();
        let alive = std::process::id();
        let swept = format!(".br.gif.{dead}.0.part");
        let kept = [
            format!(".br.gif.{alive}.7.part"),
            format!(".br.gif.{dead}.part"),
            format!(".bra.gif.{dead}.0.part"),
            ".br.gif.0.0.part".to_owned(),
            ".br.gif.-1.0.part".to_owned(),
            "br.gif".to_owned(),
        ];
        for name in kept.iter().chain([&swept]) {
            fs::write(dir.path().join(name), "").unwrap();
        }
        assert_eq!(sweep(dir.path()), 1);
        let mut kept = kept.to_vec();
        kept.sort();
        assert_eq!(names(dir.path()), kept);
        assert_eq!(sweep(&dir.path().join("missing")), 0);
    }

    #[test]
    fn a_file_that_nobody_has_locked_is_swept_once_it_is_old() {
        let dir = tempfile::tempdir().unwrap();
        let name = format!(".br.gif.{}.0.part", std::process::id());
        let file = File::create(dir.path().join(&name)).unwrap();
        assert_eq!(sweep(dir.path()), 0, "it is young");
        let times = fs::FileTimes::new().set_modified(std::time::SystemTime::UNIX_EPOCH);
        file.set_times(times).unwrap();
        flock(&file, FlockOperation::NonBlockingLockExclusive).unwrap();
        assert_eq!(sweep(dir.path()), 0, "it is being written");
        drop(file);
        assert_eq!(sweep(dir.path()), 1);
        assert_eq!(names(dir.path()), [""; 0]);
    }
}
