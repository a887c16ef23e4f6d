//! The primitives of event counts, rings and claims: atomics, memory, the clock, and sleep at a
//! word of memory. `tests/models` compiles the same code with primitives of a model, and explores
//! the orders of their steps.

use std::time::Duration;

pub(super) use procession_os::shared::SharedBytes as Bytes;
pub(super) use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
pub(super) use std::thread::yield_now;
pub(super) use std::time::Instant;

/// Wakes all threads that sleep at the word.
#[cfg(all(target_os = "linux", not(feature = "portable")))]
pub(super) fn wake(word: &AtomicU32) {
    use rustix::thread::futex;
    let all = i32::MAX.unsigned_abs();
    let _ = futex::wake(word, futex::Flags::empty(), all);
}

/// Sleeps until the word is woken, unless its value is not `as_seen` any more.
#[cfg(all(target_os = "linux", not(feature = "portable")))]
pub(super) fn sleep(word: &AtomicU32, as_seen: u32, timeout: Option<Duration>) {
    use rustix::thread::futex;
    let timeout = timeout.and_then(|timeout| timeout.try_into().ok());
    // The caller checks again, so it makes no difference why this returns.
    let _ = futex::wait(word, futex::Flags::empty(), as_seen, timeout.as_ref());
}

/// Without a futex in shared memory, sleepers poll.
#[cfg(not(all(target_os = "linux", not(feature = "portable"))))]
pub(super) fn wake(_: &AtomicU32) {}

/// Polls the word, with pauses of a quarter of the time that the sleep has lasted: a wake-up is noticed
/// late by a quarter of the wait or 20 ms, whichever is less, and an idle sleeper polls 50 times a second.
#[cfg(not(all(target_os = "linux", not(feature = "portable"))))]
pub(super) fn sleep(word: &AtomicU32, as_seen: u32, timeout: Option<Duration>) {
    const SHORTEST: Duration = Duration::from_micros(50);
    const LONGEST: Duration = Duration::from_millis(20);
    let since = Instant::now();
    while word.load(Ordering::SeqCst) == as_seen {
        let asleep = since.elapsed();
        let left = timeout.map_or(LONGEST, |timeout| timeout.saturating_sub(asleep));
        if left.is_zero() {
            return;
        }
        std::thread::sleep((asleep / 4).clamp(SHORTEST, LONGEST).min(left));
    }
}
