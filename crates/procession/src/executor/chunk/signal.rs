//! [`ConsumerSignal`]: what the consumer of a chunk's results sleeps on.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// Wakes one thread. It has a lock of its own: a [`Condvar`] cannot wait with the lock of the results, which guards a
/// value of no known size ([`ResultsCore`](super::results_core::ResultsCore)).
#[derive(Default)]
pub(super) struct ConsumerSignal {
    is_set: Mutex<bool>,
    changed: Condvar,
}

impl ConsumerSignal {
    fn lock(&self) -> MutexGuard<'_, bool> {
        self.is_set.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Forgets an earlier [`set`](Self::set). Called under the lock of the results, when the consumer says there what
    /// it waits for.
    pub(super) fn reset(&self) {
        *self.lock() = false;
    }

    pub(super) fn set(&self) {
        *self.lock() = true;
        self.changed.notify_one();
    }

    /// Waits until `is_enough`, which looks at the results. If they are not enough, it says under their lock what is
    /// awaited, and calls [`reset`](Self::reset). The first wait lasts at most for `timeout`; after it, `is_enough` is
    /// called with `true`.
    pub(super) fn wait_until(&self, timeout: Duration, is_enough: &dyn Fn(bool) -> bool) {
        let mut timeout = Some(timeout);
        while !is_enough(timeout.is_none()) {
            self.wait(timeout.take());
        }
    }

    /// Waits until it is set, at most for `timeout`. It may be set by what the consumer waited for before.
    fn wait(&self, timeout: Option<Duration>) {
        let is_set = self.lock();
        let is_unset = |is_set: &mut bool| !*is_set;
        match timeout {
            Some(timeout) => drop(self.changed.wait_timeout_while(is_set, timeout, is_unset)),
            None => drop(self.changed.wait_while(is_set, is_unset)),
        }
    }
}
