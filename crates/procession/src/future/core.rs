//! [`Core`]: the state that a [`Promise`] and its [`Future`] share: the result, and the waiters and callbacks.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak};
use std::task::Waker;
use std::time::Instant;

use smallvec::SmallVec;

use super::partials::{EncodedPartial, PartialQueue};
use super::{Arrivals, Future, TaskControl, Waiter, Wake};
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
    before_ready: Option<Box<BeforeReady<T>>>,
    /// Waits for several futures, which get a message when the result is there.
    pub(super) watchers: SmallVec<[Watcher; 1]>,
    pub(super) waker: Option<Waker>,
    wake: Option<Arc<dyn Wake>>,
    /// The values that the task emits. `None`: there are none, and they were not asked for.
    pub(super) partials: Option<Arc<PartialQueue>>,
    /// Number of threads that wait for `done`.
    waiting: usize,
}

/// What is called with the result before it can be had.
struct BeforeReady<T> {
    /// In the order in which they were added.
    callbacks: Vec<Callback<T>>,
    /// Takes the result in place of the future, which was mapped. Called last.
    continuation: Option<Continuation<T>>,
}

impl<T> CoreState<T> {
    fn before_ready(&mut self) -> &mut BeforeReady<T> {
        let none = || Box::new(BeforeReady { callbacks: Vec::new(), continuation: None });
        self.before_ready.get_or_insert_with(none)
    }

    pub(super) fn add_callback(&mut self, callback: Callback<T>) {
        self.before_ready().callbacks.push(callback);
    }

    fn take_callbacks(&mut self) -> Vec<Callback<T>> {
        self.before_ready
            .as_mut()
            .map(|before| std::mem::take(&mut before.callbacks))
            .unwrap_or_default()
    }

    pub(super) fn is_done(&self) -> bool {
        !matches!(self.stage, ResultState::Pending | ResultState::Notifying)
    }
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
        if self.origin.is_forked() && !inner.is_done() {
            // The parent process completes it, and calls the callbacks.
            inner.before_ready = None;
            inner.stage = ResultState::ready(Err(TaskError::PoolBroken(PoolError::Forked)));
        }
        inner
    }

    pub(super) fn wait_until_done(
        &self,
        deadline: Option<Instant>,
    ) -> Option<MutexGuard<'_, CoreState<T>>> {
        let mut inner = self.lock();
        while !inner.is_done() {
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
        panics::discard(std::mem::replace(&mut inner.stage, ResultState::Consumed));
    }
}

impl<T> Waiter for Core<T> {
    fn is_done(&self) -> bool {
        self.lock().is_done()
    }

    fn wake_by(&self, wake: Option<Arc<dyn Wake>>) {
        self.lock().wake = wake;
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
        inner: Mutex::new(CoreState {
            stage: ResultState::Pending,
            before_ready: None,
            watchers: SmallVec::new(),
            waker: None,
            wake: None,
            partials: None,
            waiting: 0,
        }),
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
        if inner.partials.is_some() {
            inner = self.close_partials(inner);
        }
        if inner.before_ready.is_none() {
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
    ) -> MutexGuard<'c, CoreState<T>> {
        loop {
            let callbacks = inner.take_callbacks();
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
    fn publish(&self, mut inner: MutexGuard<'_, CoreState<T>>, result: Result<T, TaskError>) {
        let before_ready = inner.before_ready.take();
        if let Some(continuation) = before_ready.and_then(|before| before.continuation) {
            inner.stage = ResultState::Consumed;
            drop(inner);
            return continuation(result);
        }
        inner.stage = ResultState::ready(result);
        let waker = inner.waker.take();
        let watchers = std::mem::take(&mut inner.watchers);
        let wake = inner.wake.take();
        let is_awaited = inner.waiting > 0;
        drop(inner);
        if is_awaited {
            self.done.notify_all();
        }
        tell(wake, waker, watchers);
    }

    /// Passes the result to `continuation`, now or when the task ends. The future has been consumed.
    pub(super) fn continue_with(&self, continuation: Continuation<T>) {
        let mut inner = self.lock();
        if !inner.is_done() {
            inner.before_ready().continuation = Some(continuation);
            return;
        }
        let result = self.take(inner);
        continuation(result);
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

/// Tells all that wait without a thread of their own that the result is there. It is compiled once, and not for each type.
fn tell(wake: Option<Arc<dyn Wake>>, waker: Option<Waker>, watchers: SmallVec<[Watcher; 1]>) {
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

/// Calls a callback. A panic in it is reported by the panic hook and otherwise ignored.
pub(super) fn call<T>(callback: Callback<T>, result: &Result<T, TaskError>) {
    let _ = panics::catch(|| callback(result));
}
