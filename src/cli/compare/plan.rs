//! The command line of `compare` as resolved: what is to be run, how often, and what becomes of
//! the result.

use std::net::SocketAddr;
use std::path::PathBuf;

use crate::cli::args::{Color, Origin, Progress};
use crate::cli::contradictions;
use crate::cli::settings::UsageError as Selection;
use crate::flags::codes::Code;
use crate::workload::Work;

use super::args::{Args, Task};
use super::export::{Format, UnknownFormat};
use super::labour::{self, Python};
use super::mode::{Crew, Language, Mode, Size};

#[derive(Debug)]
pub(super) struct Plan {
    pub what: What,
    pub modes: Vec<Mode>,
    /// Which of the modes the others are compared with.
    pub reference: usize,
    pub runs: usize,
    pub warmup: usize,
    pub exports: Vec<(PathBuf, Format)>,
    pub progress: Progress,
    pub color: Color,
    /// Where the page is, if there is one.
    pub dashboard: Option<SocketAddr>,
    /// What a person should know before.
    pub remarks: Vec<String>,
}

/// The job.
#[derive(Debug)]
pub(super) enum What {
    Flags {
        codes: Vec<Code>,
        origin: Origin,
        workers: Option<usize>,
    },
    Labour {
        work: Work,
        jobs: usize,
        size: u64,
        /// What CPython it is, where one is to be compared.
        python: Option<Python>,
    },
    /// Not a comparison, but one run of one.
    Once {
        work: Work,
        jobs: usize,
        size: u64,
    },
}

