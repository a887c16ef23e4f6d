//! [`CrashKeeper`]: writes each task that ended its worker to a file, for
//! [`Builder::keep_crashes`](super::Builder::keep_crashes).

use std::fs;
use std::io::{self, BufWriter};
use std::path::{Path, PathBuf};
use std::process;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tempfile::NamedTempFile;

use super::PoolEvent;
use super::completion::CompletionData;
use super::initializer::{Initializer, InitializerKind};
use super::inner::{PoolInner, Setup};
use super::work_item::WorkItem;
use crate::blob::Blob;
use crate::codec::Encoding;
use crate::error::{KeptInput, PoolError};
use crate::kept_task::{self, KeptCause, KeptHeader, KeptInitializer};
use crate::scheduler::Verdict;
use crate::task::TaskId;
use crate::transport;

/// The most files in a directory; the oldest are removed.
const MOST_FILES: usize = 100;
/// The most bytes in a directory, 1 GiB.
const MOST_BYTES: u64 = 1 << 30;
/// The extension of the files.
const EXTENSION: &str = "procession";
/// The extension of a file that is being written.
const UNFINISHED: &str = "procession-partial";
/// A file that is being written and is older than this is removed: its process was killed before the end.
const ABANDONED: Duration = Duration::from_secs(3600);
/// The most bytes of a task's name that a file name has.
const LONGEST_NAME: usize = 80;

/// The directory of kept tasks.
pub(super) struct CrashKeeper {
    dir: PathBuf,
    /// The time of the pool's start, which is part of all names.
    started: String,
    most_files: usize,
    most_bytes: u64,
    /// Held while files are removed and one is written, so that the bounds hold for this pool.
    writing: Mutex<()>,
}

/// The task that has ended a worker.
pub(super) struct Culprit<'t> {
    pub(super) name: &'t str,
    pub(super) id: u64,
    pub(super) encoding: Encoding,
    pub(super) text: &'t [u8],
    pub(super) blobs: &'t [Blob],
    /// Whether it is the preload or the initializer. `None` for any other task.
    pub(super) kind: Option<InitializerKind>,
}

/// How a task ended its worker.
#[derive(Debug, Clone, Copy)]
pub(super) struct WorkerEnd {
    pub(super) worker: usize,
    pub(super) pid: u32,
    pub(super) cause: KeptCause,
    pub(super) attempts: u32,
}

impl PoolInner {
    /// Keeps a task that has ended its worker, if the pool keeps such tasks.
    pub(super) fn keep(
        &self,
        work_item: &WorkItem,
        item: u32,
        verdict: &Verdict,
        data: Option<&CompletionData<'_>>,
    ) -> Option<KeptInput> {
        self.setup.crash_keeper.as_ref()?;
        let Some(&CompletionData::Death { worker, pid, .. }) = data else { return None };
        let (cause, attempts) = match *verdict {
            Verdict::Died { exit, attempts, is_collateral: false, .. } => {
                (KeptCause::Died(exit), attempts)
            }
            Verdict::TimedOut { after, attempts } => (KeptCause::TimedOut(after), attempts),
            _ => return None,
        };
        let blobs = work_item.blobs().clone();
        let culprit = Culprit::of(work_item, item, &blobs);
        let end = WorkerEnd { worker, pid, cause, attempts };
        self.keep_culprit(&culprit, &end)
    }

    /// Keeps the initializer or the preload, if a worker has ended in it.
    pub(super) fn keep_initializer(
        &self,
        kind: InitializerKind,
        worker: usize,
        pid: u32,
        cause: KeptCause,
    ) -> Option<KeptInput> {
        let initializer = self.setup.first_task(kind)?;
        let (name, text) = initializer.parts();
        let encoding = initializer.encoding();
        let culprit = Culprit { name, id: 0, encoding, text, blobs: &[], kind: Some(kind) };
        self.keep_culprit(&culprit, &WorkerEnd { worker, pid, cause, attempts: 1 })
    }

    fn keep_culprit(&self, culprit: &Culprit<'_>, end: &WorkerEnd) -> Option<KeptInput> {
        let input = self.setup.crash_keeper.as_ref()?.keep(&self.setup, culprit, end);
        let (task, &WorkerEnd { worker, pid, .. }) = (TaskId(culprit.id), end);
        let event = || PoolEvent::InputKept { task, worker, pid, input: input.clone() };
        self.listeners.event(event);
        Some(input)
    }
}

impl CrashKeeper {
    /// Makes the directory, and tries to write to it.
    pub(super) fn new(dir: &Path) -> Result<Self, PoolError> {
        let failed = |error: io::Error| {
            PoolError::Setting(format!("cannot keep crashes in {}: {error}", dir.display()))
        };
        // The program may change its directory later.
        let dir = std::path::absolute(dir).map_err(failed)?;
        procession_os::directories::create_all(&dir).map_err(failed)?;
        drop(new_file(&dir).map_err(failed)?);
        let started = utc(SystemTime::now()).replace(':', "-");
        let writing = Mutex::default();
        Ok(Self { dir, started, most_files: MOST_FILES, most_bytes: MOST_BYTES, writing })
    }

