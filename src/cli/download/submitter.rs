//! The submitter thread: submits downloads to an executor until all are submitted or it is stopped.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use procession::{Engine, Executor, PoolError, Shutdown, TaskError};
use procession_os::threads::ThreadSpec;

use crate::cli::run_log::SubmittedCodes;
use crate::files::outcome::DownloadOutcome;
use crate::files::task::Download;

/// A running submitter.
pub(super) struct Submitter {
    executor: Arc<dyn Engine>,
    is_stopped: Arc<AtomicBool>,
}

impl Submitter {
    /// Starts to submit the downloads. `done` is called with the number of each, counted from 0, and its
    /// result, submitted or not.
    pub(super) fn start(
        executor: Arc<dyn Engine>,
        downloads: impl Iterator<Item = Download> + Send + 'static,
        submitted: SubmittedCodes,
        done: impl Fn(usize, Result<DownloadOutcome, TaskError>) + Clone + Send + 'static,
    ) -> io::Result<Self> {
        let submitter = Self { executor: Arc::clone(&executor), is_stopped: Arc::default() };
        let is_stopped = Arc::clone(&submitter.is_stopped);
        spawn("submitter", move || {
            for (number, download) in downloads.enumerate() {
                let (code, done) = (download.item.code.clone(), done.clone());
                if is_stopped.load(Ordering::Acquire) {
                    done(number, Err(TaskError::Cancelled));
                    continue;
                }
                let future = executor.submit(download);
                submitted.insert(future.id(), code);
                future.on_done(move |result| match result {
                    // The executor was shut down just before this submission.
                    Err(TaskError::PoolBroken(PoolError::ShutDown)) => {
                        done(number, Err(TaskError::Cancelled));
                    }
                    result => done(number, result.clone()),
                });
            }
        })?;
        Ok(submitter)
    }

    /// Submits no more, and cancels the downloads that have not begun, submitted or not. Downloads
    /// that have begun continue: to cancel their futures would kill the workers that run them.
    pub(super) fn stop(&self) {
        self.is_stopped.store(true, Ordering::Release);
        let executor = Arc::clone(&self.executor);
        // The shutdown returns when all downloads that have begun have ended. If no thread can be
        // started for it, the deadline of the caller ends the run.
        let _ = spawn("shutdown", move || executor.shutdown(Shutdown::CancelPending));
    }
}

fn spawn(name: &str, work: impl FnOnce() + Send + 'static) -> io::Result<()> {
    ThreadSpec::new(name).start_with_retries(work).map(drop)
}
