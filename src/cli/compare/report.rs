//! The comparison in words and tables, for a terminal, a page or a document alike.
//!
//! Must never print, and knows no terminal: pure functions from facts to text.

use super::chart::Bar;
use super::comparison::{Comparison, Row, Scaling};
use super::conclusions::{self, number};
use super::rounds::{End, Expected};
use super::run::{Run, told};
use super::statistics::Interval;

/// All that there is to read.
#[derive(Debug)]
pub(super) struct Report {
    pub title: String,
    /// How it was measured.
    pub subtitle: String,
    pub times: Table,
    pub bars: Vec<Bar>,
    pub verdicts: Vec<String>,
    /// Of workers by their number.
    pub scaling: Option<Table>,
    pub remarks: Vec<String>,
}

/// What stands above the second table.
pub(super) const SPEED_UP: &str = "Speed-up over one worker (±: 95 % confidence interval)";

/// Cells as text; the first column is on the left, the others are numbers.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Table {
    pub head: Vec<String>,
    /// Below the head, where a column has one.
    pub units: Vec<String>,
    pub rows: Vec<Vec<String>>,
}

pub(super) fn report(comparison: &Comparison) -> Report {
    let Comparison { job, warmup, runs, end, .. } = comparison;
    let up_to = if matches!(end, End::Done) { "" } else { "up to " };
    let s = |count: usize| if count == 1 { "" } else { "s" };
    let after = match warmup {
        0 => String::new(),
        _ => format!(" after {warmup} warm-up{}", s(*warmup)),
    };
    let turns = if comparison.rows.len() > 1 { " each, in turn" } else { "" };
    Report {
        title: job.clone(),
        subtitle: format!("{up_to}{runs} run{}{after}{turns}; {}", s(*runs), place(comparison)),
        times: times(comparison),
        bars: bars(comparison),
        verdicts: conclusions::verdicts(comparison),
        scaling: scaling(comparison),
        remarks: remarks(comparison),
    }
}

fn place(comparison: &Comparison) -> String {
    let place = &comparison.place;
    let cpus = if place.cpus == 1 { "CPU" } else { "CPUs" };
    let python =
        place.python.as_ref().map(|python| format!(", {}", python.name)).unwrap_or_default();
    format!("{} {cpus}, {}{python}", place.cpus, place.system)
}

/// How times are written, so that the numbers of a column can be compared at a glance.
#[derive(Debug, Clone, Copy)]
struct Scale {
    unit: &'static str,
    factor: f64,
    decimals: usize,
}

impl Scale {
    fn of(rows: &[Row]) -> Self {
        let means = || rows.iter().filter_map(|row| row.times).map(|times| times.mean);
        let largest = means().fold(0.0, f64::max);
        let smallest = means().fold(f64::INFINITY, f64::min);
        let (unit, factor) = match largest {
            ..1e-3 => ("µs", 1e6),
            ..1.0 => ("ms", 1e3),
            _ => ("s", 1.0),
        };
        // Three digits of the shortest time, so that ratios can be seen in the table, and one
        // decimal at least.
        let digits = (smallest * factor).log10().floor();
        Self { unit, factor, decimals: (2.0 - digits).clamp(1.0, 6.0) as usize }
    }

    fn write(self, seconds: f64) -> String {
        format!("{:.*}", self.decimals, seconds * self.factor)
    }
}

fn times(comparison: &Comparison) -> Table {
    let scale = Scale::of(&comparison.rows);
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
    Table { head: head.into(), units: units.into(), rows: rows.collect() }
}

fn bars(comparison: &Comparison) -> Vec<Bar> {
    let scale = Scale::of(&comparison.rows);
    let bar = |row: &Row| {
        let times = row.times?;
        Some(Bar {
            label: row.mode.to_string(),
            value: times.mean,
            low: times.min,
            high: times.max,
            text: format!("{} {}", scale.write(times.mean), scale.unit),
        })
    };
    comparison.rows.iter().filter_map(bar).collect()
}