    /// Writes a task to a file. A later attempt of a task replaces the file of an earlier one.
    pub(super) fn keep(&self, setup: &Setup, task: &Culprit<'_>, end: &WorkerEnd) -> KeptInput {
        // What the worker ran before this one.
        let initializer = setup.initializer.as_ref().filter(|_| task.kind.is_none());
        let preload = setup.preload().filter(|_| task.kind != Some(InitializerKind::Preload));
        let (initializer, its_text) = kept_first(initializer);
        let (preload, preload_text) = kept_first(preload);
        let header = KeptHeader {
            format: KeptHeader::FORMAT,
            task: task.name.to_owned(),
            id: task.id,
            cause: end.cause,
            time: utc(SystemTime::now()),
            worker: end.worker,
            pid: end.pid,
            attempts: end.attempts,
            program: program(setup),
            directory: std::env::current_dir().unwrap_or_default().to_string_lossy().into_owned(),
            build: transport::build_with(&setup.build_id),
            encoding: task.encoding,
            threads: setup.scheduling.threads(end.worker),
            stack: setup.stack,
            limits: setup.limits,
            initializer,
            preload,
            text: task.text.len(),
            blobs: task.blobs.iter().map(|blob| blob.len()).collect(),
        };
        let path = self.dir.join(self.file_name(task.name, task.id));
        let written = self.write(&path, &header, task, [its_text, preload_text]);
        KeptInput::new(written.map(|()| path).map_err(|error| error.to_string()))
    }

    fn file_name(&self, task: &str, id: u64) -> String {
        let plain = |c: char| if c.is_ascii_alphanumeric() || "-_.".contains(c) { c } else { '_' };
        let name: String = task.chars().map(plain).take(LONGEST_NAME).collect();
        format!("{}-{}-{id}-{name}.{EXTENSION}", self.started, process::id())
    }

    fn write(
        &self,
        path: &Path,
        header: &KeptHeader,
        task: &Culprit<'_>,
        [initializer, preload]: [&[u8]; 2],
    ) -> io::Result<()> {
        let len = header.len().filter(|len| *len <= self.most_bytes).ok_or_else(|| {
            io::Error::other(format!("it is larger than {} bytes", self.most_bytes))
        })?;
        check_file_size_limit(len)?;
        let _writing = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        if kept_task::attempts(path).is_some_and(|attempts| attempts > header.attempts) {
            // A later attempt has ended its worker as well, and is in the file already.
            return Ok(());
        }
        self.make_room(path, len)?;
        // Readable for this user alone: the arguments of a task may be secret.
        let mut file = BufWriter::new(new_file(&self.dir)?);
        kept_task::write(&mut file, header, task.text, task.blobs, initializer, preload)?;
        let file = file.into_inner().map_err(io::IntoInnerError::into_error)?;
        file.persist(path).map(drop).map_err(|error| error.error)
    }

    /// Removes the oldest files until there is room for one more of this length.
    fn make_room(&self, path: &Path, len: u64) -> io::Result<()> {
        let mut files = Vec::new();
        for entry in fs::read_dir(&self.dir)?.flatten() {
            let Some(info) = entry.metadata().ok().filter(fs::Metadata::is_file) else { continue };
            let (file, modified) = (entry.path(), info.modified().ok());
            let is_of = |extension| file.extension().is_some_and(|its| its == extension);
            if is_of(UNFINISHED) {
                // Its process was killed while it wrote.
                if modified.is_some_and(|time| time.elapsed().unwrap_or_default() > ABANDONED) {
                    // Another process may have removed it.
                    let _ = fs::remove_file(file);
                }
            } else if is_of(EXTENSION) && file != path {
                files.push((modified.unwrap_or(UNIX_EPOCH), info.len(), file));
            }
        }
        files.sort_unstable();
        let mut bytes: u64 = files.iter().map(|(_, len, _)| len).sum();
        let mut number = files.len();
        for (_, its_len, path) in files {
            if number < self.most_files && bytes + len <= self.most_bytes {
                break;
            }
            // Another process may have removed it.
            if let Err(error) = fs::remove_file(&path)
                && error.kind() != io::ErrorKind::NotFound
            {
                return Err(error);
            }
            number -= 1;
            bytes -= its_len;
        }
        Ok(())
    }
}

/// A task that ran before the kept one: what the header says of it, and its encoded text.
fn kept_first(first: Option<&Initializer>) -> (Option<KeptInitializer>, &[u8]) {
    let Some((name, text)) = first.map(Initializer::parts) else { return (None, &[]) };
    (Some(KeptInitializer { task: name.to_owned(), text: text.len() }), text)
}

impl<'t> Culprit<'t> {
    /// One task of a work item.
    pub(super) fn of(work_item: &'t WorkItem, item: u32, blobs: &'t [Blob]) -> Self {
        Self {
            name: work_item.name,
            id: work_item.id.0 + u64::from(item),
            encoding: work_item.encoding,
            text: work_item.text(&(item..item + 1)),
            blobs,
            kind: None,
        }
    }
}

