//! [`Programs`]: the program that the workers run, and those that are tried in its place.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::{env, fs};

use super::PoolEvent;
use super::inner::PoolInner;
use crate::error::PoolError;

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
}

impl Programs {
    /// This program only.
    pub(crate) fn only(path: &Path) -> Result<Self, PoolError> {
        let unusable =
            |reason: &str| PoolError::Program { path: path.to_owned(), reason: reason.to_owned() };
        let file = fs::metadata(path).map_err(|error| unusable(&error.to_string()))?;
        if !file.is_file() {
            return Err(unusable("it is not a file"));
        }
        if rustix::fs::access(path, rustix::fs::Access::EXEC_OK).is_err() {
            return Err(unusable("it is not executable"));
        }
        Ok(Self::of(vec![Program { path: path.to_owned(), shown_as: None }]))
    }

    /// The executable of this process.
    pub(crate) fn this() -> Result<Self, PoolError> {
        Ok(Self::of(vec![this_program()?]))
    }

    /// The executable of this name in the directory of this process's executable, if there is one;
    /// then the executable of this process.
    pub(crate) fn beside_this(name: &str) -> Result<Self, PoolError> {
        let this = this_program()?;
        let beside = env::current_exe().ok().map(|exe| exe.with_file_name(name));
        let beside = beside
            .filter(|beside| beside.is_file() && env::current_exe().ok().as_ref() != Some(beside));
        let beside = beside.map(|path| Program { path, shown_as: None });
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

    /// Switches to the program behind this one. `None`: there is none. Else whether this call was
    /// the first for this rank.
    pub(crate) fn pass_over(&self, rank: usize) -> Option<bool> {
        if rank + 1 >= self.candidates.len() {
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

fn this_program() -> Result<Program, PoolError> {
    let path = env::current_exe().map_err(|error| {
        PoolError::System(format!("cannot find the running executable: {error}"))
    })?;
    // The file at the path may have been replaced; the link always leads to the running executable.
    let link = Path::new("/proc/self/exe");
    if cfg!(all(target_os = "linux", not(feature = "portable"))) && link.exists() {
        return Ok(Program { path: link.to_owned(), shown_as: Some(path.into_os_string()) });
    }
    Ok(Program { path, shown_as: None })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_that_fails_is_passed_over_once() {
        let program = |path: &str| Program { path: path.into(), shown_as: None };
        let programs = Programs::of(vec![program("/a"), program("/b")]);
        assert_eq!(programs.pass_over(0), Some(true));
        assert_eq!(programs.pass_over(0), Some(false));
        assert_eq!(programs.current(), (1, &program("/b")));
        assert_eq!(programs.pass_over(1), None);
    }
}
