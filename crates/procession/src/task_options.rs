//! [`TaskOptions`]: the options of one task in a process pool, where they differ from those of the pool.

use std::time::Duration;

use serde::{Deserialize, Deserializer, Serialize};

use crate::retries::Retries;

/// Options of one task, for [`ProcessPool::submit_with`](crate::ProcessPool::submit_with), or of each task
/// of a [`ProcessPool::map_with`](crate::ProcessPool::map_with). An option that is not set has the value
/// of the pool's [`Builder`](crate::Builder).
///
/// ```
/// # use procession::{Retries, TaskOptions};
/// # use std::time::Duration;
/// let urgent = TaskOptions::new().priority(10).timeout(Duration::from_secs(2));
/// let patient = TaskOptions::new().no_timeout().retries(Retries::times(5));
/// ```
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[must_use]
pub struct TaskOptions {
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "present")]
    pub(crate) timeout: Option<Option<Duration>>,
    pub(crate) grace: Option<Duration>,
    pub(crate) priority: i32,
    pub(crate) retries: Option<Retries>,
}

/// In JSON, an option that is set to none is `null`, and one that is not set is absent.
fn present<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<Option<Duration>>, D::Error> {
    Deserialize::deserialize(deserializer).map(Some)
}

impl TaskOptions {
    /// Options of which none is set. See the example of [`TaskOptions`].
    pub const fn new() -> Self {
        Self { timeout: None, grace: None, priority: 0, retries: None }
    }

    /// The longest time for which each run of the task may take; see
    /// [`Builder::timeout`](crate::Builder::timeout).
    ///
    /// ```
    /// # use procession::TaskOptions;
    /// # use std::time::Duration;
    /// let options = TaskOptions::new().timeout(Duration::from_secs(2));
    /// ```
    pub const fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = Some(Some(timeout));
        self
    }

    /// No timeout for this task. See the example of [`TaskOptions`].
    pub const fn no_timeout(mut self) -> Self {
        self.timeout = Some(None);
        self
    }

    /// The time that a running task has from the request to stop until its worker is killed: see
    /// [`Builder::grace`](crate::Builder::grace). Zero: it is killed without a request.
    ///
    /// ```
    /// # use procession::TaskOptions;
    /// # use std::time::Duration;
    /// let options = TaskOptions::new().timeout(Duration::from_secs(30)).grace(Duration::from_secs(2));
    /// ```
    pub const fn grace(mut self, grace: Duration) -> Self {
        self.grace = Some(grace);
        self
    }

    /// Pending tasks of higher priority are started first; equal ones in the order of submission.
    /// Default: 0.
    ///
    /// ```
    /// # use procession::TaskOptions;
    /// let (urgent, whenever) = (TaskOptions::new().priority(10), TaskOptions::new().priority(-1));
    /// ```
    pub const fn priority(mut self, priority: i32) -> Self {
        self.priority = priority;
        self
    }

    /// The [priority](Self::priority), for an executor that orders tasks itself.
    ///
    /// ```
    /// assert_eq!(procession::TaskOptions::new().priority(-3).priority_or_default(), -3);
    /// ```
    pub const fn priority_or_default(self) -> i32 {
        self.priority
    }

    /// How often the task is run again, and after which faults.
    ///
    /// ```
    /// # use procession::{Retries, TaskOptions};
    /// let options = TaskOptions::new().retries(Retries::times(5));
    /// ```
    pub const fn retries(mut self, retries: Retries) -> Self {
        self.retries = Some(retries);
        self
    }
}
