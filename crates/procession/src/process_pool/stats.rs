//! What a pool has done so far, in numbers.

use std::fmt;
use std::time::Duration;

use histogram::Histogram;

/// A snapshot of a pool, from [`ProcessPool::stats`](super::ProcessPool::stats).
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct Stats {
    /// Worker processes that live now, with their ids.
    pub pids: Vec<u32>,
    /// Tasks that have not begun, or wait for their next attempt.
    pub pending: usize,
    /// Tasks that run.
    pub running: usize,
    /// Tasks that gave an output.
    pub done: u64,
    /// Tasks that ended in an error, whichever, cancelled ones not among them.
    pub failed: u64,
    /// Tasks that were cancelled.
    pub cancelled: u64,
    /// Further attempts after a crash, a timeout or a failure.
    pub retried: u64,
    /// Workers that were started to take the place of one that died, was ended or was recycled.
    pub respawned: u64,
    /// How long tasks that were answered had waited before they ran the last time.
    pub wait: Times,
    /// How long they ran that time.
    pub run: Times,
}

/// Longer times count as this one: a month.
const LONGEST: Duration = Duration::from_secs(30 * 24 * 3600);
/// Two to this power are the buckets for each power of two: none is wider than 0.8 % of its times.
const GROUPING_POWER: u8 = 7;
/// Two to this power is above [`LONGEST`] in microseconds.
const MAX_VALUE_POWER: u8 = 42;

/// How long something took, over many times.
#[derive(Clone)]
pub struct Times {
    /// In microseconds.
    histogram: Histogram,
    count: u64,
    /// In microseconds.
    sum: u128,
    max: Duration,
}

impl fmt::Debug for Times {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Times")
            .field("count", &self.count())
            .field("median", &self.quantile(0.5))
            .field("p99", &self.quantile(0.99))
            .field("max", &self.max())
            .finish()
    }
}

/// What is counted as it happens.
#[derive(Debug, Default)]
pub(crate) struct Counts {
    pub done: u64,
    pub failed: u64,
    pub cancelled: u64,
    pub retried: u64,
    pub respawned: u64,
    pub wait: Times,
    pub run: Times,
}

impl Counts {
    /// The number of tasks that ended without an output.
    pub(crate) fn ended(&mut self, were_cancelled: bool) -> &mut u64 {
        if were_cancelled { &mut self.cancelled } else { &mut self.failed }
    }
}

impl Times {
    pub(crate) fn note(&mut self, time: Duration) {
        self.note_many(time, 1);
    }

    pub(crate) fn note_many(&mut self, time: Duration, number: u64) {
        let time = time.min(LONGEST);
        // It refuses only what is longer than that.
        let _ = self.histogram.add(time.as_micros() as u64, number);
        self.count += number;
        self.sum += time.as_micros() * u128::from(number);
        self.max = self.max.max(time);
    }

    /// How many times were measured.
    pub fn count(&self) -> u64 {
        self.count
    }

    /// The time that this share of all were below: 0.5 for the median. To a percent and a
    /// microsecond, zero if there are none.
    pub fn quantile(&self, share: f64) -> Duration {
        let found = self.histogram.quantile_bucket(share.clamp(0.0, 1.0)).ok().flatten();
        found.map_or(Duration::ZERO, |bucket| Duration::from_micros(bucket.end()).min(self.max))
    }

    /// The average.
    pub fn mean(&self) -> Duration {
        Duration::from_micros((self.sum / u128::from(self.count.max(1))) as u64)
    }

    /// The longest.
    pub fn max(&self) -> Duration {
        self.max
    }
}

impl Default for Times {
    fn default() -> Self {
        let histogram = Histogram::new(GROUPING_POWER, MAX_VALUE_POWER).expect("valid powers");
        Self { histogram, count: 0, sum: 0, max: Duration::ZERO }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_told_by_their_quantiles() {
        let mut times = Times::default();
        assert_eq!((times.count(), times.quantile(0.5)), (0, Duration::ZERO));
        (1..=100).for_each(|ms| times.note(Duration::from_millis(ms)));
        let median = times.quantile(0.5).as_secs_f64();
        assert!((0.049..0.052).contains(&median), "{median}");
        assert_eq!(times.count(), 100);
        assert_eq!(times.mean(), Duration::from_micros(50_500));
        assert_eq!(times.quantile(1.0), times.max());
        times.note(Duration::MAX);
        assert!(times.max() > Duration::from_secs(3600));
    }
}
