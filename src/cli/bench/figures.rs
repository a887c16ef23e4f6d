//! The results of the benchmark, and the advice that is computed from them.

use std::time::Duration;

use serde::Serialize;

use crate::cli::background_load::NOTEWORTHY;

/// All results. The name of each field ends in its unit.
#[derive(Debug, Serialize)]
pub(super) struct Figures {
    pub version: &'static str,
    pub cpus: usize,
    pub workers: usize,
    pub quick: bool,
    /// Time from the creation of a pool of processes to its first result.
    pub start_up_ms: MedianAndMax,
    /// Time from the error of a task whose worker died to the next result, of the new worker.
    pub respawn_ms: MedianAndMax,
    /// One task at a time.
    pub round_trip_us: PerMode<Quantiles>,
    /// Rate of empty tasks, each with a future.
    pub submit_tasks_per_s: PerMode<f64>,
    /// Rate of empty tasks with `map`.
    pub map_tasks_per_s: PerMode<f64>,
    /// Payloads to a process and back.
    pub payloads: Vec<Payload>,
    #[serde(flatten)]
    pub cost: Cost,
    /// Share of the machine's CPUs that other programs used, where the system reports it.
    #[serde(rename = "others")]
    pub background_load: Option<f64>,
    /// Whether a debug build was measured, which is slower.
    pub debug_build: bool,
    pub advice: String,
}

#[derive(Debug, Clone, Copy, Serialize)]
pub(super) struct PerMode<T> {
    pub sequential: T,
    pub threads: T,
    pub processes: T,
}

impl<T> PerMode<T> {
    /// The values in the order of the reports.
    pub(super) fn each<U>(&self, value: impl FnMut(&T) -> U) -> [U; 3] {
        [&self.sequential, &self.threads, &self.processes].map(value)
    }
}

#[derive(Debug, Clone, Copy, Serialize)]
pub(super) struct MedianAndMax {
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
    /// Of both directions together.
    pub mib_per_s: f64,
}

/// How much longer a task takes in a process than on a thread, and the length of a task from which this
/// is little.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub(super) struct Cost {
    /// From several measurements.
    pub extra_us_per_task: CostRange,
    /// `None` if the measurements lie too far apart, or other programs used too much of the CPUs.
    pub under_10_percent_from_ms: Option<Bounds>,
    pub under_1_percent_from_ms: Option<Bounds>,
}

/// Negative where tasks in processes took less time.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub(super) struct CostRange {
    pub low: f64,
    pub median: f64,
    pub high: f64,
}

#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub(super) struct Bounds {
    pub low: f64,
    /// The bound of the advice: for longer tasks even the largest measured extra is less.
    pub high: f64,
}

/// How many times the extra of each length of tasks is measured.
pub(super) const REPETITIONS: usize = 9;
/// Number of the lowest and of the highest measurements that are left out. The median lies between the
/// others with a confidence of 96 %: it does not if 8 or more of 9 are on the same side of it, which
/// has a probability of 2 (1 + 9) / 2⁹.
const LEFT_OUT: usize = 1;
/// The longest measured tasks, in ms.
pub(super) const LONGEST_MS: f64 = 1.0;
/// Maximum ratio of the bounds of an advice.
const MAX_BOUNDS_RATIO: f64 = 3.0;
/// Below this extra, in µs, the ratio of the bounds does not matter: it is little for any task that is
/// worth a worker.
const NEGLIGIBLE: f64 = 1.0;
/// Below this, in µs, the advice says that a task takes no longer.
const NO_EXTRA: f64 = 0.1;
/// From this share on there is no advice: tasks wait for CPUs, which may hide the difference.
const TOO_BUSY: f64 = 0.25;

