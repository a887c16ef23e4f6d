//! The options of one task, where they differ from the pool's.

use std::time::Duration;

use crate::retries::Retries;
use crate::scheduler::ResolvedOptions;

/// What [`ProcessPool::submit_with`](super::ProcessPool::submit_with) takes besides the task. What
/// is not set here is as the pool's builder says.
///
/// ```
/// # use procession::{Retries, TaskOptions};
/// # use std::time::Duration;
/// let urgent = TaskOptions::new().priority(10).timeout(Duration::from_secs(2));
/// let patient = TaskOptions::new().no_timeout().retries(Retries::times(5));
/// ```
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[must_use]
pub struct TaskOptions {
    timeout: Option<Option<Duration>>,
    priority: i32,
    retries: Option<Retries>,
}

impl TaskOptions {
    /// As the pool's.
    pub const fn new() -> Self {
        Self { timeout: None, priority: 0, retries: None }
    }

    /// How long the task may run, each time it does; see
    /// [`Builder::timeout`](super::Builder::timeout).
    pub const fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = Some(Some(timeout));
        self
    }

    /// The task may run for ever, whatever the pool's timeout.
    pub const fn no_timeout(mut self) -> Self {
        self.timeout = Some(None);
        self
    }

    /// Pending tasks of higher priority go first. Default: 0.
    pub const fn priority(mut self, priority: i32) -> Self {
        self.priority = priority;
        self
    }

    /// How often the task is tried again.
    pub const fn retries(mut self, retries: Retries) -> Self {
        self.retries = Some(retries);
        self
    }

    pub(crate) fn resolve(self, pool: ResolvedOptions) -> ResolvedOptions {
        ResolvedOptions {
            timeout: self.timeout.unwrap_or(pool.timeout),
            priority: self.priority,
            retries: self.retries.unwrap_or(pool.retries),
        }
    }
}
