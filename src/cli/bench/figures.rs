//! What was measured, and what follows from it.

use std::time::Duration;

use serde::Serialize;

/// All of it. Each field's name ends in its unit.
#[derive(Debug, Serialize)]
pub(super) struct Figures {
    pub version: &'static str,
    pub cpus: usize,
    pub workers: usize,
    pub quick: bool,
    /// From nothing to the first result of a fresh pool of processes.
    pub start_up_ms: Range,
    /// From the death of a worker, as its caller learns of it, to the next result of that worker's
    /// replacement.
    pub respawn_ms: Range,
    /// One task at a time.
    pub round_trip_us: Modes<Quantiles>,
    /// Tasks that do nothing, each with a future.
    pub submit_tasks_per_s: Modes<f64>,
    /// The same through `map`.
    pub map_tasks_per_s: Modes<f64>,
    /// There and back in a process.
    pub payloads: Vec<Payload>,
    #[serde(flatten)]
    pub cost: Cost,
    pub advice: String,
}

#[derive(Debug, Clone, Copy, Serialize)]
pub(super) struct Modes<T> {
    pub sequential: T,
    pub threads: T,
    pub processes: T,
}

impl<T> Modes<T> {
    /// In the order in which they are always told.
    pub(super) fn each<U>(&self, mut tell: impl FnMut(&T) -> U) -> [U; 3] {
        [&self.sequential, &self.threads, &self.processes].map(&mut tell)
    }
}

#[derive(Debug, Clone, Copy, Serialize)]
pub(super) struct Range {
    pub median: f64,
    pub longest: f64,
}

#[derive(Debug, Clone, Copy, Serialize)]
pub(super) struct Quantiles {
    pub p50: f64,
    pub p99: f64,
}

#[derive(Debug, Clone, Copy, Serialize)]
pub(super) struct Payload {
    pub size_bytes: usize,
    /// Both ways together.
    pub mib_per_s: f64,
}

/// How much longer a task takes in a process than on a thread, and from which length of a task on
/// that is little.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub(super) struct Cost {
    pub extra_us_per_task: f64,
    pub under_10_percent_from_ms: f64,
    pub under_1_percent_from_ms: f64,
}

impl Cost {
    /// From what tasks of several lengths took longer, in seconds each. The most that was seen
    /// counts, for tasks of all lengths: it does not grow with them.
    pub(super) fn of(extras: &[f64]) -> Self {
        let most = extras.iter().copied().fold(0.0, f64::max);
        Self {
            extra_us_per_task: rounded(most * 1e6),
            under_10_percent_from_ms: rounded(most * 1e3 / 0.10),
            under_1_percent_from_ms: rounded(most * 1e3 / 0.01),
        }
    }

    /// In one sentence.
    pub(super) fn advice(&self) -> String {
        let Self { extra_us_per_task, under_10_percent_from_ms, under_1_percent_from_ms } = *self;
        if extra_us_per_task < 0.1 {
            return "On this machine a task costs no more in a process than on a thread."
                .to_owned();
        }
        let from = |ms: f64| time(Duration::from_secs_f64(ms / 1e3));
        format!(
            "On this machine processes cost under 10 % more than threads for tasks of {} or \
             longer, and under 1 % for tasks of {} or longer.",
            from(under_10_percent_from_ms),
            from(under_1_percent_from_ms),
        )
    }
}

/// To as many digits as mean something.
pub(super) fn rounded(value: f64) -> f64 {
    if value == 0.0 || !value.is_finite() {
        return value;
    }
    let scale = 10_f64.powi(3 - value.abs().log10().floor() as i32);
    (value * scale).round() / scale
}

/// A time as people say it: two digits are enough.
fn time(time: Duration) -> String {
    let us = time.as_secs_f64() * 1e6;
    let (value, unit) = match us {
        ..995.0 => (us, "µs"),
        ..995e3 => (us / 1e3, "ms"),
        _ => (us / 1e6, "s"),
    };
    match value {
        ..9.95 => format!("{value:.1} {unit}"),
        ..99.5 => format!("{value:.0} {unit}"),
        _ => format!("{:.0} {unit}", (value / 10.0).round() * 10.0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_most_that_was_seen_decides_from_which_length_on_processes_are_cheap() {
        let cost = Cost::of(&[-1e-6, 35e-6, 20e-6]);
        let expected = Cost {
            extra_us_per_task: 35.0,
            under_10_percent_from_ms: 0.35,
            under_1_percent_from_ms: 3.5,
        };
        assert_eq!(cost, expected);
        let advice = cost.advice();
        assert!(advice.contains("10 % more than threads for tasks of 350 µs"), "{advice}");
        assert!(advice.contains("under 1 % for tasks of 3.5 ms"), "{advice}");
        assert!(Cost::of(&[-1.0]).advice().contains("no more"));
    }

    #[test]
    fn numbers_keep_what_means_something() {
        assert_eq!([1_234_567.0, 0.012_345, 0.0].map(rounded), [1_235_000.0, 0.012_35, 0.0]);
        let said = |us| time(Duration::from_micros(us));
        assert_eq!(
            [12, 990, 999, 9_960, 123_456].map(said),
            ["12 µs", "990 µs", "1.0 ms", "10 ms", "120 ms"]
        );
        assert_eq!(said(2_500_000), "2.5 s");
    }
}