impl Cost {
    /// `extras` are the measurements for each of several lengths of tasks: how much longer a task took,
    /// in seconds. The largest extra of a length counts for all lengths, since it does not grow with
    /// them. `background_load` is the share of the CPUs that other programs used.
    pub(super) fn of(extras: &[Vec<f64>], background_load: Option<f64>) -> Self {
        let of_length = |extras: &Vec<f64>| {
            let mut sorted = extras.clone();
            sorted.sort_unstable_by(f64::total_cmp);
            let last = sorted.len().saturating_sub(1);
            let at = |place: usize| sorted.get(place).map_or(0.0, |extra| extra * 1e6);
            let outer = LEFT_OUT.min(last / 2);
            [at(outer), at(last / 2), at(last - outer)]
        };
        let most = |most: [f64; 3], next: [f64; 3]| [0, 1, 2].map(|n| most[n].max(next[n]));
        let [low, median, high] = extras.iter().map(of_length).reduce(most).unwrap_or_default();
        let is_reliable = (high <= NEGLIGIBLE || high <= MAX_BOUNDS_RATIO * low)
            && background_load.is_none_or(|load| load < TOO_BUSY);
        let from = |share: f64| {
            let ms = |us: f64| rounded(us.max(0.0) / 1e3 / share);
            is_reliable.then(|| Bounds { low: ms(low), high: ms(high) })
        };
        let [low, median, high] = [low, median, high].map(rounded);
        Self {
            extra_us_per_task: CostRange { low, median, high },
            under_10_percent_from_ms: from(0.10),
            under_1_percent_from_ms: from(0.01),
        }
    }

    /// The advice, in one or two sentences.
    pub(super) fn advice(&self, background_load: Option<f64>, is_quick: bool) -> String {
        let Self { extra_us_per_task, under_10_percent_from_ms, under_1_percent_from_ms } = *self;
        let CostRange { low, high, .. } = extra_us_per_task;
        let load = background_load.filter(|load| *load >= NOTEWORTHY);
        let machine = match load {
            Some(load) => {
                let percent = load * 100.0;
                format!("On this machine, while other programs had {percent:.0} % of its CPUs,")
            }
            None => "On this machine".to_owned(),
        };
        let us = |us: f64| time(Duration::from_secs_f64(us.max(0.0) / 1e6));
        let ms = |ms: f64| us(ms * 1e3);
        let (Some(under_10), Some(under_1)) = (under_10_percent_from_ms, under_1_percent_from_ms)
        else {
            let least = match low {
                ..=0.0 => "no longer".to_owned(),
                _ => format!("{} longer", us(low)),
            };
            let again = match (load, is_quick) {
                (Some(_), _) => "Measure again while they do less.",
                (None, true) => "Measure again, without --quick.",
                (None, false) => "Measure again.",
            };
            return format!(
                "{machine} it cannot be told from which length of a task on processes cost little \
                 more than threads: in {REPETITIONS} measurements a task took between {least} and \
                 {} longer. {again}",
                us(high)
            );
        };
        if high < NO_EXTRA {
            return format!("{machine} a task takes no longer in a process than on a thread.");
        }
        let longer = match low {
            ..NO_EXTRA => format!("at most {}", us(high)),
            _ if us(low) == us(high) => us(high),
            _ => format!("{} to {}", us(low), us(high)),
        };
        // The advice on longer tasks is extrapolated.
        let is_measured = under_10.high.max(under_1.high) <= LONGEST_MS;
        let measured = match is_measured {
            true => String::new(),
            false => format!(" (tasks of more than {} were not measured)", ms(LONGEST_MS)),
        };
        format!(
            "{machine} a task takes {longer} longer in a process than on a thread. That is under \
             10 % for tasks of {} or longer, and under 1 % for tasks of {} or \
             longer{measured}.",
            ms(under_10.high),
            ms(under_1.high),
        )
    }
}

/// The value with four significant digits.
pub(super) fn rounded(value: f64) -> f64 {
    if value == 0.0 || !value.is_finite() {
        return value;
    }
    let scale = 10_f64.powi(3 - value.abs().log10().floor() as i32);
    (value * scale).round() / scale
}

