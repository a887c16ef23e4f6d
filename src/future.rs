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

use crate::error::TaskError;
use crate::guard;
use crate::task::TaskId;

pub use several::{AsCompleted, Unfinished, Until, Waited, as_completed, wait};

/// The output of a task that was submitted, or the error that took its place, once it is there.
///
/// It can be awaited, too: it is a [`std::future::Future`] and needs no particular runtime.
pub struct Future<T> {
    core: Arc<Core<T>>,
    executor: Option<Weak<dyn Patron>>,
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
    inner: Mutex<Inner<T>>,
    done: Condvar,
}

struct Inner<T> {
    stage: Stage<T>,
    /// Called with the result before anyone else sees it, in the order of their registration.
    callbacks: Vec<Callback<T>>,
    /// Told afterwards.
    watchers: SmallVec<[(Sender<usize>, usize); 1]>,
    waker: Option<Waker>,
    nudge: Option<Arc<dyn Nudge>>,
    /// How many threads wait for `done`.
    waiting: usize,
}

type Callback<T> = Box<dyn FnOnce(&Result<T, TaskError>) + Send>;

enum Stage<T> {
    Owed,
    /// Fulfilled, and the callbacks are looking at the result.
    Announcing,
    Here(Result<T, TaskError>),
    /// Handed over by a poll.
    Taken,
}

impl<T> Core<T> {
    fn lock(&self) -> MutexGuard<'_, Inner<T>> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
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
pub(crate) struct Promise<T> {
    core: Arc<Core<T>>,
    kept: bool,
}

/// A promise and the future that it is made to; `executor` is asked when the future is cancelled.
pub(crate) fn promise<T>(
    id: TaskId,
    executor: Option<Weak<dyn Patron>>,
) -> (Promise<T>, Future<T>) {
    let core = Arc::new(Core {
        id,
        running: AtomicBool::new(false),
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
    (Promise { core: Arc::clone(&core), kept: false }, Future { core, executor })
}

impl<T> Promise<T> {
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

    pub(crate) fn keep(&self, result: Result<T, TaskError>) {
        let mut inner = self.lock();
        inner.stage = Stage::Announcing;
        // A callback may take its time, and others may be added meanwhile: never under the lock.
        loop {
            let callbacks = std::mem::take(&mut inner.callbacks);
            if callbacks.is_empty() {
                break;
            }
            drop(inner);
            for callback in callbacks {
                call(callback, &result);
            }
            inner = self.lock();
        }
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
        for (watcher, index) in watchers {
            // Whoever watched may have lost interest.
            let _ = watcher.send(index);
        }
    }
}

impl<T> Drop for Promise<T> {
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
    /// # Panics
    ///
    /// If the future was awaited to its end before.
    pub fn result(self) -> Result<T, TaskError> {
        if let Some(executor) = self.executor.as_ref().and_then(Weak::upgrade)
            && !self.is_done()
        {
            executor.fetch(self.core.id, &*self.core);
        }
        let mut inner = self.core.wait_until_done(None).expect("no deadline");
        match std::mem::replace(&mut inner.stage, Stage::Taken) {
            Stage::Here(result) => result,
            _ => panic!("the result of this future was already taken"),
        }
    }

    /// Waits for the output, but no longer than `timeout`: then gives the future back. The task
    /// goes on all the same.
    pub fn result_timeout(self, timeout: Duration) -> Result<Result<T, TaskError>, Self> {
        if self.wait_timeout(timeout) { Ok(self.result()) } else { Err(self) }
    }

    /// Waits until the task is done, but no longer than `timeout`, and says whether it is.
    pub fn wait_timeout(&self, timeout: Duration) -> bool {
        // A deadline beyond what the clock can count is none.
        self.core.wait_until_done(Instant::now().checked_add(timeout)).is_some()
    }

    /// Whether there is an output or an error, so that [`result`](Self::result) will not wait.
    pub fn is_done(&self) -> bool {
        matches!(self.state(), State::Finished | State::Cancelled)
    }

    /// Where the task stands.
    pub fn state(&self) -> State {
        match &self.core.lock().stage {
            Stage::Here(Err(TaskError::Cancelled)) => State::Cancelled,
            Stage::Here(_) | Stage::Taken => State::Finished,
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
    /// be had from this future, on the thread that brings it. Callbacks are called in the order
    /// in which they were added; one that panics is reported by the panic hook and harms nobody.
    ///
    /// In a [`ProcessPool`](crate::ProcessPool) nothing else that a worker replies is heard while a
    /// callback for one of its tasks runs: one that takes long belongs on a thread of its own, and
    /// one that waited for another task of the same executor might wait for ever.
    ///
    /// A future that was awaited to its end has no result any more, and `callback` is dropped.
    pub fn on_done(&self, callback: impl FnOnce(&Result<T, TaskError>) + Send + 'static) {
        let mut inner = self.core.lock();
        match inner.stage {
            Stage::Owed | Stage::Announcing => inner.callbacks.push(Box::new(callback)),
            Stage::Taken => {}
            Stage::Here(_) => {
                // Looked at outside the lock, so that the callback may do what it likes.
                let Stage::Here(result) = std::mem::replace(&mut inner.stage, Stage::Announcing)
                else {
                    unreachable!("just seen")
                };
                drop(inner);
                self.core.announce(callback, result);
            }
        }
    }

    /// Sends `index` when the task is done, at once if it is.
    fn watch(&self, watcher: &Sender<usize>, index: usize) {
        let mut inner = self.core.lock();
        if matches!(inner.stage, Stage::Owed | Stage::Announcing) {
            inner.watchers.push((watcher.clone(), index));
        } else {
            drop(inner);
            let _ = watcher.send(index);
        }
    }

    fn failed(&self) -> bool {
        // It is done; at most a callback is looking at the result just now.
        let inner = self.core.wait_until_done(None).expect("no deadline");
        matches!(&inner.stage, Stage::Here(Err(_)))
    }
}

impl<T> Core<T> {
    /// Shows a result that was there already to one more callback, and puts it back.
    fn announce(
        &self,
        callback: impl FnOnce(&Result<T, TaskError>) + Send + 'static,
        result: Result<T, TaskError>,
    ) {
        call(Box::new(callback), &result);
        self.keep(result);
    }
}

impl<T> std::future::Future for Future<T> {
    type Output = Result<T, TaskError>;

    fn poll(self: Pin<&mut Self>, context: &mut std::task::Context<'_>) -> Poll<Self::Output> {
        let mut inner = self.core.lock();
        match inner.stage {
            Stage::Owed | Stage::Announcing => {
                inner.waker = Some(context.waker().clone());
                Poll::Pending
            }
            Stage::Here(_) | Stage::Taken => {
                match std::mem::replace(&mut inner.stage, Stage::Taken) {
                    Stage::Here(result) => Poll::Ready(result),
                    _ => panic!("this future was awaited to its end before"),
                }
            }
        }
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
