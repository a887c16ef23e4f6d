//! The directories of the journals: one for each run, and a link to the newest.
//!
//! ```text
//!  logs/2026-11-22T23-49-32-4711/    local time of the start, pid of the coordinator
//!  logs/latest -> 2026-11-22T23-49-32-4711
//! ```
//!
//! A directory is never used by two runs. Only logs are removed, and none that is still being written.

use std::fs;
use std::io::{self, BufRead, Read};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::time::Duration;

use jiff::Zoned;
use procession_os::regular_file;
use thiserror::Error;

use super::entry::LogEntry;
use super::event::LogEvent;
use super::writer::is_being_written;

/// Maximum number of unfinished runs that are kept in addition.
pub const KEPT_UNFINISHED: usize = 3;

/// The settings of a run are within this number of bytes at the begin of its log.
const HEAD_BYTES: u64 = 64 * 1024;

/// The directory for a run's logs could not be created.
#[derive(Debug, Error)]
pub enum RunDirError {
    /// The directory could not be created.
    #[error("cannot make the log directory {}", path.display())]
    CannotMake {
        /// The directory.
        path: PathBuf,
        /// The system's error.
        source: io::Error,
    },
    /// The link to the directory could not be created.
    #[error("cannot point {} to the newest logs", link.display())]
    CannotLink {
        /// The link.
        link: PathBuf,
        /// The system's error.
        source: io::Error,
    },
}

/// A run was not found.
#[derive(Debug, Error)]
pub enum FindError {
    /// The directory has no logs of runs.
    #[error(
        "there are no logs of runs in {}: go to the directory in which the run was started, or name its logs \
         (--log-dir DIR)",
        logs.display()
    )]
    None {
        /// The directory.
        logs: PathBuf,
    },
    /// No run has this name.
    #[error("no run in {} is named {name:?}: see `coordinator logs --list`", logs.display())]
    Unknown {
        /// The directory.
        logs: PathBuf,
        /// The requested name.
        name: String,
    },
    /// Several runs have this text in their names.
    #[error("{name:?} may be any of {}", candidates.join(", "))]
    Ambiguous {
        /// The requested name.
        name: String,
        /// The runs.
        candidates: Vec<String>,
    },
    /// The directory cannot be read.
    #[error("cannot read the log directory {}", logs.display())]
    CannotRead {
        /// The directory.
        logs: PathBuf,
        /// The system's error.
        source: io::Error,
    },
}

/// The directory of one run's logs.
///
/// ```
/// use procession_journal::RunDir;
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let logs = tempfile::tempdir()?;
/// # let logs = logs.path();
/// let run = RunDir::create(logs)?;
/// run.link_latest()?;
/// assert!(run.path().is_dir() && !run.is_running()); // nothing writes there yet
/// assert_eq!(RunDir::find(logs, None)?, run); // the newest
/// assert_eq!(RunDir::find(logs, Some(run.name()))?, run);
/// assert_eq!(RunDir::list(logs)?, [run]);
/// assert_eq!(RunDir::prune(logs, 20), 0); // up to 20 runs are kept
/// # Ok(()) }
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RunDir {
    logs: PathBuf,
    name: String,
}

impl RunDir {
    /// Creates a new directory for this run in `logs`, which is created with its parents if missing.
    pub fn create(logs: &Path) -> Result<Self, RunDirError> {
        let start = Zoned::now().strftime("%Y-%m-%dT%H-%M-%S");
        Self::create_named(logs, &format!("{start}-{}", std::process::id()))
    }

