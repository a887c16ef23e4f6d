//! [`Programs`]: the program that the workers run, and the programs that are tried if it cannot be used.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::{env, fs};

use super::PoolEvent;
use super::inner::PoolInner;
use crate::error::PoolError;
use crate::registry::Registry;
use crate::scheduler::UnfitProgram;
use crate::worker;

/// The programs that may serve as worker, in the order in which they are tried. The next one is used
/// when one has another build or does not start. The index of a program in this list is its rank.
#[derive(Debug)]
pub(crate) struct Programs {
    candidates: Vec<Program>,
    current: AtomicUsize,
    /// One more than the rank of the program of which a process was ready last; 0 if none was.
    served: AtomicUsize,
}

/// A program to start.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Program {
    pub path: PathBuf,
    /// Name in the process list, if it is not the path.
    pub shown_as: Option<OsString>,
    pub arguments: Vec<OsString>,
    /// The lines that it prints to stdout before it serves.
    pub prelude: &'static [&'static str],
}

impl Program {
    fn new(path: PathBuf, arguments: Vec<OsString>) -> Self {
        Self { path, shown_as: None, arguments, prelude: &[] }
    }
}

impl Programs {
    /// This program only.
    pub(crate) fn only(path: &Path, arguments: Vec<OsString>) -> Result<Self, PoolError> {
        let unusable =
            |reason: &str| PoolError::Program { path: path.to_owned(), reason: reason.to_owned() };
        let file = fs::metadata(path).map_err(|error| unusable(&error.to_string()))?;
        if !file.is_file() {
            return Err(unusable("it is not a file"));
        }
        if rustix::fs::access(path, rustix::fs::Access::EXEC_OK).is_err() {
            return Err(unusable("it is not executable"));
        }
        Ok(Self::of(vec![Program::new(path.to_owned(), arguments)]))
    }

    /// The executable of this process.
    pub(crate) fn this(arguments: Vec<OsString>) -> Result<Self, PoolError> {
        Ok(Self::of(vec![this_program(arguments)?]))
    }

    /// The executable of this name in the directory of this process's executable, if there is one;
    /// then the executable of this process.
    pub(crate) fn beside_this(name: &str, arguments: Vec<OsString>) -> Result<Self, PoolError> {
        let this = this_program(arguments.clone())?;
        let beside = env::current_exe().ok().map(|exe| exe.with_file_name(name));
        let beside = beside
            .filter(|beside| beside.is_file() && env::current_exe().ok().as_ref() != Some(beside));
        let beside = beside.map(|path| Program::new(path, arguments));
        Ok(Self::of(beside.into_iter().chain([this]).collect()))
    }

    fn of(candidates: Vec<Program>) -> Self {
        Self { candidates, current: AtomicUsize::new(0), served: AtomicUsize::new(0) }
    }

    /// The program to start now, with its rank.
    pub(crate) fn current(&self) -> (usize, &Program) {
        let rank = self.current.load(Ordering::Acquire);
        (rank, &self.candidates[rank])
    }

    pub(crate) fn path(&self, rank: usize) -> &Path {
        &self.candidates[rank].path
    }

    /// Whether it is the executable of this process.
    pub(crate) fn is_this(&self, rank: usize) -> bool {
        let program = &self.candidates[rank];
        program.shown_as.is_some() || env::current_exe().is_ok_and(|exe| exe == program.path)
    }

    /// A process of this program was ready.
    pub(crate) fn note_ready(&self, rank: usize) {
        self.served.store(rank + 1, Ordering::Release);
    }

    /// Whether a process of this program was ready before.
    pub(crate) fn has_served(&self, rank: usize) -> bool {
        self.served.load(Ordering::Acquire) == rank + 1
    }

    /// Whether there is a program behind this one.
    pub(crate) fn has_another(&self, rank: usize) -> bool {
        rank + 1 < self.candidates.len()
    }

