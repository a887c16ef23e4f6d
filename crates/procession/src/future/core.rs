//! [`Core`]: the state that a [`Promise`] and its [`Future`] share, with the result and those who wait
//! for it.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak};
use std::task::Waker;
use std::time::Instant;

use smallvec::SmallVec;

use super::{Arrivals, Future, TaskControl, Waiter, Wake};
use crate::error::{PoolError, TaskError};
use crate::panics;
use crate::task::TaskId;
use crate::waiting::{self, Obligation};
use procession_os::fork::Origin;

/// The state that a promise and its future share.
pub(crate) struct Core<T> {
    pub(super) id: TaskId,
    /// For [`Future::state`]; set by the executor when it sends the task to a worker.
    pub(super) running: AtomicBool,
    /// The process that completes it. In a forked copy it is never completed.
    origin: Origin,
    inner: Mutex<Inner<T>>,
    done: Condvar,
}

pub(super) struct Inner<T> {
    pub(super) stage: Stage<T>,
    /// Called with the result before it can be had, in the order in which they were added.
    pub(super) callbacks: Vec<Callback<T>>,
    /// Waits for several futures, which get a message when the result is there.
    pub(super) watchers: SmallVec<[Watcher; 1]>,
    pub(super) waker: Option<Waker>,
    /// Takes the result in place of the future, which was mapped.
    pub(super) continuation: Option<Continuation<T>>,
    wake: Option<Arc<dyn Wake>>,
    /// Number of threads that wait for `done`.
    waiting: usize,
}

pub(super) type Callback<T> = Box<dyn FnOnce(&Result<T, TaskError>) + Send>;

pub(super) type Continuation<T> = Box<dyn FnOnce(Result<T, TaskError>) + Send>;

/// A wait for several futures, in one of these.
pub(crate) struct Watcher {
    /// Identifies the wait.
    pub(crate) sender: Arc<Arrivals>,
    /// Index of this future in the wait.
    pub(crate) index: usize,
}

pub(super) enum Stage<T> {
    Pending,
    /// Completed, and the callbacks are being called.
    Notifying,
    Ready(Result<T, TaskError>),
    /// Completed before, and a later callback is being called with the result.
    InCallback(Outcome),
    /// The result was returned by a poll.
    Consumed,
}

/// The kind of a result.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Outcome {
    Output,
    Error,
    Cancelled,
}

impl Outcome {
    pub(super) fn of<T>(result: &Result<T, TaskError>) -> Self {
        match result {
            Ok(_) => Self::Output,
            Err(TaskError::Cancelled) => Self::Cancelled,
            Err(_) => Self::Error,
        }
    }
}

impl<T> Core<T> {
    pub(super) fn lock(&self) -> MutexGuard<'_, Inner<T>> {
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        if self.origin.is_forked() && matches!(inner.stage, Stage::Pending | Stage::Notifying) {
            // The parent process completes it, and calls the callbacks.
            inner.callbacks.clear();
            inner.stage = Stage::Ready(Err(TaskError::PoolBroken(PoolError::Forked)));
        }
        inner
    }

    pub(super) fn wait_until_done(
        &self,
        deadline: Option<Instant>,
    ) -> Option<MutexGuard<'_, Inner<T>>> {
        let mut inner = self.lock();
        while matches!(inner.stage, Stage::Pending | Stage::Notifying) {
            let left = match deadline {
                None => None,
                Some(deadline) => Some(deadline.checked_duration_since(Instant::now())?),
            };
            inner.waiting += 1;
            inner = match left {
                None => self.done.wait(inner).unwrap_or_else(PoisonError::into_inner),
                Some(left) => {
                    let waited = self.done.wait_timeout(inner, left);
                    waited.unwrap_or_else(PoisonError::into_inner).0
                }
            };
            inner.waiting -= 1;
        }
        Some(inner)
    }
}

impl<T> Drop for Core<T> {
    fn drop(&mut self) {
        // This may run on a thread that delivers results, and `Drop` of the output may panic.
        let inner = self.inner.get_mut().unwrap_or_else(PoisonError::into_inner);
        panics::discard(std::mem::replace(&mut inner.stage, Stage::Consumed));
    }
}

impl<T> Waiter for Core<T> {
    fn is_done(&self) -> bool {
        !matches!(self.lock().stage, Stage::Pending | Stage::Notifying)
    }

    fn wake_by(&self, wake: Option<Arc<dyn Wake>>) {
        self.lock().wake = wake;
    }
}

/// The executor's side of a future. If it is dropped before it was completed, the future is completed
/// with [`TaskError::Cancelled`].
pub(crate) struct Promise<T: Send + 'static> {
    core: Arc<Core<T>>,
    is_completed: bool,
}

