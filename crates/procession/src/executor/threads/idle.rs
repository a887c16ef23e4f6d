//! [`IdleThreads`]: the threads of a pool that have no task, so that each is woken once.
//!
//! A wake-up is a system call, and a caller can submit many more short tasks before the woken thread begins. So a
//! thread that was woken is not woken again before it has the lock.

/// Guarded by the lock of the queue.
///
/// A thread that sleeps [is back](Self::is_back) when it has the lock again, whatever woke it. At most `number - woken`
/// threads sleep and were not woken. So no thread that still sleeps is counted as woken.
#[derive(Debug, Default)]
pub(super) struct IdleThreads {
    /// Number of threads that have no task: those that sleep, and one that may spin.
    pub(super) number: usize,
    /// One of them spins, and takes the next task without being woken.
    pub(super) is_spinning: bool,
    /// Number of threads that were woken and are not back.
    woken: usize,
}

impl IdleThreads {
    /// Number of threads that will look for tasks without being woken.
    fn coming(&self) -> usize {
        self.woken + usize::from(self.is_spinning)
    }

    /// Whether there is a thread that sleeps and was not woken.
    pub(super) fn has_asleep(&self) -> bool {
        self.number > self.coming()
    }

    /// Whether the caller has to wake a thread, since there are more tasks than threads that come for them.
    pub(super) fn must_wake_for(&mut self, tasks: usize) -> bool {
        tasks > self.coming() && self.must_wake_one_more()
    }

    /// Whether the caller has to wake a thread so that one more comes. False: all idle threads come already.
    pub(super) fn must_wake_one_more(&mut self) -> bool {
        let must = self.has_asleep();
        self.woken += usize::from(must);
        must
    }

    /// A thread that slept has the lock again.
    pub(super) fn is_back(&mut self) {
        // None was woken if the wake-up was spurious, or for all threads.
        self.woken = self.woken.saturating_sub(1);
    }
}
