//! The comparison in words and tables, for a terminal, a page or a document alike.
//!
//! Must never print, and knows no terminal: pure functions from facts to text.

use super::chart::Bar;
use super::comparison::{Comparison, Row};
use super::mode::Mode;
use super::rounds::End;
use super::run::told;
use super::statistics::Ratio;

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
pub(super) const SPEED_UP: &str = "Speed-up over one worker";

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
        verdicts: verdicts(comparison),
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
        match (largest, smallest) {
            (..1.0, ..0.01) => Self { unit: "ms", factor: 1e3, decimals: 2 },
            (..1.0, _) => Self { unit: "ms", factor: 1e3, decimals: 1 },
            (_, ..1.0) => Self { unit: "s", factor: 1.0, decimals: 3 },
            _ => Self { unit: "s", factor: 1.0, decimals: 2 },
        }
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

/// A ratio as a number, and how sure it is.
fn number(ratio: Ratio) -> String {
    let Ratio { times, stddev } = ratio;
    let decimals = match times {
        ..10.0 => 2,
        ..100.0 => 1,
        _ => 0,
    };
    match stddev {
        Some(stddev) => format!("{times:.decimals$} ± {stddev:.decimals$}"),
        None => format!("{times:.decimals$}"),
    }
}

/// What one mode is to the reference.
fn verdicts(comparison: &Comparison) -> Vec<String> {
    let reference = match comparison.rows.get(comparison.reference) {
        Some(row) if row.times.is_some() => row.mode,
        _ => return Vec::new(),
    };
    let verdict = |row: &Row| {
        let ratio = row.ratio?;
        let mode = row.mode;
        Some(if !ratio.is_clear() {
            format!("{mode}: no faster and no slower than {reference} ({} times)", number(ratio))
        } else if ratio.times >= 1.0 {
            format!("{mode}: {} times faster than {reference}", number(ratio))
        } else {
            format!("{mode}: {} times slower than {reference}", number(ratio.inverse()))
        })
    };
    comparison.rows.iter().filter_map(verdict).collect()
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
            at.map_or("–".to_owned(), |point| number(point.speed_up))
        };
        let ideal = format!("{:.2}", ideal(comparison, workers));
        [workers.to_string(), ideal].into_iter().chain(kinds.iter().map(of)).collect()
    });
    let rows = rows.collect();
    Some(Table { head: head.map(str::to_owned).collect(), units: Vec::new(), rows })
}

/// The most that so many workers can be worth: as many as there are CPUs, if they need them.
fn ideal(comparison: &Comparison, workers: usize) -> f64 {
    let most = if comparison.needs_cpu { comparison.place.cpus } else { workers };
    workers.min(most) as f64
}

fn remarks(comparison: &Comparison) -> Vec<String> {
    let Comparison { unlike, end, remarks, counts, .. } = comparison;
    let mut said = Vec::new();
    match (counts, unlike.len()) {
        (None, _) => {}
        (Some(counts), 0) if comparison.unit == "flags" => {
            said.push(format!("Every run: {}; the same files, byte for byte.", told(*counts)));
        }
        (Some(counts), 0) if counts.error == 0 => {
            said.push("Every run gave the same results.".to_owned());
        }
        (Some(counts), 0) => said.push(format!("Every run: {}.", told(*counts))),
        (Some(counts), differ) => {
            let runs = if differ == 1 { "1 run" } else { &format!("{differ} runs") };
            said.push(format!(
                "Not all runs brought the same: {runs} did not bring what the first one did \
                 ({}), and do not count.",
                told(*counts)
            ));
            said.extend(unlike.iter().take(MOST_TOLD).map(|what| format!("  {what}")));
            if differ > MOST_TOLD {
                said.push(format!("  … and {} more", differ - MOST_TOLD));
            }
        }
    }
    said.extend(fewer_than_asked(comparison));
    if let Some(others) = comparison.others.filter(|others| *others >= NOTEWORTHY) {
        said.push(format!(
            "Other programs had {:.0} % of the CPUs meanwhile: see how far the runs lie apart.",
            others * 100.0
        ));
    }
    said.extend(remarks.iter().cloned());
    said.extend(lesson(comparison));
    match end {
        End::Done => {}
        End::Broken(why) => said.push(format!("Broken off: {why}. {}", so_far(comparison))),
        End::Signal(_) => said.push(format!("Interrupted. {}", so_far(comparison))),
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
const NOTEWORTHY: f64 = 0.1;

/// Of the runs that brought something else, so many are told one by one.
const MOST_TOLD: usize = 5;

/// A mode of thirty threads that has only twenty flags to fetch is one of twenty.
fn fewer_than_asked(comparison: &Comparison) -> Vec<String> {
    let fewer = |row: &Row| {
        let asked = row.mode.concurrency()?;
        let used = row.runs.first()?.concurrency;
        (used < asked).then(|| {
            let s = if used == 1 { "" } else { "s" };
            format!("{} made {used} request{s} at a time: there is not more to ask for.", row.mode)
        })
    };
    comparison.rows.iter().filter_map(fewer).collect()
}

/// What the numbers mean for whoever has to choose.
fn lesson(comparison: &Comparison) -> Vec<String> {
    let mut said = Vec::new();
    if comparison.needs_cpu && !comparison.scaling.is_empty() {
        let was_measured = |kind: &str| comparison.scaling.iter().any(|point| point.kind == kind);
        if was_measured("threads") && was_measured("processes") {
            said.push(
                "In Rust, threads can use all CPUs as well as processes can. What processes add \
                 is isolation: a task that crashes, hangs or leaks costs itself and nothing else."
                    .to_owned(),
            );
        }
        let has_gil = comparison.place.python.as_ref().is_some_and(|python| python.has_gil);
        if has_gil && was_measured("python-threads") {
            said.push(
                "CPython's threads wait for each other here, since one at a time holds the GIL: \
                 the data is hashed in pieces of 1 KiB, and hashlib lets go of it only above 2047 \
                 bytes."
                    .to_owned(),
            );
        }
    }
    if !comparison.prices.is_empty() {
        let price = |(mode, seconds): &(Mode, f64)| format!("{mode} {}", micros(*seconds));
        let prices: Vec<_> = comparison.prices.iter().map(price).collect();
        said.push(format!(
            "The price of a task, measured with tasks that do nothing, by map: {}.",
            prices.join(", ")
        ));
    }
    said
}

fn micros(seconds: f64) -> String {
    let micros = seconds * 1e6;
    format!("{micros:.*} µs", if micros < 10.0 { 2 } else { 1 })
}
