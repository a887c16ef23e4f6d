//! [`LineBudget`]: how many lines a worker may write. The bound of lines for tasks grows with the logarithm of
//! the longest task.

use std::sync::atomic::{AtomicU64, Ordering};

/// Interval of the flusher, and the shortest period of a sum, in nanoseconds.
pub(super) const TICK: u64 = 100_000_000;
/// The longest period of a sum, in nanoseconds.
const LONGEST_PERIOD: u64 = 5_000_000_000;
/// The number of sums after which the period of a sum is doubled.
const SUMS_PER_PERIOD: u64 = 2_000;
/// Tasks of this duration have lines of their own at first, in nanoseconds.
const OWN_LINE: u64 = 1_000_000;
/// The number of lines after which a task must run twice as long to have one.
const LINES_PER_LIMIT: u64 = 10_000;
/// The number of failed tasks, of short tasks that were tried again, and of short tasks with a label, that have
/// lines of their own.
const MOST_LINES: u64 = 10_000;

/// Bounds the lines of a process.
#[derive(Default)]
pub(super) struct LineBudget {
    /// Number of lines for tasks that ran for long.
    lines: AtomicU64,
    failed: AtomicU64,
    retried: AtomicU64,
    labels: AtomicU64,
    sums: AtomicU64,
}

impl LineBudget {
    /// Whether a task that ended well after this many nanoseconds has a line of its own.
    pub(super) fn has_line(&self, ran_for: u64) -> bool {
        let has_line = ran_for >= self.limit();
        self.lines.fetch_add(u64::from(has_line), Ordering::Relaxed);
        has_line
    }

    /// The shortest task that has a line of its own, in nanoseconds.
    pub(super) fn limit(&self) -> u64 {
        let limits = self.lines.load(Ordering::Relaxed) / LINES_PER_LIMIT;
        OWN_LINE << limits.min(40)
    }

    pub(super) fn has_failed_line(&self) -> bool {
        is_within(&self.failed)
    }

    /// Whether a short task that ended well after another attempt has a line of its own.
    pub(super) fn has_retried_line(&self) -> bool {
        is_within(&self.retried)
    }

    /// Counts the line of a failed task whose begin has one.
    pub(super) fn count_line(&self) {
        self.lines.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn has_label_line(&self) -> bool {
        is_within(&self.labels)
    }

    pub(super) fn count_sums(&self) {
        self.sums.fetch_add(1, Ordering::Relaxed);
    }

    /// The shortest period of a sum, in nanoseconds.
    pub(super) fn period(&self) -> u64 {
        let doublings = self.sums.load(Ordering::Relaxed) / SUMS_PER_PERIOD;
        (TICK << doublings.min(10)).min(LONGEST_PERIOD)
    }
}

/// Counts one more line, unless there are too many.
fn is_within(lines: &AtomicU64) -> bool {
    lines.load(Ordering::Relaxed) < MOST_LINES && lines.fetch_add(1, Ordering::Relaxed) < MOST_LINES
}
