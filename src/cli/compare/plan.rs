//! The command line of `compare` as resolved: the job, the modes, the numbers of runs, the exports.

use std::net::SocketAddr;
use std::path::PathBuf;

use crate::cli::contradiction::{self, Contradiction};
use crate::cli::dashboard::AddressError;
use crate::cli::hosts::NatsArgs;
use crate::cli::options::{
    CodeArgsError, ColorOption, DisplayArgs, ProgressOption, RequestArgs, SiteArgs,
};
use crate::flags::codes::Code;
use crate::workload::WorkKind;

use super::args::{CompareArgs, TaskName};
use super::export::{self, UnknownFormat};
use super::mode::{ExecutorSpec, Language, MeasuredMode, PoolSize};
use super::task_job::{self, PythonInfo};

#[derive(Debug)]
pub(super) struct ComparisonPlan {
    pub job: JobSpec,
    pub modes: Vec<MeasuredMode>,
    /// Index of the mode with which the others are compared.
    pub reference: usize,
    pub runs: usize,
    pub warmup: usize,
    pub exports: Vec<PathBuf>,
    pub progress: ProgressOption,
    pub color: ColorOption,
    /// Address of the dashboard, if there is one.
    pub dashboard: Option<SocketAddr>,
    /// Remarks for the report.
    pub remarks: Vec<String>,
}

/// The job.
#[derive(Debug)]
pub(super) enum JobSpec {
    Flags {
        codes: Vec<Code>,
        site: SiteArgs,
        request: RequestArgs,
        workers: Option<usize>,
        nats: Box<NatsArgs>,
    },
    Tasks {
        work: WorkKind,
        jobs: usize,
        size: u64,
        /// The Python, if one is compared.
        python: Option<PythonInfo>,
    },
    /// One measured run of a comparison, in this process.
    Once { work: WorkKind, jobs: usize, size: u64 },
}

