//! Limits of worker processes, and when workers are replaced.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// Limits that the operating system imposes on each worker process, from before its first task. The
/// default is [`none`](Self::none).
///
/// A limit above what this process itself may use is cut to that. A worker that cannot impose its
/// limits does not start; the pool reports that as
/// [`PoolError::CannotStart`](crate::PoolError::CannotStart).
///
/// ```no_run
/// # use procession::{Limits, ProcessPool};
/// let limits = Limits::none()
///     .address_space(2 << 30) // bytes
///     .cpu_seconds(3600)
///     .open_files(256)
///     .niceness(10);
/// let pool = ProcessPool::builder().limits(limits).build()?;
/// # Ok::<(), procession::PoolError>(())
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
    /// No limits but those of this process, which workers inherit.
    ///
    /// ```
    /// # use procession::Limits;
    /// assert_eq!(Limits::none(), Limits::default());
    /// ```
    pub const fn none() -> Self {
        Self { address_space: None, cpu_seconds: None, open_files: None, niceness: None }
    }

    /// The most virtual memory, in bytes (`RLIMIT_AS`). Stacks of threads and shared memory count
    /// as well. An allocation above the limit fails; in most Rust code that aborts the worker, and
    /// the task ends with `WorkerDied`.
    ///
    /// ```
    /// # use procession::Limits;
    /// let limits = Limits::none().address_space(4 << 30); // 4 GiB
    /// ```
    pub const fn address_space(mut self, bytes: u64) -> Self {
        self.address_space = Some(bytes);
        self
    }

    /// The most CPU time of a worker process, in seconds from its start (`RLIMIT_CPU`). Beyond it
    /// SIGXCPU ends the worker, and the task that runs ends with `WorkerDied`.
    ///
    /// ```
    /// # use procession::Limits;
    /// let limits = Limits::none().cpu_seconds(600); // in the life of a worker
    /// ```
    pub const fn cpu_seconds(mut self, seconds: u64) -> Self {
        self.cpu_seconds = Some(seconds);
        self
    }

    /// The most open file descriptors (`RLIMIT_NOFILE`). The worker itself uses about a dozen.
    ///
    /// ```
    /// # use procession::Limits;
    /// let limits = Limits::none().open_files(256);
    /// ```
    pub const fn open_files(mut self, files: u64) -> Self {
        self.open_files = Some(files);
        self
    }

    /// Added to the niceness that workers inherit from this process: 0 for the same priority, up to
    /// 19 for the lowest.
    ///
    /// ```
    /// # use procession::Limits;
    /// let limits = Limits::none().niceness(10); // behind interactive programs
    /// ```
    pub const fn niceness(mut self, increment: i32) -> Self {
        self.niceness = Some(increment);
        self
    }

    /// Whether there is a limit.
    pub(crate) fn is_any(&self) -> bool {
        *self != Self::none()
    }

    pub(crate) fn most_address_space(&self) -> Option<u64> {
        self.address_space
    }

    /// Imposes the limits on this process. The error names the limit.
    pub(crate) fn impose(&self) -> Result<(), String> {
        use rustix::process::{Resource, nice};
        let Self { address_space, cpu_seconds, open_files, niceness } = *self;
        let limits = [
            (Resource::As, "address space", address_space),
            (Resource::Cpu, "CPU time", cpu_seconds),
            (Resource::Nofile, "open files", open_files),
        ];
        // Beyond such a limit nothing could be said about it any more.
        if let (Some(most), Some(used)) = (address_space, procession_os::memory::used())
            && most < used
        {
            return Err(format!(
                "cannot limit the address space to {most} bytes: this process uses {used} bytes \
                 before its first task"
            ));
        }
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

/// Lowers a limit of this process. Never raises it, which could be an error.
fn lower(resource: rustix::process::Resource, limit: u64) -> rustix::io::Result<()> {
    use rustix::process::{Rlimit, getrlimit, setrlimit};
    let Rlimit { current, maximum } = getrlimit(resource);
    let current = [current, maximum].into_iter().flatten().chain([limit]).min();
    setrlimit(resource, Rlimit { current, maximum })
}

/// When a worker process is replaced by a new one, for code that leaks memory or descriptors, or holds
/// connections and certificates that grow old. The default is [`never`](Self::never).
///
/// A worker is replaced between two tasks; none is lost. Several conditions may be set: the first that
/// is met counts. [`PoolEvent::WorkerRecycled`](crate::PoolEvent::WorkerRecycled) says which.
///
/// ```no_run
/// # use procession::{ProcessPool, Recycling};
/// # use std::time::Duration;
/// let recycling = Recycling::never()
///     .after_tasks(1000)
///     .above_memory(500 << 20) // 500 MiB
///     .above_age(Duration::from_secs(3600));
/// let pool = ProcessPool::builder().recycling(recycling).build()?;
/// # Ok::<(), procession::PoolError>(())
/// ```
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[must_use]
pub struct Recycling {
    pub(crate) after_tasks: Option<u64>,
    pub(crate) above_memory: Option<u64>,
    pub(crate) above_age: Option<Duration>,
}

/// Why a worker is recycled, in [`PoolEvent::WorkerRecycled`](crate::PoolEvent::WorkerRecycled).
///
/// ```
/// use procession::PoolEvent;
///
/// fn log(event: &PoolEvent) {
///     if let PoolEvent::WorkerRecycled { worker, reason, .. } = event {
///         eprintln!("worker {worker} is replaced: {reason:?}");
///     }
/// }
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum RecyclingReason {
    /// [`Recycling::after_tasks`].
    Tasks,
    /// [`Recycling::above_memory`].
    Memory,
    /// [`Recycling::above_age`].
    Age,
}

impl fmt::Display for RecyclingReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Tasks => "it was given as many tasks as a worker may have",
            Self::Memory => "it has more memory than a worker may have",
            Self::Age => "it is as old as a worker may be",
        })
    }
}

