//! [`Throttle`]: limits the rate at which the lines of one worker are read. [`VainWaits`]: limits how often one
//! worker wakes the threads that wait for it. Without these limits, a worker that writes or wakes without end would
//! take the CPU time of the program and of the other workers.

use std::thread;
use std::time::{Duration, Instant};

/// Lines, and reports of faults, that are read in one second.
const LINES: u64 = 50_000;
/// Bytes of them that are read in one second.
const BYTES: u64 = 64 << 20;
/// How much may be read at once after a pause: what these rates allow in this time.
const BURST: Duration = Duration::from_secs(1);
/// The clock is read each time that this part of the lines or bytes of a second was read: a tenth.
const PARTS: u64 = 10;

/// Counts what one worker writes. Nothing is dropped: while the reader pauses, the pipe or the ring fills
/// up, and the worker waits.
#[derive(Debug, Default)]
pub(super) struct Throttle {
    /// Counted since the clock was read last.
    lines: u64,
    bytes: u64,
    /// What was read until then, as the time that it takes at these rates, less the time that has passed.
    debt: Duration,
    looked_at: Option<Instant>,
}

impl Throttle {
    /// Counts lines that were read, and their bytes.
    pub(super) fn count(&mut self, lines: u64, bytes: u64) {
        self.lines = self.lines.saturating_add(lines);
        self.bytes = self.bytes.saturating_add(bytes);
    }

    /// Calls `pause` with the time for which nothing more may be read, if there is one.
    pub(super) fn pause(&mut self, pause: impl FnOnce(Duration)) {
        if let Some(left) = self.left(Instant::now) {
            pause(left);
        }
    }

    fn left(&mut self, now: impl FnOnce() -> Instant) -> Option<Duration> {
        if self.lines < LINES / PARTS && self.bytes < BYTES / PARTS {
            return None;
        }
        let now = now();
        let passed = self.looked_at.map_or(BURST, |before| now.saturating_duration_since(before));
        let nanos = |count: u64, rate: u64| {
            u64::try_from(u128::from(count) * 1_000_000_000 / u128::from(rate)).unwrap_or(u64::MAX)
        };
        let used = nanos(self.lines, LINES).max(nanos(self.bytes, BYTES));
        self.debt = self.debt.saturating_sub(passed).saturating_add(Duration::from_nanos(used));
        (self.lines, self.bytes, self.looked_at) = (0, 0, Some(now));
        let left = self.debt.saturating_sub(BURST);
        (!left.is_zero()).then_some(left)
    }
}

/// Counts consecutive waits that ended although the worker had written nothing: a worker can end a wait as often as
/// it likes.
#[derive(Debug, Default)]
pub(super) struct VainWaits {
    number: u32,
}

impl VainWaits {
    /// The maximum number of such waits in a row without a pause.
    const MOST: u32 = 1_000;
    /// The pause before each further wait. A wait that is longer than this is not counted.
    const PAUSE: Duration = Duration::from_millis(1);

    /// Something has come.
    pub(super) fn reset(&mut self) {
        self.number = 0;
    }

    /// Waits, after a pause if there were too many waits in vain.
    pub(super) fn wait(&mut self, wait: impl FnOnce()) {
        if self.number < Self::MOST {
            self.number += 1;
            return wait();
        }
        thread::sleep(Self::PAUSE);
        let began = Instant::now();
        wait();
        if began.elapsed() >= Self::PAUSE {
            self.reset();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_is_read_at_the_rate_that_is_allowed_and_less_is_not_held_up() {
        let (start, mut paused) = (Instant::now(), Duration::ZERO);
        let mut throttle = Throttle::default();
        for _ in 0..1_000 {
            throttle.count(1_000, 10_000);
            paused += throttle.left(|| start + paused).unwrap_or_default();
        }
        let allowed = Duration::from_secs(1_000_000 / LINES);
        assert!(paused <= allowed && paused + 2 * BURST >= allowed, "{paused:?} of {allowed:?}");
        let mut throttle = Throttle::default();
        for second in 0..100 {
            throttle.count(LINES / 2, 1_000);
            let now = start + Duration::from_secs(second);
            assert_eq!(throttle.left(|| now), None, "{second}");
        }
    }

    #[test]
    fn waits_that_end_in_vain_too_often_have_pauses() {
        let (began, mut waits, mut number) = (Instant::now(), VainWaits::default(), 0);
        for _ in 0..VainWaits::MOST + 20 {
            waits.wait(|| number += 1);
        }
        assert_eq!(number, VainWaits::MOST + 20);
        assert!(began.elapsed() >= 20 * VainWaits::PAUSE);
        waits.wait(|| thread::sleep(VainWaits::PAUSE));
        assert_eq!(waits.number, 0, "a long wait is not in vain");
    }
}
