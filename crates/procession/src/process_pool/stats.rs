//! [`Stats`]: counters and times of a pool.

use std::fmt;
use std::time::Duration;

use histogram::Histogram;

use super::inner::PoolInner;
use super::measures::EndKind;

/// Counters of a pool at one moment, from [`ProcessPool::stats`](super::ProcessPool::stats).
///
/// A submitted task is counted in one of `pending`, `running`, `done`, `failed` and `cancelled`, or for a
/// moment, while it ends, in none. When its result can be read, it is counted as ended.
///
/// ```no_run
/// # fn show(pool: &procession::ProcessPool) {
/// let stats = pool.stats();
/// println!("{} running, {} done", stats.running, stats.done);
/// println!("median {:?}, p99 {:?}", stats.run.quantile(0.5), stats.run.quantile(0.99));
/// # }
/// ```
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct Stats {
    /// Process ids of the workers that live now, spares included, in the order of their indices.
    pub pids: Vec<u32>,
    /// Tasks that have not begun, and those that wait for their next attempt.
    pub pending: usize,
    /// Tasks that run now.
    pub running: usize,
    /// Tasks that ended with an output.
    pub done: u64,
    /// Tasks that ended with an error other than [`TaskError::Cancelled`](crate::TaskError::Cancelled).
    pub failed: u64,
    /// Tasks that were cancelled.
    pub cancelled: u64,
    /// Attempts beyond the first, of all tasks.
    pub retried: u64,
    /// Workers that were started to replace one that died, was killed or was recycled.
    pub respawned: u64,
    /// Spares that stand by now: [`Builder::spares`](super::Builder::spares).
    pub spares: usize,
    /// Spares that were promoted: they took the place of a worker.
    pub promoted: u64,
    /// Times from the submission of a task to the start of its last run. Only of tasks whose worker
    /// replied.
    pub wait: Times,
    /// Durations of the last run of the same tasks.
    pub run: Times,
}

/// Longer times are counted as this one: 30 days.
const LONGEST: Duration = Duration::from_secs(30 * 24 * 3600);
/// There are two to this power buckets per power of two: the width of a bucket is below 0.8 % of its
/// values.
const GROUPING_POWER: u8 = 7;
/// Two to this power is larger than [`LONGEST`] in microseconds.
const MAX_VALUE_POWER: u8 = 42;

/// A distribution of durations, in microseconds up to 30 days. Each value is kept to within 0.8 %.
///
/// ```
/// use procession::ProcessPool;
///
/// fn print(pool: &ProcessPool) {
///     let run = pool.stats().run;
///     println!("{} tasks, mean {:?}, 99 % within {:?}", run.count(), run.mean(), run.quantile(0.99));
///     println!("the longest took {:?}", run.max());
/// }
/// ```
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

/// The counters behind [`Stats`].
#[derive(Debug, Clone, Default)]
pub(crate) struct Counts {
    pub done: u64,
    pub failed: u64,
    pub cancelled: u64,
    pub retried: u64,
    pub respawned: u64,
    pub promoted: u64,
    pub wait: Times,
    pub run: Times,
}

impl PoolInner {
    /// Counters of the pool up to now.
    pub(super) fn stats(&self) -> Stats {
        if self.origin.is_forked() {
            return Stats::default();
        }
        // Read first: a task that ends between the two reads is then counted in neither, and not in both.
        let counts = self.counts().clone();
        let state = self.lock_state();
        let pids = state.pids();
        let (pending, running) = state.scheduler.not_begun_and_running();
        let spares = state.scheduler.spares();
        drop(state);
        let Counts { done, failed, cancelled, retried, respawned, promoted, wait, run } = counts;
        Stats {
            pids,
            pending,
            running,
            done,
            failed,
            cancelled,
            retried,
            respawned,
            spares,
            promoted,
            wait,
            run,
        }
    }
}

impl Counts {
    /// The counter of tasks that ended like this.
    pub(super) fn of(&mut self, outcome: EndKind) -> &mut u64 {
        match outcome {
            EndKind::Done => &mut self.done,
            EndKind::Failed => &mut self.failed,
            EndKind::Cancelled => &mut self.cancelled,
        }
    }
}

impl Times {
    pub(crate) fn add(&mut self, time: Duration) {
        self.add_many(time, 1);
    }

    pub(crate) fn add_many(&mut self, time: Duration, number: u64) {
        let time = time.min(LONGEST);
        // An error only for values above `LONGEST`.
        let _ = self.histogram.add(time.as_micros() as u64, number);
        self.count += number;
        self.sum += time.as_micros() * u128::from(number);
        self.max = self.max.max(time);
    }

    /// Number of durations. See the example of [`Times`].
    pub fn count(&self) -> u64 {
        self.count
    }

    /// The quantile, for a share from 0.0 to 1.0: 0.5 is the median. Zero without durations.
    ///
    /// ```
    /// # fn show(pool: &procession::ProcessPool) {
    /// let wait = pool.stats().wait;
    /// println!("half of the tasks began within {:?}", wait.quantile(0.5));
    /// # }
    /// ```
    pub fn quantile(&self, share: f64) -> Duration {
        let found = self.histogram.quantile_bucket(share.clamp(0.0, 1.0)).ok().flatten();
        found.map_or(Duration::ZERO, |bucket| Duration::from_micros(bucket.end()).min(self.max))
    }

    /// The mean, to a microsecond. Zero without durations. See the example of [`Times`].
    pub fn mean(&self) -> Duration {
        Duration::from_micros((self.sum / u128::from(self.count.max(1))) as u64)
    }

    /// The longest duration. See the example of [`Times`].
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
    fn quantiles_are_within_one_percent() {
        let mut times = Times::default();
        assert_eq!((times.count(), times.quantile(0.5)), (0, Duration::ZERO));
        (1..=100).for_each(|ms| times.add(Duration::from_millis(ms)));
        let median = times.quantile(0.5).as_secs_f64();
        assert!((0.049..0.052).contains(&median), "{median}");
        assert_eq!(times.count(), 100);
        assert_eq!(times.mean(), Duration::from_micros(50_500));
        assert_eq!(times.quantile(1.0), times.max());
        times.add(Duration::MAX);
        assert!(times.max() > Duration::from_secs(3600));
    }
}