impl Recycling {
    /// Workers are replaced only when they die.
    ///
    /// ```
    /// # use procession::Recycling;
    /// assert_eq!(Recycling::never(), Recycling::default());
    /// ```
    pub const fn never() -> Self {
        Self { after_tasks: None, above_memory: None, above_age: None }
    }

    /// After this number of tasks, at least 1. The new worker starts while the last of them runs.
    ///
    /// ```
    /// # use procession::Recycling;
    /// let recycling = Recycling::never().after_tasks(1_000);
    /// ```
    pub const fn after_tasks(mut self, tasks: u64) -> Self {
        self.after_tasks = Some(tasks);
        self
    }

    /// After a task at whose end the worker has more resident memory than this, in bytes. Linux
    /// only: elsewhere there is no such check.
    ///
    /// ```
    /// # use procession::Recycling;
    /// let recycling = Recycling::never().above_memory(500 << 20); // 500 MiB
    /// ```
    pub const fn above_memory(mut self, bytes: u64) -> Self {
        self.above_memory = Some(bytes);
        self
    }

    /// When the worker has been ready for longer than this, which is above zero. From then on it gets no
    /// task: the ones that run in it end as usual, those that were sent ahead are given to another
    /// worker, and the new worker starts during that time. An idle worker is replaced at once. The age of a
    /// [spare](crate::Builder::spares) counts from its promotion.
    ///
    /// The start of a worker takes about 2 ms and its initializer, so an age of seconds costs little.
    ///
    /// ```
    /// # use procession::Recycling;
    /// # use std::time::Duration;
    /// let recycling = Recycling::never().above_age(Duration::from_secs(3600));
    /// ```
    pub const fn above_age(mut self, age: Duration) -> Self {
        self.above_age = Some(age);
        self
    }
}

/// The resident memory of a process, in bytes. `None` if there is no such process, and on systems
/// other than Linux.
pub(crate) fn resident_memory(pid: u32) -> Option<u64> {
    if !cfg!(all(target_os = "linux", not(feature = "portable"))) {
        return None;
    }
    let statm = std::fs::read_to_string(format!("/proc/{pid}/statm")).ok()?;
    let pages: u64 = statm.split(' ').nth(1)?.parse().ok()?;
    Some(pages * rustix::param::page_size() as u64)
}

/// The CPU time that a process has used. `None` if there is no such process, and on systems other than
/// Linux.
#[cfg(feature = "dashboard")]
pub(crate) fn cpu_time(pid: u32) -> Option<std::time::Duration> {
    if !cfg!(all(target_os = "linux", not(feature = "portable"))) {
        return None;
    }
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name of the program, in parentheses, may contain anything.
    let (_, fields) = stat.rsplit_once(')')?;
    let mut times = fields.split_ascii_whitespace().skip(11).map(str::parse::<u64>);
    let ticks = times.next()?.ok()? + times.next()?.ok()?;
    let per_second = rustix::param::clock_ticks_per_second().max(1);
    Some(std::time::Duration::from_secs_f64(ticks as f64 / per_second as f64))
}

#[cfg(all(test, target_os = "linux", not(feature = "portable")))]
mod tests {
    use super::*;

    #[test]
    fn the_memory_of_this_process_is_known() {
        let memory = resident_memory(std::process::id()).expect("this process exists");
        assert!((100_000..100_000_000_000).contains(&memory), "{memory}");
        assert_eq!(resident_memory(0), None);
    }
}
