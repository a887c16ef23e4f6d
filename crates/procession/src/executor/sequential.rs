//! [`Sequential`]: runs each task in the thread that submits it, before `submit` returns.

use std::sync::atomic::{AtomicBool, Ordering};

use super::{Engine, Job, JobRunner, Shutdown};
use crate::error::{PoolError, TaskError};
use crate::progress_lines::Said;

/// An executor that runs each task in the thread that submits it. Its futures are done when `submit`
/// returns.
///
/// ```
/// # use procession::{Context, Executor, Failure, Sequential, Task};
/// # use serde::{Deserialize, Serialize};
/// # #[derive(Serialize, Deserialize)]
/// # struct Square(u64);
/// # impl Task for Square {
/// #     const NAME: &'static str = "square";
/// #     type Output = u64;
/// #     fn run(self, _: &Context) -> Result<u64, Failure> { Ok(self.0 * self.0) }
/// # }
/// let future = Sequential::new().submit(Square(7));
/// assert!(future.is_done());
/// assert_eq!(future.result(), Ok(49));
/// ```
#[derive(Debug, Default)]
pub struct Sequential {
    runner: JobRunner,
    is_shut_down: AtomicBool,
}

impl Sequential {
    /// An executor with the default settings.
    ///
    /// ```
    /// # #[cfg(feature = "macros")] {
    /// # use procession::*;
    /// # #[procession::task]
    /// # fn square(n: u64) -> u64 { n * n }
    /// assert_eq!(Sequential::new().submit(square(7)).result(), Ok(49));
    /// # }
    /// ```
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets the function that is called with each line that a task reports by
    /// [`Context::say`](crate::Context::say). Default: writes it to standard output.
    ///
    /// ```
    /// # #[cfg(feature = "macros")] {
    /// # use procession::*;
    /// # use std::sync::{Arc, Mutex};
    /// #[procession::task]
    /// fn greet(context: &Context) {
    ///     context.say("hello");
    /// }
    /// let lines = Arc::new(Mutex::new(Vec::new()));
    /// let into = Arc::clone(&lines);
    /// let pool = Sequential::new().on_say(move |said| into.lock().unwrap().push(said.line.to_owned()));
    /// assert_eq!(pool.submit(greet()).result(), Ok(()));
    /// assert_eq!(*lines.lock().unwrap(), ["hello"]);
    /// # }
    /// ```
    pub fn on_say(mut self, call: impl Fn(&Said<'_>) + Send + Sync + 'static) -> Self {
        drop(self.runner.set_on_say(call));
        self
    }
}

impl Engine for Sequential {
    fn enqueue(&self, job: Job) {
        if self.is_shut_down.load(Ordering::Acquire) {
            return job.fail(TaskError::PoolBroken(PoolError::ShutDown));
        }
        self.runner.run_in_role(job, 0);
    }

    /// One: with more, the consumer would wait longer for its first result.
    fn ahead(&self) -> usize {
        1
    }

    fn shut_down(&self, _: Shutdown) {
        self.is_shut_down.store(true, Ordering::Release);
        self.runner.clear_locals();
    }
}
