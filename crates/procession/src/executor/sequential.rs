//! Runs each task at once, in the thread that submits it: the style to compare the others with.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::job::Canceller;
use super::{Engine, Job, Shutdown};
use crate::error::{PoolError, TaskError};
use crate::progress_lines::{LineSink, Said};
use crate::task::{Context, Locals};

/// An executor that runs each task where and when it is submitted.
#[derive(Debug, Default)]
pub struct Sequential {
    locals: Arc<Locals>,
    lines: LineSink,
    is_shut_down: AtomicBool,
}

impl Sequential {
    /// A new one.
    pub fn new() -> Self {
        Self::default()
    }

    /// Who is called with each line that a task [says](Context::say). Default: it is written to
    /// standard output.
    pub fn on_say(mut self, call: impl Fn(&Said<'_>) + Send + Sync + 'static) -> Self {
        self.lines = LineSink::calling(Box::new(call));
        self
    }
}

impl Engine for Sequential {
    fn enqueue(&self, job: Job) {
        if self.is_shut_down.load(Ordering::Acquire) {
            return job.fail(TaskError::PoolBroken(PoolError::ShutDown));
        }
        let context = Context {
            task: job.id(),
            worker: 0,
            attempt: 1,
            locals: Arc::clone(&self.locals),
            lines: self.lines.clone(),
        };
        job.run(&context);
    }

    /// One: to run ahead would only make the consumer wait longer for its first result.
    fn ahead(&self) -> usize {
        1
    }

    fn canceller(&self) -> Option<Canceller> {
        None
    }

    fn shut_down(&self, _: Shutdown) {
        self.is_shut_down.store(true, Ordering::Release);
        self.locals.clear();
    }
}
