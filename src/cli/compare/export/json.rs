//! The whole comparison for programs.

use serde::Serialize;

use super::Exporter;
use super::facts::{ModeFacts, bounds};
use crate::cli::compare::comparison::{Comparison, ModeResults, Scaling};
use crate::cli::compare::mode::MeasuredMode;
use crate::cli::compare::report::ComparisonReport;
use crate::cli::compare::rounds::ComparisonEnd;
use crate::cli::compare::run::MeasuredRun;
use crate::cli::compare::statistics::Spread;

pub(super) struct JsonExport;

impl Exporter for JsonExport {
    fn extension(&self) -> &'static str {
        "json"
    }

    fn export(&self, comparison: &Comparison, _: &ComparisonReport) -> String {
        let document = JsonDocument::of(comparison);
        serde_json::to_string_pretty(&document).expect("plain data") + "\n"
    }
}

#[derive(Serialize)]
struct JsonDocument<'c> {
    command: &'c str,
    version: &'c str,
    when: &'c str,
    cpus: usize,
    system: &'c str,
    debug_build: bool,
    python: Option<&'c str>,
    job: &'c str,
    unit: &'c str,
    warmup: usize,
    runs: usize,
    reference: String,
    /// Whether all runs had the same result.
    same: bool,
    unlike: &'c [String],
    /// Why the comparison ended early.
    broken_off: Option<&'c str>,
    interrupted: bool,
    /// Share of the machine's CPUs that other programs used.
    others: Option<f64>,
    results: Vec<JsonResults>,
    scaling: Vec<JsonScaling<'c>>,
    price_s: Vec<JsonOverhead>,
}

#[derive(Serialize)]
struct JsonResults {
    #[serde(flatten)]
    facts: ModeFacts,
    times_s: Vec<f64>,
    cpu_times_s: Vec<f64>,
}

#[derive(Serialize)]
struct JsonScaling<'c> {
    kind: &'c str,
    workers: usize,
    speed_up: f64,
    /// The 95 % confidence interval of the speed-up.
    low: Option<f64>,
    high: Option<f64>,
}

#[derive(Serialize)]
struct JsonOverhead {
    mode: String,
    /// The median.
    seconds: f64,
    min: f64,
    max: f64,
}

impl<'c> JsonDocument<'c> {
    fn of(comparison: &'c Comparison) -> Self {
        let context = &comparison.context;
        let reference = comparison.rows.get(comparison.reference);
        Self {
            command: &context.command,
            version: context.version,
            when: &context.when,
            cpus: context.cpus,
            system: &context.system,
            debug_build: context.debug_build,
            python: context.python.as_ref().map(|python| python.name.as_str()),
            job: &comparison.job,
            unit: comparison.unit,
            warmup: comparison.warmup,
            runs: comparison.runs,
            reference: reference.map(|row| row.mode.to_string()).unwrap_or_default(),
            same: comparison.deviations.is_empty(),
            unlike: &comparison.deviations,
            broken_off: match &comparison.end {
                ComparisonEnd::Broken(why) => Some(why),
                _ => None,
            },
            interrupted: matches!(comparison.end, ComparisonEnd::Signal(_)),
            others: comparison.background_load,
            results: comparison.rows.iter().map(JsonResults::of).collect(),
            scaling: comparison.scaling.iter().map(JsonScaling::of).collect(),
            price_s: comparison.overheads.iter().map(JsonOverhead::of).collect(),
        }
    }
}

impl JsonResults {
    fn of(row: &ModeResults) -> Self {
        Self {
            facts: ModeFacts::of(row),
            times_s: row.runs.iter().map(|run| run.seconds).collect(),
            cpu_times_s: row.runs.iter().map(MeasuredRun::cpu).collect(),
        }
    }
}

impl<'c> JsonScaling<'c> {
    fn of(point: &'c Scaling) -> Self {
        let (low, high) = bounds(Some(point.speed_up));
        let (kind, workers) = (&*point.kind, point.workers);
        Self { kind, workers, speed_up: point.speed_up.times, low, high }
    }
}

impl JsonOverhead {
    fn of((mode, spread): &(MeasuredMode, Spread)) -> Self {
        Self { mode: mode.to_string(), seconds: spread.median, min: spread.min, max: spread.max }
    }
}