/// Why a command line makes no sense.
#[derive(Debug, thiserror::Error)]
pub(super) enum UsageError {
    #[error(transparent)]
    Selection(#[from] Selection),
    #[error("--size SIZE of {work} must be {least} to {most}")]
    Size { work: Work, least: u64, most: u64 },
    #[error("{0} is of the work of --task NAME, and flags are compared")]
    NoTask(&'static str),
    #[error("--modes {0}: it is there twice")]
    Twice(Mode),
    #[error("--modes {0}: CPython runs only --task sha, noop and python")]
    NoPythonForThis(Mode),
    #[error("--modes {0}: python3 was not found")]
    NoPython(Mode),
    #[error("--reference {0}: it must be one of the modes that are compared: {1}")]
    Reference(Mode, String),
    #[error(transparent)]
    Export(#[from] UnknownFormat),
    #[error(
        "--workers {0} contradicts --modes: all of them tell their own numbers: leave --workers \
         away, or write processes without a number"
    )]
    UnusedWorkers(usize),
    #[error("--export {}: it is there twice", .0.display())]
    SameExport(PathBuf),
    #[error("{0}")]
    Contradiction(String),
    #[error("{0}")]
    Dashboard(String),
}

/// Above this, not every number of workers is tried, but the powers of two.
const EACH: usize = 8;

pub(super) fn resolve(typed: Args) -> Result<Plan, UsageError> {
    // All of it, so that a new option cannot be forgotten.
    let Args {
        which,
        origin,
        task,
        jobs,
        size,
        modes,
        reference,
        runs,
        warmup,
        workers,
        export,
        progress,
        color,
        dashboard,
        once,
    } = typed;
    for (option, is_given) in [("--jobs", jobs.is_some()), ("--size", size.is_some())] {
        if task.is_none() && is_given {
            return Err(UsageError::NoTask(option));
        }
    }
    contradictions::in_origin(&origin).map_err(UsageError::Contradiction)?;
    let uses_workers = |mode: &Mode| {
        matches!((mode.crew, task), (Crew::Processes(None), _) | (Crew::Threads(None), Some(_)))
    };
    if let Some(workers) = workers
        && !modes.is_empty()
        && !modes.iter().chain(&reference).any(uses_workers)
    {
        return Err(UsageError::UnusedWorkers(workers));
    }
    if let Some((_, path)) = export.iter().enumerate().find(|(n, path)| export[..*n].contains(path))
    {
        return Err(UsageError::SameExport(path.clone()));
    }
    let dashboard = dashboard.resolve().map_err(UsageError::Dashboard)?;
    let mut remarks = Vec::new();
    let (what, modes, reference) = match task {
        None => {
            if let Some(mode) = modes.iter().find(|mode| mode.language == Language::Python) {
                return Err(UsageError::NoPythonForThis(*mode));
            }
            let usual = [Crew::Sequential, Crew::Threads(None), Crew::Processes(None)];
            let modes = or_usual(modes, || usual.map(Mode::rust).into());
            (What::Flags { codes: which.resolve()?, origin, workers }, modes, reference)
        }
        Some(task) => {
            let work = work(task);
            let size = size.unwrap_or(work.usual_size());
            if !work.sizes().contains(&size) {
                let (least, most) = work.sizes().into_inner();
                return Err(UsageError::Size { work, least, most });
            }
            let jobs = jobs.unwrap_or(work.usual_jobs());
            let most = workers.unwrap_or_else(num_cpus::get).min(1000);
            let python_too = task == Task::Python;
            let is_usual = modes.is_empty();
            let mut modes = or_usual(modes, || usual_modes(most, python_too));
            modes.iter_mut().for_each(|mode| *mode = sized(*mode, most));
            if once {
                let what = What::Once { work, jobs, size };
                (what, modes, None)
            } else {
                let python = find_python(work, &mut modes, is_usual, &mut remarks)?;
                let reference = reference.map(|mode| sized(mode, most));
                (What::Labour { work, jobs, size, python }, modes, reference)
            }
        }
    };
    let again = modes.iter().enumerate().find(|(n, mode)| modes[..*n].contains(mode));
    if let Some((_, mode)) = again {
        return Err(UsageError::Twice(*mode));
    }
    let reference = match reference {
        None => 0,
        Some(reference) => modes.iter().position(|mode| *mode == reference).ok_or_else(|| {
            let names: Vec<_> = modes.iter().map(ToString::to_string).collect();
            UsageError::Reference(reference, names.join(", "))
        })?,
    };
    let exports = export.into_iter().map(|path| Ok((path.clone(), Format::of(&path)?)));
    let exports = exports.collect::<Result<_, UnknownFormat>>()?;
    Ok(Plan { what, modes, reference, runs, warmup, exports, progress, color, dashboard, remarks })
}

fn or_usual(modes: Vec<Mode>, usual: impl FnOnce() -> Vec<Mode>) -> Vec<Mode> {
    if modes.is_empty() { usual() } else { modes }
}

fn work(task: Task) -> Work {
    match task {
        Task::Sha | Task::Python => Work::Sha,
        Task::Arcfour => Work::Arcfour,
        Task::Primes => Work::Primes,
        Task::Sleep => Work::Sleep,
        Task::Noop => Work::Noop,
    }
}

/// One after the other, and each kind with 1 to so many workers.
fn usual_modes(most: usize, python_too: bool) -> Vec<Mode> {
    let numbers = || (1..=most).filter(|n| most <= EACH || n.is_power_of_two() || *n == most);
    let crews = || {
        let processes = |workers| Crew::Processes(Some(Size { workers, threads: 1 }));
        let threads = numbers().map(|n| Crew::Threads(Some(n)));
        [Crew::Sequential].into_iter().chain(threads).chain(numbers().map(processes))
    };
    let python = crews().filter(|_| python_too).map(Mode::python);
    crews().map(Mode::rust).chain(python).collect()
}

/// The mode with its number, which those that work for the CPU are told apart by.
fn sized(mode: Mode, most: usize) -> Mode {
    let crew = match mode.crew {
        Crew::Threads(None) => Crew::Threads(Some(most)),
        Crew::Processes(None) => Crew::Processes(Some(Size { workers: most, threads: 1 })),
        crew => crew,
    };
    Mode { crew, ..mode }
}

/// Sees to it that there is a CPython where one is needed; where one was only meant to be there as
/// well, the comparison goes without.
fn find_python(
    work: Work,
    modes: &mut Vec<Mode>,
    is_usual: bool,
    remarks: &mut Vec<String>,
) -> Result<Option<Python>, UsageError> {
    let Some(&mode) = modes.iter().find(|mode| mode.language == Language::Python) else {
        return Ok(None);
    };
    if !matches!(work, Work::Sha | Work::Noop) {
        return Err(UsageError::NoPythonForThis(mode));
    }
    let python = labour::find_python();
    if python.is_none() {
        if !is_usual {
            return Err(UsageError::NoPython(mode));
        }
        remarks.push("python3 was not found, so CPython is not compared".to_owned());
        modes.retain(|mode| mode.language == Language::Rust);
    }
    Ok(python)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(modes: &[Mode]) -> String {
        modes.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn every_number_of_workers_is_tried_up_to_eight_and_then_the_powers_of_two() {
        assert_eq!(
            names(&usual_modes(2, false)),
            "sequential threads:1 threads:2 processes:1 processes:2"
        );
        assert_eq!(usual_modes(8, false).len(), 17);
        let threads = usual_modes(12, true);
        let threads = threads.iter().filter(|mode| mode.kind() == "python-threads");
        let numbers: Vec<_> = threads.filter_map(|mode| mode.concurrency()).collect();
        assert_eq!(numbers, [1, 2, 4, 8, 12]);
    }
}
