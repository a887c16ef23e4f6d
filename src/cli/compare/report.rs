//! The comparison in sentences and tables, for all outputs.
//!
//! These are pure functions from results to text: they do not print.

use super::chart::ChartBar;
use super::comparison::{Comparison, ModeResults, Scaling};
use super::conclusions::{self, number};
use super::rounds::{ComparisonEnd, ExpectedResult};
use super::run::{MeasuredRun, in_words};
use super::statistics::Interval;
use crate::cli::background_load::NOTEWORTHY;

/// The report.
#[derive(Debug)]
pub(super) struct ComparisonReport {
    pub title: String,
    /// How the results were measured.
    pub subtitle: String,
    pub times: ReportTable,
    pub bars: Vec<ChartBar>,
    pub verdicts: Vec<String>,
    /// The speed-up by number of workers.
    pub scaling: Option<ReportTable>,
    pub remarks: Vec<String>,
}

/// The title of the second table.
pub(super) const SPEED_UP: &str = "Speed-up over one worker (±: 95 % confidence interval)";

/// Cells as text; the first column is on the left, the others are numbers.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct ReportTable {
    pub head: Vec<String>,
    /// The units of the columns; empty for a column without one.
    pub units: Vec<String>,
    pub rows: Vec<Vec<String>>,
}

pub(super) fn report(comparison: &Comparison) -> ComparisonReport {
    let Comparison { job, warmup, runs, end, .. } = comparison;
    let up_to = if matches!(end, ComparisonEnd::Done) { "" } else { "up to " };
    let s = |count: usize| if count == 1 { "" } else { "s" };
    let after = match warmup {
        0 => String::new(),
        _ => format!(" after {warmup} warm-up{}", s(*warmup)),
    };
    let turns = if comparison.rows.len() > 1 { " each, in turn" } else { "" };
    ComparisonReport {
        title: job.clone(),
        subtitle: format!("{up_to}{runs} run{}{after}{turns}; {}", s(*runs), context(comparison)),
        times: times(comparison),
        bars: bars(comparison),
        verdicts: conclusions::verdicts(comparison),
        scaling: scaling(comparison),
        remarks: remarks(comparison),
    }
}

fn context(comparison: &Comparison) -> String {
    let context = &comparison.context;
    let cpus = if context.cpus == 1 { "CPU" } else { "CPUs" };
    let python =
        context.python.as_ref().map(|python| format!(", {}", python.name)).unwrap_or_default();
    let build = if context.debug_build { "; debug build" } else { "" };
    format!("{} {cpus}, {}{python}{build}", context.cpus, context.system)
}

/// The unit and the decimals of all times of a column.
#[derive(Debug, Clone, Copy)]
struct TimeUnit {
    unit: &'static str,
    factor: f64,
    decimals: usize,
}

impl TimeUnit {
    fn of(rows: &[ModeResults]) -> Self {
        let means = || rows.iter().filter_map(|row| row.times).map(|times| times.mean);
        let largest = means().fold(0.0, f64::max);
        let smallest = means().fold(f64::INFINITY, f64::min);
        let (unit, factor) = match largest {
            ..1e-3 => ("µs", 1e6),
            ..1.0 => ("ms", 1e3),
            _ => ("s", 1.0),
        };
        // Three digits of the shortest time, so that ratios are visible in the table, and at least one
        // decimal.
        let digits = (smallest * factor).log10().floor();
        Self { unit, factor, decimals: (2.0 - digits).clamp(1.0, 6.0) as usize }
    }

    fn write(self, seconds: f64) -> String {
        format!("{:.*}", self.decimals, seconds * self.factor)
    }
}

fn times(comparison: &Comparison) -> ReportTable {
    let scale = TimeUnit::of(&comparison.rows);
    let per_second = format!("{}/s", comparison.unit);
    let head =
        ["mode", "median", "mean ± σ", "min", "max", &per_second, "CPU", "RSS"].map(str::to_owned);
    let s = scale.unit;
    let units = ["", s, s, s, s, "", "s", "MB"].map(str::to_owned);
    let rows = comparison.rows.iter().map(|row| {
        let mut cells = vec![row.mode.to_string()];
        let Some(times) = &row.times else {
            cells.extend(["–"; 7].map(str::to_owned));
            return cells;
        };
        let stddev = times.stddev.map(|stddev| format!(" ± {}", scale.write(stddev)));
        cells.push(scale.write(times.median));
        cells.push(scale.write(times.mean) + &stddev.unwrap_or_default());
        cells.push(scale.write(times.min));
        cells.push(scale.write(times.max));
        let rate = row.per_second().unwrap_or_default();
        cells.push(format!("{rate:.*}", if rate < 100.0 { 1 } else { 0 }));
        let cpu = row.cpu().unwrap_or_default();
        cells.push(format!("{cpu:.*}", if cpu < 1.0 { 3 } else { 2 }));
        cells.push(format!("{:.0}", row.peak_rss as f64 / 1e6));
        cells
    });
    ReportTable { head: head.into(), units: units.into(), rows: rows.collect() }
}

fn bars(comparison: &Comparison) -> Vec<ChartBar> {
    let scale = TimeUnit::of(&comparison.rows);
    let bar = |row: &ModeResults| {
        let times = row.times?;
        Some(ChartBar {
            label: row.mode.to_string(),
            value: times.mean,
            low: times.min,
            high: times.max,
            text: format!("{} {}", scale.write(times.mean), scale.unit),
        })
    };
    comparison.rows.iter().filter_map(bar).collect()
}

