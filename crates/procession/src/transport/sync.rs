//! What event counts, rings and claims are made of: atomics, memory, the clock, and sleep at a
//! word of memory. A model puts its own in place of these (see `tests/models`), so that the code
//! itself is tried under every order of steps.

use std::time::Duration;

pub(super) use procession_os::shared::SharedBytes as Bytes;
pub(super) use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
pub(super) use std::thread::yield_now;
pub(super) use std::time::Instant;

/// Wakes all that sleep at the word.
#[cfg(target_os = "linux")]
pub(super) fn wake(word: &AtomicU32) {
    use rustix::thread::futex;
    let all = i32::MAX.unsigned_abs();
    let _ = futex::wake(word, futex::Flags::empty(), all);
}

/// Sleeps until the word is woken, and not at all if it is not as it was seen.
#[cfg(target_os = "linux")]
pub(super) fn sleep(word: &AtomicU32, as_seen: u32, timeout: Option<Duration>) {
    use rustix::thread::futex;
    let timeout = timeout.and_then(|timeout| timeout.try_into().ok());
    // Woken, rung meanwhile, interrupted or too late: it is all the same here.
    let _ = futex::wait(word, futex::Flags::empty(), as_seen, timeout.as_ref());
}

/// Other systems have no word in shared memory to sleep at, so a sleeper looks from time to time.
#[cfg(not(target_os = "linux"))]
pub(super) fn wake(_: &AtomicU32) {}

#[cfg(not(target_os = "linux"))]
pub(super) fn sleep(word: &AtomicU32, as_seen: u32, timeout: Option<Duration>) {
    const LONGEST: Duration = Duration::from_micros(200);
    if word.load(Ordering::SeqCst) == as_seen {
        std::thread::sleep(timeout.map_or(LONGEST, |timeout| timeout.min(LONGEST)));
    }
}
