//! Feeds downloads to an executor, from a thread of its own, until it is told to stop.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::flags::codes::Code;
use crate::flags::outcome::Outcome;
use crate::flags::task::Download;
use procession::{Engine, Executor, PoolError, Shutdown, TaskError};
use procession_os::threads::ThreadSpec;

use super::run_log::Submitted;

/// A feeder at work.
pub(super) struct Feeder {
    executor: Arc<dyn Engine>,
    is_stopped: Arc<AtomicBool>,
}

impl Feeder {
    /// Begins to submit the downloads; `done` is called with what becomes of each, submitted or
    /// not.
    pub(super) fn start(
        executor: Arc<dyn Engine>,
        downloads: impl Iterator<Item = Download> + Send + 'static,
        submitted: Submitted,
        done: impl Fn(Code, Result<Outcome, TaskError>) + Clone + Send + 'static,
    ) -> io::Result<Self> {
        let feeder = Self { executor: Arc::clone(&executor), is_stopped: Arc::default() };
        let is_stopped = Arc::clone(&feeder.is_stopped);
        spawn("feeder", move || {
            for download in downloads {
                let (code, done) = (download.code, done.clone());
                if is_stopped.load(Ordering::Acquire) {
                    done(code, Err(TaskError::Cancelled));
                    continue;
                }
                let future = executor.submit(download);
                submitted.insert(future.id(), code);
                future.on_done(move |result| match result {
                    // It was stopped just before this one was submitted.
                    Err(TaskError::PoolBroken(PoolError::ShutDown)) => {
                        done(code, Err(TaskError::Cancelled));
                    }
                    result => done(code, result.clone()),
                });
            }
        })?;
        Ok(feeder)
    }

    /// Submits no more, and cancels what has not begun, submitted or not. What has begun goes on:
    /// its futures are not cancelled one by one, since that would kill the workers that run them.
    pub(super) fn stop(&self) {
        self.is_stopped.store(true, Ordering::Release);
        let executor = Arc::clone(&self.executor);
        // It returns only when all that has begun has ended. Without a thread to wait for that,
        // the caller's patience will end it.
        let _ = spawn("stopping", move || executor.shutdown(Shutdown::CancelPending));
    }
}

fn spawn(name: &str, work: impl FnOnce() + Send + 'static) -> io::Result<()> {
    ThreadSpec::new(name).start_with_retries(work).map(drop)
}
