//! The memory of a process and of all its descendants, sampled while they run.
//!
//! The result is the peak of the resident memory of all processes together, as the sum of the peaks of
//! the processes that ran at the same time. Pages that several processes share, such as those of the
//! program, count in each. Growth after the last sample is missed. Warm-up runs, whose time does not
//! count, are sampled more often.

use std::collections::HashSet;
use std::fs;
use std::sync::{Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::cli::usage::peak_memory;

/// Samples the memory of a process from another thread.
pub(super) struct MemoryWatch {
    root: u32,
    is_dense: bool,
    began: Instant,
    is_over: Mutex<bool>,
    ended: Condvar,
}

/// Shortest and longest interval of samples. The interval grows with the duration of the process, so that
/// the cost stays small.
const SHORTEST: Duration = Duration::from_millis(4);
const LONGEST: Duration = Duration::from_millis(100);
/// Shortest interval of dense samples.
const DENSE: Duration = Duration::from_millis(1);

impl MemoryWatch {
    pub(super) fn new(root: u32, is_dense: bool) -> Self {
        Self {
            root,
            is_dense,
            began: Instant::now(),
            is_over: Mutex::new(false),
            ended: Condvar::new(),
        }
    }

    /// Ends the sampling.
    pub(super) fn end(&self) {
        *self.is_over.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.ended.notify_all();
    }

    /// Samples until the end, and returns the peak in bytes; `None` where the system does not report it.
    pub(super) fn sample(&self) -> Option<u64> {
        let mut peak = None;
        let mut pids = vec![self.root];
        let mut search_at = Duration::ZERO;
        loop {
            let age = self.began.elapsed();
            let pause = match self.is_dense {
                true => (age / 100).clamp(DENSE, LONGEST),
                false => (age / 8).clamp(SHORTEST, LONGEST),
            };
            let is_over = self.is_over.lock().unwrap_or_else(PoisonError::into_inner);
            let waited = self.ended.wait_timeout_while(is_over, pause, |is_over| !*is_over);
            if *waited.unwrap_or_else(PoisonError::into_inner).0 {
                return peak;
            }
            // Most processes start at the beginning, and the search for them costs most.
            if self.is_dense || age >= search_at {
                pids = family(self.root);
                search_at = age + (age / 2).clamp(SHORTEST, Duration::from_secs(1));
            }
            let of_each: Vec<_> = pids.iter().map(|&pid| peak_memory(pid)).collect();
            if of_each.contains(&None) {
                // A process has ended, so another may have started.
                search_at = age;
            }
            let together = of_each.into_iter().flatten().reduce(|a, b| a + b);
            peak = peak.max(together);
        }
    }
}

/// The process and all its descendants.
fn family(root: u32) -> Vec<u32> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    let mut others: Vec<_> = pids.filter_map(|pid| Some((pid, parent(pid)?))).collect();
    let mut family = vec![root];
    let mut known = HashSet::from([root]);
    loop {
        let (born, rest): (Vec<_>, Vec<_>) =
            others.into_iter().partition(|(_, parent)| known.contains(parent));
        if born.is_empty() {
            return family;
        }
        known.extend(born.iter().map(|(pid, _)| *pid));
        family.extend(born.iter().map(|(pid, _)| *pid));
        others = rest;
    }
}

fn parent(pid: u32) -> Option<u32> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name before these fields may contain any character; the last parenthesis ends it.
    stat.rsplit(')').next()?.split_whitespace().nth(1)?.parse().ok()
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    #[test]
    fn this_process_is_in_the_family_of_its_parent() {
        let this = std::process::id();
        assert!(family(parent(this).unwrap()).contains(&this));
        assert!(family(this).starts_with(&[this]));
    }
}
