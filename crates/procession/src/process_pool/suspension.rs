//! Stops and continues the worker processes of all pools, for programs that handle SIGTSTP.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use rustix::process::Signal;

use super::inner::PoolInner;
use super::supervisor::SupervisorMessage;

fn pools() -> MutexGuard<'static, Vec<Weak<PoolInner>>> {
    static POOLS: Mutex<Vec<Weak<PoolInner>>> = Mutex::new(Vec::new());
    POOLS.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Adds a pool to those that [`suspend_all`] stops.
pub(super) fn register(pool: &Arc<PoolInner>) {
    let mut pools = pools();
    pools.retain(|pool| pool.strong_count() > 0);
    pools.push(Arc::downgrade(pool));
}

/// Sends SIGSTOP to the process groups of all workers of all process pools of this program. Timeouts
/// do not count the time until [`resume_all`].
///
/// For a program that handles SIGTSTP: it calls this before it stops itself. The terminal does not
/// stop the workers, because each leads a process group of its own.
///
/// ```
/// procession::suspend_all(); // this program has no pool: nothing to suspend
/// procession::resume_all();
/// ```
pub fn suspend_all() {
    for_each_pool(|pool| {
        pool.clock.stop();
        pool.signal_workers(Signal::STOP);
    });
}

/// Sends SIGCONT to the workers that [`suspend_all`] stopped, and lets timeouts count again.
///
/// ```
/// fn at_the_end_of_a_pause() {
///     procession::resume_all();
/// }
/// ```
pub fn resume_all() {
    for_each_pool(|pool| {
        pool.signal_workers(Signal::CONT);
        pool.clock.resume();
        let _ = pool.supervisor.send(SupervisorMessage::CheckAgain);
    });
}

fn for_each_pool(act: impl Fn(&PoolInner)) {
    // The lock is released before the calls: the last reference to a pool may be dropped after one.
    let pools: Vec<_> = pools().iter().filter_map(Weak::upgrade).collect();
    pools.iter().for_each(|pool| act(pool));
}

impl PoolInner {
    fn signal_workers(&self, signal: Signal) {
        for handle in self.lock_state().handles.values() {
            if let Some(child) = handle.child() {
                child.signal(signal);
            }
        }
    }
}
