//! What is owed: a [`Future`] stands for the output of a submitted task until it is there, and
//! [`as_completed`] and [`wait`] deal with many of them.
//!
//! A future has two sides. The executor holds a `Promise` and fulfils it once, with the output or
//! with a typed error. The caller holds the [`Future`] and may block on it, poll it, await it, hang
//! callbacks on it, or drop it, at any time, without disturbing the task.
//!
//! Nothing here starts, stops or schedules anything; whether a task may still be cancelled is for
//! its executor to say (`Patron`).

mod several;

use std::any::type_name;
use std::fmt;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::Sender;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak};
use std::task::{Poll, Waker};
use std::time::{Duration, Instant};

use smallvec::SmallVec;

use crate::error::{PoolError, TaskError};
use crate::guard;
use crate::os::fork::Origin;
use crate::task::TaskId;
use crate::waiting::{self, Need, Owing, Target};

pub use several::{AsCompleted, Unfinished, Until, Waited, as_completed, wait};

/// The output of a task that was submitted, or the error that took its place, once it is there.
///
/// It can be awaited, too: it is a [`std::future::Future`] and needs no particular runtime.
pub struct Future<T> {
    core: Arc<Core<T>>,
    executor: Option<Weak<dyn Patron>>,
    /// Whether there may be a waker that ends with this.
    was_polled: bool,
}

/// Where a task stands, as its future sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum State {
    /// Waits for its turn.
    Pending,
    /// Was handed to a worker.
    Running,
    /// Has an output or an error.
    Finished,
    /// Was cancelled before it had either.
    Cancelled,
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Pending => "pending",
            Self::Running => "running",
            Self::Finished => "finished",
            Self::Cancelled => "cancelled",
        })
    }
}

/// The executor behind a future.
pub(crate) trait Patron: Send + Sync {
    /// Takes the task back if that is still possible.
    fn cancel(&self, id: TaskId) -> bool;

    /// Lets the thread of a caller who waits do what is to be done for that. Returns when the
    /// waiter is done, or when it has to wait like all others.
    fn fetch(&self, id: TaskId, waiter: &dyn Waiter) {
        let _ = (id, waiter);
    }

    /// A thread that runs tasks or callbacks is about to wait for this task, so it must not have
    /// to wait for that thread. Gives whether it can be run.
    fn hasten(self: Arc<Self>, id: TaskId) -> bool {
        let _ = id;
        true
    }
}

/// Somebody who waits for a future in an executor's own way.
pub(crate) trait Waiter {
    fn is_done(&self) -> bool;
    /// Notes who is to be nudged when it is done, for it may be done by somebody else.
    fn wake_by(&self, nudge: Option<Arc<dyn Nudge>>);
}

/// Wakes those who wait in an executor's own way.
pub(crate) trait Nudge: Send + Sync {
    fn nudge(&self);
}

/// What a promise and its future share.
pub(crate) struct Core<T> {
    id: TaskId,
    /// Only for [`Future::state`]: the executor alone knows, and says so when it hands the task
    /// over.
    running: AtomicBool,
    /// The process in which the promise is kept.
    origin: Origin,
    inner: Mutex<Inner<T>>,
    done: Condvar,
}

struct Inner<T> {
    stage: Stage<T>,
    /// Called with the result before anyone else sees it, in the order of their registration.
    callbacks: Vec<Callback<T>>,
    /// Told afterwards.
    watchers: SmallVec<[Watcher; 1]>,
    waker: Option<Waker>,
    nudge: Option<Arc<dyn Nudge>>,
    /// How many threads wait for `done`.
    waiting: usize,
}

type Callback<T> = Box<dyn FnOnce(&Result<T, TaskError>) + Send>;

/// One of those that wait for several futures.
struct Watcher {
    /// Which wait it is.
    sender: Arc<Sender<usize>>,
    /// Which of its futures this is.
    index: usize,
}

enum Stage<T> {
    Owed,
    /// Fulfilled, and the callbacks are looking at the result.
    Announcing,
    Here(Result<T, TaskError>),
    /// It was here before, and one more callback is looking at the result.
    Shown(Outcome),
    /// Handed over by a poll.
    Taken,
}

