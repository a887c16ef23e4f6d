//! The sentences that follow from the results. Each has a condition on a confidence interval; if it does
//! not hold, the sentence says that there is no conclusion, or is omitted.

use super::comparison::{Comparison, ModeResults, Scaling};
use super::mode::MeasuredMode;
use super::statistics::{Conclusion, Interval, Ratio, Spread};
use crate::cli::background_load::NOTEWORTHY;
use crate::workload::WorkKind;

/// A ratio as a number.
pub(super) fn number(times: f64) -> String {
    let decimals = match times {
        ..10.0 => 2,
        ..100.0 => 1,
        _ => 0,
    };
    format!("{times:.decimals$}")
}

/// The interval of a ratio.
fn range(Interval { low, high }: Interval) -> String {
    // Bounds beyond these are not shown as numbers.
    let (has_low, has_high) = (low >= 0.01, high < 1e4);
    match (has_low, has_high) {
        (true, true) => format!("95 %: {} to {}", number(low), number(high)),
        (true, false) => format!("95 %: {} or more", number(low)),
        (false, true) => format!("95 %: up to {}", number(high)),
        (false, false) => "95 %: less than 0.01 to more than 10,000".to_owned(),
    }
}

/// The interval of a ratio, in parentheses.
fn in_brackets(ratio: Ratio) -> String {
    ratio.interval.map(|interval| format!(" ({})", range(interval))).unwrap_or_default()
}

/// The comparison of each mode with the reference.
pub(super) fn verdicts(comparison: &Comparison) -> Vec<String> {
    let Some(reference) = comparison.rows.get(comparison.reference) else { return Vec::new() };
    let verdict = |row: &ModeResults| {
        let what = verdict(row.ratio?, &reference.mode.to_string());
        Some(format!("{}: {what}", row.mode))
    };
    let mut sentences: Vec<_> = comparison.rows.iter().filter_map(verdict).collect();
    sentences.extend(advice(comparison));
    sentences
}

fn verdict(ratio: Ratio, reference: &str) -> String {
    match ratio.verdict() {
        Conclusion::Faster => {
            format!("{} times faster than {reference}{}", number(ratio.times), in_brackets(ratio))
        }
        Conclusion::Slower => {
            let ratio = ratio.inverse();
            format!("{} times slower than {reference}{}", number(ratio.times), in_brackets(ratio))
        }
        Conclusion::AsFast => format!("as fast as {reference}, within 10 %{}", in_brackets(ratio)),
        Conclusion::CannotTell => {
            let range = match ratio.interval {
                Some(interval) => format!("{} times as fast", range(interval)),
                None => "single run".to_owned(),
            };
            format!("cannot tell whether it is faster or slower than {reference} ({range})")
        }
    }
}

/// What to do if there is no conclusion.
fn advice(comparison: &Comparison) -> Option<String> {
    let ratios = || comparison.rows.iter().filter_map(|row| row.ratio);
    if !ratios().any(|ratio| ratio.verdict() == Conclusion::CannotTell) {
        return None;
    }
    let is_quiet = comparison.background_load.is_some_and(|load| load < NOTEWORTHY);
    Some(if ratios().any(|ratio| ratio.interval.is_none()) {
        "A single run does not show how far runs lie apart: make 2 or more of each mode \
         (--runs N)."
            .to_owned()
    } else if is_quiet {
        "To tell more, make more runs (--runs N).".to_owned()
    } else {
        "To tell more, make more runs (--runs N), or measure while other programs do less."
            .to_owned()
    })
}

/// What follows for the choice of an executor.
pub(super) fn lessons(comparison: &Comparison) -> Vec<String> {
    let lessons = [in_rust(comparison), in_cpython(comparison), overheads(&comparison.overheads)];
    lessons.into_iter().flatten().collect()
}

/// The points of the largest number of workers with which all of these kinds were measured.
fn largest<'c, const N: usize>(
    comparison: &'c Comparison,
    kinds: [&str; N],
) -> Option<[&'c Scaling; N]> {
    let point = |kind: &str, workers: usize| {
        comparison.scaling.iter().find(|point| point.kind == kind && point.workers == workers)
    };
    let numbers = comparison.scaling.iter().map(|point| point.workers).filter(|n| *n > 1);
    let has_all = |workers: &usize| kinds.iter().all(|kind| point(kind, *workers).is_some());
    let workers = numbers.filter(has_all).max()?;
    let points: Vec<_> = kinds.iter().filter_map(|kind| point(kind, workers)).collect();
    points.try_into().ok()
}

