//! Calls callbacks in order, so that one that waits for a task keeps nothing from going on.
//!
//! Whoever completes a future has more to do: a handler thread has the next replies to read. So it
//! puts the calls into a [`CallQueue`], which has a thread of its own as soon as there is a call,
//! and that thread takes one call after the other. When a callback begins to wait for a task,
//! another thread goes on with the queue, for the result that is waited for may lie behind it
//! there.
//!
//! A thread of the caller that completes futures (by a cancel, or a shutdown) calls their callbacks
//! itself, when all of them are completed: see [`deliver`].

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

use crate::panics;
use crate::waiting::{self, Acting, Call, ReplySender, StandIn, Through};
use procession_os::threads::ThreadSpec;

/// Calls that are made in order on behalf of an executor.
pub(crate) struct CallQueue {
    executor: usize,
    /// Of its threads, in bytes, where it is not the usual one.
    stack: Option<usize>,
    inner: Mutex<Inner>,
    /// Signalled when there is a call for the thread that is idle, or none to come.
    has_work: Condvar,
    /// Signalled when calls have returned.
    returned: Condvar,
}

#[derive(Default)]
struct Inner {
    calls: VecDeque<Call>,
    /// How many have begun and not returned.
    running: usize,
    /// A thread takes one call after the other, and does not wait for anything else.
    is_served: bool,
    /// A thread waits for the next call.
    is_idle: bool,
    /// No thread is to wait for the next call.
    is_closed: bool,
    threads: Vec<JoinHandle<()>>,
}

impl CallQueue {
    /// A queue that starts a thread for the first call.
    pub(crate) fn new(executor: usize, stack: Option<usize>) -> Arc<Self> {
        Self::with(executor, stack, Inner::default())
    }

    fn with(executor: usize, stack: Option<usize>, inner: Inner) -> Arc<Self> {
        let (has_work, returned) = (Condvar::new(), Condvar::new());
        Arc::new(Self { executor, stack, inner: Mutex::new(inner), has_work, returned })
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes one call after the other until there is none, or another thread does so.
    fn serve<'q>(&'q self, mut inner: MutexGuard<'q, Inner>, acting: &Acting, may_idle: bool) {
        loop {
            if let Some(call) = inner.calls.pop_front() {
                inner.running += 1;
                drop(inner);
                let _ = panics::catch(call);
                inner = self.lock();
                inner.running -= 1;
                if acting.is_away() {
                    if inner.is_served {
                        break;
                    }
                    inner.is_served = true;
                    acting.is_back();
                }
            } else {
                inner.is_served = false;
                if !may_idle || inner.is_idle || inner.is_closed {
                    break;
                }
                self.returned.notify_all();
                inner.is_idle = true;
                while (inner.calls.is_empty() || inner.is_served) && !inner.is_closed {
                    inner = self.has_work.wait(inner).unwrap_or_else(PoisonError::into_inner);
                }
                inner.is_idle = false;
                if inner.calls.is_empty() || inner.is_served {
                    break;
                }
                inner.is_served = true;
            }
        }
        drop(inner);
        self.returned.notify_all();
    }

    /// Has the queue served by another thread; false if none can be started.
    fn find_thread(self: &Arc<Self>, inner: &mut Inner) -> bool {
        if inner.is_idle {
            self.has_work.notify_one();
            return true;
        }
        let queue = Arc::clone(self);
        let spawned = ThreadSpec::new("callbacks").with_stack(self.stack).start(move || {
            let stand_in = Arc::clone(&queue) as Arc<dyn StandIn>;
            let acting = Acting::serves(queue.executor, Some(stand_in));
            queue.serve(queue.lock(), &acting, true);
        });
        let Ok(thread) = spawned else { return false };
        inner.is_served = true;
        inner.threads.retain(|thread| !thread.is_finished());
        inner.threads.push(thread);
        true
    }

    /// Lets the threads end when all calls are made.
    pub(crate) fn close(&self) {
        self.lock().is_closed = true;
        self.has_work.notify_all();
    }

    /// Waits until all calls were made.
    fn await_all(&self) -> MutexGuard<'_, Inner> {
        let mut inner = self.lock();
        while inner.running > 0 || !inner.calls.is_empty() {
            inner = self.returned.wait(inner).unwrap_or_else(PoisonError::into_inner);
        }
        inner
    }

    /// Waits until all calls were made and no thread is left.
    pub(crate) fn finish(&self) {
        self.close();
        let threads = std::mem::take(&mut self.await_all().threads);
        for thread in threads {
            let _ = thread.join();
        }
    }
}

impl ReplySender for CallQueue {
    fn call(self: Arc<Self>, call: Call) {
        let mut inner = self.lock();
        inner.calls.push_back(call);
        if inner.is_served || self.find_thread(&mut inner) {
            return;
        }
        // Without a thread the calls are made here. This thread cannot be replaced, so waits for
        // its own executor are refused.
        inner.is_served = true;
        self.serve(inner, &Acting::delivers(self.executor), false);
    }
}

impl StandIn for CallQueue {
    fn leave(self: Arc<Self>) -> bool {
        let mut inner = self.lock();
        inner.is_served = false;
        if inner.calls.is_empty() || self.find_thread(&mut inner) {
            return true;
        }
        inner.is_served = true;
        false
    }

    fn come_back(&self) -> bool {
        !std::mem::replace(&mut self.lock().is_served, true)
    }
}

/// The queues of an executor, which are closed with it.
pub(crate) struct CallQueues(Vec<Arc<CallQueue>>);

impl CallQueues {
    pub(crate) fn new(executor: usize, number: usize, stack: Option<usize>) -> Self {
        Self((0..number).map(|_| CallQueue::new(executor, stack)).collect())
    }

    /// The queue of this number, or the last one.
    pub(crate) fn get(&self, number: usize) -> Arc<CallQueue> {
        Arc::clone(self.0.get(number).unwrap_or_else(|| self.0.last().expect("at least one")))
    }

    /// Waits until all calls were made and no thread is left.
    pub(crate) fn finish(&self) {
        for queue in &self.0 {
            queue.finish();
        }
    }
}

impl Drop for CallQueues {
    fn drop(&mut self) {
        for queue in &self.0 {
            queue.close();
        }
    }
}

/// The address of an executor's heart.
pub(crate) fn address<E>(executor: &E) -> usize {
    waiting::address(std::ptr::from_ref(executor))
}

/// Whether this thread is in a callback, a task or a delivery of this executor.
pub(crate) fn is_within<E>(executor: &E) -> bool {
    waiting::is_within(address(executor))
}

/// Completes futures on whatever thread this is. On a thread of the caller, their callbacks are
/// called when all are completed: one of them may wait for another of these futures.
pub(crate) fn deliver<E, R>(executor: &E, complete: impl FnOnce() -> R) -> R {
    let executor = address(executor);
    if waiting::has_outlet() {
        let _acting = Acting::delivers(executor);
        return complete();
    }
    let has_role = waiting::has_role();
    let queue = CallQueue::with(executor, None, Inner { is_served: true, ..Inner::default() });
    let through = Through::reply_sender(Arc::clone(&queue) as Arc<dyn ReplySender>);
    let acting = Acting::delivers(executor);
    let result = complete();
    drop((acting, through));
    queue.close();
    let inner = queue.lock();
    if !inner.calls.is_empty() {
        let stand_in = Arc::clone(&queue) as Arc<dyn StandIn>;
        let acting = Acting::serves(executor, Some(stand_in));
        queue.serve(inner, &acting, false);
        drop(acting);
        if !has_role {
            drop(queue.await_all());
        }
    }
    result
}
