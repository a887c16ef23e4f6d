//! An event count in shared memory: one side sleeps until the other has published something, and a
//! notification costs next to nothing while no thread sleeps.
//!
//! | step | the thread that waits | the thread that notifies |
//! |---|---|---|
//! | 1 | reads the count | publishes |
//! | 2 | sets the note that there is a sleeper | takes the note, if it is set |
//! | 3 | looks once more for what it waits for | adds 1 to the count, if it took a note |
//! | 4 | sleeps, unless the count has changed | wakes the sleepers |
//!
//! A note that was taken is always followed by a change of the count, so no wake-up is lost. A note
//! that was not taken is found by the next notification. Sleepers that were woken and have no CPU yet
//! are not woken again.
//!
//! No fence is needed, but there must be one order of these steps for all threads: what is waited for
//! is published, and looked for, with `SeqCst` as well, or under a lock. Then either the notifier finds
//! the note, or the sleeper finds what was published.

use std::time::Duration;

use super::sync::{AtomicBool, AtomicU32, Instant, Ordering, sleep, wake, yield_now};

/// Words of shared memory: the count of notifications, the note that a thread may sleep, and the
/// note that a thread may doze (sleep for a short while, to find many records at once).
pub(crate) struct EventCount<'m> {
    pub count: &'m AtomicU32,
    pub sleepers: &'m AtomicU32,
    pub dozers: &'m AtomicU32,
    /// How long one sleeps at most, where the other side may write into these words what it likes.
    pub longest: Option<Duration>,
}

/// How long a doze takes without a notification.
const DOZE: Duration = Duration::from_micros(200);

impl EventCount<'_> {
    /// Wakes all threads that sleep or doze. Publish first.
    pub(crate) fn notify(&self) {
        // Both notes, since the count wakes all.
        if take_down(self.sleepers) | take_down(self.dozers) {
            self.advance();
        }
    }

    /// Wakes all threads that sleep. Dozing ones wake by themselves soon.
    pub(crate) fn notify_if_asleep(&self) {
        if take_down(self.sleepers) {
            self.advance();
        }
    }

    /// Wakes all threads that doze, when nothing more will come for now.
    pub(crate) fn notify_dozing(&self) {
        if take_down(self.dozers) {
            self.advance();
        }
    }

    /// Wakes all threads, also where no note is set: the other side may have written false notes.
    pub(crate) fn notify_always(&self) {
        self.advance();
    }

    fn advance(&self) {
        self.count.fetch_add(1, Ordering::SeqCst);
        wake(self.count);
    }

    /// Sleeps until a notification, and not at all if there is something already. May return early:
    /// the caller looks again.
    pub(crate) fn sleep_unless(&self, is_there: impl Fn() -> bool) {
        self.sleep_among(self.sleepers, is_there, self.longest);
    }

    /// Sleeps for a short while, or until a notification that wakes dozing threads.
    pub(crate) fn doze_unless(&self, is_there: impl Fn() -> bool) {
        self.sleep_among(self.dozers, is_there, Some(DOZE));
    }

    /// Sleeps until a notification, but not for longer than this.
    pub(crate) fn sleep_at_most(&self, timeout: Duration, is_there: impl Fn() -> bool) {
        self.sleep_among(self.sleepers, is_there, Some(timeout));
    }

    /// Sleeps until a notification, but stays awake for a moment where that is likely to save time.
    pub(crate) fn wait_unless(&self, patience: &AdaptiveSpin, is_there: impl Fn() -> bool) {
        patience.wait(&is_there, || self.sleep_unless(&is_there));
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
        // The note stays, for other threads may sleep as well: that costs one needless wake-up at most.
    }
}

/// Takes a note of sleepers down; false if there was none.
fn take_down(sleepers: &AtomicU32) -> bool {
    sleepers.load(Ordering::SeqCst) != 0 && sleepers.swap(0, Ordering::SeqCst) != 0
}

/// Whether it pays to stay awake: to sleep and to be woken takes longer than many a short task. As
/// long as waits are short, the next one is awaited awake for a moment; one that is not costs no
/// more than that moment, and the next ones nothing.
///
/// A thread that stays awake yields the CPU to all others.
#[derive(Debug, Default)]
pub(crate) struct AdaptiveSpin {
    pays: AtomicBool,
}

/// About what it takes to sleep and be woken.
const MOMENT: Duration = Duration::from_micros(50);

impl AdaptiveSpin {
    fn wait(&self, is_there: impl Fn() -> bool, sleep: impl FnOnce()) {
        if is_there() {
            return;
        }
        let begun = Instant::now();
        if self.pays.load(Ordering::Relaxed) {
            while begun.elapsed() < MOMENT {
                yield_now();
                if is_there() {
                    return;
                }
            }
        }
        sleep();
        self.pays.store(begun.elapsed() < 2 * MOMENT, Ordering::Relaxed);
    }
}
