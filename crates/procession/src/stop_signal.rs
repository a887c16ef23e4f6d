//! [`StopSignal`]: the place where a running task can see that it was asked to stop.
//!
//! | the task runs in | asked by | found in |
//! |---|---|---|
//! | this process | [`Future::cancel`](crate::Future::cancel) | the core of the future |
//! | this process | a shutdown that kills | a flag of the executor |
//! | a worker process | [`Future::cancel`](crate::Future::cancel) | the claim of the call |
//! | a worker process | the timeout of the task | the clock: the call says for how long it may run |

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crate::future::EncodedPartial;
use crate::transport::{self, SharedRegion};

/// The future of a task, as the task sees it.
pub(crate) trait FutureOfTask: Send + Sync {
    fn is_asked_to_stop(&self) -> bool;
    /// Adds a value that the task emitted.
    fn put_partial(&self, partial: Option<EncodedPartial>);
}

/// Whether a task was asked to stop.
pub(crate) enum StopSignal {
    /// The task runs in the process of its executor. `future` is set when it begins.
    Here {
        future: Option<Arc<dyn FutureOfTask>>,
        executor: Arc<AtomicBool>,
    },
    Worker(WorkerStop),
}

/// The same in a worker process.
pub(crate) struct WorkerStop {
    pub region: Arc<SharedRegion>,
    /// The claim of the call.
    pub claim: u32,
    /// The time after which each task of the call is to stop.
    pub stop_after: Option<Duration>,
    /// When the task began, by [`now`](transport::now).
    pub begun_at: u64,
}

impl StopSignal {
    /// Sets the future of the task, if it runs in the process of its executor.
    pub(crate) fn set_future(&mut self, of_task: Option<Arc<dyn FutureOfTask>>) {
        if let Self::Here { future, .. } = self {
            *future = of_task;
        }
    }

    pub(crate) fn is_requested(&self) -> bool {
        match self {
            Self::Here { future, executor } => {
                executor.load(Ordering::Acquire)
                    || future.as_ref().is_some_and(|future| future.is_asked_to_stop())
            }
            Self::Worker(WorkerStop { region, claim, stop_after, begun_at }) => {
                let is_late = |after: &Duration| {
                    let ran_for = transport::now().saturating_sub(*begun_at);
                    Duration::from_nanos(ran_for) >= *after
                };
                region.claim(*claim).is_some_and(|claim| claim.is_asked_to_stop())
                    || stop_after.as_ref().is_some_and(is_late)
            }
        }
    }
}

impl fmt::Debug for StopSignal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StopSignal").field("is_requested", &self.is_requested()).finish()
    }
}
