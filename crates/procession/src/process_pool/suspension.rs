//! Stops all worker processes of this program while the program itself is stopped, for a program
//! that handles SIGTSTP.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use rustix::process::Signal;

use super::inner::PoolInner;
use super::supervisor::Order;

fn pools() -> MutexGuard<'static, Vec<Weak<PoolInner>>> {
    static POOLS: Mutex<Vec<Weak<PoolInner>>> = Mutex::new(Vec::new());
    POOLS.lock().unwrap_or_else(PoisonError::into_inner)
}

pub(super) fn note(shared: &Arc<PoolInner>) {
    let mut pools = pools();
    pools.retain(|pool| pool.strong_count() > 0);
    pools.push(Arc::downgrade(shared));
}

/// Stops (SIGSTOP) the workers of all process pools of this program, with what their tasks started.
/// Deadlines do not count the time until [`resume_all`].
///
/// A program that handles SIGTSTP calls this before it stops itself: its workers are in process
/// groups of their own, so the terminal does not stop them.
pub fn suspend_all() {
    each(|shared| {
        shared.clock.stop();
        shared.signal_workers(Signal::STOP);
    });
}

/// Continues (SIGCONT) the workers that [`suspend_all`] stopped.
pub fn resume_all() {
    each(|shared| {
        shared.signal_workers(Signal::CONT);
        shared.clock.go_on();
        let _ = shared.orders.send(Order::WakeEarlier);
    });
}

fn each(act: impl Fn(&PoolInner)) {
    // Bound first: the last reference to a pool must not be dropped under the lock.
    let pools: Vec<_> = pools().iter().filter_map(Weak::upgrade).collect();
    pools.iter().for_each(|shared| act(shared));
}

impl PoolInner {
    fn signal_workers(&self, signal: Signal) {
        for handle in self.lock_state().handles.values() {
            if let Some(child) = handle.child.get() {
                child.signal(signal);
            }
        }
    }
}
