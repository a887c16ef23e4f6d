//! An event count in shared memory: threads of one side sleep until the other side has published
//! something. A notification costs two loads while no thread sleeps.
//!
//! | step | the thread that waits | the thread that notifies |
//! |---|---|---|
//! | 1 | reads `count` | publishes |
//! | 2 | sets `sleepers` (or `dozers`) | clears `sleepers`, if it is set |
//! | 3 | checks once more for what it waits for | adds 1 to `count`, if it cleared `sleepers` |
//! | 4 | sleeps, unless `count` has changed | wakes all threads that sleep at `count` |
//!
//! Clearing `sleepers` is always followed by an increment of `count`, so no wake-up is lost. If the
//! notifier does not see `sleepers`, the next one does. Threads that were woken and have no CPU yet
//! are not woken again.
//!
//! All threads must see these steps in one order. So the published value is written and read with
//! `SeqCst` too, or under a lock. Then either the notifier sees `sleepers`, or the sleeper sees the
//! value.

use std::time::Duration;

use super::sync::{AtomicBool, AtomicU32, Instant, Ordering, sleep, wake, yield_now};

/// The words of an event count. A thread may sleep, or doze: sleep for [`DOZE`] at most, to find
/// many records at once.
pub(crate) struct EventCount<'m> {
    /// The number of notifications, wrapping.
    pub count: &'m AtomicU32,
    /// 1 if a thread may sleep.
    pub sleepers: &'m AtomicU32,
    /// 1 if a thread may doze.
    pub dozers: &'m AtomicU32,
    /// The longest sleep. Set where the other side is not trusted: it could write words that lose a
    /// wake-up.
    pub longest: Option<Duration>,
}

/// The longest doze.
const DOZE: Duration = Duration::from_micros(200);

impl EventCount<'_> {
    /// Wakes all threads that sleep or doze. To be called after publishing, as all `notify`
    /// methods.
    pub(crate) fn notify(&self) {
        // Both words are cleared, since the count wakes all. Not `||`, which would skip the second.
        if clear(self.sleepers) | clear(self.dozers) {
            self.advance();
        }
    }

    /// Wakes all threads if one sleeps. Dozing threads wake by themselves soon.
    pub(crate) fn notify_if_asleep(&self) {
        if clear(self.sleepers) {
            self.advance();
        }
    }

    /// Wakes all threads if one dozes: no further records come for now.
    pub(crate) fn notify_dozing(&self) {
        if clear(self.dozers) {
            self.advance();
        }
    }

    /// Wakes all threads whatever the words say: the other side may have overwritten them.
    pub(crate) fn notify_always(&self) {
        self.advance();
    }

    fn advance(&self) {
        self.count.fetch_add(1, Ordering::SeqCst);
        wake(self.count);
    }

    /// Sleeps until a notification, unless `is_there`. May return early, so the caller checks
    /// again.
    pub(crate) fn sleep_unless(&self, is_there: impl Fn() -> bool) {
        self.sleep_among(self.sleepers, is_there, self.longest);
    }

    /// Sleeps for [`DOZE`], or until a notification that wakes dozing threads.
    pub(crate) fn doze_unless(&self, is_there: impl Fn() -> bool) {
        self.sleep_among(self.dozers, is_there, Some(DOZE));
    }

    /// Sleeps until a notification, for `timeout` at most.
    pub(crate) fn sleep_at_most(&self, timeout: Duration, is_there: impl Fn() -> bool) {
        self.sleep_among(self.sleepers, is_there, Some(timeout));
    }

    /// Sleeps until a notification, after a spin where that is likely to save time.
    pub(crate) fn wait_unless(&self, spin: &AdaptiveSpin, is_there: impl Fn() -> bool) {
        spin.wait(&is_there, || self.sleep_unless(&is_there));
    }

    fn sleep_among(
        &self,
        sleepers: &AtomicU32,
        is_there: impl Fn() -> bool,
        timeout: Option<Duration>,
    ) {
        let count = self.count.load(Ordering::SeqCst);
        sleepers.store(1, Ordering::SeqCst);
        if !is_there() {
            sleep(self.count, count, timeout);
        }
        // Not cleared, since other threads may sleep as well. That costs one needless wake-up at
        // most.
    }
}

/// Clears a word; false if it was clear.
fn clear(sleepers: &AtomicU32) -> bool {
    sleepers.load(Ordering::SeqCst) != 0 && sleepers.swap(0, Ordering::SeqCst) != 0
}

/// Decides whether a thread spins before it sleeps. Sleep and wake-up take longer than many short
/// tasks. While waits are short, the next wait begins with a spin of at most [`SPIN`]. After a long
/// wait the next ones sleep at once, until a wait is short again.
///
/// A spinning thread yields the CPU at each turn.
#[derive(Debug, Default)]
pub(crate) struct AdaptiveSpin {
    /// The last wait was short.
    pays: AtomicBool,
}

/// The time that sleep and wake-up take, about.
const SPIN: Duration = Duration::from_micros(50);

impl AdaptiveSpin {
    pub(crate) fn wait(&self, is_there: impl Fn() -> bool, sleep: impl FnOnce()) {
        if is_there() {
            return;
        }
        let begun = Instant::now();
        if self.pays.load(Ordering::Relaxed) {
            while begun.elapsed() < SPIN {
                yield_now();
                if is_there() {
                    return;
                }
            }
        }
        sleep();
        self.pays.store(begun.elapsed() < 2 * SPIN, Ordering::Relaxed);
    }
}