/// What is known of a result without it.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Outcome {
    Output,
    Error,
    Cancelled,
}

impl Outcome {
    fn of<T>(result: &Result<T, TaskError>) -> Self {
        match result {
            Ok(_) => Self::Output,
            Err(TaskError::Cancelled) => Self::Cancelled,
            Err(_) => Self::Error,
        }
    }
}

impl<T> Core<T> {
    fn lock(&self) -> MutexGuard<'_, Inner<T>> {
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        if self.origin.is_forked() && matches!(inner.stage, Stage::Owed | Stage::Announcing) {
            // The promise is kept in the parent process; what waits there is none of this one's.
            inner.callbacks.clear();
            inner.stage = Stage::Here(Err(TaskError::PoolBroken(PoolError::Forked)));
        }
        inner
    }

    fn wait_until_done(&self, deadline: Option<Instant>) -> Option<MutexGuard<'_, Inner<T>>> {
        let mut inner = self.lock();
        while matches!(inner.stage, Stage::Owed | Stage::Announcing) {
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
        guard::discard(std::mem::replace(&mut inner.stage, Stage::Taken));
    }
}

impl<T> Waiter for Core<T> {
    fn is_done(&self) -> bool {
        !matches!(self.lock().stage, Stage::Owed | Stage::Announcing)
    }

