//! What a promise and its future share: where a task's result lies, and those who wait for it.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::Sender;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak};
use std::task::Waker;
use std::time::Instant;

use smallvec::SmallVec;

use super::{Future, TaskControl, Waiter, Wake};
use crate::error::{PoolError, TaskError};
use crate::panics;
use crate::task::TaskId;
use crate::waiting::{self, Owing};
use procession_os::fork::Origin;

/// What a promise and its future share.
pub(crate) struct Core<T> {
    pub(super) id: TaskId,
    /// Only for [`Future::state`]: the executor alone knows, and says so when it hands the task
    /// over.
    pub(super) running: AtomicBool,
    /// The process in which the promise is kept.
    origin: Origin,
    inner: Mutex<Inner<T>>,
    done: Condvar,
}

pub(super) struct Inner<T> {
    pub(super) stage: Stage<T>,
    /// Called with the result before anyone else sees it, in the order of their registration.
    pub(super) callbacks: Vec<Callback<T>>,
    /// Told afterwards.
    pub(super) watchers: SmallVec<[Watcher; 1]>,
    pub(super) waker: Option<Waker>,
    wake: Option<Arc<dyn Wake>>,
    /// How many threads wait for `done`.
    waiting: usize,
}

pub(super) type Callback<T> = Box<dyn FnOnce(&Result<T, TaskError>) + Send>;

/// One of those that wait for several futures.
pub(super) struct Watcher {
    /// Which wait it is.
    pub(super) sender: Arc<Sender<usize>>,
    /// Which of its futures this is.
    pub(super) index: usize,
}

pub(super) enum Stage<T> {
    Pending,
    /// Fulfilled, and the callbacks are looking at the result.
    Notifying,
    Ready(Result<T, TaskError>),
    /// It was here before, and one more callback is looking at the result.
    Shown(Outcome),
    /// Handed over by a poll.
    Consumed,
}

/// What is known of a result without it.
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
            // The promise is kept in the parent process; what waits there is none of this one's.
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
        // An output that nobody took may be dropped by whoever delivers for many others, too.
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

/// The executor's side of a future. Dropped unfulfilled, it fulfils itself with
/// [`TaskError::Cancelled`], so that nobody waits for what will never come.
pub(crate) struct Promise<T: Send + 'static> {
    core: Arc<Core<T>>,
    kept: bool,
}

/// A promise and the future that it is made to; `executor` is asked when the future is cancelled.
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
            wake: None,
            waiting: 0,
        }),
        done: Condvar::new(),
    });
    let promise = Promise { core: Arc::clone(&core), kept: false };
    (promise, Future { core, executor, was_polled: false })
}

impl<T: Send + 'static> Promise<T> {
    /// Notes whether the task was handed to a worker, or was taken back from one.
    pub(crate) fn set_running(&self, running: bool) {
        self.core.set_running(running);
    }

    pub(crate) fn fulfil(mut self, result: Result<T, TaskError>) {
        self.kept = true;
        self.core.keep(result);
    }

    /// For whoever keeps it without knowing its type.
    pub(crate) fn into_core(mut self) -> Arc<Core<T>> {
        self.kept = true;
        Arc::clone(&self.core)
    }
}

impl<T> Core<T> {
    pub(crate) fn set_running(&self, running: bool) {
        self.running.store(running, Ordering::Relaxed);
    }

    pub(crate) fn keep(self: &Arc<Self>, result: Result<T, TaskError>)
    where
        T: Send + 'static,
    {
        let mut inner = self.lock();
        if inner.callbacks.is_empty() {
            return self.publish(inner, result);
        }
        inner.stage = Stage::Notifying;
        drop(inner);
        let core = Arc::clone(self);
        waiting::call(Box::new(move || {
            let _owing = Owing::the_end_of(core.id);
            let inner = core.show(&result, core.lock());
            core.publish(inner, result);
        }));
    }

    /// Shows the result to the callbacks until there are none. A callback may take its time, and
    /// others may be added meanwhile: never under the lock.
    pub(super) fn show<'c>(
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

    /// Lets everybody have the result, and wakes those who wait for it.
    fn publish(&self, mut inner: MutexGuard<'_, Inner<T>>, result: Result<T, TaskError>) {
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
            // The wait may have ended.
            let _ = sender.send(index);
        }
    }

    /// Takes the result, when it is there.
    pub(super) fn take(&self, mut inner: MutexGuard<'_, Inner<T>>) -> Result<T, TaskError> {
        match std::mem::replace(&mut inner.stage, Stage::Consumed) {
            Stage::Ready(result) => result,
            _ => Err(TaskError::AlreadyTaken),
        }
    }
}

impl<T: Send + 'static> Drop for Promise<T> {
    fn drop(&mut self) {
        if !self.kept {
            self.core.keep(Err(TaskError::Cancelled));
        }
    }
}

/// A callback that panics harms nobody; the panic hook has reported it.
pub(super) fn call<T>(callback: Callback<T>, result: &Result<T, TaskError>) {
    let _ = panics::catch(|| callback(result));
}