/// A file that is renamed when it is complete, and removed otherwise.
fn new_file(dir: &Path) -> io::Result<NamedTempFile> {
    let suffix = format!(".{UNFINISHED}");
    tempfile::Builder::new().prefix(".").suffix(&suffix).tempfile_in(dir)
}

/// The path of the program that workers run.
fn program(setup: &Setup) -> String {
    let (rank, _) = setup.programs.current();
    let path = setup.programs.path(rank);
    // The link to the running program is resolved.
    let is_this = path.starts_with("/proc/self");
    let path = is_this.then(|| fs::read_link(path).ok()).flatten().unwrap_or(path.to_owned());
    path.to_string_lossy().into_owned()
}

/// RLIMIT_FSIZE: a file beyond it would end this process by SIGXFSZ. The first line counts as well.
fn check_file_size_limit(len: u64) -> io::Result<()> {
    use rustix::process::{Resource, getrlimit};
    const FIRST_LINE: u64 = 64 * 1024;
    match getrlimit(Resource::Fsize).current {
        Some(limit) if limit < len.saturating_add(FIRST_LINE) => Err(io::Error::other(format!(
            "no file of this process may be larger than {limit} bytes (ulimit -f)"
        ))),
        _ => Ok(()),
    }
}

/// `2026-11-29T15:27:08`, in UTC.
fn utc(time: SystemTime) -> String {
    let seconds = time.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    let (days, second) = (seconds / 86_400, seconds % 86_400);
    // The Gregorian calendar repeats every 400 years of 146,097 days. Years here begin with March, so
    // that the leap day is the last one.
    let day = days + 719_468;
    let (era, day) = (day / 146_097, day % 146_097);
    let year = (day - day / 1_460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let day = day - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    let year = year + era * 400 + u64::from(month <= 2);
    let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_written_in_utc() {
        let at = |seconds| utc(UNIX_EPOCH + Duration::from_secs(seconds));
        assert_eq!(at(0), "1970-01-01T00:00:00");
        assert_eq!(at(951_782_399), "2000-02-28T23:59:59");
        assert_eq!(at(951_782_400), "2000-02-29T00:00:00");
        assert_eq!(at(951_868_800), "2000-03-01T00:00:00");
        assert_eq!(at(4_107_542_399), "2100-02-28T23:59:59");
        assert_eq!(at(4_107_542_400), "2100-03-01T00:00:00");
    }

    fn keeper(dir: &Path, most_files: usize, most_bytes: u64) -> CrashKeeper {
        CrashKeeper { most_files, most_bytes, ..CrashKeeper::new(dir).expect("a directory") }
    }

    fn names(dir: &Path) -> Vec<String> {
        let names = fs::read_dir(dir).expect("a directory").flatten();
        let mut names: Vec<_> =
            names.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
        names.sort();
        names
    }

    #[test]
    fn the_oldest_files_make_room_and_others_are_left_alone() {
        const WRITTEN: &str = ".written.procession-partial";
        let dir = tempfile::tempdir().expect("a directory");
        let file = |name: &str, age: u64, len: usize| {
            let path = dir.path().join(name);
            fs::write(&path, vec![0; len]).expect("written");
            let time = SystemTime::now() - Duration::from_secs(age);
            let file = fs::File::options().append(true).open(path).expect("a file");
            file.set_modified(time).expect("a time");
        };
        file("notes.txt", 500, 1000);
        file(".abandoned.procession-partial", 4000, 10);
        file(WRITTEN, 100, 10);
        file("b.procession", 400, 10);
        file("a.procession", 300, 10);
        file("c.procession", 200, 10);
        let new = dir.path().join("d.procession");
        keeper(dir.path(), 3, 1000).make_room(&new, 10).expect("room");
        assert_eq!(names(dir.path()), [WRITTEN, "a.procession", "c.procession", "notes.txt"]);
        keeper(dir.path(), 3, 25).make_room(&new, 10).expect("room");
        assert_eq!(names(dir.path()), [WRITTEN, "c.procession", "notes.txt"]);
        // A file that is to be replaced is not counted.
        let replaced = dir.path().join("c.procession");
        keeper(dir.path(), 1, 10).make_room(&replaced, 10).expect("room");
        assert_eq!(names(dir.path()), [WRITTEN, "c.procession", "notes.txt"]);
    }

    #[test]
    fn a_name_of_a_file_is_short_and_plain() {
        let dir = tempfile::tempdir().expect("a directory");
        let keeper = keeper(dir.path(), 1, 1);
        let name = keeper.file_name("app::../thumb nail/ü", 17);
        let pid = process::id();
        assert!(name.ends_with(&format!("-{pid}-17-app__.._thumb_nail__.procession")), "{name}");
        assert!(keeper.file_name(&"x".repeat(1000), u64::MAX).len() < 150);
    }
}
