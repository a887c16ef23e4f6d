//! [`Awaiters`]: the threads, wakers, callbacks and channels that wait for the result of a future. Nothing in it depends on
//! the type of the result, so it is compiled once, and not for each type.

use std::any::Any;
use std::sync::{Arc, Condvar};
use std::task::Waker;

use smallvec::SmallVec;

use super::partials::PartialQueue;
use super::{Arrivals, Future, Wake};
use crate::panics;

/// What waits for the result of one future.
#[derive(Default)]
pub(super) struct Awaiters {
    pub(super) before_ready: Option<Box<BeforeReady>>,
    /// Waits for several futures, which get a message when the result is there.
    pub(super) watchers: SmallVec<[Watcher; 1]>,
    pub(super) waker: Option<Waker>,
    pub(super) wake: Option<Arc<dyn Wake>>,
    /// The values that the task emits. `None`: there are none, and they were not asked for.
    pub(super) partials: Option<Arc<PartialQueue>>,
    /// Number of threads that wait for `done`.
    pub(super) waiting: usize,
}

/// What is called with the result before it can be had.
#[derive(Default)]
pub(super) struct BeforeReady {
    /// In the order in which they were added.
    callbacks: Vec<Callback>,
    /// Takes the result in place of the future, which was mapped. Called last.
    continuation: Option<Continuation>,
}

impl Awaiters {
    pub(super) fn add_callback(&mut self, callback: Callback) {
        self.before_ready.get_or_insert_default().callbacks.push(callback);
    }

    pub(super) fn set_continuation(&mut self, continuation: Continuation) {
        self.before_ready.get_or_insert_default().continuation = Some(continuation);
    }

    pub(super) fn take_callbacks(&mut self) -> Vec<Callback> {
        let before = self.before_ready.as_mut();
        before.map(|before| std::mem::take(&mut before.callbacks)).unwrap_or_default()
    }

    pub(super) fn take_continuation(&mut self) -> Option<Continuation> {
        self.before_ready.take()?.continuation
    }

    /// The queue of the values that the task emits.
    pub(super) fn partials(&mut self) -> Arc<PartialQueue> {
        Arc::clone(self.partials.get_or_insert_with(|| Arc::new(PartialQueue::new())))
    }

    fn unwatch(&mut self, sender: &Arc<Arrivals>) {
        self.watchers.retain(|watcher| !Arc::ptr_eq(&watcher.sender, sender));
        // The memory that many simultaneous waits needed is not kept.
        if self.watchers.is_empty() {
            self.watchers.shrink_to_fit();
        }
    }

    /// Takes out what is notified of the result. The caller notifies it after it has released the lock.
    pub(super) fn take(&mut self) -> TakenAwaiters {
        TakenAwaiters {
            wake: self.wake.take(),
            waker: self.waker.take(),
            watchers: std::mem::take(&mut self.watchers),
            is_awaited: self.waiting > 0,
        }
    }
}

/// It is called with a `&Result<T, TaskError>`.
pub(super) type Callback = Box<dyn FnOnce(&dyn Any) + Send>;

/// It is called with an `Option<Result<T, TaskError>>`, out of which it takes the result.
type Continuation = Box<dyn FnOnce(&mut dyn Any) + Send>;

/// A wait for several futures, in one of these.
pub(crate) struct Watcher {
    /// Identifies the wait.
    pub(crate) sender: Arc<Arrivals>,
    /// Index of this future in the wait.
    pub(crate) index: usize,
}

/// What is notified of the result, taken out of [`Awaiters`].
pub(super) struct TakenAwaiters {
    wake: Option<Arc<dyn Wake>>,
    waker: Option<Waker>,
    watchers: SmallVec<[Watcher; 1]>,
    /// Threads wait for it.
    is_awaited: bool,
}

impl TakenAwaiters {
    pub(super) fn notify(self, done: &Condvar) {
        let Self { wake, waker, watchers, is_awaited } = self;
        if is_awaited {
            done.notify_all();
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
}

/// Calls callbacks with a result. A panic in one is reported by the panic hook and otherwise ignored.
pub(super) fn call_each(callbacks: Vec<Callback>, result: &dyn Any) {
    for callback in callbacks {
        let _ = panics::catch(|| callback(result));
    }
}

impl<T> Future<T> {
    /// Sends `index` when the task is done. Returns false if it is done already.
    pub(crate) fn watch(&self, sender: &Arc<Arrivals>, index: usize) -> bool {
        let mut inner = self.core.lock();
        let is_pending = !inner.is_done();
        if is_pending {
            inner.awaiters.watchers.push(Watcher { sender: Arc::clone(sender), index });
        }
        is_pending
    }

    /// Ends a [`watch`](Self::watch).
    pub(super) fn unwatch(&self, sender: &Arc<Arrivals>) {
        self.core.lock().awaiters.unwatch(sender);
    }
}