    fn create_named(logs: &Path, wanted: &str) -> Result<Self, RunDirError> {
        let failed =
            |path: &Path, source| RunDirError::CannotMake { path: path.to_owned(), source };
        procession_os::directories::create_all(logs).map_err(|source| failed(logs, source))?;
        // Processes in different containers may have the same pid and share the directory.
        let others = (2..).map(|n| format!("{wanted}-{n}"));
        for name in std::iter::once(wanted.to_owned()).chain(others) {
            let path = logs.join(&name);
            match fs::create_dir(&path) {
                Ok(()) => {
                    return Ok(RunDir { logs: logs.to_owned(), name });
                }
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => continue,
                Err(source) => return Err(failed(&path, source)),
            }
        }
        unreachable!("the names do not run out")
    }

    /// The directory.
    pub fn path(&self) -> PathBuf {
        self.logs.join(&self.name)
    }

    /// The name of the run.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// All runs that have logs, the newest last.
    pub fn list(logs: &Path) -> Result<Vec<Self>, FindError> {
        let entries = match fs::read_dir(logs) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(source) => return Err(FindError::CannotRead { logs: logs.to_owned(), source }),
        };
        let names = entries.flatten().filter_map(|entry| entry.file_name().into_string().ok());
        let runs =
            names.filter(|name| is_run(name)).map(|name| Self { logs: logs.to_owned(), name });
        let mut runs: Vec<Self> = runs.filter(|run| run.path().is_dir()).collect();
        // Several runs may start in one second; their pids do not show the order.
        runs.sort_by_cached_key(|run| {
            let changed = fs::metadata(run.path()).and_then(|dir| dir.modified()).ok();
            (run.name[..START_LENGTH].to_owned(), changed, run.name.clone())
        });
        Ok(runs)
    }

    /// The run with this name, or with this part of a name that no other has; without a name, the
    /// newest run.
    pub fn find(logs: &Path, name: Option<&str>) -> Result<Self, FindError> {
        let runs = Self::list(logs)?;
        let Some(name) = name.filter(|name| *name != "latest") else {
            let linked = fs::read_link(logs.join("latest"));
            let linked = linked.ok().and_then(|run| Some(run.to_str()?.to_owned()));
            let latest = runs.iter().find(|run| Some(&run.name) == linked.as_ref());
            return match latest.or(runs.last()) {
                Some(run) => Ok(run.clone()),
                None => Err(FindError::None { logs: logs.to_owned() }),
            };
        };
        if let Some(run) = runs.iter().find(|run| run.name == name) {
            return Ok(run.clone());
        }
        let matching: Vec<_> =
            runs.iter().filter(|run| !name.is_empty() && run.name.contains(name)).collect();
        match &matching[..] {
            [run] => Ok((*run).clone()),
            [] => Err(FindError::Unknown { logs: logs.to_owned(), name: name.to_owned() }),
            several => Err(FindError::Ambiguous {
                name: name.to_owned(),
                candidates: several.iter().map(|run| run.name.clone()).collect(),
            }),
        }
    }

    /// Whether the run has not ended.
    pub fn is_running(&self) -> bool {
        is_running(&self.path())
    }

    /// Removes the oldest runs in `logs`, so that `keep` are left, and returns how many were removed.
    /// Kept in addition are runs that have not ended, the newest unfinished runs, up to
    /// [`KEPT_UNFINISHED`], and everything that is not a log.
    pub fn prune(logs: &Path, keep: usize) -> usize {
        let runs = Self::list(logs).unwrap_or_default();
        let surplus = runs.len().saturating_sub(keep);
        let is_in_use = |run: &&Self| run.is_running() || is_starting(&run.path());
        // Before any run is removed: a removed run may be the continuation of another.
        let old = runs.iter().take(surplus).rev().filter(|run| !is_in_use(run));
        let old: Vec<_> = old.map(|run| (run, run.is_unfinished(&runs))).collect();
        let mut removed = 0;
        let mut unfinished = 0;
        for (run, is_unfinished) in old {
            if unfinished < KEPT_UNFINISHED && is_unfinished {
                unfinished += 1;
            } else {
                removed += usize::from(run.remove().is_ok());
            }
        }
        removed
    }

    /// Whether requested codes have no outcome, and none of these runs continues this one.
    fn is_unfinished(&self, runs: &[Self]) -> bool {
        let left = super::read(&self.path()).ok().and_then(|(history, _)| history.not_done());
        left.is_some_and(|left| !left.is_empty())
            && !runs.iter().any(|run| continued_run(&run.path()).as_ref() == Some(&self.name))
    }

    fn remove(&self) -> io::Result<()> {
        for entry in fs::read_dir(self.path())? {
            let path = entry?.path();
            if path.extension().is_some_and(|extension| extension == "jsonl") {
                fs::remove_file(path)?;
            }
        }
        // Fails if other files are left.
        fs::remove_dir(self.path())
    }

    /// Points the link `latest`, beside the directory, to it. The old link is replaced atomically, so a
    /// reader always finds one. A caller may ignore an error: not all file systems have links.
    pub fn link_latest(&self) -> Result<(), RunDirError> {
        let link = self.logs.join("latest");
        // The name of the run is unique, so no other process creates this link.
        let new = self.logs.join(format!(".latest-{}", self.name));
        let linked = symlink(&self.name, &new).and_then(|()| fs::rename(&new, &link));
        linked.map_err(|source| {
            let _ = fs::remove_file(&new);
            RunDirError::CannotLink { link, source }
        })
    }
}

