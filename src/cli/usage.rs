//! CPU time and memory of this process, without those of a program that ran in it before: a shell that runs
//! this program by `exec`, and `cargo run`, which does the same.

use std::fmt;
use std::fs;
use std::sync::OnceLock;

use nix::sys::resource::{Usage, UsageWho, getrusage};
use nix::sys::time::TimeValLike;

use procession_journal::ResourceUsage;

/// The CPU time in seconds that this process had used when this program began.
static CPU_BEFORE: OnceLock<f64> = OnceLock::new();

/// Counts from now on. To be called at the begin of the program.
pub(super) fn begin() {
    if let Ok(used) = getrusage(UsageWho::RUSAGE_SELF) {
        let _ = CPU_BEFORE.set(cpu_seconds(&used));
    }
}

/// What this program has used.
pub(super) fn of_this_program() -> ResourceUsage {
    let Ok(used) = getrusage(UsageWho::RUSAGE_SELF) else { return ResourceUsage::default() };
    // Kilobytes on Linux, bytes on macOS.
    let unit = if cfg!(target_os = "macos") { 1 } else { 1024 };
    let largest = || u64::try_from(used.max_rss()).ok().map(|memory| memory * unit);
    let before = CPU_BEFORE.get().copied().unwrap_or_default();
    ResourceUsage {
        cpu_s: Some((cpu_seconds(&used) - before).max(0.0)),
        peak_memory: peak_memory("self").or_else(largest),
    }
}

fn cpu_seconds(used: &Usage) -> f64 {
    (used.user_time() + used.system_time()).num_microseconds() as f64 / 1e6
}

/// The peak of the process's resident memory since its program began, in bytes; `None` where the system
/// does not report it.
pub(super) fn peak_memory(pid: impl fmt::Display) -> Option<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    let kilobytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kilobytes * 1024)
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    #[test]
    fn the_peak_of_memory_grows_with_the_process() {
        let this = std::process::id();
        let before = peak_memory(this).unwrap();
        let large = std::hint::black_box(vec![1_u8; 64 << 20]);
        assert!(peak_memory(this).unwrap() >= before.max(large.len() as u64));
    }
}
