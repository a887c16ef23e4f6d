//! What a pool has done so far, in numbers.

use std::fmt;
use std::time::Duration;

use hdrhistogram::Histogram;

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

/// How long something took, over many times.
#[derive(Clone)]
pub struct Times(Histogram<u64>);

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
        self.0.saturating_record_n(u64::try_from(time.as_micros()).unwrap_or(u64::MAX), number);
    }

    /// How many times were measured.
    pub fn count(&self) -> u64 {
        self.0.len()
    }

    /// The time that this share of all were below: 0.5 for the median. To a percent and a
    /// microsecond, zero if there are none.
    pub fn quantile(&self, share: f64) -> Duration {
        Duration::from_micros(self.0.value_at_quantile(share))
    }

    /// The average.
    pub fn mean(&self) -> Duration {
        Duration::from_secs_f64(self.0.mean() / 1e6)
    }

    /// The longest.
    pub fn max(&self) -> Duration {
        Duration::from_micros(self.0.max())
    }
}

impl Default for Times {
    fn default() -> Self {
        /// Longer times count as this one: a month, in microseconds.
        const LONGEST: u64 = 30 * 24 * 3600 * 1_000_000;
        Self(Histogram::new_with_max(LONGEST, 2).expect("bounds that make sense"))
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
        times.note(Duration::MAX);
        assert!(times.max() > Duration::from_secs(3600));
    }
}
