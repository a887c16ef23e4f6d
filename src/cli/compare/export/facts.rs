//! The results of a mode as data; no number is rounded.

use serde::Serialize;

use crate::cli::compare::comparison::ModeResults;
use crate::cli::compare::statistics::{Conclusion, Ratio};
use crate::files::outcome::OutcomeCounts;

/// The results of a mode.
#[derive(Serialize)]
pub(super) struct ModeFacts {
    mode: String,
    runs: usize,
    mean_s: Option<f64>,
    stddev_s: Option<f64>,
    median_s: Option<f64>,
    min_s: Option<f64>,
    max_s: Option<f64>,
    per_second: Option<f64>,
    /// CPU time of the process and its workers, mean of all runs.
    cpu_s: Option<f64>,
    user_s: Option<f64>,
    system_s: Option<f64>,
    /// Of all processes together, the maximum of all runs, warm-ups included.
    peak_rss_bytes: Option<u64>,
    concurrency: Option<usize>,
    ok: Option<u64>,
    not_found: Option<u64>,
    error: Option<u64>,
    /// How many times as fast as the reference: the quotient of the means.
    ratio: Option<f64>,
    /// The 95 % confidence interval of the ratio; `None` if the runs set no bound.
    ratio_low: Option<f64>,
    ratio_high: Option<f64>,
    verdict: Option<Conclusion>,
}

/// The bounds of the interval of a ratio.
pub(super) fn bounds(ratio: Option<Ratio>) -> (Option<f64>, Option<f64>) {
    let interval = ratio.and_then(|ratio| ratio.interval);
    let low = interval.map(|interval| interval.low).filter(|low| *low > 0.0);
    (low, interval.map(|interval| interval.high).filter(|high| high.is_finite()))
}

impl ModeFacts {
    pub(super) fn of(row: &ModeResults) -> Self {
        let times = row.times.as_ref();
        let first = row.runs.first();
        let OutcomeCounts { ok, not_found, error, not_done: _, unchanged: _ } =
            first.map_or_else(OutcomeCounts::default, |run| run.result.counts);
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
            verdict: row.ratio.map(Ratio::verdict),
        }
    }
}
