//! What is owed: a [`Future`] stands for the output of a submitted task until it is there, and
//! [`as_completed`] and [`wait`] deal with many of them.
//!
//! A future has two sides. The executor holds a `Promise` and fulfils it once, with the output or
//! with a typed error. The caller holds the [`Future`] and may block on it, poll it, await it, hang
//! callbacks on it, or drop it, at any time, without disturbing the task.
//!
//! Nothing here starts, stops or schedules anything; whether a task may still be cancelled is for
//! its executor to say (`TaskControl`).

mod core;
mod several;

use std::any::type_name;
use std::fmt;
use std::pin::Pin;
use std::sync::atomic::Ordering;
use std::sync::mpsc::Sender;
use std::sync::{Arc, Weak};
use std::task::Poll;
use std::time::{Duration, Instant};

use crate::error::TaskError;
use crate::panics;
use crate::task::TaskId;
use crate::waiting::{self, Need, Target};

pub(crate) use self::core::{Core, Promise, promise};
use self::core::{Outcome, Stage, Watcher, call};
pub use several::{AsCompleted, Unfinished, Until, Waited, as_completed, wait};

/// The output of a task that was submitted, or the error that took its place, once it is there.
///
/// It can be awaited, too: it is a [`std::future::Future`] and needs no particular runtime.
pub struct Future<T> {
    core: Arc<Core<T>>,
    executor: Option<Weak<dyn TaskControl>>,
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
pub(crate) trait TaskControl: Send + Sync {
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
    fn wake_by(&self, wake: Option<Arc<dyn Wake>>);
}

/// Wakes those who wait in an executor's own way.
pub(crate) trait Wake: Send + Sync {
    fn wake(&self);
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
            Stage::Ready(Err(TaskError::Cancelled)) | Stage::Shown(Outcome::Cancelled) => {
                State::Cancelled
            }
            Stage::Ready(_) | Stage::Shown(_) | Stage::Consumed => State::Finished,
            Stage::Pending | Stage::Notifying if self.core.running.load(Ordering::Relaxed) => {
                State::Running
            }
            Stage::Pending | Stage::Notifying => State::Pending,
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
            Stage::Pending | Stage::Notifying | Stage::Shown(_) => {
                inner.callbacks.push(Box::new(callback));
            }
            Stage::Consumed => {
                drop(inner);
                call(Box::new(callback), &Err(TaskError::AlreadyTaken));
            }
            Stage::Ready(ref result) => {
                // Looked at outside the lock, so that the callback may do what it likes.
                let shown = Stage::Shown(Outcome::of(result));
                let Stage::Ready(result) = std::mem::replace(&mut inner.stage, shown) else {
                    unreachable!("just seen")
                };
                inner.callbacks.push(Box::new(callback));
                let mut inner = self.core.show(&result, inner);
                inner.stage = Stage::Ready(result);
            }
        }
    }

    /// Has `index` sent when the task is done; false if it is already.
    fn watch(&self, sender: &Arc<Sender<usize>>, index: usize) -> bool {
        let mut inner = self.core.lock();
        let is_owed = matches!(inner.stage, Stage::Pending | Stage::Notifying);
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
        matches!(stage, Stage::Ready(Err(_)) | Stage::Shown(Outcome::Error | Outcome::Cancelled))
    }
}

impl<T> Drop for Future<T> {
    fn drop(&mut self) {
        // No task wants to be woken any more. What it shares ends outside the lock.
        if self.was_polled {
            let waker = self.core.lock().waker.take();
            panics::discard(waker);
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
        if !matches!(inner.stage, Stage::Pending | Stage::Notifying) {
            return Poll::Ready(self.core.take(inner));
        }
        let is_known = inner.waker.as_ref().is_some_and(|known| known.will_wake(waker));
        drop(inner);
        if !is_known {
            // Wakers are not ours: they are cloned and dropped outside the lock.
            let waker = waker.clone();
            let mut inner = self.core.lock();
            if !matches!(inner.stage, Stage::Pending | Stage::Notifying) {
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
            Stage::Ready(Ok(_)) => write!(f, " returned {}", short_name(type_name::<T>()))?,
            Stage::Ready(Err(error)) if state == State::Finished => {
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
