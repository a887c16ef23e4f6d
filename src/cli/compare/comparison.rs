//! What the runs come to: the one truth that all reports and exports tell.

use std::env;

use crate::flags::outcome::Counts;

use super::labour::Python;
use super::mode::{Crew, Mode};
use super::rounds::{End, Rounds};
use super::run::Run;
use super::statistics::{Ratio, Spread};

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
    /// What each run brought, if there was one.
    pub counts: Option<Counts>,
    /// Runs that brought something else, which do not count.
    pub unlike: Vec<String>,
    pub end: End,
    /// Which share of the machine's CPUs others had meanwhile.
    pub others: Option<f64>,
    /// The speed-up by number of workers, where that was measured.
    pub scaling: Vec<Scaling>,
    /// What a task costs that does nothing, in seconds.
    pub prices: Vec<(Mode, f64)>,
    pub remarks: Vec<String>,
    pub place: Place,
    /// Whether more CPUs would make it faster.
    pub needs_cpu: bool,
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
    let spread = |runs: &[Run]| {
        let times: Vec<_> = runs.iter().map(|run| run.seconds).collect();
        Spread::of(&times)
    };
    let of_reference = runs.get(reference).and_then(|runs| spread(runs));
    let rows = modes.iter().zip(runs).enumerate().map(|(n, (&mode, runs))| {
        let times = spread(&runs);
        let ratio = of_reference.zip(times).filter(|_| n != reference);
        Row { mode, runs, peak_rss: peaks[n], times, ratio: ratio.map(|(a, b)| Ratio::new(&a, &b)) }
    });
    rows.collect()
}

/// The speed-up of each mode over one worker of its kind.
pub(super) fn scaling(rows: &[Row]) -> Vec<Scaling> {
    let mut curve = Vec::new();
    for row in rows {
        let (false, Some(workers), Some(times)) =
            (row.mode.crew == Crew::Sequential, row.mode.concurrency(), &row.times)
        else {
            continue;
        };
        let is_one = |other: &&Row| {
            other.mode.kind() == row.mode.kind() && other.mode.concurrency() == Some(1)
        };
        let one = rows.iter().find(is_one).and_then(|one| one.times);
        if let Some(one) = one {
            let speed_up = match workers {
                1 => Ratio { times: 1.0, stddev: None },
                _ => Ratio::new(&one, times),
            };
            curve.push(Scaling { kind: row.mode.kind(), workers, speed_up });
        }
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
            counts: None,
            unlike: Vec::new(),
            end: End::Done,
            others: None,
            scaling: Vec::new(),
            prices: Vec::new(),
            remarks: Vec::new(),
            place,
            needs_cpu: false,
        }
    }

    /// Takes the rounds in.
    pub(super) fn with(mut self, modes: &[Mode], reference: usize, rounds: Rounds) -> Self {
        let Rounds { runs, peaks, brought, unlike, end, others } = rounds;
        self.rows = rows(modes, runs, &peaks, reference);
        self.reference = reference;
        self.counts = brought.map(|brought| brought.counts);
        (self.unlike, self.end, self.others) = (unlike, end, others);
        self
    }

    /// Whether there is anything to report.
    pub(super) fn is_empty(&self) -> bool {
        self.rows.iter().all(|row| row.runs.is_empty())
    }
}
