//! What the runs come to: the one truth that all reports and exports tell.

use std::env;

use crate::workload::Work;

use super::labour::Python;
use super::mode::{Crew, Mode, Size};
use super::rounds::{End, Expected, Rounds};
use super::run::Run;
use super::statistics::{Ratio, Sample, Spread};

#[derive(Debug)]
pub(super) struct Comparison {
    /// What every run does, in words.
    pub job: String,
    /// What it deals with, in the plural.
    pub unit: &'static str,
    pub warmup: usize,
    /// How many runs of each mode were asked for.
    pub runs: usize,
    pub rows: Vec<Row>,
    /// Which of the rows the others are compared with.
    pub reference: usize,
    /// What a run has to bring to count, if there was one.
    pub expected: Option<Expected>,
    /// Runs that brought something else, which do not count.
    pub unlike: Vec<String>,
    /// How many runs were compared with each other, warm-ups included.
    pub compared: usize,
    pub end: End,
    /// Which share of the machine's CPUs others had meanwhile.
    pub others: Option<f64>,
    /// The speed-up by number of workers, where that was measured.
    pub scaling: Vec<Scaling>,
    /// What a task costs that does nothing, in seconds: of several runs.
    pub prices: Vec<(Mode, Spread)>,
    pub remarks: Vec<String>,
    pub place: Place,
    /// What the jobs of each run do, and how many there are, if they are all alike.
    pub work: Option<(Work, usize)>,
}

/// A mode and its runs.
#[derive(Debug)]
pub(super) struct Row {
    pub mode: Mode,
    pub runs: Vec<Run>,
    /// In bytes.
    pub peak_rss: u64,
    pub times: Option<Spread>,
    /// How many times as fast it is as the reference; none of the reference itself.
    pub ratio: Option<Ratio>,
}

/// One point of a curve.
#[derive(Debug, Clone)]
pub(super) struct Scaling {
    /// Such as `threads`.
    pub kind: String,
    pub workers: usize,
    /// How many times as fast as one worker of the same kind; exactly 1 with one worker.
    pub speed_up: Ratio,
}

/// Where it was measured.
#[derive(Debug)]
pub(super) struct Place {
    /// The command line, for whoever wants to see it with their own eyes.
    pub command: String,
    pub version: &'static str,
    pub cpus: usize,
    pub system: String,
    pub when: String,
    pub python: Option<Python>,
}

impl Row {
    pub(super) fn cpu(&self) -> Option<f64> {
        mean(&self.runs, Run::cpu)
    }

    pub(super) fn user(&self) -> Option<f64> {
        mean(&self.runs, |run| run.user)
    }

    pub(super) fn system(&self) -> Option<f64> {
        mean(&self.runs, |run| run.system)
    }

    /// How many times as fast it is as the other one.
    pub(super) fn compared_with(&self, reference: &Row) -> Option<Ratio> {
        let samples = |row: &Row| -> Vec<_> {
            let sample = |run: &Run| Sample { round: run.round, seconds: run.seconds };
            row.runs.iter().map(sample).collect()
        };
        Ratio::new(&samples(reference), &samples(self))
    }

    /// How many flags or jobs it got done in a second.
    pub(super) fn per_second(&self) -> Option<f64> {
        let times = self.times?;
        let ok = self.runs.first()?.brought.counts.ok;
        Some(ok as f64 / times.mean)
    }
}

fn mean(runs: &[Run], value: impl Fn(&Run) -> f64) -> Option<f64> {
    let values: Vec<_> = runs.iter().map(value).collect();
    Spread::of(&values).map(|spread| spread.mean)
}

/// The rows of these modes.
fn rows(modes: &[Mode], runs: Vec<Vec<Run>>, peaks: &[u64], reference: usize) -> Vec<Row> {
    let row = |((&mode, runs), &peak_rss): ((&Mode, Vec<Run>), &u64)| {
        let times: Vec<_> = runs.iter().map(|run| run.seconds).collect();
        Row { mode, runs, peak_rss, times: Spread::of(&times), ratio: None }
    };
    let mut rows: Vec<_> = modes.iter().zip(runs).zip(peaks).map(row).collect();
    let ratios: Vec<_> = rows.iter().map(|row| row.compared_with(rows.get(reference)?)).collect();
    for (n, (row, ratio)) in rows.iter_mut().zip(ratios).enumerate() {
        row.ratio = ratio.filter(|_| n != reference);
    }
    rows
}

/// The speed-up of each mode over one worker of its kind. Workers of several threads are no such
/// kind: they differ in two numbers.
pub(super) fn scaling(rows: &[Row]) -> Vec<Scaling> {
    let mut curve = Vec::new();
    let workers_of = |row: &Row| match row.mode.crew {
        Crew::Threads(workers) => workers,
        Crew::Processes(Some(Size { workers, threads: 1 })) => Some(workers),
        _ => None,
    };
    for row in rows {
        let Some(workers) = workers_of(row) else { continue };
        let kind = row.mode.kind();
        let is_one = |other: &&Row| other.mode.kind() == kind && workers_of(other) == Some(1);
        let Some(one) = rows.iter().find(is_one) else { continue };
        let speed_up = match workers {
            1 => row.times.map(|_| Ratio::ONE),
            _ => row.compared_with(one),
        };
        curve.extend(speed_up.map(|speed_up| Scaling { kind, workers, speed_up }));
    }
    // Of one worker alone there is nothing to tell.
    let is_curve = curve.iter().any(|point: &Scaling| point.workers > 1);
    if is_curve { curve } else { Vec::new() }
}

impl Place {
    pub(super) fn here(python: Option<Python>) -> Self {
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
            when: jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string(),
            python,
        }
    }
}

impl Comparison {
    pub(super) fn new(job: String, unit: &'static str, place: Place) -> Self {
        Self {
            job,
            unit,
            warmup: 0,
            runs: 0,
            rows: Vec::new(),
            reference: 0,
            expected: None,
            unlike: Vec::new(),
            compared: 0,
            end: End::Done,
            others: None,
            scaling: Vec::new(),
            prices: Vec::new(),
            remarks: Vec::new(),
            place,
            work: None,
        }
    }

    /// Takes the rounds in.
    pub(super) fn with(mut self, modes: &[Mode], reference: usize, rounds: Rounds) -> Self {
        let Rounds { runs, peaks, expected, unlike, compared, end, others } = rounds;
        self.rows = rows(modes, runs, &peaks, reference);
        self.reference = reference;
        (self.expected, self.unlike, self.compared) = (expected, unlike, compared);
        (self.end, self.others) = (end, others);
        self
    }

    /// The most that so many workers can be worth: as many as there are CPUs, if they need them,
    /// and no more than the rounds that equal jobs can be done in allow.
    pub(super) fn ideal(&self, workers: usize) -> f64 {
        let Some((work, jobs)) = self.work else { return workers as f64 };
        let at_once = if work == Work::Sleep { workers } else { workers.min(self.place.cpus) };
        jobs as f64 / jobs.div_ceil(at_once.max(1)).max(1) as f64
    }

    /// Whether there is anything to report.
    pub(super) fn is_empty(&self) -> bool {
        self.rows.iter().all(|row| row.runs.is_empty())
    }
}
