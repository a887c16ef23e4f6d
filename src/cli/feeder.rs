//! Feeds downloads to an executor, from a thread of its own, until it is told to stop.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;

use crate::error::TaskError;
use crate::executor::{Engine, Executor};
use crate::flags::codes::Code;
use crate::flags::outcome::Outcome;
use crate::flags::task::Download;
use crate::future::Future;

/// A feeder at work.
pub(super) struct Feeder {
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    is_stopped: AtomicBool,
    futures: Mutex<Vec<Future<Outcome>>>,
}

impl Feeder {
    /// Begins to submit the downloads; `done` is called with what becomes of each, submitted or
    /// not.
    pub(super) fn start(
        executor: Arc<dyn Engine>,
        downloads: impl Iterator<Item = Download> + Send + 'static,
        done: impl Fn(Code, Result<Outcome, TaskError>) + Clone + Send + 'static,
    ) -> io::Result<Self> {
        let shared = Arc::<Shared>::default();
        let feeds = Arc::clone(&shared);
        thread::Builder::new().name("feeder".to_owned()).spawn(move || {
            for download in downloads {
                let (code, done) = (download.code, done.clone());
                if feeds.is_stopped.load(Ordering::Acquire) {
                    done(code, Err(TaskError::Cancelled));
                    continue;
                }
                let future = executor.submit(download);
                future.on_done(move |result| done(code, result.clone()));
                let mut futures = feeds.futures();
                futures.push(future);
                // It may have been stopped meanwhile, and this future missed.
                if feeds.is_stopped.load(Ordering::Acquire) {
                    cancel(&mut futures);
                }
            }
        })?;
        Ok(Self { shared })
    }

    /// Submits no more, and cancels what has not begun, submitted or not. What has begun goes on.
    pub(super) fn stop(&self) {
        self.shared.is_stopped.store(true, Ordering::Release);
        cancel(&mut self.shared.futures());
    }
}

impl Shared {
    fn futures(&self) -> MutexGuard<'_, Vec<Future<Outcome>>> {
        self.futures.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn cancel(futures: &mut Vec<Future<Outcome>>) {
    for future in futures.drain(..).rev() {
        future.cancel();
    }
}
