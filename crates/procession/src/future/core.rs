//! [`Core`]: the state that a [`Promise`] and its [`Future`] share: the result, and the waiters and callbacks.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

use super::awaiters::{Awaiters, call_each};
use super::partials::{EncodedPartial, PartialQueue};
use super::{Future, TaskControl, Waiter, Wake};
use crate::blob::Blob;
use crate::codec::{DecodeOutput, Encoding, Refusal};
use crate::error::{PoolError, TaskError};
use crate::panics;
use crate::stop_signal::FutureOfTask;
use crate::task::TaskId;
use crate::waiting::{self, Obligation};
use procession_os::fork::Origin;

/// The state that a promise and its future share.
pub(crate) struct Core<T> {
    pub(super) id: TaskId,
    /// Is asked when the future is cancelled. Here, and not in the future: futures are moved often.
    pub(super) executor: Option<Weak<dyn TaskControl>>,
    pub(super) running: Running,
    /// Decodes the output that a worker has sent.
    pub(crate) decode: DecodeOutput<T>,
    /// The process that completes it. In a forked copy it is never completed.
    origin: Origin,
    inner: Mutex<CoreState<T>>,
    done: Condvar,
}

/// A program may have a million of them, so what few futures have is behind a pointer.
pub(super) struct CoreState<T> {
    pub(super) stage: ResultState<T>,
    pub(super) awaiters: Awaiters,
}

impl<T> CoreState<T> {
    pub(super) fn is_done(&self) -> bool {
        !matches!(self.stage, ResultState::Pending | ResultState::Notifying)
    }

    /// In a forked copy of the process: the parent process completes it, and calls the callbacks.
    #[cold]
    fn forked(&mut self) {
        if !self.is_done() {
            self.awaiters.before_ready = None;
            self.stage = ResultState::ready(Err(TaskError::PoolBroken(PoolError::Forked)));
        }
    }
}

pub(super) enum ResultState<T> {
    Pending,
    /// Completed, and the callbacks are being called.
    Notifying,
    /// An error is in a box: it is large, and most results are none.
    Ready(Result<T, Box<TaskError>>),
    /// Completed before, and a later callback is being called with the result.
    InCallback(Outcome),
    /// The result was returned by a poll.
    Consumed,
}

impl<T> ResultState<T> {
    pub(super) fn ready(result: Result<T, TaskError>) -> Self {
        Self::Ready(result.map_err(Box::new))
    }
}

/// The kind of a result.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Outcome {
    Output,
    Error,
    Cancelled,
}

impl Outcome {
    pub(super) fn of<T>(result: &Result<T, Box<TaskError>>) -> Self {
        match result {
            Ok(_) => Self::Output,
            Err(error) if **error == TaskError::Cancelled => Self::Cancelled,
            Err(_) => Self::Error,
        }
    }
}

impl<T> Core<T> {
    pub(super) fn lock(&self) -> MutexGuard<'_, CoreState<T>> {
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        if self.origin.is_forked() {
            inner.forked();
        }
        inner
    }

    pub(super) fn wait_until_done(
        &self,
        deadline: Option<Instant>,
    ) -> Option<MutexGuard<'_, CoreState<T>>> {
        let mut inner = self.lock();
        while !inner.is_done() {
            let left = time_left(deadline)?;
            inner.awaiters.waiting += 1;
            let waited = self.done.wait_timeout(inner, left);
            inner = waited.unwrap_or_else(PoisonError::into_inner).0;
            inner.awaiters.waiting -= 1;
        }
        Some(inner)
    }
}

/// How long to wait at once. `None`: the deadline has passed.
fn time_left(deadline: Option<Instant>) -> Option<Duration> {
    /// Without a deadline the wait begins anew.
    const DAY: Duration = Duration::from_secs(24 * 60 * 60);
    match deadline {
        None => Some(DAY),
        Some(deadline) => deadline.checked_duration_since(Instant::now()),
    }
}

impl<T> Drop for Core<T> {
    fn drop(&mut self) {
        // This may run on a thread that delivers results, and `Drop` of the output may panic.
        let inner = self.inner.get_mut().unwrap_or_else(PoisonError::into_inner);
        panics::discard(std::mem::replace(&mut inner.stage, ResultState::Consumed));
    }
}

