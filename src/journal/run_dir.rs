//! Where the journals of a run lie: a directory a run, and a link to the newest.
//!
//! ```text
//!  logs/2026-11-22T23-49-32-4711/    local time of the start, pid of the coordinator
//!  logs/latest -> 2026-11-22T23-49-32-4711
//! ```
//!
//! Must never reuse a directory: a run's logs are its own.

use std::fs;
use std::io;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use jiff::Zoned;
use thiserror::Error;

/// Why there is no directory for a run's logs.
#[derive(Debug, Error)]
pub enum RunDirError {
    /// It could not be made.
    #[error("cannot make the log directory {}: {cause}", path.display())]
    CannotMake {
        /// The directory.
        path: PathBuf,
        /// What the system said.
        cause: io::Error,
    },
    /// The link to it could not be made.
    #[error("cannot point {} to the newest logs: {cause}", link.display())]
    CannotLink {
        /// The link.
        link: PathBuf,
        /// What the system said.
        cause: io::Error,
    },
}

/// The directory of one run's logs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RunDir {
    logs: PathBuf,
    name: String,
}

impl RunDir {
    /// Makes a new directory for this run in `logs`, which is made with its parents if missing.
    pub fn create(logs: &Path) -> Result<Self, RunDirError> {
        let start = Zoned::now().strftime("%Y-%m-%dT%H-%M-%S");
        Self::create_named(logs, &format!("{start}-{}", std::process::id()))
    }

    fn create_named(logs: &Path, wanted: &str) -> Result<Self, RunDirError> {
        let failed = |path: &Path, cause| RunDirError::CannotMake { path: path.to_owned(), cause };
        fs::create_dir_all(logs).map_err(|cause| failed(logs, cause))?;
        // The same second and pid twice is rare, but containers do share directories.
        let others = (2..).map(|n| format!("{wanted}-{n}"));
        for name in std::iter::once(wanted.to_owned()).chain(others) {
            let path = logs.join(&name);
            match fs::create_dir(&path) {
                Ok(()) => {
                    return Ok(RunDir { logs: logs.to_owned(), name });
                }
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => continue,
                Err(cause) => return Err(failed(&path, cause)),
            }
        }
        unreachable!("the names do not run out")
    }

    /// The directory.
    pub fn path(&self) -> PathBuf {
        self.logs.join(&self.name)
    }

    /// Points `latest`, beside the directory, to it. The old link is replaced in one step, so a
    /// reader always finds one. A run may go on without it, where links are not to be had.
    pub fn link_latest(&self) -> Result<(), RunDirError> {
        let link = self.logs.join("latest");
        // The name of the run is unique, so nobody else makes this link.
        let new = self.logs.join(format!(".latest-{}", self.name));
        let linked = symlink(&self.name, &new).and_then(|()| fs::rename(&new, &link));
        linked.map_err(|cause| {
            let _ = fs::remove_file(&new);
            RunDirError::CannotLink { link, cause }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_gets_a_directory_named_after_its_start_and_pid() {
        let dir = tempfile::tempdir().unwrap();
        let logs = dir.path().join("a/logs");
        let run = RunDir::create(&logs).unwrap();
        assert!(run.path().is_dir());
        assert_eq!(run.path().parent().unwrap(), logs);
        let shape: String =
            run.name.chars().map(|c| if c.is_ascii_digit() { '0' } else { c }).collect();
        let pid = std::process::id().to_string();
        assert_eq!(shape, format!("0000-00-00T00-00-00-{}", "0".repeat(pid.len())));
        assert!(run.name.ends_with(&format!("-{pid}")));
    }

    #[test]
    fn no_two_runs_share_a_directory() {
        let dir = tempfile::tempdir().unwrap();
        let names: Vec<String> =
            (0..3).map(|_| RunDir::create_named(dir.path(), "run").unwrap().name).collect();
        assert_eq!(names, ["run", "run-2", "run-3"]);
    }

    #[test]
    fn latest_points_to_the_newest_by_a_relative_link() {
        let dir = tempfile::tempdir().unwrap();
        for name in ["one", "two"] {
            let run = RunDir::create_named(dir.path(), name).unwrap();
            run.link_latest().unwrap();
            let link = fs::read_link(dir.path().join("latest")).unwrap();
            assert_eq!(link, Path::new(name));
        }
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 3);
    }

    #[test]
    fn what_fails_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("file");
        fs::write(&file, "").unwrap();
        let error = RunDir::create(&file).unwrap_err().to_string();
        assert!(error.contains(file.to_str().unwrap()), "{error}");

        let run = RunDir::create_named(dir.path(), "run").unwrap();
        fs::create_dir(dir.path().join("latest")).unwrap();
        let error = run.link_latest().unwrap_err();
        assert!(matches!(error, RunDirError::CannotLink { .. }), "{error}");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 3);
    }
}