/// A time with two significant digits.
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

    /// Measurements for one length of tasks, in µs.
    fn measured(us: [f64; REPETITIONS]) -> Vec<f64> {
        us.map(|us| us / 1e6).to_vec()
    }

    #[test]
    fn the_largest_extra_decides_from_which_length_on_processes_are_cheap() {
        // One measurement of each length was disturbed.
        let short = measured([1.0, 1.2, 1.1, 1.0, 80.0, 1.1, 1.0, 1.0, 1.0]);
        let long = measured([30.0, 35.0, 31.0, 0.1, 32.0, 33.0, 29.0, 500.0, 28.0]);
        let cost = Cost::of(&[short, long], Some(0.2));
        let expected = Cost {
            extra_us_per_task: CostRange { low: 28.0, median: 31.0, high: 35.0 },
            under_10_percent_from_ms: Some(Bounds { low: 0.28, high: 0.35 }),
            under_1_percent_from_ms: Some(Bounds { low: 2.8, high: 3.5 }),
        };
        assert_eq!(cost, expected);
        assert_eq!(
            cost.advice(Some(0.09), false),
            "On this machine a task takes 28 µs to 35 µs longer in a process than on a thread. \
             That is under 10 % for tasks of 350 µs or longer, and under 1 % for tasks of 3.5 ms \
             or longer (tasks of more than 1.0 ms were not measured)."
        );
        let advice = cost.advice(Some(0.134), false);
        let expected =
            "On this machine, while other programs had 13 % of its CPUs, a task takes 28";
        assert!(advice.starts_with(expected), "{advice}");
    }

    #[test]
    fn measurements_that_lie_far_apart_give_no_advice() {
        let far = measured([5.0, 6.0, 7.0, 8.0, 9.0, 10.0, 12.0, 19.0, 20.0]);
        let cost = Cost::of(&[measured([0.5; 9]), far], None);
        assert_eq!(cost.under_10_percent_from_ms, None);
        assert_eq!(
            cost.advice(None, true),
            "On this machine it cannot be told from which length of a task on processes cost \
             little more than threads: in 9 measurements a task took between 6.0 µs longer and \
             19 µs longer. Measure again, without --quick."
        );
        let noise = measured([-40.0, -30.0, -20.0, -5.0, 0.0, 9.0, 22.0, 80.0, 90.0]);
        let advice = Cost::of(&[noise], None).advice(Some(0.5), false);
        assert!(advice.contains("between no longer and 80 µs longer"), "{advice}");
        assert!(advice.contains("had 50 % of its CPUs, it cannot be told"), "{advice}");
        assert!(advice.ends_with("Measure again while they do less."), "{advice}");
    }

    #[test]
    fn a_machine_that_is_busy_with_other_things_gives_no_advice() {
        let cost = Cost::of(&[measured([5.0; 9])], Some(0.59));
        assert_eq!((cost.under_10_percent_from_ms, cost.under_1_percent_from_ms), (None, None));
        let advice = cost.advice(Some(0.59), false);
        let expected =
            "On this machine, while other programs had 59 % of its CPUs, it cannot be told";
        assert!(advice.starts_with(expected), "{advice}");
    }

    #[test]
    fn measurements_of_a_negligible_extra_may_lie_far_apart() {
        let little =
            |high| Cost::of(&[measured([-2.0, -1.0, 0.0, 0.0, 0.1, 0.2, 0.3, high, 9.0])], None);
        let advice = little(0.9).advice(None, false);
        assert!(advice.contains(" takes at most 0.9 µs longer "), "{advice}");
        assert!(advice.contains("under 10 % for tasks of 9.0 µs or longer"), "{advice}");
        assert_eq!(little(1.1).under_1_percent_from_ms, None);
        let none = Cost::of(&[measured([-1.0; 9])], None).advice(None, false);
        assert_eq!(none, "On this machine a task takes no longer in a process than on a thread.");
    }

    #[test]
    fn numbers_keep_their_significant_digits() {
        assert_eq!([1_234_567.0, 0.012_345, 0.0].map(rounded), [1_235_000.0, 0.012_35, 0.0]);
        let said = |us| time(Duration::from_micros(us));
        assert_eq!(
            [12, 990, 999, 9_960, 123_456].map(said),
            ["12 µs", "990 µs", "1.0 ms", "10 ms", "120 ms"]
        );
        assert_eq!(said(2_500_000), "2.5 s");
    }
}
