//! [`ShutdownAsync`]: a shutdown that async code waits for.

use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use procession_os::threads::ThreadSpec;

use crate::{panics, waiting};

/// The future of [`ProcessPool::shutdown_async`](crate::ProcessPool::shutdown_async) and
/// [`ThreadPool::shutdown_async`](crate::ThreadPool::shutdown_async). The shutdown begins with the first
/// poll, and goes on if the future is dropped after that.
///
/// ```
/// use procession::{Shutdown, ThreadPool};
///
/// async fn end(pool: ThreadPool) {
///     pool.shutdown_async(Shutdown::Wait).await; // the thread does other work during the wait
/// }
/// ```
#[must_use = "the shutdown begins when the future is polled"]
pub struct ShutdownAsync {
    /// Identifies the executor among the roles of a thread.
    executor: usize,
    /// `None`: it was begun.
    shutdown: Option<Box<dyn FnOnce() + Send>>,
    progress: Arc<Mutex<ShutdownProgress>>,
}

#[derive(Default)]
struct ShutdownProgress {
    has_ended: bool,
    waker: Option<Waker>,
}

impl ShutdownAsync {
    /// `shutdown` blocks until the executor has ended, except in its callbacks.
    pub(crate) fn new(executor: usize, shutdown: impl FnOnce() + Send + 'static) -> Self {
        let progress = Arc::default();
        Self { executor, shutdown: Some(Box::new(shutdown)), progress }
    }

    /// Begins the shutdown on a thread of its own. If the system starts none, or in a callback of the
    /// executor, where a shutdown does not wait, this thread calls it.
    fn begin(&mut self) {
        let Some(shutdown) = self.shutdown.take() else { return };
        let shutdown = Arc::new(Mutex::new(Some(shutdown)));
        let (taken, progress) = (Arc::clone(&shutdown), Arc::clone(&self.progress));
        let run = move || {
            let shutdown = taken.lock().unwrap_or_else(PoisonError::into_inner).take();
            if let Some(shutdown) = shutdown {
                let _ = panics::catch(shutdown);
            }
            let mut progress = lock(&progress);
            progress.has_ended = true;
            let waker = progress.waker.take();
            drop(progress);
            if let Some(waker) = waker {
                let _ = panics::catch(|| waker.wake());
            }
        };
        let is_within = waiting::is_within(self.executor);
        if !is_within && ThreadSpec::new("procession-shutdown").start(run).is_ok() {
            return;
        }
        let shutdown = shutdown.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(shutdown) = shutdown {
            shutdown();
        }
        lock(&self.progress).has_ended = true;
    }
}

impl Future for ShutdownAsync {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        self.begin();
        let waker = context.waker().clone();
        let mut progress = lock(&self.progress);
        if progress.has_ended {
            return Poll::Ready(());
        }
        let before = progress.waker.replace(waker);
        drop(progress);
        drop(before);
        Poll::Pending
    }
}

fn lock(progress: &Mutex<ShutdownProgress>) -> MutexGuard<'_, ShutdownProgress> {
    progress.lock().unwrap_or_else(PoisonError::into_inner)
}

impl std::fmt::Debug for ShutdownAsync {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ShutdownAsync")
            .field("has_begun", &self.shutdown.is_none())
            .finish_non_exhaustive()
    }
}
