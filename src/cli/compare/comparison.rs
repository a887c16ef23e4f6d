//! The results of a comparison, from which all reports and exports are made.

use std::env;

use crate::workload::WorkKind;

use super::mode::{ExecutorSpec, MeasuredMode, PoolSize};
use super::rounds::{ComparisonEnd, ExpectedResult, RoundResults};
use super::run::MeasuredRun;
use super::statistics::{Ratio, Sample, Spread};
use super::task_job::PythonInfo;

#[derive(Debug)]
pub(super) struct Comparison {
    /// What each run does, in words.
    pub job: String,
    /// The unit of the counts, in the plural.
    pub unit: &'static str,
    pub warmup: usize,
    /// Number of requested runs of each mode.
    pub runs: usize,
    pub rows: Vec<ModeResults>,
    /// Index of the row with which the others are compared.
    pub reference: usize,
    /// The result that a run must have to count, if there was a run.
    pub expected: Option<ExpectedResult>,
    /// The runs with other results, which do not count, in words.
    pub deviations: Vec<String>,
    /// Number of runs whose results were compared, warm-ups included.
    pub compared: usize,
    pub end: ComparisonEnd,
    /// Share of the machine's CPUs that other programs used.
    pub background_load: Option<f64>,
    /// The speed-up by number of workers, if it was measured.
    pub scaling: Vec<Scaling>,
    /// The overhead of a task by mode, in seconds.
    pub overheads: Vec<(MeasuredMode, Spread)>,
    pub remarks: Vec<String>,
    pub context: MeasurementContext,
    /// The kind and the number of the jobs of each run, if it is not a download.
    pub work: Option<(WorkKind, usize)>,
}

/// A mode and its runs.
#[derive(Debug)]
pub(super) struct ModeResults {
    pub mode: MeasuredMode,
    pub runs: Vec<MeasuredRun>,
    /// In bytes.
    pub peak_rss: u64,
    pub times: Option<Spread>,
    /// How many times as fast the mode is as the reference; `None` for the reference.
    pub ratio: Option<Ratio>,
}

/// One point of a scaling curve.
#[derive(Debug, Clone)]
pub(super) struct Scaling {
    /// Such as `threads`.
    pub kind: String,
    pub workers: usize,
    /// How many times as fast as one worker of the same kind; exactly 1 with one worker.
    pub speed_up: Ratio,
}

/// The machine, the program and the time of the measurement.
#[derive(Debug)]
pub(super) struct MeasurementContext {
    /// The command line, to repeat the measurement.
    pub command: String,
    pub version: &'static str,
    pub cpus: usize,
    pub system: String,
    pub debug_build: bool,
    pub when: String,
    pub python: Option<PythonInfo>,
}

impl ModeResults {
    pub(super) fn cpu(&self) -> Option<f64> {
        mean(&self.runs, MeasuredRun::cpu)
    }

    pub(super) fn user(&self) -> Option<f64> {
        mean(&self.runs, |run| run.user)
    }

    pub(super) fn system(&self) -> Option<f64> {
        mean(&self.runs, |run| run.system)
    }

    /// How many times as fast the mode is as the reference.
    pub(super) fn compared_with(&self, reference: &ModeResults) -> Option<Ratio> {
        let samples = |row: &ModeResults| -> Vec<_> {
            let sample = |run: &MeasuredRun| Sample { round: run.round, seconds: run.seconds };
            row.runs.iter().map(sample).collect()
        };
        Ratio::new(&samples(reference), &samples(self))
    }

    /// Number of successful flags or jobs per second.
    pub(super) fn per_second(&self) -> Option<f64> {
        let times = self.times?;
        let ok = self.runs.first()?.result.counts.ok;
        Some(ok as f64 / times.mean)
    }
}

fn mean(runs: &[MeasuredRun], value: impl Fn(&MeasuredRun) -> f64) -> Option<f64> {
    let values: Vec<_> = runs.iter().map(value).collect();
    Spread::of(&values).map(|spread| spread.mean)
}

