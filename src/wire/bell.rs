//! A bell in shared memory: one side sleeps until the other has something for it, and costs
//! nothing as long as nobody sleeps.

use std::sync::atomic::{AtomicU32, Ordering, fence};
use std::time::Duration;

/// Two words of shared memory: how often the bell was rung, and how many sleep.
pub(crate) struct Bell<'m> {
    pub strokes: &'m AtomicU32,
    pub sleepers: &'m AtomicU32,
}

impl Bell<'_> {
    /// Wakes whoever sleeps; to be called after that was published for which they are woken.
    pub(crate) fn ring(&self) {
        // What was published must be visible before the sleepers are counted: whoever is not
        // counted yet will look once more before they sleep.
        fence(Ordering::SeqCst);
        if self.sleepers.load(Ordering::SeqCst) > 0 {
            self.strokes.fetch_add(1, Ordering::SeqCst);
            wake(self.strokes);
        }
    }

    /// Sleeps until the bell rings, but no longer than `timeout`, and not at all if there is
    /// something already. May return early: whoever waits for something looks again.
    pub(crate) fn sleep_unless(&self, is_there: impl Fn() -> bool, timeout: Option<Duration>) {
        self.sleepers.fetch_add(1, Ordering::SeqCst);
        let strokes = self.strokes.load(Ordering::SeqCst);
        fence(Ordering::SeqCst);
        if !is_there() {
            sleep(self.strokes, strokes, timeout);
        }
        self.sleepers.fetch_sub(1, Ordering::SeqCst);
    }
}

#[cfg(target_os = "linux")]
fn wake(word: &AtomicU32) {
    use rustix::thread::futex;
    let all = i32::MAX.unsigned_abs();
    let _ = futex::wake(word, futex::Flags::empty(), all);
}

#[cfg(target_os = "linux")]
fn sleep(word: &AtomicU32, as_seen: u32, timeout: Option<Duration>) {
    use rustix::thread::futex;
    let timeout = timeout.and_then(|timeout| timeout.try_into().ok());
    // Woken, rung meanwhile, interrupted or too late: it is all the same here.
    let _ = futex::wait(word, futex::Flags::empty(), as_seen, timeout.as_ref());
}

/// Other systems have no word in shared memory to sleep at, so a sleeper looks from time to time.
#[cfg(not(target_os = "linux"))]
fn wake(_: &AtomicU32) {}

#[cfg(not(target_os = "linux"))]
fn sleep(word: &AtomicU32, as_seen: u32, timeout: Option<Duration>) {
    const LONGEST: Duration = Duration::from_micros(200);
    if word.load(Ordering::SeqCst) == as_seen {
        std::thread::sleep(timeout.map_or(LONGEST, |timeout| timeout.min(LONGEST)));
    }
}
