//! Retries: after which faults a task has another attempt, and after which pause.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// How often, after which [`Fault`]s and after which pauses a task is run again. The default is
/// [`none`](Self::none).
///
/// An attempt counts when the task has begun. If a worker dies before it began a task, the task is sent
/// to another worker, and this does not count as a retry. After the last attempt the future completes
/// with the error of that attempt.
///
/// ```
/// # use procession::Retries;
/// # use std::time::Duration;
/// // At most three attempts, if the worker crashes or the task exceeds its timeout:
/// let retries = Retries::times(2);
/// // Also if the task returns an error or panics, with pauses of about 1 s, 2 s, 4 s, … 60 s:
/// let retries = retries.on_failure(true).backoff(Duration::from_secs(1), Duration::from_secs(60));
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[must_use]
pub struct Retries {
    times: u32,
    on_crash: bool,
    on_timeout: bool,
    on_failure: bool,
    first_pause: Duration,
    longest_pause: Duration,
}

/// Why an attempt of a task gave no output.
///
/// ```
/// use procession::PoolEvent;
///
/// fn log(event: &PoolEvent) {
///     if let PoolEvent::TaskRetried { task, fault, pause, .. } = event {
///         eprintln!("task {task} is run again in {pause:?} after a {fault}");
///     }
/// }
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Fault {
    /// The worker died.
    Crash,
    /// The task ran for longer than its timeout, and the worker was killed.
    Timeout,
    /// The task returned an error or panicked.
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
    /// One attempt.
    ///
    /// ```
    /// # use procession::{Retries, TaskOptions};
    /// let once = TaskOptions::new().retries(Retries::none()); // whatever the pool does
    /// ```
    pub const fn none() -> Self {
        Self::times(0)
    }

    /// Up to `times` further attempts after a crash or a timeout, with pauses of 10 ms, 20 ms, … up
    /// to 1 s. A failure is not retried, since most tasks would fail again: see
    /// [`on_failure`](Self::on_failure).
    ///
    /// ```
    /// # use procession::Retries;
    /// let retries = Retries::times(2); // up to three attempts
    /// ```
    pub const fn times(times: u32) -> Self {
        Self {
            times,
            on_crash: true,
            on_timeout: true,
            on_failure: false,
            first_pause: Duration::from_millis(10),
            longest_pause: Duration::from_secs(1),
        }
    }

    /// Whether a task is retried after a crash. Default of [`times`](Self::times): yes.
    ///
    /// ```
    /// # use procession::Retries;
    /// let retries = Retries::times(2).on_crash(false); // a crash would come again
    /// ```
    pub const fn on_crash(mut self, yes: bool) -> Self {
        self.on_crash = yes;
        self
    }

    /// Whether a task is retried after a timeout. Default of [`times`](Self::times): yes.
    ///
    /// ```
    /// # use procession::Retries;
    /// let retries = Retries::times(2).on_timeout(false);
    /// ```
    pub const fn on_timeout(mut self, yes: bool) -> Self {
        self.on_timeout = yes;
        self
    }

    /// Whether a task is retried after an error or a panic of its own. Default: no.
    ///
    /// ```
    /// # use procession::Retries;
    /// let retries = Retries::times(2).on_failure(true); // of a server that is away at times
    /// ```
    pub const fn on_failure(mut self, yes: bool) -> Self {
        self.on_failure = yes;
        self
    }

    /// The pauses: `first` before the second attempt, twice as long before each further one, and at
    /// most `longest`. Each is shortened by a random part of up to a half, so that tasks that
    /// failed together do not run again together. With a `first` of zero there is no pause.
    ///
    /// ```
    /// # use procession::Retries;
    /// # use std::time::Duration;
    /// let retries = Retries::times(5).backoff(Duration::from_secs(1), Duration::from_secs(60));
    /// ```
    pub const fn backoff(mut self, first: Duration, longest: Duration) -> Self {
        self.first_pause = first;
        self.longest_pause = longest;
        self
    }

    /// The pause after the attempt number `attempts` ended with a fault. `None` if there is no
    /// further attempt. `salt` seeds the random part.
    pub(crate) fn pause(&self, fault: Fault, attempts: u32, salt: u64) -> Option<Duration> {
        let is_covered = match fault {
            Fault::Crash => self.on_crash,
            Fault::Timeout => self.on_timeout,
            Fault::Failure => self.on_failure,
        };
        if !is_covered || attempts > self.times {
            return None;
        }
        let doublings = 2u32.saturating_pow(attempts.saturating_sub(1));
        let whole = self.first_pause.saturating_mul(doublings).min(self.longest_pause);
        let mut rng = fastrand::Rng::with_seed(salt.wrapping_add(u64::from(attempts) << 48));
        Some(whole.mul_f64(0.5 + rng.f64() / 2.0))
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
    fn a_task_is_retried_as_often_as_allowed_and_only_after_covered_faults() {
        let retries = Retries::times(2);
        assert!(retries.pause(Fault::Crash, 1, 0).is_some());
        assert!(retries.pause(Fault::Timeout, 2, 0).is_some());
        assert!(retries.pause(Fault::Crash, 3, 0).is_none());
        assert!(retries.pause(Fault::Failure, 1, 0).is_none());
        assert!(retries.on_failure(true).pause(Fault::Failure, 1, 0).is_some());
        assert!(Retries::none().pause(Fault::Crash, 1, 0).is_none());
    }

    #[test]
    fn pauses_double_up_to_the_longest_and_have_a_random_part() {
        let (first, longest) = (Duration::from_millis(100), Duration::from_millis(300));
        let retries = Retries::times(u32::MAX).backoff(first, longest);
        for (attempts, whole) in [(1, 100), (2, 200), (3, 300), (40, 300), (u32::MAX, 300)] {
            let whole = Duration::from_millis(whole);
            for salt in 0..100 {
                let pause = retries.pause(Fault::Crash, attempts, salt).expect("a retry");
                assert!((whole / 2..=whole).contains(&pause), "{attempts}: {pause:?}");
            }
        }
    }
}
