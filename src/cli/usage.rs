//! CPU time and memory of this process.

use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::TimeValLike;

use procession_journal::ResourceUsage;

pub(super) fn of_this_process() -> ResourceUsage {
    let Ok(used) = getrusage(UsageWho::RUSAGE_SELF) else { return ResourceUsage::default() };
    let cpu = used.user_time() + used.system_time();
    // Kilobytes on Linux, bytes on macOS.
    let unit = if cfg!(target_os = "macos") { 1 } else { 1024 };
    ResourceUsage {
        cpu_s: Some(cpu.num_microseconds() as f64 / 1e6),
        peak_memory: u64::try_from(used.max_rss()).ok().map(|memory| memory * unit),
    }
}