/// The results by mode.
fn rows(
    modes: &[MeasuredMode],
    runs: Vec<Vec<MeasuredRun>>,
    peaks: &[u64],
    reference: usize,
) -> Vec<ModeResults> {
    let row = |((&mode, runs), &peak_rss): ((&MeasuredMode, Vec<MeasuredRun>), &u64)| {
        let times: Vec<_> = runs.iter().map(|run| run.seconds).collect();
        ModeResults { mode, runs, peak_rss, times: Spread::of(&times), ratio: None }
    };
    let mut rows: Vec<_> = modes.iter().zip(runs).zip(peaks).map(row).collect();
    let ratios: Vec<_> = rows.iter().map(|row| row.compared_with(rows.get(reference)?)).collect();
    for (n, (row, ratio)) in rows.iter_mut().zip(ratios).enumerate() {
        row.ratio = ratio.filter(|_| n != reference);
    }
    rows
}

/// The speed-up of each mode over one worker of its kind. Workers with several threads are not included,
/// since they differ in two numbers.
pub(super) fn scaling(rows: &[ModeResults]) -> Vec<Scaling> {
    let mut curve = Vec::new();
    let workers_of = |row: &ModeResults| match row.mode.executor {
        ExecutorSpec::Threads(workers) => workers,
        ExecutorSpec::Processes(Some(PoolSize { workers, threads: 1 })) => Some(workers),
        _ => None,
    };
    for row in rows {
        let Some(workers) = workers_of(row) else { continue };
        let kind = row.mode.kind();
        let is_one =
            |other: &&ModeResults| other.mode.kind() == kind && workers_of(other) == Some(1);
        let Some(one) = rows.iter().find(is_one) else { continue };
        let speed_up = match workers {
            1 => row.times.map(|_| Ratio::ONE),
            _ => row.compared_with(one),
        };
        curve.extend(speed_up.map(|speed_up| Scaling { kind, workers, speed_up }));
    }
    // One worker alone is no curve.
    let is_curve = curve.iter().any(|point: &Scaling| point.workers > 1);
    if is_curve { curve } else { Vec::new() }
}

impl MeasurementContext {
    pub(super) fn here(python: Option<PythonInfo>) -> Self {
        let quoted = |arg: String| {
            let is_plain = |c: char| c.is_alphanumeric() || "-_./:,=+%@".contains(c);
            match !arg.is_empty() && arg.chars().all(is_plain) {
                true => arg,
                false => format!("'{}'", arg.replace('\'', "'\\''")),
            }
        };
        let args = env::args_os().skip(1).map(|arg| quoted(arg.to_string_lossy().into_owned()));
        let command: Vec<_> = ["coordinator".to_owned()].into_iter().chain(args).collect();
        Self {
            command: command.join(" "),
            version: env!("CARGO_PKG_VERSION"),
            cpus: num_cpus::get(),
            system: format!("{} {}", env::consts::OS, env::consts::ARCH),
            debug_build: cfg!(debug_assertions),
            when: jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string(),
            python,
        }
    }
}

impl Comparison {
    pub(super) fn new(job: String, unit: &'static str, context: MeasurementContext) -> Self {
        Self {
            job,
            unit,
            warmup: 0,
            runs: 0,
            rows: Vec::new(),
            reference: 0,
            expected: None,
            deviations: Vec::new(),
            compared: 0,
            end: ComparisonEnd::Done,
            background_load: None,
            scaling: Vec::new(),
            overheads: Vec::new(),
            remarks: Vec::new(),
            context,
            work: None,
        }
    }

    /// Adds the results of the rounds.
    pub(super) fn with(
        mut self,
        modes: &[MeasuredMode],
        reference: usize,
        rounds: RoundResults,
    ) -> Self {
        let RoundResults { runs, peaks, expected, deviations, compared, end, background_load } =
            rounds;
        self.rows = rows(modes, runs, &peaks, reference);
        self.reference = reference;
        (self.expected, self.deviations, self.compared) = (expected, deviations, compared);
        (self.end, self.background_load) = (end, background_load);
        self
    }

    /// The best possible speed-up with this number of workers: it is limited by the number of CPUs, if
    /// the work is CPU-bound, and by the number of jobs.
    pub(super) fn ideal(&self, workers: usize) -> f64 {
        let Some((work, jobs)) = self.work else { return workers as f64 };
        let at_once =
            if work == WorkKind::Sleep { workers } else { workers.min(self.context.cpus) };
        jobs as f64 / jobs.div_ceil(at_once.max(1)).max(1) as f64
    }

    /// Whether no run counts.
    pub(super) fn is_empty(&self) -> bool {
        self.rows.iter().all(|row| row.runs.is_empty())
    }
}
