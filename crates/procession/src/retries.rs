//! Whether a task that came to grief is tried again, and when.

use std::fmt;
use std::time::Duration;

/// When a task is run again: never, unless this is asked for.
///
/// ```
/// # use procession::Retries;
/// # use std::time::Duration;
/// // Up to three runs in all, if its worker crashes or it takes too long:
/// let retries = Retries::times(2);
/// // Also if it returns an error or panics, and with longer pauses:
/// let retries = retries.on_failure(true).backoff(Duration::from_secs(1), Duration::from_secs(60));
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub struct Retries {
    times: u32,
    on_crash: bool,
    on_timeout: bool,
    on_failure: bool,
    first: Duration,
    longest: Duration,
}

/// What came between a task and its output.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Fault {
    /// Its worker died.
    Crash,
    /// It ran longer than it may.
    Timeout,
    /// It returned an error or panicked.
    Failure,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Crash => "crash",
            Self::Timeout => "timeout",
            Self::Failure => "failure",
        })
    }
}

impl Retries {
    /// Each task is run once.
    pub const fn none() -> Self {
        Self::times(0)
    }

    /// Up to `times` further runs after a crash or a timeout, but not after a failure, which a
    /// task usually repeats; with pauses of 10 ms, 20 ms, … up to 1 s between them.
    pub const fn times(times: u32) -> Self {
        Self {
            times,
            on_crash: true,
            on_timeout: true,
            on_failure: false,
            first: Duration::from_millis(10),
            longest: Duration::from_secs(1),
        }
    }

    /// Whether to run a task again whose worker died.
    pub const fn on_crash(mut self, yes: bool) -> Self {
        self.on_crash = yes;
        self
    }

    /// Whether to run a task again that ran longer than it may.
    pub const fn on_timeout(mut self, yes: bool) -> Self {
        self.on_timeout = yes;
        self
    }

    /// Whether to run a task again that returned an error or panicked.
    pub const fn on_failure(mut self, yes: bool) -> Self {
        self.on_failure = yes;
        self
    }

    /// The pause before the second run, which doubles with each further one, and the longest. Each
    /// is shortened by up to a half, by chance, so that tasks that failed together do not come
    /// back together. A `first` of zero is no pause at all.
    pub const fn backoff(mut self, first: Duration, longest: Duration) -> Self {
        self.first = first;
        self.longest = longest;
        self
    }

    /// The pause before the next run of a task that was begun `begun` times, or `None` if there is
    /// to be no further one. `salt` decides about the jitter.
    pub(crate) fn pause(&self, fault: Fault, begun: u32, salt: u64) -> Option<Duration> {
        let is_covered = match fault {
            Fault::Crash => self.on_crash,
            Fault::Timeout => self.on_timeout,
            Fault::Failure => self.on_failure,
        };
        if !is_covered || begun > self.times {
            return None;
        }
        let doublings = 2u32.saturating_pow(begun.saturating_sub(1));
        let whole = self.first.saturating_mul(doublings).min(self.longest);
        let mut chance = fastrand::Rng::with_seed(salt.wrapping_add(u64::from(begun) << 48));
        Some(whole.mul_f64(0.5 + chance.f64() / 2.0))
    }
}

impl Default for Retries {
    fn default() -> Self {
        Self::none()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_task_is_begun_as_often_as_allowed_and_only_after_what_is_covered() {
        let retries = Retries::times(2);
        assert!(retries.pause(Fault::Crash, 1, 0).is_some());
        assert!(retries.pause(Fault::Timeout, 2, 0).is_some());
        assert!(retries.pause(Fault::Crash, 3, 0).is_none());
        assert!(retries.pause(Fault::Failure, 1, 0).is_none());
        assert!(retries.on_failure(true).pause(Fault::Failure, 1, 0).is_some());
        assert!(Retries::none().pause(Fault::Crash, 1, 0).is_none());
    }

    #[test]
    fn pauses_double_up_to_the_longest_and_are_shortened_by_chance() {
        let (first, longest) = (Duration::from_millis(100), Duration::from_millis(300));
        let retries = Retries::times(u32::MAX).backoff(first, longest);
        for (begun, whole) in [(1, 100), (2, 200), (3, 300), (40, 300), (u32::MAX, 300)] {
            let whole = Duration::from_millis(whole);
            for salt in 0..100 {
                let pause = retries.pause(Fault::Crash, begun, salt).expect("a retry");
                assert!((whole / 2..=whole).contains(&pause), "{begun}: {pause:?}");
            }
        }
    }
}