fn scaling(comparison: &Comparison) -> Option<Table> {
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
    Some(Table { head: head.map(str::to_owned).collect(), units: Vec::new(), rows })
}

/// The speed-up, and how far from it the further end of its interval is.
fn speed_up(point: &Scaling) -> String {
    let Scaling { workers, speed_up, .. } = point;
    let times = number(speed_up.times);
    match speed_up.interval {
        // Not measured: it is that of a thing and itself.
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
    if let Some(others) = comparison.others.filter(|others| *others >= NOTEWORTHY) {
        said.push(format!(
            "Other programs had {:.0} % of the CPUs meanwhile: see how far the runs lie apart.",
            others * 100.0
        ));
    }
    said.extend(remarks.iter().cloned());
    said.extend(conclusions::lessons(comparison));
    match end {
        End::Done => {}
        End::Broken(why) => said.push(format!("Broken off: {why}. {}", so_far(comparison))),
        End::Signal(_) => said.push(format!("Interrupted. {}", so_far(comparison))),
    }
    said
}

/// Whether all runs brought the same.
fn same(comparison: &Comparison) -> Vec<String> {
    let Comparison { unlike, expected, compared, .. } = comparison;
    let Some(Expected { counts, first, is_majority }) = expected else { return Vec::new() };
    let counted = told(*counts);
    if *compared == 1 {
        return vec![format!("There was one run: {counted}.")];
    }
    if unlike.is_empty() {
        return vec![match comparison.unit {
            "flags" => format!("Every run: {counted}; the same files, byte for byte."),
            _ if counts.error == 0 => "Every run gave the same results.".to_owned(),
            _ => format!("Every run: {counted}."),
        }];
    }
    let runs = match unlike.len() {
        1 => "1 run".to_owned(),
        many => format!("{many} runs"),
    };
    let others = match is_majority {
        true => "most runs did".to_owned(),
        false => format!("{first} did, and no result is that of most runs"),
    };
    let does = if unlike.len() == 1 { "does" } else { "do" };
    let mut said = vec![format!(
        "Not all runs brought the same: {runs} did not bring what {others} ({counted}), and \
         {does} not count."
    )];
    said.extend(unlike.iter().take(MOST_TOLD).map(|what| format!("  {what}")));
    if unlike.len() > MOST_TOLD {
        said.push(format!("  … and {} more", unlike.len() - MOST_TOLD));
    }
    said
}

/// How many runs count of those that were asked for.
fn so_far(comparison: &Comparison) -> String {
    let runs = |row: &Row| format!("{} of {}", row.runs.len(), row.mode);
    let runs: Vec<_> = comparison.rows.iter().map(runs).collect();
    format!("Runs until then that count: {}.", runs.join(", "))
}

/// A share of the CPUs that others may have without being mentioned is less than this.
pub(super) const NOTEWORTHY: f64 = 0.1;

/// Of the runs that brought something else, so many are told one by one.
const MOST_TOLD: usize = 5;

/// A mode of thirty threads that has only twenty flags to fetch is one of twenty.
fn fewer_than_asked(comparison: &Comparison) -> Vec<String> {
    let fewer = |row: &Row| {
        let Run { concurrency, workers, brought, .. } = row.runs.first()?;
        let (asked, asked_workers) = (row.mode.concurrency()?, row.mode.workers());
        let s = |count: usize| if count == 1 { "" } else { "s" };
        let used = if *concurrency < asked {
            format!("made {concurrency} request{} at a time", s(*concurrency))
        } else if *workers < asked_workers {
            format!("had {workers} worker{}", s(*workers))
        } else {
            return None;
        };
        let there = usize::try_from(brought.counts.total()).unwrap_or(usize::MAX);
        let why = match *concurrency >= there || *workers >= there {
            true => "there is not more to ask for",
            false => "the system allows no more (see ulimit -n)",
        };
        Some(format!("{} {used}: {why}.", row.mode))
    };
    comparison.rows.iter().filter_map(fewer).collect()
}
