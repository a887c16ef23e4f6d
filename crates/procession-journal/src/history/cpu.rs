//! The CPU time of processes over time, as their lines record it.

use super::{Micros, RunHistory};

/// Maximum number of samples of a process. When it is reached, about half of them are discarded.
const MAX_SAMPLES: usize = 600;

/// The CPU time of one process, in seconds, at some moments.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct CpuSamples {
    /// Sorted by time; the CPU time never falls.
    samples: Vec<(Micros, f64)>,
    /// The shortest time between two samples that are kept. The newest sample is always kept.
    interval: Micros,
}

impl CpuSamples {
    /// Adds a sample. A sample that contradicts an earlier one is not of this process, and is ignored.
    pub(super) fn add(&mut self, at: Micros, cpu_s: f64) {
        let is_later = |(last, cpu): &(Micros, f64)| at > *last && cpu_s >= *cpu;
        if !(cpu_s.is_finite() && cpu_s >= 0.0 && self.samples.last().is_none_or(is_later)) {
            return;
        }
        if let [.., (before, _), (last, _)] = self.samples[..]
            && last.saturating_sub(before) < self.interval
        {
            self.samples.pop();
        }
        self.samples.push((at, cpu_s));
        if self.samples.len() >= MAX_SAMPLES {
            let mut number = 0;
            self.samples.retain(|_| {
                number += 1;
                number % 2 == 1 || number == MAX_SAMPLES
            });
            let period = at.saturating_sub(self.samples[0].0);
            self.interval = period / (MAX_SAMPLES / 2) as Micros;
        }
    }

    /// Adds the CPU time of each step, from `begin` on, to its sum.
    fn add_to(&self, sums: &mut [f64], begin: Micros, step: f64) {
        for pair in self.samples.windows(2) {
            let [(from, cpu_before), (to, cpu)] = [pair[0], pair[1]];
            let [from, to] = [from, to].map(|at| at.saturating_sub(begin) as f64 / step);
            let per_step = (cpu - cpu_before) / (to - from).max(f64::MIN_POSITIVE);
            let first = (from.max(0.0) as usize).min(sums.len());
            let end = (to.ceil().max(0.0) as usize).min(sums.len());
            for (at, sum) in sums.iter_mut().enumerate().take(end).skip(first) {
                let share = to.min(at as f64 + 1.0) - from.max(at as f64);
                *sum += share.max(0.0) * per_step;
            }
        }
    }
}

impl RunHistory {
    /// Divides the period of the run into `parts` equal parts. Returns for each part the mean number of CPUs that the
    /// processes used in it. Empty if no process has recorded its CPU time twice.
    ///
    /// ```
    /// # use procession_journal::{LogEntry, RunHistory};
    /// let mut history = RunHistory::default();
    /// for line in [
    ///     r#"{"ts":"2026-11-22T23:49:32Z","level":"info","process":"worker","worker":0,"pid":47,"own_cpu_s":0.5,"event":"x"}"#,
    ///     r#"{"ts":"2026-11-22T23:49:34Z","level":"info","process":"worker","worker":0,"pid":47,"own_cpu_s":1.5,"event":"x"}"#,
    /// ] {
    ///     history.add(LogEntry::from_json(line.as_bytes())?);
    /// }
    /// assert_eq!(history.cpus_in_use(2), [0.5, 0.5]);
    /// # Ok::<(), serde_json::Error>(())
    /// ```
    #[must_use]
    pub fn cpus_in_use(&self, parts: usize) -> Vec<f64> {
        let (begin, end) = self.period.unwrap_or_default();
        let step = end.saturating_sub(begin) as f64 / parts.max(1) as f64;
        let has_samples = self.processes.iter().any(|process| process.cpu.samples.len() > 1);
        if !has_samples || step <= 0.0 {
            return Vec::new();
        }
        let mut sums = vec![0.0; parts];
        for process in &self.processes {
            process.cpu.add_to(&mut sums, begin, step);
        }
        sums.iter_mut().for_each(|seconds| *seconds /= step / 1e6);
        sums
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples_are_bounded_and_their_sum_is_the_cpu_time() {
        let mut samples = CpuSamples::default();
        for n in 0..100_000 {
            samples.add(n * 1_000, n as f64 / 2_000.0);
            assert!(samples.samples.len() < MAX_SAMPLES);
        }
        assert_eq!(samples.samples.last(), Some(&(99_999_000, 99_999.0 / 2_000.0)));
        assert!(samples.samples.len() > MAX_SAMPLES / 4, "{}", samples.samples.len());
        let mut sums = [0.0; 7];
        samples.add_to(&mut sums, 0, 99_999_000.0 / 7.0);
        assert!((sums.iter().sum::<f64>() - 49.9995).abs() < 1e-6, "{sums:?}");
        assert!(sums.iter().all(|sum| (sum - sums[0]).abs() < 1e-6), "{sums:?}");
    }

    #[test]
    fn what_cannot_be_a_sample_is_passed_over() {
        let mut samples = CpuSamples::default();
        for (at, cpu) in [(5, 1.0), (4, 2.0), (6, 0.5), (7, f64::NAN), (8, 2.0), (9, -1.0)] {
            samples.add(at, cpu);
        }
        samples.add(Micros::MAX, 3.0);
        assert_eq!(samples.samples, [(5, 1.0), (8, 2.0), (Micros::MAX, 3.0)]);
        // The time is before the begin if the clock was set back.
        samples.add_to(&mut [0.0; 4], 7, 1.0);
        samples.add_to(&mut [0.0; 4], Micros::MIN, 1.0);
    }
}
