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
    /// Which share of the machine's CPUs other programs had meanwhile, where the system tells.
    pub others: Option<f64>,
    /// Whether it is a debug build that was measured, whose figures are worse.
    pub debug_build: bool,
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
    /// From several measurements.
    pub extra_us_per_task: Spread,
    /// None where the measurements lie too far apart to tell, or others had too much of the CPUs.
    pub under_10_percent_from_ms: Option<Bounds>,
    pub under_1_percent_from_ms: Option<Bounds>,
}

/// Negative where tasks in processes took less time.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub(super) struct Spread {
    pub low: f64,
    pub median: f64,
    pub high: f64,
}

#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub(super) struct Bounds {
    pub low: f64,
    /// That of the advice: even the largest measured extra is less from here on.
    pub high: f64,
}

/// How often the extra of each length of tasks is measured.
pub(super) const REPETITIONS: usize = 9;
/// So many of the lowest and of the highest measurements are left out. The median lies between the
/// others with a confidence of 96 %: it does not where 8 or more of 9 are on the same side of it,
/// which has a probability of 2 (1 + 9) / 2⁹.
const LEFT_OUT: usize = 1;
/// The longest tasks that are tried, in ms.
pub(super) const LONGEST_MS: f64 = 1.0;
/// Advice whose bounds lie further apart than this is none.
const FURTHEST: f64 = 3.0;
/// Of less than this the bounds do not matter, in µs: it is little for any task that is worth being
/// handed over.
const NEGLIGIBLE: f64 = 1.0;
/// Of less than this it is called nothing, in µs.
const NOTHING: f64 = 0.1;
/// A share of the CPUs that others may have without being mentioned is less than this.
const NOTEWORTHY: f64 = 0.1;
/// Where others have more, tasks wait for their turn, which may hide the difference.
const TOO_BUSY: f64 = 0.25;

impl Cost {
    /// From what tasks took longer, in seconds each: for each of several lengths, measured several
    /// times. The most that was seen counts, for tasks of all lengths: it does not grow with them.
    /// `others` is the share of the CPUs that other programs had meanwhile.
    pub(super) fn of(extras: &[Vec<f64>], others: Option<f64>) -> Self {
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
        let is_told = (high <= NEGLIGIBLE || high <= FURTHEST * low)
            && others.is_none_or(|others| others < TOO_BUSY);
        let from = |share: f64| {
            let ms = |us: f64| rounded(us.max(0.0) / 1e3 / share);
            is_told.then(|| Bounds { low: ms(low), high: ms(high) })
        };
        let [low, median, high] = [low, median, high].map(rounded);
        Self {
            extra_us_per_task: Spread { low, median, high },
            under_10_percent_from_ms: from(0.10),
            under_1_percent_from_ms: from(0.01),
        }
    }

    /// In a sentence or two.
    pub(super) fn advice(&self, others: Option<f64>, is_quick: bool) -> String {
        let Self { extra_us_per_task, under_10_percent_from_ms, under_1_percent_from_ms } = *self;
        let Spread { low, high, .. } = extra_us_per_task;
        let others = others.filter(|others| *others >= NOTEWORTHY);
        let others = others.map(|others| format!("other programs had {:.0} %", others * 100.0));
        let machine = match &others {
            Some(others) => format!("On this machine, while {others} of its CPUs,"),
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
            let again = match (others, is_quick) {
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
        if high < NOTHING {
            return format!("{machine} a task takes no longer in a process than on a thread.");
        }
        let longer = match low {
            ..NOTHING => format!("at most {}", us(high)),
            _ if us(low) == us(high) => us(high),
            _ => format!("{} to {}", us(low), us(high)),
        };
        // What is said of longer tasks was not measured.
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

    /// Measurements of this length of tasks, in µs.
    fn measured(us: [f64; REPETITIONS]) -> Vec<f64> {
        us.map(|us| us / 1e6).to_vec()
    }

    #[test]
    fn the_most_that_was_seen_decides_from_which_length_on_processes_are_cheap() {
        // One measurement of each length was disturbed.
        let short = measured([1.0, 1.2, 1.1, 1.0, 80.0, 1.1, 1.0, 1.0, 1.0]);
        let long = measured([30.0, 35.0, 31.0, 0.1, 32.0, 33.0, 29.0, 500.0, 28.0]);
        let cost = Cost::of(&[short, long], Some(0.2));
        let expected = Cost {
            extra_us_per_task: Spread { low: 28.0, median: 31.0, high: 35.0 },
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
    fn of_next_to_nothing_it_does_not_matter_how_far_measurements_lie_apart() {
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
