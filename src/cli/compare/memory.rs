//! The memory of a process and of all its descendants, while they live.
//!
//! What is measured: the resident memory of all processes together at its peak, as the sum of the
//! peaks of those that lived at the same time. Pages that several of them share (the program
//! itself, above all) count in each. What a process grows by in its last moment is missed. Warm-up
//! runs, whose time does not count, are looked at more closely than the others.

use std::collections::HashSet;
use std::fs;
use std::sync::{Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Watches a process from another thread.
pub(super) struct Watch {
    root: u32,
    is_close: bool,
    began: Instant,
    over: Mutex<bool>,
    came: Condvar,
}

/// Looked at this often, and less and less often the longer it takes, so that watching costs next
/// to nothing.
const SHORTEST: Duration = Duration::from_millis(4);
const LONGEST: Duration = Duration::from_millis(100);
/// The same where time does not matter.
const CLOSE: Duration = Duration::from_millis(1);

impl Watch {
    pub(super) fn new(root: u32, is_close: bool) -> Self {
        Self {
            root,
            is_close,
            began: Instant::now(),
            over: Mutex::new(false),
            came: Condvar::new(),
        }
    }

    /// Ends the watch.
    pub(super) fn is_over(&self) {
        *self.over.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.came.notify_all();
    }

    /// The peak in bytes; none where the system does not tell.
    pub(super) fn until_over(&self) -> Option<u64> {
        let mut peak = None;
        let mut pids = vec![self.root];
        let mut search_at = Duration::ZERO;
        loop {
            let age = self.began.elapsed();
            let pause = match self.is_close {
                true => (age / 100).clamp(CLOSE, LONGEST),
                false => (age / 8).clamp(SHORTEST, LONGEST),
            };
            let over = self.over.lock().unwrap_or_else(PoisonError::into_inner);
            let waited = self.came.wait_timeout_while(over, pause, |over| !*over);
            if *waited.unwrap_or_else(PoisonError::into_inner).0 {
                return peak;
            }
            // Processes come at the beginning; to look for them is what costs most.
            if self.is_close || age >= search_at {
                pids = family(self.root);
                search_at = age + (age / 2).clamp(SHORTEST, Duration::from_secs(1));
            }
            let of_each: Vec<_> = pids.iter().map(|&pid| peak_of(pid)).collect();
            if of_each.contains(&None) {
                // Somebody died, so somebody may have been born.
                search_at = age;
            }
            let together = of_each.into_iter().flatten().reduce(|a, b| a + b);
            peak = peak.max(together);
        }
    }
}

/// The most memory that the process ever had, in bytes.
fn peak_of(pid: u32) -> Option<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    let kilobytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kilobytes * 1024)
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
    // The name before may hold anything, parentheses and blanks included.
    stat.rsplit(')').next()?.split_whitespace().nth(1)?.parse().ok()
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    #[test]
    fn this_process_is_in_the_family_of_its_parent_and_has_memory() {
        let this = std::process::id();
        assert!(family(parent(this).unwrap()).contains(&this));
        assert!(family(this).starts_with(&[this]));
        let before = peak_of(this).unwrap();
        let large = std::hint::black_box(vec![1_u8; 64 << 20]);
        assert!(peak_of(this).unwrap() >= before.max(large.len() as u64));
    }
}
