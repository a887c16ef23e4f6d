//! Which program the workers run.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::{env, fs};

use crate::error::PoolError;

/// The programs that may serve as worker, best first. One that turns out to be of another build
/// is passed over for the next.
#[derive(Debug)]
pub(crate) struct Programs {
    candidates: Vec<Program>,
    current: AtomicUsize,
    /// A process of this one, counted from 1, was ready to serve.
    serves: AtomicUsize,
}

/// A program to start.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Program {
    pub path: PathBuf,
    /// What the process list shows in place of the path.
    pub shown_as: Option<OsString>,
}

impl Programs {
    /// Only this one.
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

    /// The executable that this process runs.
    pub(crate) fn this() -> Result<Self, PoolError> {
        Ok(Self::of(vec![this_program()?]))
    }

    /// The executable of this name beside the running one, if there is one, else the running one.
    pub(crate) fn beside_this(name: &str) -> Result<Self, PoolError> {
        let this = this_program()?;
        let beside = env::current_exe().ok().map(|exe| exe.with_file_name(name));
        let beside = beside
            .filter(|beside| beside.is_file() && env::current_exe().ok().as_ref() != Some(beside));
        let beside = beside.map(|path| Program { path, shown_as: None });
        Ok(Self::of(beside.into_iter().chain([this]).collect()))
    }

    fn of(candidates: Vec<Program>) -> Self {
        Self { candidates, current: AtomicUsize::new(0), serves: AtomicUsize::new(0) }
    }

    /// The one to start now, with its rank.
    pub(crate) fn current(&self) -> (usize, &Program) {
        let rank = self.current.load(Ordering::Acquire);
        (rank, &self.candidates[rank])
    }

    pub(crate) fn path(&self, rank: usize) -> &Path {
        &self.candidates[rank].path
    }

    /// Whether it is the program that runs here.
    pub(crate) fn is_this(&self, rank: usize) -> bool {
        let program = &self.candidates[rank];
        program.shown_as.is_some() || env::current_exe().is_ok_and(|exe| exe == program.path)
    }

    pub(crate) fn note_that_it_serves(&self, rank: usize) {
        self.serves.store(rank + 1, Ordering::Release);
    }

    pub(crate) fn is_known_to_serve(&self, rank: usize) -> bool {
        self.serves.load(Ordering::Acquire) == rank + 1
    }

    /// Gives up the program of this rank, if there is another one. `None`: there is none; else
    /// whether this call was the first to say so.
    pub(crate) fn pass_over(&self, rank: usize) -> Option<bool> {
        if rank + 1 >= self.candidates.len() {
            return None;
        }
        Some(self.current.fetch_max(rank + 1, Ordering::AcqRel) <= rank)
    }
}

fn this_program() -> Result<Program, PoolError> {
    let path = env::current_exe().map_err(|error| {
        PoolError::System(format!("cannot find the running executable: {error}"))
    })?;
    // The path may lead to a newer file by now; the link always leads to what runs here.
    let link = Path::new("/proc/self/exe");
    if cfg!(target_os = "linux") && link.exists() {
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