impl<T> Waiter for Core<T> {
    fn is_done(&self) -> bool {
        self.lock().is_done()
    }

    fn wake_by(&self, wake: Option<Arc<dyn Wake>>) {
        self.lock().awaiters.wake = wake;
    }
}

/// The executor's side of a future. If it is dropped before it was completed, the future is completed
/// with [`TaskError::Cancelled`].
pub(crate) struct Promise<T: Send + 'static> {
    /// `None`: it was completed.
    core: Option<Arc<Core<T>>>,
}

/// A promise and its future. `executor` is asked when the future is cancelled; `decode` decodes the output if the task
/// runs in another process.
pub(crate) fn promise_of_sent<T: Send + 'static>(
    id: TaskId,
    executor: Option<Weak<dyn TaskControl>>,
    decode: DecodeOutput<T>,
) -> (Promise<T>, Future<T>) {
    new(id, executor, Running::Own(TaskFlags::default()), decode)
}

/// The same for a task of this process.
#[cfg(test)]
pub(crate) fn promise<T: Send + 'static>(
    id: TaskId,
    executor: Option<Weak<dyn TaskControl>>,
) -> (Promise<T>, Future<T>) {
    promise_of_sent(id, executor, not_sent)
}

/// Decodes nothing: the result of a mapped future is made in this process.
fn not_sent<T>(_: Encoding, _: &[u8], _: Vec<Blob>) -> Result<T, Refusal> {
    Err(Refusal::new("it was not sent"))
}

/// A promise and its future, for the task of another future.
pub(super) fn mapped_promise<T, U>(of: &Arc<Core<T>>) -> (Promise<U>, Future<U>)
where
    T: Send + 'static,
    U: Send + 'static,
{
    let running = match &of.running {
        Running::Own(_) => Arc::clone(of) as Arc<dyn TaskState>,
        Running::Of(task) => Arc::clone(task),
    };
    new(of.id, of.executor.clone(), Running::Of(running), not_sent)
}

fn new<T: Send + 'static>(
    id: TaskId,
    executor: Option<Weak<dyn TaskControl>>,
    running: Running,
    decode: DecodeOutput<T>,
) -> (Promise<T>, Future<T>) {
    let core = Arc::new(Core {
        id,
        executor,
        running,
        decode,
        origin: Origin::here(),
        inner: Mutex::new(CoreState { stage: ResultState::Pending, awaiters: Awaiters::default() }),
        done: Condvar::new(),
    });
    let promise = Promise { core: Some(Arc::clone(&core)) };
    (promise, Future { core, was_polled: false, cancels_on_drop: false })
}

/// What the executor and the future tell each other about the task.
pub(super) enum Running {
    Own(TaskFlags),
    /// The future was [mapped](Future::map) from that of the task.
    Of(Arc<dyn TaskState>),
}

#[derive(Default)]
pub(super) struct TaskFlags {
    /// The task is at a worker, for [`Future::state`]. Set by the executor.
    is_running: AtomicBool,
    /// Set by [`Future::cancel`].
    is_asked_to_stop: AtomicBool,
}

/// The core of the task from whose future another one was mapped.
pub(super) trait TaskState: Send + Sync {
    fn is_running(&self) -> bool;
    fn ask_to_stop(&self);
    fn partials(&self) -> Arc<PartialQueue>;
}

impl<T: Send> TaskState for Core<T> {
    fn is_running(&self) -> bool {
        Core::is_running(self)
    }

    fn ask_to_stop(&self) {
        Core::ask_to_stop(self);
    }

    fn partials(&self) -> Arc<PartialQueue> {
        Core::partials(self)
    }
}

impl<T: Send> FutureOfTask for Core<T> {
    fn is_asked_to_stop(&self) -> bool {
        matches!(&self.running, Running::Own(own) if own.is_asked_to_stop.load(Ordering::Acquire))
    }

    fn put_partial(&self, partial: Option<EncodedPartial>) {
        Core::put_partial(self, partial);
    }
}