fn scaling(comparison: &Comparison) -> Option<ReportTable> {
    let points = &comparison.scaling;
    let mut numbers: Vec<_> = points.iter().map(|point| point.workers).collect();
    numbers.sort_unstable();
    numbers.dedup();
    let mut kinds: Vec<&str> = Vec::new();
    for point in points {
        if !kinds.contains(&point.kind.as_str()) {
            kinds.push(&point.kind);
        }
    }
    if kinds.is_empty() {
        return None;
    }
    let head = ["workers", "ideal"].into_iter().chain(kinds.iter().copied());
    let rows = numbers.into_iter().map(|workers| {
        let of = |kind: &&str| {
            let at = points.iter().find(|point| point.workers == workers && point.kind == *kind);
            at.map_or("–".to_owned(), speed_up)
        };
        let ideal = format!("{:.2}", comparison.ideal(workers));
        [workers.to_string(), ideal].into_iter().chain(kinds.iter().map(of)).collect()
    });
    let rows = rows.collect();
    Some(ReportTable { head: head.map(str::to_owned).collect(), units: Vec::new(), rows })
}

/// The speed-up, and the distance of the further bound of its interval.
fn speed_up(point: &Scaling) -> String {
    let Scaling { workers, speed_up, .. } = point;
    let times = number(speed_up.times);
    match speed_up.interval {
        // The speed-up of one worker is exactly 1.
        _ if *workers == 1 => times,
        None => times,
        Some(Interval { high: f64::INFINITY, .. }) => format!("{times} ± ∞"),
        Some(Interval { low, high }) => {
            let decimals = times.split('.').nth(1).map_or(0, str::len);
            let further = (high - speed_up.times).max(speed_up.times - low);
            format!("{times} ± {further:.decimals$}")
        }
    }
}

fn remarks(comparison: &Comparison) -> Vec<String> {
    let Comparison { end, remarks, .. } = comparison;
    let mut said = same(comparison);
    said.extend(fewer_than_asked(comparison));
    if comparison.context.debug_build {
        said.push(DEBUG_BUILD.to_owned());
    }
    if let Some(background_load) =
        comparison.background_load.filter(|background_load| *background_load >= NOTEWORTHY)
    {
        said.push(format!(
            "Other programs used {:.0} % of the CPUs during the runs: see how much the runs differ.",
            background_load * 100.0
        ));
    }
    said.extend(remarks.iter().cloned());
    said.extend(conclusions::lessons(comparison));
    match end {
        ComparisonEnd::Done => {}
        ComparisonEnd::Broken(why) => {
            said.push(format!("Broken off: {why}. {}", so_far(comparison)))
        }
        ComparisonEnd::Signal(_) => said.push(format!("Interrupted. {}", so_far(comparison))),
    }
    said
}

/// Whether all runs had the same result.
fn same(comparison: &Comparison) -> Vec<String> {
    let Comparison { deviations, expected, compared, .. } = comparison;
    let Some(ExpectedResult { counts, first, is_majority }) = expected else { return Vec::new() };
    let counted = in_words(*counts);
    if *compared == 1 {
        return vec![format!("There was one run: {counted}.")];
    }
    if deviations.is_empty() {
        return vec![match comparison.unit {
            "flags" => format!("Every run: {counted}; the same files, byte for byte."),
            _ if counts.error == 0 => "Every run gave the same results.".to_owned(),
            _ => format!("Every run: {counted}."),
        }];
    }
    let runs = match deviations.len() {
        1 => "1 run".to_owned(),
        many => format!("{many} runs"),
    };
    let reference = match is_majority {
        true => "most runs".to_owned(),
        false => format!("{first}, and no result is that of most runs"),
    };
    let does = if deviations.len() == 1 { "does" } else { "do" };
    let mut said = vec![format!(
        "Not all runs gave the same results: {runs} {does} not have those of {reference} \
         ({counted}), and {does} not count."
    )];
    said.extend(deviations.iter().take(MAX_LISTED).map(|what| format!("  {what}")));
    if deviations.len() > MAX_LISTED {
        said.push(format!("  … and {} more", deviations.len() - MAX_LISTED));
    }
    said
}

/// The number of runs that count, by mode.
fn so_far(comparison: &Comparison) -> String {
    let runs = |row: &ModeResults| format!("{} of {}", row.runs.len(), row.mode);
    let runs: Vec<_> = comparison.rows.iter().map(runs).collect();
    format!("Runs until then that count: {}.", runs.join(", "))
}

/// Processes encode what threads only pass on: without optimization they lose more.
const DEBUG_BUILD: &str = "This build has no optimization, and processes lose more by it than threads: measure with \
     cargo run --release.";

/// Maximum number of runs with other results that are listed.
const MAX_LISTED: usize = 5;

/// The modes that had fewer workers or requests at a time than requested, and why.
fn fewer_than_asked(comparison: &Comparison) -> Vec<String> {
    let fewer = |row: &ModeResults| {
        let MeasuredRun { concurrency, workers, result, .. } = row.runs.first()?;
        let (asked, asked_workers) = (row.mode.concurrency()?, row.mode.workers());
        let s = |count: usize| if count == 1 { "" } else { "s" };
        let used = if *concurrency < asked {
            format!("made {concurrency} request{} at a time", s(*concurrency))
        } else if *workers < asked_workers {
            format!("had {workers} worker{}", s(*workers))
        } else {
            return None;
        };
        let there = usize::try_from(result.counts.total()).unwrap_or(usize::MAX);
        let why = match *concurrency >= there || *workers >= there {
            true => "there is not more to ask for",
            false => "the system allows no more (see ulimit -n)",
        };
        Some(format!("{} {used}: {why}.", row.mode))
    };
    comparison.rows.iter().filter_map(fewer).collect()
}