/// A promise and its future. `executor` is asked when the future is cancelled.
pub(crate) fn promise<T: Send + 'static>(
    id: TaskId,
    executor: Option<Weak<dyn TaskControl>>,
) -> (Promise<T>, Future<T>) {
    let core = Arc::new(Core {
        id,
        running: AtomicBool::new(false),
        origin: Origin::here(),
        inner: Mutex::new(Inner {
            stage: Stage::Pending,
            callbacks: Vec::new(),
            watchers: SmallVec::new(),
            waker: None,
            continuation: None,
            wake: None,
            waiting: 0,
        }),
        done: Condvar::new(),
    });
    let promise = Promise { core: Arc::clone(&core), is_completed: false };
    (promise, Future { core, executor, origin: None, was_polled: false, cancels_on_drop: false })
}

/// Whether a task is at a worker, for the futures that were mapped from its future.
pub(super) trait Running: Send + Sync {
    fn is_running(&self) -> bool;
}

impl<T: Send> Running for Core<T> {
    fn is_running(&self) -> bool {
        self.running.load(Ordering::Relaxed)
    }
}

impl<T: Send + 'static> Promise<T> {
    /// Sets whether the task is at a worker.
    pub(crate) fn set_running(&self, running: bool) {
        self.core.set_running(running);
    }

    pub(crate) fn complete(mut self, result: Result<T, TaskError>) {
        self.is_completed = true;
        self.core.complete(result);
    }

    /// The core, which the caller completes.
    pub(crate) fn into_core(mut self) -> Arc<Core<T>> {
        self.is_completed = true;
        Arc::clone(&self.core)
    }
}

impl<T> Core<T> {
    pub(crate) fn set_running(&self, running: bool) {
        self.running.store(running, Ordering::Relaxed);
    }

    /// Calls the callbacks, then makes the result available.
    pub(crate) fn complete(self: &Arc<Self>, result: Result<T, TaskError>)
    where
        T: Send + 'static,
    {
        let mut inner = self.lock();
        if inner.callbacks.is_empty() && inner.continuation.is_none() {
            return self.publish(inner, result);
        }
        inner.stage = Stage::Notifying;
        drop(inner);
        let core = Arc::clone(self);
        waiting::call(Box::new(move || {
            let _obligation = Obligation::to_end(core.id);
            let inner = core.run_callbacks(&result, core.lock());
            core.publish(inner, result);
        }));
    }

    /// Calls callbacks with the result until there are none left. Without the lock: a callback may
    /// take long, and add others.
    pub(super) fn run_callbacks<'c>(
        &'c self,
        result: &Result<T, TaskError>,
        mut inner: MutexGuard<'c, Inner<T>>,
    ) -> MutexGuard<'c, Inner<T>> {
        loop {
            let callbacks = std::mem::take(&mut inner.callbacks);
            if callbacks.is_empty() {
                return inner;
            }
            drop(inner);
            for callback in callbacks {
                call(callback, result);
            }
            inner = self.lock();
        }
    }

    /// Makes the result available, and wakes all that wait for it.
    fn publish(&self, mut inner: MutexGuard<'_, Inner<T>>, result: Result<T, TaskError>) {
        if let Some(continuation) = inner.continuation.take() {
            inner.stage = Stage::Consumed;
            drop(inner);
            return continuation(result);
        }
        inner.stage = Stage::Ready(result);
        let waker = inner.waker.take();
        let watchers = std::mem::take(&mut inner.watchers);
        let wake = inner.wake.take();
        let is_awaited = inner.waiting > 0;
        drop(inner);
        if is_awaited {
            self.done.notify_all();
        }
        if let Some(wake) = wake {
            wake.wake();
        }
        if let Some(waker) = waker {
            let _ = panics::catch(|| waker.wake());
        }
        for Watcher { sender, index } in watchers {
            sender.send(index);
        }
    }

    /// Passes the result to `continuation`, now or when the task ends. The future has been consumed.
    pub(super) fn continue_with(&self, continuation: Continuation<T>) {
        let mut inner = self.lock();
        if matches!(inner.stage, Stage::Pending | Stage::Notifying) {
            inner.continuation = Some(continuation);
            return;
        }
        let result = self.take(inner);
        continuation(result);
    }

    /// Takes the result of a future that is done.
    pub(super) fn take(&self, mut inner: MutexGuard<'_, Inner<T>>) -> Result<T, TaskError> {
        match std::mem::replace(&mut inner.stage, Stage::Consumed) {
            Stage::Ready(result) => result,
            _ => Err(TaskError::AlreadyTaken),
        }
    }
}

impl<T: Send + 'static> Drop for Promise<T> {
    fn drop(&mut self) {
        if !self.is_completed {
            self.core.complete(Err(TaskError::Cancelled));
        }
    }
}

/// Calls a callback. A panic in it is reported by the panic hook and otherwise ignored.
pub(super) fn call<T>(callback: Callback<T>, result: &Result<T, TaskError>) {
    let _ = panics::catch(|| callback(result));
}
