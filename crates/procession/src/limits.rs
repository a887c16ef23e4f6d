//! What a worker process may use, and when it is replaced by a fresh one.

use serde::{Deserialize, Serialize};

/// Limits that the operating system imposes on each worker process, from before its first task.
/// Nothing is limited unless asked for.
///
/// ```
/// # use procession::Limits;
/// let limits = Limits::none().address_space(2 << 30).open_files(256).niceness(10);
/// ```
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[must_use]
pub struct Limits {
    address_space: Option<u64>,
    cpu_seconds: Option<u64>,
    open_files: Option<u64>,
    niceness: Option<i32>,
}

impl Limits {
    /// No limits but those of this process.
    pub const fn none() -> Self {
        Self { address_space: None, cpu_seconds: None, open_files: None, niceness: None }
    }

    /// The most virtual memory, in bytes. A task that needs more sees its allocations fail, which
    /// in Rust code aborts the worker. Threads and shared memory count as well.
    pub const fn address_space(mut self, bytes: u64) -> Self {
        self.address_space = Some(bytes);
        self
    }

    /// The most CPU time of a worker over its whole life, in seconds; beyond it, SIGXCPU ends the
    /// worker.
    pub const fn cpu_seconds(mut self, seconds: u64) -> Self {
        self.cpu_seconds = Some(seconds);
        self
    }

    /// The most open files. The worker itself needs about a dozen.
    pub const fn open_files(mut self, files: u64) -> Self {
        self.open_files = Some(files);
        self
    }

    /// By how much workers yield to other processes: from 0, not at all, to 19. Workers inherit
    /// this process's niceness, to which this is added.
    pub const fn niceness(mut self, increment: i32) -> Self {
        self.niceness = Some(increment);
        self
    }

    /// Whether anything is limited.
    pub(crate) fn is_any(&self) -> bool {
        *self != Self::none()
    }

    /// Imposes the limits on this process.
    pub(crate) fn impose(&self) -> Result<(), String> {
        use rustix::process::{Resource, nice};
        let Self { address_space, cpu_seconds, open_files, niceness } = *self;
        let limits = [
            (Resource::As, "address space", address_space),
            (Resource::Cpu, "CPU time", cpu_seconds),
            (Resource::Nofile, "open files", open_files),
        ];
        for (resource, name, limit) in limits {
            if let Some(limit) = limit {
                lower(resource, limit).map_err(|e| format!("cannot limit the {name}: {e}"))?;
            }
        }
        if let Some(increment) = niceness {
            nice(increment).map_err(|error| format!("cannot set the niceness: {error}"))?;
        }
        Ok(())
    }
}

/// Never above what the process may be limited to, nor above what it is limited to now.
fn lower(resource: rustix::process::Resource, limit: u64) -> rustix::io::Result<()> {
    use rustix::process::{Rlimit, getrlimit, setrlimit};
    let Rlimit { current, maximum } = getrlimit(resource);
    let current = [current, maximum].into_iter().flatten().chain([limit]).min();
    setrlimit(resource, Rlimit { current, maximum })
}

/// When a worker is replaced by a fresh one, between two tasks and without losing any: the remedy
/// for code that leaks. Never, unless asked for.
///
/// ```
/// # use procession::Recycling;
/// let recycling = Recycling::never().after_tasks(1000).above_memory(500 << 20);
/// ```
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[must_use]
pub struct Recycling {
    pub(crate) after_tasks: Option<u64>,
    pub(crate) above_memory: Option<u64>,
}

impl Recycling {
    /// Workers live as long as the pool.
    pub const fn never() -> Self {
        Self { after_tasks: None, above_memory: None }
    }

    /// After this many tasks, at least 1. The replacement starts while the last of them runs.
    pub const fn after_tasks(mut self, tasks: u64) -> Self {
        self.after_tasks = Some(tasks);
        self
    }

    /// After the task that left the worker with more resident memory than this, in bytes. Only on
    /// Linux.
    pub const fn above_memory(mut self, bytes: u64) -> Self {
        self.above_memory = Some(bytes);
        self
    }
}

/// The resident memory of a process, in bytes, where that can be known.
pub(crate) fn resident_memory(pid: u32) -> Option<u64> {
    if !cfg!(target_os = "linux") {
        return None;
    }
    let statm = std::fs::read_to_string(format!("/proc/{pid}/statm")).ok()?;
    let pages: u64 = statm.split(' ').nth(1)?.parse().ok()?;
    Some(pages * rustix::param::page_size() as u64)
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    #[test]
    fn the_memory_of_this_process_is_known() {
        let memory = resident_memory(std::process::id()).expect("this process exists");
        assert!((100_000..100_000_000_000).contains(&memory), "{memory}");
        assert_eq!(resident_memory(0), None);
    }
}