    /// Switches to the program behind this one. `None`: there is none. Else whether this call was
    /// the first for this rank.
    pub(crate) fn pass_over(&self, rank: usize) -> Option<bool> {
        if !self.has_another(rank) {
            return None;
        }
        Some(self.current.fetch_max(rank + 1, Ordering::AcqRel) <= rank)
    }
}

impl PoolInner {
    /// Switches to the next program and reports that. Returns whether there is one.
    pub(super) fn pass_over(&self, rank: usize, reason: &str) -> bool {
        let is_first = self.setup.programs.pass_over(rank);
        if is_first == Some(true) {
            let program = self.setup.programs.path(rank).to_owned();
            let reason = reason.to_owned();
            self.listeners.event(|| PoolEvent::ProgramPassedOver { program, reason });
        }
        is_first.is_some()
    }
}

fn this_program(arguments: Vec<OsString>) -> Result<Program, PoolError> {
    let (arguments, prelude) = arguments_of_a_worker(arguments)?;
    let path = env::current_exe().map_err(|error| {
        PoolError::System(format!("cannot find the running executable: {error}"))
    })?;
    // The file at the path may have been replaced; the link always leads to the running executable.
    let link = Path::new("/proc/self/exe");
    if cfg!(all(target_os = "linux", not(feature = "portable"))) && link.exists() {
        let shown_as = Some(path.into_os_string());
        return Ok(Program { path: link.to_owned(), shown_as, arguments, prelude });
    }
    Ok(Program { prelude, ..Program::new(path, arguments) })
}

/// With which arguments a worker is started that runs this program, and what it then prints first.
///
/// A test program whose `main` is that of the test harness runs one test, and that serves. A program
/// that did not ask whether it was started as a worker, and has no such test, would do in its
/// workers what it does here; it is not started at all.
fn arguments_of_a_worker(given: Vec<OsString>) -> Result<Arguments, PoolError> {
    if let Some(conflict) = Registry::collected_conflict() {
        return Err(PoolError::Setting(conflict));
    }
    if !given.is_empty() {
        return Ok((given, &[]));
    }
    if let Some(test) = serving_test() {
        const ALONE: [&str; 5] =
            ["--exact", "--include-ignored", "--nocapture", "--quiet", "--test-threads=1"];
        const PRELUDE: &[&str] = &["", "running 1 test"];
        return Ok(([test].into_iter().chain(ALONE).map(OsString::from).collect(), PRELUDE));
    }
    if worker::has_asked() {
        return Ok((given, &[]));
    }
    Err(UnfitProgram::NotServing
        .error("this program builds a pool and did not serve before".into()))
}

type Arguments = (Vec<OsString>, &'static [&'static str]);

/// The name of a test that serves, as the test harness knows it: without the name of the crate.
fn serving_test() -> Option<&'static str> {
    #[cfg(feature = "macros")]
    {
        let path = crate::__private::TESTS.first()?;
        path.split_once("::").map(|(_, name)| name)
    }
    #[cfg(not(feature = "macros"))]
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ProcessPool;

    /// As this test program is: it has the `main` of the test harness, and no test that serves.
    #[test]
    fn a_program_that_never_asks_whether_it_is_a_worker_is_refused_before_any_process_is_started() {
        let Err(error @ PoolError::WorkerNotServing { .. }) = ProcessPool::new() else {
            panic!("no refusal")
        };
        let text = error.to_string();
        for what in ["#[procession::main]", "#[procession::test]", "serve_if_asked(registry)"] {
            assert!(text.contains(what), "{text}");
        }
        let beside = ProcessPool::builder().worker_program_beside("missing").build();
        assert_eq!(beside.err(), Some(error));
    }

    #[test]
    fn a_program_that_fails_is_passed_over_once() {
        let program = |path: &str| Program::new(path.into(), Vec::new());
        let programs = Programs::of(vec![program("/a"), program("/b")]);
        assert_eq!(programs.pass_over(0), Some(true));
        assert_eq!(programs.pass_over(0), Some(false));
        assert_eq!(programs.current(), (1, &program("/b")));
        assert_eq!(programs.pass_over(1), None);
    }
}