    fn wake_by(&self, nudge: Option<Arc<dyn Nudge>>) {
        self.lock().nudge = nudge;
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
    executor: Option<Weak<dyn Patron>>,
) -> (Promise<T>, Future<T>) {
    let core = Arc::new(Core {
        id,
        running: AtomicBool::new(false),
        origin: Origin::here(),
        inner: Mutex::new(Inner {
            stage: Stage::Owed,
            callbacks: Vec::new(),
            watchers: SmallVec::new(),
            waker: None,
            nudge: None,
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
        inner.stage = Stage::Announcing;
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
    fn show<'c>(
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
        inner.stage = Stage::Here(result);
        let waker = inner.waker.take();
        let watchers = std::mem::take(&mut inner.watchers);
        let nudge = inner.nudge.take();
        let is_awaited = inner.waiting > 0;
        drop(inner);
        if is_awaited {
            self.done.notify_all();
        }
        if let Some(nudge) = nudge {
            nudge.nudge();
        }
        if let Some(waker) = waker {
            let _ = guard::catch(|| waker.wake());
        }
        for Watcher { sender, index } in watchers {
            // The wait may have ended.
            let _ = sender.send(index);
        }
    }

    /// Takes the result, when it is there.
    fn take(&self, mut inner: MutexGuard<'_, Inner<T>>) -> Result<T, TaskError> {
        match std::mem::replace(&mut inner.stage, Stage::Taken) {
            Stage::Here(result) => result,
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
fn call<T>(callback: Callback<T>, result: &Result<T, TaskError>) {
    let _ = guard::catch(|| callback(result));
}

impl<T> Future<T> {
    /// Identifies the task: a key for what the caller knows about it.
    pub fn id(&self) -> TaskId {
        self.core.id
    }

    /// Waits for the output.
    ///
    /// A future that was awaited to its end has none any more: then this is
    /// [`TaskError::AlreadyTaken`]. A task or a callback may wait for any other task, also of the
    /// same executor; where a wait could never end, this is [`TaskError::WouldDeadlock`].
    pub fn result(self) -> Result<T, TaskError> {
        if !self.is_done() {
            let _waiting = waiting::begin([self.target()], Need::All)?;
            if let Some(executor) = self.executor.as_ref().and_then(Weak::upgrade) {
                executor.fetch(self.core.id, &*self.core);
            }
            return self.core.take(self.core.wait_until_done(None).expect("no deadline"));
        }
        self.core.take(self.core.lock())
    }

    /// Waits for the output, but no longer than `timeout`: then gives the future back. The task
    /// goes on all the same.
    pub fn result_timeout(self, timeout: Duration) -> Result<Result<T, TaskError>, Self> {
        match self.wait_for(timeout) {
            Ok(true) => Ok(self.core.take(self.core.lock())),
            Ok(false) => Err(self),
            Err(error) => Ok(Err(error)),
        }
    }

    /// Waits until the task is done, but no longer than `timeout`, and says whether it is. Where
    /// [`result`](Self::result) would give [`TaskError::WouldDeadlock`], this does not wait.
    pub fn wait_timeout(&self, timeout: Duration) -> bool {
        self.wait_for(timeout).unwrap_or(false)
    }

    fn wait_for(&self, timeout: Duration) -> Result<bool, TaskError> {
        if self.is_done() {
            return Ok(true);
        }
        // A deadline beyond what the clock can count is none.
        let deadline = Instant::now().checked_add(timeout);
        let need = if deadline.is_some() { Need::Time } else { Need::All };
        let _waiting = waiting::begin([self.target()], need)?;
        Ok(self.core.wait_until_done(deadline).is_some())
    }

    fn target(&self) -> Target<'_> {
        Target { id: self.core.id, executor: self.executor.as_ref() }
    }

    /// Whether there is an output or an error, so that [`result`](Self::result) will not wait.
    pub fn is_done(&self) -> bool {
        matches!(self.state(), State::Finished | State::Cancelled)
    }

    /// Where the task stands.
    pub fn state(&self) -> State {
        match &self.core.lock().stage {
            Stage::Here(Err(TaskError::Cancelled)) | Stage::Shown(Outcome::Cancelled) => {
                State::Cancelled
            }
            Stage::Here(_) | Stage::Shown(_) | Stage::Taken => State::Finished,
            Stage::Owed | Stage::Announcing if self.core.running.load(Ordering::Relaxed) => {
                State::Running
            }
            Stage::Owed | Stage::Announcing => State::Pending,
        }
    }

    /// Gives the task up, and says whether that succeeded: the future is then done, with
    /// [`TaskError::Cancelled`].
    ///
    /// A task that no worker has begun is not run, nor is one that waits for its next attempt run
    /// again. What becomes of a task that runs is for its executor to say:
    ///
    /// - A [`ProcessPool`](crate::ProcessPool) ends it together with its worker process, and starts
    ///   another one. Where a process runs several tasks at a time, which would be ended with it,
    ///   the task is left alone.
    /// - A [`ThreadPool`](crate::ThreadPool) leaves it alone: a thread cannot be ended.
    /// - With [`Sequential`](crate::Sequential) a future is never seen before its task is finished.
    pub fn cancel(&self) -> bool {
        let Some(executor) = self.executor.as_ref().and_then(Weak::upgrade) else {
            return false;
        };
        !self.is_done() && executor.cancel(self.core.id)
    }

    /// Calls `callback` with the result: at once if it is there, else when it comes, before it can
    /// be had from this future. Callbacks are called in the order in which they were added; one
    /// that panics is reported by the panic hook and harms no other.
    ///
    /// A [`ThreadPool`](crate::ThreadPool) calls it on the thread that ran the task. A
    /// [`ProcessPool`](crate::ProcessPool) has a thread for the callbacks of each worker's tasks,
    /// started with the first of them: it calls one after the other, so one that takes long delays
    /// those behind it, and no result without callbacks. A task that is cancelled, by
    /// [`cancel`](Self::cancel) or a shutdown, has its callbacks called on the thread that does so.
    ///
    /// A callback may submit tasks to the same executor and wait for them, or for others: while it
    /// waits, another thread goes on with the callbacks behind it. It cannot wait for its own
    /// future, nor can two callbacks wait for each other's futures: that is
    /// [`TaskError::WouldDeadlock`].
    ///
    /// A future that was awaited to its end has no result any more: `callback` is called with
    /// [`TaskError::AlreadyTaken`].
    pub fn on_done(&self, callback: impl FnOnce(&Result<T, TaskError>) + Send + 'static) {
        let mut inner = self.core.lock();
        match inner.stage {
            Stage::Owed | Stage::Announcing | Stage::Shown(_) => {
                inner.callbacks.push(Box::new(callback));
            }
            Stage::Taken => {
                drop(inner);
                call(Box::new(callback), &Err(TaskError::AlreadyTaken));
            }
            Stage::Here(ref result) => {
                // Looked at outside the lock, so that the callback may do what it likes.
                let shown = Stage::Shown(Outcome::of(result));
                let Stage::Here(result) = std::mem::replace(&mut inner.stage, shown) else {
                    unreachable!("just seen")
                };
                inner.callbacks.push(Box::new(callback));
                let mut inner = self.core.show(&result, inner);
                inner.stage = Stage::Here(result);
            }
        }
    }

    /// Has `index` sent when the task is done; false if it is already.
    fn watch(&self, sender: &Arc<Sender<usize>>, index: usize) -> bool {
        let mut inner = self.core.lock();
        let is_owed = matches!(inner.stage, Stage::Owed | Stage::Announcing);
        if is_owed {
            inner.watchers.push(Watcher { sender: Arc::clone(sender), index });
        }
        is_owed
    }

    /// Has nothing sent any more.
    fn unwatch(&self, sender: &Arc<Sender<usize>>) {
        let mut inner = self.core.lock();
        inner.watchers.retain(|watcher| !Arc::ptr_eq(&watcher.sender, sender));
        // What many waits at a time needed is not kept.
        if inner.watchers.is_empty() {
            inner.watchers.shrink_to_fit();
        }
    }

    fn failed(&self) -> bool {
        let stage = &self.core.lock().stage;
        matches!(stage, Stage::Here(Err(_)) | Stage::Shown(Outcome::Error | Outcome::Cancelled))
    }
}

impl<T> Drop for Future<T> {
    fn drop(&mut self) {
        // No task wants to be woken any more. What it shares ends outside the lock.
        if self.was_polled {
            let waker = self.core.lock().waker.take();
            guard::discard(waker);
        }
    }
}

impl<T> std::future::Future for Future<T> {
    type Output = Result<T, TaskError>;

    /// Once it was ready it has no result any more: it is ready with
    /// [`TaskError::AlreadyTaken`].
    fn poll(mut self: Pin<&mut Self>, context: &mut std::task::Context<'_>) -> Poll<Self::Output> {
        let waker = context.waker();
        let inner = self.core.lock();
        if !matches!(inner.stage, Stage::Owed | Stage::Announcing) {
            return Poll::Ready(self.core.take(inner));
        }
        let is_known = inner.waker.as_ref().is_some_and(|known| known.will_wake(waker));
        drop(inner);
        if !is_known {
            // Wakers are not ours: they are cloned and dropped outside the lock.
            let waker = waker.clone();
            let mut inner = self.core.lock();
            if !matches!(inner.stage, Stage::Owed | Stage::Announcing) {
                return Poll::Ready(self.core.take(inner));
            }
            let before = inner.waker.replace(waker);
            drop(inner);
            drop(before);
            self.was_polled = true;
        }
        waiting::may_follow(self.target());
        Poll::Pending
    }
}

/// Shows the state in the way of `concurrent.futures`: `<Future state=running>`,
/// `<Future state=finished returned u32>`, `<Future state=finished raised Panicked>`.
impl<T> fmt::Debug for Future<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = self.state();
        write!(f, "<Future state={state}")?;
        match &self.core.lock().stage {
            Stage::Here(Ok(_)) => write!(f, " returned {}", short_name(type_name::<T>()))?,
            Stage::Here(Err(error)) if state == State::Finished => {
                let whole = format!("{error:?}");
                let name = whole.split(|c: char| !c.is_alphanumeric()).next().unwrap_or_default();
                write!(f, " raised {name}")?;
            }
            _ => {}
        }
        f.write_str(">")
    }
}

/// `String` for `alloc::string::String`; a generic type is left as it is.
fn short_name(name: &str) -> &str {
    if name.contains('<') { name } else { name.rsplit("::").next().unwrap_or(name) }
}