/// The command line is invalid.
#[derive(Debug, thiserror::Error)]
pub(super) enum PlanError {
    #[error("{0}")]
    Codes(#[from] CodeArgsError),
    #[error("--size SIZE of {work} must be {least} to {most}")]
    Size { work: WorkKind, least: u64, most: u64 },
    #[error("{0} is of the work of --task NAME, and flags are compared")]
    NoTask(&'static str),
    #[error("--modes {0}: it is there twice")]
    Twice(MeasuredMode),
    #[error("--modes {0}: CPython runs only --task sha, noop and python")]
    NoPythonForThis(MeasuredMode),
    #[error("--modes {0}: python3 was not found")]
    NoPython(MeasuredMode),
    #[error("--modes hosts needs --nats URL, the address of the NATS servers")]
    HostsWithoutNats,
    #[error("--nats URL needs hosts among --modes")]
    NatsWithoutHosts,
    #[error("--modes hosts: other hosts download flags, and do no --task")]
    HostsDoNoTask,
    #[error("--reference {0}: it must be one of the modes that are compared: {1}")]
    Reference(MeasuredMode, String),
    #[error(transparent)]
    Export(#[from] UnknownFormat),
    #[error(
        "--workers {0} contradicts --modes: all of them tell their own numbers: omit --workers, \
         or write processes without a number"
    )]
    UnusedWorkers(usize),
    #[error("--export {}: it is there twice", .0.display())]
    SameExport(PathBuf),
    #[error(transparent)]
    Contradiction(#[from] Contradiction),
    #[error(transparent)]
    DashboardAddress(#[from] AddressError),
}

/// Up to this number of workers, each number is measured; above it, the powers of two.
const MEASURE_EACH: usize = 8;

const HOSTS: MeasuredMode =
    MeasuredMode { language: Language::Rust, executor: ExecutorSpec::Hosts };
const HOSTS_REMARK: &str = "The CPU time and the memory of hosts are those of the coordinator alone, \
                            without servers and agents.";

impl ComparisonPlan {
    /// Resolves the arguments.
    pub(super) fn resolve(args: CompareArgs) -> Result<Self, PlanError> {
        args.check()?;
        // All fields, so that a new option cannot be forgotten.
        let CompareArgs {
            codes,
            site,
            request,
            task,
            jobs,
            size,
            modes,
            reference,
            runs,
            warmup,
            workers,
            export,
            display: DisplayArgs { progress, color },
            dashboard,
            nats,
            once,
        } = args;
        let dashboard = dashboard.resolve()?;
        let mut remarks = Vec::new();
        let (job, modes, reference) = match task {
            None => {
                let modes = flag_modes(modes)?;
                if modes.contains(&HOSTS) {
                    remarks.push(HOSTS_REMARK.to_owned());
                }
                let nats = Box::new(nats);
                (
                    JobSpec::Flags { codes: codes.resolve()?, site, request, workers, nats },
                    modes,
                    reference,
                )
            }
            Some(task) => {
                let tasks = WorkloadOptions { task, jobs, size, workers };
                tasks.resolve(modes, reference, once, &mut remarks)?
            }
        };
        let repeated = modes.iter().enumerate().find(|(n, mode)| modes[..*n].contains(mode));
        if let Some((_, mode)) = repeated {
            return Err(PlanError::Twice(*mode));
        }
        let reference = reference_index(&modes, reference)?;
        export.iter().try_for_each(|path| export::exporter(path).map(drop))?;
        Ok(Self {
            job,
            modes,
            reference,
            runs,
            warmup,
            exports: export,
            progress,
            color,
            dashboard,
            remarks,
        })
    }
}

impl CompareArgs {
    /// Checks that no option would have to be ignored.
    fn check(&self) -> Result<(), PlanError> {
        let Self { task, jobs, size, modes, reference, workers, export, .. } = self;
        for (option, is_given) in [("--jobs", jobs.is_some()), ("--size", size.is_some())] {
            if task.is_none() && is_given {
                return Err(PlanError::NoTask(option));
            }
        }
        match (modes.contains(&HOSTS), self.nats.nats.is_some()) {
            (true, _) if task.is_some() => return Err(PlanError::HostsDoNoTask),
            (true, false) => return Err(PlanError::HostsWithoutNats),
            (false, true) => return Err(PlanError::NatsWithoutHosts),
            _ => {}
        }
        contradiction::check_site(&self.site)?;
        let uses_workers = |mode: &MeasuredMode| match mode.executor {
            ExecutorSpec::Processes(None) => true,
            ExecutorSpec::Threads(None) => task.is_some(),
            _ => false,
        };
        if let Some(workers) = workers
            && !modes.is_empty()
            && !modes.iter().chain(reference).any(uses_workers)
        {
            return Err(PlanError::UnusedWorkers(*workers));
        }
        let repeated = export.iter().enumerate().find(|(n, path)| export[..*n].contains(path));
        match repeated {
            Some((_, path)) => Err(PlanError::SameExport(path.clone())),
            None => Ok(()),
        }
    }
}

fn reference_index(
    modes: &[MeasuredMode],
    reference: Option<MeasuredMode>,
) -> Result<usize, PlanError> {
    let Some(reference) = reference else { return Ok(0) };
    modes.iter().position(|mode| *mode == reference).ok_or_else(|| {
        let names: Vec<_> = modes.iter().map(ToString::to_string).collect();
        PlanError::Reference(reference, names.join(", "))
    })
}

/// The modes of a download: by default one of each kind.
fn flag_modes(modes: Vec<MeasuredMode>) -> Result<Vec<MeasuredMode>, PlanError> {
    if let Some(mode) = modes.iter().find(|mode| mode.language == Language::Python) {
        return Err(PlanError::NoPythonForThis(*mode));
    }
    if !modes.is_empty() {
        return Ok(modes);
    }
    let default =
        [ExecutorSpec::Sequential, ExecutorSpec::Threads(None), ExecutorSpec::Processes(None)];
    Ok(default.map(MeasuredMode::rust).into())
}

/// The options of `--task`.
struct WorkloadOptions {
    task: TaskName,
    jobs: Option<usize>,
    size: Option<u64>,
    workers: Option<usize>,
}

type ResolvedJob = (JobSpec, Vec<MeasuredMode>, Option<MeasuredMode>);

impl WorkloadOptions {
    fn resolve(
        self,
        modes: Vec<MeasuredMode>,
        reference: Option<MeasuredMode>,
        once: bool,
        remarks: &mut Vec<String>,
    ) -> Result<ResolvedJob, PlanError> {
        let work = self.task.work();
        let size = self.size.unwrap_or(work.usual_size());
        if !work.sizes().contains(&size) {
            let (least, most) = work.sizes().into_inner();
            return Err(PlanError::Size { work, least, most });
        }
        let jobs = self.jobs.unwrap_or(work.usual_jobs());
        let most = self.workers.unwrap_or_else(num_cpus::get).min(1000);
        let is_default = modes.is_empty();
        let mut modes = match is_default {
            true => default_modes(most, self.task == TaskName::Python),
            false => modes,
        };
        modes.iter_mut().for_each(|mode| *mode = with_size(*mode, most));
        if once {
            return Ok((JobSpec::Once { work, jobs, size }, modes, None));
        }
        let python = find_python(work, &mut modes, is_default, remarks)?;
        let reference = reference.map(|mode| with_size(mode, most));
        Ok((JobSpec::Tasks { work, jobs, size, python }, modes, reference))
    }
}

impl TaskName {
    fn work(self) -> WorkKind {
        match self {
            Self::Sha | Self::Python => WorkKind::Sha,
            Self::Arcfour => WorkKind::Arcfour,
            Self::Primes => WorkKind::Primes,
            Self::Sleep => WorkKind::Sleep,
            Self::Noop => WorkKind::Noop,
        }
    }
}

/// Sequential execution, and threads and processes with several numbers of workers.
fn default_modes(most: usize, with_python: bool) -> Vec<MeasuredMode> {
    let numbers =
        || (1..=most).filter(|n| most <= MEASURE_EACH || n.is_power_of_two() || *n == most);
    let executors = || {
        let processes = |workers| ExecutorSpec::Processes(Some(PoolSize { workers, threads: 1 }));
        let threads = numbers().map(|n| ExecutorSpec::Threads(Some(n)));
        [ExecutorSpec::Sequential].into_iter().chain(threads).chain(numbers().map(processes))
    };
    let python = executors().filter(|_| with_python).map(MeasuredMode::python);
    executors().map(MeasuredMode::rust).chain(python).collect()
}

/// The mode with a number of workers.
fn with_size(mode: MeasuredMode, most: usize) -> MeasuredMode {
    let executor = match mode.executor {
        ExecutorSpec::Threads(None) => ExecutorSpec::Threads(Some(most)),
        ExecutorSpec::Processes(None) => {
            ExecutorSpec::Processes(Some(PoolSize { workers: most, threads: 1 }))
        }
        executor => executor,
    };
    MeasuredMode { executor, ..mode }
}

/// Finds the Python of the modes that need one. If there is none, default modes are removed, and
/// requested ones are an error.
fn find_python(
    work: WorkKind,
    modes: &mut Vec<MeasuredMode>,
    is_default: bool,
    remarks: &mut Vec<String>,
) -> Result<Option<PythonInfo>, PlanError> {
    let Some(&mode) = modes.iter().find(|mode| mode.language == Language::Python) else {
        return Ok(None);
    };
    if !matches!(work, WorkKind::Sha | WorkKind::Noop) {
        return Err(PlanError::NoPythonForThis(mode));
    }
    let python = task_job::find_python();
    if python.is_none() {
        if !is_default {
            return Err(PlanError::NoPython(mode));
        }
        remarks.push("python3 was not found, so CPython is not compared".to_owned());
        modes.retain(|mode| mode.language == Language::Rust);
    }
    Ok(python)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(modes: &[MeasuredMode]) -> String {
        modes.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn every_number_of_workers_is_measured_up_to_eight_and_then_the_powers_of_two() {
        assert_eq!(
            names(&default_modes(2, false)),
            "sequential threads:1 threads:2 processes:1 processes:2"
        );
        assert_eq!(default_modes(8, false).len(), 17);
        let threads = default_modes(12, true);
        let threads = threads.iter().filter(|mode| mode.kind() == "python-threads");
        let numbers: Vec<_> = threads.filter_map(|mode| mode.concurrency()).collect();
        assert_eq!(numbers, [1, 2, 4, 8, 12]);
    }
}
