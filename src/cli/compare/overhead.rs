//! The overhead of a task: the cost of submitting an empty task and of receiving its result, with many
//! tasks in flight.

use super::mode::{ExecutorSpec, Language, MeasuredMode, PoolSize};
use super::progress::ComparisonProgress;
use super::rounds::{self, ComparisonEnd, RoundMessages};
use super::run::MeasuredRun;
use super::statistics::Spread;
use super::task_job::TaskJob;

/// Numbers of empty tasks in a run, and of runs.
const IDLE_JOBS: usize = 4_000;
const IDLE_RUNS: usize = 5;

pub(super) struct Overheads {
    /// The overhead of each mode with one worker, in seconds.
    pub of_modes: Vec<(MeasuredMode, Spread)>,
    /// The runs with other results, which do not count, in words.
    pub deviations: Vec<String>,
    pub end: ComparisonEnd,
}

/// Measures the overhead in each kind of mode.
pub(super) fn measure(
    job: &TaskJob,
    modes: &[MeasuredMode],
    messages: &RoundMessages,
    progress: &ComparisonProgress,
) -> Overheads {
    let one = |mode: &MeasuredMode| {
        let executor = match mode.executor {
            ExecutorSpec::Sequential => ExecutorSpec::Sequential,
            ExecutorSpec::Threads(_) => ExecutorSpec::Threads(Some(1)),
            ExecutorSpec::Processes(_) => {
                ExecutorSpec::Processes(Some(PoolSize { workers: 1, threads: 1 }))
            }
            ExecutorSpec::Hosts => ExecutorSpec::Hosts,
        };
        MeasuredMode { executor, ..*mode }
    };
    let mut kinds: Vec<MeasuredMode> = Vec::new();
    for mode in modes.iter().map(one) {
        let is_call =
            mode.executor == ExecutorSpec::Sequential && mode.language == Language::Python;
        if !kinds.contains(&mode) && !is_call {
            kinds.push(mode);
        }
    }
    let idle = job.idle(IDLE_JOBS);
    let rounds = rounds::run(&idle, &kinds, 1, IDLE_RUNS, messages, progress);
    let overhead = |(mode, runs): (MeasuredMode, Vec<MeasuredRun>)| {
        let times: Vec<_> = runs.iter().map(|run| run.seconds / IDLE_JOBS as f64).collect();
        Some((mode, Spread::of(&times)?))
    };
    let of_modes = kinds.into_iter().zip(rounds.runs).filter_map(overhead).collect();
    Overheads { of_modes, deviations: rounds.deviations, end: rounds.end }
}