/// Name of the run that the run of this directory continues, from the begin of its log.
fn continued_run(dir: &Path) -> Option<String> {
    coordinators(dir).into_iter().find_map(|path| {
        let file = regular_file::to_read(&path).ok()?;
        let begin = io::BufReader::new(file.take(HEAD_BYTES)).lines().map_while(Result::ok);
        let mut events = begin.filter_map(|line| LogEntry::from_json(line.as_bytes()).ok());
        events.find_map(|entry| match entry.event {
            LogEvent::Run(settings) => settings.continues,
            _ => None,
        })
    })
}

/// Whether the coordinator that writes its log in this directory is alive.
pub fn is_running(dir: &Path) -> bool {
    coordinators(dir).iter().any(|path| is_being_written(path))
}

/// The logs of coordinators in this directory.
pub fn coordinators(dir: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(dir) else { return Vec::new() };
    let is_one = |entry: &fs::DirEntry| {
        let name = entry.file_name();
        name.to_str().is_some_and(|name| name.starts_with("coordinator-"))
            && entry.file_type().is_ok_and(|kind| kind.is_file())
    };
    entries.flatten().filter(is_one).map(|entry| entry.path()).collect()
}

/// Whether its coordinator may not have created its log yet.
fn is_starting(dir: &Path) -> bool {
    is_fresh(dir) && coordinators(dir).is_empty()
}

/// Whether the directory has changed within the last second.
pub fn is_fresh(dir: &Path) -> bool {
    let changed = fs::metadata(dir).and_then(|dir| dir.modified());
    // A time in the future counts as new.
    changed.is_ok_and(|time| time.elapsed().unwrap_or_default() < Duration::from_secs(1))
}

/// Length of the start time in the name of a run.
const START_LENGTH: usize = "2026-11-22T23-49-32".len();