/// Threads compared with the same number of processes.
fn in_rust(comparison: &Comparison) -> Option<String> {
    const ADDED: &str = "What processes add is isolation: a task that crashes, hangs or leaks \
                         costs itself and nothing else.";
    if !matches!(comparison.work?.0, WorkKind::Sha | WorkKind::Arcfour | WorkKind::Primes) {
        return None;
    }
    let [threads, processes] = largest(comparison, ["threads", "processes"])?;
    let workers = threads.workers;
    let row = |kind: &str| {
        let is_it = |row: &&ModeResults| row.mode.to_string() == format!("{kind}:{workers}");
        comparison.rows.iter().find(is_it)
    };
    let ratio = row("threads")?.compared_with(row("processes")?)?;
    let cpus = comparison.context.cpus;
    let ideal = comparison.ideal(workers);
    let is_all = workers >= cpus && cpus > 1;
    let range = in_brackets(ratio);
    let compared = match ratio.verdict() {
        Conclusion::CannotTell => {
            return ratio.interval.map(|interval| {
                format!(
                    "Whether {workers} threads or {workers} processes are faster cannot be told \
                     from these runs ({} times as fast).",
                    self::range(interval)
                )
            });
        }
        Conclusion::AsFast
            if is_all && threads.speed_up.reaches(ideal) && processes.speed_up.reaches(ideal) =>
        {
            format!(
                "In Rust, threads used all {cpus} CPUs, and were as fast as processes, within \
                 10 %{range}."
            )
        }
        _ => {
            let verdict = verdict(ratio, &format!("{workers} processes"));
            format!("In Rust, {workers} threads were {verdict}.")
        }
    };
    Some(format!("{compared} {ADDED}"))
}

/// The effect of the GIL, if there is one.
fn in_cpython(comparison: &Comparison) -> Option<String> {
    let python = comparison.context.python.as_ref()?;
    let is_hashing = comparison.work?.0 == WorkKind::Sha;
    if !is_hashing || !python.has_gil || !python.name.starts_with("CPython") {
        return None;
    }
    let [threads] = largest(comparison, ["python-threads"])?;
    threads.speed_up.interval?;
    if threads.speed_up.is_gain() {
        return None;
    }
    let Scaling { workers, speed_up, .. } = threads;
    // If no other mode gained by a second worker, there may have been no second CPU.
    let gained = |point: &&Scaling| point.kind != threads.kind && point.speed_up.is_gain();
    let other = comparison.scaling.iter().rfind(gained);
    Some(match other {
        Some(Scaling { kind, workers: n, speed_up: other }) if speed_up.is_no_gain() => format!(
            "CPython's threads waited for each other: {workers} were at most 10 % faster than \
             one{}, while {kind}:{n} was {} times faster than {kind}:1. One at a time holds the \
             GIL: the data is hashed in pieces of 1 KiB, and hashlib lets go of it only above \
             2047 bytes.",
            in_brackets(*speed_up),
            number(other.times),
        ),
        _ if speed_up.is_no_gain() => format!(
            "{workers} of CPython's threads were at most 10 % faster than one{}. Whether they \
             waited for each other cannot be told: no other workers are known to have gained \
             from a second CPU.",
            in_brackets(*speed_up)
        ),
        _ => format!(
            "Whether {workers} of CPython's threads are faster than one cannot be told from these \
             runs{}.",
            in_brackets(*speed_up)
        ),
    })
}

