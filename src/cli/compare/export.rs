//! The comparison as a file: for documents (`.md`), programs (`.json`), spreadsheets (`.csv`), the
//! browser (`.html`) and pictures (`.svg`).

use std::fs::{self, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use serde::Serialize;
use tempfile::NamedTempFile;

use crate::flags::outcome::Counts;

use super::comparison::{Comparison, Row};
use super::report::{Report, SPEED_UP, Table};
use super::rounds::End;
use super::statistics::{Outcome, Ratio};
use super::{html, svg};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Format {
    Markdown,
    Json,
    Csv,
    Html,
    Svg,
}

/// A file that tells by its name nothing that we could write.
#[derive(Debug, thiserror::Error)]
#[error("--export FILE must end with .md, .json, .csv, .html or .svg: {}", .0.display())]
pub(super) struct UnknownFormat(PathBuf);

impl Format {
    pub(super) fn of(path: &Path) -> Result<Self, UnknownFormat> {
        let ending = path.extension().and_then(|ending| ending.to_str()).unwrap_or_default();
        match ending.to_ascii_lowercase().as_str() {
            "md" => Ok(Self::Markdown),
            "json" => Ok(Self::Json),
            "csv" => Ok(Self::Csv),
            "html" => Ok(Self::Html),
            "svg" => Ok(Self::Svg),
            _ => Err(UnknownFormat(path.to_owned())),
        }
    }

    fn write(self, comparison: &Comparison, report: &Report) -> String {
        match self {
            Self::Markdown => markdown(report),
            Self::Json => json(comparison),
            Self::Csv => csv(comparison),
            Self::Html => html::page(comparison, report),
            Self::Svg => svg::draw(&format!("{}: mean time", report.title), &report.bars),
        }
    }
}

/// A file that is there when it is complete, and not before.
pub(super) struct Export {
    path: PathBuf,
    format: Format,
    draft: NamedTempFile,
}

impl Export {
    /// Makes sure that the file can be written, before anything is measured for it.
    pub(super) fn prepare(path: PathBuf, format: Format) -> io::Result<Self> {
        let dir = path.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
        if path.is_dir() {
            return Err(io::ErrorKind::IsADirectory.into());
        }
        // Told as the system tells it.
        fs::metadata(dir)?;
        let mut draft = tempfile::Builder::new();
        // As for any other new file; the system takes off what the umask says.
        draft.permissions(Permissions::from_mode(0o666)).prefix(".compare-");
        // Without the name of the draft, which nobody knows.
        let draft = draft.tempfile_in(dir).map_err(|error| error.kind())?;
        Ok(Self { draft, path, format })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn finish(self, comparison: &Comparison, report: &Report) -> io::Result<()> {
        let Self { path, format, mut draft } = self;
        draft.write_all(format.write(comparison, report).as_bytes())?;
        draft.persist(path)?;
        Ok(())
    }
}

fn markdown(report: &Report) -> String {
    let Report { title, subtitle, times, bars: _, verdicts, scaling, remarks } = report;
    let mut text = format!("### {title}\n\n{subtitle}\n\n{}", markdown_table(times));
    if !verdicts.is_empty() {
        let verdicts: String = verdicts.iter().map(|line| format!("- {line}\n")).collect();
        text += &format!("\n{verdicts}");
    }
    if let Some(scaling) = scaling {
        text += &format!("\n{SPEED_UP}:\n\n{}", markdown_table(scaling));
    }
    text + &remarks.iter().map(|line| format!("\n{}\n", line.trim())).collect::<String>()
}

fn markdown_table(table: &Table) -> String {
    let Table { head, units, rows } = table;
    let head = head.iter().enumerate().map(|(n, head)| match units.get(n) {
        Some(unit) if !unit.is_empty() => format!("{head}, {unit}"),
        _ => head.clone(),
    });
    let row = |cells: Vec<String>| {
        let cells: Vec<_> = cells.iter().map(|cell| cell.replace('|', "\\|")).collect();
        format!("| {} |\n", cells.join(" | "))
    };
    let rule: Vec<_> = (0..table.head.len()).map(|n| if n == 0 { "---" } else { "---:" }).collect();
    let body: String = rows.iter().cloned().map(row).collect();
    format!("{}|{}|\n{body}", row(head.collect()), rule.join("|"))
}

/// What both kinds of data files tell of a mode; no number is rounded.
#[derive(Serialize)]
struct Facts {
    mode: String,
    runs: usize,
    mean_s: Option<f64>,
    stddev_s: Option<f64>,
    median_s: Option<f64>,
    min_s: Option<f64>,
    max_s: Option<f64>,
    per_second: Option<f64>,
    /// Of the process and all its workers, mean of all runs.
    cpu_s: Option<f64>,
    user_s: Option<f64>,
    system_s: Option<f64>,
    /// Of all processes together, the most of all runs, warm-ups included.
    peak_rss_bytes: Option<u64>,
    concurrency: Option<usize>,
    ok: Option<u64>,
    not_found: Option<u64>,
    error: Option<u64>,
    /// How many times as fast as the reference: the quotient of the means.
    ratio: Option<f64>,
    /// Its 95 % confidence interval; none of a bound that the runs do not set.
    ratio_low: Option<f64>,
    ratio_high: Option<f64>,
    /// What this allows to say.
    verdict: Option<Verdict>,
}

/// What is told of a mode and the reference.
#[derive(Serialize)]
#[serde(rename_all = "snake_case")]
enum Verdict {
    Faster,
    Slower,
    /// Within 10 %.
    AsFast,
    CannotTell,
}

impl Verdict {
    fn of(ratio: Ratio) -> Self {
        match ratio.outcome() {
            Outcome::Faster => Self::Faster,
            Outcome::Slower => Self::Slower,
            Outcome::Equal => Self::AsFast,
            Outcome::Unknown => Self::CannotTell,
        }
    }
}

/// Both ends of the interval of a ratio, where they are bounds.
fn bounds(ratio: Option<Ratio>) -> (Option<f64>, Option<f64>) {
    let interval = ratio.and_then(|ratio| ratio.interval);
    let low = interval.map(|interval| interval.low).filter(|low| *low > 0.0);
    (low, interval.map(|interval| interval.high).filter(|high| high.is_finite()))
}

impl Facts {
    fn of(row: &Row) -> Self {
        let times = row.times.as_ref();
        let first = row.runs.first();
        let Counts { ok, not_found, error, not_done: _, unchanged: _ } =
            first.map_or_else(Counts::default, |run| run.brought.counts);
        let if_any = |count| first.map(|_| count);
        let (ratio_low, ratio_high) = bounds(row.ratio);
        Self {
            mode: row.mode.to_string(),
            runs: row.runs.len(),
            mean_s: times.map(|times| times.mean),
            stddev_s: times.and_then(|times| times.stddev),
            median_s: times.map(|times| times.median),
            min_s: times.map(|times| times.min),
            max_s: times.map(|times| times.max),
            per_second: row.per_second(),
            cpu_s: row.cpu(),
            user_s: row.user(),
            system_s: row.system(),
            peak_rss_bytes: first.map(|_| row.peak_rss),
            concurrency: first.map(|run| run.concurrency),
            ok: if_any(ok),
            not_found: if_any(not_found),
            error: if_any(error),
            ratio: row.ratio.map(|ratio| ratio.times),
            ratio_low,
            ratio_high,
            verdict: row.ratio.map(Verdict::of),
        }
    }
}

fn json(comparison: &Comparison) -> String {
    #[derive(Serialize)]
    struct Document<'c> {
        command: &'c str,
        version: &'c str,
        when: &'c str,
        cpus: usize,
        system: &'c str,
        python: Option<&'c str>,
        job: &'c str,
        unit: &'c str,
        warmup: usize,
        runs: usize,
        reference: String,
        /// Whether every run brought what most of them did.
        same: bool,
        unlike: &'c [String],
        /// Why it ended before its time.
        broken_off: Option<&'c str>,
        interrupted: bool,
        /// Which share of the machine's CPUs others had meanwhile.
        others: Option<f64>,
        results: Vec<Result>,
        scaling: Vec<Scaling<'c>>,
        price_s: Vec<Price>,
    }
    #[derive(Serialize)]
    struct Result {
        #[serde(flatten)]
        facts: Facts,
        times_s: Vec<f64>,
        cpu_times_s: Vec<f64>,
    }
    #[derive(Serialize)]
    struct Scaling<'c> {
        kind: &'c str,
        workers: usize,
        speed_up: f64,
        /// Its 95 % confidence interval.
        low: Option<f64>,
        high: Option<f64>,
    }
    #[derive(Serialize)]
    struct Price {
        mode: String,
        /// The median.
        seconds: f64,
        min: f64,
        max: f64,
    }
    let place = &comparison.place;
    let result = |row: &Row| Result {
        facts: Facts::of(row),
        times_s: row.runs.iter().map(|run| run.seconds).collect(),
        cpu_times_s: row.runs.iter().map(super::run::Run::cpu).collect(),
    };
    let reference = comparison.rows.get(comparison.reference);
    let document = Document {
        command: &place.command,
        version: place.version,
        when: &place.when,
        cpus: place.cpus,
        system: &place.system,
        python: place.python.as_ref().map(|python| python.name.as_str()),
        job: &comparison.job,
        unit: comparison.unit,
        warmup: comparison.warmup,
        runs: comparison.runs,
        reference: reference.map(|row| row.mode.to_string()).unwrap_or_default(),
        same: comparison.unlike.is_empty(),
        unlike: &comparison.unlike,
        broken_off: match &comparison.end {
            End::Broken(why) => Some(why),
            _ => None,
        },
        interrupted: matches!(comparison.end, End::Signal(_)),
        others: comparison.others,
        results: comparison.rows.iter().map(result).collect(),
        scaling: comparison
            .scaling
            .iter()
            .map(|point| {
                let (low, high) = bounds(Some(point.speed_up));
                let (kind, workers) = (&point.kind, point.workers);
                Scaling { kind, workers, speed_up: point.speed_up.times, low, high }
            })
            .collect(),
        price_s: comparison
            .prices
            .iter()
            .map(|(mode, spread)| Price {
                mode: mode.to_string(),
                seconds: spread.median,
                min: spread.min,
                max: spread.max,
            })
            .collect(),
    };
    serde_json::to_string_pretty(&document).expect("plain data") + "\n"
}

/// One line for each mode; the columns are named as in the JSON.
fn csv(comparison: &Comparison) -> String {
    let mut writer = csv::Writer::from_writer(Vec::new());
    for row in &comparison.rows {
        writer.serialize(Facts::of(row)).expect("plain data, into memory");
    }
    let bytes = writer.into_inner().expect("memory takes everything");
    String::from_utf8(bytes).expect("numbers and names of modes")
}
