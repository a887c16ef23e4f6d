//! [`Clock`]: the time by which a pool measures timeouts. It is stopped while the workers are
//! suspended.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

#[derive(Debug, Default)]
pub(super) struct Clock {
    /// Sum of the times for which it was stopped, in nanoseconds.
    behind_ns: AtomicU64,
    is_stopped: AtomicBool,
    stopped_at: Mutex<Option<Instant>>,
}

impl Clock {
    pub(super) fn now(&self) -> Instant {
        if self.is_stopped.load(Ordering::Acquire)
            && let Some(at) = *self.stopped_at.lock().unwrap_or_else(PoisonError::into_inner)
        {
            return at;
        }
        let behind = Duration::from_nanos(self.behind_ns.load(Ordering::Acquire));
        let now = Instant::now();
        now.checked_sub(behind).unwrap_or(now)
    }

    pub(super) fn is_stopped(&self) -> bool {
        self.is_stopped.load(Ordering::Acquire)
    }

    pub(super) fn stop(&self) {
        let now = self.now();
        *self.stopped_at.lock().unwrap_or_else(PoisonError::into_inner) = Some(now);
        self.is_stopped.store(true, Ordering::Release);
    }

    /// Continues from the time at which it was stopped.
    pub(super) fn resume(&self) {
        let mut stopped_at = self.stopped_at.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(at) = stopped_at.take() {
            let behind = u64::try_from(at.elapsed().as_nanos()).unwrap_or(u64::MAX);
            self.behind_ns.store(behind, Ordering::Release);
            self.is_stopped.store(false, Ordering::Release);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_that_was_stopped_goes_on_from_there() {
        let clock = Clock::default();
        for _ in 0..2 {
            clock.stop();
            let before = clock.now();
            std::thread::sleep(Duration::from_millis(30));
            assert_eq!(clock.now(), before);
            clock.resume();
            assert!(clock.now() >= before);
        }
        assert!(Instant::now() - clock.now() >= Duration::from_millis(60));
    }
}