fn overheads(overheads: &[(MeasuredMode, Spread)]) -> Option<String> {
    let overhead = |(mode, spread): &(MeasuredMode, Spread)| {
        let Spread { median, min, max, .. } = *spread;
        let decimals = if median < 10e-6 { 2 } else { 1 };
        let micros = |seconds: f64| format!("{:.decimals$}", seconds * 1e6);
        format!("{mode} {} µs ({} to {})", micros(median), micros(min), micros(max))
    };
    let overheads: Vec<_> = overheads.iter().map(overhead).collect();
    (!overheads.is_empty()).then(|| {
        format!(
            "The price of a task, measured with tasks that do nothing, by map, as the median of \
             its runs (fastest to slowest): {}.",
            overheads.join(", ")
        )
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::comparison::{self, MeasurementContext};
    use super::super::report::report;
    use super::super::rounds::{ComparisonEnd, RoundResults};
    use super::super::run::{MeasuredRun, RunResult};
    use super::super::task_job::PythonInfo;
    use super::*;

    /// A comparison in which each mode took these times, on 2 CPUs.
    fn comparison(work: WorkKind, times: &[(&str, &[f64])]) -> Comparison {
        let run = |(round, seconds): (usize, &f64)| MeasuredRun {
            round,
            seconds: *seconds,
            user: *seconds,
            system: 0.0,
            peak_rss: 7,
            workers: 0,
            concurrency: 1,
            result: RunResult { counts: Default::default(), digests: [].into(), error: None },
        };
        let modes: Vec<MeasuredMode> =
            times.iter().map(|(mode, _)| mode.parse().unwrap()).collect();
        let runs = times.iter().map(|(_, times)| times.iter().enumerate().map(run).collect());
        let rounds = RoundResults {
            runs: runs.collect(),
            peaks: vec![7; modes.len()],
            expected: None,
            deviations: Vec::new(),
            compared: 0,
            end: ComparisonEnd::Done,
            background_load: None,
        };
        let python = PythonInfo { name: "CPython 3.11.7".to_owned(), has_gil: true };
        let context = MeasurementContext { cpus: 2, ..MeasurementContext::here(Some(python)) };
        let begin = Comparison::new(String::new(), "jobs", context);
        let mut comparison = Comparison { work: Some((work, 40)), ..begin }.with(&modes, 0, rounds);
        comparison.scaling = comparison::scaling(&comparison.rows);
        comparison
    }

    const ONE: &[f64] = &[1.00, 1.01, 0.99];
    const HALF: &[f64] = &[0.50, 0.51, 0.50];
    const WILD: &[f64] = &[0.50, 2.90, 0.61];

    #[test]
    fn a_verdict_is_a_difference_none_or_no_conclusion() {
        let slow = [2.0, 2.02, 1.98];
        let all = comparison(
            WorkKind::Primes,
            &[
                ("sequential", ONE),
                ("threads:1", &[1.01, 1.00, 0.99]),
                ("threads:2", HALF),
                ("processes:1", &slow),
                ("processes:2", WILD),
            ],
        );
        assert_eq!(
            verdicts(&all),
            [
                "threads:1: as fast as sequential, within 10 % (95 %: 0.98 to 1.03)",
                "threads:2: 1.99 times faster than sequential (95 %: 1.96 to 2.02)",
                "processes:1: 2.00 times slower than sequential (95 %: 2.00 to 2.00)",
                "processes:2: cannot tell whether it is faster or slower than sequential (95 %: \
                 0.22 or more times as fast)",
                "To tell more, make more runs (--runs N), or measure while other programs do less.",
            ]
        );
    }

    #[test]
    fn bounds_that_say_nothing_are_left_out() {
        let range = |low, high| range(Interval { low, high });
        assert_eq!(range(0.001, 2.0), "95 %: up to 2.00");
        // "… times as fast" follows.
        assert_eq!(range(0.001, 1e9), "95 %: less than 0.01 to more than 10,000");
    }

    #[test]
    fn single_runs_allow_no_conclusion() {
        let single =
            comparison(WorkKind::Primes, &[("threads:1", &[1.0]), ("processes:2", &[0.1])]);
        let said = verdicts(&single);
        assert_eq!(said.len(), 2);
        assert!(said[0].ends_with("than threads:1 (single run)"), "{said:?}");
        assert!(said[1].contains("make 2 or more"), "{said:?}");
        assert_eq!(lessons(&single), [""; 0]);
    }

    #[test]
    fn threads_are_said_to_use_all_cpus_only_if_they_did() {
        let lesson = |threads: &[f64], processes: &[f64]| {
            let times = [
                ("threads:1", ONE),
                ("threads:2", threads),
                ("processes:1", ONE),
                ("processes:2", processes),
            ];
            lessons(&comparison(WorkKind::Primes, &times)).join(" ")
        };
        let all = lesson(HALF, &[0.51, 0.51, 0.50]);
        assert!(all.starts_with("In Rust, threads used all 2 CPUs, and were as fast"), "{all}");
        // Both gained less than half of the possible speed-up.
        let some = lesson(&[0.8, 0.81, 0.8], &[0.81, 0.8, 0.8]);
        assert!(some.starts_with("In Rust, 2 threads were as fast as 2 processes"), "{some}");
        let slower = lesson(&[0.8, 0.81, 0.8], HALF);
        assert!(slower.starts_with("In Rust, 2 threads were 1.60 times slower than"), "{slower}");
        let unknown = lesson(WILD, HALF);
        assert!(unknown.starts_with("Whether 2 threads or 2 processes are faster"), "{unknown}");
        assert!(!unknown.contains("isolation"), "{unknown}");
        assert_eq!(lesson(&[0.5], &[0.5]), "");
    }

    #[test]
    fn the_gil_is_named_only_if_threads_waited_and_processes_did_not() {
        let lesson = |threads: &[f64], processes: &[f64]| {
            let times = [
                ("python-threads:1", ONE),
                ("python-threads:2", threads),
                ("python-processes:1", ONE),
                ("python-processes:2", processes),
            ];
            lessons(&comparison(WorkKind::Sha, &times)).join(" ")
        };
        let waited = lesson(&[1.01, 1.0, 0.99], HALF);
        assert!(waited.contains("python-processes:2 was 1.99 times faster"), "{waited}");
        assert!(waited.contains(" GIL"), "{waited}");
        // There was no second CPU.
        for lesson in [lesson(&[1.01, 1.0, 0.99], ONE), lesson(WILD, HALF)] {
            assert!(lesson.contains("cannot be told"), "{lesson}");
            assert!(!lesson.contains("GIL"), "{lesson}");
        }
        assert_eq!(lesson(HALF, HALF), "");
        assert_eq!(lesson(&[1.0], &[0.5]), "");
    }

    /// The first number after this word.
    fn number_after(text: &str, word: &str) -> f64 {
        let (_, after) = text.split_once(word).unwrap();
        after.split([' ', ')']).next().unwrap().parse().unwrap()
    }

    fn times() -> impl Strategy<Value = Vec<(f64, Vec<f64>)>> {
        let mode = |runs| (0.2..5.0_f64, prop::collection::vec(-1.0..1.0_f64, runs));
        (2..7_usize, 0.0..0.8_f64).prop_flat_map(move |(runs, noise)| {
            let modes = prop::collection::vec(mode(runs), 3);
            let noisy = move |(mean, runs): (f64, Vec<f64>)| {
                (mean, runs.iter().map(|run| mean * (1.0 + noise * run)).collect())
            };
            modes.prop_map(move |modes| modes.into_iter().map(noisy).collect())
        })
    }

    proptest! {
        /// A reader can check the sentences with the table.
        #[test]
        fn no_sentence_contradicts_its_table(times in times()) {
            let names = ["sequential", "threads:2", "processes:2"];
            let times: Vec<_> =
                names.into_iter().zip(&times).map(|(name, (_, times))| (name, &times[..])).collect();
            let report = report(&comparison(WorkKind::Primes, &times));
            let cell = |row: usize, column: usize| -> f64 {
                let text = report.times.rows[row][column].split(" ±").next().unwrap();
                text.parse().unwrap()
            };
            for (n, said) in report.verdicts.iter().enumerate().take(2) {
                let row = n + 1;
                let by_table = |column| cell(0, column) / cell(row, column);
                let (by_means, by_medians) = (by_table(2), by_table(1));
                prop_assert!(said.starts_with(names[row]), "{}", said);
                let is_near = |a: f64, b: f64| (a / b - 1.0).abs() < 0.02;
                if said.contains("cannot tell") {
                    prop_assert!(said.contains("95 %"), "{}", said);
                } else if said.contains(" faster than ") {
                    let times = number_after(said, ": ");
                    prop_assert!(is_near(times, by_means), "{} {}", said, by_means);
                    prop_assert!(by_medians >= 0.999 && number_after(said, "(95 %: ") > 1.0, "{}", said);
                } else if said.contains(" slower than ") {
                    let times = number_after(said, ": ");
                    prop_assert!(is_near(times, 1.0 / by_means), "{} {}", said, by_means);
                    prop_assert!(by_medians <= 1.001 && number_after(said, "(95 %: ") > 1.0, "{}", said);
                } else {
                    prop_assert!(said.contains("as fast as sequential, within 10 %"), "{}", said);
                    prop_assert!((0.9..1.11).contains(&by_means), "{} {}", said, by_means);
                }
            }
        }
    }
}