/// Whether this is a valid name of a run.
fn is_run(name: &str) -> bool {
    let Some((start, rest)) = name.split_at_checked(START_LENGTH) else { return false };
    let fits = |(is, pattern): (u8, u8)| match pattern {
        b'0' => is.is_ascii_digit(),
        other => is == other,
    };
    let is_start = start.bytes().zip(*b"0000-00-00T00-00-00").all(fits);
    let numbers = rest.strip_prefix('-').unwrap_or_default();
    is_start && !numbers.is_empty() && numbers.bytes().all(|c| c.is_ascii_digit() || c == b'-')
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

    const RUNS: [&str; 3] =
        ["2026-11-22T23-49-32-9", "2026-11-22T23-49-33-8", "2026-11-23T00-00-00-7-2"];

    fn some_runs(dir: &Path) {
        for name in RUNS.iter().rev() {
            let run = RunDir::create_named(dir, name).unwrap();
            fs::write(run.path().join("coordinator-1.jsonl"), "").unwrap();
        }
        fs::create_dir(dir.join("mine")).unwrap();
        fs::write(dir.join("2026-11-22T23-49-32-1"), "a file").unwrap();
    }

    #[test]
    fn a_run_is_found_by_a_part_of_its_name_that_no_other_has() {
        let dir = tempfile::tempdir().unwrap();
        let find = |name| RunDir::find(dir.path(), name).map(|run| run.name);
        assert!(matches!(find(None), Err(FindError::None { .. })));
        some_runs(dir.path());
        assert_eq!(find(None).unwrap(), RUNS[2]);
        RunDir::find(dir.path(), Some(RUNS[1])).unwrap().link_latest().unwrap();
        assert_eq!(find(None).unwrap(), RUNS[1]);
        assert_eq!(find(Some("latest")).unwrap(), RUNS[1]);
        assert_eq!(find(Some("-9")).unwrap(), RUNS[0]);
        for (name, reason) in [("23-49", "may be any of"), ("x", "is named"), ("", "is named")] {
            let error = find(Some(name)).unwrap_err().to_string();
            assert!(error.contains(reason), "{error}");
        }
    }

    #[test]
    fn old_runs_are_removed_but_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        some_runs(dir.path());
        fs::write(dir.path().join(RUNS[1]).join("notes.txt"), "mine").unwrap();
        assert_eq!(RunDir::prune(dir.path(), 3), 0);
        assert_eq!(RunDir::prune(dir.path(), 1), 1);
        assert!(!dir.path().join(RUNS[0]).exists() && dir.path().join(RUNS[2]).exists());
        assert!(dir.path().join(RUNS[1]).join("notes.txt").exists());
        assert!(dir.path().join("mine").exists());
    }

    #[test]
    fn the_newest_unfinished_runs_are_kept_until_another_run_has_continued_them() {
        let dir = tempfile::tempdir().unwrap();
        let begin = |name: &str, continues: Option<&str>| {
            let run = RunDir::create_named(dir.path(), name).unwrap();
            let line = serde_json::json!({"ts": "2026-11-22T23:49:32.000001Z", "level": "info",
                "process": "coordinator", "pid": 1, "event": "run", "mode": "threads",
                "server": "LOCAL", "codes": 1, "workers": 0, "connections": 1, "dest": "/x",
                "wanted": ["BR"], "continues": continues});
            fs::write(run.path().join("coordinator-1.jsonl"), format!("{line}\n")).unwrap();
        };
        let name = |n: usize| format!("2026-11-22T23-49-{n:02}-9");
        (0..6).for_each(|n| begin(&name(n), None));
        let exists = |n: &usize| dir.path().join(name(*n)).exists();
        assert_eq!(RunDir::prune(dir.path(), 1), 2);
        assert_eq!((0..6).filter(exists).collect::<Vec<_>>(), [2, 3, 4, 5]);
        begin(&name(6), Some(&name(2)));
        assert_eq!(RunDir::prune(dir.path(), 1), 1);
        assert_eq!((0..7).filter(exists).collect::<Vec<_>>(), [3, 4, 5, 6]);
    }

    #[test]
    fn a_run_that_has_not_ended_is_not_removed() {
        let dir = tempfile::tempdir().unwrap();
        let run = RunDir::create_named(dir.path(), RUNS[0]).unwrap();
        let journal = crate::Journal::coordinator(&run.path()).unwrap();
        assert!(run.is_running());
        assert_eq!(RunDir::prune(dir.path(), 0), 0);
        drop(journal);
        assert_eq!(RunDir::prune(dir.path(), 0), 1);
    }

    #[test]
    fn an_error_names_the_path() {
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
