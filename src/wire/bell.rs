//! A bell in shared memory: one side sleeps until the other has something for it, and costs
//! nothing as long as nobody sleeps.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering, fence};
use std::thread;
use std::time::{Duration, Instant};

/// Words of shared memory: how often the bell was rung, how many sleep, and how many only doze.
pub(crate) struct Bell<'m> {
    pub strokes: &'m AtomicU32,
    pub sleepers: &'m AtomicU32,
    pub dozers: &'m AtomicU32,
}

/// How long a doze takes, unless the bell rings.
const DOZE: Duration = Duration::from_micros(200);

impl Bell<'_> {
    /// Wakes whoever sleeps or dozes; to be called after that was published for which they are
    /// woken.
    pub(crate) fn ring(&self) {
        // What was published must be visible before the sleepers are counted: whoever is not
        // counted yet will look once more before they sleep.
        fence(Ordering::SeqCst);
        let (sleepers, dozers) = (&self.sleepers, &self.dozers);
        if sleepers.load(Ordering::SeqCst) > 0 || dozers.load(Ordering::SeqCst) > 0 {
            self.strike();
        }
    }

    /// Wakes whoever sleeps. Those who doze will find out soon enough.
    pub(crate) fn ring_softly(&self) {
        fence(Ordering::SeqCst);
        if self.sleepers.load(Ordering::SeqCst) > 0 {
            self.strike();
        }
    }

    /// Wakes whoever dozes, when what they were spared is all that will come for now.
    pub(crate) fn rouse(&self) {
        fence(Ordering::SeqCst);
        if self.dozers.load(Ordering::SeqCst) > 0 {
            self.strike();
        }
    }

    /// Wakes whoever is there, also where the memory knows of nobody: the other side may have
    /// written there what it liked.
    pub(crate) fn toll(&self) {
        fence(Ordering::SeqCst);
        self.strike();
    }

    fn strike(&self) {
        self.strokes.fetch_add(1, Ordering::SeqCst);
        wake(self.strokes);
    }

    /// Sleeps until the bell rings, and not at all if there is something already. May return
    /// early: whoever waits for something looks again.
    pub(crate) fn sleep_unless(&self, is_there: impl Fn() -> bool) {
        self.sleep_among(self.sleepers, is_there, None);
    }

    /// Sleeps for a short while, or until the bell rings aloud.
    pub(crate) fn doze_unless(&self, is_there: impl Fn() -> bool) {
        self.sleep_among(self.dozers, is_there, Some(DOZE));
    }

    /// The same, but stays awake for a moment where that is likely to pay.
    pub(crate) fn wait_unless(&self, patience: &Patience, is_there: impl Fn() -> bool) {
        patience.wait(&is_there, || self.sleep_unless(&is_there));
    }

    fn sleep_among(
        &self,
        sleepers: &AtomicU32,
        is_there: impl Fn() -> bool,
        timeout: Option<Duration>,
    ) {
        sleepers.fetch_add(1, Ordering::SeqCst);
        let strokes = self.strokes.load(Ordering::SeqCst);
        fence(Ordering::SeqCst);
        if !is_there() {
            sleep(self.strokes, strokes, timeout);
        }
        sleepers.fetch_sub(1, Ordering::SeqCst);
    }
}

/// Whether it pays to stay awake: to sleep and to be woken takes longer than many a short task. As
/// long as waits are short, the next one is awaited awake for a moment; one that is not costs no
/// more than that moment, and the next ones nothing.
///
/// Whoever stays awake yields the CPU to everybody else who wants it.
#[derive(Debug, Default)]
pub(crate) struct Patience {
    pays: AtomicBool,
}

/// About what it takes to sleep and be woken.
const MOMENT: Duration = Duration::from_micros(50);

impl Patience {
    fn wait(&self, is_there: impl Fn() -> bool, sleep: impl FnOnce()) {
        if is_there() {
            return;
        }
        let begun = Instant::now();
        if self.pays.load(Ordering::Relaxed) {
            while begun.elapsed() < MOMENT {
                thread::yield_now();
                if is_there() {
                    return;
                }
            }
        }
        sleep();
        self.pays.store(begun.elapsed() < 2 * MOMENT, Ordering::Relaxed);
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
