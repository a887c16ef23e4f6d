//! Settings of a pool: what it does about tasks that run too long, crash, leak or are hostile.

use std::path::PathBuf;
use std::time::Duration;

use super::Builder;
use crate::limits::{Limits, Recycling};
use crate::retries::Retries;
use crate::sandbox::Sandbox;

impl Builder {
    /// The longest time for which a task may run, counted from its start in the worker. Then its
    /// worker is killed and replaced, and the future holds
    /// [`TaskError::TimedOut`](crate::TaskError::TimedOut). Other tasks that run in the same worker
    /// are lost, too: [`TaskError::WorkerDied`](crate::TaskError::WorkerDied) with `is_collateral`.
    /// Default: no limit.
    ///
    /// ```
    /// # use procession::*;
    /// # use std::time::Duration;
    /// let builder = ProcessPool::builder().timeout(Duration::from_secs(30));
    /// ```
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = Some(timeout);
        self
    }

    /// The time that a running task has, when it is [cancelled](crate::Future::cancel) or its
    /// [`timeout`](Self::timeout) has passed, until its worker is killed. Meanwhile
    /// [`Context::stop_requested`](crate::Context::stop_requested) returns true, so that the task can
    /// clean up and return what it has. The future holds what it returns within that time: an output,
    /// which may be a partial one, or an error. After it the future holds
    /// [`TaskError::Cancelled`](crate::TaskError::Cancelled) or
    /// [`TaskError::TimedOut`](crate::TaskError::TimedOut), as without a grace period. Default: none.
    ///
    /// ```no_run
    /// # use procession::{PoolError, ProcessPool};
    /// # use std::time::Duration;
    /// # fn main() -> Result<(), PoolError> {
    /// let pool = ProcessPool::builder()
    ///     .timeout(Duration::from_secs(30)) // then `stop_requested` is true,
    ///     .grace(Duration::from_secs(2)) // and after 32 s the worker is killed
    ///     .build()?;
    /// # Ok(()) }
    /// ```
    pub fn grace(mut self, grace: Duration) -> Self {
        self.grace = Some(grace);
        self
    }

    /// How often a task is run again, and after which faults. Default: never.
    ///
    /// ```
    /// # use procession::*;
    /// # use std::time::Duration;
    /// let builder = ProcessPool::builder().retries(Retries::times(2));
    /// ```
    pub fn retries(mut self, retries: Retries) -> Self {
        self.retries = retries;
        self
    }

    /// When a worker is replaced by a new process. Default: only after it died.
    ///
    /// ```
    /// # use procession::*;
    /// # use std::time::Duration;
    /// let builder = ProcessPool::builder().recycling(Recycling::never().above_memory(1 << 30));
    /// ```
    pub fn recycling(mut self, recycling: Recycling) -> Self {
        self.recycling = recycling;
        self
    }

    /// Resource limits of each worker process. Default: those of this process.
    ///
    /// ```
    /// # use procession::*;
    /// # use std::time::Duration;
    /// let builder = ProcessPool::builder().limits(Limits::none().cpu_seconds(600).niceness(10));
    /// ```
    pub fn limits(mut self, limits: Limits) -> Self {
        self.limits = limits;
        self
    }

    /// What the workers may do. Default: [`Sandbox::none`], what this process may do.
    ///
    /// ```
    /// # use procession::*;
    /// # use std::time::Duration;
    /// let builder = ProcessPool::builder().sandbox(Sandbox::strict().read("/usr/share/models"));
    /// ```
    pub fn sandbox(mut self, sandbox: Sandbox) -> Self {
        self.sandbox = sandbox;
        self
    }

    /// Keeps each task that ends its worker, with its arguments and blobs, as a file in this directory: one
    /// that crashes, is killed, leaves the process or runs too long. [`KeptTask`](crate::KeptTask) says
    /// how to run it again. The error names the file, and so does the event
    /// [`PoolEvent::InputKept`](crate::PoolEvent::InputKept), which also comes for a task whose retry succeeds.
    /// Default: no files.
    ///
    /// Files are readable for this user alone. Each task has one, that of its last crash. At 100 files or 1
    /// GiB the oldest are removed; files that do not end in `.procession` are left alone. If a worker runs
    /// several tasks at a time, each of those that ended with it is kept, except those that the pool ended
    /// because another ran too long. The variables of [`worker_env`](Self::worker_env) are not kept.
    ///
    /// A [`preload`](Self::preload) that crashes is kept only where each worker runs it itself. Where it runs in a
    /// process of its own, there is no file: the error has the signal.
    ///
    /// ```
    /// # use procession::*;
    /// # use std::time::Duration;
    /// let builder = ProcessPool::builder().keep_crashes("crashes");
    /// ```
    pub fn keep_crashes(mut self, dir: impl Into<PathBuf>) -> Self {
        self.crash_dir = Some(dir.into());
        self
    }
}