impl<T: Send + 'static> Promise<T> {
    /// Sets whether the task is at a worker.
    pub(crate) fn set_running(&self, running: bool) {
        if let Some(core) = &self.core {
            core.set_running(running);
        }
    }

    pub(crate) fn complete(mut self, result: Result<T, TaskError>) {
        if let Some(core) = self.core.take() {
            core.complete(result);
        }
    }

    /// The future, for the task that runs in this process.
    pub(crate) fn of_task(&self) -> Option<Arc<dyn FutureOfTask>> {
        self.core.as_ref().map(|core| Arc::clone(core) as Arc<dyn FutureOfTask>)
    }

    /// The core, which the caller completes. `None`: it was completed.
    pub(crate) fn into_core(mut self) -> Option<Arc<Core<T>>> {
        self.core.take()
    }
}

impl<T> Core<T> {
    pub(crate) fn set_running(&self, running: bool) {
        if let Running::Own(own) = &self.running {
            own.is_running.store(running, Ordering::Relaxed);
        }
    }

    /// Tells a task that runs in this process that it is to stop.
    pub(super) fn ask_to_stop(&self) {
        match &self.running {
            Running::Own(own) => own.is_asked_to_stop.store(true, Ordering::Release),
            Running::Of(task) => task.ask_to_stop(),
        }
    }

    pub(super) fn is_running(&self) -> bool {
        match &self.running {
            Running::Own(own) => own.is_running.load(Ordering::Relaxed),
            Running::Of(task) => task.is_running(),
        }
    }

    /// Calls the callbacks, then makes the result available.
    pub(crate) fn complete(self: &Arc<Self>, result: Result<T, TaskError>)
    where
        T: Send + 'static,
    {
        let mut inner = self.lock();
        if inner.awaiters.partials.is_some() {
            inner = self.close_partials(inner);
        }
        if inner.awaiters.before_ready.is_none() {
            return self.publish(inner, result);
        }
        inner.stage = ResultState::Notifying;
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
        mut inner: MutexGuard<'c, CoreState<T>>,
    ) -> MutexGuard<'c, CoreState<T>>
    where
        T: 'static,
    {
        loop {
            let callbacks = inner.awaiters.take_callbacks();
            if callbacks.is_empty() {
                return inner;
            }
            drop(inner);
            call_each(callbacks, result);
            inner = self.lock();
        }
    }

    /// Makes the result available, and wakes all that wait for it.
    fn publish(&self, mut inner: MutexGuard<'_, CoreState<T>>, result: Result<T, TaskError>)
    where
        T: 'static,
    {
        if let Some(continuation) = inner.awaiters.take_continuation() {
            inner.stage = ResultState::Consumed;
            drop(inner);
            return continuation(&mut Some(result));
        }
        inner.stage = ResultState::ready(result);
        let awaiters = inner.awaiters.take();
        drop(inner);
        awaiters.notify(&self.done);
    }

    /// Passes the result to `continuation`, now or when the task ends. The future has been consumed.
    pub(super) fn continue_with(
        &self,
        continuation: impl FnOnce(Result<T, TaskError>) + Send + 'static,
    ) where
        T: 'static,
    {
        let mut inner = self.lock();
        if inner.is_done() {
            return continuation(self.take(inner));
        }
        inner.awaiters.set_continuation(Box::new(move |result| {
            let result = result.downcast_mut::<Option<Result<T, TaskError>>>();
            continuation(result.and_then(Option::take).expect("the type is that of the future"));
        }));
    }

    /// Takes the result of a future that is done.
    pub(super) fn take(&self, mut inner: MutexGuard<'_, CoreState<T>>) -> Result<T, TaskError> {
        match std::mem::replace(&mut inner.stage, ResultState::Consumed) {
            ResultState::Ready(result) => result.map_err(|error| *error),
            _ => Err(TaskError::AlreadyTaken),
        }
    }
}

impl<T: Send + 'static> Drop for Promise<T> {
    fn drop(&mut self) {
        if let Some(core) = self.core.take() {
            core.complete(Err(TaskError::Cancelled));
        }
    }
}
