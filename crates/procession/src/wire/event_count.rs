//! A bell in shared memory: one side sleeps until the other has something for it, and costs
//! nothing as long as nobody sleeps.
//!
//! Whoever wants to sleep notes first how often the bell was rung, then that there is a sleeper,
//! and then looks once more whether there is something. Whoever rings takes the note of sleepers
//! down before the stroke. So a note that was taken down is followed by a stroke that its sleeper
//! has not counted, and one that was not will be found by the next ring; and sleepers that were
//! woken, but have not got a CPU yet, are not woken over and over.
//!
//! All that needs no fence, but that there be one order of these steps for all: what is waited for
//! has to be published, and looked for, with `SeqCst` as well, or under a lock. Then whoever rings
//! finds the note, or whoever noted finds what was published.

use std::time::Duration;

use super::sync::{AtomicBool, AtomicU32, Instant, Ordering, sleep, wake, yield_now};

/// Words of shared memory: how often the bell was rung, whether somebody may be asleep, and whether
/// somebody may be dozing.
pub(crate) struct EventCount<'m> {
    pub strokes: &'m AtomicU32,
    pub sleepers: &'m AtomicU32,
    pub dozers: &'m AtomicU32,
    /// How long one sleeps at most, where the other side may write into these words what it likes.
    pub longest: Option<Duration>,
}

/// How long a doze takes, unless the bell rings.
const DOZE: Duration = Duration::from_micros(200);

impl EventCount<'_> {
    /// Wakes whoever sleeps or dozes; to be called after that was published for which they are
    /// woken.
    pub(crate) fn ring(&self) {
        // Both notes, for the stroke wakes all.
        if take_down(self.sleepers) | take_down(self.dozers) {
            self.revoke();
        }
    }

    /// Wakes whoever sleeps. Those who doze will find out soon enough.
    pub(crate) fn notify_if_asleep(&self) {
        if take_down(self.sleepers) {
            self.revoke();
        }
    }

    /// Wakes whoever dozes, when what they were spared is all that will come for now.
    pub(crate) fn notify_all(&self) {
        if take_down(self.dozers) {
            self.revoke();
        }
    }

    /// Wakes whoever is there, also where the memory knows of nobody: the other side may have
    /// written there what it liked.
    pub(crate) fn notify_counted(&self) {
        self.revoke();
    }

    fn revoke(&self) {
        self.strokes.fetch_add(1, Ordering::SeqCst);
        wake(self.strokes);
    }

    /// Sleeps until the bell rings, and not at all if there is something already. May return
    /// early: whoever waits for something looks again.
    pub(crate) fn sleep_unless(&self, is_there: impl Fn() -> bool) {
        self.sleep_among(self.sleepers, is_there, self.longest);
    }

    /// Sleeps for a short while, or until the bell rings aloud.
    pub(crate) fn doze_unless(&self, is_there: impl Fn() -> bool) {
        self.sleep_among(self.dozers, is_there, Some(DOZE));
    }

    /// Sleeps until the bell rings, but not for longer than this.
    pub(crate) fn sleep_at_most(&self, timeout: Duration, is_there: impl Fn() -> bool) {
        self.sleep_among(self.sleepers, is_there, Some(timeout));
    }

    /// Sleeps until the bell rings, but stays awake for a moment where that is likely to pay.
    pub(crate) fn wait_unless(&self, patience: &AdaptiveSpin, is_there: impl Fn() -> bool) {
        patience.wait(&is_there, || self.sleep_unless(&is_there));
    }

    fn sleep_among(
        &self,
        sleepers: &AtomicU32,
        is_there: impl Fn() -> bool,
        timeout: Option<Duration>,
    ) {
        let strokes = self.strokes.load(Ordering::SeqCst);
        sleepers.store(1, Ordering::SeqCst);
        if !is_there() {
            sleep(self.strokes, strokes, timeout);
        }
        // The note stays, for others may sleep as well: that costs one stroke in vain at most.
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
/// Whoever stays awake yields the CPU to everybody else who wants it.
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
