//! Calls callbacks in order, without blocking the threads that complete futures.
//!
//! A thread that completes futures, such as the handler of a worker, puts the calls of their callbacks
//! into a [`CallQueue`]. The queue starts a thread with the first call, which makes one call after the
//! other. When a callback waits for a task, another thread continues the queue, because the awaited
//! result may depend on a call behind it.
//!
//! A thread of the caller that completes futures, by a cancel or a shutdown, calls the callbacks
//! itself after all of these futures are completed: see [`deliver`].

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

use crate::panics;
use crate::waiting::{self, CallSink, CallSinkGuard, CallbackCall, HandOver, RoleGuard};
use procession_os::threads::ThreadSpec;

/// Calls that are made in order on behalf of an executor.
pub(crate) struct CallQueue {
    executor: usize,
    /// Stack size of its threads, in bytes. `None`: the default of the standard library.
    stack: Option<usize>,
    inner: Mutex<CallQueueState>,
    /// Notified when there is a call for the idle thread, or the queue is closed.
    has_work: Condvar,
    /// Notified when a thread has no call to make.
    returned: Condvar,
}

#[derive(Default)]
struct CallQueueState {
    calls: VecDeque<CallbackCall>,
    /// Number of calls that have begun and not returned.
    running: usize,
    /// A thread makes the calls, and is not replaced.
    is_served: bool,
    /// A thread waits for the next call.
    is_idle: bool,
    /// No thread waits for a next call.
    is_closed: bool,
    threads: Vec<JoinHandle<()>>,
}

impl CallQueue {
    /// A queue that starts a thread for the first call.
    pub(crate) fn new(executor: usize, stack: Option<usize>) -> Arc<Self> {
        Self::with(executor, stack, CallQueueState::default())
    }

    fn with(executor: usize, stack: Option<usize>, inner: CallQueueState) -> Arc<Self> {
        let (has_work, returned) = (Condvar::new(), Condvar::new());
        Arc::new(Self { executor, stack, inner: Mutex::new(inner), has_work, returned })
    }

    fn lock(&self) -> MutexGuard<'_, CallQueueState> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes calls until there are none, or another thread makes them. With `may_idle`, one thread
    /// waits for the next call.
    fn serve<'q>(
        &'q self,
        mut inner: MutexGuard<'q, CallQueueState>,
        role: &RoleGuard,
        may_idle: bool,
    ) {
        loop {
            if let Some(call) = inner.calls.pop_front() {
                inner.running += 1;
                drop(inner);
                let _ = panics::catch(call);
                inner = self.lock();
                inner.running -= 1;
                if role.is_replaced() {
                    if inner.is_served {
                        break;
                    }
                    inner.is_served = true;
                    role.set_taken_back();
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

    /// Lets another thread make the calls. Returns false if none can be started.
    fn use_other_thread(self: &Arc<Self>, inner: &mut CallQueueState) -> bool {
        if inner.is_idle {
            self.has_work.notify_one();
            return true;
        }
        let queue = Arc::clone(self);
        let spawned = ThreadSpec::new("callbacks").with_stack(self.stack).start(move || {
            let replaceable = Arc::clone(&queue) as Arc<dyn HandOver>;
            let role = RoleGuard::serves(queue.executor, Some(replaceable));
            queue.serve(queue.lock(), &role, true);
        });
        let Ok(thread) = spawned else { return false };
        inner.is_served = true;
        inner.threads.retain(|thread| !thread.is_finished());
        inner.threads.push(thread);
        true
    }

    /// Lets the threads end after the last call.
    pub(crate) fn close(&self) {
        self.lock().is_closed = true;
        self.has_work.notify_all();
    }

    /// Waits until all calls have returned.
    fn await_all(&self) -> MutexGuard<'_, CallQueueState> {
        let mut inner = self.lock();
        while inner.running > 0 || !inner.calls.is_empty() {
            inner = self.returned.wait(inner).unwrap_or_else(PoisonError::into_inner);
        }
        inner
    }

    /// Waits until all calls have returned and all threads have ended.
    pub(crate) fn finish(&self) {
        self.close();
        let threads = std::mem::take(&mut self.await_all().threads);
        for thread in threads {
            let _ = thread.join();
        }
    }
}

impl CallSink for CallQueue {
    fn call(self: Arc<Self>, call: CallbackCall) {
        let mut inner = self.lock();
        inner.calls.push_back(call);
        if inner.is_served || self.use_other_thread(&mut inner) {
            return;
        }
        // No thread can be started: the calls are made here. This thread cannot be replaced, so waits
        // for tasks of the executor are refused.
        inner.is_served = true;
        self.serve(inner, &RoleGuard::delivers(self.executor), false);
    }
}

impl HandOver for CallQueue {
    fn hand_over(self: Arc<Self>) -> bool {
        let mut inner = self.lock();
        inner.is_served = false;
        if inner.calls.is_empty() || self.use_other_thread(&mut inner) {
            return true;
        }
        inner.is_served = true;
        false
    }

    fn take_back(&self) -> bool {
        !std::mem::replace(&mut self.lock().is_served, true)
    }
}

/// The queues of an executor, closed on drop.
pub(crate) struct CallQueues(Vec<Arc<CallQueue>>);

impl CallQueues {
    pub(crate) fn new(executor: usize, number: usize, stack: Option<usize>) -> Self {
        Self((0..number).map(|_| CallQueue::new(executor, stack)).collect())
    }

    /// The queue of this number, or the last one.
    pub(crate) fn get(&self, number: usize) -> Arc<CallQueue> {
        Arc::clone(self.0.get(number).unwrap_or_else(|| self.0.last().expect("at least one")))
    }

    /// Waits until all calls have returned and all threads have ended.
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

/// The address that identifies an executor.
pub(crate) fn address<E>(executor: &E) -> usize {
    waiting::address(std::ptr::from_ref(executor))
}

/// Whether this thread is in a callback, a task or a completion of this executor.
pub(crate) fn is_within<E>(executor: &E) -> bool {
    waiting::is_within(address(executor))
}

/// Completes futures, on any thread. On a thread without a sink for calls, the callbacks are called
/// after all futures are completed: a callback may wait for another of them.
pub(crate) fn deliver<E, R>(executor: &E, complete: impl FnOnce() -> R) -> R {
    deliver_for(address(executor), complete)
}

/// The same for an executor that has this address.
pub(super) fn deliver_for<R>(executor: usize, complete: impl FnOnce() -> R) -> R {
    if waiting::has_sink() {
        let _role = RoleGuard::delivers(executor);
        return complete();
    }
    let has_role = waiting::has_role();
    let queue = CallQueue::with(
        executor,
        None,
        CallQueueState { is_served: true, ..CallQueueState::default() },
    );
    let sink = CallSinkGuard::new(Arc::clone(&queue) as Arc<dyn CallSink>);
    let role = RoleGuard::delivers(executor);
    let result = complete();
    drop((role, sink));
    queue.close();
    let inner = queue.lock();
    if !inner.calls.is_empty() {
        let replaceable = Arc::clone(&queue) as Arc<dyn HandOver>;
        let role = RoleGuard::serves(executor, Some(replaceable));
        queue.serve(inner, &role, false);
        drop(role);
        if !has_role {
            drop(queue.await_all());
        }
    }
    result
}
