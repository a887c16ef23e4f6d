//! [`ChunkSizes`]: how many tasks a `map` puts into one message, by the run times that hosts report.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// The run time of a chunk. A message costs, with its claim and result and in all processes together, about a hundredth
/// of this time.
const WORK: Duration = Duration::from_millis(10);

/// How long tasks ran lately on the host that gave the last result.
#[derive(Debug, Default)]
pub(super) struct RunTime {
    /// In nanoseconds, 1 or more. Zero: no host has reported a run time.
    nanos: AtomicU64,
}

impl RunTime {
    pub(super) fn note(&self, time: Duration) {
        let nanos = u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        self.nanos.store(nanos.max(1), Ordering::Relaxed);
    }

    fn get(&self) -> Option<Duration> {
        let nanos = self.nanos.load(Ordering::Relaxed);
        (nanos > 0).then(|| Duration::from_nanos(nanos))
    }
}

/// How the number of tasks in a chunk is chosen.
#[derive(Debug, Clone, Copy)]
pub(super) struct ChunkSizes {
    pub(super) most: usize,
    /// If false, each chunk has the maximum.
    pub(super) by_run_time: bool,
}

impl ChunkSizes {
    /// The number of tasks of the next chunk. If it is 1, the task is sent alone.
    pub(super) fn next(self, run_time: &RunTime) -> usize {
        if !self.by_run_time {
            return self.most;
        }
        let Some(time) = run_time.get() else { return 1 };
        let tasks = WORK.as_nanos() / time.as_nanos();
        usize::try_from(tasks).unwrap_or(usize::MAX).clamp(1, self.most)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_chunk_has_as_many_tasks_as_run_in_ten_milliseconds() {
        let (time, sizes) = (RunTime::default(), ChunkSizes { most: 256, by_run_time: true });
        assert_eq!(sizes.next(&time), 1, "nothing is known");
        let after = |nanos| {
            time.note(Duration::from_nanos(nanos));
            sizes.next(&time)
        };
        assert_eq!(after(0), 256);
        assert_eq!(after(1_000), 256);
        assert_eq!(after(100_000), 100);
        assert_eq!(after(5_000_000), 2);
        assert_eq!(after(5_000_001), 1);
        assert_eq!(after(u64::MAX), 1);
    }

    #[test]
    fn chunks_of_a_job_with_a_name_have_the_same_size_whatever_the_hosts_tell() {
        let (time, sizes) = (RunTime::default(), ChunkSizes { most: 7, by_run_time: false });
        assert_eq!(sizes.next(&time), 7);
        time.note(Duration::from_secs(1));
        assert_eq!(sizes.next(&time), 7);
    }
}
